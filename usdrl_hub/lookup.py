"""Find a checkpoint by its name: installed on this machine, in the package or around it, or on the hub."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants, get_session, is_offline_mode, resolve_revision, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils._runtime import is_xet_available

from .errors import CheckpointLoadError, CheckpointNotFoundError, notice

# A path object makes one slash of two.
_ADDRESS = re.compile(
    r"hf:/{1,2}(?P<repo_id>[^/@:?]+/[^/@:?]+)(?:@(?P<revision>refs/[^/@]+/[^/@]+|[^/@]+))?(?:/(?P<file>.+))?"
)
# Names of installed models whose use has been reported, and folders that may not be read.
_reported: set[str] = set()
# Until when an address is not asked.
_silent: dict[str, float] = {}


class ModelAddress(NamedTuple):
    """The address of a model on the hub, or of a file in its repository.

    Attributes:
        repo_id: Owner and name.
        revision: Branch, tag or commit; main where None.
        file: A file of the repository, with its folders.
    """

    repo_id: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        """The address in full."""
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"hf://{self.repo_id}{revision}" + ("" if self.file is None else f"/{self.file}")


def model_address(name: str | os.PathLike) -> ModelAddress | None:
    """Read ``hf://OWNER/NAME``, with ``@REVISION`` and ``/FILE`` where they are given; None for any other name.

    Raises:
        ValueError: If it begins so and is no such address.
    """
    text = os.fspath(name).replace("\\", "/").strip()
    if re.match(r"hf:|https?:/", text, re.IGNORECASE) is None:
        return None
    found = _ADDRESS.fullmatch(text.rstrip("/"))
    if found is None or found["repo_id"].partition("/")[0] in ("datasets", "models", "spaces"):
        raise ValueError(f"'{text}' is no address of a model: it is hf://OWNER/NAME, with @REVISION as needed")
    return ModelAddress(**found.groupdict())


def revision_of(name: str | os.PathLike | None) -> str | None:
    """The revision that the name of a model states; None of any other, and of None."""
    address = None if name is None else model_address(name)
    return None if address is None else address.revision


def bundled_checkpoint(name: str | os.PathLike, **kwargs: Any) -> str | os.PathLike:
    """Return the folder of a checkpoint that is installed or ships with the package, or the name unchanged.

    As in transformers, a folder of that name in the working directory takes precedence. Otherwise the order is: models
    installed under a name, which is said once; the package; the repository around it. With a `subfolder` or a
    `revision` the name is that of the repository on the hub; an installed model answers for the revision "main", too.

    Args:
        name: A repository name such as ``usdrl/tiny-uiprmd``, or a path.
        **kwargs: The keyword arguments of the caller's `from_pretrained`.
    """
    revision = kwargs.get("revision")
    if kwargs.get("subfolder") or revision not in (None, "", "main") or not isinstance(name, str):
        return name
    if os.path.isdir(name) or name.count("/") > 1 or ".." in name or not name:
        return name
    # Names of this project may be given without its namespace.
    folder_name = name.replace("/", "--") if "/" in name else f"usdrl--{name}"
    installed, *bundled = _parents() or (None,)
    if installed is not None and not kwargs.get("force_download"):
        if os.path.isdir(installed / folder_name):
            _report(name, f"model '{name}' is the one that is installed on this machine, in {installed / folder_name}")
            return str(installed / folder_name)
        if os.environ.get("USDRL_HOME") and _is_closed(installed):
            _report(str(installed), f"no model is found in {installed} (USDRL_HOME), which you may not read")
    if revision:
        return name
    return next((str(parent / folder_name) for parent in bundled if (parent / folder_name).is_dir()), name)


def _report(key: str, text: str) -> None:
    if key not in _reported:
        _reported.add(key)
        notice(text, stacklevel=4)


def _is_closed(folder: Path) -> bool:
    """Whether a folder, or one above it, may not be entered."""
    try:
        folder.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(folder, os.X_OK)


def checkpoint_name(folder: str | os.PathLike | None) -> str:
    """The name of a checkpoint that is installed or ships, by its folder, or by an address; empty for any other."""
    path = Path(folder or "")
    if address := model_address(path):
        return address.repo_id
    return path.name.replace("--", "/", 1) if path.parent in _parents() else ""


def commit_of(name: str | os.PathLike | None, **kwargs: Any) -> str | None:
    """The commit that a repository of the hub was last read at, by the client's cache.

    Args:
        name: The repository.
        **kwargs: The keyword arguments of the caller's `from_pretrained`.

    Returns:
        The commit; the revision as it was given where the cache has none; None for a folder.
    """
    if name is None or os.path.isdir(name):
        return None
    where = {key: kwargs[key] for key in ("cache_dir", "revision") if kwargs.get(key) is not None}
    try:
        return resolve_revision(str(name), local_files_only=True, **where).resolved
    except (OSError, ValueError, RevisionResolutionError):
        return where.get("revision")


def loaded_from(model: Any) -> str:
    """The name by which exactly this model loads again: of a model of the hub, its address with the commit.

    Args:
        model: A loaded model.

    Returns:
        The address; or the name of a model that is installed or ships; or the folder. Empty where there is none, and
        for a model to which adapters were added.
    """
    if getattr(model, "peft_config", None):
        return ""
    name = str(getattr(model, "name_or_path", "") or "")
    commit = getattr(model.config, "_commit_hash", None)
    if commit and not os.path.isdir(name) and not checkpoint_name(name) and name.count("/") == 1:
        return str(ModelAddress(name, str(commit)))
    return checkpoint_name(name) or name


def _parents() -> tuple[Path, ...]:
    """Folders of installed checkpoints, of those in the package and of those around it; none without the package."""
    try:
        # Absolute, and not at the top: as remote code this file stands alone.
        from usdrl_hub.facts.checkpoints import CHECKPOINTS_FOLDER, REPOSITORY_FOLDER, installed_models
    except ImportError:
        return ()
    return installed_models(), CHECKPOINTS_FOLDER, REPOSITORY_FOLDER


def misspelt_name(name: str | os.PathLike, **kwargs: Any) -> str:
    """Hint for a name that is nearly one of this project's, before the hub is asked; empty for any other.

    Args:
        name: A name that is of no model here.
        **kwargs: The keyword arguments of the caller's `from_pretrained`.
    """
    try:
        # As in `_parents`.
        from usdrl_hub.facts.checkpoints import misspelt
    except ImportError:
        return ""
    hint = "" if kwargs.get("revision") or kwargs.get("subfolder") else misspelt(str(name))
    if hint:
        with suppress(HFValidationError):
            where = {key: kwargs[key] for key in ("cache_dir",) if kwargs.get(key) is not None}
            if isinstance(try_to_load_from_cache(str(name), "config.json", **where), str):
                return ""
    return hint


@contextmanager
def hint_on_missing(name: str | os.PathLike, arguments: dict[str, Any]) -> Iterator[None]:
    """Replace the error of a missing checkpoint by one sentence on how to make it, if its name is known.

    Args:
        name: The name given to `from_pretrained`.
        arguments: Its keyword arguments. If the hub is unreachable, `local_files_only` is set, because the client
            would retry for half a minute.

    Raises:
        CheckpointNotFoundError: If the hub does not have the checkpoint, or cannot be reached.
    """
    is_here = os.path.exists(name or "") or bundled_checkpoint(name, **arguments) != name
    if not is_here and (hint := misspelt_name(name, **arguments)):
        raise CheckpointNotFoundError(f"model '{name}' was not found. {hint}", "missing", hint)
    if not is_here and not arguments.get("local_files_only") and not hub_is_reachable():
        arguments["local_files_only"] = True
    try:
        yield
    except OSError as error:
        if is_here or isinstance(error, CheckpointLoadError) or not _is_absent(error):
            raise
        try:
            # As in `_parents`.
            from usdrl_hub.facts.checkpoints import explain_missing
        except ImportError:
            raise error from None
        if not (hint := explain_missing(str(name))):
            raise
        # The client's own errors are long, and give no hint.
        raise CheckpointNotFoundError(f"model '{name}' was not found. {hint}", "missing", hint) from None


def add_code(folder: str | os.PathLike) -> None:
    """Copy the model's code into a folder to upload, so that transformers loads it without this package."""
    try:
        # As in `_parents`; remote code itself is copied by transformers.
        from usdrl_hub.remote_code import add_remote_code
    except ImportError:
        return
    add_remote_code(folder)


