"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Make a folder whole or not at all: what is written goes to a temporary one beside it, which is then renamed.

    Raises:
        ValueError: If something is at `path` that is not an empty folder, or it cannot be written.
    """
    path = Path(path).resolve()
    exists = path.is_dir()
    if path.exists() and (not exists or any(path.iterdir())):
        raise ValueError(f"{path}: it exists already and is not an empty folder: name a new one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder that is there already may be a mount, which cannot be replaced: its content is made inside it.
        partial = Path(
            tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path if exists else path.parent)
        )
    except OSError as error:
        raise ValueError(f"{path}: the folder cannot be made: {error.strerror}") from None
    try:
        yield partial
        if exists:
            for child in partial.iterdir():
                os.replace(child, path / child.name)
            partial.rmdir()
        else:
            # mkdtemp makes a private folder; the result has the rights of any new one.
            os.chmod(partial, 0o777 & ~_umask())
            os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def new_file(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all: what is written to the path given replaces `path` at the end.

    Raises:
        ValueError: If `path` is a folder or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: it is a folder, not a file to write")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise ValueError(f"{path}: the file cannot be written: {error.strerror}") from None
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
