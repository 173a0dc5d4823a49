"""The files of a store, and the checks of their content before any of it is used."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from safetensors.numpy import load_file

from ..errors import printable
from ..layouts import TO_Y_UP, Layout, get_layout
from ..sequence import CHANNELS, METRES, SkeletonFormatError

FORMAT = "usdrl-skeletons-1"
HEADER, INDEX = "store.json", "index.safetensors"
# How a damaged store is mended, at the end of an error.
MEND = "the store is incomplete: prepare it again with 'usdrl prepare'"
# Marks an unknown entry of the index.
NONE = -1
# Classes at most if they have no names, because a list of names is made for them.
MOST_CLASSES = 100_000
# Properties that all sequences of a store share, as in the content hash.
SHARED = ("layout", "joints", "channels", "coordinates", "units", "up", "mirrored")
_WHOLE = ("int32", "int64")
# Types of the arrays of the index, and the shape of an entry.
_COLUMNS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    **{key: (_WHOLE, ()) for key in ("shard", "start", "frames", "persons", "name_ends", "event_ends")},
    **{key: (_WHOLE, ()) for key in ("label", "subject", "camera", "setup", "split")},
    "fps": (("float64", "float32"), ()),
    "scale": (("float32",), ()),
    "image_shape": (("float32",), (2,)),
}
# Arrays without an entry per sequence.
_LISTS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {"names": (("uint8",), ()), "events": (_WHOLE, (3,))}
# Characters of a wrong value in an error.
_SHOWN = 60


@dataclass(frozen=True)
class Shard:
    """A file of frames.

    Attributes:
        file: Its name.
        offset: Bytes before the first number.
        bytes: Size of the file in bytes.
        sha256: SHA-256 of its numbers, or None in stores of earlier versions.
    """

    file: str
    offset: int
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class StoreHeader:
    """Content of ``store.json``: the properties that all sequences of a store share.

    Attributes:
        layout: Joint layout.
        channels: Coordinates of a joint, 2 or 3.
        coordinates: ``"3d"``, ``"2d"`` or ``"2d+score"``.
        units: Unit of 3D keypoints.
        up: Axis that points up; never None.
        mirrored: Whether the axes of 3D keypoints are left-handed.
        dtype: "float32", or "int16" with a scale per sequence.
        count: Number of sequences.
        shards: Files of frames.
        sha256: Content hash over the frames and the index.
        class_names: Names of the classes; empty if they have none.
        subject_names: Names of the subjects; empty if they have numbers.
        dataset: The data set that was prepared, such as "ntu60", or None.
        shared: JSON of the shared properties, as in the content hash.
    """

    layout: Layout
    channels: int
    coordinates: str
    units: str
    up: str
    mirrored: bool
    dtype: str
    count: int
    shards: tuple[Shard, ...]
    sha256: str
    class_names: tuple[str, ...]
    subject_names: tuple[str, ...]
    dataset: str | None
    shared: str

    @property
    def joints(self) -> int:
        """Number of joints."""
        return self.layout.num_joints

    @classmethod
    def read(cls, folder: Path) -> StoreHeader:
        """Read the header of the store in `folder`, and check it against the files.

        Raises:
            SkeletonFormatError: If a field is missing or invalid, or a shard is not a file in the folder or of another
                size; the message names file and field.
        """
        file = folder / HEADER
        content = _read_json(file)
        for key, (fits, expected) in _RULES.items():
            if key not in content:
                damaged(file, f"field '{key}' is missing")
            if not fits(content[key]):
                damaged(file, f"field '{key}' is {_shown(content[key])}, not {expected}")
        try:
            layout = get_layout(content["layout"])
        except ValueError as error:
            damaged(file, f"field 'layout' is none: {_clipped(str(error))}")
        for key, number, expected in (
            ("joints", layout.num_joints, f"its layout {_shown(layout.name)} has"),
            ("channels", CHANNELS[content["coordinates"]], f"{content['coordinates']} keypoints have"),
        ):
            if content[key] != number:
                damaged(file, f"field '{key}' is {content[key]}, but {expected} {number}")
        return cls(
            layout=layout,
            **{key: content[key] for key in SHARED if key not in ("layout", "joints")},
            **{key: content[key] for key in ("dtype", "count", "sha256")},
            class_names=_as_text(content["class_names"]),
            subject_names=_as_text(content["subject_names"]),
            dataset=content.get("dataset"),
            shards=_read_shards(folder, content),
            shared=json.dumps({key: content[key] for key in SHARED}, sort_keys=True),
        )

    @property
    def shard_sizes(self) -> np.ndarray:
        """Count of numbers in each shard, int64."""
        width = np.dtype(self.dtype).itemsize
        return np.array([(shard.bytes - shard.offset) // width for shard in self.shards], dtype=np.int64)


def _is_whole(value: Any, least: int) -> bool:
    # To Python, True is an integer.
    return type(value) is int and least <= value < 1 << 63


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _one_of(*values: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, str) and value in values, " or ".join(values)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (lambda value: value == FORMAT, f"{FORMAT}, which this version reads"),
    "dtype": _one_of("float32", "int16"),
    "layout": (lambda value: isinstance(value, str | dict), "a layout"),
    "joints": (lambda value: _is_whole(value, 1), "a whole number above 0"),
    "channels": (lambda value: _is_whole(value, 1), "a whole number above 0"),
    "coordinates": _one_of(*CHANNELS),
    "units": _one_of(*METRES),
    "up": _one_of(*TO_Y_UP),
    "mirrored": (lambda value: isinstance(value, bool), "true or false"),
    "count": (lambda value: _is_whole(value, 1), "a whole number above 0"),
    "class_names": (_is_names, "a list of names"),
    "subject_names": (_is_names, "a list of names"),
    "dataset": (lambda value: value is None or isinstance(value, str), "a name or null"),
    "sha256": (_is_hash, "a SHA-256"),
    "shards": (lambda value: isinstance(value, list) and len(value) > 0, "a list of files"),
}
_SHARD_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "file": (
        lambda value: isinstance(value, str) and re.fullmatch(r"frames-[0-9]{5,9}\.safetensors", value) is not None,
        "the name of a file such as frames-00000.safetensors",
    ),
    "offset": (lambda value: _is_whole(value, 8), "a whole number of at least 8"),
    "bytes": (lambda value: _is_whole(value, 8), "a whole number of at least 8"),
    "sha256": (lambda value: value is None or _is_hash(value), "a SHA-256"),
}


def _read_shards(folder: Path, content: dict[str, Any]) -> tuple[Shard, ...]:
    """The shards; each must be a file in the folder, of the size in the header."""
    file, shards, seen = folder / HEADER, [], set()
    width = np.dtype(content["dtype"]).itemsize
    for number, entry in enumerate(content["shards"]):
        where = f"field 'shards[{number}]"
        if not isinstance(entry, dict):
            damaged(file, f"{where}' is {_shown(entry)}, not a file's name, offset and bytes")
        for key, (fits, expected) in _SHARD_RULES.items():
            if key not in entry and key != "sha256":
                damaged(file, f"{where}.{key}' is missing")
            if not fits(entry.get(key)):
                damaged(file, f"{where}.{key}' is {_shown(entry.get(key))}, not {expected}")
        shard = Shard(entry["file"], entry["offset"], entry["bytes"], entry.get("sha256"))
        if shard.file in seen:
            damaged(file, f"{where}.file' is {shard.file}, as that of another shard")
        seen.add(shard.file)
        size = file_size(folder / shard.file)
        if size != shard.bytes:
            damaged(folder / shard.file, f"it has {size} bytes, but {HEADER} says {shard.bytes}")
        if shard.offset >= size or (size - shard.offset) % width:
            damaged(file, f"{where}.offset' is {shard.offset}, which leaves no {content['dtype']} numbers")
        shards.append(shard)
    return tuple(shards)


def read_index(folder: Path, header: StoreHeader) -> dict[str, np.ndarray]:
    """Read the index of the store in `folder`, and check every number in it.

    Returns:
        The arrays by name: of all but `names` and `events` one entry per sequence.

    Raises:
        SkeletonFormatError: If an array is missing, of a wrong type or length, or has an invalid entry; the message
            names file and array.
    """
    file = folder / INDEX
    file_size(file)
    try:
        index = load_file(file)
    except Exception:
        # Any error of safetensors and NumPy means a truncated file or a damaged header.
        damaged(file, "it is truncated or not a safetensors file")
    check_index(file, index, header)
    return index


def check_index(file: Path, index: dict[str, np.ndarray], header: StoreHeader) -> None:
    """Check every number of an index.

    Raises:
        SkeletonFormatError: See `read_index`.
    """
    for key, (dtypes, axes) in (_COLUMNS | _LISTS).items():
        if key not in index:
            damaged(file, f"array '{key}' is missing")
        array = index[key]
        if array.dtype.name not in dtypes or array.ndim == 0 or array.shape[1:] != axes:
            expected = f"{' or '.join(dtypes)} of shape ({', '.join(['n', *map(str, axes)])})"
            damaged(file, f"array '{key}' is {array.dtype} of shape {_shown(array.shape)}, not {expected}")
        if key not in _LISTS and len(array) != header.count:
            damaged(file, f"array '{key}' has {len(array)} entries for the {header.count} sequences of {HEADER}")
    for key, array in index.items():
        if key.startswith("column.") and (
            array.ndim not in (1, 2) or len(array) != header.count or array.dtype.kind not in "biuf"
        ):
            damaged(file, f"array '{_clipped(key)}' has not a number for each of the {header.count} sequences")
    _check_places(file, index, header)
    _check_facts(file, index, header)
    _check_names(file, index["names"], index["name_ends"])
    _check_events(file, index, header)


def _refuse(file: Path, key: str, wrong: np.ndarray, values: np.ndarray, expected: str) -> None:
    """Refuse an array with wrong entries; the error shows the first one."""
    if wrong.any():
        number = int(wrong.argmax())
        damaged(file, f"entry {number} of array '{key}' is {_shown(values[number].tolist())}, not {expected}")


def _check_places(file: Path, index: dict[str, np.ndarray], header: StoreHeader) -> None:
    """Check that the sequences lie one after another and fill the shards."""
    shard, frames, persons = index["shard"], index["frames"].astype(np.int64), index["persons"].astype(np.int64)
    step = np.diff(shard, prepend=shard[0])
    _refuse(file, "shard", (step < 0) | (step > 1), shard, "that of the sequence before or the next")
    if shard[0] != 0 or shard[-1] != len(header.shards) - 1:
        damaged(file, f"array 'shard' goes from {shard[0]} to {shard[-1]}, but there are {len(header.shards)} shards")
    held, each = header.shard_sizes, header.joints * header.channels
    # By division, because products may overflow 64 bits.
    limit = held[shard] // each
    _refuse(file, "persons", (persons < 1) | (persons > limit), persons, "a number of people that its shard can hold")
    _refuse(
        file, "frames", (frames < 1) | (frames > limit // persons), frames, "a number of frames its shard can hold"
    )
    sizes = frames * persons * each
    if sizes.sum(dtype=np.float64) > 2 * held.sum(dtype=np.float64):
        damaged(file, "arrays 'frames' and 'persons' say more numbers than the shards hold")
    first = np.searchsorted(shard, np.arange(len(held)))
    wrong = np.add.reduceat(sizes, first) != held
    if wrong.any():
        number = int(wrong.argmax())
        claimed = np.add.reduceat(sizes, first)[number]
        name = header.shards[number].file
        damaged(file, f"arrays 'frames' and 'persons' say {claimed} numbers of {name}, which holds {held[number]}")
    before = np.cumsum(sizes) - sizes
    start = index["start"]
    _refuse(file, "start", start != before - before[first][shard], start, "where the sequence before it ends")


def _check_facts(file: Path, index: dict[str, np.ndarray], header: StoreHeader) -> None:
    for key, limit in (
        ("label", len(header.class_names) or MOST_CLASSES),
        ("subject", len(header.subject_names) or None),
        ("split", 2),
    ):
        values = index[key]
        if limit is not None:
            _refuse(file, key, (values < NONE) | (values >= limit), values, f"a number below {limit}")
    for key in ("fps", "image_shape", "scale"):
        values = index[key]
        # NaN means unknown; a scale is always known.
        unknown = np.isnan(values) & (key != "scale")
        fits = unknown | (np.isfinite(values) & (values > 0))
        _refuse(file, key, ~fits.reshape(len(values), -1).all(axis=1), values, "a number above 0")


def _check_ends(file: Path, key: str, ends: np.ndarray, count: int) -> np.ndarray:
    """Lengths of consecutive segments, given their ends."""
    lengths = np.diff(ends, prepend=0)
    # A difference that overflows 64 bits is negative or too large, too.
    _refuse(file, key, (lengths < 0) | (ends < 0) | (ends > count), ends, f"in order between 0 and {count}")
    if ends[-1] != count:
        damaged(file, f"array '{key}' ends at {ends[-1]}, not {count}")
    return lengths


def _check_names(file: Path, names: np.ndarray, ends: np.ndarray) -> None:
    _check_ends(file, "name_ends", ends, len(names))
    # A name begins with a whole character.
    starts = ends[:-1][ends[:-1] < len(names)]
    split = bool(((names[starts] & 0xC0) == 0x80).any())
    try:
        bytes(names).decode("utf-8")
    except UnicodeDecodeError:
        split = True
    if split:
        damaged(file, "array 'names' is not text in UTF-8")


def _check_events(file: Path, index: dict[str, np.ndarray], header: StoreHeader) -> None:
    """Check that every event lies in its sequence; one row of -1 marks a sequence that is not annotated."""
    events = index["events"]
    counts = _check_ends(file, "event_ends", index["event_ends"], len(events))
    if not len(events):
        return
    label, start, end = events.T
    unknown = (events == NONE).all(axis=1) & (np.repeat(counts, counts) == 1)
    frames = np.repeat(index["frames"], counts)
    classes = len(header.class_names) or MOST_CLASSES
    fits = (label >= 0) & (label < classes) & (start >= 0) & (start < end) & (end <= frames)
    _refuse(file, "events", ~(fits | unknown), events, "(class, start, end) in its sequence's frames and the classes")


def file_size(path: Path) -> int:
    """Size of a file of the folder itself; a pipe, a device or a link out of the folder is refused.

    Raises:
        SkeletonFormatError: If it is not.
    """
    try:
        status = os.lstat(path)
        inside = Path(os.path.realpath(path.parent))
        if stat.S_ISLNK(status.st_mode) and Path(os.path.realpath(path)).is_relative_to(inside):
            status = os.stat(path)
    except OSError as error:
        damaged(path, "there is no such file" if isinstance(error, FileNotFoundError) else str(error.strerror))
    if not stat.S_ISREG(status.st_mode):
        damaged(path, "it is a link to elsewhere, a folder or a device, not a file of the store")
    return status.st_size


def damaged(file: Path, what: str) -> NoReturn:
    """Refuse a store because of one of its files.

    Raises:
        SkeletonFormatError: Always.
    """
    raise SkeletonFormatError(f"{file}: {what}: {MEND}")


def _read_json(file: Path) -> dict[str, Any]:
    if not os.path.lexists(file):
        raise SkeletonFormatError(
            f"{file.parent}: it is not a store, or the store is incomplete: 'usdrl prepare folder' makes one of a "
            "folder of recordings or videos for each class"
        )
    file_size(file)

    def no_number(text: str) -> NoReturn:
        raise ValueError(f"it holds {text}")

    try:
        content = json.loads(file.read_text("utf-8"), parse_constant=no_number)
    except (OSError, ValueError, RecursionError):
        damaged(file, "it is truncated or not JSON")
    if not isinstance(content, dict):
        damaged(file, "it holds no fields")
    return content


def _shown(value: Any) -> str:
    """A value for an error; a long one is shortened before it is formatted."""
    if isinstance(value, list | dict) and len(value) > _SHOWN:
        return f"a {type(value).__name__} of {len(value)}"
    if type(value) is int and value.bit_length() > 4 * _SHOWN:
        return f"a number of {value.bit_length()} bits"
    return _clipped(repr(value[:_SHOWN] if isinstance(value, str) else value))


def _clipped(text: str) -> str:
    return printable(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _as_text(names: list[str]) -> tuple[str, ...]:
    # Names of classes come from file names, which need not be valid text.
    return tuple(name.encode("utf-8", "backslashreplace").decode() for name in names)
