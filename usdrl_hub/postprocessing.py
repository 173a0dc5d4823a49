"""Class probabilities of frames to actions: proposals, segments and action points."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from .finite import check_finite
from .sequence import DETECTION_THRESHOLD


def action_proposals(probabilities: torch.Tensor, threshold: float = DETECTION_THRESHOLD) -> torch.Tensor:
    """Action proposals of a video, as in the release: maximal runs of frames with a probability above a threshold.

    Args:
        probabilities: ``(T, K)``; class 0 is the background.
        threshold: Probability, in [0, 1].

    Returns:
        Float64 ``(N, 4)``, in order of class and frame: class (1 to K - 1), first frame, end (exclusive), and score,
        which is the mean probability of the class in the segment.
    """
    likely = (probabilities[:, 1:] > threshold).T.to(torch.int8)
    change = torch.nn.functional.pad(likely, (1, 1)).diff(dim=1)
    (kind, start), (_, end) = (change == 1).nonzero(as_tuple=True), (change == -1).nonzero(as_tuple=True)
    total = torch.nn.functional.pad(probabilities[:, 1:].double().cumsum(dim=0), (0, 0, 1, 0))
    score = (total[end, kind] - total[start, kind]) / (end - start)
    return torch.stack([kind + 1, start, end, score.to(torch.float64)], dim=1)


def smooth_over_shift_gap(probabilities: torch.Tensor, shift_gap: int) -> torch.Tensor:
    """Moving average of frame probabilities over one period of the encoder's shift gap.

    Dense shift attention leaves every `shift_gap`-th frame unmixed, so a detector's probabilities jump there. Fewer
    frames are averaged at both ends and beside frames without visible people.

    Args:
        probabilities: ``(T, K)``; a frame without visible people is all 0 and stays so.
        shift_gap: The model's `shift_gap`; 1 changes nothing.

    Returns:
        ``(T, K)``; rows still sum to 1.

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
        # The two ends of the window have the same phase and share its weight.
        weights[..., 0] = weights[..., -1] = 0.5
    seen = probabilities.any(dim=1, keepdim=True)
    rows = torch.cat([probabilities, seen.to(probabilities.dtype)], dim=1).T[:, None]
    total = torch.nn.functional.conv1d(rows, weights, padding=half)[:, 0].T
    return torch.where(seen, total[:, :-1] / total[:, -1:].clamp(min=0.5), probabilities)


def segments_of(labels: np.ndarray) -> np.ndarray:
    """Segments ``(S, 3)`` of class, first frame and end (exclusive): runs of equal labels ``(T,)`` except 0."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    ends = np.append(starts[1:], len(labels))
    runs = np.stack([labels[starts], starts, ends], axis=1)
    return runs[runs[:, 0] > 0]


def detect(probabilities: Iterable[np.ndarray], threshold: float, overlap: float | None = None) -> np.ndarray:
    """Action proposals of several videos.

    Args:
        probabilities: Probabilities ``(T, K)`` of each video; class 0 is the background.
        threshold: See `action_proposals`; the release's is `facts.benchmarks.RELEASE_THRESHOLD`.
        overlap: IoU threshold of non-maximum suppression; None for none, as in the release.

    Returns:
        Float64 ``(N, 5)``: index of the video, class (1 to K - 1), first frame, end (exclusive), and score.

    Raises:
        NonFiniteError: If a probability is NaN or infinite.
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
    """Non-maximum suppression within each class.

    Args:
        proposals: Proposals ``(N, 4)`` of one video: class, start, end and score.
        overlap: A proposal is dropped if its IoU with a kept one of its class and a higher score is at least this.

    Returns:
        Mask ``(N,)`` of the proposals kept.
    """
    order = np.argsort(-proposals[:, 3], kind="stable")
    stays = np.ones(len(proposals), dtype=bool)
    for rank, number in enumerate(order):
        if stays[number]:
            rest = order[rank + 1 :]
            alike = proposals[rest, 0] == proposals[number, 0]
            stays[rest[alike & (temporal_overlap(proposals[rest, 1:3], proposals[number, 1:3]) >= overlap)]] = False
    return stays


def temporal_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over hull of segments ``(..., 2)``: the IoU, negative for disjoint segments, 0 for empty ones."""
    hull = np.maximum(first[..., 1], second[..., 1]) - np.minimum(first[..., 0], second[..., 0])
    shared = np.minimum(first[..., 1], second[..., 1]) - np.maximum(first[..., 0], second[..., 0])
    return shared / np.where(hull == 0, 1, hull)


def action_points(proposals: np.ndarray, min_score: float = 0.3, min_distance: int = 20) -> np.ndarray:
    """Middles of proposals as action points, after suppression of close ones.

    Args:
        proposals: ``(M, 5)``, as returned by `detect`.
        min_score: Lowest score of a proposal.
        min_distance: Of points of a class in a video that are closer than this many frames, the best is kept.

    Returns:
        Float64 ``(N, 4)``: video, class, frame and score, highest score first.
    """
    likely = proposals[proposals[:, 4] >= min_score]
    points = np.c_[likely[:, :2], (likely[:, 2] + likely[:, 3] - 1) / 2, likely[:, 4]]
    kept: list[np.ndarray] = []
    for point in points[np.argsort(-points[:, 3], kind="stable")]:
        alike = (other for other in kept if (other[:2] == point[:2]).all())
        if all(abs(other[2] - point[2]) >= min_distance for other in alike):
            kept.append(point)
    return np.array(kept).reshape(-1, 4)
