"""Measure what a pretraining run has learned: 1-NN accuracy of labelled clips by their embeddings."""

from __future__ import annotations

import torch

from ..data.dataset import SkeletonData
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.embedding import embed_clips
from ..inference.engine import batched
from ..metrics.classification import agreement
from ..metrics.retrieval import top_k
from ..modeling_usdrl import USDRLForPreTraining
from ..sequence import SkeletonFormatError

_BATCH = 256


class NeighbourProbe:
    """1-NN accuracy on a labelled data set, whose clips are prepared once."""

    def __init__(self, train: SkeletonData, test: SkeletonData, feature_extractor: USDRLFeatureExtractor):
        """Prepare the clips.

        Args:
            train: Labelled sequences, the neighbours.
            test: Labelled sequences, the queries.
            feature_extractor: The model's.

        Raises:
            SkeletonFormatError: If a sequence has no label or cannot be read.
        """
        self.clips, self.labels = [], []
        for part in (train, test):
            sequences = list(part)
            unlabelled = [sequence.name for sequence in sequences if sequence.label is None]
            if unlabelled or not sequences:
                raise SkeletonFormatError(
                    f"the probe needs labelled clips, and '{(unlabelled or ['it'])[0]}' has none"
                )
            made = [feature_extractor(part, return_tensors="pt")["keypoints"] for part in batched(sequences, _BATCH)]
            self.clips.append(torch.cat(made))
            self.labels.append(torch.tensor([sequence.label for sequence in sequences]))

    def __call__(self, model: USDRLForPreTraining) -> dict[str, float]:
        """`probe_1nn_accuracy` in [0, 1]."""
        features = [embed_clips(model, clips) for clips in self.clips]
        _, nearest = top_k(features[1], features[0], 1)
        return {"probe_1nn_accuracy": agreement(self.labels[0][nearest[:, 0]], self.labels[1])}
