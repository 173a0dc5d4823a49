"""Class probabilities of recordings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.reading import Reading
from ..errors import CheckpointLoadError
from ..facts.checkpoints import RECOGNISER
from ..sequence import SkeletonSequence
from .engine import Engine
from .scores import NONE_OF_THESE, class_scores, finite_rows, top_classes
from .source import ErrorHandler, Source


@dataclass(frozen=True, eq=False)
class Prediction:
    """Class probabilities of one recording.

    Attributes:
        sequence: The recording, in the model's layout.
        probabilities: Float32 ``(K,)``, summing to 1; of a multi-label model one independent probability per class;
            of a regression the numbers themselves.
        class_names: Names of the K classes.
        is_regression: Whether these are numbers, such as a quality score, instead of probabilities.
        similarity: Cosine similarity to the mean training clip of the most probable class, by models that can tell
            what is none of their classes; else None.
        is_known: Whether it is at least the threshold; True by models that cannot tell.
    """

    sequence: SkeletonSequence
    probabilities: np.ndarray
    class_names: list[str]
    is_regression: bool = False
    similarity: float | None = None
    is_known: bool = True

    @property
    def label(self) -> str:
        """The most probable class, or `NONE_OF_THESE`."""
        return self.top(1)[0][0] if self.is_known else NONE_OF_THESE

    def top(self, k: int) -> list[tuple[str, float]]:
        """The `k` most probable classes with their probabilities, in descending order."""
        return top_classes(self.probabilities, self.class_names, k)


def extract_predictions(
    inputs: Any,
    model: Any = RECOGNISER,
    *,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
    threshold: float | None = None,
) -> list[Prediction]:
    """Classify recordings.

    Args:
        inputs: See `extract_embeddings`, as for the other arguments.
        model: A recognition model's name, folder or hub repository; a loaded model or `USDRLEnsemble`; or an `Engine`.
        reading: What the inputs do not say themselves.
        batch_size: Clips classified at once.
        device: Where to compute.
        dtype: Type to compute in.
        each_person: Whether each person of a recording is classified alone.
        threshold: Least similarity to the training clips of a class, in [0, 1], below which a recording is none of the
            classes; None takes the model's own, if it has one, and 0 refuses no recording.

    Returns:
        A prediction for each recording, in the order of the inputs.

    Raises:
        SkeletonFormatError: If an input cannot be read or does not fit the model.
        CheckpointLoadError: If the model cannot be loaded or does not classify clips.
        NonFiniteError: If a score of a recording is NaN or infinite.
        ValueError: If another argument is out of range.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import extract_predictions
        >>> [prediction] = extract_predictions(np.random.rand(90, 25, 3))
        >>> len(prediction.top(3))
        3
    """
    stream = iter_predictions(
        inputs,
        model,
        reading=reading,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        each_person=each_person,
        threshold=threshold,
    )
    return list(stream)


def iter_predictions(
    inputs: Any,
    model: Any = RECOGNISER,
    *,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
    threshold: float | None = None,
    on_error: ErrorHandler | None = None,
) -> Iterator[Prediction]:
    """Predict recordings one by one; memory does not grow with their number.

    Arguments and errors are those of `extract_predictions`. An `on_error` is called with the error of an input that
    cannot be used, which is then left out; a model, device or type that cannot be used is an error of the call itself.

    Yields:
        The prediction of each recording.
    """
    engine = Engine.load(model, device=device, dtype=dtype, threshold=threshold)
    if engine.model.task != "recognition":
        name = model if isinstance(model, str | os.PathLike) else "the model given"
        raise CheckpointLoadError(
            f"{name} is {type(engine.model).__name__}, which is not a recogniser: take a recognition "
            "model, or train one with 'usdrl finetune'"
        )
    batches = engine.batches(Source(inputs, reading, each_person=each_person, on_error=on_error), batch_size)
    return _predictions(engine, batches, on_error)


def _predictions(
    engine: Engine, batches: Iterator[tuple[Sequence[SkeletonSequence], torch.Tensor]], on_error: ErrorHandler | None
) -> Iterator[Prediction]:
    config, least = engine.model.config, engine.min_similarity
    for batch, clips in batches:
        output = engine.run(clips)
        scores = class_scores(output.logits, config).cpu().numpy()
        found = None if least is None else output.similarity
        # Checked together; 1 where the model cannot tell.
        alike = np.ones((len(scores), 1), scores.dtype) if found is None else found.float().cpu().numpy()[:, None]
        for sequence, row in finite_rows(batch, np.hstack([scores, alike]), "what the model says of it", on_error):
            similarity = None if found is None else float(row[-1])
            known = similarity is None or least is None or similarity >= least
            is_regression = config.problem_type == "regression"
            yield Prediction(sequence, row[:-1], config.class_names, is_regression, similarity, known)
