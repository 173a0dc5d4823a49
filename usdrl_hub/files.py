"""Files and folders that appear whole or not at all, and are written by one process at a time."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from .errors import FolderInUseError

# Seconds to wait for a lock: whoever has just let go of it may be deleting its file.
_PATIENCE = 1.0
# What this machine is called in the names of temporary files, which may lie on a disk that several machines share.
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]
# What the system says, without a name, to who writes to an open file.
_WHILE_WRITING = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold a file or folder that is being written, so that no other process writes it at the same time.

    The lock is a file beside it, ``.NAME.lock``, which names its holder; the system lets go of it when the holder
    ends, however that happens. While one holds it, temporary files of `path` are those of processes that have died.

    Raises:
        FolderInUseError: If another process holds it; the message names host and process.
        ValueError: If the folder around it cannot be written.
    """
    path = Path(path).resolve()
    file = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, mode=0o666 & ~_umask())
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise FolderInUseError(f"{path}: {_holder(file)} is writing it: wait for it, or name another") from None
    except OSError as error:
        raise ValueError(f"{path}: it cannot be written: {error.strerror or error}") from None
    try:
        # Where the system keeps others from reading what is locked (Windows), they are told less.
        with suppress(OSError):
            file.write_text(json.dumps({"host": platform.node(), "process": os.getpid()}), "utf-8")
        yield
    finally:
        # Deleted by its holder only; who has opened it already sees that it is gone, and begins again.
        with suppress(OSError):
            file.unlink()
        lock.release()


def _holder(file: Path) -> str:
    """Who holds a lock, as its file says."""
    try:
        holder = json.loads(file.read_text("utf-8"))
        return f"process {int(holder['process'])} on {str(holder['host'])[:100]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Make a folder whole or not at all: what is written goes to a temporary one beside it, which is then renamed.

    What processes that died have left of the same folder is deleted.

    Raises:
        FolderInUseError: If another process is making it.
        ValueError: If something is at `path` that is not an empty folder, or it cannot be written.
    """
    path = Path(path).resolve()
    _check_is_new(path)
    with locked(path):
        exists = path.is_dir()
        # A folder that is there already may be a mount, which cannot be replaced: its content is made inside it.
        place = path if exists else path.parent
        for leftover in _leftovers(path, place):
            shutil.rmtree(leftover, ignore_errors=True)
        _check_is_new(path)
        try:
            partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", suffix=".partial", dir=place))
        except OSError as error:
            raise ValueError(f"{path}: the folder cannot be made: {error.strerror}") from None
        try:
            with _naming(path, partial):
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


def _leftovers(path: Path, place: Path) -> list[Path]:
    """Temporary folders of `path` in `place`; those of processes that have died, for who holds its lock."""
    name = re.compile(rf"\.{re.escape(path.name)}\.new-[^.]+\.partial")
    return [entry for entry in place.iterdir() if name.fullmatch(entry.name)] if place.is_dir() else []


def _check_is_new(path: Path) -> None:
    """Refuse a path at which anything lies but an empty folder, or one in which a process died.

    Raises:
        ValueError: If there is something.
    """
    if not path.exists():
        return
    if not path.is_dir() or set(path.iterdir()) - set(_leftovers(path, path)):
        raise ValueError(f"{path}: it exists already and is not an empty folder: name a new one")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _partial(path: Path, what: str = "") -> Path:
    """A temporary file of this process for `path`, which `new_file` deletes when the process has died."""
    return path.with_name(f".{path.name}.{what}{os.getpid()}@{_HOST}.partial")


@contextmanager
def _naming(path: Path, partial: Path) -> Iterator[None]:
    """Have errors of the system name the file or folder that was asked for in place of the temporary one."""
    try:
        yield
    except OSError as error:
        name = str(error.filename) if isinstance(error.filename, str | os.PathLike) else ""
        if name.startswith(str(partial)):
            raise OSError(error.errno, error.strerror, name.replace(str(partial), str(path), 1)) from error
        if not name and error.errno in _WHILE_WRITING:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def scratch_file(path: str | os.PathLike) -> Iterator[Path]:
    """A file beside `path` for what is needed while that is made; it is gone afterwards.

    Where the process dies first, `new_file` of the same path deletes it.
    """
    path = Path(path)
    scratch = _partial(path, "scratch.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _naming(path, scratch):
            yield scratch
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def new_file(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file whole or not at all: what is written to the path given replaces `path` at the end.

    What processes of this machine that died have left of the same file is deleted.

    Raises:
        ValueError: If `path` is a folder or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: it is a folder, not a file to write")
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*@{_HOST}.partial"):
            process = leftover.name.removesuffix(f"@{_HOST}.partial").rpartition(".")[2]
            if process.isdecimal() and not psutil.pid_exists(int(process)):
                leftover.unlink(missing_ok=True)
        partial.touch()
    except OSError as error:
        raise ValueError(f"{path}: the file cannot be written: {error.strerror}") from None
    try:
        with _naming(path, partial):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
