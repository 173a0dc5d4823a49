"""The command `usdrl`: parse, call, print."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tqdm import tqdm
from transformers.utils import logging as transformers_logging
from typer.core import TyperCommand

from .configuration_usdrl import MODALITIES
from .data.facts import DATASETS
from .data.prepare import prepare as prepare_store
from .data.readers import SUFFIXES
from .data.samples import load_samples, sample_path
from .errors import USDRLError, USDRLWarning, one_sentence, printable
from .feature_extraction_usdrl import CHOOSE_BY, DETECTION_THRESHOLD, MISSING, NORMALIZATIONS, USDRLFeatureExtractor
from .files import new_folder
from .hub.check import check as check_path
from .hub.convert import convert_checkpoint, save_original
from .hub.loading import load_feature_extractor, load_model
from .hub.publish import publish
from .hub.registry import DEFAULT_CHECKPOINT, list_checkpoints, namespace
from .hub.remote_code import add_remote_code
from .inference.drawing import draw_clip, draw_clips
from .inference.embedding import expected_rows, iter_embeddings, write_embeddings
from .inference.ensemble import USDRLEnsemble
from .inference.export import FORMATS, export_model
from .inference.inputs import Workers, list_files, read_file, ready_model
from .inference.mapping import PROJECTIONS, draw_map, make_map
from .inference.mapping import SUFFIXES as MAP_SUFFIXES
from .inference.prediction import Prediction, iter_predictions
from .inference.rendering import SUFFIXES as RENDER_SUFFIXES
from .inference.rendering import Recording, check_output, draw_timelines, find_recording, nearest_clips, shown_name
from .inference.rendering import render as render_recording
from .inference.timeline import Timeline, describe_timelines, iter_timelines, segment_rows, write_segments
from .inference.video import PoseEstimator, check_flat, is_video, iter_videos, read_video
from .layouts import get_layout
from .modeling_usdrl import USDRLForActionDetection, USDRLPreTrainedModel
from .pretraining.recipes import load_recipe, recipe_names
from .pretraining.run import pretrain as run_pretraining
from .sequence import AXES, SkeletonFormatError, SkeletonSequence, interpolate_missing, link_persons
from .tasks.benchmarks import BENCHMARKS, TASKS, get_benchmark
from .tasks.evaluate import evaluate as run_evaluation
from .tasks.evaluate import repeat as repeat_evaluation
from .tasks.recognition import finetune as finetune_recognition


@dataclass(frozen=True)
class _Need:
    """Options that do nothing in some company.

    Attributes:
        options: Their names.
        met: Whether they do something, by the values of all options; and the name of the option, or None.
        otherwise: When they do not, in words.
        add: The option that they need, where it is one.
    """

    options: tuple[str, ...]
    met: Callable[[Mapping[str, Any]], bool]
    otherwise: str
    add: str = ""


def _with(option: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: values[option] not in (None, False)


def _without(option: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: values[option] in (None, False)


_VIDEO_NEEDS = _Need(("person_threshold",), _with("pose_model"), "without --pose-model", "--pose-model")
_ALONE_NEEDS = _Need(("choose_by",), _without("per_person"), "with --per-person, which keeps everybody")


def _reads_file(values: Mapping[str, Any]) -> bool:
    return values["pose_model"] is None or not is_video(values["file"])


# What has no effect is refused: who gave it expects one.
_NEEDS: dict[str, tuple[_Need, ...]] = {
    "predict": (
        _Need(("output", "threshold", "fps"), _with("timeline"), "without --timeline", "--timeline"),
        _Need(("top_k",), _without("timeline"), "with --timeline"),
        _VIDEO_NEEDS,
        _ALONE_NEEDS,
    ),
    "embed": (_ALONE_NEEDS,),
    "render": (
        _Need(
            ("gallery", "threshold", "choose_by", "batch_size", "dtype"), _with("model"), "without --model", "--model"
        ),
        _Need(("nearest",), _with("gallery"), "without --gallery", "--gallery"),
        _Need(("device",), lambda values: values["model"] or values["pose_model"], "without --model", "--model"),
        _VIDEO_NEEDS,
        _Need(("pose_model", "detector"), lambda values: is_video(values["file"]), "on a file that is no video"),
        _Need(("name", "layout", "axes", "up", "fps", "image_size"), _reads_file, "on a video"),
    ),
    "finetune": (
        _Need(
            ("encoder", "hidden_size", "num_persons", "layout", "modality", "normalization"),
            _with("from_scratch"),
            "without --from-scratch, because the --model has its own",
            "--from-scratch",
        ),
        _Need(("model",), _without("from_scratch"), "with --from-scratch"),
    ),
    "pretrain": (
        _Need(("epochs",), _without("max_steps"), "with --max-steps"),
        _Need(("probe_epochs",), _with("probe"), "without --probe", "--probe"),
        _Need(("workers",), _without("in_memory"), "without --no-in-memory", "--no-in-memory"),
    ),
    "evaluate": (
        _Need(
            ("model", "benchmark", "data", "seed", "fold", "tiny", "with_leak", "change", "train"),
            _without("repeat"),
            "with --repeat, which does what its file says",
        ),
        _Need(("data", "fold", "with_leak"), _without("tiny"), "with --tiny, which has its own clips"),
    ),
    "convert": (
        _Need(
            ("modality", "layout", "num_attention_heads", "alpha", "shift_gap", "num_persons", "task", "include_code"),
            _without("to_original"),
            "with --to-original",
        ),
    ),
    "prepare": (
        _Need(("split_file",), lambda values: values["kind"].startswith("pku"), "on data other than PKU-MMD's"),
        _Need(("split_file",), _with("protocol"), "without --protocol", "--protocol"),
    ),
    "list": (
        _Need(
            ("everything",),
            lambda values: not (values["text"] or values["task"] or values["shipped"] or values["as_json"]),
            "with TEXT, --task or --json, which show all that fit, or --shipped",
        ),
    ),
    "push": (_Need(("owner",), lambda values: "/" not in values["repo_id"], "on a name that has an owner"),),
}


def _check_options(context: Any) -> None:
    """Refuse an option of a command that has no effect; see `_NEEDS`."""
    given = [option for option in context.command.params if _was_given(context, option.name)]
    for need in _NEEDS.get(context.command.name, ()):
        idle = next((option for option in given if option.name in need.options), None)
        if idle is not None and not need.met(context.params):
            name = idle.name.upper() if idle.param_type_name == "argument" else idle.opts[0]
            remedy = f"add {need.add}, or leave it out" if need.add else "leave it out"
            raise USDRLError(f"{name} has no effect {need.otherwise}: {remedy}")
    if context.params.get("layout") is not None:
        get_layout(context.params["layout"])
    if (axes := context.params.get("axes")) not in (None, *AXES):
        raise USDRLError(f"--axes is '{axes}': give {_or(AXES)}")


def _check_threshold(context: Any, model: Any) -> None:
    """Refuse a threshold for a model that has none."""
    in_range = 0 < context.params["threshold"] < 1
    if _was_given(context, "threshold") and in_range and not isinstance(model, USDRLForActionDetection):
        raise USDRLError("--threshold has no effect on a model that is no detector: leave it out")


def _was_given(context: Any, option: str) -> bool:
    """Whether an option stands on the command line, and not its default."""
    source = context.get_parameter_source(option)
    # By name: where the class of sources lies depends on the version of typer.
    return source is not None and not source.name.startswith("DEFAULT")


class _Command(TyperCommand):
    """A command that checks its options before it does anything."""

    def invoke(self, ctx: Any) -> Any:
        """See `typer.core.TyperCommand`."""
        _check_options(ctx)
        return super().invoke(ctx)


class _App(typer.Typer):
    """Commands that check their options."""

    def command(self, name: str | None = None, **choices: Any) -> Callable[[Any], Any]:  # type: ignore[override]
        """See `typer.Typer.command`."""
        return super().command(name, cls=_Command, **choices)


app = _App(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="USDRL, the foundation model for skeleton-based human action understanding.",
)


def _or(names: Iterable[str]) -> str:
    """Names as a sentence has them: "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


