"""`ClipDataset`: clips of labelled sequences for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..sequence import SkeletonSequence
from .dataset import SkeletonData


class ClipDataset(torch.utils.data.Dataset):
    """Clips of labelled sequences, as `transformers.Trainer` and a `DataLoader` take them.

    Every item is ``{"keypoints": (T, M, V, C), "labels": int}``. The feature extractor is called once per batch of a
    loader.
    """

    def __init__(
        self,
        sequences: Sequence[SkeletonSequence] | SkeletonData,
        feature_extractor: Callable[..., Mapping[str, torch.Tensor]],
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        """Wrap sequences that all have labels.

        Args:
            sequences: A labelled data set or a list.
            feature_extractor: The model's `USDRLFeatureExtractor`.
            augment: Augments each batch of clips ``(B, T, M, V, C)``, such as `ClipAugmentation`; for training only.
        """
        self.sequences = sequences
        self.feature_extractor = feature_extractor
        self.augment = augment

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        """One clip and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor | int]]:
        """Several clips at once."""
        sequences = [self.sequences[index] for index in indices]
        clips = self.feature_extractor(sequences, return_tensors="pt")["keypoints"]
        if self.augment is not None:
            clips = self.augment(clips)
        items = []
        for clip, sequence in zip(clips, sequences, strict=True):
            if sequence.label is None or sequence.label < 0:
                raise ValueError(f"{sequence.name}: it has no label to train on")
            items.append({"keypoints": clip, "labels": sequence.label})
        return items
