"""Pretraining recipes: YAML files in ``usdrl_hub/recipes`` that set model, views, loss and schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from ..errors import USDRLError
from .datasets import nearest

RECIPES = Path(__file__).parent.parent / "recipes"
# Entries whose names have changed: recipes with the old ones are read, too.
_RENAMED = {
    "pairs": "synthetic_pairs",
    "lost_joints": "joint_dropout",
    "most_lost": "max_joint_dropout",
    "lost_part": "limb_dropout",
    "slowest": "max_stride",
    "turn": "max_yaw",
    "stretch": "scale_jitter",
}
# Shipped recipes have about 30 values.
_MAX_VALUES = 10_000
# Parsing a megabyte of YAML takes ten seconds.
_MAX_BYTES = 128 << 10


class RecipeError(USDRLError):
    """A recipe that cannot be found or read, or has an invalid entry; the message names the file and the entry."""


@dataclass(frozen=True)
class Training:
    """The optimiser and its schedule.

    Attributes:
        epochs: Passes over the data.
        batch_size: Clips per step, over all processes.
        learning_rate: Peak learning rate.
        weight_decay: Weight decay.
        optimizer: "adam" with L2 regularisation, as in the release, or "adamw".
        schedule: "constant" or "cosine".
        warmup: Share of the steps with a linearly rising learning rate, in [0, 1).
        drop_epochs: Epochs after which the learning rate is divided by ten.
        precision: "float32", "bf16" or "fp16"; "mixed" chooses bf16 on a GPU that supports it, fp16 on other GPUs,
            and float32 on a CPU.
        save_epochs: Epochs between checkpoints.
        max_grad_norm: Gradients are clipped to this norm; 0 disables clipping, as in the release.
    """

    epochs: float = 30
    batch_size: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    optimizer: str = "adam"
    schedule: str = "constant"
    warmup: float = 0.0
    drop_epochs: tuple[int, ...] = ()
    precision: str = "mixed"
    save_epochs: float = 10
    max_grad_norm: float = 0.0

    def __post_init__(self) -> None:
        """Check types and ranges."""
        object.__setattr__(self, "drop_epochs", tuple(self.drop_epochs))
        if not isinstance(self.batch_size, int):
            raise ValueError(f"batch_size must be a whole number, got {self.batch_size!r}")
        for name in ("epochs", "batch_size", "learning_rate", "save_epochs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
                raise ValueError(f"{name} must be a positive number, got {value!r}")
        for name in ("warmup", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if any(isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 1 for epoch in self.drop_epochs):
            raise ValueError(f"drop_epochs must be numbers of epochs, got {list(self.drop_epochs)!r}")
        if not 0 <= self.warmup < 1 or self.weight_decay < 0 or self.max_grad_norm < 0:
            raise ValueError("warmup must be a share in [0, 1), weight_decay and max_grad_norm at least 0")
        choices = {
            "optimizer": ("adam", "adamw"),
            "schedule": ("constant", "cosine"),
            "precision": ("mixed", "float32", "bf16", "fp16"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.drop_epochs and self.schedule != "constant":
            raise ValueError("drop_epochs needs the constant schedule")


@dataclass(frozen=True)
class Recipe:
    """A pretraining recipe.

    Attributes:
        about: One sentence about it.
        model: Fields of `USDRLConfig`.
        extractor: Arguments of `USDRLFeatureExtractor` that do not follow from the model.
        window: Most frames of a segment; None keeps recordings whole.
        loss: "tpami" or "aaai", see `MultiGrainedFeatureDecorrelation.preset`; or its fields.
        views: Arguments of `ViewAugmentation`.
        synthetic_pairs: Probability that a person of another recording is added to a single-person segment; see
            `PretrainingDataset`.
        training: Optimiser and schedule.
        readout: Arguments of `fit_readout`, which is called at the end; no readout where it is empty. Its `size` is at
            most that: a model may pool fewer numbers, and half of the clips are the most components.
    """

    about: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, Any] = field(default_factory=dict)
    window: int | None = None
    loss: str | Mapping[str, float] = "tpami"
    views: Mapping[str, Any] = field(default_factory=dict)
    synthetic_pairs: float = 0.0
    training: Training = field(default_factory=Training)
    readout: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, model: Mapping[str, Any] | None = None, **training: Any) -> Recipe:
        """The recipe with changed model fields and training values; a training value of None is kept.

        Raises:
            ValueError: If a training value has the wrong type or is out of range.
        """
        given = {name: value for name, value in training.items() if value is not None}
        values = {"training": Training(**{**asdict(self.training), **given})}
        return Recipe(**{**vars(self), **values, "model": {**self.model, **(model or {})}})


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str | os.PathLike) -> Path:
    """The file of a recipe.

    Args:
        name: A name of `recipe_names`, or the path of a YAML file.

    Raises:
        RecipeError: If there is no shipped recipe of that name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = recipe_names()
    if str(name) not in known:
        raise RecipeError(f"there is no recipe '{name}': {nearest(str(name), known)}; or name a .yaml file")
    return RECIPES / f"{name}.yaml"


