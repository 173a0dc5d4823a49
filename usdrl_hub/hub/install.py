"""`usdrl install`: put a model where its name is found on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..configuration_usdrl import USDRLConfig
from ..errors import USDRLError, one_sentence
from ..facts.checkpoints import NAMESPACE, find_checkpoint, installed_models, installed_path
from ..files import new_folder
from ..loading import find_folder
from .check import check
from .listing import model_config

# Sizes in which a model must agree with the checkpoint that its name promises.
_PROMISED = (
    "encoder",
    "modality",
    "layout",
    "num_frames",
    "num_persons",
    "num_channels",
    "hidden_size",
    "num_hidden_layers",
    "is_causal",
)
_KEPT = {".json", ".safetensors", ".md", ".png", ".py"}


class InstallError(USDRLError):
    """A model that cannot be installed under a name; the message says why."""


def install(folder: str | os.PathLike, name: str) -> Path:
    """Copy a model to the folder of installed models, whole or not at all; its name then loads without a network.

    Args:
        folder: A model folder of `usdrl convert`, `finetune`, `pretrain` or `evaluate`; or ``hf://OWNER/NAME[@REVISION]``,
            a model of the hub, which is downloaded.
        name: ``owner/name``; "usdrl" is the owner of a bare name.

    Returns:
        The folder of the installed model, in `facts.checkpoints.installed_models`.

    Raises:
        InstallError: If the folder is not a whole model with its preprocessing, the name cannot be one, another model
            is installed under it, or the model contradicts what the registry says of the name.
        CheckpointLoadError: If the hub does not have it, or is not reachable.
        OSError: If the folder of installed models cannot be written.
    """
    name, target = full_name(name), install_target(name)
    folder = find_folder(folder)
    if not (folder / "config.json").is_file():
        raise InstallError(f"{folder}: there is no config.json in it, so it is no model folder")
    found = check(folder)
    if not found.whole:
        raise InstallError(found.damages[0])
    check_promise(USDRLConfig.from_pretrained(folder), name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(target) as partial:
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in _KEPT:
                shutil.copyfile(file, partial / file.name)
    return target


def full_name(name: str) -> str:
    """A name with its owner.

    Raises:
        InstallError: If it cannot be the name of a model.
    """
    name = name if "/" in name else f"{NAMESPACE}/{name}"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InstallError(f"'{name}' cannot be a model's name: {one_sentence(error, 150)}") from None
    return name


def install_target(name: str) -> Path:
    """The folder in which a model of this name is to be installed.

    Raises:
        InstallError: If another model is installed under it.
    """
    name = full_name(name)
    if (there := installed_path(name)) is not None:
        raise InstallError(f"a model is installed as {name} already: remove {there} first")
    return installed_models() / name.replace("/", "--")


def conversion_choices(name: str, **given: Any) -> tuple[str, dict[str, Any]]:
    """What of a converted model the registry knows by its name, and the file does not contain.

    Args:
        name: Name of the model; nothing is known of one that is not in the registry.
        **given: Choices that win; None is none.

    Returns:
        The task of its classes, and arguments of `convert_checkpoint`.
    """
    known, choices = find_checkpoint(name), {key: value for key, value in given.items() if value is not None}
    task = choices.pop("task", None)
    if known is not None:
        choices = {"modality": known.modality, "layout": model_config(known).layout} | choices
        task = task or ("detection" if known.task == "detection" else None)
    return task or "recognition", choices


def check_promise(config: USDRLConfig, name: str) -> None:
    """Refuse a model under the name of a checkpoint of the registry that it cannot be.

    Raises:
        InstallError: If a size, the layout, the classes or the task differ.
    """
    known = find_checkpoint(name)
    if known is None:
        return
    promised = model_config(known)
    kinds = [(config.architectures or [""])[0], (promised.architectures or [""])[0]]
    # The authors' encoders come with the projectors of pretraining.
    if kinds[0] != kinds[1] and kinds != ["USDRLForPreTraining", "USDRLModel"]:
        raise InstallError(f"{name} is a {kinds[1]}, and this model is a {kinds[0]}: install it under another name")
    fields = _PROMISED if known.task == "embedding" else (*_PROMISED, "num_labels")
    for field in fields:
        ours, theirs = getattr(config, field), getattr(promised, field)
        if ours != theirs and not (field == "num_labels" and known.num_labels is None):
            raise InstallError(
                f"{name} has {field} {theirs}, and this model {ours}: it is another checkpoint, or was converted with "
                "other options; install it under its own name"
            )
