"""What a model says about every frame of a recording: classes over time, and segments."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.reading import Reading
from ..errors import CheckpointLoadError, NonFiniteError, printable
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_file
from ..layouts import LayoutLike
from ..modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLPreTrainedModel,
)
from ..postprocessing import action_proposals, segments_of
from ..sequence import DETECTION_THRESHOLD, SkeletonSequence, is_rate
from .causal import causal_predictions
from .ensemble import USDRLEnsemble, ready_classifier
from .inputs import names_one_class
from .prediction import iter_predictions
from .source import ErrorHandler, Source
from .windows import frame_outputs, frame_probabilities, segment_probabilities

# Models that say something about time.
CLASSIFIERS = (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLEnsemble,
)
# Of a row of a table of segments.
_COLUMNS = ("label", "start", "end", "start_seconds", "end_seconds", "probability")


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

    def runs(self) -> np.ndarray:
        """The segments; of models that do not find any, the runs of frames with the same likeliest class ``(N, 4)``.

        Frames in which nobody is seen are in no run.
        """
        if self.segments is not None:
            return self.segments
        values = self.probabilities
        best = np.where(values.any(axis=1), values.argmax(axis=1), -1)
        return _scored(segments_of(best + 1) - (1, 0, 0), values)


def _scored(runs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Runs ``(N, 3)`` of class, first frame and end with the mean probability of the class in them."""
    scores = [probabilities[start:end, kind].mean(dtype=np.float64) for kind, start, end in runs]
    return np.c_[runs, np.array(scores).reshape(-1)].astype(np.float64)


def iter_timelines(
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
    threshold: float = DETECTION_THRESHOLD,
    fps: float | None = None,
) -> Iterator[tuple[SkeletonSequence, Timeline]]:
    """Yield each recording, in the model's layout, with what a model says about every frame of it.

    Args:
        files_or_sequences: See `iter_predictions`, as all arguments but the last two.
        model: As above; but a model that finds segments, too.
        batch_size: Windows computed at once.
        device: As above.
        dtype: As above.
        feature_extractor: As above.
        source_layout: As above.
        axes: As above.
        per_person: As above.
        image_shape: As above.
        on_error: As above.
        threshold: Probability above which a detector's class is a segment.
        fps: Frames per second of recordings that do not say.

    Raises:
        SkeletonFormatError: See `iter_predictions`.
        CheckpointLoadError: If the model cannot be loaded or names no classes.
        NonFiniteError: If what the model says of a recording is NaN or infinite.
        ValueError: If another argument is impossible.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    loaded, extractor = ready_classifier(model, feature_extractor, device, dtype)
    reading = Reading(source_layout, axes, fps, image_shape=image_shape)
    source = Source(files_or_sequences, reading, each_person=per_person, on_error=on_error)
    for sequence in source.prepared(extractor):
        try:
            timeline = make_timeline(sequence, loaded, extractor, batch_size, threshold)
        except NonFiniteError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        yield sequence, timeline


def segment_rows(sequence: SkeletonSequence, timeline: Timeline) -> list[dict[str, Any]]:
    """What happens when in a recording, in plain words and numbers; see `Timeline.runs`.

    Returns:
        In order of time, `label`; `start` and `end`, the first frame, from 0, and the frame after the last; the same
        as `start_seconds` and `end_seconds`, None where the frame rate is unknown; and the mean `probability`.
    """
    rate = sequence.fps if is_rate(sequence.fps) else None
    rows: list[dict[str, Any]] = []
    for kind, start, end, probability in timeline.runs().tolist():
        rows.append({"label": timeline.class_names[int(kind)], "start": int(start), "end": int(end)})
        for name, frame in (("start_seconds", start), ("end_seconds", end)):
            rows[-1][name] = None if rate is None else round(frame / rate, 3)
        rows[-1]["probability"] = probability
    return rows


def describe_timelines(
    timelines: Sequence[tuple[SkeletonSequence, Timeline]], model_name: str | None = None
) -> dict[str, Any]:
    """What a model says about recordings, as JSON can hold it.

    Args:
        timelines: What `iter_timelines` yields.
        model_name: What the model is called.

    Returns:
        `model`; `labels`, the names of its classes; and `recordings`, each with `name`, `frames`, `fps`, `about` (what
        the probabilities are), `found` (whether the model finds segments, or these are runs of the likeliest class)
        and `segments`, see `segment_rows`.
    """
    recordings = [
        {
            "name": sequence.name,
            "frames": sequence.num_frames,
            "fps": sequence.fps,
            "about": timeline.about,
            "found": timeline.segments is not None,
            "segments": segment_rows(sequence, timeline),
        }
        for sequence, timeline in timelines
    ]
    labels = timelines[0][1].class_names if timelines else []
    return {"model": model_name, "labels": labels, "recordings": recordings}


def write_segments(
    timelines: Sequence[tuple[SkeletonSequence, Timeline]], path: str | os.PathLike, model_name: str | None = None
) -> None:
    """Write the segments of recordings, whole or not at all.

    Args:
        timelines: What `iter_timelines` yields.
        path: File to write: ``.json``, see `describe_timelines`; or ``.csv``, a row for each segment. In a CSV, names
            are printable and begin with an apostrophe where a spreadsheet would take them for a formula.
        model_name: What the model is called.

    Raises:
        ValueError: If the file has another ending or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".json"):
        raise ValueError(f"{path}: segments are written as .csv or .json, so name the file accordingly")
    with new_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".json":
            json.dump(describe_timelines(timelines, model_name), file, indent=2)
        else:
            writer = csv.writer(file)
            writer.writerow(["name", *_COLUMNS])
            for sequence, timeline in timelines:
                rows = segment_rows(sequence, timeline)
                writer.writerows([_cell(sequence.name), *(_cell(row[column]) for column in _COLUMNS)] for row in rows)


