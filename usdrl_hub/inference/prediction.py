"""Class probabilities of recordings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.reading import Reading
from ..errors import CheckpointLoadError
from ..facts.checkpoints import RECOGNISER
from ..sequence import SkeletonSequence
from .engine import Engine
from .scores import class_scores, finite_rows, top_classes
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
    """

    sequence: SkeletonSequence
    probabilities: np.ndarray
    class_names: list[str]
    is_regression: bool = False

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
        inputs, model, reading=reading, batch_size=batch_size, device=device, dtype=dtype, each_person=each_person
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
    on_error: ErrorHandler | None = None,
) -> Iterator[Prediction]:
    """Yield the prediction of each recording; memory does not grow with their number.

    Arguments and errors are those of `extract_predictions`. An `on_error` is called with the error of an input that
    cannot be used, which is then left out; a model, device or type that cannot be used is an error of the call itself.
    """
    engine = Engine.load(model, device=device, dtype=dtype)
    if engine.model.task != "recognition":
        name = model if isinstance(model, str | os.PathLike) else "the model given"
        raise CheckpointLoadError(
            f"{name} is {type(engine.model).__name__}, which is not a recogniser: take a recognition "
            "model, or train one with 'usdrl finetune'"
        )
    batches = engine.batches(Source(inputs, reading, each_person=each_person, on_error=on_error), batch_size)
    return _predictions(engine, batches, on_error)


def _predictions(
    engine: Engine, batches: Iterator[tuple[list[SkeletonSequence], torch.Tensor]], on_error: ErrorHandler | None
) -> Iterator[Prediction]:
    config = engine.model.config
    for batch, clips in batches:
        scores = class_scores(engine.run(clips).logits, config).cpu().numpy()
        for sequence, row in finite_rows(batch, scores, "what the model says of it", on_error):
            yield Prediction(sequence, row, config.class_names, config.problem_type == "regression")
