"""The check for NaN and infinity of everything that leaves a model or enters a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .errors import NonFiniteError


def check_finite(values: Any, what: str, remedy: str = "") -> None:
    """Refuse NaN and infinity: every comparison with NaN is false, so its scores would look like results.

    Args:
        values: Array or tensor of any shape and type.
        what: What the values are, such as "squat.npy: the probabilities".
        remedy: How to fix it, for the message.

    Raises:
        NonFiniteError: If a value is NaN or infinite; the message says how many are.
    """
    if isinstance(values, torch.Tensor):
        if bool(torch.isfinite(values).all()):
            return
        wrong, count = int((~torch.isfinite(values)).sum()), values.numel()
    else:
        finite = np.isfinite(np.asarray(values))
        if finite.all():
            return
        wrong, count = int((~finite).sum()), finite.size
    remedy = remedy or "the model has diverged, or its weights are damaged: take another checkpoint"
    raise NonFiniteError(f"{what}: {wrong} of {count} numbers are NaN or infinite: {remedy}")