def _cell(value: Any) -> Any:
    """What a table may hold: numbers as they are; text that is no formula and moves no cursor."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def make_timeline(
    sequence: SkeletonSequence,
    model: USDRLPreTrainedModel | USDRLEnsemble,
    extractor: USDRLFeatureExtractor,
    batch_size: int = 64,
    threshold: float = DETECTION_THRESHOLD,
) -> Timeline:
    """Ask a model about every frame of a recording.

    A recogniser reads windows of its clip length, an eighth of that apart; a frame gets the mean of the windows that
    it lies in. A detector's probabilities are averaged over its shift gap (see `smooth_over_shift_gap`).

    Args:
        sequence: The recording; in the model's layout or one that converts to it.
        model: A recogniser, ensemble of recognisers, detector, segmenter or early predictor, in eval mode.
        extractor: Its feature extractor.
        batch_size: Windows computed at once.
        threshold: Probability above which a detector's class is a segment.

    Raises:
        CheckpointLoadError: If the model names no classes, or such that do not exclude each other.
        SkeletonFormatError: If the recording does not fit the model.
        NonFiniteError: If what the model says is NaN or infinite.
    """
    if not isinstance(model, CLASSIFIERS):
        raise CheckpointLoadError(
            f"the model is {type(model).__name__}, which names no classes: take one that was trained to, or use it to "
            "find the nearest clips of a gallery"
        )
    if not names_one_class(model.config):
        raise CheckpointLoadError(
            f"the model's problem_type is '{model.config.problem_type}', and a timeline needs classes of which one "
            "holds at a time: use predict, or take another model"
        )
    prepared = extractor.prepare(sequence)
    names, size = model.config.class_names, extractor.num_frames
    segments = whole = None
    if isinstance(model, USDRLForActionDetection):
        [(_, values)] = frame_probabilities(model, extractor, [prepared], batch_size, averaged=True)
        segments = action_proposals(torch.from_numpy(values), threshold).numpy()
        about = f"Probability in each frame, from windows of {size} frames"
    elif isinstance(model, USDRLForActionSegmentation):
        [(_, values)] = segment_probabilities(model, extractor, [prepared])
        segments = _scored(segments_of(values.argmax(axis=-1)), values)
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