_LABELLED = "Labelled data set: a store of 'usdrl prepare', or an .npz with the arrays of usdrl_hub.SkeletonDataset."
_RECORDINGS = f"({', '.join(SUFFIXES)})"


def _tell_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"usdrl {version('usdrl-hub')}")
        except PackageNotFoundError:
            print("usdrl, of a folder that is not installed")
        raise typer.Exit


@app.callback()
def _options(
    tell_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version and end.")
    ] = False,
) -> None:
    """USDRL, the foundation model for skeleton-based human action understanding."""


Model = Annotated[str, typer.Option(help="Checkpoint: a name (see 'usdrl list'), a folder, or a hub repository.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Clips computed at once.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; CUDA if there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
SourceLayout = Annotated[
    str | None, typer.Option("--layout", help="Joint layout of array files; the model's if unset.")
]
Axes = Annotated[str | None, typer.Option(help=f"Axis order of array files: {_or(AXES)}.")]
Missing = Annotated[str | None, typer.Option(help=f"Joints that were not seen (NaN): {_or(MISSING)}.")]
ImageSize = Annotated[
    str | None, typer.Option(help="WIDTHxHEIGHT in pixels of the picture of 2D keypoints that do not say it.")
]
ChooseBy = Annotated[str | None, typer.Option(help=f"Whom to keep of many, by {_or(CHOOSE_BY)} (of tracks).")]
Relink = Annotated[bool, typer.Option("--relink", help="Tell people who swap places apart by where they were.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", help="Whose repositories; USDRL_NAMESPACE, else usdrl, if unset.")
]
PoseModel = Annotated[
    str | None, typer.Option(help="For video: a ViTPose model, a hub repository or folder; needs the extra 'video'.")
]
Detector = Annotated[
    str | None, typer.Option(help="For video: an object detector that knows persons, a hub repository or folder.")
]
PersonThreshold = Annotated[float, typer.Option(help="For video: score above which something is a person.")]
GuessPreprocessing = Annotated[
    bool,
    typer.Option("--guess-preprocessing", help="Take what its layout suggests for a model without a preprocessor."),
]
PerPerson = Annotated[bool, typer.Option("--per-person", help="A result for everybody in a recording.")]


class _Errors:
    """Errors of single inputs: told on stderr as they come, and in the exit status at the end."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        self.count += 1
        tqdm.write(f"usdrl: {_sentence(error)}", file=sys.stderr)

    def finish(self) -> None:
        if self.count:
            raise typer.Exit(2)


class _Notices:
    """Warnings told on stderr: the first of each kind as it comes, and how many more there were at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # Those that are not the whole message: others were told in full.
        self.kinds: set[str] = set()

    @contextmanager
    def told(self) -> Iterator[None]:
        """While the command runs, warnings of this package come here; others go their usual way."""
        with warnings.catch_warnings():
            # Notes of libraries to developers, which a user of the command can do nothing about.
            warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers")
            warnings.filterwarnings("always", category=USDRLWarning)
            usual = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
                if isinstance(message, USDRLWarning):
                    self.add(message)
                else:
                    usual(message, category, *place, **more)

            warnings.showwarning = show
            try:
                yield
            finally:
                self.finish()

    def add(self, warning: USDRLWarning) -> None:
        """Tell a warning, unless one of its kind was told already."""
        self.counts[warning.kind] += 1
        if warning.kind != str(warning):
            self.kinds.add(warning.kind)
        if self.counts[warning.kind] == 1:
            tqdm.write(f"usdrl: note: {_sentence(warning)}", file=sys.stderr)

    def finish(self) -> None:
        """Tell of how many more there were."""
        for kind, count in self.counts.items():
            if count > 1 and kind in self.kinds:
                tqdm.write(f"usdrl: note: {count - 1} more like it ({printable(kind)})", file=sys.stderr)


def _image_shape(size: str | None) -> tuple[float, float] | None:
    """Height and width of ``WIDTHxHEIGHT``."""
    if size is None:
        return None
    parts = size.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--image-size is '{size}': give width and height in pixels, such as 1920x1080")
    return float(parts[1]), float(parts[0])


def _ready(
    model: str,
    whole: bool,
    device: str | None,
    dtype: str,
    missing: str | None,
    choose_by: str | None,
    relink: bool,
    guess: bool = False,
) -> tuple[USDRLPreTrainedModel, USDRLFeatureExtractor]:
    """A model, and its feature extractor with the choices of the command line."""
    given_extractor = load_feature_extractor(model, guess=True) if guess else None
    loaded, extractor = ready_model(model, given_extractor, whole, device, dtype)
    choices = {"missing": missing, "choose_by": choose_by, "relink": relink or None}
    given = {name: value for name, value in choices.items() if value is not None}
    if given:
        extractor = USDRLFeatureExtractor(**{**extractor.to_dict(), **given})
    return loaded, extractor


def _ready_classifier(model: str, device: str | None, dtype: str, *choices: Any) -> tuple[Any, USDRLFeatureExtractor]:
    """A model, or the ensemble of several whose names are joined by commas; see `_ready`."""
    first, *others = model.split(",")
    one, extractor = _ready(first, True, device, dtype, *choices)
    # The device and the type are checked as for one model.
    return (
        (USDRLEnsemble.from_pretrained([first, *others]).to(one.device, one.dtype), extractor)
        if others
        else (one, extractor)
    )


def _pose_estimator(
    pose_model: str | None,
    detector: str | None,
    threshold: float,
    device: str | None,
    reader: tuple[USDRLFeatureExtractor, str] | None,
) -> PoseEstimator | None:
    """The models that see people in video, where they are named and the model that reads them can."""
    if pose_model is None and detector is None:
        return None
    if pose_model is None or detector is None:
        raise ValueError("people are found by a --detector and their joints by a --pose-model: name both")
    if reader is not None:
        check_flat(*reader)
    return PoseEstimator.from_pretrained(pose_model, detector, threshold, device)


def _sentence(error: BaseException) -> str:
    return one_sentence(error)


def _say(text: str) -> None:
    """Print lines, in which names come from files that anybody may have written."""
    print("\n".join(printable(line) for line in text.split("\n")))


@app.command()
def predict(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(help=f"Skeleton files {_RECORDINGS}, folders or stores of them; videos with --pose-model."),
    ],
    model: Annotated[
        str,
        typer.Option(help="Checkpoint: a name, a folder, or a hub repository; several, joined by commas, are fused."),
    ] = DEFAULT_CHECKPOINT,
    pose_model: PoseModel = None,
    detector: Detector = None,
    person_threshold: PersonThreshold = 0.5,
    top_k: Annotated[int, typer.Option(min=1, help="Classes shown per recording.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Say what happens when: the segments of recordings of any length.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="With --timeline, what to write, too: segments as .csv or .json, or a .png.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="With --timeline, the probability above which a detector's class is a segment.")
    ] = DETECTION_THRESHOLD,
    fps: Annotated[
        float | None, typer.Option(help="With --timeline, frames per second where the file does not say.")
    ] = None,
    layout: SourceLayout = None,
    axes: Axes = None,
    image_size: ImageSize = None,
    missing: Missing = None,
    per_person: PerPerson = False,
    choose_by: ChooseBy = None,
    relink: Relink = False,
    guess_preprocessing: GuessPreprocessing = False,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Name the action in skeleton recordings, or with --timeline all actions and when they happen."""
    if output is not None:
        check_output(output, (".csv", ".json", ".png"), "segments are written")
        if any(file.resolve() in output.resolve().parents for file in files):
            raise ValueError(f"{output}: it would lie among the recordings: name a file outside their folder")
    errors = _Errors()
    classifier, extractor = _ready_classifier(model, device, dtype, missing, choose_by, relink, guess_preprocessing)
    _check_threshold(context, classifier)
    names = classifier.config.class_names
    choices: dict[str, Any] = {
        "feature_extractor": extractor,
        "source_layout": layout,
        "axes": axes,
        "per_person": per_person,
        "image_shape": _image_shape(image_size),
        "on_error": errors,
    }
    estimator = _pose_estimator(pose_model, detector, person_threshold, device, (extractor, model))
    inputs = files if estimator is None else iter_videos(files, estimator, on_error=errors, progress=True)
    if timeline:
        found = list(iter_timelines(inputs, classifier, batch_size, threshold=threshold, fps=fps, **choices))
        _tell_timelines(found, model, names, as_json, output)
        errors.finish()
        return
    predictions = iter_predictions(inputs, classifier, batch_size, **choices)
    if as_json:
        rows = [
            {
                "name": prediction.sequence.name,
                "frames": prediction.sequence.num_frames,
                "top": [
                    {"label": label, "value" if prediction.is_regression else "probability": value}
                    for label, value in prediction.top(top_k)
                ],
            }
            for prediction in predictions
        ]
        print(json.dumps({"model": model, "labels": names, "predictions": rows}, indent=2))
    else:
        _print_predictions(predictions, model, names, top_k)
    errors.finish()


def _tell_timelines(
    found: Sequence[tuple[SkeletonSequence, Timeline]],
    model: str,
    names: Sequence[str],
    as_json: bool,
    output: Path | None,
) -> None:
    """Print the segments of recordings, and write them where a file is named."""
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
        # What could not be read has been told.
        return
    _say(_heading(model, names))
    if found[0][1].segments is None:
        _say("the model finds no segments: these are the runs of frames with the same most probable class")
    _say("frames count from 0, and an end is the frame after the last\n")
    rows = [["file", "class", "start", "end", "from", "to", "probability"]]
    for sequence, timeline in found:
        rows += [[sequence.name, *_segment_cells(part)] for part in segment_rows(sequence, timeline)] or [
            [sequence.name, "(nothing)", *[""] * 5]
        ]
    _print_table(rows)
    if output is not None:
        _say(f"\nwritten: {output}")


def _segment_cells(segment: dict[str, Any]) -> list[str]:
    times = [segment["start_seconds"], segment["end_seconds"]]
    cells = [segment["label"], str(segment["start"]), str(segment["end"])]
    cells += ["" if time is None else f"{time:.2f} s" for time in times]
    return [*cells, f"{100 * segment['probability']:5.1f} %"]


def _heading(model: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:10])) + (", ..." if len(names) > 10 else "")
    return f"model {model}, {len(names)} classes: {shown}"


def _print_predictions(
    predictions: Iterable[Prediction], model: str, names: Sequence[str], top_k: int, truth: bool = False
) -> None:
    header = ["file", *(f"{place + 1}." for place in range(min(top_k, len(names)))), *(["truth"] if truth else [])]
    rows = [header]
    for prediction in predictions:
        row = [prediction.sequence.name]
        row += [
            f"{value:.4g} {label}" if prediction.is_regression else f"{100 * value:5.1f} % {label}"
            for label, value in prediction.top(top_k)
        ]
        if truth:
            label = prediction.sequence.label
            row.append("" if label is None else prediction.class_names[label])
        rows.append(row)
    # What could not be read has been told.
    if len(rows) > 1:
        _say(f"{_heading(model, names)}\n")
        _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            _say("  ".join("-" * width for width in widths))


@app.command()
def embed(
    source: Annotated[Path, typer.Argument(help=f"A skeleton file {_RECORDINGS}, or a folder or store of them.")],
    output: Annotated[Path, typer.Option(help="The .npz file to write.")],
    model: Model = DEFAULT_CHECKPOINT,
    level: Annotated[str, typer.Option(help="clip: one embedding per recording; frame: one per frame.")] = "clip",
    layout: SourceLayout = None,
    axes: Axes = None,
    image_size: ImageSize = None,
    missing: Missing = None,
    per_person: PerPerson = False,
    choose_by: ChooseBy = None,
    relink: Relink = False,
    guess_preprocessing: GuessPreprocessing = False,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Write the embeddings of skeleton recordings.

    The .npz file holds `names` and `embeddings`: (N, 2d) for clips; for frames (all frames, 2d) with the `offsets`
    (N + 1) of the recordings in it. Several processes or GPUs share the work: 'accelerate launch -m usdrl_hub.cli
    embed ...'; the file is the same.
    """
    if output.suffix != ".npz":
        raise ValueError(f"{output}: the embeddings are written as .npz, so name the file accordingly")
    errors = _Errors()
    # An older result in the folder is no recording.
    files = [file for file in list_files(source) if file.resolve() != output.resolve()]
    workers = Workers.of_environment()
    mine = workers.share_of(files, batch_size)

    # Loaded when the file is held: who may not write it has no work to do.
    def stream() -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
        encoder, extractor = _ready(
            model, False, device or workers.device, dtype, missing, choose_by, relink, guess_preprocessing
        )
        source_layout = layout or extractor.source_layout or extractor.layout
        hidden = None if workers.is_first else True
        sequences: Iterable[SkeletonSequence]
        if isinstance(mine, list):
            progress = tqdm(mine, unit="file", disable=hidden, file=sys.stderr)
            sequences = (
                sequence
                for file in progress
                for sequence in read_file(file, source, source_layout, axes, errors, extractor.missing)
            )
        else:
            sequences = tqdm(mine.iterate(errors), total=len(mine), disable=hidden, file=sys.stderr)
        yield from iter_embeddings(
            sequences,
            encoder,
            batch_size,
            level=level,
            feature_extractor=extractor,
            per_person=per_person,
            image_shape=_image_shape(image_size),
            on_error=errors,
        )

    count = write_embeddings(stream(), output, level, expected_rows(mine, level))
    if workers.is_first:
        _say(f"{output}: embeddings of {count} recordings by {model}")
    errors.finish()


@app.command()
def render(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help=f"A skeleton file {_RECORDINGS}, a data set or store with --name, or a video with --pose-model."
        ),
    ],
    output: Annotated[Path, typer.Option(help=f"What to write: {_or(RENDER_SUFFIXES)}: a page, a film, a picture.")],
    pose_model: PoseModel = None,
    detector: Detector = None,
    person_threshold: PersonThreshold = 0.5,
    name: Annotated[str | None, typer.Option(help="Which recording of several: its name, or number from 0.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint that says what happens: a name, a folder, or several, joined by commas."),
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Data set (.npz or store) to find the nearest clips in.")
    ] = None,
    nearest: Annotated[int, typer.Option(min=1, help="How many nearest clips.")] = 5,
    threshold: Annotated[
        float, typer.Option(help="Probability above which a detector's class is a segment.")
    ] = DETECTION_THRESHOLD,
    layout: SourceLayout = None,
    axes: Axes = None,
    up: Annotated[str | None, typer.Option(help="Axis that points up, where the file is wrong: y, z, -y, -z.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second, where the file does not say.")] = None,
    image_size: ImageSize = None,
    missing: Missing = None,
    choose_by: ChooseBy = None,
    relink: Relink = False,
    guess_preprocessing: GuessPreprocessing = False,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Draw a recording that moves, with what a model says about every moment."""
    check_output(output)
    errors = _Errors()
    classifier = extractor = None
    source_layout: Any = layout or "ntu25"
    if model is not None:
        classifier, extractor = _ready_classifier(
            model, device, dtype, missing, choose_by, relink, guess_preprocessing
        )
        _check_threshold(context, classifier)
        source_layout = layout or extractor.source_layout or extractor.layout
        missing = extractor.missing
    reader = None if extractor is None else (extractor, model or "")
    estimator = _pose_estimator(pose_model, detector, person_threshold, device, reader)
    if estimator is not None and is_video(file):
        found = Recording(read_video(file, estimator, progress=True))
    else:
        found = find_recording(file, name, source_layout, axes, missing or "refuse", up, fps, _image_shape(image_size))
    sequence = link_persons(found.sequence) if relink else found.sequence
    sequence = interpolate_missing(sequence) if missing == "interpolate" else sequence
    drawn = render_recording(
        Recording(sequence, found.class_names),
        output,
        classifier,
        extractor,
        gallery,
        nearest,
        threshold,
        batch_size,
        model,
        errors,
    )
    rate = "" if drawn.fps is None else f" at {drawn.fps:g} frames per second"
    top = "" if drawn.top is None else f"; {drawn.top[0]} {100 * drawn.top[1]:.1f} %"
    _say(
        f"{output}: {drawn.frames} of {sequence.num_frames} frames of {printable(sequence.name)}{rate}{printable(top)}"
    )
    errors.finish()


@app.command("map")
def map_command(
    source: Annotated[Path, typer.Argument(help="A data set, a store, or a folder of recordings.")],
    output: Annotated[Path, typer.Option(help=f"What to write: {_or(MAP_SUFFIXES)}: a page, a picture.")],
    model: Model = DEFAULT_CHECKPOINT,
    projection: Annotated[
        str,
        typer.Option(help=f"{_or(PROJECTIONS)}; tsne keeps neighbours together and needs the extra 'map'."),
    ] = "pca",
    most: Annotated[int, typer.Option(help="Recordings shown; of more, so many are drawn by chance.")] = 5000,
    seed: Annotated[int, typer.Option(help="Of chance.")] = 0,
    layout: SourceLayout = None,
    axes: Axes = None,
    image_size: ImageSize = None,
    missing: Missing = None,
    choose_by: ChooseBy = None,
    relink: Relink = False,
    guess_preprocessing: GuessPreprocessing = False,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Draw recordings as points of a plane, near each other where they look alike to a model, coloured by class."""
    check_output(output, MAP_SUFFIXES, "a map is drawn")
    errors = _Errors()
    encoder, extractor = _ready(model, False, device, dtype, missing, choose_by, relink, guess_preprocessing)
    made = make_map(
        source,
        encoder,
        projection,
        most,
        seed,
        batch_size,
        extractor,
        layout,
        axes,
        _image_shape(image_size),
        errors,
    )
    made = replace(made, about=f"{made.about}; by {shown_name(model)}")
    draw_map(made, output, title=source.resolve().stem)
    _say(f"{output}: {len(made.names)} recordings of {len(set(made.labels.tolist()) - {-1})} classes. {made.about}")
    errors.finish()


@app.command()
def finetune(
    data: Annotated[Path, typer.Argument(help=_LABELLED)],
    output_dir: Annotated[Path, typer.Option(help="Folder to make for the trained model.")],
    model: Model = DEFAULT_CHECKPOINT,
    from_scratch: Annotated[bool, typer.Option(help="Start from random weights, of the sizes below.")] = False,
    encoder: Annotated[str | None, typer.Option(help="dste or sttr.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of both streams.")] = None,
    num_persons: Annotated[int | None, typer.Option(help="Persons per clip; the data's if unset.")] = None,
    layout: Annotated[str | None, typer.Option(help="Joint layout of the model; the data's if unset.")] = None,
    modality: Annotated[str | None, typer.Option(help=f"{_or(MODALITIES)}.")] = None,
    normalization: Annotated[str | None, typer.Option(help=f"{_or(NORMALIZATIONS)}; the layout's if unset.")] = None,
    linear_probe: Annotated[bool, typer.Option(help="Train the linear layer only, on the frozen encoder.")] = False,
    epochs: Annotated[float, typer.Option(help="Passes over the training clips.")] = 40,
    learning_rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per step.")] = 32,
    mirror: Annotated[
        bool, typer.Option(help="Train on mirror images, too; not if classes tell left from right.")
    ] = False,
    baseline: Annotated[bool, typer.Option(help="Also score nearest neighbours on the raw joints.")] = False,
    seed: Annotated[int, typer.Option(help="Seeds weights, order and augmentation.")] = 0,
) -> None:
    """Train a recogniser on your own data and score it on the data's test part."""
    sizes = {
        "encoder": encoder,
        "hidden_size": hidden_size,
        "num_persons": num_persons,
        "layout": layout,
        "modality": modality,
    }
    given = {name: value for name, value in sizes.items() if value is not None}
    if layout is not None:
        given["num_joints"] = get_layout(layout).num_joints
    record = finetune_recognition(
        data,
        output_dir,
        None if from_scratch else model,
        given,
        normalization=normalization,
        linear_probe=linear_probe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        mirror=mirror,
        baseline=baseline,
        seed=seed,
    )
    _say(f"\n{output_dir}: trained on {record['n']['train']} clips; {record['split']}")
    for name, value in record["metrics"].items():
        _say(f"  {name}: {100 * value:.1f} % of {record['n']['test']} test clips")
    _say(f"use it: usdrl predict FILE --model {output_dir}")


@app.command()
def pretrain(
    data: Annotated[list[Path], typer.Argument(help="Data sets of motion: .npz files or stores; no labels needed.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the run; one that was stopped goes on.")],
    recipe: Annotated[str, typer.Option(help="Recipe: a name (see 'usdrl recipes') or a .yaml file.")] = "laptop",
    epochs: Annotated[float | None, typer.Option(help="Passes over the motion; the recipe's if unset.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Steps, in place of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Clips of a step over all processes.")] = None,
    micro_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips encoded at once, where a batch is larger than memory.")
    ] = None,
    activation_checkpointing: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Less memory, more time.")
    ] = False,
    compile_encoder: Annotated[
        bool, typer.Option("--compile", help="Compile the encoder: a minute more at first, faster steps on a GPU.")
    ] = False,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    precision: Annotated[str | None, typer.Option(help="mixed, float32, bf16 or fp16.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of both streams.")] = None,
    num_persons: Annotated[int | None, typer.Option(help="Persons per clip.")] = None,
    layout: Annotated[str | None, typer.Option(help="Joint layout of the model.")] = None,
    modality: Annotated[str | None, typer.Option(help="joint, bone, motion, or joint+motion+bone.")] = None,
    split: Annotated[str, typer.Option(help="all motion, or the train part of each data set.")] = "all",
    probe: Annotated[
        Path | None, typer.Option(help="Labelled data set whose 1-NN accuracy is logged while it learns.")
    ] = None,
    probe_epochs: Annotated[int, typer.Option(min=1, help="Epochs between probes.")] = 1,
    in_memory: Annotated[bool, typer.Option(help="Normalise all motion once and keep it in memory.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read, with --no-in-memory.")] = 0,
    seed: Annotated[int, typer.Option(help="Seeds weights, order and views.")] = 0,
) -> None:
    """Pretrain a model on motion without labels.

    On several GPUs: torchrun --nproc-per-node N -m usdrl_hub.cli pretrain ...
    """
    sizes = {"hidden_size": hidden_size, "num_persons": num_persons, "layout": layout, "modality": modality}
    fields: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if layout is not None:
        fields["num_joints"] = get_layout(layout).num_joints
    schedule = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "precision": precision}
    record = run_pretraining(
        data,
        output_dir,
        load_recipe(recipe).changed(fields, **schedule),
        seed,
        split,
        micro_batch_size,
        activation_checkpointing,
        in_memory,
        workers,
        probe,
        probe_epochs,
        max_steps,
        progress=sys.stderr.isatty(),
        compile_encoder=compile_encoder,
    )
    if record is None:
        print(f"usdrl: stopped; repeat the command to go on with {output_dir}", file=sys.stderr)
        raise typer.Exit(130)
    _say(f"{output_dir}: pretrained on {record['n']['train']} sequences, {record['steps']} steps")
    _say(f"use it: usdrl finetune DATA --model {output_dir} --output-dir NEW")


