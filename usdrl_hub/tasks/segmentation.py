"""Action segmentation: a class for every frame of whole videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.windows import resize_nearest, video_windows
from ..sequence import SkeletonSequence


class WholeVideoDataset(torch.utils.data.Dataset):
    """Whole videos, cut into windows, with a class for every frame, 0 for the background.

    Items are ``{"keypoints": (W, T, M, V, C), "window_starts": (W,), "labels": (L,)}``; `collate` pads a batch. A
    video shorter than a window is resized to one, with its labels.
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
            ValueError: If `events` of a video is None. Use an empty (0, 3) array for a video without actions.
        """
        self.extractor = extractor
        self.items: list[dict[str, torch.Tensor]] = []
        for sequence in sequences:
            if sequence.events is None:
                raise ValueError(f"{sequence.name} is not annotated (events is None)")
            keypoints, starts, length = video_windows(sequence, extractor, stride)
            labels = torch.from_numpy(sequence.frame_labels() + 1)
            self.items.append(
                {"keypoints": keypoints, "window_starts": starts, "labels": resize_nearest(labels, length)}
            )

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One video."""
        return self.items[index]

    @staticmethod
    def collate(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Pad to one length: empty windows have the start -1, and their labels are -100, which the loss ignores."""
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "keypoints": pad([item["keypoints"] for item in items], batch_first=True),
            "window_starts": pad([item["window_starts"] for item in items], batch_first=True, padding_value=-1),
            "labels": pad([item["labels"] for item in items], batch_first=True, padding_value=-100),
        }
