"""Where a checkpoint is, by its name: in the package, around it, or on the hub; and hints where it is not."""

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

    A folder of that name in the working directory comes first, as everywhere in transformers; a `revision` or
    `subfolder` asks for the repository on the hub.

    Args:
        name: A repository name such as ``usdrl/tiny-uiprmd``, or a path.
        **kwargs: The keyword arguments of the caller's `from_pretrained`.
    """
    if kwargs.get("revision") or kwargs.get("subfolder") or not isinstance(name, str) or os.path.isdir(name):
        return name
    if name.count("/") > 1 or ".." in name or not name:
        return name
    # Names of this project are known without its namespace, too.
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
    """Replace the error of a checkpoint that is not here by one sentence on how to make it, if its name is known.

    Args:
        name: What `from_pretrained` was asked for.
        arguments: Its keyword arguments. Where nothing answers at the hub's address, only its cache is looked at: the
            client would try for half a minute.

    Raises:
        CheckpointNotFoundError: In place of an error that says that the hub has none, or cannot be asked.
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
        # The client's own errors fill a screen each, and say less.
        raise CheckpointNotFoundError(f"model '{name}' was not found. {hint}", "missing", hint) from None


def add_code(folder: str | os.PathLike) -> None:
    """Put the model's code into a folder that is sent to the hub, so that transformers alone loads what is there."""
    try:
        # As in `_parents`; where this file is such code itself, transformers has put it there.
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
        # The client's exceptions depend on the HTTP library beneath it; each means the same here.
        return False
    return True


def _is_absent(error: BaseException | None) -> bool:
    """Whether an error comes from a hub that has no such repository, or that could not be asked, not from a fault."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
        error = error.__cause__ or error.__context__
    return True