@app.command()
def evaluate(
    model: Annotated[str | None, typer.Argument(help="Checkpoint whose encoder is scored.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark, see 'usdrl benchmarks'.")] = None,
    data: Annotated[Path | None, typer.Option(help="Its data: a store or an .npz file.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Folder to make: the trained head and metrics.json.")] = None,
    seed: Annotated[int, typer.Option(help="Seeds heads, orders and draws.")] = 0,
    fold: Annotated[int, typer.Option(min=0, help="Which of several splits of the data tests.")] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="Try the whole path on clips that ship.")] = False,
    with_leak: Annotated[
        bool, typer.Option("--with-leak", help="Also test on copies of training clips, as papers do.")
    ] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Another value of the recipe: epochs=20; may be repeated.")
    ] = None,
    train: Annotated[
        bool, typer.Option(help="Train the task's head; --no-train scores the one that the model has.")
    ] = True,
    repeat: Annotated[Path | None, typer.Option(help="A metrics.json: do what it says again.")] = None,
) -> None:
    """Train what a benchmark's task needs on a pretrained encoder, and score it."""
    if repeat is not None:
        record = repeat_evaluation(repeat, output_dir)
    elif model is None or benchmark is None:
        raise ValueError("name a model and a --benchmark, or a metrics.json with --repeat")
    else:
        changes = dict(_change(text) for text in change or [])
        record = run_evaluation(model, benchmark, data, output_dir, seed, fold, tiny, with_leak, changes, train)
    # What papers report is not to be compared with a trial on other data.
    published = {} if record["dataset"] == "tiny" else get_benchmark(record["benchmark"]).published
    _say(f"{record['benchmark']}: {record['n']['train']} train, {record['n']['test']} test ({record['split']})")
    rows = [["metric", "measured", "published"]]
    for name, value in record["metrics"].items():
        rows.append([name, f"{100 * value:.2f} %", f"{100 * published[name]:.1f} %" if name in published else ""])
    _print_table(rows)
    if output_dir is not None:
        _say(f"written: {output_dir}/metrics.json")


