"""Load any checkpoint: one that ships, a folder, or a repository on the hub."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import (
    _CACHED_NO_EXIST,
    HfApi,
    hf_hub_download,
    resolve_revision,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import httpx

from .configuration_usdrl import USDRLConfig
from .errors import CheckpointLoadError, notice
from .facts.checkpoints import explain_missing
from .feature_extraction_usdrl import USDRLFeatureExtractor
from .lookup import (
    XET_ONLY,
    ModelAddress,
    bundled_checkpoint,
    commit_of,
    hub_is_reachable,
    insists_on_xet,
    misspelt_name,
    model_address,
)
from .modeling_usdrl import HEADS, USDRLModel, USDRLPreTrainedModel
from .weights import HUB_ARGUMENTS, Adapter, check_values, find_adapter

# The hub's reasons, by HTTP status.
_ANSWERS = {
    401: "does not know the token: log in with 'hf auth login'",
    403: "does not let you read it: ask its owner for access",
    429: "asks to slow down: try again later",
}
# Files of weights that are named where one is missing, and how many.
_WEIGHTS, _NAMED = (".pth", ".tar", ".pt", ".ckpt", ".onnx"), 6


def model_class(config: USDRLConfig) -> type[USDRLPreTrainedModel]:
    """The class that a checkpoint was saved from, by its `architectures`; the bare encoder where it names none."""
    for name in config.architectures or ():
        if name in HEADS:
            return HEADS[name]
    return USDRLModel


def load_adapter(name: str | os.PathLike, **kwargs: Any) -> Adapter | None:
    """The base model of PEFT adapters; None where a name is that of a whole model, or of nothing.

    Args:
        name: See `load_model`.
        **kwargs: See `load_config`.

    Raises:
        CheckpointLoadError: If the adapter cannot be loaded.
    """
    name, kwargs = _located(name, kwargs)
    if bundled_checkpoint(name, **kwargs) != name or Path(name).is_file():
        return None
    return load_with(find_adapter, name, **kwargs)


def _revision(adapter: Adapter) -> dict[str, str]:
    return {} if adapter.revision is None else {"revision": adapter.revision}


def _load_merged(
    name: str | os.PathLike, adapter: Adapter, loader: type[USDRLPreTrainedModel], **kwargs: Any
) -> USDRLPreTrainedModel:
    """Load the base model of adapters, and merge them into its weights."""
    from peft import PeftModel

    where = {key: kwargs[key] for key in HUB_ARGUMENTS if kwargs.get(key) is not None}
    own = {key: value for key, value in kwargs.items() if key not in ("revision", "subfolder")}
    if adapter.config is not None:
        own["config"] = adapter.config
        # The adapter may bring a head for other classes.
        own["ignore_mismatched_sizes"] = True
    own |= {**_revision(adapter), "output_loading_info": True}
    model, report = loader.from_pretrained(adapter.base, **own)
    try:
        adapted = PeftModel.from_pretrained(model, str(name), **where)
    except RuntimeError as error:
        if adapter.config is not None:
            raise
        raise ValueError(
            f"its tensors do not fit its base '{adapter.base}', and it has no config.json: save that of the trained "
            "model with it, as USDRLTrainer does"
        ) from error
    kinds = adapted.peft_config.values()
    saved = {module for kind in kinds for module in getattr(kind, "modules_to_save", None) or ()}
    fresh = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    # Without those of the new classes the model refuses no clip.
    fresh = {key for key in fresh if not key.startswith("class_centers.")}
    for key in sorted(fresh):
        if not saved & set(key.split(".")):
            raise ValueError(
                f"tensor '{key}' is neither in its base '{adapter.base}' nor in the adapter: train it with "
                "modules_to_save=['classifier'] in PEFT's configuration, so that the new head is saved"
            )
    merged = adapted.merge_and_unload(safe_merge=True)
    check_values(name, merged, {})
    merged.config._name_or_path, merged.config._commit_hash = str(name), commit_of(name, **where)
    for part in merged.modules():
        if isinstance(part, USDRLPreTrainedModel):
            part.name_or_path = str(name)
    return merged


def load_config(name: str | os.PathLike, **kwargs: Any) -> USDRLConfig:
    """Load a checkpoint's configuration.

    Args:
        name: See `load_model`.
        **kwargs: Arguments of `from_pretrained` that locate it on the hub: `revision`, `subfolder`, `token` and so on.

    Raises:
        CheckpointLoadError: If there is no such checkpoint or its configuration is not one of ours.
    """
    name, kwargs = _located(name, kwargs)
    if adapter := load_adapter(name, **kwargs):
        base = adapter.config or load_config(adapter.base, **_revision(adapter))
        if adapter.model_class in HEADS:
            base.architectures = [adapter.model_class]
        return base
    config = None if Path(name).is_dir() else load_with(USDRLConfig.from_pretrained, name, **kwargs)
    if _has_none(name, "config.json", **kwargs):
        # transformers would take the defaults.
        where = "folder" if Path(name).is_dir() else "repository"
        raise CheckpointLoadError(f"model '{name}' cannot be loaded: there is no config.json in the {where}")
    return config or load_with(USDRLConfig.from_pretrained, name, **kwargs)


def load_model(name: str | os.PathLike, **kwargs: Any) -> USDRLPreTrainedModel:
    """Load a model by name or folder, with its head or projectors.

    A failed download is tried once more.

    Args:
        name: A name that ships in the package or is installed, a folder, or a repository on the hub;
            ``hf://OWNER/NAME[@REVISION]`` is always that of the hub, or of its cache.
        **kwargs: Passed to the model's `from_pretrained`.

    Returns:
        The model, of the class it was saved from, in eval mode; adapters of PEFT are merged into its weights.

    Raises:
        CheckpointLoadError: If there is no such checkpoint, a file of it is damaged, or weights are missing.
    """
    name, kwargs = _located(name, kwargs)
    where = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
    loader = model_class(load_config(name, **where))
    if adapter := load_adapter(name, **where):
        return load_with(partial(_load_merged, adapter=adapter, loader=loader), name, **kwargs).eval()
    if not _is_here(name, **kwargs):
        # Weights and configuration of the same commit.
        kwargs["revision"] = commit_of(name, **where)
    model, report = load_with(loader.from_pretrained, name, output_loading_info=True, **kwargs)
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointLoadError(f"model '{name}': tensor '{missing[0]}' is missing from its weights")
    return model.eval()


class MissingPreprocessorError(CheckpointLoadError):
    """A checkpoint without a feature extractor."""


def load_feature_extractor(name: str | os.PathLike, *, guess: bool = False, **kwargs: Any) -> USDRLFeatureExtractor:
    """Load a checkpoint's feature extractor.

    Args:
        name: See `load_model`.
        guess: If there is none, take the one that layout and sizes suggest, with a warning. If it normalises in
            another way than the one of the training, all results are wrong.
        **kwargs: See `load_config`.

    Raises:
        MissingPreprocessorError: If there is none, and `guess` is False.
        CheckpointLoadError: If it is damaged, or there is none and no layout in the configuration.
    """
    name, kwargs = _located(name, kwargs)
    try:
        return load_with(USDRLFeatureExtractor.from_pretrained, name, **kwargs)
    except CheckpointLoadError:
        if not _has_none(name, "preprocessor_config.json", **kwargs):
            raise
    if adapter := load_adapter(name, **kwargs):
        return load_feature_extractor(adapter.base, guess=guess, **_revision(adapter))
    if not guess:
        raise MissingPreprocessorError(
            f"model '{name}' has no preprocessor_config.json, so the normalisation of its clips is unknown: save the "
            "feature extractor that it was trained with in its folder, or take what its layout suggests with "
            "--guess-preprocessing (load_feature_extractor(name, guess=True))"
        )
    try:
        return _guessed(load_config(name, **kwargs), f"model '{name}'")
    except ValueError as error:
        raise CheckpointLoadError(f"model '{name}' has no preprocessor_config.json, and {error}") from None


def extractor_of(model: USDRLPreTrainedModel, *, guess: bool = True) -> USDRLFeatureExtractor:
    """The feature extractor of a loaded model: that of the folder or repository from which it was loaded.

    Args:
        model: The model, or its encoder.
        guess: If the model was not loaded, or its folder is gone, take what its layout suggests, with a warning.

    Raises:
        MissingPreprocessorError: If the folder has none, or the model was not loaded and `guess` is False.
        CheckpointLoadError: If it is damaged.
    """
    config = model.config
    name = model.name_or_path or getattr(config, "_name_or_path", "")
    # Of the same commit: a model of another revision may prepare its clips in another way.
    commit = None if os.path.isdir(name or "") else getattr(config, "_commit_hash", None)
    if name:
        try:
            found = load_feature_extractor(name, **({"revision": commit} if commit else {}))
        except CheckpointLoadError as error:
            # The source folder may have been deleted; only report damage if it still exists.
            if isinstance(error, MissingPreprocessorError) or os.path.isdir(name) or not guess:
                raise
        else:
            sizes = ("layout", "num_frames", "num_persons", "num_channels")
            if all(getattr(found, size) == getattr(config, size) for size in sizes):
                return found
    if not guess:
        raise MissingPreprocessorError("the normalisation of this model's clips is unknown")
    return _guessed(config, "the model")


def _guessed(config: USDRLConfig, what: str) -> USDRLFeatureExtractor:
    made = USDRLFeatureExtractor.from_model_config(config)
    notice(
        f"{what} has no feature extractor: normalization '{made.normalization}' is used, as its layout suggests; if "
        "it was trained with another, give that one (feature_extractor)",
        "feature extractors guessed",
        stacklevel=3,
    )
    return made


def _has_none(name: str | os.PathLike, file: str, **kwargs: Any) -> bool:
    """Whether a folder or repository is known to be without a file."""
    path = Path(kwargs.get("subfolder") or "") / file
    if _is_here(name, **kwargs):
        return not (Path(bundled_checkpoint(name, **kwargs)) / path).exists()
    # The client's cache records which files the hub lacks.
    where = {key: kwargs[key] for key in ("cache_dir", "revision") if key in kwargs}
    with suppress(HFValidationError):
        return try_to_load_from_cache(str(name), path.as_posix(), **where) is _CACHED_NO_EXIST
    return False


def _located(name: str | os.PathLike, kwargs: dict[str, Any]) -> tuple[str | os.PathLike, dict[str, Any]]:
    """Repository and arguments of an address ``hf://...``, with the commit that its revision is at; others as given.

    A commit passes over models that are installed or ship under the same name.
    """
    address = model_address(name)
    if address is None:
        return name, kwargs
    if address.file is not None:
        raise CheckpointLoadError(
            f"'{address}' is a file of the hub, not a model: convert the authors' checkpoints with 'usdrl convert'"
        )
    if kwargs.get("revision") not in (None, address.revision):
        raise ValueError(f"'{address}': the revision is '{kwargs['revision']}', too: leave one of them out")
    known = {key: kwargs[key] for key in ("cache_dir", "local_files_only", "token") if kwargs.get(key) is not None}
    found = load_with(resolve_revision, address.repo_id, from_hub=True, revision=address.revision, **known)
    return address.repo_id, {**kwargs, "revision": found.resolved}


def pinned_name(name: str | os.PathLike) -> str:
    """The name of a model, of one of the hub with its commit, so that a run that goes on later starts from the same.

    Args:
        name: See `load_model`.

    Returns:
        An address with the commit; the name as it is of a model on this machine, and where the hub does not answer.
    """
    address = model_address(name) or ModelAddress(os.fspath(name))
    if address.file is not None or address.repo_id.count("/") != 1 or Path(address.repo_id).is_absolute():
        return os.fspath(name)
    if model_address(name) is None and (_is_here(name) or Path(name).exists()):
        return os.fspath(name)
    try:
        found = load_with(resolve_revision, address.repo_id, from_hub=True, revision=address.revision)
    except CheckpointLoadError:
        # Loading says why.
        return os.fspath(name)
    return str(ModelAddress(address.repo_id, found.resolved))


def _is_here(name: str | os.PathLike, **kwargs: Any) -> bool:
    """Whether a name is that of a folder, or of a checkpoint in the package."""
    return Path(name).is_dir() or bundled_checkpoint(name, **kwargs) != name


def load_with(load: Callable[..., Any], name: str | os.PathLike, *, from_hub: bool = False, **kwargs: Any) -> Any:
    """Load by name or folder, with errors that say what to do.

    Args:
        load: A `from_pretrained`, or a function like it.
        name: See `load_model`.
        from_hub: Whether the name is that of a repository on the hub, whatever is here under it.
        **kwargs: Passed to `load`.

    Raises:
        CheckpointLoadError: If it cannot be loaded.
    """
    local = not from_hub and _is_here(name, **kwargs)
    if not local and not from_hub and Path(name).exists():
        raise CheckpointLoadError(
            f"'{name}' is a file, not a model folder: convert the authors' checkpoints with 'usdrl convert'"
        )
    if not local and not from_hub and (hint := misspelt_name(name, **kwargs)):
        raise CheckpointLoadError(f"model '{name}' was not found. {hint}", "missing", hint)
    try:
        return load(name, **kwargs) if local else _load_from_hub(load, name, **kwargs)
    except Exception as error:
        # A damaged file raises any error of JSON, safetensors and transformers.
        fault, kind = ("", "damaged") if local else _fault_of_hub(error, kwargs.get("revision"))
        hint = explain_missing(str(name)) if kind == "missing" and kwargs.get("revision") is None else ""
        said = " ".join(str(error).split()).removeprefix(f"model '{name}': ") or type(error).__name__
        reason = fault or f"cannot be loaded: {said[:300]}"
        if hint:
            reason = f"was not found. {hint}"
        raise CheckpointLoadError(f"model '{name}' {reason}", kind, hint) from error


def find_file(name: str | os.PathLike) -> Path:
    """Path of a file: a path on this machine, or a file of a repository on the hub, which is downloaded once.

    Args:
        name: The path; or ``OWNER/REPOSITORY/FILE``, or ``hf://OWNER/REPOSITORY[@REVISION]/FILE``.

    Raises:
        CheckpointLoadError: If the hub has it not, or is not reachable and its cache does not hold it.
        ValueError: If it begins with ``hf:`` and is no address.
    """
    parts = Path(name).parts
    address = model_address(name)
    if address is None:
        is_local = len(parts) < 2 or Path(name).exists() or Path(parts[0]).is_dir() or Path(name).is_absolute()
        if is_local or len(parts) == 2 and Path(name).suffix in _WEIGHTS:
            return Path(name)
        address = ModelAddress("/".join(parts[:2]), None, "/".join(parts[2:]) or None)
    if address.file is None:
        shown = name if model_address(name) is None else address
        raise CheckpointLoadError(f"'{shown}' is no file here, and names none of the hub{_weights_of(address)}")

    def load(repository: str | os.PathLike, **where: Any) -> str:
        return hf_hub_download(str(repository), str(address.file), **where)

    try:
        return Path(load_with(load, address.repo_id, from_hub=True, revision=address.revision))
    except CheckpointLoadError as error:
        if not isinstance(error.__cause__, EntryNotFoundError) or isinstance(error.__cause__, LocalEntryNotFoundError):
            raise
    raise CheckpointLoadError(f"{address.repo_id} has no file '{address.file}'{_weights_of(address)}", "missing")


def find_folder(name: str | os.PathLike) -> Path:
    """Folder of a model: a path on this machine; or the client's cache, into which one of the hub is downloaded.

    Args:
        name: The path, or the address ``hf://OWNER/NAME[@REVISION]``.

    Raises:
        CheckpointLoadError: If the hub has it not, or is not reachable and its cache does not hold it.
        ValueError: If it begins with ``hf:`` and is no address.
    """
    if model_address(name) is None:
        return Path(name)
    repository, where = _located(name, {})
    files = ["*.json", "*.safetensors", "*.md", "*.png", "*.py"]
    return Path(load_with(snapshot_download, repository, from_hub=True, allow_patterns=files, **where))


def _weights_of(address: ModelAddress) -> str:
    """Files of weights in a repository of the hub, as the end of a sentence; empty where they are not known."""
    try:
        reachable = hub_is_reachable()
        names = HfApi().list_repo_files(address.repo_id, revision=address.revision) if reachable else []
    except Exception:
        # It only adds to another error.
        names = []
    if not names:
        return ": it is OWNER/REPOSITORY/FILE"
    found = [name for name in names if name.endswith(_WEIGHTS)]
    if not found:
        return ": the repository holds no weights"
    others = f" and {len(found) - _NAMED} others" if len(found) > _NAMED else ""
    return f": the repository holds {', '.join(found[:_NAMED])}{others}"


def _load_from_hub(load: Callable[..., Any], name: str | os.PathLike, **kwargs: Any) -> Any:
    for attempt in range(2):
        if not kwargs.get("local_files_only") and not hub_is_reachable():
            # The client would retry for half a minute before it looks into its cache.
            kwargs["local_files_only"] = True
        try:
            return load(name, **kwargs)
        except Exception as error:
            # The client does not retry where a file's storage fails or the connection is reset.
            if kwargs.get("local_files_only") and isinstance(error, OSError | RevisionResolutionError):
                raise _NotCached from error
            cause = _cause_in_hub(error)
            if attempt or cause is None or _status(cause) in range(400, 500):
                raise
        time.sleep(1)


class _NotCached(Exception):
    """The hub is unreachable, and its cache does not hold the checkpoint."""


def _cause_in_hub(error: BaseException | None) -> Exception | None:
    """The hub client's error that caused another error, or None."""
    while error is not None and not isinstance(error, RemoteEntryNotFoundError):
        if isinstance(error, httpx.HTTPError | _NotCached):
            return error
        error = error.__cause__ or error.__context__
    return None


