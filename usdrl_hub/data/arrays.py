"""Loading of ``.npy`` and ``.npz`` files without unpickling and within bounds of memory."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from ..sequence import SkeletonFormatError

# Arrays of an archive at most, and their memory at most: a constant, and a factor of the size of the file.
_MOST_ARRAYS = 1000
_LONGEST_HEADER = 10_000
_MEMORY, _MEMORY_PER_BYTE = 32 << 20, 40


def check_header(file: IO[bytes], size: int) -> int:
    """Compare the header of a ``.npy`` file with the file's size before any memory is allocated.

    Args:
        file: The file, at its beginning.
        size: Its size in bytes.

    Returns:
        Bytes of the array as it is and as float32 together.

    Raises:
        ValueError: If it is not a ``.npy`` file, or is truncated.
    """
    version = np.lib.format.read_magic(file)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(version[0])
    if read is None:
        raise ValueError("its arrays have fields")
    # NumPy allocates as many bytes as the header claims for itself.
    start = file.tell()
    if int.from_bytes(file.read(2 * version[0]), "little") > _LONGEST_HEADER:
        raise ValueError("it is truncated")
    file.seek(start)
    shape, _, dtype = read(file)
    count = math.prod(shape)
    # NumPy 2.0 lets the size of a type of text overflow.
    if dtype.itemsize < 0:
        raise ValueError("its type has an impossible size")
    if not dtype.hasobject and file.tell() + count * dtype.itemsize > size:
        raise ValueError("it is truncated")
    return count * (dtype.itemsize + 4)


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to far more than its size, or contains other files than arrays.

    Raises:
        SkeletonFormatError: If it does.
        Exception: Of many types, if it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        foreign = next((name for name in names if not name.endswith(".npy")), None)
        if foreign is not None:
            raise SkeletonFormatError(f"{path}: '{foreign[:80]}' in it is not an array: its name does not end in .npy")
        if len(names) > _MOST_ARRAYS or len(set(names)) < len(names):
            raise SkeletonFormatError(f"{path}: it holds more than {_MOST_ARRAYS} arrays, or one of them twice")
        max_bytes = _MEMORY + _MEMORY_PER_BYTE * path.stat().st_size
        # First the unpacked size, then the sizes in the headers of the arrays.
        size = sum(member.file_size for member in members)
        if size <= max_bytes:
            size = 0
            for member in members:
                with archive.open(member) as file:
                    size += check_header(file, member.file_size)
        if size > max_bytes:
            raise SkeletonFormatError(
                f"{path}: it is refused: its arrays take {size >> 20} MB, far more than such a file holds: save them "
                "uncompressed (np.savez)"
            )


def load_npz(path: str | os.PathLike, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Load arrays of an ``.npz`` file without unpickling.

    Args:
        path: The file.
        names: Arrays to load, of those that it has; None loads all.

    Raises:
        SkeletonFormatError: If the file is missing or truncated, or an array contains Python objects.
    """
    path = Path(path)
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise SkeletonFormatError(f"{path}: it is a single array, not a .npz archive")
        with loaded as archive:
            arrays = {}
            for key in archive.files:
                if names is not None and key not in names:
                    continue
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    if "pickle" in str(error).lower() or "object" in str(error).lower():
                        raise SkeletonFormatError(
                            f"{path}: array '{key}' holds Python objects, which are never loaded: save each recording "
                            "in it as .npy (frames, joints, 3)"
                        ) from None
                    raise
    except SkeletonFormatError:
        raise
    except Exception:
        # NumPy evaluates headers as Python literals, so damaged ones raise errors of any type.
        raise SkeletonFormatError(
            f"{path}: cannot be read as a .npz archive: it is damaged or of another format"
        ) from None
    if not arrays:
        raise SkeletonFormatError(f"{path}: there is no array in it")
    return arrays


def load_npy(path: Path) -> np.ndarray:
    """Load the array of a ``.npy`` file without unpickling.

    Raises:
        OSError: If it cannot be opened.
        SkeletonFormatError: If it is truncated, something else, or contains Python objects.
    """
    try:
        with open(path, "rb") as file:
            check_header(file, path.stat().st_size)
        return np.load(path, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:
        # NumPy evaluates headers as Python literals, so damaged ones raise errors of any type.
        with open(path, "rb") as file:
            known = file.read(6) == b"\x93NUMPY"
        reason = "it is truncated" if known else "it is something else"
        if known and "Object arrays" in str(error):
            reason = "it holds Python objects, which are never loaded"
        raise SkeletonFormatError(f"{path}: cannot be read as a NumPy array: {reason}") from None