def _change(text: str) -> tuple[str, Any]:
    """Name and value of ``name=value``; the value as JSON reads it, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set is '{text}': give an entry of the recipe and its value, such as epochs=20")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@app.command()
def benchmarks(
    task: Annotated[str | None, typer.Option(help="Only those of a task, such as linear.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the benchmarks: data set, protocol, task, metric, and what the paper reports."""
    if task is not None and task not in TASKS:
        raise ValueError(f"there is no task '{task}': use one of {', '.join(TASKS)}")
    chosen = [entry for entry in BENCHMARKS.values() if task in (None, entry.task)]
    if as_json:
        print(json.dumps([{**vars(entry), "data": vars(DATASETS[entry.dataset])} for entry in chosen], indent=2))
        return
    rows = [["id", "data set", "metric", "published", "terms of the data"]]
    for entry in chosen:
        facts = DATASETS[entry.dataset]
        value = entry.published.get(entry.metric)
        rows.append([entry.id, facts.title, entry.metric, f"{100 * value:.1f} %" if value else "", facts.terms])
    _print_table(rows)


@app.command()
def recipes() -> None:
    """List the recipes for pretraining."""
    _print_table([["name", "about"], *([name, load_recipe(name).about] for name in recipe_names())])


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' file, or with --to-original a model.")],
    output_dir: Annotated[Path, typer.Option(help="Folder to make.")],
    modality: Annotated[str, typer.Option(help=f"What the model was trained on: {_or(MODALITIES)}.")] = "joint",
    layout: Annotated[str | None, typer.Option(help="Joint layout; follows from the joints if unset.")] = None,
    num_attention_heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 1,
    alpha: Annotated[float, typer.Option(help="Share of the convolutional attention.")] = 0.5,
    shift_gap: Annotated[int, typer.Option(min=1, help="Gap of the dense shift.")] = 4,
    num_persons: Annotated[int, typer.Option(min=1, help="Persons that the spatial tokens stand for.")] = 2,
    task: Annotated[str, typer.Option(help="What its classes are for: recognition or detection.")] = "recognition",
    include_code: Annotated[bool, typer.Option(help="Add the code for trust_remote_code=True.")] = False,
    to_original: Annotated[bool, typer.Option(help="Write the authors' format instead.")] = False,
) -> None:
    """Convert the authors' checkpoint to a model folder, or back."""
    if to_original:
        model = load_model(checkpoint.as_posix())
        with new_folder(output_dir) as folder:
            save_original(model, folder / "checkpoint.pth.tar")
        _say(f"{output_dir / 'checkpoint.pth.tar'}: {type(model).__name__} in the authors' format")
        return
    choices: dict[str, Any] = {"modality": modality, "num_attention_heads": num_attention_heads, "alpha": alpha}
    choices |= {"shift_gap": shift_gap, "num_persons": num_persons}
    if layout is not None:
        choices["layout"] = layout
    model = convert_checkpoint(checkpoint, task, **choices)
    config = model.config
    with new_folder(output_dir) as folder:
        model.save_pretrained(folder)
        if config.layout is not None:
            USDRLFeatureExtractor.from_model_config(config).save_pretrained(folder)
        if include_code:
            add_remote_code(folder)
    tokens = f"{config.num_spatial_tokens} spatial tokens"
    origin = "as given" if layout is not None else f"taken from the {tokens}; --layout names another"
    _say(f"{output_dir}: {type(model).__name__}, {config.encoder}, hidden size {config.hidden_size}, {tokens}")
    _say(f"layout {config.layout} ({origin}); modality {modality}, alpha {alpha}, gap {shift_gap}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Checkpoint: a name (see 'usdrl list'), a folder, or a repository.")],
    output_dir: Annotated[Path, typer.Option(help="Folder to make, for model.onnx.")],
    format: Annotated[str, typer.Option(help=f"Format of the file: {', '.join(FORMATS)}.")] = FORMATS[0],
) -> None:
    """Write a model as one file that runs without torch, and check that it computes the same.

    Its metadata hold class names, joint names and preprocessing; docs/run_onnx.py shows how to run it.
    """
    done = export_model(model, output_dir, format)
    _say(f"{done.path}: {done.model_class}, {done.path.stat().st_size / 1e6:.1f} MB")
    for role, arrays in (("input", done.inputs), ("output", done.outputs)):
        for name, sizes in arrays.items():
            _say(f"  {role} {name} ({', '.join(map(str, sizes))})")
    _say(f"  largest relative difference to PyTorch: {done.error:.1e}")


