"""Metrics of action segmentation: frame accuracy, edit score and segmental F1 (Lea et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..postprocessing import segments_of
from .classification import agreement

OVERLAPS = (0.10, 0.25, 0.50)


def segmentation_metrics(
    predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], overlaps: Sequence[float] = OVERLAPS
) -> dict[str, float]:
    """Frame accuracy, edit score and segmental F1, in [0, 1].

    Args:
        predicted: Class of every frame ``(T,)`` of each video, 0 for the background.
        truth: True class of every frame ``(T,)`` of each video.
        overlaps: IoU thresholds of a correct segment; each true segment counts once.

    Returns:
        `frame_accuracy` over all frames, including the background; `edit`, the mean edit score over videos; `F1@k`
        over the segments of all videos for each threshold k in percent.

    Raises:
        ValueError: If the videos or their lengths differ, or there are no frames.
    """
    if len(predicted) != len(truth) or any(len(a) != len(b) for a, b in zip(predicted, truth, strict=True)):
        raise ValueError("predictions and truth must have the same videos and frames")
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
    """1 minus the Levenshtein distance of two sequences divided by the longer length; 1 if both are empty."""
    row = np.arange(len(truth) + 1)
    for number, label in enumerate(predicted, start=1):
        changed = np.minimum(row[:-1] + (truth != label), row[1:] + 1)
        row = np.concatenate([[number], changed])
        # Insertions: the minimum over all cells to the left, plus one per step.
        steps = np.arange(len(row))
        row = np.minimum.accumulate(row - steps) + steps
    return 1 - row[-1] / max(len(predicted), len(truth), 1)


def _hits(predicted: np.ndarray, truth: np.ndarray, overlap: float) -> int:
    """Number of predicted segments whose most overlapping true segment of their class is still unmatched."""
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
