"""Action segmentation: a class for every frame of whole videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..modeling_usdrl import USDRLForActionSegmentation
from ..sequence import SkeletonSequence


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
