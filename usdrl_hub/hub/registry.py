"""Checkpoints that ship in the package: where they lie, what they are, and how any checkpoint is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, is_offline_mode

from ..configuration_usdrl import USDRLConfig, bundled_checkpoint
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..modeling_usdrl import (
    USDRLForActionDetection,
    USDRLForActionRecognition,
    USDRLForActionSegmentation,
    USDRLForEarlyActionPrediction,
    USDRLForPreTraining,
    USDRLModel,
    USDRLPreTrainedModel,
)

DEFAULT_CHECKPOINT = "usdrl/tiny-uiprmd"
_CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
_TASKS = {
    USDRLForActionDetection: "detection",
    USDRLForActionRecognition: "recognition",
    USDRLForActionSegmentation: "segmentation",
    USDRLForEarlyActionPrediction: "early prediction",
    USDRLForPreTraining: "pretraining",
    USDRLModel: "embedding",
}
_CLASSES = {model_class.__name__: model_class for model_class in _TASKS}


class CheckpointLoadError(ValueError):
    """A checkpoint that cannot be found or loaded; the message names it and says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """Facts about a published checkpoint that its files do not hold.

    Attributes:
        name: Repository name.
        summary: What it is, in one sentence.
        license: SPDX name of the weights' licence.
        dataset: Name of the training data.
        dataset_url: Where the data come from.
        dataset_terms: Terms of the data.
        limits: What it cannot do.
    """

    name: str
    summary: str
    license: str
    dataset: str
    dataset_url: str
    dataset_terms: str
    limits: str


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            name="usdrl/tiny-uiprmd",
            summary="A small USDRL recogniser of ten rehabilitation movements, for first steps and tests.",
            license="apache-2.0",
            dataset="UI-PRMD (Vicon)",
            dataset_url="https://www.webpages.uidaho.edu/ui-prmd/",
            dataset_terms="Open Data Commons Public Domain Dedication and License (PDDL) 1.0",
            limits=(
                "It was trained on five healthy people in a laboratory, one person per clip, from optical motion "
                "capture. It names one of its ten movements for any input, also for movements that it does not know, "
                "and does not judge whether an exercise is done well. Its training recipe was chosen with the "
                "accuracy on the test people in view, so that figure is a little optimistic. It is no medical device."
            ),
        ),
    )
}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint that ships in the package is.

    Attributes:
        name: Repository name.
        task: "recognition", "detection", "pretraining" or "embedding".
        layout: Joint layout of its input.
        num_labels: Classes it tells apart, or None.
        num_bytes: Size of its weights.
        license: Licence of the weights.
        metrics: Measured figures, by name, from its ``metrics.json``.
    """

    name: str
    task: str
    layout: str
    num_labels: int | None
    num_bytes: int
    license: str
    metrics: dict[str, float]


def checkpoint_path(name: str) -> Path:
    """Folder of a checkpoint that ships in the package, for Auto classes and pipelines.

    Raises:
        CheckpointLoadError: If the package ships none of that name.
    """
    folder = _CHECKPOINTS / name.replace("/", "--")
    if name.count("/") != 1 or ".." in name or not folder.is_dir():
        shipped = ", ".join(info.name for info in list_checkpoints())
        raise CheckpointLoadError(f"no checkpoint '{name}' ships with the package; there are: {shipped}")
    return folder


def list_checkpoints() -> list[CheckpointInfo]:
    """The checkpoints that ship in the package, by name."""
    return [_describe(folder) for folder in _folders()]


def _folders() -> Iterator[Path]:
    if _CHECKPOINTS.is_dir():
        yield from sorted(folder for folder in _CHECKPOINTS.iterdir() if (folder / "config.json").is_file())


def _describe(folder: Path) -> CheckpointInfo:
    config = USDRLConfig.from_pretrained(folder)
    metrics_file = folder / "metrics.json"
    record = json.loads(metrics_file.read_text()) if metrics_file.is_file() else {}
    task = _TASKS[model_class(config)]
    name = folder.name.replace("--", "/")
    facts = CHECKPOINTS.get(name)
    return CheckpointInfo(
        name=name,
        task=task,
        layout=config.layout if isinstance(config.layout, str) else (config.layout or {}).get("name", "none"),
        num_labels=None if task in ("pretraining", "embedding") else config.num_labels,
        num_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        license=facts.license if facts else "not stated",
        metrics=record.get("metrics", {}),
    )


def model_class(config: USDRLConfig) -> type[USDRLPreTrainedModel]:
    """The class that a checkpoint was saved from, by its `architectures`; the bare encoder where it names none."""
    for name in config.architectures or ():
        if name in _CLASSES:
            return _CLASSES[name]
    return USDRLModel


def load_config(name: str | os.PathLike) -> USDRLConfig:
    """Load a checkpoint's configuration.

    Raises:
        CheckpointLoadError: If there is no such checkpoint or its configuration is not one of ours.
    """
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise CheckpointLoadError(f"model '{name}' cannot be loaded: there is no config.json in the folder")
    return _load(USDRLConfig, name)


def load_model(name: str | os.PathLike, **kwargs: Any) -> USDRLPreTrainedModel:
    """Load a model by name or folder, with its head or projectors.

    Args:
        name: A name that ships in the package, a folder, or a repository on the hub.
        **kwargs: Passed to the model's `from_pretrained`.

    Returns:
        The model, of the class it was saved from, in eval mode.

    Raises:
        CheckpointLoadError: If there is no such checkpoint, a file of it is damaged, or weights are missing.
    """
    loader = model_class(load_config(name))
    model, report = _load(loader, name, output_loading_info=True, use_safetensors=True, **kwargs)
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointLoadError(f"model '{name}': tensor '{missing[0]}' is missing from its weights")
    return model.eval()


def load_feature_extractor(name: str | os.PathLike) -> USDRLFeatureExtractor:
    """Load a checkpoint's feature extractor, or the one that follows from its configuration where it has none.

    Raises:
        CheckpointLoadError: If it is damaged, or there is none and no layout in the configuration.
    """
    if Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").is_file():
        try:
            return USDRLFeatureExtractor.from_model_config(load_config(name))
        except ValueError as error:
            raise CheckpointLoadError(f"model '{name}' has no preprocessor_config.json, and {error}") from None
    return _load(USDRLFeatureExtractor, name)


def _load(loader: Any, name: str | os.PathLike, **kwargs: Any) -> Any:
    local = Path(name).is_dir() or bundled_checkpoint(name, **kwargs) != name
    if not local and Path(name).exists():
        raise CheckpointLoadError(
            f"'{name}' is a file, not a model folder: convert the authors' checkpoints with 'usdrl convert'"
        )
    if not local and not _hub_is_reachable():
        # The client would retry for half a minute; what is in its cache is still found.
        kwargs["local_files_only"] = True
    try:
        return loader.from_pretrained(name, **kwargs)
    except Exception as error:
        # A damaged file fails in any way that JSON, safetensors and transformers have.
        reason = " ".join(str(error).split()) or type(error).__name__
        if "ignore_mismatched_sizes" in reason:
            reason = "the shapes of its weights are not those that its config.json describes"
        if local:
            raise CheckpointLoadError(f"model '{name}' cannot be loaded: {reason[:300]}") from error
        where = "the hub is not reachable" if "local_files_only" in kwargs else f"the hub answered: {reason[:200]}"
        raise CheckpointLoadError(
            f"model '{name}' was not found: it does not ship with the package ('usdrl list' shows what does), it is "
            f"no folder here, and {where}"
        ) from error


def _hub_is_reachable() -> bool:
    """Whether anything answers at the hub's address."""
    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        # The client's exceptions depend on the HTTP library beneath it; each means the same here.
        return False
    return True