def _status(cause: Exception) -> int | None:
    """The status of the hub's answer, or None where there was none."""
    return cause.response.status_code if isinstance(cause, HfHubHTTPError) else None


def _fault_of_hub(error: Exception, revision: str | None) -> tuple[str, str]:
    """The hub's fault, as the rest of a sentence about a model, and its kind; an empty text if it is not at fault."""
    cause = _cause_in_hub(error)
    if cause is None:
        return "", "damaged"
    status = _status(cause)
    if insists_on_xet(error):
        return f"cannot be loaded: {XET_ONLY}", "hub"
    if isinstance(cause, RevisionNotFoundError):
        return f"was not found: the hub has no revision '{revision}' of it", "missing"
    absent = "was not found: it does not ship with the package ('usdrl list' shows what does), it is no folder here,"
    if isinstance(cause, _NotCached):
        return f"{absent} it is not in the cache, and the hub is not reachable", "missing"
    if isinstance(cause, RepositoryNotFoundError) and not isinstance(cause, GatedRepoError):
        reason = f"{absent} and the hub has none that you may read: log in with 'hf auth login' if it is private"
        return reason, "missing"
    if status is None:
        return "cannot be loaded: the connection to the hub was cut; try again", "hub"
    answer = _ANSWERS.get(status, "failed: try again later" if status >= 500 else "refused")
    return f"cannot be loaded: the hub {answer} (status {status})", "hub"


def find_device(device: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: If it is not available.
    """
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise RuntimeError("the meta device computes nothing")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device '{device}' is not available here: use cpu, or a device that torch sees") from None
    return found
