"""An index on disk: ``index.json`` and the files that it names, which are checked before any of them is used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import USDRLError, printable
from ..files import check_space, new_file
from ..records import sha256
from ..weights import read_header

FORMAT = "usdrl-index-1"
HEADER = "index.json"
# Numbers of an embedding at most, and of `index.json` bytes.
_LARGEST_SIZE, _LARGEST_HEADER = 1 << 16, 1 << 26
# Arrays of a part, by their entries: windows, recordings, sources, or bytes of text.
_ARRAYS = {
    "starts": "int32",
    "window_ends": "int64",
    "frames": "int32",
    "window_frames": "int32",
    "fps": "float64",
    "source": "int32",
    "read": "int64",
}
_TEXTS = ("names", "labels", "sources", "stamps", "readings")
# A source that was read to its end.
WHOLE = -1


class IndexFormatError(USDRLError):
    """A folder that is not an index, or is damaged; the message names the file."""


@dataclass(frozen=True)
class StoredFile:
    """A file that the header names.

    Attributes:
        file: Its name in the folder.
        bytes: Its size.
        sha256: Its SHA-256.
        windows: Windows in it.
    """

    file: str
    bytes: int
    sha256: str
    windows: int


@dataclass(frozen=True)
class Maker:
    """What embedded the windows of an index; another model's vectors cannot be compared with them.

    Attributes:
        name: The model's name, its folder, or its address on the hub with the commit.
        dtype: Floating type that it computed in.
        probe: Unit embeddings of two fixed clips ``(2, D)``: another revision or readout gives others.
        preprocessing: The settings of the feature extractor that every clip depends on.
    """

    name: str
    dtype: str
    probe: tuple[tuple[float, ...], ...]
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True)
class Header:
    """Content of ``index.json``.

    Attributes:
        maker: What embedded the windows.
        size: Numbers of an embedding.
        window: Seconds of a window; 0 for whole recordings.
        stride: Seconds between windows.
        each_person: Whether people were indexed one by one.
        parts: Files of windows, in order.
        lists: File of the inverted file, or None.
        counter: Number in the name of the next file.
    """

    maker: Maker
    size: int
    window: float
    stride: float
    each_person: bool
    parts: tuple[StoredFile, ...] = ()
    lists: StoredFile | None = None
    counter: int = 0

    @classmethod
    def read(cls, folder: Path) -> Header:
        """Read the header of the index in `folder`, and check its fields and the sizes of its files.

        Raises:
            IndexFormatError: If there is none, a field is missing or impossible, or a file is missing or of another
                size.
        """
        path = folder / HEADER
        if not path.is_file():
            raise IndexFormatError(f"{folder}: there is no index in it (no {HEADER}): make one with 'usdrl index'")
        try:
            if path.stat().st_size > _LARGEST_HEADER:
                raise ValueError
            content = json.loads(path.read_text("utf-8"))
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError
        except (OSError, ValueError, RecursionError):
            damaged(path, f"it is truncated, or not the header of an index of the format {FORMAT}")
        try:
            header = cls(
                maker=_maker(content["maker"], content["size"]),
                size=_whole(content["size"], 1, _LARGEST_SIZE),
                window=_seconds(content["window"]),
                stride=_seconds(content["stride"]),
                each_person=bool(content["each_person"]),
                parts=tuple(_stored(entry) for entry in content["parts"]),
                lists=None if content["lists"] is None else _stored(content["lists"]),
                counter=_whole(content["counter"], 0, 1 << 53),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            damaged(path, f"a field is missing or impossible ({printable(str(error))[:60]})")
        for stored in header.files:
            file = folder / stored.file
            if not file.is_file() or file.is_symlink() or file.stat().st_size != stored.bytes:
                damaged(file, "it is missing, or not of the size that index.json states")
        return header

    @property
    def files(self) -> list[StoredFile]:
        """All files of the index but the header."""
        return [*self.parts, *([] if self.lists is None else [self.lists])]

    @property
    def count(self) -> int:
        """Number of windows."""
        return sum(part.windows for part in self.parts)

    def write(self, folder: Path) -> None:
        """Replace the header of the index in `folder`, at once; files that it no longer names are deleted."""
        content = {"format": FORMAT, **asdict(self)}
        with new_file(folder / HEADER) as partial:
            partial.write_text(json.dumps(content, allow_nan=False) + "\n", "utf-8")
        named = {stored.file for stored in self.files}
        for file in folder.glob("*.safetensors"):
            if file.name.startswith(("windows-", "lists-")) and file.name not in named:
                file.unlink(missing_ok=True)

    def with_file(self, folder: Path, kind: str, arrays: dict[str, np.ndarray], windows: int) -> Header:
        """Write a file, "windows" or "lists", and add it to the header, which is not written yet."""
        name = f"{kind}-{self.counter:06d}.safetensors"
        size = sum(array.nbytes for array in arrays.values())
        check_space(folder, size, f"{folder / name}")
        with new_file(folder / name) as partial:
            save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, partial)
            stored = StoredFile(name, partial.stat().st_size, sha256(partial), windows)
        changed = {"parts": (*self.parts, stored)} if kind == "windows" else {"lists": stored}
        return replace(self, counter=self.counter + 1, **changed)  # type: ignore[arg-type]


def damaged(file: Path, what: str) -> NoReturn:
    """Refuse an index because of one of its files.

    Raises:
        IndexFormatError: Always.
    """
    raise IndexFormatError(f"{file}: {what}: the index is damaged: make it again with 'usdrl index'")


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value} is not a whole number from {least} to {most}")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e6:
        raise ValueError(f"{value} is not a number of seconds")
    return float(value)


def _stored(entry: Any) -> StoredFile:
    name = entry["file"]
    # A file of the folder, not a path out of it.
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors") or "\\" in name:
        raise ValueError(f"{name} is not the name of a file of an index")
    if not isinstance(entry["sha256"], str):
        raise ValueError("sha256 is no text")
    return StoredFile(name, _whole(entry["bytes"], 0, 1 << 60), entry["sha256"], _whole(entry["windows"], 0, 1 << 31))


def _maker(entry: Any, size: int) -> Maker:
    probe = np.asarray(entry["probe"], dtype=np.float64)
    if probe.ndim != 2 or probe.shape[1] != size or not np.isfinite(probe).all():
        raise ValueError("the probe is not of the embeddings' size")
    if not all(isinstance(entry[key], str) for key in ("name", "dtype")):
        raise ValueError("the model has no name or no type")
    if not isinstance(entry["preprocessing"], dict):
        raise ValueError("the model has no preprocessing")
    return Maker(entry["name"], entry["dtype"], tuple(map(tuple, probe.tolist())), entry["preprocessing"])


def packed_text(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Texts as their bytes, end to end, and where each ends."""
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


