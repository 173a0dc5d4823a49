"""Find a checkpoint by its name: installed on this machine, in the package or around it, or on the hub."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, is_offline_mode
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from .errors import CheckpointLoadError, CheckpointNotFoundError, notice

# Names of installed models whose use has been reported.
_reported: set[str] = set()


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
    if installed is not None and not kwargs.get("force_download") and (installed / folder_name).is_dir():
        _report(name, installed / folder_name)
        return str(installed / folder_name)
    if revision:
        return name
    return next((str(parent / folder_name) for parent in bundled if (parent / folder_name).is_dir()), name)


def _report(name: str, folder: Path) -> None:
    if name not in _reported:
        _reported.add(name)
        notice(f"model '{name}' is the one that is installed on this machine, in {folder}", stacklevel=4)


def checkpoint_name(folder: str | os.PathLike | None) -> str:
    """The name of a checkpoint that is installed or ships with the package, by its folder; empty for any other."""
    path = Path(folder or "")
    return path.name.replace("--", "/", 1) if path.parent in _parents() else ""


def _parents() -> tuple[Path, ...]:
    """Folders of installed checkpoints, of those in the package and of those around it; none without the package."""
    try:
        # Absolute, and not at the top: as remote code this file stands alone.
        from usdrl_hub.facts.checkpoints import CHECKPOINTS_FOLDER, REPOSITORY_FOLDER, installed_models
    except ImportError:
        return ()
    return installed_models(), CHECKPOINTS_FOLDER, REPOSITORY_FOLDER


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
    """Whether anything answers at the hub's address."""
    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:
        # The client's exceptions depend on its HTTP library.
        return False
    return True


def _is_absent(error: BaseException | None) -> bool:
    """Whether an error means that the hub has no such repository or cannot be reached, not that it refused."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
        error = error.__cause__ or error.__context__
    return True
