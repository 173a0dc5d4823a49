"""Class probabilities of every frame of a recording, and the segments in them."""

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
from ..facts.checkpoints import RECOGNISER
from ..files import new_file
from ..postprocessing import action_proposals, segments_of
from ..sequence import DETECTION_THRESHOLD, SkeletonSequence, is_rate
from .causal import causal_predictions
from .engine import Engine, check_batch_size
from .prediction import iter_predictions
from .scores import check_min_similarity, is_single_label
from .source import ErrorHandler, Source
from .windows import frame_outputs, frame_probabilities, segment_probabilities

# Columns of a table of segments, behind the name of the recording.
_COLUMNS = ("label", "start", "end", "start_seconds", "end_seconds", "probability")


@dataclass(frozen=True, eq=False)
class Timeline:
    """Class probabilities of every frame of a recording, and segments.

    Attributes:
        class_names: Names of the K classes.
        probabilities: Float32 ``(T, K)``, each row summing to 1, or all 0 where no person is visible.
        segments: Segments of a detector or segmenter, float64 ``(N, 4)`` of class, first frame, the frame after the
            last, and mean probability, in order of time; None for other models.
        overall: Probabilities ``(K,)`` of the recording as a whole, by recognition models; else None.
        has_background: Whether class 0 is the background, in which nothing happens.
        description: What the probabilities are, as a caption.
        known: Whether each frame is like one of the classes ``(T,)``, by recognition models that can tell; else None.
        is_known: Whether the recording as a whole is, see `Prediction`.
    """

    class_names: list[str]
    probabilities: np.ndarray
    segments: np.ndarray | None
    overall: np.ndarray | None
    has_background: bool
    description: str
    known: np.ndarray | None = None
    is_known: bool = True

    def runs(self) -> np.ndarray:
        """The segments or, without any, the runs of frames with the same most probable class ``(N, 4)``.

        Frames without visible people, and those that are like none of the classes, are in no run.
        """
        if self.segments is not None:
            return self.segments
        values = self.probabilities
        shown = values.any(axis=1) if self.known is None else values.any(axis=1) & self.known
        best = np.where(shown, values.argmax(axis=1), -1)
        return _scored(segments_of(best + 1) - (1, 0, 0), values)


