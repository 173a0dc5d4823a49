"""Atomic writing of files and folders, one process at a time."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from safetensors import SafetensorError

from .errors import FolderInUseError, OutputError, USDRLError

# Seconds to wait for a lock: a process that has just released it may still be deleting its file.
_PATIENCE = 0.2
# This machine's name in temporary file names: several machines may share the disk.
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]
# Bytes of a file name that derived names begin with; a file system allows 255 in all.
_LONGEST_NAME = 150
# Error numbers of a file system without locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
# Error numbers of a full or failing disk, which libraries raise without the file's name.
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
# A folder without these does not load, so they are moved in last.
_READ_FIRST = ("config.json", "store.json")
_LOCK, _SOFT = ".lock", ".lock.soft"
# End of a temporary file's name; the first group is the id of the process that writes it.
_MARKED = r"(?:scratch\.)?(\d+)-\d+-[0-9a-f]+@[^@]+\.partial"
# Temporary files of this process, and a counter that makes their names unique.
_MINE: set[str] = set()
_NUMBERS = itertools.count()


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Lock a file or folder for writing by this thread alone.

    The lock is a file beside it, ``.NAME.lock``, which names its holder; it is inside the folder if the parent is not
    writable. The operating system releases it when the holder ends, even by a kill. So a holder knows that any
    temporary files of `path` are left over from dead processes.

    Raises:
        FolderInUseError: If another process or thread holds it; the message names host and process.
        OutputError: If the parent folder cannot be written.
    """
    path = Path(path).resolve()
    with _parents_of(path):
        file = _lock_file(path)
        lock = _acquired(path, file)
        try:
            # Windows lets no other process read a locked file: there the message names no holder.
            with suppress(OSError, UnicodeDecodeError):
                # The content of a soft lock is not ours to change.
                if file.read_text("utf-8")[:1] in ("", "{"):
                    file.write_text(json.dumps({"host": platform.node(), "process": os.getpid()}), "utf-8")
            yield
        finally:
            # Only the holder deletes the file; a waiting process notices and creates a new one.
            gone = isinstance(lock, SoftFileLock) or _deleted(file)
            lock.release()
            if not gone:
                # Windows cannot delete an open file.
                _deleted(file)


def _lock_file(path: Path) -> Path:
    if path.is_dir() and not os.access(path.parent, os.W_OK):
        return path / _LOCK
    return path.parent / f".{_short(path)}{_LOCK}"


def _acquired(path: Path, file: Path) -> BaseFileLock:
    """Acquire the lock of `path`."""
    try:
        lock: BaseFileLock = FileLock(file, mode=0o666 & ~_umask(), thread_local=False)
        try:
            with warnings.catch_warnings():
                # filelock warns if it falls back to a soft lock.
                warnings.simplefilter("ignore")
                lock.acquire(timeout=_PATIENCE)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # The file's existence is the lock; filelock breaks that of a dead process of this machine.
            _deleted(file)
            lock = SoftFileLock(file.with_name(file.name.removesuffix(_LOCK) + _SOFT), thread_local=False)
            lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise FolderInUseError(f"{path}: {_holder(file)} is writing it: wait for it, or name another") from None
    except OSError as error:
        raise _refusal(path, error) from None
    return lock


