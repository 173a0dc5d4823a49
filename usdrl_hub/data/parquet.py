"""Data sets in Parquet files, as on the Hugging Face Hub: written block by block, and read without all in memory.

`ParquetStore` is a `SkeletonStore` whose frames lie in Parquet files, of this machine or of the hub. Everything but
the keypoints is read when it is opened; keypoints are read by row groups, of which the last few are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import one_sentence
from ..layouts import Layout, get_layout
from ..sequence import CHANNELS, SkeletonFormatError
from .huggingface import PLAIN
from .store import SPLITS, SkeletonStore
from .store_files import MEND, NONE, SHARED, Shard, StoreHeader, check_index

# Decoded row groups in memory; more than what an order by blocks reads in turn.
KEPT_BYTES = 384 << 20
# Columns beside a sequence's own by which the keypoints are found.
FOUND_BY = ("num_frames", "num_persons", "position")
_OWN = {*PLAIN, *FOUND_BY, "keypoints", "image_shape", "events", "layout"}

# Opens a file for reading at any position; called again in each process.
Opener = Callable[[], Any]


def import_pyarrow() -> Any:
    """The library that reads Parquet.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("this needs Hugging Face datasets: pip install 'usdrl-hub[datasets]'") from None
    return pyarrow


class ParquetFile:
    """A Parquet file, opened once in each process.

    Attributes:
        name: Its name in errors.
    """

    def __init__(self, name: str, open_file: Opener):
        self.name = name
        self._open = open_file
        self._opened: tuple[int, Any] = (0, None)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file."""
        return {**self.__dict__, "_opened": (0, None)}

    @classmethod
    def local(cls, path: str | os.PathLike, name: str = "") -> ParquetFile:
        """A file of this machine."""
        return cls(name or str(path), _Local(str(path)))

    def parquet(self) -> Any:
        """Read its footer.

        Raises:
            SkeletonFormatError: If it is damaged.
        """
        pyarrow = import_pyarrow()
        # A handle is not shared with a worker of a data loader.
        if self._opened[0] != os.getpid():
            try:
                self._opened = (os.getpid(), pyarrow.parquet.ParquetFile(self._open(), pre_buffer=True))
            except pyarrow.ArrowException as error:
                raise SkeletonFormatError(f"{self.name}: it is no whole Parquet file: {one_sentence(error)}") from None
        return self._opened[1]

    def read(self, read: Callable[[Any], Any]) -> Any:
        """What a function reads of it.

        Raises:
            SkeletonFormatError: If it cannot be read.
        """
        try:
            return read(self.parquet())
        except (SkeletonFormatError, MemoryError):
            raise
        except Exception as error:
            # Besides Arrow's errors, those of the hub's client, which depend on its HTTP library.
            raise SkeletonFormatError(f"{self.name}: it cannot be read: {one_sentence(error)}") from None


@dataclass(frozen=True)
class _Local:
    path: str

    def __call__(self) -> Any:
        return open(self.path, "rb")


class _Blocks:
    """The keypoints of Parquet files, decoded by row groups; the last ones that were read stay in memory."""

    def __init__(self, files: Sequence[ParquetFile], index: dict[str, np.ndarray], shape: tuple[int, int, int]):
        self.files, self.shape = list(files), shape
        self.frames, self.persons, self.shard = index["frames"], index["persons"], index["shard"]
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        # Of each file the rows before each row group, and the numbers before it.
        self._before: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}

    def numbers(self, shard: int, start: int, count: int) -> np.ndarray:
        """Consecutive numbers of a file, as if its sequences lay end to end without absent people."""
        starts = self._starts(shard)[1]
        parts, end = [], start + count
        group = int(np.searchsorted(starts, start, side="right")) - 1
        while start < end:
            block = self._block(shard, group)
            first = start - int(starts[group])
            parts.append(block[first : min(first + end - start, len(block))])
            start += len(parts[-1])
            group += 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _starts(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        if shard not in self._before:
            parquet = self.files[shard].read(lambda parquet: parquet)
            groups = parquet.metadata.num_row_groups
            rows = np.cumsum([0, *(parquet.metadata.row_group(group).num_rows for group in range(groups))])
            mine = self.shard == shard
            sizes = self.frames[mine].astype(np.int64) * self.persons[mine] * self.shape[1] * self.shape[2]
            if rows[-1] != len(sizes):
                raise SkeletonFormatError(f"{self.files[shard].name}: the file has changed: open the data set again")
            self._before[shard] = (rows, np.cumsum([0, *sizes])[rows])
        return self._before[shard]

    def _block(self, shard: int, group: int) -> np.ndarray:
        key = (shard, group)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        block = self._decoded(shard, group)
        self._kept[key] = block
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return block

    def _decoded(self, shard: int, group: int) -> np.ndarray:
        rows, _ = self._starts(shard)
        pyarrow, name = import_pyarrow(), self.files[shard].name
        table = self.files[shard].read(lambda parquet: parquet.read_row_group(group, columns=["keypoints"]))
        column = table.column(0).combine_chunks()
        lengths, values = _flattened(pyarrow, column, self.shape, f"{name}: row group {group}")
        first = np.flatnonzero(self.shard == shard)[0]
        mine = slice(int(first + rows[group]), int(first + rows[group + 1]))
        if not np.array_equal(lengths, self.frames[mine]):
            raise SkeletonFormatError(f"{name}: row group {group}: column num_frames does not fit the keypoints")
        persons = self.persons[mine]
        if (persons == self.shape[0]).all():
            return values.ravel()
        ends = np.cumsum([0, *lengths])
        clips = [values[ends[row] : ends[row + 1], :people].ravel() for row, people in enumerate(persons)]
        return np.concatenate(clips)


def _flattened(pyarrow: Any, column: Any, shape: tuple[int, int, int], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames of each row, and keypoints ``(F, M, V, C)`` of all.

    Raises:
        SkeletonFormatError: If they are not of this shape.
    """
    array = column.storage if isinstance(column, pyarrow.ExtensionArray) else column
    if array.null_count:
        raise SkeletonFormatError(f"{where}: a row has no keypoints")
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    array = array.flatten()
    for size in shape:
        sizes = array.value_lengths().to_numpy(zero_copy_only=False)
        if array.null_count or (sizes != size).any():
            raise SkeletonFormatError(
                f"{where}: keypoints are not of the shape (frames, {', '.join(map(str, shape))})"
            )
        array = array.flatten()
    if array.null_count:
        raise SkeletonFormatError(f"{where}: numbers of keypoints are null")
    values = array.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return lengths, values.reshape(-1, *shape)


