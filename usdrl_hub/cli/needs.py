"""Options that would have no effect are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand

from ..data.readers import is_video
from ..errors import USDRLError
from ..layouts import get_layout
from ..sequence import AXES
from .options import join_or


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


_VIDEO_NEEDS = _Need(("person_threshold",), _with("pose_model"), "without --pose-model", "--pose-model")
_ALONE_NEEDS = _Need(("choose_by",), _without("per_person"), "with --per-person, which keeps everybody")


def _reads_file(values: Mapping[str, Any]) -> bool:
    return values["pose_model"] is None or not is_video(values["file"])


# An option without effect is refused: its user expects one.
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
        _Need(("top_k",), _with("gallery"), "without --gallery", "--gallery"),
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
            "with TEXT, --task or --json, which show all matches, or --shipped",
        ),
    ),
    "push": (_Need(("owner",), lambda values: "/" not in values["repo_id"], "on a name that has an owner"),),
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
    if context.params.get("layout") is not None:
        get_layout(context.params["layout"])
    if (axes := context.params.get("axes")) not in (None, *AXES):
        raise USDRLError(f"--axes is '{axes}': give {join_or(AXES)}")


def check_threshold(context: Any, model: Any) -> None:
    """Refuse --threshold for a model that is not a detector."""
    from ..modeling_usdrl import USDRLForActionDetection

    in_range = 0 < context.params["threshold"] < 1
    if _was_given(context, "threshold") and in_range and not isinstance(model, USDRLForActionDetection):
        raise USDRLError("--threshold has no effect, as the model is not a detector: leave it out")


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
