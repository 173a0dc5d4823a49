"""Recipes: how a model is pretrained, as files that ship with the package (``usdrl_hub/recipes/*.yaml``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from ..configuration_usdrl import USDRLConfig
from ..data.facts import nearest
from ..errors import USDRLError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..layouts import get_layout
from .data import check_pairs
from .losses import MultiGrainedFeatureDecorrelation
from .views import ViewAugmentation

RECIPES = Path(__file__).parent.parent / "recipes"
# Values of a recipe; those that ship have 30.
_MOST_VALUES = 10_000
# YAML is read slowly: a megabyte takes ten seconds.
_MOST_BYTES = 128 << 10


class RecipeError(USDRLError):
    """A recipe that cannot be found, read or followed; the message names the file and the entry."""


@dataclass(frozen=True)
class Training:
    """How long and how fast.

    Attributes:
        epochs: Passes over the motion.
        batch_size: Clips of a step, over all processes.
        learning_rate: Largest learning rate.
        weight_decay: Weight decay.
        optimizer: "adam" with plain weight decay, as the release, or "adamw".
        schedule: "constant" or "cosine".
        warmup: Share of the steps in which the learning rate rises from 0, in [0, 1).
        drop_epochs: Finished epochs after which the learning rate is a tenth of what it was.
        precision: "float32"; "bf16" or "fp16"; or "mixed" for bf16 where a GPU has it, fp16 where it has not, float32
            on a CPU.
        save_epochs: Epochs between checkpoints.
        max_grad_norm: Gradients are clipped at this norm; 0 leaves them, as the release does.
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
        """Refuse values that mean nothing."""
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
            raise ValueError("drop_epochs belong to a constant schedule")


@dataclass(frozen=True)
class Recipe:
    """How a model is pretrained.

    Attributes:
        about: One sentence.
        model: Fields of `USDRLConfig`.
        extractor: Arguments of `USDRLFeatureExtractor` that the model does not say.
        window: Longest piece of a recording in frames; None keeps recordings whole.
        loss: "tpami" or "aaai", see `MultiGrainedFeatureDecorrelation.preset`; or its fields.
        views: Arguments of `ViewAugmentation`.
        pairs: Probability that somebody of another recording is put beside a person who is alone; see
            `PretrainingDataset`.
        training: The schedule.
    """

    about: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, Any] = field(default_factory=dict)
    window: int | None = None
    loss: str | Mapping[str, float] = "tpami"
    views: Mapping[str, Any] = field(default_factory=dict)
    pairs: float = 0.0
    training: Training = field(default_factory=Training)

    def build(
        self,
    ) -> tuple[USDRLConfig, USDRLFeatureExtractor, MultiGrainedFeatureDecorrelation, ViewAugmentation]:
        """The model's configuration, its feature extractor, the loss and the views.

        Raises:
            ValueError: If a value means nothing, or they do not fit together.
        """
        given = dict(self.model)
        if given.get("layout") is not None:
            given.setdefault("num_joints", get_layout(given["layout"]).num_joints)
        config = USDRLConfig(**given)
        extractor = USDRLFeatureExtractor.from_model_config(config, **self.extractor)
        check_pairs(self.pairs, extractor)
        views = ViewAugmentation(**{"num_frames": config.num_frames, "layout": config.layout, **self.views})
        if isinstance(self.loss, str):
            return config, extractor, MultiGrainedFeatureDecorrelation.preset(self.loss), views
        return config, extractor, MultiGrainedFeatureDecorrelation(**self.loss), views

    def changed(self, model: Mapping[str, Any] | None = None, **training: Any) -> Recipe:
        """The recipe with other model fields and other values of the schedule; None leaves a value.

        Raises:
            ValueError: If a value means nothing.
        """
        given = {name: value for name, value in training.items() if value is not None}
        values = {"training": Training(**{**asdict(self.training), **given})}
        return Recipe(**{**vars(self), **values, "model": {**self.model, **(model or {})}})


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str | os.PathLike) -> Recipe:
    """Load a recipe by its name, or from a YAML file of one's own.

    Raises:
        RecipeError: If there is no such recipe, or it is not one; the message names the file and the entry.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = recipe_names()
        if str(name) not in known:
            raise RecipeError(f"there is no recipe '{name}': {nearest(str(name), known)}; or name a .yaml file")
        path = RECIPES / f"{name}.yaml"
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise RecipeError(f"{path}: it has more than {_MOST_BYTES >> 10} KB, which no recipe has")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except Exception as error:
        # The constructors of YAML's numbers and dates fail in any way that Python's do.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise RecipeError(f"{path}: the recipe cannot be read: {reason[:150]}") from None
    try:
        return _make_recipe(content)
    except Exception as error:
        # Any entry may be of any type; each part of the recipe says in its own way that it is wrong.
        raise RecipeError(f"{path}: {' '.join(str(error).split())}") from None


def _make_recipe(content: Any) -> Recipe:
    if not isinstance(content, dict):
        raise ValueError("a recipe is a mapping of entries such as model, loss and training")
    _check_size(content)
    _check_keys("", content, [entry.name for entry in fields(Recipe)])
    for key in ("model", "extractor", "views", "training"):
        if not isinstance(content.get(key, {}), dict):
            raise ValueError(f"'{key}' must be a mapping")
    _check_keys("training.", content.get("training", {}), [entry.name for entry in fields(Training)])
    if isinstance(content.get("loss"), dict):
        known = [entry.name for entry in fields(MultiGrainedFeatureDecorrelation)]
        _check_keys("loss.", content["loss"], known)
    _check_keys("views.", content.get("views", {}), [entry.name for entry in fields(ViewAugmentation)])
    _check_keys("model.", content.get("model", {}), [entry.name for entry in fields(USDRLConfig)])
    window = content.get("window")
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ValueError(f"'window' must be a whole number of frames, got {window!r}")
    if not isinstance(content.get("about", ""), str):
        raise ValueError("'about' must be a sentence")
    recipe = Recipe(**{**content, "training": Training(**content.get("training", {}))})
    recipe.build()
    return recipe


def _check_size(content: Any) -> None:
    """Refuse what is too large for a recipe, which aliases (``*name``) make it, and numbers that are not finite."""
    left, values = _MOST_VALUES, [content]
    while values:
        value = values.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"it has more than {_MOST_VALUES} values, aliases counted as what they stand for")
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"it has the value {value}, which is no number to train with")
        if isinstance(value, Mapping):
            values += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            values += value


def _check_keys(where: str, content: Mapping[str, Any], known: list[str]) -> None:
    for key in content:
        if key not in known:
            name = str(key)[:80]
            raise ValueError(f"there is no entry '{where}{name}': {nearest(name, known)}")
