"""Temporal action detection: a class per frame, segments of it, and PKU-MMD's own metrics of them.

The metrics are those of the official script, which is not the usual interpolated average precision: a proposal is
matched to the true action of its class and video that it overlaps most, whatever other proposals do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..feature_extraction_usdrl import RELEASE_THRESHOLD, USDRLFeatureExtractor, action_proposals, average_phases
from ..files import new_file
from ..finite import check_finite
from ..inference.embedding import frame_outputs
from ..modeling_usdrl import USDRLForActionDetection
from ..sequence import SkeletonSequence

THETAS = (0.1, 0.3, 0.5, 0.7)


class FrameLabelDataset(torch.utils.data.Dataset):
    """Windows of untrimmed recordings with a class for every frame, 0 where nothing happens.

    Items are ``{"keypoints": (T, M, V, C), "labels": (T,)}``; of a recording shorter than a window the labels are
    resized to the nearest frame, as its frames are resized.
    """

    def __init__(self, sequences: Iterable[SkeletonSequence], extractor: USDRLFeatureExtractor, stride: int = 16):
        """Cut recordings into windows.

        Args:
            sequences: Recordings with events.
            extractor: The model's.
            stride: Frames between windows.

        Raises:
            ValueError: If a recording has no events, not even none of them.
        """
        self.extractor = extractor
        self.windows: list[SkeletonSequence] = []
        labels = []
        size = extractor.num_frames
        for sequence in sequences:
            if sequence.events is None:
                raise ValueError(f"{sequence.name}: nobody has said what happens in it: it has no events")
            truth = torch.from_numpy(sequence.frame_labels() + 1)
            for start, window in extractor.choose_persons(extractor.prepare(sequence)).windows(size, stride):
                piece = truth[start : start + window.num_frames]
                place = ((torch.arange(size) + 0.5) * len(piece) / size).long()
                labels.append(piece[place])
                self.windows.append(window)
        self.labels = torch.stack(labels)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One window."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Several windows at once."""
        clips = self.extractor([self.windows[index] for index in indices], return_tensors="pt")["keypoints"]
        return [{"keypoints": clip, "labels": self.labels[index]} for clip, index in zip(clips, indices, strict=True)]


