"""What a recogniser is compared with: nearest neighbours on the joints, without any model."""

from __future__ import annotations

import numpy as np
import torch

from ..data.dataset import SkeletonData
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..normalization import resize

# Clips of a block of distances.
_BLOCK = 2048


def joint_neighbours(train: SkeletonData, test: SkeletonData, extractor: USDRLFeatureExtractor) -> np.ndarray:
    """Class ``(N,)`` of the training clip nearest to each test clip, by normalised joints without any model.

    Args:
        train: Training clips with labels.
        test: N test clips.
        extractor: Normalises and resizes clips; distances are Euclidean.
    """
    labels = np.asarray(train.column("labels"))
    tested = _clips(test, extractor, 0, len(test))
    best = torch.full((len(test),), torch.inf)
    nearest = torch.zeros(len(test), dtype=torch.long)
    for start in range(0, len(train), _BLOCK):
        distances = torch.cdist(tested, _clips(train, extractor, start, start + _BLOCK))
        values, rows = distances.min(1)
        nearest = torch.where(values < best, rows + start, nearest)
        best = torch.minimum(values, best)
    return labels[nearest.numpy()]


def _clips(data: SkeletonData, extractor: USDRLFeatureExtractor, start: int, end: int) -> torch.Tensor:
    return extractor(list(data[start:end]), return_tensors="pt")["keypoints"].flatten(1)


def nearest_neighbour_baselines(train: SkeletonData, test: SkeletonData, num_frames: int = 64) -> dict[str, float]:
    """Accuracy of the nearest training clip by joint coordinates, without any model.

    Args:
        train: Training sequences.
        test: Test sequences.
        num_frames: Frames that every sequence is resized to.

    Returns:
        Accuracy in [0, 1]: `baseline_1nn_raw` on the coordinates as they are, `baseline_1nn_centered` with each
        recording's mean position subtracted.
    """
    answers = [np.array([sequence.label for sequence in part]) for part in (train, test)]
    scores = {}
    for name, center in (("raw", False), ("centered", True)):
        features = []
        for part in (train, test):
            rows = []
            for sequence in part:
                frames = torch.from_numpy(sequence.keypoints)
                frames = frames - frames.mean(dim=(0, 2), keepdim=True) if center else frames
                rows.append(resize(frames, num_frames).flatten())
            features.append(torch.stack(rows))
        nearest = torch.cdist(features[1], features[0]).argmin(dim=1).numpy()
        scores[f"baseline_1nn_{name}"] = float((answers[0][nearest] == answers[1]).mean())
    return scores