@dataclass(eq=False)
class Part:
    """The windows of some recordings.

    Attributes:
        vectors: Unit embeddings ``(n, D)`` float16; those of an opened index stay on disk.
        starts: First frame of each window ``(n,)``.
        counts: Windows of each recording ``(r,)``.
        frames: Frames of each recording.
        window_frames: Frames of a window of each recording.
        fps: Frames per second of each recording, NaN where unknown.
        names: Names of the recordings.
        labels: Names of their classes, empty where unknown.
        source: For each recording, the index of its source.
        sources: Files and stores, as paths relative to the index where possible.
        stamps: What changes when a source does.
        readings: JSON of the `Reading` of each source.
        read: Recordings of each source read so far, `WHOLE` for all.
    """

    vectors: np.ndarray
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    counts: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    window_frames: list[int] = field(default_factory=list)
    fps: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)
    readings: list[str] = field(default_factory=list)
    read: list[int] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to be stored."""
        arrays = {
            "vectors": self.vectors,
            "starts": self.starts,
            "window_ends": np.cumsum(self.counts, dtype=np.int64),
            "frames": np.array(self.frames, np.int32),
            "window_frames": np.array(self.window_frames, np.int32),
            "fps": np.array(self.fps, np.float64),
            "source": np.array(self.source, np.int32),
            "read": np.array(self.read, np.int64),
        }
        for key in _TEXTS:
            arrays[key], arrays[f"{key}_ends"] = packed_text(getattr(self, key))
        return arrays

    @classmethod
    def open(cls, path: Path, windows: int, size: int) -> Part:
        """Open a file of windows, whose vectors stay on disk.

        Raises:
            IndexFormatError: If an array is missing, or does not fit the others.
        """
        try:
            shapes = read_header(path)
            if (shapes["vectors"].shape, shapes["vectors"].dtype) != ((windows, size), "F16"):
                raise ValueError(f"'vectors' are not {windows} of {size} numbers")
            vectors = _mapped(path, windows, size)
            arrays = _loaded(path)
            part = cls._of(arrays, vectors)
        except (KeyError, ValueError, OSError, OverflowError, RecursionError) as error:
            damaged(path, printable(str(error))[:120])
        return part

    @classmethod
    def _of(cls, arrays: dict[str, np.ndarray], vectors: np.ndarray) -> Part:
        for key, kind in _ARRAYS.items():
            if arrays[key].dtype != kind or arrays[key].ndim != 1:
                raise ValueError(f"'{key}' is not a list of {kind}")
        texts: dict[str, Any] = {key: _texts(arrays, key) for key in _TEXTS}
        recordings, sources = len(texts["names"]), len(texts["sources"])
        ends = arrays["window_ends"]
        lengths = {"window_ends": recordings, "source": recordings, "labels": recordings, "read": sources}
        lengths |= dict.fromkeys(("frames", "window_frames", "fps"), recordings)
        lengths |= {"starts": len(vectors), "stamps": sources, "readings": sources}
        for key, length in lengths.items():
            if len(texts.get(key, arrays[key])) != length:
                raise ValueError(f"'{key}' has not {length} entries")
        counts = np.diff(ends, prepend=0)
        if (counts < 0).any() or (ends[-1] if recordings else 0) != len(vectors):
            raise ValueError("'window_ends' does not rise to the number of windows")
        if recordings and not 0 <= arrays["source"].min() <= arrays["source"].max() < sources:
            raise ValueError("'source' names a source that there is not")
        starts, frames = arrays["starts"], np.repeat(arrays["frames"], counts)
        if (starts < 0).any() or (starts >= frames).any() or (arrays["window_frames"] < 1).any():
            raise ValueError("'starts' has a window outside its recording")
        numbers: dict[str, Any] = {
            key: arrays[key].tolist() for key in ("frames", "window_frames", "fps", "source", "read")
        }
        return cls(vectors, starts, counts.tolist(), **numbers, **texts)


def _mapped(path: Path, windows: int, size: int) -> np.ndarray:
    """The vectors of a file, on disk."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = json.loads(file.read(length))["vectors"]["data_offsets"][0]
    if not windows:
        return np.zeros((0, size), np.float16)
    return np.memmap(path, np.float16, "r", 8 + length + start, (windows, size))


