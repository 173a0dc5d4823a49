"""What a model says about every frame of a recording: classes over time, and segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor, action_proposals
from ..hub.registry import CheckpointLoadError
from ..modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLPreTrainedModel,
)
from ..sequence import SkeletonSequence
from ..tasks.detection import frame_probabilities
from ..tasks.early_prediction import causal_predictions
from ..tasks.segmentation import segment_probabilities, segments_of
from .embedding import frame_outputs
from .ensemble import USDRLEnsemble
from .prediction import iter_predictions

# Models that say something about time.
CLASSIFIERS = (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLEnsemble,
)


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a model says about every frame of a recording.

    Attributes:
        class_names: Names of the K classes.
        probabilities: Float32 ``(T, K)``, each row summing to 1, or all 0 where nobody is seen.
        segments: What a detector or segmenter found, float64 ``(N, 4)`` of class, first frame, the frame after the
            last, and mean probability, in order of time; None for models that do not say when something begins.
        whole: Probabilities ``(K,)`` of the recording as a whole, for models that read it so; else None.
        has_nothing: Whether class 0 means that nothing happens.
        about: What the probabilities are, in words.
    """

    class_names: list[str]
    probabilities: np.ndarray
    segments: np.ndarray | None
    whole: np.ndarray | None
    has_nothing: bool
    about: str


def make_timeline(
    sequence: SkeletonSequence,
    model: USDRLPreTrainedModel | USDRLEnsemble,
    extractor: USDRLFeatureExtractor,
    batch_size: int = 64,
    threshold: float = 0.3,
) -> Timeline:
    """Ask a model about every frame of a recording.

    A recogniser reads windows of its clip length, an eighth of that apart; a frame gets the mean of the windows that
    it lies in.

    Args:
        sequence: The recording; in the model's layout or one that converts to it.
        model: A recogniser, ensemble of recognisers, detector, segmenter or early predictor, in eval mode.
        extractor: Its feature extractor.
        batch_size: Windows computed at once.
        threshold: Probability above which a detector's class is a segment.

    Raises:
        CheckpointLoadError: If the model names no classes.
        SkeletonFormatError: If the recording does not fit the model.
    """
    if not isinstance(model, CLASSIFIERS):
        raise CheckpointLoadError(
            f"the model is {type(model).__name__}, which names no classes: take one that was trained to, or use it to "
            "find the nearest clips of a gallery"
        )
    prepared = extractor.prepare(sequence)
    names, size = model.config.class_names, extractor.num_frames
    segments = whole = None
    if isinstance(model, USDRLForActionDetection):
        [(_, values)] = frame_probabilities(model, extractor, [prepared], batch_size)
        segments = action_proposals(torch.from_numpy(values), threshold).numpy()
        about = f"Probability in each frame, from windows of {size} frames"
    elif isinstance(model, USDRLForActionSegmentation):
        [(_, values)] = segment_probabilities(model, extractor, [prepared])
        runs = segments_of(values.argmax(axis=-1))
        scores = [values[start:end, kind].mean() for kind, start, end in runs]
        segments = np.c_[runs, np.array(scores).reshape(-1)].astype(np.float64)
        about = "Probability in each frame, from the whole recording"
    elif isinstance(model, USDRLForEarlyActionPrediction):
        [(_, logits)] = causal_predictions(model, extractor, [prepared])
        values = torch.from_numpy(logits).softmax(dim=-1).numpy()
        about = "Probability after each frame, from the frames so far"
    else:
        whole = next(iter_predictions(prepared, model, feature_extractor=extractor)).probabilities
        values = _window_probabilities(prepared, model, extractor, batch_size)
        short = prepared.num_frames <= size
        about = (
            "Probability, from the recording as a whole" if short else f"Probability, from windows of {size} frames"
        )
    if segments is not None:
        segments = segments[np.argsort(segments[:, 1], kind="stable")]
    return Timeline(names, values.astype(np.float32), segments, whole, segments is not None, about)


@torch.inference_mode()
def _window_probabilities(
    sequence: SkeletonSequence,
    model: USDRLForActionRecognition | USDRLEnsemble,
    extractor: USDRLFeatureExtractor,
    batch_size: int,
) -> np.ndarray:
    """Class probabilities ``(T, K)`` of the windows that each frame lies in, averaged."""
    size = extractor.num_frames

    def compute(clips: torch.Tensor) -> torch.Tensor:
        return model(clips).logits.float().softmax(dim=-1)[:, None].expand(-1, size, -1)

    [(_, values)] = frame_outputs([sequence], compute, extractor, batch_size, model.device, max(size // 8, 1))
    return values
