"""How any checkpoint is loaded: one that ships, a folder, or a repository on the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, is_offline_mode

from ..configuration_usdrl import USDRLConfig, bundled_checkpoint
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..modeling_usdrl import USDRLModel, USDRLPreTrainedModel
from .registry import TASK_NAMES, CheckpointLoadError, explain_missing

_CLASSES = {model_class.__name__: model_class for model_class in TASK_NAMES}


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
        if local:
            raise CheckpointLoadError(f"model '{name}' cannot be loaded: {reason[:300]}") from error
        hint = explain_missing(str(name))
        reason = reason.partition(" How to make it:")[0]
        where = "the hub is not reachable" if "local_files_only" in kwargs else f"the hub answered: {reason[:200]}"
        raise CheckpointLoadError(
            f"model '{name}' was not found: it does not ship with the package ('usdrl list' shows what does), it is "
            f"no folder here, and {where}" + (f"; to make it: {hint}" if hint else "")
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
