"""What a trained recogniser refuses: clips that are like none of its classes."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..data.dataset import SkeletonData
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.embedding import embed_part
from ..modeling_usdrl import USDRLForActionRecognition

# Recognised test clips from which a similarity that keeps 95 % of them follows.
_ENOUGH = 20


@torch.inference_mode()
def fit_min_similarity(
    classifier: USDRLForActionRecognition,
    extractor: USDRLFeatureExtractor,
    train: SkeletonData,
    test: SkeletonData,
    kept: float = 0.95,
) -> dict[str, float]:
    """Let a trained recogniser refuse clips that are unlike the training clips of their class.

    The similarity below which it does (`USDRLConfig.min_similarity`) is the one that keeps the share `kept` of the
    test clips that it recognises; accuracy does not depend on it. How much motion of other kinds is refused follows
    from nothing in the data: measure it on recordings of your own.

    Args:
        classifier: The recogniser; changed in place.
        extractor: Its feature extractor.
        train: Its training clips.
        test: Other labelled clips.
        kept: Share of the recognised test clips that stay recognised.

    Returns:
        `min_similarity`; `kept`, the share of recognised test clips that stay so; `refused_errors`, the share of the
        misclassified ones that are refused; and their numbers, `recognised` and `misclassified`. Empty where fewer
        than 20 test clips are recognised, from which no such number follows; the recogniser then refuses nothing.
    """
    classifier.set_class_centers(None, None)
    features, labels = embed_part(classifier, extractor, train, pooled=True)
    known = range(len(classifier.config.class_names))
    centers = torch.stack([features[labels == label].mean(0) for label in known])
    tested, truth = embed_part(classifier, extractor, test, pooled=True)
    tested = tested.to(classifier.device, classifier.dtype)
    logits = classifier.classifier(tested)
    right = logits.argmax(-1).cpu().numpy() == truth
    if right.sum() < _ENOUGH:
        return {}
    # A class without a training clip refuses nothing.
    classifier.set_class_centers(centers.nan_to_num(0.0), 0.0)
    found = classifier.similarity(tested, logits)
    assert found is not None
    values = found.float().cpu().numpy()
    least = min(max(math.floor(1000 * float(np.quantile(values[right], 1 - kept, method="lower"))) / 1000, 0.0), 1.0)
    classifier.set_class_centers(centers.nan_to_num(0.0), least)
    wrong = values[~right]
    return {
        "min_similarity": least,
        "kept": float((values[right] >= least).mean()),
        "refused_errors": float((wrong < least).mean()) if len(wrong) else 0.0,
        "recognised": int(right.sum()),
        "misclassified": len(wrong),
    }
