"""Temporal action detection: training windows with a class per frame, and a detector's probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.embedding import frame_outputs
from ..modeling_usdrl import USDRLForActionDetection
from ..postprocessing import smooth_over_shift_gap
from ..sequence import SkeletonSequence


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
        averaged: Whether to average over the encoder's shift gap, too (`smooth_over_shift_gap`); the release does not.
    """

    def compute(clips: torch.Tensor) -> torch.Tensor:
        return model(clips).logits.float().softmax(dim=-1)

    prepared = (extractor.prepare(sequence) for sequence in sequences)
    shift_gap = model.config.shift_gap if averaged and model.config.encoder == "dste" else 1
    for sequence, values in frame_outputs(prepared, compute, extractor, batch_size, model.device, stride):
        yield sequence, smooth_over_shift_gap(torch.from_numpy(values), shift_gap).numpy()


def dilate_events(sequence: SkeletonSequence, frames: int) -> SkeletonSequence:
    """The recording with events that begin and end that many frames earlier and later, so that moments last."""
    events = np.zeros((0, 3), np.int64) if sequence.events is None else sequence.events.copy()
    events[:, 1] = np.maximum(events[:, 1] - frames, 0)
    events[:, 2] = np.minimum(events[:, 2] + frames, sequence.num_frames)
    return replace(sequence, events=events)


def true_actions(sequences: Iterable[SkeletonSequence]) -> np.ndarray:
    """What happens in recordings ``(G, 4)``: number of the recording, class from 1, first frame, end."""
    rows = [np.zeros((0, 4), dtype=np.int64)]
    for number, sequence in enumerate(sequences):
        events = np.zeros((0, 3), np.int64) if sequence.events is None else sequence.events
        rows.append(np.c_[np.full(len(events), number), events + (1, 0, 0)])
    return np.concatenate(rows)