@app.command()
def prepare(
    kind: Annotated[
        str,
        typer.Argument(
            help="ntu60, ntu120, uav, pku1, pku2, folder (class/recording), csv (file, label, subject, split) or file "
            f"({_or(SUFFIXES)})."
        ),
    ],
    raw: Annotated[Path, typer.Argument(help="The folder of raw files, or the file.")],
    output_dir: Annotated[Path, typer.Option(help="Folder to make.")],
    ignore: Annotated[Path | None, typer.Option(help="Text file of names to leave out.")] = None,
    layout: Annotated[str | None, typer.Option(help="Joint layout of array files.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second, where the files do not say.")] = None,
    persons: Annotated[int, typer.Option(min=1, help="People kept of a recording.")] = 2,
    int16: Annotated[bool, typer.Option("--int16", help="Half the size, at most 0.1 mm off.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read.")] = 1,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Writes who trains and who tests: xsub, xview, xset, one-shot, v1, v2 or folders; of a .pkl with "
            "several splits, which."
        ),
    ] = None,
    split_file: Annotated[Path | None, typer.Option(help="PKU-MMD's split file.")] = None,
    clips: Annotated[bool, typer.Option("--clips", help="Cut untrimmed recordings into labelled clips.")] = False,
    missing: Missing = "refuse",
    image_size: ImageSize = None,
    choose_by: ChooseBy = "energy",
    relink: Relink = False,
) -> None:
    """Make a data set of raw recordings, for 'usdrl finetune' and 'usdrl embed'.

    A run that was stopped goes on where it was when it is repeated.
    """
    store, report = prepare_store(
        kind,
        raw,
        output_dir,
        ignore,
        layout,
        fps,
        persons,
        int16,
        workers,
        progress=True,
        protocol=protocol,
        split_file=split_file,
        clips=clips,
        missing=missing or "refuse",
        image_shape=_image_shape(image_size),
        choose_by=choose_by or "energy",
        relink=relink,
    )
    _say(f"{output_dir}: {len(store)} sequences, {report['frames']} frames, layout {store.layout.name}")
    if (tests := store.column("split_test")) is not None and tests.ndim == 1:
        _say(f"  {protocol or 'split'}: {int((tests == 0).sum())} train, {int(tests.sum())} test")
    if report["joints_missing"]:
        lacking, filled = report["joints_missing"], report["joints_filled"]
        _say(f"  joints not seen: {100 * lacking / report['joints']:.1f} % ({filled} of {lacking} filled)")
    for reason, count in report["skipped"].items():
        _say(f"  left out: {count} ({reason})")
    errors = _Errors()
    for file, problem in report["problems"].items():
        errors(SkeletonFormatError(problem if file in problem else f"{file}: {problem}"))
    errors.finish()


