"""Metrics of temporal action detection: PKU-MMD's for proposals, MSRC-12's for action points.

PKU-MMD's metrics follow the official script, which is not the usual interpolated average precision: a proposal is
matched to the true action of its class and video that it overlaps most, whatever the other proposals match.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..finite import check_finite
from ..postprocessing import temporal_overlap

THETAS = (0.1, 0.3, 0.5, 0.7)


def detection_metrics(
    proposals: np.ndarray,
    truth: np.ndarray,
    num_classes: int = 51,
    num_videos: int | None = None,
    thetas: Sequence[float] = THETAS,
) -> dict[str, float]:
    """PKU-MMD's metrics, in [0, 1].

    A class or a video without proposals or without true actions counts as 0.

    Args:
        proposals: ``(N, 5)``: video, class (1 to `num_classes`), start, end (exclusive) and score.
        truth: ``(G, 4)``: video, class, start and end.
        num_classes: Number of classes, without the background.
        num_videos: Number of videos, which are numbered from 0; the largest number plus one if None.
        thetas: Thresholds of temporal IoU, in (0, 1].

    Returns:
        `F1@θ` and `AP@θ` over all proposals; the means `mAP_action@θ` over classes and `mAP_video@θ` over videos.

    Raises:
        NonFiniteError: If a number is NaN or infinite.
    """
    proposals = np.asarray(proposals, dtype=np.float64).reshape(-1, 5)
    truth = np.asarray(truth, dtype=np.float64).reshape(-1, 4)
    check_finite(proposals, "the proposals")
    check_finite(truth, "the true actions")
    # By rising score, the order in which the threshold removes them.
    proposals = proposals[np.argsort(proposals[:, 4], kind="stable")]
    overlap, match = _best_matches(proposals, truth)
    if num_videos is None:
        numbers = np.concatenate([proposals[:, 0], truth[:, 0], [-1]])
        num_videos = int(numbers.max()) + 1
    groups = {
        "AP": (np.zeros(len(proposals), int), np.zeros(len(truth), int), 1),
        "mAP_action": (proposals[:, 1].astype(int) - 1, truth[:, 1].astype(int) - 1, num_classes),
        "mAP_video": (proposals[:, 0].astype(int), truth[:, 0].astype(int), num_videos),
    }
    metrics = {}
    for theta in thetas:
        matched = np.where(overlap >= theta, match, -1)
        right = len(np.unique(matched[matched >= 0]))
        precision, recall = right / max(len(proposals), 1), right / max(len(truth), 1)
        metrics[f"F1@{theta}"] = 2 * precision * recall / (precision + recall) if right else 0.0
        for name, (of_proposal, of_truth, count) in groups.items():
            order = np.argsort(of_proposal, kind="stable")
            ends = np.searchsorted(of_proposal[order], np.arange(count + 1))
            size = np.bincount(of_truth, minlength=count)
            values = [
                _average_precision(matched[order[ends[group] : ends[group + 1]]], int(size[group]))
                for group in range(count)
            ]
            metrics[f"{name}@{theta}"] = float(np.mean(values)) if values else 0.0
    return metrics


def _best_matches(proposals: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest IoU of each proposal with a true action of its video and class, and that action's index or -1."""
    classes = 1 + int(max(proposals[:, 1].max(initial=0), truth[:, 1].max(initial=0)))
    wanted, given = (rows[:, 0] * classes + rows[:, 1] for rows in (proposals, truth))
    order = np.argsort(given, kind="stable")
    first, last = (np.searchsorted(given[order], wanted, side) for side in ("left", "right"))
    count = last - first
    overlap, match = np.full(len(proposals), -np.inf), np.full(len(proposals), -1)
    some = count > 0
    if not some.any():
        return overlap, match
    # All pairs of a proposal and a candidate action, proposal by proposal.
    proposal = np.repeat(np.flatnonzero(some), count[some])
    begins = np.cumsum(count[some]) - count[some]
    within = np.arange(len(proposal)) - np.repeat(begins, count[some])
    action = order[within + np.repeat(first[some], count[some])]
    values = temporal_overlap(proposals[proposal, 2:4], truth[action, 2:4])
    best = np.maximum.reduceat(values, begins)
    # Ties go to the later true action, as in the official script.
    equal = np.where(values == np.repeat(best, count[some]), action, -1)
    overlap[some], match[some] = best, np.maximum.reduceat(equal, begins)
    return overlap, match


def _average_precision(matched: np.ndarray, true_actions: int) -> float:
    """Average precision of proposals by rising score, given the index of each one's matched action, or -1."""
    count = len(matched)
    if not count or not true_actions:
        return 0.0
    # A true action is found until its last matched proposal is removed.
    actions, positions = np.unique(matched[::-1], return_index=True)
    last = count - 1 - positions[actions >= 0]
    goes = np.zeros(count, dtype=np.int64)
    goes[last] = 1
    found = len(last) - goes.cumsum()
    left = count - 1 - np.arange(count)
    precision = found / np.maximum(left, 1)
    is_matched = matched >= 0
    best = np.maximum.accumulate(np.where(is_matched, precision, 0.0))
    best = np.maximum(best, len(last) / count)
    return float((best * goes).sum() / true_actions)


def point_metrics(points: np.ndarray, truth: np.ndarray, num_classes: int, tolerance: int = 10) -> dict[str, float]:
    """MSRC-12's metrics of action points: each true point is matched once, within a tolerance.

    Args:
        points: ``(N, 4)``: video, class (1 to `num_classes`), frame and score; higher scores are matched first.
        truth: ``(G, 3)``: video, class and frame.
        num_classes: Number of classes, without the background.
        tolerance: Largest distance of a match in frames.

    Returns:
        `point_F1` over all points, and `point_F1_mean`, the mean over classes with true points; in [0, 1].

    Raises:
        NonFiniteError: If a number of a point is NaN or infinite.
    """
    points, truth = np.asarray(points, dtype=np.float64).reshape(-1, 4), np.asarray(truth).reshape(-1, 3)
    check_finite(points, "the predicted action points")
    free = np.ones(len(truth), dtype=bool)
    right = np.zeros(len(points), dtype=bool)
    for number in np.argsort(-points[:, 3], kind="stable"):
        video, kind, frame, _ = points[number]
        away = np.abs(truth[:, 2] - frame)
        near = np.flatnonzero(free & (truth[:, 0] == video) & (truth[:, 1] == kind) & (away <= tolerance))
        if len(near):
            free[near[away[near].argmin()]] = False
            right[number] = True

    def score(found: np.ndarray, actions: np.ndarray) -> float:
        total = len(found) + len(actions)
        return 2 * int(right[found].sum()) / total if total else 0.0

    everything = score(np.arange(len(points)), np.arange(len(truth)))
    classes = [kind for kind in range(1, num_classes + 1) if (truth[:, 1] == kind).any()]
    each = [score(np.flatnonzero(points[:, 1] == kind), np.flatnonzero(truth[:, 1] == kind)) for kind in classes]
    return {"point_F1": everything, "point_F1_mean": float(np.mean(each)) if each else 0.0}
