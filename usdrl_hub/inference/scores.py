"""Scores of classes: from logits to probabilities, checked and ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..configuration_usdrl import USDRLConfig
from ..errors import NonFiniteError
from ..finite import check_finite
from ..sequence import SkeletonSequence
from .source import ErrorHandler

# The answer where a clip is like no class of the model.
NONE_OF_THESE = "none of these"
# Why the result for one clip is NaN or infinite where that of others is not.
NOT_FINITE = "its coordinates are too large for the model, or the model has diverged or is damaged"


def top_classes(probabilities: np.ndarray, class_names: Sequence[str], k: int) -> list[tuple[str, float]]:
    """The `k` most probable classes with their probabilities ``(K,)``, in descending order."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(class_names[index], float(probabilities[index])) for index in order]


def class_scores(logits: torch.Tensor, config: USDRLConfig) -> torch.Tensor:
    """Scores in float32 of logits ``(..., K)``, by the model's `problem_type`.

    Probabilities that sum to 1; for ``"multi_label_classification"`` one independent probability per class; for
    ``"regression"`` the numbers themselves.
    """
    values = logits.float()
    if config.problem_type == "regression":
        return values
    return values.sigmoid() if config.problem_type == "multi_label_classification" else values.softmax(dim=-1)


def check_min_similarity(threshold: float | None) -> None:
    """Refuse a similarity below which clips are none of the classes that is outside [0, 1].

    Raises:
        ValueError: If it is.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a similarity from 0 to 1, got {threshold}")


def is_single_label(config: USDRLConfig) -> bool:
    """Whether the classes of a head exclude each other."""
    return config.problem_type in (None, "single_label_classification")


def finite_rows(
    sequences: Sequence[SkeletonSequence], values: np.ndarray, what: str, on_error: ErrorHandler | None
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each sequence with its result, and leave out those whose result is not finite.

    Args:
        sequences: N sequences.
        values: Results ``(N, ...)``.
        what: What the results are, for the error.
        on_error: Called with the error of a sequence whose result has NaN or infinity; None raises it.

    Raises:
        NonFiniteError: See `on_error`; the message names the sequence.
    """
    if np.isfinite(values).all():
        # Checked at once, which is ten times faster than row by row.
        yield from zip(sequences, values, strict=True)
        return
    for sequence, row in zip(sequences, values, strict=True):
        try:
            check_finite(row, f"{sequence.name or 'sequence'}: {what}", NOT_FINITE)
        except NonFiniteError as error:
            if on_error is None:
                raise
            on_error(error)
        else:
            yield sequence, row
