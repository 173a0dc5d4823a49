"""Temporal action detection: training windows with a class per frame, and events as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.windows import resize_nearest
from ..sequence import SkeletonSequence


class FrameLabelDataset(torch.utils.data.Dataset):
    """Windows of untrimmed recordings with a class for every frame, 0 for the background.

    Items are ``{"keypoints": (T, M, V, C), "labels": (T,)}``. A recording shorter than a window is resized to one; its
    labels are resized to the nearest frame.
    """

    def __init__(self, sequences: Iterable[SkeletonSequence], extractor: USDRLFeatureExtractor, stride: int = 16):
        """Cut recordings into windows.

        Args:
            sequences: Recordings with events.
            extractor: The model's.
            stride: Frames between windows.

        Raises:
            ValueError: If `events` of a recording is None. Use an empty (0, 3) array for a recording without actions.
        """
        self.extractor = extractor
        self.windows: list[SkeletonSequence] = []
        labels = []
        size = extractor.num_frames
        for sequence in sequences:
            if sequence.events is None:
                raise ValueError(f"{sequence.name} is not annotated (events is None)")
            truth = torch.from_numpy(sequence.frame_labels() + 1)
            for start, window in extractor.persons.kept(extractor.prepare(sequence)).windows(size, stride):
                labels.append(resize_nearest(truth[start : start + window.num_frames], size))
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


def dilate_events(sequence: SkeletonSequence, frames: int) -> SkeletonSequence:
    """Extend all events by a number of frames at both ends, so that action points become events with a duration."""
    events = np.zeros((0, 3), np.int64) if sequence.events is None else sequence.events.copy()
    events[:, 1] = np.maximum(events[:, 1] - frames, 0)
    events[:, 2] = np.minimum(events[:, 2] + frames, sequence.num_frames)
    return replace(sequence, events=events)


def true_actions(sequences: Iterable[SkeletonSequence]) -> np.ndarray:
    """The events of recordings ``(G, 4)``: number of the recording, class from 1, first frame, end."""
    rows = [np.zeros((0, 4), dtype=np.int64)]
    for number, sequence in enumerate(sequences):
        events = np.zeros((0, 3), np.int64) if sequence.events is None else sequence.events
        rows.append(np.c_[np.full(len(events), number), events + (1, 0, 0)])
    return np.concatenate(rows)