def read_recipe(name: str | os.PathLike) -> Recipe:
    """Read a recipe; `pretraining.build.load_recipe` also checks model, extractor, loss and views.

    Args:
        name: A name of `recipe_names`, or the path of a YAML file.

    Raises:
        RecipeError: If there is no such recipe, or it cannot be read; the message names the file and the entry.
    """
    path = recipe_path(name)
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise RecipeError(f"{path}: it has more than {_MAX_BYTES >> 10} KB, so it is not a recipe")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except Exception as error:
        # YAML's constructors of numbers and dates may raise any error.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise RecipeError(f"{path}: the recipe cannot be read: {reason[:150]}") from None
    with naming_recipe(path):
        return _make_recipe(content)


@contextmanager
def naming_recipe(path: Path) -> Iterator[None]:
    """Turn any error into a `RecipeError` that names the file: an entry may have a value of any type."""
    try:
        yield
    except Exception as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}") from None


def _make_recipe(content: Any) -> Recipe:
    if not isinstance(content, dict):
        raise ValueError("a recipe is a mapping of entries such as model, loss and training")
    _check_size(content)
    content = {_RENAMED.get(key, key): value for key, value in content.items()}
    check_keys("", content, [entry.name for entry in fields(Recipe)])
    for key in ("model", "extractor", "views", "training", "readout"):
        if not isinstance(content.get(key, {}), dict):
            raise ValueError(f"'{key}' must be a mapping")
    check_keys("training.", content.get("training", {}), [entry.name for entry in fields(Training)])
    if "views" in content:
        content["views"] = {_RENAMED.get(key, key): value for key, value in content["views"].items()}
    window = content.get("window")
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ValueError(f"'window' must be a whole number of frames, got {window!r}")
    if not isinstance(content.get("about", ""), str):
        raise ValueError("'about' must be a sentence")
    return Recipe(**{**content, "training": Training(**content.get("training", {}))})


def _check_size(content: Any) -> None:
    """Refuse NaN, infinity, and too many values, which a few aliases (``*name``) can expand to."""
    left, values = _MAX_VALUES, [content]
    while values:
        value = values.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"it has more than {_MAX_VALUES} values with its aliases expanded")
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"it has the value {value}: all numbers must be finite")
        if isinstance(value, Mapping):
            values += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            values += value


def check_keys(where: str, content: Mapping[str, Any], known: list[str]) -> None:
    """Refuse unknown entries.

    Args:
        where: Prefix of the names in the message, such as "training.".
        content: The entries.
        known: The allowed names.

    Raises:
        ValueError: If a name is unknown; the message suggests similar ones.
    """
    for key in content:
        if key not in known:
            name = str(key)[:80]
            raise ValueError(f"there is no entry '{where}{name}': {nearest(name, known)}")
