"""Options that would have no effect are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from ..data.readers import is_video
from ..data.store import is_store
from ..errors import USDRLError
from ..layouts import TO_Y_UP, get_layout
from ..persons import CHOOSE_BY
from ..sequence import AXES, METRES, MISSING
from .options import join_or, layout_of


@dataclass(frozen=True)
class _Need:
    """Options that have an effect only under a condition.

    Attributes:
        options: Their names.
        met: The condition, given the values of all options.
        otherwise: When they have no effect, in words.
        add: The option that would meet the condition, or empty.
    """

    options: tuple[str, ...]
    met: Callable[[Mapping[str, Any]], bool]
    otherwise: str
    add: str = ""


def _with(option: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: values[option] not in (None, False)


def _without(option: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: values[option] in (None, False)


_ALONE_NEEDS = _Need(("choose_by",), _without("per_person"), "with --per-person, which keeps all people")


def _some(argument: str, test: Callable[[Path], bool]) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a test holds for one of the paths given as an argument."""

    def met(values: Mapping[str, Any]) -> bool:
        given = values[argument] or []
        return any(test(Path(path)) for path in (given if isinstance(given, list | tuple) else [given]))

    return met


def _video_needs(argument: str, camera: str | None = None) -> _Need:
    options = ("pose_model", "detector", "person_threshold", "mirrored")
    may_hold_videos = _some(argument, lambda path: is_video(path) or (path.is_dir() and not is_store(path)))
    has_pictures = may_hold_videos if camera is None else lambda values: values[camera] or may_hold_videos(values)
    return _Need(options, has_pictures, "on a file that is not a video")


def _workers_need(argument: str) -> _Need:
    is_folder = _some(argument, lambda path: path.is_dir() and not is_store(path))
    return _Need(("workers",), is_folder, "on a single file or a store")


# Options of the axes and the unit of 3D keypoints.
_AXES = ("up", "units", "left_handed")


def _is_array(path: Path) -> bool:
    return path.suffix.lower() in (".npy", ".npz", ".json") or (path.is_dir() and not is_store(path))


def _reading_needs(argument: str) -> tuple[_Need, ...]:
    """Options of `Reading` without effect on the paths given; what the content shows is reported while reading."""
    file_options = ("layout", "axes", "fps", "image_size", *_AXES)
    return (
        _Need(file_options, _some(argument, lambda path: not is_video(path)), "on a video"),
        _Need(
            ("layout",),
            _some(argument, lambda path: not is_store(path) and path.suffix.lower() != ".skeleton"),
            "on a file that says its layout",
        ),
        _Need(("axes",), _some(argument, _is_array), "on a file that is not an array"),
        _Need(
            ("up", "units", "left_handed"),
            _some(argument, lambda path: not is_store(path)),
            "on a store, which says it",
        ),
    )


_EMBEDDING_NEEDS = _Need(("fps",), lambda values: False, "on an embedding, which does not depend on the frame rate")


_READING = ("layout", "axes", "fps", "up", "units", "image_size", "missing")
_COMPUTING = ("choose_by", "relink", "guess_preprocessing", "batch_size", "device", "dtype")
_WITHOUT_CAMERA = ("files", "timeline", "output", "per_person", "workers", *_READING, *_COMPUTING)