def hub_is_reachable() -> bool:
    """Whether anything answers at the hub's address within three seconds.

    One that kept silent is not asked again for ten seconds: a model is loaded in several steps.
    """
    if is_offline_mode():
        return False
    begun = time.monotonic()
    if begun < _silent.get(constants.ENDPOINT, 0.0):
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=3)
    except Exception:
        # The client's exceptions depend on its HTTP library.
        if time.monotonic() > begun + 1:
            _silent[constants.ENDPOINT] = time.monotonic() + 10
        return False
    return True


# The rest of a sentence that begins with a model, a data set, or a repository.
XET_ONLY = "this hub stores files by Xet only: install hf_xet, and unset HF_HUB_DISABLE_XET"


def insists_on_xet(error: BaseException | None) -> bool:
    """Whether an error is that of a hub that serves or takes files by Xet only, and the client has no Xet.

    Args:
        error: An error of the client, or one that was caused by it.
    """
    if is_xet_available():
        return False
    while error is not None:
        # Names in addresses may contain the word.
        said = re.sub(r"https?://\S+", "", str(error))
        if re.search(r"\bxet\b", said, re.IGNORECASE):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_absent(error: BaseException | None) -> bool:
    """Whether an error means that the hub has no such repository or cannot be reached, not that it refused."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
        error = error.__cause__ or error.__context__
    return True
