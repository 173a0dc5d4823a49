"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer

from ..data.readers import SUFFIXES
from ..facts.checkpoints import list_models
from ..layouts import LAYOUTS
from ..persons import CHOOSE_BY
from ..sequence import AXES, MISSING


def join_or(names: Iterable[str]) -> str:
    """Names as a sentence has them: "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What a shell completes an option with: those of some names that begin as the word does."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _shipped() -> Iterable[str]:
    return (entry.name for entry in list_models())


complete_layout = completing(lambda: LAYOUTS)
complete_model = completing(_shipped)
LABELLED = "Labelled data set: a store of 'usdrl prepare', or an .npz with the arrays of usdrl_hub.SkeletonDataset."
RECORDINGS = f"({', '.join(SUFFIXES)})"


Model = Annotated[
    str,
    typer.Option(
        autocompletion=complete_model, help="Checkpoint: a name (see 'usdrl list'), a folder, or a hub repository."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Clips computed at once.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; CUDA if there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
SourceLayout = Annotated[
    str | None,
    typer.Option(
        "--layout", autocompletion=complete_layout, help="Joint layout of array files; the model's if unset."
    ),
]
Axes = Annotated[str | None, typer.Option(help=f"Axis order of array files: {join_or(AXES)}.")]
Missing = Annotated[str | None, typer.Option(help=f"Joints that were not seen (NaN): {join_or(MISSING)}.")]
ImageSize = Annotated[
    str | None, typer.Option(help="WIDTHxHEIGHT in pixels of the picture of 2D keypoints that do not say it.")
]
ChooseBy = Annotated[str | None, typer.Option(help=f"Whom to keep of many, by {join_or(CHOOSE_BY)} (of tracks).")]
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


def image_shape(size: str | None) -> tuple[float, float] | None:
    """Height and width of ``WIDTHxHEIGHT``."""
    if size is None:
        return None
    parts = size.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--image-size is '{size}': give width and height in pixels, such as 1920x1080")
    return float(parts[1]), float(parts[0])


@dataclass(frozen=True)
class ReadingOptions:
    """How files are read that do not say it themselves; see `grouped`."""

    layout: SourceLayout = None
    axes: Axes = None
    image_size: ImageSize = None
    missing: Missing = None


@dataclass(frozen=True)
class ModelOptions:
    """How a model computes, and whom it reads; see `grouped`."""

    choose_by: ChooseBy = None
    relink: Relink = False
    guess_preprocessing: GuessPreprocessing = False
    batch_size: BatchSize = 64
    device: Device = None
    dtype: Dtype = "float32"


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of those parameters that are groups of options.

    Args:
        command: A command with keyword-only parameters of type `ReadingOptions` or `ModelOptions`.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {name: kind for name, kind in hints.items() if kind in (ReadingOptions, ModelOptions)}
    parameters = []
    for parameter in signature(command).parameters.values():
        kind = groups.get(parameter.name)
        if kind is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        options = get_type_hints(kind, include_extras=True)
        for name in options:
            parameters.append(Parameter(name, parameter.kind, default=getattr(kind, name), annotation=options[name]))

    @wraps(command)
    def call(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{option: values.pop(option) for option in get_type_hints(kind)})
        command(**values)

    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return call