def _scored(runs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Append to runs ``(N, 3)`` of class, first frame and end the mean probability of the class."""
    scores = [probabilities[start:end, kind].mean(dtype=np.float64) for kind, start, end in runs]
    return np.c_[runs, np.array(scores).reshape(-1)].astype(np.float64)


def extract_timelines(
    inputs: Any,
    model: Any = RECOGNISER,
    *,
    threshold: float | None = None,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
) -> list[tuple[SkeletonSequence, Timeline]]:
    """Compute the class probabilities of every frame of recordings of any length.

    Args:
        inputs: See `extract_embeddings`, as for the other arguments.
        model: A detector, segmenter, early predictor or recognition model: name, folder, hub repository or loaded; a
            `USDRLEnsemble`; or an `Engine`.
        threshold: Of a detector, the probability above which its class is a segment; of a recognition model, the
            similarity below which a window is none of the classes, see `Engine`; None takes the model's own.
        reading: What the inputs do not say themselves.
        batch_size: Windows computed at once.
        device: Where to compute.
        dtype: Type to compute in.
        each_person: Whether each person of a recording gets a timeline.

    Returns:
        Each recording, in the model's layout, with its timeline, in the order of the inputs.

    Raises:
        SkeletonFormatError: If an input cannot be read or does not fit the model.
        CheckpointLoadError: If the model cannot be loaded or has no classes that exclude each other.
        NonFiniteError: If a score of a recording is NaN or infinite.
        ValueError: If another argument is out of range.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import extract_timelines
        >>> [(recording, timeline)] = extract_timelines(np.random.rand(300, 25, 3))
        >>> timeline.probabilities.shape
        (300, 10)
    """
    stream = iter_timelines(
        inputs,
        model,
        threshold=threshold,
        reading=reading,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        each_person=each_person,
    )
    return list(stream)


def iter_timelines(
    inputs: Any,
    model: Any = RECOGNISER,
    *,
    threshold: float | None = None,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
    on_error: ErrorHandler | None = None,
) -> Iterator[tuple[SkeletonSequence, Timeline]]:
    """Predict every frame of recordings, one recording after the other.

    Arguments and errors are those of `extract_timelines`. An `on_error` is called with the error of an input that
    cannot be used, which is then left out; a model, device or type that cannot be used is an error of the call itself.

    Yields:
        Each recording, in the model's layout, with its timeline.
    """
    check_batch_size(batch_size)
    engine = Engine.load(model, device=device, dtype=dtype)
    check_classes(engine.model)
    check_threshold(engine, threshold)
    return _timelines(
        engine, Source(inputs, reading, each_person=each_person, on_error=on_error), batch_size, threshold
    )


def _timelines(
    engine: Engine, source: Source, batch_size: int, threshold: float | None
) -> Iterator[tuple[SkeletonSequence, Timeline]]:
    for sequence in source.prepared(engine.extractor):
        try:
            timeline = make_timeline(engine, sequence, batch_size=batch_size, threshold=threshold)
        except NonFiniteError as error:
            if source.on_error is None:
                raise
            source.on_error(error)
            continue
        yield sequence, timeline


def segment_rows(sequence: SkeletonSequence, timeline: Timeline) -> list[dict[str, Any]]:
    """The segments of a recording as rows of a table; see `Timeline.runs`.

    Returns:
        In order of time, `label`; `start` and `end`, the first frame, from 0, and the frame after the last; the same
        as `start_seconds` and `end_seconds`, None if the frame rate is unknown; and the mean `probability`.
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
    """Timelines in a form that JSON can hold.

    Args:
        timelines: What `iter_timelines` yields.
        model_name: Name of the model.

    Returns:
        `model`; `labels`, the names of its classes; and `recordings`, each with `name`, `frames`, `fps`, `about` (what
        the probabilities are), `found` (whether the model finds segments, or these are runs of the most probable
        class) and `segments`, see `segment_rows`.
    """
    recordings = [
        {
            "name": sequence.name,
            "frames": sequence.num_frames,
            "fps": sequence.fps,
            "about": timeline.description,
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
            are printable, with an apostrophe before those that a spreadsheet would take for a formula.
        model_name: Name of the model.

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
    """A cell of a table: numbers unchanged; text without formulas and control characters."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def has_classes(model: Any) -> bool:
    """Whether a model or ensemble names classes, from which timelines are made."""
    return model.task not in ("embedding", "pretraining")


def check_classes(model: Any) -> None:
    """Refuse a model from which no timelines can be made.

    Raises:
        CheckpointLoadError: If the model has no classes, or they are not exclusive.
    """
    if not has_classes(model):
        raise CheckpointLoadError(
            f"the model is {type(model).__name__}, which has no classes: use a model with a head, or give a "
            "gallery to find the nearest clips in"
        )
    if not is_single_label(model.config):
        raise CheckpointLoadError(
            f"the model's problem_type is '{model.config.problem_type}', and a timeline needs classes of which one "
            "holds at a time: use predict, or take another model"
        )


def check_threshold(engine: Engine, threshold: float | None) -> None:
    """Refuse a threshold that is out of range, or has no effect on the model's timelines.

    Raises:
        ValueError: If it is.
    """
    if threshold is None or engine.model.task == "recognition":
        check_min_similarity(threshold)
    elif not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")


def make_timeline(
    engine: Engine, sequence: SkeletonSequence, *, batch_size: int = 64, threshold: float | None = None
) -> Timeline:
    """Compute the timeline of one recording.

    A recognition model reads windows of its clip length, an eighth of that apart; a frame gets the mean of the windows
    that contain it. A detector's probabilities are averaged over its shift gap (see `smooth_over_shift_gap`).

    Args:
        engine: The model.
        sequence: The recording; in the model's layout or one that converts to it.
        batch_size: Windows computed at once.
        threshold: Of a detector, the probability above which its class is a segment; of a recognition model, the
            similarity below which a window is none of the classes, see `Engine`; None takes the model's own.

    Raises:
        CheckpointLoadError: If the model has no classes, or they are not exclusive.
        SkeletonFormatError: If the recording does not fit the model.
        NonFiniteError: If a score is NaN or infinite.
    """
    model, extractor = engine.model, engine.extractor
    check_classes(model)
    check_threshold(engine, threshold)
    known, is_known = None, True
    prepared = extractor.prepare(sequence)
    size = extractor.num_frames
    segments = overall = None
    if model.task == "detection":
        [(_, values)] = frame_probabilities(engine, [prepared], batch_size=batch_size, averaged=True)
        found = DETECTION_THRESHOLD if threshold is None else threshold
        segments = action_proposals(torch.from_numpy(values), found).numpy()
        description = f"Probability in each frame, from windows of {size} frames"
    elif model.task == "segmentation":
        [(_, values)] = segment_probabilities(engine, [prepared])
        segments = _scored(segments_of(values.argmax(axis=-1)), values)
        description = "Probability in each frame, from the whole recording"
    elif model.task == "early prediction":
        [(_, logits)] = causal_predictions(engine, [prepared])
        values = torch.from_numpy(logits).softmax(dim=-1).numpy()
        description = "Probability after each frame, from the frames so far"
    else:
        engine = Engine.load(engine, threshold=threshold)
        whole = next(iter_predictions(prepared, engine))
        overall, is_known = whole.probabilities, whole.is_known
        values, known = _window_probabilities(engine, prepared, batch_size)
        short = prepared.num_frames <= size
        description = (
            "Probability, from the recording as a whole" if short else f"Probability, from windows of {size} frames"
        )
    if segments is not None:
        segments = segments[np.argsort(segments[:, 1], kind="stable")]
    values = values.astype(np.float32)
    return Timeline(
        model.config.class_names, values, segments, overall, model.has_background, description, known, is_known
    )


def _window_probabilities(
    engine: Engine, sequence: SkeletonSequence, batch_size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Class probabilities ``(T, K)``, averaged over the windows that contain each frame, and `Timeline.known`."""
    size, least = engine.extractor.num_frames, engine.min_similarity

    def compute(clips: torch.Tensor) -> torch.Tensor:
        output = engine.run(clips)
        values = output.logits.float().softmax(dim=-1)
        if least is not None:
            values = torch.cat([values, output.similarity[:, None].to(values)], dim=-1)
        return values[:, None].expand(-1, size, -1)

    [(_, values)] = frame_outputs(engine, [sequence], compute, batch_size, stride=max(size // 8, 1))
    return (values, None) if least is None else (values[:, :-1], values[:, -1] >= least)
