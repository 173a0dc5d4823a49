"""Files and folders that appear whole or not at all, and are written by one process at a time."""

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

# Seconds to wait for a lock: whoever has just let go of it may be deleting its file.
_PATIENCE = 0.2
# What this machine is called in the names of temporary files, which may lie on a disk that several machines share.
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]
# Bytes of a name with which the names made of it begin: a file system takes 255.
_LONGEST_NAME = 150
# What a file system answers that has no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
# What a disk answers that takes no more; libraries pass it on without the name of the file.
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
# Without these nothing loads a folder, so they come last where it is filled file by file.
_READ_FIRST = ("config.json", "store.json")
_LOCK, _SOFT = ".lock", ".lock.soft"
# How temporary files beside a file end: with the process that writes them.
_MARKED = r"(?:scratch\.)?(\d+)-\d+-[0-9a-f]+@[^@]+\.partial"
# Temporary files that this process is writing, and numbers that tell them apart.
_MINE: set[str] = set()
_NUMBERS = itertools.count()


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold a file or folder that is being written, so that nobody else writes it at the same time.

    The lock is a file beside it, ``.NAME.lock``, which names its holder; it lies in the folder itself where the one
    around it cannot be written. The system lets go of it when the holder ends, however that happens. While one holds
    it, temporary files of `path` are those of processes that have died.

    Raises:
        FolderInUseError: If another process or thread holds it; the message names host and process.
        OutputError: If the folder around it cannot be written.
    """
    path = Path(path).resolve()
    with _parents_of(path):
        file = _lock_file(path)
        lock = _acquired(path, file)
        try:
            # Where the system keeps others from reading what is locked (Windows), they are told less.
            with suppress(OSError, UnicodeDecodeError):
                # What stands for a lock on a file system without locks is left as it is.
                if file.read_text("utf-8")[:1] in ("", "{"):
                    file.write_text(json.dumps({"host": platform.node(), "process": os.getpid()}), "utf-8")
            yield
        finally:
            # Deleted by its holder only; who has opened it already sees that it is gone, and begins again.
            gone = isinstance(lock, SoftFileLock) or _deleted(file)
            lock.release()
            if not gone:
                # Windows deletes no file that is open.
                _deleted(file)


def _lock_file(path: Path) -> Path:
    if path.is_dir() and not os.access(path.parent, os.W_OK):
        return path / _LOCK
    return path.parent / f".{_short(path)}{_LOCK}"


def _acquired(path: Path, file: Path) -> BaseFileLock:
    """The lock of `path`, held."""
    try:
        lock: BaseFileLock = FileLock(file, mode=0o666 & ~_umask(), thread_local=False)
        try:
            with warnings.catch_warnings():
                # That the file system has no locks, so that a file stands for one.
                warnings.simplefilter("ignore")
                lock.acquire(timeout=_PATIENCE)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # A file that is there or not; that of a dead process of this machine does not count.
            _deleted(file)
            lock = SoftFileLock(file.with_name(file.name.removesuffix(_LOCK) + _SOFT), thread_local=False)
            lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise FolderInUseError(f"{path}: {_holder(file)} is writing it: wait for it, or name another") from None
    except OSError as error:
        raise _refusal(path, error) from None
    return lock


def _deleted(file: Path) -> bool:
    """Delete a file; whether it is gone."""
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _holder(file: Path) -> str:
    """Who holds a lock, as its file says."""
    try:
        holder = json.loads(file.read_text("utf-8"))
        return f"process {int(holder['process'])} on {str(holder['host'])[:100]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Make a folder whole or not at all: what is written goes to a temporary one, which then takes its place.

    What processes that died have left of the same folder is deleted.

    Raises:
        FolderInUseError: If another process or thread is making it.
        OutputError: If something is at `path` that is not an empty folder, or it cannot be written.
    """
    path = Path(path).resolve()
    with locked(path):
        _check_is_new(path)
        remove_leftovers(path)
        # A folder that is there already may be a mount or where its user stands: it stays, and is filled.
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
    """Put what is in `partial` into `path`; a list of it tells the next run what to delete if this one dies."""
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
    """Delete what processes that died have left of a folder or file; for who holds its lock."""
    path = Path(path).resolve()
    for place in (path, path.parent):
        for entry in _leftovers(path, place):
            _remove(entry)