def _deleted(file: Path) -> bool:
    """Delete a file and return whether it is gone."""
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _holder(file: Path) -> str:
    """The holder that a lock file names, for a message."""
    try:
        holder = json.loads(file.read_text("utf-8"))
        return f"process {int(holder['process'])} on {str(holder['host'])[:100]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Create a folder atomically: the block writes to a temporary folder, which is then moved to `path`.

    Leftovers of dead processes are deleted first.

    Raises:
        FolderInUseError: If another process or thread is writing it.
        OutputError: If `path` exists and is not an empty folder, or cannot be written.
    """
    path = Path(path).resolve()
    with locked(path):
        _check_is_new(path)
        remove_leftovers(path)
        # An existing empty folder may be a mount point or a working directory: fill it instead of replacing it.
        exists = path.is_dir()
        name = f".new-{secrets.token_hex(4)}.partial"
        partial = path / name if exists else path.parent / f".{_short(path)}{name}"
        try:
            partial.mkdir()
        except OSError as error:
            raise _refusal(path, error) from None
        try:
            with naming(path, partial):
                yield partial
                if exists:
                    _fill(path, partial)
                else:
                    os.replace(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _fill(path: Path, partial: Path) -> None:
    """Move the content of `partial` into `path`; a list of it tells the next run what to delete if this one dies."""
    children = sorted(partial.iterdir(), key=lambda child: (child.name in _READ_FIRST, child.name))
    moving = partial.with_suffix(".moving")
    try:
        (partial / moving.name).write_text(json.dumps([child.name for child in children]), "utf-8")
        os.replace(partial / moving.name, moving)
        for child in children:
            os.replace(child, path / child.name)
        partial.rmdir()
    except BaseException:
        for child in children:
            _remove(path / child.name)
        raise
    finally:
        _deleted(moving)


def remove_leftovers(path: str | os.PathLike) -> None:
    """Delete temporary files of dead processes; the caller must hold the lock of `path`."""
    path = Path(path).resolve()
    for folder in (path, path.parent):
        for entry in _leftovers(path, folder):
            _remove(entry)


def _leftovers(path: Path, folder: Path) -> list[Path]:
    """Temporary files of `path` in a folder; under its lock, those are of dead processes."""
    try:
        entries = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise _refusal(path, error) from None
    beginning = "" if folder == path else f".{_short(path)}"
    name = re.compile(rf"{re.escape(beginning)}\.(new-[0-9a-f]+\.(partial|moving)|{_MARKED})")
    found = [entry for entry in entries if name.fullmatch(entry.name) and entry.name not in _MINE]
    moved: set[str] = set()
    for entry in found:
        if entry.suffix == ".moving":
            with suppress(OSError, ValueError):
                moved.update(map(str, json.loads(entry.read_text("utf-8"))))
    # The list of moved files is deleted last: if this run dies, the next one still needs it.
    return [entry for entry in entries if entry.name in moved] + sorted(
        found, key=lambda entry: entry.suffix[1] == "m"
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        _deleted(path)


def is_new(path: str | os.PathLike, files: Sequence[str] = ()) -> bool:
    """Whether a path is free: missing, or a folder that is empty but for leftovers of dead processes.

    Args:
        path: The path.
        files: Names of files in the folder whose temporary files count as leftovers, too.
    """
    path = Path(path).resolve()
    if not path.is_dir():
        return not os.path.lexists(path)
    left = {*_leftovers(path, path), path / _LOCK, path / _SOFT}
    for name in files:
        left.update(_leftovers(path / name, path))
    return not set(path.iterdir()) - left


def _check_is_new(path: Path) -> None:
    if not is_new(path):
        raise OutputError(f"{path}: it exists already and is not an empty folder: name a new one")


@contextmanager
def new_file(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file atomically: the block writes to a temporary path, which then replaces `path`.

    Leftovers of dead processes of this machine are deleted first.

    Raises:
        OutputError: If `path` is a folder or a device, or cannot be written.
    """
    asked, path = Path(path), Path(path).resolve()
    if os.path.lexists(path) and not path.is_file():
        raise OutputError(f"{asked}: it is {'a folder' if path.is_dir() else 'a device'}, not a file to write")
    with _partial(path) as partial:
        try:
            _remove_dead(path.parent, rf"\.{re.escape(_short(path))}\.(?:scratch\.)?")
            partial.touch()
        except OSError as error:
            raise _refusal(asked, error) from None
        with naming(asked, partial):
            yield partial
            rights = 0o666 & ~_umask()
            # safetensors writes files that only their owner can read.
            if os.name == "posix" and partial.stat().st_mode & 0o777 != rights:
                partial.chmod(rights)
            os.replace(partial, path)