# An option without effect is refused: its user expects one.
_NEEDS: dict[str, tuple[_Need, ...]] = {
    "predict": (
        _Need(_WITHOUT_CAMERA, _without("camera"), "with --camera"),
        _Need(("output", "fps"), _with("timeline"), "without --timeline", "--timeline"),
        _Need(("top_k",), _without("timeline"), "with --timeline"),
        _video_needs("files", "camera"),
        _ALONE_NEEDS,
        *_reading_needs("files"),
    ),
    "embed": (
        _video_needs("source"),
        _ALONE_NEEDS,
        _EMBEDDING_NEEDS,
        _workers_need("source"),
        *_reading_needs("source"),
    ),
    "map": (_EMBEDDING_NEEDS, *_reading_needs("source")),
    "index": (
        _Need(
            *(("model", "window", "stride", "per_person", *_READING, *_COMPUTING), _without("remove")),
            "with --remove, which reads no recording",
        ),
        _ALONE_NEEDS,
        _Need(("stride",), lambda values: values["window"] != 0, "with --window 0, which takes recordings whole"),
        *_reading_needs("sources"),
    ),
    "search": (
        _Need(("name",), _some("query", lambda path: is_store(path) or not path.is_dir()), "on a folder"),
        *_reading_needs("query"),
    ),
    "check": (
        _Need(
            ("fps", "up", "units", "image_size", "left_handed"), lambda values: False, "on whether a file can be read"
        ),
        *_reading_needs("path"),
    ),
    "inspect": (_workers_need("path"), *_reading_needs("path")),
    "write": (_video_needs("file"), *_reading_needs("file")),
    "render": (
        _Need(
            ("gallery", "threshold", "choose_by", "batch_size", "dtype"), _with("model"), "without --model", "--model"
        ),
        _Need(("top_k",), _with("gallery"), "without --gallery", "--gallery"),
        _Need(("device",), lambda values: values["model"] or values["pose_model"], "without --model", "--model"),
        _video_needs("file"),
        _Need(("name",), _some("file", lambda path: not is_video(path)), "on a video"),
        *_reading_needs("file"),
    ),
    "export": (
        _Need(("gallery", "runtime", "threshold"), _with("page"), "without --page", "--page"),
        _Need(("format",), _with("output_dir"), "without --output-dir", "--output-dir"),
    ),
    "finetune": (
        _Need(
            ("encoder", "hidden_size", "num_persons", "layout", "modality", "normalization"),
            _with("from_scratch"),
            "without --from-scratch, because the --model has its own",
            "--from-scratch",
        ),
        _Need(("model",), _without("from_scratch"), "with --from-scratch"),
        _Need(
            ("epochs", "learning_rate", "batch_size", "pose_errors"),
            _without("linear_probe"),
            "with --linear-probe, which fits the last layer in one go",
        ),
        _Need(("baseline", "learning_curve"), _without("folds"), "with --folds"),
        _Need(
            ("from_scratch", "baseline", "learning_curve", "balance", "mirror", "pose_errors"),
            _without("target"),
            "with --target, which finds numbers",
        ),
    ),
    "pretrain": (
        _Need(("epochs",), _without("max_steps"), "with --max-steps"),
        _Need(("probe_epochs",), _with("probe"), "without --probe", "--probe"),
        _Need(
            ("workers",),
            lambda values: values["stream"] or not values["in_memory"],
            "without --no-in-memory or --stream",
            "--no-in-memory",
        ),
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
            (
                *("modality", "layout", "num_attention_heads", "alpha", "shift_gap", "num_persons", "task"),
                *("include_code", "name"),
            ),
            _without("to_original"),
            "with --to-original",
        ),
    ),
    "prepare": (
        _Need(
            ("pose_model", "detector", "person_threshold", "mirrored"),
            lambda values: values["kind"] in ("folder", "csv"),
            "on data that are no videos",
        ),
        _Need(
            ("layout", "axes", "image_size"),
            lambda values: values["kind"] in ("folder", "csv", "file"),
            "on a data set whose layout is known",
        ),
        _Need(("shard",), lambda values: values["kind"] != "file", "on a single file"),
        _Need(("split_file",), lambda values: values["kind"].startswith("pku"), "on data other than PKU-MMD's"),
        _Need(("split_file",), _with("protocol"), "without --protocol", "--protocol"),
    ),
    "list": (
        _Need(
            ("everything",),
            lambda values: not (values["text"] or values["task"] or values["shipped"] or values["as_json"]),
            "with TEXT, --task or --json, which show all matches, or --shipped",
        ),
    ),
    "push": (
        _Need(("owner",), lambda values: "/" not in values["repo_id"], "on a name that has an owner"),
        _Need(("include_code", "include_optimizer"), _without("dataset"), "with --dataset"),
    ),
}

_CHOICES: dict[str, Iterable[str]] = {
    "axes": AXES,
    "up": TO_Y_UP,
    "units": METRES,
    "missing": MISSING,
    "choose_by": CHOOSE_BY,
}


def _check_options(context: Any) -> None:
    """Refuse options without effect; see `_NEEDS`."""
    given = [option for option in context.command.params if _was_given(context, option.name)]
    for need in _NEEDS.get(context.command.name, ()):
        idle = next((option for option in given if option.name in need.options), None)
        if idle is not None and not need.met(context.params):
            name = idle.name.upper() if idle.param_type_name == "argument" else idle.opts[0]
            remedy = f"add {need.add}, or leave it out" if need.add else "leave it out"
            raise USDRLError(f"{name} has no effect {need.otherwise}: {remedy}")
    layout = layout_of(context.params.get("layout"))
    if layout is not None:
        get_layout(layout)
    for name, known in _CHOICES.items():
        if (value := context.params.get(name)) not in (None, *known):
            raise USDRLError(f"--{name.replace('_', '-')} is '{value}': give {join_or(known)}")


def check_threshold(context: Any, model: Any) -> None:
    """Refuse --threshold for a model that is neither a detector nor can tell what is none of its classes."""
    if not _was_given(context, "threshold") or not 0 < context.params["threshold"] < 1 or model.task == "detection":
        return
    if model.task != "recognition":
        raise USDRLError("--threshold has no effect, as the model is not a detector: leave it out")
    if getattr(model.config, "min_similarity", None) is None:
        raise USDRLError(
            "--threshold has no effect, as the model does not hold what its classes look like (its configuration has "
            "no min_similarity): leave it out, or train the model again with 'usdrl finetune'"
        )


def _was_given(context: Any, option: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(option)
    # By name: the module of the enumeration depends on the version of typer.
    return source is not None and not source.name.startswith("DEFAULT")


class _Command(TyperCommand):
    """A command that checks its options first."""

    def invoke(self, ctx: Any) -> Any:
        """Check the options, then run the command."""
        _check_options(ctx)
        return super().invoke(ctx)


class App(typer.Typer):
    """Commands that check their options."""

    def command(self, name: str | None = None, **choices: Any) -> Callable[[Any], Any]:  # type: ignore[override]
        """Register a command."""
        return super().command(name, cls=_Command, **choices)
