"""Whether a run learns: nearest neighbours of labelled clips by the embedding of the moment."""

from __future__ import annotations

import torch

from ..data.dataset import LabelledData
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..modeling_usdrl import USDRLForPreTraining, USDRLModel, USDRLPreTrainedModel
from ..sequence import SkeletonFormatError

_BATCH = 256


@torch.inference_mode()
def embed_clips(model: USDRLPreTrainedModel, clips: torch.Tensor) -> torch.Tensor:
    """Clip embeddings ``(N, 2d)`` float32 on the CPU of clips ``(N, T, M, V, C)``, in eval mode."""
    encoder: USDRLModel = model.base_model  # type: ignore[assignment]
    training = encoder.training
    encoder.eval()
    parts = [encoder(part.to(encoder.device)).pooler_output.float().cpu() for part in clips.split(_BATCH)]
    encoder.train(training)
    return torch.cat(parts)


def nearest_neighbour_accuracy(
    train: torch.Tensor, train_labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor
) -> float:
    """Share of test features whose most similar training feature, by cosine, has their label.

    Args:
        train: ``(N, D)``.
        train_labels: ``(N,)``.
        test: ``(K, D)``.
        test_labels: ``(K,)``.
    """
    train = torch.nn.functional.normalize(train, dim=1)
    test = torch.nn.functional.normalize(test, dim=1)
    nearest = torch.cat([(part @ train.T).argmax(dim=1) for part in test.split(1024)])
    return float((train_labels[nearest] == test_labels).float().mean())


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
        accuracy = nearest_neighbour_accuracy(features[0], self.labels[0], features[1], self.labels[1])
        return {"probe_1nn_accuracy": accuracy}