def _loaded(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file but its vectors."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys() if key != "vectors"}  # noqa: SIM118


def _texts(arrays: Mapping[str, np.ndarray], key: str) -> list[str]:
    """Texts of their bytes; see `packed_text`."""
    raw, ends = arrays[key], arrays[f"{key}_ends"]
    if raw.dtype != "uint8" or ends.dtype != "int64" or raw.ndim != 1 or ends.ndim != 1:
        raise ValueError(f"'{key}' is no text")
    if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != len(raw):
        raise ValueError(f"'{key}_ends' does not rise to the end of the text")
    content, bounds = raw.tobytes(), [0, *ends.tolist()]
    return [content[a:b].decode("utf-8", "surrogateescape") for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def read_lists(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an inverted file.

    Raises:
        IndexFormatError: If they cannot be read.
    """
    try:
        read_header(path)
        return load_file(path)
    except (ValueError, OSError, OverflowError, RecursionError) as error:
        damaged(path, printable(str(error))[:120])


def shown_path(path: str | os.PathLike, folder: Path) -> str:
    """A path relative to the index, so that both can move together; absolute on another drive."""
    resolved = Path(path).resolve()
    try:
        return Path(os.path.relpath(resolved, folder.resolve())).as_posix()
    except ValueError:
        return resolved.as_posix()


def selected(part: Part, mask: np.ndarray, windows: np.ndarray, sources: set[str]) -> Part:
    """A part without some recordings, and without the sources of which nothing is left."""
    kept = [place for place, name in enumerate(part.sources) if name not in sources]
    place = {old: new for new, old in enumerate(kept)}
    rows = np.flatnonzero(mask).tolist()
    columns = ("counts", "frames", "window_frames", "fps", "names", "labels")
    shorter = {key: [getattr(part, key)[row] for row in rows] for key in columns}
    shorter |= {key: [getattr(part, key)[old] for old in kept] for key in ("sources", "stamps", "readings", "read")}
    shorter["source"] = [place[part.source[row]] for row in rows]
    return Part(np.asarray(part.vectors[windows]), part.starts[windows], **shorter)
