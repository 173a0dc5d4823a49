"""Whether a run learns: nearest neighbours of labelled clips by the embedding of the moment."""

from __future__ import annotations

import torch

from ..data.dataset import LabelledData
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..modeling_usdrl import USDRLForPreTraining
from ..sequence import SkeletonFormatError
from ..tasks.retrieval import embed_clips, retrieval_metrics


class NeighbourProbe:
    """1-NN accuracy on a labelled data set; its clips are made once."""

    def __init__(self, train: LabelledData, test: LabelledData, feature_extractor: USDRLFeatureExtractor):
        """Make the clips.

        Args:
            train: Sequences to look among.
            test: Sequences to look for.
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
            self.clips.append(feature_extractor(sequences, return_tensors="pt")["keypoints"])
            self.labels.append(torch.tensor([sequence.label for sequence in sequences]))

    def __call__(self, model: USDRLForPreTraining) -> dict[str, float]:
        """`probe_1nn_accuracy` in [0, 1]."""
        features = [embed_clips(model, clips) for clips in self.clips]
        metrics = retrieval_metrics(features[0], self.labels[0], features[1], self.labels[1], ranks=())
        return {"probe_1nn_accuracy": metrics["accuracy_1nn"]}
