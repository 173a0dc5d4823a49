"""From class probabilities of frames to actions: proposals, segments and action points."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from .finite import check_finite
from .sequence import DETECTION_THRESHOLD

# Benchmarks are scored as the release scores: at this probability, and not averaged over the shift gap.
RELEASE_THRESHOLD = 0.02


def action_proposals(probabilities: torch.Tensor, threshold: float = DETECTION_THRESHOLD) -> torch.Tensor:
    """Segments of a video in which a class is likely, as the release proposes actions.

    Args:
        probabilities: ``(T, K)``, class 0 the background.
        threshold: A segment is a longest run of frames in which its class has more than this.

    Returns:
        Float64 ``(N, 4)`` of class (1 to K - 1), first frame, the frame after the last, and score: the mean
        probability of the class in the segment. In order of class and frame.
    """
    likely = (probabilities[:, 1:] > threshold).T.to(torch.int8)
    change = torch.nn.functional.pad(likely, (1, 1)).diff(dim=1)
    (kind, start), (_, end) = (change == 1).nonzero(as_tuple=True), (change == -1).nonzero(as_tuple=True)
    total = torch.nn.functional.pad(probabilities[:, 1:].double().cumsum(dim=0), (0, 0, 1, 0))
    score = (total[end, kind] - total[start, kind]) / (end - start)
    return torch.stack([kind + 1, start, end, score.to(torch.float64)], dim=1)


def smooth_over_shift_gap(probabilities: torch.Tensor, shift_gap: int) -> torch.Tensor:
    """Average every frame with its neighbours over one period of the encoder's shift gap.

    Dense shift attention leaves every `shift_gap`-th frame unmixed, so that what a detector says jumps at each of them
    and back. Over a whole period all kinds of frames have the same weight. At both ends, and beside frames in which
    nobody is seen, fewer are averaged.

    Args:
        probabilities: ``(T, K)``; a frame in which nobody is seen is all 0, and stays so.
        shift_gap: Of the model's configuration; with 1 nothing changes.

    Returns:
        ``(T, K)``; each frame sums to what it did, where those around it do.

    Raises:
        ValueError: If the gap is below 1.
    """
    if shift_gap < 1:
        raise ValueError(f"shift_gap must be at least 1, got {shift_gap}")
    if shift_gap == 1:
        return probabilities
    half = shift_gap // 2
    weights = probabilities.new_ones(1, 1, 2 * half + 1)
    if shift_gap % 2 == 0:
        # Both ends are of one kind, and share its weight.
        weights[..., 0] = weights[..., -1] = 0.5
    seen = probabilities.any(dim=1, keepdim=True)
    rows = torch.cat([probabilities, seen.to(probabilities.dtype)], dim=1).T[:, None]
    total = torch.nn.functional.conv1d(rows, weights, padding=half)[:, 0].T
    return torch.where(seen, total[:, :-1] / total[:, -1:].clamp(min=0.5), probabilities)


def segments_of(labels: np.ndarray) -> np.ndarray:
    """Runs of equal classes but the background ``(S, 3)`` of class, first frame and the frame after the last."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    ends = np.append(starts[1:], len(labels))
    runs = np.stack([labels[starts], starts, ends], axis=1)
    return runs[runs[:, 0] > 0]


def detect(
    probabilities: Iterable[np.ndarray], threshold: float = RELEASE_THRESHOLD, overlap: float | None = None
) -> np.ndarray:
    """Actions proposed in several videos.

    Args:
        probabilities: Of each video ``(T, K)``.
        threshold: See `action_proposals`; that of the release, which benchmarks are scored with.
        overlap: Proposals that overlap a likelier one of their class this much or more are left out; the release
            leaves all of them in, as None does.

    Returns:
        Float64 ``(N, 5)`` of video number, class (1 to K - 1), first frame, the frame after the last, and score.
    """
    rows = [np.zeros((0, 5))]
    for video, values in enumerate(probabilities):
        check_finite(values, f"video {video}: the probabilities of its frames")
        found = action_proposals(torch.from_numpy(values), threshold).numpy()
        if overlap is not None:
            found = found[suppress(found, overlap)]
        rows.append(np.c_[np.full(len(found), video), found])
    return np.concatenate(rows)


def suppress(proposals: np.ndarray, overlap: float) -> np.ndarray:
    """Which proposals ``(N, 4)`` of class, start, end and score stay beside likelier ones of their class.

    Args:
        proposals: Of one video.
        overlap: A proposal whose intersection with a likelier one that stays is this share of their union, or more,
            goes.

    Returns:
        Boolean ``(N,)``.
    """
    order = np.argsort(-proposals[:, 3], kind="stable")
    stays = np.ones(len(proposals), dtype=bool)
    for place, number in enumerate(order):
        if stays[number]:
            rest = order[place + 1 :]
            alike = proposals[rest, 0] == proposals[number, 0]
            stays[rest[alike & (temporal_overlap(proposals[rest, 1:3], proposals[number, 1:3]) >= overlap)]] = False
    return stays


def temporal_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over hull of segments ``(..., 2)``, negative for segments apart; 0 for two empty ones."""
    hull = np.maximum(first[..., 1], second[..., 1]) - np.minimum(first[..., 0], second[..., 0])
    shared = np.minimum(first[..., 1], second[..., 1]) - np.maximum(first[..., 0], second[..., 0])
    return shared / np.where(hull == 0, 1, hull)


def action_points(proposals: np.ndarray, least: float = 0.3, apart: int = 20) -> np.ndarray:
    """Middles of segments ``(N, 4)`` of video, class, frame and score, from proposals ``(M, 5)``.

    Args:
        proposals: As `detect` gives them.
        least: Score from which on a segment counts.
        apart: Of moments of a class in a video that are nearer than this, the likeliest stays.
    """
    likely = proposals[proposals[:, 4] >= least]
    points = np.c_[likely[:, :2], (likely[:, 2] + likely[:, 3] - 1) / 2, likely[:, 4]]
    kept: list[np.ndarray] = []
    for point in points[np.argsort(-points[:, 3], kind="stable")]:
        alike = (other for other in kept if (other[:2] == point[:2]).all())
        if all(abs(other[2] - point[2]) >= apart for other in alike):
            kept.append(point)
    return np.array(kept).reshape(-1, 4)