@contextmanager
def scratch_file(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file beside `path`, deleted at the end, or by the next `new_file` of `path` if this process dies."""
    path = Path(path).resolve()
    with _partial(path, "scratch.") as scratch, naming(path, scratch):
        yield scratch


@contextmanager
def _partial(path: Path, prefix: str = "") -> Iterator[Path]:
    """Path of a temporary file beside `path`, marked as ours and deleted at the end."""
    with _parents_of(path):
        partial = path.with_name(f".{_short(path)}.{prefix}{_mark()}.partial")
        _MINE.add(partial.name)
        try:
            yield partial
        finally:
            _deleted(partial)
            _MINE.discard(partial.name)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the system's temporary folder, deleted at the end; those of dead processes are deleted, too.

    Raises:
        OutputError: If it cannot be made.
    """
    try:
        around = Path(tempfile.gettempdir()).resolve()
        with suppress(OSError):
            _remove_dead(around, r"usdrl-")
        folder = around / f"usdrl-{_mark()}.partial"
        _MINE.add(folder.name)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OutputError(f"no temporary folder can be made (see TMPDIR): {error.strerror or error}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _MINE.discard(folder.name)


def _mark() -> str:
    """Mark of the writing process in a temporary file's name; others check whether that process still runs."""
    return f"{os.getpid()}-{next(_NUMBERS)}-{secrets.token_hex(3)}@{_HOST}"


def _remove_dead(folder: Path, beginning: str) -> None:
    """Delete temporary files and folders of dead processes of this machine."""
    name = re.compile(rf"{beginning}(\d+)-\d+-[0-9a-f]+@{re.escape(_HOST)}\.partial")
    for entry in folder.iterdir():
        if match := name.fullmatch(entry.name):
            process = int(match[1])
            # In a container the dead process may have had our process id.
            dead = entry.name not in _MINE if process == os.getpid() else not psutil.pid_exists(process)
            if dead:
                _remove(entry)


@contextmanager
def _parents_of(path: Path) -> Iterator[None]:
    """Create the parent folders of `path`; those still empty at the end are deleted."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refusal(path, error) from None
        yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def naming(path: Path, partial: Path) -> Iterator[None]:
    """Make system errors name the requested file or folder instead of the temporary one."""
    try:
        yield
    except OSError as error:
        name = str(error.filename) if isinstance(error.filename, str | os.PathLike) else ""
        if name.startswith(str(partial)):
            raise OSError(error.errno, error.strerror, name.replace(str(partial), str(path), 1)) from error
        if not name and error.errno in _FULL:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except SafetensorError as error:
        # Its errors have no errno; the number is in the text only.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def _refusal(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: it cannot be written: {error.strerror or error}")


def _short(path: Path) -> str:
    """The name of a file or folder, shortened if derived names would be too long."""
    name = os.fsencode(path.name)
    if len(name) <= _LONGEST_NAME:
        return path.name
    return f"{os.fsdecode(name[: _LONGEST_NAME - 40])}-{hashlib.sha256(name).hexdigest()[:16]}"


def _umask() -> int:
    """The process's umask."""
    # os.umask can read it only by setting it, which other threads would notice.
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))
    except (OSError, StopIteration):
        mask = os.umask(0)
        os.umask(mask)
        return mask


def check_space(path: str | os.PathLike, needed: int, what: str) -> None:
    """Check free disk space before a long job.

    Args:
        path: The file or folder to write; it need not exist.
        needed: Bytes to write, or a lower bound.
        what: What is written, for the message.

    Raises:
        OutputError: If fewer bytes are free; the message says how many are needed.
    """
    path = Path(path).resolve()
    existing = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        # Unknown: writing will fail if there is too little.
        return
    if needed > free:
        raise OutputError(
            f"{what}: it needs {_size(needed)} of disk and {_size(free)} are free: make room, or name another folder"
        )


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Check available memory before a long job.

    Args:
        needed: Bytes held in memory at once, or a lower bound.
        what: What is held, for the message.
        remedy: How to fix it, such as the option that keeps the data on disk.

    Raises:
        USDRLError: If fewer bytes are available.
    """
    available = psutil.virtual_memory().available
    if needed > available:
        raise USDRLError(f"{what}: it needs {_size(needed)} of memory and {_size(available)} are available: {remedy}")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