def _leftovers(path: Path, place: Path) -> list[Path]:
    """What lies in `place` that makes `path`; that of processes that have died, for who holds its lock."""
    try:
        entries = list(place.iterdir()) if place.is_dir() else []
    except OSError as error:
        raise _refusal(path, error) from None
    beginning = "" if place == path else f".{_short(path)}"
    name = re.compile(rf"{re.escape(beginning)}\.(new-[0-9a-f]+\.(partial|moving)|{_MARKED})")
    found = [entry for entry in entries if name.fullmatch(entry.name) and entry.name not in _MINE]
    moved: set[str] = set()
    for entry in found:
        if entry.suffix == ".moving":
            with suppress(OSError, ValueError):
                moved.update(map(str, json.loads(entry.read_text("utf-8"))))
    # The list last: until then the next run knows what else to delete.
    return [entry for entry in entries if entry.name in moved] + sorted(
        found, key=lambda entry: entry.suffix[1] == "m"
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        _deleted(path)


def is_new(path: str | os.PathLike, files: Sequence[str] = ()) -> bool:
    """Whether nothing lies at a path, or an empty folder, or one with no more than what a process left that died.

    Args:
        path: The path.
        files: Files of the folder of which a process that died may have left temporary ones, too.
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
    """Write a file whole or not at all: what is written to the path given replaces `path` at the end.

    What processes of this machine that died have left of the same file is deleted.

    Raises:
        OutputError: If `path` is a folder or a device, or cannot be written.
    """
    asked, path = Path(path), Path(path).resolve()
    if os.path.lexists(path) and not path.is_file():
        raise OutputError(f"{asked}: it is {'a folder' if path.is_dir() else 'a device'}, not a file to write")
    with _parents_of(path):
        partial = path.with_name(f".{_short(path)}.{_mark()}.partial")
        _MINE.add(partial.name)
        try:
            try:
                _remove_dead(path.parent, rf"\.{re.escape(_short(path))}\.(?:scratch\.)?")
                partial.touch()
            except OSError as error:
                raise _refusal(asked, error) from None
            with naming(asked, partial):
                yield partial
                rights = 0o666 & ~_umask()
                # safetensors makes what it writes readable for its owner alone.
                if os.name == "posix" and partial.stat().st_mode & 0o777 != rights:
                    partial.chmod(rights)
                os.replace(partial, path)
        finally:
            _deleted(partial)
            _MINE.discard(partial.name)


@contextmanager
def scratch_file(path: str | os.PathLike) -> Iterator[Path]:
    """A file beside `path` for what is needed while that is made; it is gone afterwards.

    Where the process dies first, `new_file` of the same path deletes it.
    """
    path = Path(path).resolve()
    with _parents_of(path):
        scratch = path.with_name(f".{_short(path)}.scratch.{_mark()}.partial")
        _MINE.add(scratch.name)
        try:
            with naming(path, scratch):
                yield scratch
        finally:
            _deleted(scratch)
            _MINE.discard(scratch.name)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what is needed for a while, where the system has such; those that dead processes left are deleted.

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
    """Who writes a temporary file, which tells others whether it still does."""
    return f"{os.getpid()}-{next(_NUMBERS)}-{secrets.token_hex(3)}@{_HOST}"


def _remove_dead(place: Path, beginning: str) -> None:
    """Delete temporary files and folders in `place` whose process, of this machine, has died."""
    name = re.compile(rf"{beginning}(\d+)-\d+-[0-9a-f]+@{re.escape(_HOST)}\.partial")
    for entry in place.iterdir():
        if match := name.fullmatch(entry.name):
            process = int(match[1])
            # In a container the dead process may have had this one's number.
            dead = entry.name not in _MINE if process == os.getpid() else not psutil.pid_exists(process)
            if dead:
                _remove(entry)


@contextmanager
def _parents_of(path: Path) -> Iterator[None]:
    """Make the folders around `path`; those in which nothing lies in the end are gone again."""
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
    """Have errors of the system name the file or folder that was asked for in place of the temporary one."""
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
        # Its errors have no fields: the number of the system's stands in the text.
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def _refusal(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: it cannot be written: {error.strerror or error}")


def _short(path: Path) -> str:
    """The name of a file or folder, shortened where names made of it would be too long."""
    name = os.fsencode(path.name)
    if len(name) <= _LONGEST_NAME:
        return path.name
    return f"{os.fsdecode(name[: _LONGEST_NAME - 40])}-{hashlib.sha256(name).hexdigest()[:16]}"


def _umask() -> int:
    """Rights that new files do not get; where the system tells them, it need not be changed to be read."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))
    except (OSError, StopIteration):
        mask = os.umask(0)
        os.umask(mask)
        return mask


def check_space(path: str | os.PathLike, needed: int, what: str) -> None:
    """Refuse, before the work, to write more than the disk has room for.

    Args:
        path: A file or folder that is to be written; it need not exist.
        needed: Bytes that will be written, or a lower bound of them.
        what: What is written, for the error.

    Raises:
        OutputError: If fewer bytes are free; the message says how many are needed.
    """
    place = Path(path).resolve()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        # Where the system does not say, writing will tell.
        return
    if needed > free:
        raise OutputError(
            f"{what}: it needs {_size(needed)} of disk and {_size(free)} are free: make room, or name another place"
        )


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse, before the work, what memory has no room for.

    Args:
        needed: Bytes that will be in memory at once, or a lower bound of them.
        what: What is held there, for the error.
        remedy: What to do about it, such as the option that keeps it on disk.

    Raises:
        USDRLError: If fewer bytes are available.
    """
    available = psutil.virtual_memory().available
    if needed > available:
        raise USDRLError(f"{what}: it needs {_size(needed)} of memory and {_size(available)} are available: {remedy}")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
