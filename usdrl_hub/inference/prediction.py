"""Class probabilities of skeleton files and sequences."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.reading import Reading
from ..errors import CheckpointLoadError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..layouts import LayoutLike
from ..modeling_usdrl import USDRLForActionRecognition, USDRLPreTrainedModel
from ..sequence import SkeletonSequence
from ..speedups import with_cuda_graph
from .ensemble import USDRLEnsemble, ready_classifier
from .inputs import batches_of_clips, class_scores, finite_rows
from .source import ErrorHandler, Source


@dataclass(frozen=True, eq=False)
class Prediction:
    """Class probabilities of one sequence.

    Attributes:
        sequence: The sequence, in the model's layout.
        probabilities: One per class ``(K,)``, summing to 1; each by itself where several classes may hold; the
            numbers themselves of a regression.
        class_names: Names of the classes, in the same order.
        is_regression: Whether these are numbers such as a quality score, and no probabilities.
    """

    sequence: SkeletonSequence
    probabilities: np.ndarray
    class_names: list[str]
    is_regression: bool = False

    def top(self, k: int) -> list[tuple[str, float]]:
        """The `k` likeliest classes with their probabilities, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.class_names[number], float(self.probabilities[number])) for number in order]


def iter_predictions(
    files_or_sequences: Any,
    model: str | os.PathLike | USDRLPreTrainedModel | USDRLEnsemble = "usdrl/tiny-uiprmd",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    feature_extractor: USDRLFeatureExtractor | None = None,
    source_layout: LayoutLike | None = None,
    axes: str | None = None,
    per_person: bool = False,
    image_shape: tuple[float, float] | None = None,
    on_error: ErrorHandler | None = None,
) -> Iterator[Prediction]:
    """Classify skeletons; memory does not grow with their number.

    Args:
        files_or_sequences: A file, a folder, a `SkeletonSequence`, an array, or a list of any of these.
        model: A recognition checkpoint's name or folder; or a loaded model or a `USDRLEnsemble`, which are left and
            used as they are. What is loaded by name is fused: `fuse(model)` is as fast.
        batch_size: Clips scored at once.
        device: Where to compute; CUDA if there is one where None and `model` is a name.
        dtype: Type to compute in, such as "bfloat16".
        feature_extractor: The model's own where None.
        source_layout: Layout of arrays and array files; the model's where None.
        axes: Axis order of arrays; see `SkeletonSequence.from_array`.
        per_person: Take everybody in a recording by themselves, as recordings ``<name>#<place>``.
        image_shape: Height and width in pixels of the picture that 2D keypoints lie in, where they do not say.
        on_error: Called with the error of an input that cannot be used, which is then left out; None raises it.

    Raises:
        SkeletonFormatError: If an input cannot be read or does not fit the model.
        CheckpointLoadError: If the model cannot be loaded or does not classify clips.
        NonFiniteError: If what the model says of a sequence is NaN or infinite.
        ValueError: If another argument is impossible.
    """
    classifier, extractor = ready_classifier(model, feature_extractor, device, dtype)
    if not isinstance(classifier, USDRLForActionRecognition | USDRLEnsemble):
        name = model if isinstance(model, str | os.PathLike) else "the model given"
        raise CheckpointLoadError(
            f"{name} is {type(classifier).__name__}, which does not name a class per clip: take a recognition "
            "model, or train one with 'usdrl finetune'"
        )
    reading = Reading(source_layout, axes, image_shape=image_shape)
    source = Source(files_or_sequences, reading, each_person=per_person, on_error=on_error)
    classify = with_cuda_graph(classifier)
    is_regression = classifier.config.problem_type == "regression"
    sequences = source.prepared(extractor)
    for batch, clips in batches_of_clips(sequences, extractor, batch_size, classifier.device, source.is_stream):
        with torch.inference_mode():
            scores = class_scores(classify(clips).logits, classifier.config).cpu().numpy()
        for sequence, row in finite_rows(batch, scores, "what the model says of it", on_error):
            yield Prediction(sequence, row, classifier.config.class_names, is_regression)
