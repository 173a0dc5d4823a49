"""Options that several commands have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..data.readers import SUFFIXES
from ..data.reading import Reading
from ..errors import one_sentence
from ..facts.checkpoints import installed_names, list_models
from ..layouts import LAYOUTS, TO_Y_UP, LayoutLike, get_layout
from ..persons import CHOOSE_BY, PersonSelection
from ..sequence import AXES, METRES, MISSING


def join_or(names: Iterable[str]) -> str:
    """Names as a sentence has them: "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Shell completion with the names that begin with the incomplete word."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _shipped() -> Iterable[str]:
    return dict.fromkeys([*(entry.name for entry in list_models()), *installed_names()])


complete_layout = completing(lambda: LAYOUTS)
complete_model = completing(_shipped)
LABELLED = "Labelled data set: a store of 'usdrl prepare', or an .npz with the arrays of usdrl_hub.SkeletonDataset."
RECORDINGS = f"({', '.join(SUFFIXES)})"


Model = Annotated[
    str,
    typer.Option(
        autocompletion=complete_model,
        help="Checkpoint: a name (see 'usdrl list'), a folder, a hub repository, or hf://OWNER/NAME@REVISION.",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Clips computed at once.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; CUDA if there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
SourceLayout = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete_layout,
        help="Joint layout of files that do not say it, a name or a .json file of joint_names and bones; if unset the "
        "model's, else ntu25.",
    ),
]
ToLayout = Annotated[
    str | None,
    typer.Option(
        autocompletion=complete_layout,
        help="Joint layout to convert to, a name or a .json file of joint_names and bones; 3D is then y up.",
    ),
]
Axes = Annotated[str | None, typer.Option(help=f"Axis order of array files: {join_or(AXES)}.")]
Fps = Annotated[float | None, typer.Option(help="Frames per second of files that do not say it.")]
Up = Annotated[str | None, typer.Option(help=f"Axis that points up in files that do not say it: {join_or(TO_Y_UP)}.")]
Units = Annotated[
    str | None, typer.Option(help=f"Unit of 3D keypoints of files that do not say it: {join_or(METRES)}.")
]
LeftHanded = Annotated[
    bool,
    typer.Option("--left-handed", help="3D axes of files are left-handed, as Unity's are, which mirrors the body."),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        help="WIDTHxHEIGHT in pixels, such as 1920x1080, of the image of 2D keypoints, for files that do not say it."
    ),
]
Keypoints = Annotated[
    str | None,
    typer.Option(help="Column of the keypoints in a data set of the hub (hf://datasets/...) that usdrl did not push."),
]
Missing = Annotated[str | None, typer.Option(help=f"NaN in files: {join_or(MISSING)} missing joints over time.")]
ChooseBy = Annotated[
    str | None, typer.Option(help=f"Which people to keep if there are too many, by {join_or(CHOOSE_BY)} (of tracks).")
]
Relink = Annotated[
    bool, typer.Option("--relink", help="Track people by their positions, so that they do not swap between frames.")
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", help="Owner of the repositories; if unset USDRL_NAMESPACE, else usdrl.")
]
PoseModel = Annotated[
    str | None,
    typer.Option(
        help="For video: a ViTPose model (repository or folder), or another size of BlazePose (FILE.onnx, or "
        "OWNER/REPOSITORY/FILE.onnx on the hub); the BlazePose that comes with the package if unset."
    ),
]
Detector = Annotated[
    str | None,
    typer.Option(help="For video, with ViTPose: an object detector with the class person (repository or folder)."),
]
PersonThreshold = Annotated[float, typer.Option(help="For video: detection score above which a person is kept.")]
Mirrored = Annotated[
    bool, typer.Option("--mirrored", help="For video: pictures are mirrored, as those of front cameras often are.")
]
GuessPreprocessing = Annotated[
    bool,
    typer.Option(
        "--guess-preprocessing", help="For a model without a preprocessor: the preprocessing that its layout suggests."
    ),
]
ReadingWorkers = Annotated[int, typer.Option("--workers", min=1, help="Number of reading processes.")]
Shard = Annotated[
    str | None,
    typer.Option(help="i/n: the i-th of n shares of the recordings; 'usdrl join' joins what each process made."),
]
PerPerson = Annotated[bool, typer.Option("--per-person", help="A result for each person in a recording.")]


