"""Early action prediction: the class of an action of which only the beginning has been seen.

There are two protocols. The release truncates a clip to a share of its frames and resizes them to the model's length,
for any recogniser. A causal model (`USDRLForEarlyActionPrediction`) reads frames as they come, left-aligned, and
predicts the class after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..inference.causal import causal_predictions
from ..inference.engine import Engine, batched
from ..metrics.classification import early_accuracy
from ..modeling_usdrl import USDRLForActionRecognition, USDRLForEarlyActionPrediction
from ..sequence import SkeletonSequence

RATIOS = tuple(round(0.1 * step, 1) for step in range(1, 11))


def observed_frames(num_frames: int, ratio: float) -> int:
    """Number of frames of a clip at an observation ratio, as in the release: at least 3, at most all."""
    return min(max(3, int(num_frames * ratio)), num_frames)


def truncate_to_ratio(sequence: SkeletonSequence, ratio: float) -> SkeletonSequence | None:
    """The beginning of a sequence, see `observed_frames`; None if no person is visible in it yet."""
    keypoints = sequence.keypoints[: observed_frames(sequence.num_frames, ratio)]
    return replace(sequence, keypoints=keypoints, events=None) if keypoints.any() else None


@torch.inference_mode()
def cut_and_resize_accuracy(
    model: USDRLForActionRecognition,
    extractor: USDRLFeatureExtractor,
    sequences: Sequence[SkeletonSequence],
    ratios: Sequence[float] = RATIOS,
    batch_size: int = 128,
) -> dict[str, float]:
    """Top-1 accuracy of a recogniser on truncated clips, as the release measures it.

    Args:
        model: A recogniser, in eval mode.
        extractor: Its feature extractor.
        sequences: Labelled clips.
        ratios: Observation ratios, in (0, 1].
        batch_size: Clips per batch.

    Returns:
        `accuracy@r` for each ratio in percent, and `mean_accuracy` over them; a clip without visible people so far
        counts as wrong.

    Raises:
        NonFiniteError: If a score of the model is NaN or infinite.
        ValueError: If there are no clips.
    """
    predicted = {ratio: np.full(len(sequences), -1) for ratio in ratios}
    for ratio, classes in predicted.items():
        beginnings = [(row, truncate_to_ratio(sequence, ratio)) for row, sequence in enumerate(sequences)]
        for batch in batched([(row, beginning) for row, beginning in beginnings if beginning is not None], batch_size):
            rows, seen = zip(*batch, strict=True)
            logits = model(extractor(list(seen), return_tensors="pt", device=model.device)["keypoints"]).logits
            check_finite(logits, f"the scores of the first {round(100 * ratio)} % of the clips")
            classes[list(rows)] = logits.argmax(dim=-1).cpu().numpy()
    return early_accuracy(predicted, [sequence.label for sequence in sequences])


class LeftAlignedDataset(torch.utils.data.Dataset):
    """Left-aligned clips of labelled sequences, not resized, with the class after every frame.

    Items are ``{"keypoints": (T, M, V, C), "labels": (T,)}``; labels are -100 after a sequence's end.
    """

    def __init__(
        self,
        sequences: Sequence[SkeletonSequence],
        extractor: USDRLFeatureExtractor,
        augment: object | None = None,
        random_start: bool = False,
    ):
        """Hold the sequences.

        Args:
            sequences: Labelled clips.
            extractor: The model's.
            augment: Called with each batch of clips, such as `ClipAugmentation` without crops.
            random_start: Start clips of longer sequences at a random frame, so that their ends are trained on, too.
        """
        self.sequences = sequences
        self.extractor = extractor
        self.augment = augment
        self.random_start = random_start

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One clip."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Several clips at once."""
        size = self.extractor.num_frames
        sequences = [self.sequences[index] for index in indices]
        batch = self.extractor.normalized(sequences)
        start = torch.zeros_like(batch.lengths)
        if self.random_start:
            start = (torch.rand(len(start)) * (batch.lengths - size + 1).clamp(min=1)).long()
        frame = start[:, None] + torch.arange(size)
        inside = frame < batch.lengths[:, None]
        clips = batch.frames[batch.starts[:, None] + torch.minimum(frame, batch.lengths[:, None] - 1)]
        if self.augment is not None:
            clips = self.augment(clips)  # type: ignore[operator]
        labels = torch.tensor([sequence.label for sequence in sequences])[:, None].expand(-1, size)
        labels = torch.where(inside, labels, -100)
        return [{"keypoints": clip, "labels": label} for clip, label in zip(clips, labels, strict=True)]


def causal_accuracy(
    model: USDRLForEarlyActionPrediction,
    extractor: USDRLFeatureExtractor,
    sequences: Sequence[SkeletonSequence],
    ratios: Sequence[float] = RATIOS,
) -> dict[str, float]:
    """Top-1 accuracy after the frames of each observation ratio; names and errors as in `cut_and_resize_accuracy`."""
    predicted: dict[float, list[int]] = {ratio: [] for ratio in ratios}
    for _, logits in causal_predictions(Engine(model, extractor), sequences):
        best = logits.argmax(axis=-1)
        for ratio, classes in predicted.items():
            classes.append(int(best[observed_frames(len(best), ratio) - 1]))
    return early_accuracy(predicted, [sequence.label for sequence in sequences])
