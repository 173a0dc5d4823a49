"""The commands 'predict', 'embed' and 'count'."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ..data.reading import Reading
from ..facts.checkpoints import ENCODER, RECOGNISER
from ..sequence import SkeletonFormatError, SkeletonSequence, is_rate
from .inputs import refuse_unreadable
from .messages import Errors
from .models import load_engine, video_reading
from .needs import check_threshold
from .options import (
    RECORDINGS,
    Model,
    ModelOptions,
    PerPerson,
    ReadingWorkers,
    Shard,
    VideoOptions,
    complete_model,
    grouped,
)
from .tables import heading, print_predictions, print_table, say

if TYPE_CHECKING:
    from ..inference.counting import Repetitions
    from ..inference.timeline import Timeline

# Repetitions whose times the table of 'count' shows.
_SHOWN_SPANS = 4


@grouped
def predict(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help=f"Skeleton files {RECORDINGS}, videos, and folders or stores of them."),
    ] = None,
    *,
    camera: Annotated[
        str | None,
        typer.Option(help="Instead of files: number of a camera (0), or URL of a stream (rtsp, http, ...), live."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            autocompletion=complete_model,
            help="Checkpoint: a name, folder or hub repository; several, joined by commas, are an ensemble.",
        ),
    ] = RECOGNISER,
    videos: VideoOptions,
    top_k: Annotated[int, typer.Option(min=1, help="Classes shown per recording.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Classes over time, as segments of recordings of any length.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="With --timeline, also write the segments as .csv or .json, or a .png.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Recogniser: similarity to a class's training clips below which the answer is 'none of these'; 0 "
            "always names a class. Detector, with --timeline: probability above which a frame belongs to a segment. "
            "The model's own if unset."
        ),
    ] = None,
    reading: Reading,
    per_person: PerPerson = False,
    computing: ModelOptions,
) -> None:
    """Recognise the action in skeleton recordings, or with --timeline all actions over time.

    With --camera, a line for each result (with --json as JSON) until the stream ends or Ctrl-C.
    """
    if camera is not None:
        _watch_camera(camera, model, videos, top_k, as_json, threshold)
        return
    if not files:
        raise ValueError("name recordings to predict, or a --camera")
    refuse_unreadable(files, model, reading)

    from ..inference.engine import Engine
    from ..inference.prediction import iter_predictions
    from ..inference.source import Source
    from ..inference.timeline import iter_timelines
    from ..visualize.page import check_output

    if output is not None:
        check_output(output, (".csv", ".json", ".png"), "segments are written")
        if any(file.resolve() in output.resolve().parents for file in files):
            raise ValueError(f"{output}: it would lie among the recordings: name a file outside their folder")
    errors = Errors()
    engine = load_engine(model, reading, computing)
    check_threshold(context, engine.model)
    names = engine.model.config.class_names
    choices: dict[str, Any] = {
        "batch_size": computing.batch_size,
        "each_person": per_person,
        "on_error": errors,
    }
    how = video_reading(videos, computing.device, engine.extractor)
    inputs = Source(files, reading, on_error=errors, videos=how).for_model(engine.extractor)
    if timeline:
        found = list(iter_timelines(inputs, engine, threshold=threshold, **choices))
        _show_timelines(found, model, names, as_json, output)
        errors.finish()
        return
    predictions = iter_predictions(inputs, engine, threshold=threshold, **choices)
    least = Engine.load(engine, threshold=threshold).min_similarity
    if as_json:
        rows = [
            {
                "name": prediction.sequence.name,
                "frames": prediction.sequence.num_frames,
                "label": prediction.label,
                **({} if prediction.similarity is None else {"similarity": prediction.similarity}),
                "top": [
                    {"label": label, "value" if prediction.is_regression else "probability": value}
                    for label, value in prediction.top(top_k)
                ],
            }
            for prediction in predictions
        ]
        found_by = {"model": model, "labels": names} | ({} if least is None else {"threshold": least})
        print(json.dumps({**found_by, "predictions": rows}, indent=2))
    else:
        print_predictions(predictions, model, names, top_k, threshold=least)
    errors.finish()


def _watch_camera(
    camera: str, model: str, videos: VideoOptions, top_k: int, as_json: bool, threshold: float | None
) -> None:
    """Print what a model says of a camera, a line for each result, until it ends or Ctrl-C."""
    if "," in model:
        raise ValueError("--camera is for a single model: name one")
    if videos.detector is not None or (videos.pose_model or ".onnx")[-5:] != ".onnx":
        raise ValueError("--camera reads BlazePose: name another size of it (.onnx) as --pose-model, no --detector")

    from ..inference.camera import open_camera, watch
    from ..inference.engine import Engine
    from ..loading import load_config

    results = watch(
        open_camera(camera),
        model if threshold is None else Engine.load(model, threshold=threshold),
        mirrored=videos.mirrored,
        threshold=videos.person_threshold,
        landmarks=videos.pose_model,
    )
    is_regression = load_config(model).problem_type == "regression"
    count = 0
    try:
        for live in results:
            if live.result.probabilities is None:
                raise ValueError(f"{model} has no classes: take a model with a head")
            top = live.result.top(top_k)
            if as_json:
                score = "value" if is_regression else "probability"
                classes = [{"label": label, score: value} for label, value in top]
                found: dict[str, Any] = {"label": live.result.label}
                found |= {} if live.result.similarity is None else {"similarity": live.result.similarity}
                print(json.dumps({"time": round(live.time, 3), "persons": live.persons, **found, "top": classes}))
            else:
                cells = [f"{value:.4g} {label}" if is_regression else f"{value:6.1%} {label}" for label, value in top]
                cells = cells if live.result.is_known else [f"{live.result.label} (most like {top[0][0]})"]
                say("  ".join([f"{live.time:7.2f} s", *cells]))
            sys.stdout.flush()
            count += 1
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Who reads the lines has enough; Python flushes once more at its end.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        return
    if not count:
        raise SkeletonFormatError("the stream ended without a person in it for long enough")


def _show_timelines(
    found: Sequence[tuple[SkeletonSequence, Timeline]],
    model: str,
    names: Sequence[str],
    as_json: bool,
    output: Path | None,
) -> None:
    """Print the segments of recordings, and write them where a file is named."""
    from ..inference.timeline import describe_timelines, segment_rows, write_segments
    from ..visualize.recording import draw_timelines

    if output is not None:
        if not found:
            raise SkeletonFormatError(f"no recording could be read, so {output} is not written")
        if output.suffix.lower() == ".png":
            draw_timelines(found, output)
        else:
            write_segments(found, output, model)
    if as_json:
        print(json.dumps(describe_timelines(found, model), indent=2))
        return
    if not found:
        # The errors of unreadable files have been printed.
        return
    say(heading(model, names))
    if found[0][1].segments is None:
        say("the model is not a detector: these are the runs of frames with the same most probable class")
    if any(timeline.known is not None and not timeline.known.all() for _, timeline in found):
        say("frames that are like none of the classes are left out (--threshold 0 keeps them)")
    say("frames count from 0, and an end is the frame after the last\n")
    rows = [["file", "class", "start", "end", "from", "to", "probability"]]
    for sequence, timeline in found:
        rows += [[sequence.name, *_segment_cells(part)] for part in segment_rows(sequence, timeline)] or [
            [sequence.name, "(nothing)", *[""] * 5]
        ]
    print_table(rows)
    if output is not None:
        say(f"\nwritten: {output}")


def _segment_cells(segment: dict[str, Any]) -> list[str]:
    times = [segment["start_seconds"], segment["end_seconds"]]
    cells = [segment["label"], str(segment["start"]), str(segment["end"])]
    cells += ["" if time is None else f"{time:.2f} s" for time in times]
    return [*cells, f"{100 * segment['probability']:5.1f} %"]


@grouped
def embed(
    source: Annotated[
        Path, typer.Argument(help=f"A skeleton file {RECORDINGS} or a video, or a folder or store of them.")
    ],
    *,
    output: Annotated[Path, typer.Option(help="File to write, .npz.")],
    model: Model = ENCODER,
    level: Annotated[str, typer.Option(help="clip: one embedding per recording; frame: one per frame.")] = "clip",
    videos: VideoOptions,
    reading: Reading,
    per_person: PerPerson = False,
    workers: ReadingWorkers = 1,
    shard: Shard = None,
    computing: ModelOptions,
) -> None:
    """Write the embeddings of skeleton recordings.

    The .npz file holds `names` and `embeddings`: (N, 2d) for clips; for frames (all frames, 2d) with the `offsets`
    (N + 1) of the recordings in it. Several processes or GPUs share the work: 'accelerate launch -m usdrl_hub.cli
    embed ...'; the file is the same.
    """
    if output.suffix != ".npz":
        raise ValueError(f"{output}: the embeddings are written as .npz, so name the file accordingly")
    if level not in ("clip", "frame"):
        raise ValueError(f"level must be 'clip' or 'frame', got {level!r}")
    refuse_unreadable([source], model, reading)

    from tqdm import tqdm

    from ..distributed import Workers
    from ..inference.archive import expected_rows, write_embeddings
    from ..inference.embedding import iter_embeddings, iter_frame_embeddings
    from ..inference.source import Source

    errors = Errors()
    ranks = Workers.of_environment()
    if shard is not None and ranks.count > 1:
        raise ValueError("--shard is for processes on their own: leave it out under accelerate launch or torchrun")
    share = ranks if shard is None else Workers.of_shard(shard)
    # An older result in the folder is not a recording.
    how = video_reading(videos, computing.device)
    mine = Source(source, reading, on_error=errors, videos=how, workers=workers).share(
        share, computing.batch_size if shard is None else 1, without=output
    )

    # Loaded when the file is locked: a process that may not write it has no work to do.
    def stream() -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
        engine = load_engine(model, reading, computing, head=False, device=ranks.device)
        yield from (iter_frame_embeddings if level == "frame" else iter_embeddings)(
            mine.for_model(engine.extractor),
            engine,
            batch_size=computing.batch_size,
            each_person=per_person,
            on_error=errors,
        )

    shown = {"unit": "recording", "disable": None if ranks.is_first else True, "file": sys.stderr}
    progress = tqdm(stream(), total=expected_rows(mine.inputs), **shown)
    count = write_embeddings(progress, output, rows=expected_rows(mine.inputs, level == "frame"), workers=ranks)
    if ranks.is_first:
        say(f"{output}: embeddings of {count} recordings by {model}")
    errors.finish()


@grouped
def count(
    files: Annotated[
        list[Path], typer.Argument(help=f"Skeleton files {RECORDINGS}, videos, and folders or stores of them.")
    ],
    *,
    videos: VideoOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all repetitions, instead of a table.")] = (
        False
    ),
    reading: Reading,
    per_person: PerPerson = False,
) -> None:
    """Count how often a movement is repeated in recordings, and say where; it needs no model."""
    from ..inference.counting import count_repetitions
    from ..inference.source import Source

    errors = Errors()
    source = Source(files, reading, on_error=errors, videos=video_reading(videos, None))
    found = count_repetitions(source, each_person=per_person, on_error=errors)
    if as_json:
        print(json.dumps({"recordings": [_counted(*pair) for pair in found]}, indent=2))
    elif found:
        timed = all(is_rate(sequence.fps) for sequence, _ in found)
        rows = [["file", "repetitions", "each", f"from and to, in {'seconds' if timed else 'frames'}"]]
        rows += [_count_cells(sequence, repetitions, timed) for sequence, repetitions in found]
        print_table(rows)
        if not timed:
            say("without frame rates 30 frames per second are assumed: --fps names another")
    errors.finish()


def _counted(sequence: SkeletonSequence, repetitions: Repetitions) -> dict[str, Any]:
    """The repetitions of a recording, as JSON has them; times are null without a frame rate."""
    rate = sequence.fps if is_rate(sequence.fps) else None
    spans = [
        {
            "start": start,
            "end": end,
            "start_seconds": None if rate is None else round(start / rate, 3),
            "end_seconds": None if rate is None else round(end / rate, 3),
        }
        for start, end in repetitions.spans.tolist()
    ]
    row = {"name": sequence.name, "frames": sequence.num_frames, "fps": rate, "count": repetitions.count}
    return {**row, "repetitions": spans}


def _count_cells(sequence: SkeletonSequence, repetitions: Repetitions, timed: bool) -> list[str]:
    rate = sequence.fps if timed and is_rate(sequence.fps) else 1.0
    digits = 1 if timed else 0
    spans = [f"{start / rate:.{digits}f}-{end / rate:.{digits}f}" for start, end in repetitions.spans[:_SHOWN_SPANS]]
    more = repetitions.count - len(spans)
    each = "" if repetitions.period is None else f"{repetitions.period / rate:.{digits}f}"
    where = ", ".join(spans) + (f" and {more} more" if more > 0 else "")
    return [sequence.name, str(repetitions.count), each, where or "(nothing moves)"]