def image_shape(size: str | None) -> tuple[float, float] | None:
    """(height, width), the order of `image_shape` in Python, of ``WIDTHxHEIGHT``."""
    if size is None:
        return None
    parts = size.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--image-size is '{size}': give width and height in pixels, such as 1920x1080")
    width, height = map(float, parts)
    return height, width


def layout_of(name: str | None) -> LayoutLike | None:
    """A layout as an option names it: of the registry, or described in a ``.json`` file.

    Raises:
        ValueError: If the file cannot be read, or describes no layout; the message names it.
    """
    if name is None or not name.lower().endswith(".json"):
        return name
    try:
        return get_layout(json.loads(Path(name).read_text("utf-8")))
    except OSError as error:
        raise ValueError(f"{name}: it cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: it describes no layout: {one_sentence(error)}") from None


def options_of(reading: Reading) -> str:
    """The options that say what a `Reading` of a layout with a name says."""
    given: dict[str, Any] = {"layout": reading.layout, "axes": reading.axes, "up": reading.up}
    if reading.fps is not None:
        given["fps"] = f"{reading.fps:.10g}"
    if reading.image_shape is not None:
        given["image-size"] = f"{reading.image_shape[1]:g}x{reading.image_shape[0]:g}"
    return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)


def _reading(
    layout: SourceLayout = None,
    axes: Axes = None,
    fps: Fps = None,
    up: Up = None,
    units: Units = None,
    image_size: ImageSize = None,
    missing: Missing = None,
    left_handed: LeftHanded = False,
    keypoints: Keypoints = None,
) -> Reading:
    """What the files do not say."""
    shape = image_shape(image_size)
    mirrored = left_handed or None
    return Reading(layout_of(layout), axes, fps, up, units, shape, missing, mirrored=mirrored, keypoints=keypoints)


def _persons(
    num_persons: Annotated[int, typer.Option(min=1, help="People kept of a recording.")] = 2,
    choose_by: ChooseBy = None,
    relink: Relink = False,
) -> PersonSelection:
    """The people kept of a recording."""
    return PersonSelection(num_persons, choose_by or "energy", relink)


@dataclass(frozen=True)
class ModelOptions:
    """How a model computes, and which people it reads."""

    choose_by: ChooseBy = None
    relink: Relink = False
    guess_preprocessing: GuessPreprocessing = False
    batch_size: BatchSize = 64
    device: Device = None
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class VideoOptions:
    """How the people in videos are found; needs the extra 'video'."""

    pose_model: PoseModel = None
    detector: Detector = None
    person_threshold: PersonThreshold = 0.5
    mirrored: Mirrored = False


# Parameters of these types stand for the options of a function, which makes the value.
_GROUPS: dict[type, Callable[..., Any]] = {
    Reading: _reading,
    PersonSelection: _persons,
    ModelOptions: ModelOptions,
    VideoOptions: VideoOptions,
}


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each keyword-only parameter whose type is in `_GROUPS` by the options of its group."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: _GROUPS[kind] for name, kind in hints.items() if kind in _GROUPS}
    parameters = []
    for parameter in signature(command).parameters.values():
        make = groups.get(parameter.name)
        if make is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        options = get_type_hints(make, include_extras=True)
        for option in signature(make).parameters.values():
            parameters.append(option.replace(kind=parameter.kind, annotation=options[option.name]))

    @wraps(command)
    def call(**values: Any) -> None:
        for name, make in groups.items():
            values[name] = make(**{option: values.pop(option) for option in signature(make).parameters})
        command(**values)

    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return call