@app.command()
def check(
    path: Annotated[
        str, typer.Argument(help="A store, a data set (.npz), a checkpoint, a recording or a folder of recordings.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a line.")] = False,
) -> None:
    """Read everything that lies there, checksums included, and say what is damaged."""
    found = check_path(path)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        counts = ", ".join(f"{number} {what}" for what, number in found.counts.items())
        state = "whole" if found.whole else f"{len(found.damages)} damaged"
        print(printable(f"{path}: {found.kind}, {state}" + (f": {counts}" if counts else "")))
    errors = _Errors()
    for damage in found.damages:
        errors(SkeletonFormatError(damage))
    errors.finish()


@app.command("list")
def list_command(
    text: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
    task: Annotated[str | None, typer.Option(help="Only those of a task, such as detection.")] = None,
    shipped: Annotated[bool, typer.Option("--shipped", help="Only those that lie in the package.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also those whose weights have to be made.")] = False,
    owner: Namespace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the checkpoints of this project: what they are, and where their weights come from."""
    infos = list_checkpoints(text, task, shipped, owner)
    if not infos:
        raise ValueError(f"there is no such checkpoint with '{text}' in its name: see 'usdrl list'")
    if as_json:
        print(json.dumps([vars(info) for info in infos], indent=2))
        return
    rows = [["name", "task", "layout", "classes", "size", "licence", "weights", "published", "measured"]]
    # Who asks for some sees all of them.
    here = [info for info in infos if info.shipped]
    left = 0 if everything or text or task or not here else len(infos) - len(here)
    for info in here if left else infos:
        published = next(iter(info.published.values()), None)
        measured = next(iter(info.measured.values()), None)
        rows.append(
            [
                info.name,
                info.task,
                info.layout,
                str(info.num_labels or ""),
                f"{info.num_bytes / 1e6:.1f} MB",
                "research only" if info.license == "other" else info.license,
                info.origin,
                "" if published is None else f"{100 * published:.1f} %",
                "" if measured is None else f"{100 * measured:.1f} %",
            ]
        )
    _print_table(rows)
    if left:
        print(f"\n{left} more are known whose weights have to be made or asked for: usdrl list --all")


@app.command()
def push(
    folder: Annotated[
        Path, typer.Argument(help="A model folder, as finetune, pretrain, evaluate or convert make it.")
    ],
    repo_id: Annotated[str, typer.Argument(help="Repository: owner/name, or a name in the namespace.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made where it is missing.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be published.")] = False,
    include_code: Annotated[
        bool, typer.Option(help="Add the model's code, by which transformers alone loads it (trust_remote_code=True).")
    ] = True,
    include_optimizer: Annotated[
        bool, typer.Option("--include-optimizer", help="Add the newest checkpoint's optimizer, as safetensors.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="The commit's message.")] = None,
    owner: Namespace = None,
) -> None:
    """Publish a model on the Hugging Face Hub: weights, configurations, metrics and card in one commit.

    Log in with 'hf auth login', or set HF_TOKEN.
    """
    repo_id = repo_id if "/" in repo_id else f"{namespace(owner)}/{repo_id}"
    done = publish(
        folder,
        repo_id,
        private or None,
        revision,
        create_pr,
        dry_run,
        include_code,
        include_optimizer,
        message,
    )
    _print_table([["file", "bytes"], *([name, str(size)] for name, size in done.files.items())])
    if dry_run:
        _say(f"nothing was sent; without --dry-run these go to {done.repo_id}")
    elif done.changed:
        _say(f"published: {done.url}")
    else:
        _say(f"{done.repo_id} holds the same already: no commit was made")


@app.command()
def demo(
    output_dir: Annotated[Path, typer.Option(help="Folder for embeddings, picture and sample clips.")] = Path(
        "demo-output"
    ),
) -> None:
    """Predict and embed the real clips that ship with the package: people the model never saw."""
    model = DEFAULT_CHECKPOINT
    predictions = list(iter_predictions(load_samples(), model))
    shown = [p for p in predictions if not p.sequence.name.endswith("_inc") and p.sequence.subject in (2, 4)]
    _print_predictions(shown, model, predictions[0].class_names, 3, truth=True)
    right = sum(int(p.probabilities.argmax()) == p.sequence.label for p in predictions)
    people = Counter(p.sequence.subject for p in predictions)
    print(
        f"\n{right} of {len(predictions)} clips right ({len(shown)} shown): {len(people)} people the model never saw, "
        "each movement done right and done wrong"
    )
    output_dir.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample_path(), output_dir / "uiprmd-samples.npz")
    stream = iter_embeddings(load_samples(), model)
    embeddings = output_dir / "embeddings.npz"
    write_embeddings(stream, embeddings, "clip")
    first = predictions[0]
    extractor = load_feature_extractor(model)
    label, probability = first.top(1)[0]
    title = f"{first.sequence.name}: {label} ({100 * probability:.0f} %)"
    picture = output_dir / "prediction.png"
    draw_clip(extractor(first.sequence).keypoints[0], extractor.layout, title, picture)
    similar = output_dir / "nearest.png"
    _show_nearest(similar)
    print(f"\nwritten: {embeddings}, {picture}, {similar}\ntry: usdrl predict {output_dir / 'uiprmd-samples.npz'}")


def _show_nearest(picture: Path) -> None:
    """Find the movements most like those of one person, seen by another sensor, among the clips of the others."""
    model, sensor = "usdrl/mocap-tiny", "kinect20"
    encoder, extractor = ready_model(model, None, False, None, None)
    # The sensor sees half of the frames and 20 joints of its own.
    asked = [
        replace(seen, keypoints=seen.keypoints[::2], fps=None)
        for clip in load_samples()
        if clip.subject == 2 and not clip.name.endswith("_inc") and (seen := clip.to_layout(sensor))
    ]
    gallery = load_samples()
    gallery = gallery.select(np.array([clip.subject != 2 and not clip.name.endswith("_inc") for clip in gallery]))
    print(f"\n{model}: nearest movements of four people to those of a fifth, whom it never saw, as {sensor} at 17 Hz")
    right = 0
    drawn: list[tuple[SkeletonSequence, str]] = []
    for query in asked:
        found = nearest_clips(query, gallery, encoder, extractor, 3)
        label = gallery.class_names[query.label or 0]
        right += found[0].label == label
        print(f"  {label:45}" + "; ".join(str(near.label) for near in found))
        if not drawn:
            drawn = [(query, f"{query.name}, {sensor}: {label}")]
            drawn += [(near.sequence, f"{near.sequence.name}: {near.label}") for near in found]
    print(f"{right} of {len(asked)} nearest clips are the same movement")
    draw_clips([(extractor(clip).keypoints[0], title) for clip, title in drawn], extractor.layout, picture)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; wrong input ends with one sentence on stderr and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is told as well as it can.
            stream.reconfigure(errors="backslashreplace")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with _Notices().told(), _ending_cleanly():
            status = _status(arguments)
            _flush()
    finally:
        Workers.leave()
    sys.exit(status)


def _flush() -> None:
    """Write what is left, unless whoever reads it, such as `head`, has enough."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Or the end of the interpreter would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Ended(SystemExit):
    """The end that a signal asked for."""


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """End as on an error at SIGINT and SIGTERM, so that what is temporary goes; not where they are ignored."""

    def end(number: int, _: Any) -> None:
        raise _Ended(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _status(arguments: Sequence[str] | None) -> int | str | None:
    """Run the command, tell what went wrong, and let go of all that it held."""
    try:
        app(args=None if arguments is None else list(arguments))
    except _Ended as end:
        print(f"usdrl: {'interrupted' if end.code == 128 + signal.SIGINT else 'terminated'}", file=sys.stderr)
        return end.code
    except SystemExit as end:
        return end.code
    except SafetensorError as error:
        print(f"usdrl: a file cannot be written or read: {_sentence(error)}", file=sys.stderr)
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(f"usdrl: {_too_large(error)}", file=sys.stderr)
    except RecursionError:
        print("usdrl: a file is nested too deeply to be read", file=sys.stderr)
    except (ValueError, OSError, StrictDataclassError, BrokenProcessPool) as error:
        print(f"usdrl: {_sentence(error)}", file=sys.stderr)
    except RuntimeError as error:
        # torch has no type for what its allocator of main memory says.
        if "alloc" not in str(error):
            raise
        print(f"usdrl: {_too_large(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("usdrl: interrupted", file=sys.stderr)
        return 130
    else:
        return None
    return 2


def _too_large(error: BaseException) -> str:
    return f"there is not enough memory: give a smaller --batch-size, or shorter recordings ({_sentence(error)[:120]})"


if __name__ == "__main__":
    main()