@torch.inference_mode()
def frame_probabilities(
    model: USDRLForActionDetection,
    extractor: USDRLFeatureExtractor,
    sequences: Iterable[SkeletonSequence],
    batch_size: int = 64,
    stride: int | None = None,
    averaged: bool = False,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each recording with the probabilities ``(T, K)`` of the classes in every frame.

    Args:
        model: A detector, in eval mode.
        extractor: Its feature extractor.
        sequences: Recordings of any length.
        batch_size: Windows computed at once.
        stride: Frames between windows; half of their length where None. Probabilities are averaged where they overlap.
        averaged: Whether to average over the encoder's shift gap, too (`average_phases`); the release does not.
    """

    def compute(clips: torch.Tensor) -> torch.Tensor:
        return model(clips).logits.float().softmax(dim=-1)

    prepared = (extractor.prepare(sequence) for sequence in sequences)
    shift_gap = model.config.shift_gap if averaged and model.config.encoder == "dste" else 1
    for sequence, values in frame_outputs(prepared, compute, extractor, batch_size, model.device, stride):
        yield sequence, average_phases(torch.from_numpy(values), shift_gap).numpy()


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
            stays[rest[alike & (_overlaps(proposals[rest, 1:3], proposals[number, 1:3]) >= overlap)]] = False
    return stays


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over hull of segments ``(..., 2)``, negative for segments apart; 0 for two empty ones."""
    hull = np.maximum(first[..., 1], second[..., 1]) - np.minimum(first[..., 0], second[..., 0])
    shared = np.minimum(first[..., 1], second[..., 1]) - np.maximum(first[..., 0], second[..., 0])
    return shared / np.where(hull == 0, 1, hull)


def detection_metrics(
    proposals: np.ndarray,
    truth: np.ndarray,
    num_classes: int = 51,
    num_videos: int | None = None,
    thetas: Sequence[float] = THETAS,
) -> dict[str, float]:
    """PKU-MMD's metrics.

    Args:
        proposals: ``(N, 5)`` of video, class (1 to `num_classes`), start, end (exclusive) and score.
        truth: ``(G, 4)`` of video, class, start and end.
        num_classes: Classes but the background.
        num_videos: Videos, numbered from 0; one more than the largest number where None. A class or a video without
            proposals, or without true actions, counts as 0.
        thetas: Overlaps from which on a proposal is right, in (0, 1].

    Returns:
        `F1@θ` and `AP@θ` over everything, `mAP_action@θ`, the mean over classes, and `mAP_video@θ`, over videos.

    Raises:
        NonFiniteError: If a number of a proposal or a true action is NaN or infinite.
    """
    proposals = np.asarray(proposals, dtype=np.float64).reshape(-1, 5)
    truth = np.asarray(truth, dtype=np.float64).reshape(-1, 4)
    check_finite(proposals, "the proposals")
    check_finite(truth, "the true actions")
    # In the order in which proposals are taken away; all groups keep it.
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
    """The largest overlap of each proposal with a true action of its video and class, and which one, -1 for none."""
    classes = 1 + int(max(proposals[:, 1].max(initial=0), truth[:, 1].max(initial=0)))
    wanted, given = (rows[:, 0] * classes + rows[:, 1] for rows in (proposals, truth))
    order = np.argsort(given, kind="stable")
    first, last = (np.searchsorted(given[order], wanted, side) for side in ("left", "right"))
    count = last - first
    overlap, match = np.full(len(proposals), -np.inf), np.full(len(proposals), -1)
    some = count > 0
    if not some.any():
        return overlap, match
    # All pairs of a proposal and a true action that it may be matched to, proposal after proposal.
    proposal = np.repeat(np.flatnonzero(some), count[some])
    begins = np.cumsum(count[some]) - count[some]
    place = np.arange(len(proposal)) - np.repeat(begins, count[some]) + np.repeat(first[some], count[some])
    action = order[place]
    values = _overlaps(proposals[proposal, 2:4], truth[action, 2:4])
    best = np.maximum.reduceat(values, begins)
    # Of equal overlaps the later true action counts, as in the official script.
    equal = np.where(values == np.repeat(best, count[some]), action, -1)
    overlap[some], match[some] = best, np.maximum.reduceat(equal, begins)
    return overlap, match


def _average_precision(matched: np.ndarray, true_actions: int) -> float:
    """Average precision of proposals in order of rising score, each with the true action it is matched to, or -1."""
    count = len(matched)
    if not count or not true_actions:
        return 0.0
    # A true action is found until the last proposal that is matched to it goes.
    actions, places = np.unique(matched[::-1], return_index=True)
    last = count - 1 - places[actions >= 0]
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
    """How well moments are found, as MSRC-12 is scored: each true one counts once, if it is near enough.

    Args:
        points: ``(N, 4)`` of video, class (1 to `num_classes`), frame and score; likelier ones are matched first.
        truth: ``(G, 3)`` of video, class and frame.
        num_classes: Classes but the background.
        tolerance: Frames that a found moment may be off.

    Returns:
        `point_F1` over everything, and `point_F1_mean`, the mean over classes that have true moments.
    """
    points, truth = np.asarray(points, dtype=np.float64).reshape(-1, 4), np.asarray(truth).reshape(-1, 3)
    check_finite(points, "the moments that were found")
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


def widened(sequence: SkeletonSequence, frames: int) -> SkeletonSequence:
    """The recording with events that begin and end that many frames earlier and later, so that moments last."""
    events = np.zeros((0, 3), np.int64) if sequence.events is None else sequence.events.copy()
    events[:, 1] = np.maximum(events[:, 1] - frames, 0)
    events[:, 2] = np.minimum(events[:, 2] + frames, sequence.num_frames)
    return replace(sequence, events=events)


def moments_of(proposals: np.ndarray, least: float = 0.3, apart: int = 20) -> np.ndarray:
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


def true_actions(sequences: Iterable[SkeletonSequence]) -> np.ndarray:
    """What happens in recordings ``(G, 4)``: number of the recording, class from 1, first frame, end."""
    rows = [np.zeros((0, 4), dtype=np.int64)]
    for number, sequence in enumerate(sequences):
        events = np.zeros((0, 3), np.int64) if sequence.events is None else sequence.events
        rows.append(np.c_[np.full(len(events), number), events + (1, 0, 0)])
    return np.concatenate(rows)


def draw_timeline(
    truth: np.ndarray,
    proposals: np.ndarray,
    num_frames: int,
    class_names: Sequence[str],
    title: str,
    path: str | os.PathLike,
) -> None:
    """Draw what happens in a video above what was proposed, as a PNG picture.

    Args:
        truth: ``(G, 3)`` of class from 1, start and end.
        proposals: ``(N, 4)`` of class, start, end and score; likelier ones are darker.
        num_frames: Frames of the video.
        class_names: Names of the classes but the background.
        title: Heading.
        path: File to write.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted({int(row[0]) for row in truth} | {int(row[0]) for row in proposals if row[3] > 0.3})
    colors = {kind: colormaps["tab20"](place % 20) for place, kind in enumerate(shown)}
    figure = Figure(figsize=(12, 1.6 + 0.25 * max(len(shown), 1)))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    bars: list[tuple[float, Any, float]] = [(0.55, row, 1.0) for row in truth]
    bars += [(0.05, row, float(row[3])) for row in proposals if int(row[0]) in colors]
    for height, row, alpha in bars:
        place = shown.index(int(row[0]))
        axes.barh(
            place + height, row[2] - row[1], 0.4, left=row[1], align="edge", color=colors[int(row[0])], alpha=alpha
        )
    axes.set_yticks(
        [place + 0.5 for place in range(len(shown))], [class_names[kind - 1] for kind in shown], fontsize=8
    )
    axes.set_xlim(0, num_frames)
    axes.set_ylim(max(len(shown), 1), 0)
    axes.set_xlabel("frame (lower bar: truth, upper bar: proposals, darker if likelier)", fontsize=8)
    axes.set_title(title, fontsize=10)
    figure.tight_layout()
    with new_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
