"""Action segmentation: a class for every frame of whole videos, and the metrics of Lea et al. (CVPR 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..modeling_usdrl import USDRLForActionSegmentation
from ..sequence import SkeletonSequence

OVERLAPS = (0.10, 0.25, 0.50)


class WholeVideoDataset(torch.utils.data.Dataset):
    """Whole videos, cut into windows, with a class for every frame, 0 where nothing happens.

    Items are ``{"keypoints": (W, T, M, V, C), "window_starts": (W,), "labels": (L,)}``, `collate` fills up batches. A
    video shorter than a window is one window, stretched, and its labels with it.
    """

    def __init__(
        self, sequences: Iterable[SkeletonSequence], extractor: USDRLFeatureExtractor, stride: int | None = None
    ):
        """Make the windows.

        Args:
            sequences: Videos with events.
            extractor: The model's.
            stride: Frames between windows; half of their length where None.

        Raises:
            ValueError: If a video has no events, not even none of them.
        """
        self.extractor = extractor
        self.items: list[dict[str, torch.Tensor]] = []
        for sequence in sequences:
            if sequence.events is None:
                raise ValueError(f"{sequence.name}: nobody has said what happens in it: it has no events")
            keypoints, starts, length = video_windows(sequence, extractor, stride)
            labels = torch.from_numpy(sequence.frame_labels() + 1)
            self.items.append({"keypoints": keypoints, "window_starts": starts, "labels": nearest(labels, length)})

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One video."""
        return self.items[index]

    @staticmethod
    def collate(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Fill up with windows that are not there, start -1, and labels that are left out, -100."""
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "keypoints": pad([item["keypoints"] for item in items], batch_first=True),
            "window_starts": pad([item["window_starts"] for item in items], batch_first=True, padding_value=-1),
            "labels": pad([item["labels"] for item in items], batch_first=True, padding_value=-100),
        }


def video_windows(
    sequence: SkeletonSequence, extractor: USDRLFeatureExtractor, stride: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Windows of a video ``(W, T, M, V, C)``, their first frames ``(W,)``, and where the last one ends."""
    size = extractor.num_frames
    prepared = extractor.choose_persons(extractor.prepare(sequence))
    # Windows in which nobody is seen stay in, as zeros: their frames need a class, too.
    pieces = dict(prepared.windows(size, stride or max(size // 2, 1)))
    last = max(sequence.num_frames - size, 0)
    starts = [*range(0, last, stride or max(size // 2, 1)), last]
    clips = extractor([pieces[start] for start in starts if start in pieces], return_tensors="pt")["keypoints"]
    windows = clips.new_zeros(len(starts), *clips.shape[1:])
    windows[[place for place, start in enumerate(starts) if start in pieces]] = clips
    return windows, torch.tensor(starts), max(sequence.num_frames, size)


def nearest(values: torch.Tensor, length: int) -> torch.Tensor:
    """Values per frame ``(n, ...)`` resized to the nearest frame."""
    if len(values) == length:
        return values
    return values[((torch.arange(length) + 0.5) * len(values) / length).long()]


@torch.inference_mode()
def segment_probabilities(
    model: USDRLForActionSegmentation,
    extractor: USDRLFeatureExtractor,
    sequences: Iterable[SkeletonSequence],
    stride: int | None = None,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each video with the probabilities ``(T, K)`` of the classes in every frame, class 0 where nothing happens.

    Args:
        model: A segmenter, in eval mode.
        extractor: Its feature extractor.
        sequences: Videos of any length.
        stride: Frames between windows; half of their length where None.

    Raises:
        NonFiniteError: If a score is NaN or infinite; the message names the recording.
    """
    for sequence in sequences:
        windows, starts, _ = video_windows(sequence, extractor, stride)
        logits = model(windows[None].to(model.device), starts[None].to(model.device)).logits[0]
        check_finite(logits, f"{sequence.name or 'the recording'}: the scores of its frames")
        yield sequence, nearest(logits.float().softmax(dim=-1).cpu(), sequence.num_frames).numpy()


def segment(
    model: USDRLForActionSegmentation,
    extractor: USDRLFeatureExtractor,
    sequences: Iterable[SkeletonSequence],
    stride: int | None = None,
) -> list[np.ndarray]:
    """Likeliest class of every frame ``(T_i,)`` of each video, see `segment_probabilities`."""
    stream = segment_probabilities(model, extractor, sequences, stride)
    return [probabilities.argmax(axis=-1) for _, probabilities in stream]


def segments_of(labels: np.ndarray) -> np.ndarray:
    """Runs of equal classes but the background ``(S, 3)`` of class, first frame and the frame after the last."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    ends = np.append(starts[1:], len(labels))
    runs = np.stack([labels[starts], starts, ends], axis=1)
    return runs[runs[:, 0] > 0]


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
    right = sum(int((a == b).sum()) for a, b in zip(predicted, truth, strict=True))
    pairs = [(segments_of(a), segments_of(b)) for a, b in zip(predicted, truth, strict=True)]
    metrics = {
        "frame_accuracy": right / sum(map(len, truth)),
        "edit": float(np.mean([_edit(a[:, 0], b[:, 0]) for a, b in pairs])),
    }
    for overlap in overlaps:
        hits = sum(_hits(a, b, overlap) for a, b in pairs)
        total = sum(len(a) + len(b) for a, b in pairs)
        metrics[f"F1@{round(100 * overlap)}"] = 2 * hits / total if total else 0.0
    return metrics


def _edit(predicted: np.ndarray, truth: np.ndarray) -> float:
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
