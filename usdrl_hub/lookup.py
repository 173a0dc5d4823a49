"""Find a checkpoint by its name: in the package, in the repository around it, or on the hub."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, is_offline_mode
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from .errors import CheckpointLoadError, CheckpointNotFoundError


def bundled_checkpoint(name: str | os.PathLike, **kwargs: Any) -> str | os.PathLike:
    """Return the folder of a checkpoint in the package or around it, or the name unchanged.

    As in transformers, a folder of that name in the working directory takes precedence. With a `revision` or
    `subfolder` the name is that of the repository on the hub.

    Args:
        name: A repository name such as ``usdrl/tiny-uiprmd``, or a path.
        **kwargs: The keyword arguments of the caller's `from_pretrained`.
    """
    if kwargs.get("revision") or kwargs.get("subfolder") or not isinstance(name, str) or os.path.isdir(name):
        return name
    if name.count("/") > 1 or ".." in name or not name:
        return name
    # Names of this project may be given without its namespace.
    folder_name = name.replace("/", "--") if "/" in name else f"usdrl--{name}"
    return next((str(parent / folder_name) for parent in _parents() if (parent / folder_name).is_dir()), name)


def checkpoint_name(folder: str | os.PathLike | None) -> str:
    """The name of a checkpoint in the package or around it, by its folder; empty for any other."""
    path = Path(folder or "")
    return path.name.replace("--", "/", 1) if path.parent in _parents() else ""


def _parents() -> tuple[Path, ...]:
    """Folders of the checkpoints in the package and around it; none where the package is not installed."""
    try:
        # Absolute, and not at the top: as remote code this file stands alone.
        from usdrl_hub.facts.checkpoints import CHECKPOINTS_FOLDER, REPOSITORY_FOLDER
    except ImportError:
        return ()
    return CHECKPOINTS_FOLDER, REPOSITORY_FOLDER


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
