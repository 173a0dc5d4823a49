"""One check for all that leaves a model and all that enters a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .errors import NonFiniteError


def check_finite(values: Any, what: str, remedy: str = "") -> None:
    """Refuse numbers that are NaN or infinite: every comparison with NaN is false, so scores of it look like results.

    Args:
        values: Array or tensor of any shape and type.
        what: What they are and of what, such as "squat.npy: the probabilities".
        remedy: What to do about it.

    Raises:
        NonFiniteError: If any is; the message says how many.
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