@dataclass(frozen=True, eq=False)
class ParquetStore(SkeletonStore):
    """A data set in Parquet files that `write_parquet` made; a `SkeletonStore` in everything else.

    Attributes:
        blocks: The keypoints.
        title: Name of the data set.
        origin: Its address with the commit; empty where unknown.
        license: Its licence as its card says; empty where unknown.
    """

    blocks: _Blocks
    title: str
    origin: str = ""
    license: str = ""

    @classmethod
    def of_files(cls, files: Sequence[ParquetFile], title: str) -> ParquetStore:
        """Open files, in this order; the keypoints stay there.

        Args:
            files: The files.
            title: Name of the data set, as in errors.

        Raises:
            SkeletonFormatError: If a file is damaged, or they do not fit together.
        """
        tables = [_facts(file) for file in files]
        where = Path(title)
        index, names = _index(tables, files, title)
        header = _header(tables, index, names, title)
        try:
            check_index(where, index, header)
        except SkeletonFormatError as error:
            # The sentence of a store says how to mend a store.
            raise SkeletonFormatError(str(error).replace(MEND, "the data set is damaged: push it again")) from None
        shape = (_persons(tables, files), header.joints, header.channels)
        order = np.argsort(np.concatenate([table["position"] for table, _ in tables]), kind="stable")
        return cls(where, header, index, order, _Blocks(files, index, shape), title)

    def without_split(self) -> ParquetStore:
        """The data set without its training and test part."""
        return replace(self, index={**self.index, "split": np.full_like(self.index["split"], NONE)})

    def _read(
        self, shard: int, start: int, counts: Sequence[int], into: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """See `SkeletonStore`; numbers are those of the file's sequences end to end."""
        for count in counts:
            values = self.blocks.numbers(shard, start, count)
            if into is not None:
                into[:] = values
            yield values
            start += count


def is_own(file: ParquetFile) -> bool:
    """Whether a file has the columns of `write_parquet`."""
    return {*FOUND_BY, "keypoints", "layout", "coordinates"} <= set(file.parquet().schema_arrow.names)


def _facts(file: ParquetFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of a file without its keypoints, as arrays and lists; and the types of its columns."""
    schema = file.parquet().schema_arrow
    columns = [name for name in schema.names if name != "keypoints"]
    table = file.read(lambda parquet: parquet.read(columns=columns))
    if not len(table):
        raise SkeletonFormatError(f"{file.name}: there is no sequence in it")
    facts: dict[str, Any] = {name: table.column(name).to_pylist() for name in columns}
    for name in FOUND_BY:
        if any(not isinstance(value, int) for value in facts[name]):
            raise SkeletonFormatError(f"{file.name}: column '{name}' has an entry that is no whole number")
    return facts, features_in(schema)


def features_in(schema: Any) -> dict[str, Any]:
    """What `datasets` notes in a file of the types of its columns, such as names of classes; empty without them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def class_names_in(features: dict[str, Any], key: str = "label") -> list[str]:
    """Names of the classes of a column; empty without them."""
    names = features.get(key)
    names = names.get("names") if isinstance(names, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _joined(tables: Sequence[tuple[dict[str, Any], Any]], key: str) -> list[Any]:
    """A column of all files; None where one has none."""
    parts = []
    for table, _ in tables:
        parts += list(table[key]) if key in table else [None] * len(table["position"])
    return parts


def _one(tables: Sequence[tuple[dict[str, Any], Any]], key: str, title: str) -> Any:
    """The value that all sequences share."""
    values = set(_joined(tables, key))
    if len(values) != 1:
        raise SkeletonFormatError(f"{title}: the sequences differ in column '{key}'")
    return values.pop()


def _persons(tables: Sequence[Any], files: Sequence[ParquetFile]) -> int:
    """People of every row, absent ones included."""
    pyarrow = import_pyarrow()
    found = files[0].read(lambda parquet: parquet.read_row_group(0, columns=["keypoints"])).column(0).combine_chunks()
    array = found.storage if isinstance(found, pyarrow.ExtensionArray) else found
    try:
        return int(array.flatten().value_lengths()[0].as_py())
    except (AttributeError, IndexError, TypeError):
        raise SkeletonFormatError(f"{files[0].name}: column 'keypoints' has no nested lists of four axes") from None


def _index(tables: Sequence[Any], files: Sequence[ParquetFile], title: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The index of a store, and the names of its subjects."""
    sizes = [len(table["position"]) for table, _ in tables]

    def numbers(key: str) -> np.ndarray:
        values = _joined(tables, key)
        if any(value is not None and not isinstance(value, int) for value in values):
            raise SkeletonFormatError(f"{files[0].name}: column '{key}' has an entry that is no whole number")
        return np.array([NONE if value is None else value for value in values], dtype=np.int64)

    frames, persons = numbers("num_frames"), numbers("num_persons")
    subjects, subject_names = _joined(tables, "subject"), []
    if any(isinstance(value, str) for value in subjects):
        subject_names = sorted({str(value) for value in subjects if value is not None})
        found = {name: number for number, name in enumerate(subject_names)}
        subject = np.array([NONE if value is None else found[str(value)] for value in subjects], dtype=np.int64)
    else:
        subject = numbers("subject")
    splits = _joined(tables, "split")
    if unknown := [split for split in splits if split not in SPLITS]:
        raise SkeletonFormatError(f"{files[0].name}: column 'split' has '{unknown[0]}', not train or test")
    joints = _shared_layout(tables, title)[1].num_joints
    values = frames * persons * joints * CHANNELS.get(_joined(tables[:1], "coordinates")[0], 3)
    ends = np.cumsum(sizes)
    start = np.concatenate([np.cumsum(part) - part for part in np.split(values, ends[:-1])])
    encoded = [str(name or "").encode() for name in _joined(tables, "name")]
    shapes = [(np.nan, np.nan) if shape is None else shape for shape in _joined(tables, "image_shape")]
    events = [[(NONE,) * 3] if rows is None else rows for rows in _joined(tables, "events")]
    index = {
        "shard": np.repeat(np.arange(len(sizes)), sizes),
        "start": start,
        "frames": frames,
        "persons": persons,
        "label": numbers("label"),
        "subject": subject,
        "camera": numbers("camera"),
        "setup": numbers("setup"),
        "split": np.array([SPLITS.index(split) - 1 for split in splits], dtype=np.int64),
        "fps": np.array([np.nan if rate is None else rate for rate in _joined(tables, "fps")], dtype=np.float64),
        "scale": np.ones(len(frames), dtype=np.float32),
        "image_shape": np.array(shapes, dtype=np.float32).reshape(-1, 2),
        "names": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "name_ends": np.cumsum([len(name) for name in encoded]),
        "events": np.array([row for rows in events for row in rows], dtype=np.int64).reshape(-1, 3),
        "event_ends": np.cumsum([len(rows) for rows in events]),
    }
    for key in tables[0][0].keys() - _OWN:
        column = np.array(_joined(tables, key))
        if column.dtype.kind in "biuf" and column.ndim <= 2:
            index[f"column.{key}"] = column
    return index, subject_names


def _header(tables: Sequence[Any], index: dict[str, np.ndarray], subjects: list[str], title: str) -> StoreHeader:
    coordinates = _one(tables, "coordinates", title)
    if coordinates not in CHANNELS:
        raise SkeletonFormatError(f"{title}: column 'coordinates' has '{coordinates}', not {', '.join(CHANNELS)}")
    layout, found = _shared_layout(tables, title)
    units, up, mirrored = (_one(tables, key, title) for key in ("units", "up", "mirrored"))
    sizes = index["frames"] * index["persons"] * found.num_joints * CHANNELS[coordinates]
    held = [int(sizes[index["shard"] == shard].sum()) for shard in range(len(tables))]
    shared = {"layout": layout, "joints": found.num_joints, "channels": CHANNELS[coordinates]}
    shared |= {"coordinates": coordinates, "units": units, "up": up, "mirrored": mirrored}
    text = json.dumps({key: shared[key] for key in SHARED}, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for key in sorted(index):
        digest.update(key.encode() + index[key].tobytes())
    return StoreHeader(
        layout=found,
        channels=CHANNELS[coordinates],
        coordinates=coordinates,
        units=units,
        up=up or found.up,
        mirrored=bool(mirrored),
        dtype="float32",
        count=len(index["frames"]),
        shards=tuple(Shard(f"{number}", 0, 4 * size) for number, size in enumerate(held)),
        sha256=digest.hexdigest(),
        class_names=tuple(class_names_in(tables[0][1])) if (index["label"] != NONE).any() else (),
        subject_names=tuple(subjects),
        dataset=None,
        shared=text,
    )


def _shared_layout(tables: Sequence[Any], title: str) -> tuple[Any, Layout]:
    """The layout that all sequences have, as JSON has it and as it is."""
    text = _one(tables, "layout", title)
    try:
        config = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        config = text
    try:
        return config, get_layout(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise SkeletonFormatError(f"{title}: column 'layout': {one_sentence(error)}") from None
