"""Action segmentation: frame accuracy, edit score and F1 of segments (Lea et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..postprocessing import segments_of
from .classification import agreement

OVERLAPS = (0.10, 0.25, 0.50)


def segmentation_metrics(
    predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], overlaps: Sequence[float] = OVERLAPS
) -> dict[str, float]:
    """Frame accuracy, edit score and F1 of segments, all in [0, 1].

    Args:
        predicted: Class of every frame of each video, 0 the background.
        truth: The same, as it is.
        overlaps: Shares of the union from which on a segment is right; each true segment counts once.

    Returns:
        `frame_accuracy` over all frames, the background too; `edit`, 1 less the edit distance of the orders of
        segments over the longer one's number, the mean over videos (1 where neither has any); `F1@k` for k in percent,
        over all segments of all videos (0 where none is right).

    Raises:
        ValueError: If the videos or their lengths differ, or there are none.
    """
    if len(predicted) != len(truth) or any(len(a) != len(b) for a, b in zip(predicted, truth, strict=True)):
        raise ValueError("predictions and truth must be of the same videos, frame for frame")
    if not sum(map(len, truth)):
        raise ValueError("there is no frame to score")
    pairs = [(segments_of(a), segments_of(b)) for a, b in zip(predicted, truth, strict=True)]
    metrics = {
        "frame_accuracy": agreement(np.concatenate(predicted), np.concatenate(truth)),
        "edit": float(np.mean([edit_score(a[:, 0], b[:, 0]) for a, b in pairs])),
    }
    for overlap in overlaps:
        hits = sum(_hits(a, b, overlap) for a, b in pairs)
        total = sum(len(a) + len(b) for a, b in pairs)
        metrics[f"F1@{round(100 * overlap)}"] = 2 * hits / total if total else 0.0
    return metrics


def edit_score(predicted: np.ndarray, truth: np.ndarray) -> float:
    """1 less the Levenshtein distance of two orders over the longer one's length."""
    row = np.arange(len(truth) + 1)
    for number, label in enumerate(predicted, start=1):
        changed = np.minimum(row[:-1] + (truth != label), row[1:] + 1)
        row = np.concatenate([[number], changed])
        # Insertions pass a cost on along the row: the smallest of what stands before, and one more for each step.
        steps = np.arange(len(row))
        row = np.minimum.accumulate(row - steps) + steps
    return 1 - row[-1] / max(len(predicted), len(truth), 1)


def _hits(predicted: np.ndarray, truth: np.ndarray, overlap: float) -> int:
    """Predicted segments that are right: each takes the true one of its class that it overlaps most, if it is free."""
    free = np.ones(len(truth), dtype=bool)
    hits = 0
    for label, start, end in predicted if len(truth) else ():
        shared = np.minimum(end, truth[:, 2]) - np.maximum(start, truth[:, 1])
        union = np.maximum(end, truth[:, 2]) - np.minimum(start, truth[:, 1])
        score = np.where(truth[:, 0] == label, shared / union, 0.0)
        best = int(score.argmax())
        if score[best] >= overlap and free[best]:
            free[best] = False
            hits += 1
    return hits
