"""`SkeletonStore`: a data set on disk that is read sequence by sequence.

A store is a folder of safetensors files. ``store.json`` holds what all sequences share (layout, coordinates, units, up
axis, class names, shards, content hash); ``index.safetensors`` one entry per sequence of everything else (shard,
offset, frames, persons, label, subject, camera, setup, split, fps, scale), the names, and the events;
``frames-NNNNN.safetensors`` the coordinates, end to end: float32, or int16 with one scale per sequence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from ..layouts import Layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .checks import check_frames, check_sides
from .store_files import NONE, StoreHeader, read_index

# Entries of the index that make a sequence, in this order.
_ENTRIES = ("persons", "fps", "image_shape", "scale", "split", "label", "subject", "camera", "setup")
SPLITS = (None, "train", "test")
# Sequences read at once, and written as one part of a stream.
PART = 1000


def is_store(path: str | os.PathLike) -> bool:
    """Whether `path` is a finished store."""
    return (Path(path) / "store.json").is_file()


class UnreadSequence(SkeletonSequence):
    """A sequence whose keypoints are read when they are asked for."""

    @classmethod
    def of(cls, read: Callable[[], SkeletonSequence], frames: int, fields: dict[str, Any]) -> SkeletonSequence:
        """A sequence with these fields, and the keypoints, of so many frames, of the one that `read` returns."""
        made = object.__new__(cls)
        # Nothing is checked: that would read the keypoints.
        made.__dict__.update(fields, _read=read, _frames=frames)
        return made

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.__dict__["_frames"] if "_frames" in self.__dict__ else self.keypoints.shape[0]

    def __getattr__(self, name: str) -> Any:
        """The keypoints, read at their first use."""
        if name != "keypoints" or "_read" not in self.__dict__:
            raise AttributeError(f"a {type(self).__name__} has no attribute '{name}'")
        self.__dict__[name] = self._read().keypoints
        return self.__dict__[name]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are plain sequences: this one refers to its store, with the whole index."""
        return SkeletonSequence, tuple(getattr(self, name) for name in SkeletonSequence.__dataclass_fields__)


@dataclass(frozen=True, eq=False)
class SkeletonStore:
    """The sequences of a store; indexing reads one from disk, so memory does not grow with their number.

    Attributes:
        path: The folder.
        header: Properties that all sequences share, from ``store.json``.
        index: Arrays with one entry per sequence of the whole store.
        selection: Indices of the sequences of the store that are in this one.
    """

    path: Path
    header: StoreHeader
    index: dict[str, np.ndarray]
    selection: np.ndarray

    @classmethod
    def open(cls, path: str | os.PathLike) -> SkeletonStore:
        """Open a store; the frames stay on disk.

        Raises:
            SkeletonFormatError: If there is none, or a file of it is missing, truncated or inconsistent with the
                others; the message names file and field.
        """
        path = Path(path)
        header = StoreHeader.read(path)
        return cls(path, header, read_index(path, header), np.arange(header.count))

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.selection)

    def __getitem__(self, index):
        """Read one sequence; for a slice, the store of those sequences."""
        if isinstance(index, slice):
            return replace(self, selection=self.selection[index])
        return self.read(index)

    def read(self, index: int, start: int = 0, end: int | None = None) -> SkeletonSequence:
        """Read frames `start` to `end` of one sequence, without its events unless it is all of them.

        Raises:
            SkeletonFormatError: If no person is seen in them.
            IndexError: If the sequence has no such frames.
        """
        number = int(self.selection[index])
        frames, frame = int(self.index["frames"][number]), self._numbers_of_frame(number)
        end = frames if end is None else end
        check_frames(start, end, frames)
        shard, first = int(self.index["shard"][number]), int(self.index["start"][number])
        values = self._read(shard, first + start * frame, [(end - start) * frame])
        [sequence] = self._sequences(np.array([number]), values, (start, end) == (0, frames))
        return sequence

    @cached_property
    def _folder(self) -> str:
        return os.path.join(self.path, "")

    def _numbers_of_frame(self, number: int) -> int:
        """Numbers in a frame of a sequence."""
        return int(self.index["persons"][number]) * self.header.joints * self.header.channels

    def _read(
        self, shard: int, start: int, counts: Sequence[int], into: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Yield arrays of `counts` numbers of a shard, from `start` on; the only one may be given as `into`."""
        facts, dtype = self.header.shards[shard], np.dtype(self.header.dtype)
        # A path object would take as long as the reading.
        name = f"{self._folder}{facts.file}"
        try:
            with open(name, "rb", buffering=0) as file:
                file.seek(facts.offset + start * dtype.itemsize)
                for count in counts:
                    values = np.empty(count, dtype) if into is None else into
                    rest = memoryview(values).cast("B")  # type: ignore[arg-type]
                    # The system reads at most 2 GiB at once.
                    while rest and (number := file.readinto(rest)):
                        rest = rest[number:]
                    if rest:
                        raise SkeletonFormatError(f"{name}: the file is truncated: prepare the store again")
                    yield values
        except OSError as error:
            raise SkeletonFormatError(f"{name}: it cannot be read: {error.strerror or error}") from None

    def _sequences(
        self,
        numbers: np.ndarray,
        arrays: Iterable[np.ndarray],
        are_whole: bool = True,
        on_error: Callable[[SkeletonFormatError], None] | None = None,
    ) -> Iterator[SkeletonSequence]:
        """Yield sequences, given their indices in the whole store and their coordinates."""
        joints, channels = self.header.joints, self.header.channels
        shared: dict[str, Any] = {
            key: getattr(self.header, key) for key in ("layout", "up", "units", "coordinates", "mirrored")
        }
        rows = zip(numbers.tolist(), arrays, self._fields(numbers), strict=True)
        for number, values, (persons, scale, fields) in rows:
            if values.dtype == np.int16:
                values = values * np.float32(scale)
            try:
                sequence = SkeletonSequence(
                    values.reshape(-1, persons, joints, channels),
                    events=self.events(number) if are_whole else None,
                    **fields,
                    **shared,
                )
            except SkeletonFormatError as error:
                error = type(error)(f"{self.path}: {error}")
                if on_error is None:
                    raise error from None
                on_error(error)
                continue
            yield sequence

    def _fields(self, numbers: np.ndarray) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """Yield persons, scale and the fields in the index of sequences, given their indices in the whole store."""
        # Of one sequence a view is cut faster than a copy is gathered.
        rows = numbers if len(numbers) != 1 else slice(int(numbers[0]), int(numbers[0]) + 1)
        entries = zip(*(self.index[key][rows].tolist() for key in _ENTRIES), strict=True)
        people = self.header.subject_names
        for number, entry in zip(numbers.tolist(), entries, strict=True):
            persons, fps, (height, width), scale, split, *marks = entry
            label, subject, camera, setup = (None if mark == NONE else mark for mark in marks)
            fields = {
                "fps": None if isnan(fps) else fps,
                "name": self.name(number),
                "image_shape": None if isnan(height) or isnan(width) else (height, width),
                "label": label,
                "subject": people[subject] if people and subject is not None else subject,
                "camera": camera,
                "setup": setup,
                "split": SPLITS[split + 1],
            }
            yield persons, scale, fields

    def __iter__(self) -> Iterator[SkeletonSequence]:
        """Read the sequences in order."""
        return self.iterate()

    @property
    def sizes(self) -> np.ndarray:
        """Numbers of each selected sequence: frames times people times joints times coordinates."""
        bodies = self.lengths.astype(np.int64) * self.index["persons"][self.selection]
        return bodies * self.header.joints * self.header.channels

    def _runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield first and end of selected sequences that lie behind each other, their shard, and where they start."""
        sizes, shards, starts = self.sizes, self.index["shard"][self.selection], self.index["start"][self.selection]
        jumps = (shards[1:] != shards[:-1]) | (starts[1:] != starts[:-1] + sizes[:-1])
        bounds = [0, *(np.flatnonzero(jumps) + 1).tolist(), len(self)]
        for first, end in zip(bounds[:-1], bounds[1:], strict=True) if len(self) else ():
            yield first, end, int(shards[first]), int(starts[first])

    def read_into(self, values: np.ndarray) -> None:
        """Read the numbers of all selected sequences end to end, as they lie on disk.

        Args:
            values: Array for as many numbers as the sum of `sizes`, of the store's type; overwritten.

        Raises:
            SkeletonFormatError: If a file cannot be read or is truncated.
        """
        sizes, done = self.sizes, 0
        for first, end, shard, start in self._runs():
            count = int(sizes[first:end].sum())
            for _ in self._read(shard, start, [count], values[done : done + count]):
                done += count

    def unread(
        self, prepare: Callable[[SkeletonSequence], SkeletonSequence], changed: dict[str, Any]
    ) -> Iterator[SkeletonSequence]:
        """Yield the selected sequences, whose keypoints are read when they are asked for.

        Args:
            prepare: What is done to a sequence that is read.
            changed: The fields that all sequences have afterwards, such as their layout.
        """
        lengths = self.lengths
        for place, (_, _, fields) in enumerate(self._fields(self.selection)):
            if self.events(int(self.selection[place])) is not None:
                yield prepare(self[place])
            else:
                frames = int(lengths[place])
                yield UnreadSequence.of(partial(self._prepared, place, prepare), frames, fields | changed)

    def _prepared(self, place: int, prepare: Callable[[SkeletonSequence], SkeletonSequence]) -> SkeletonSequence:
        return prepare(self[place])

    def iterate(self, on_error: Callable[[SkeletonFormatError], None] | None = None) -> Iterator[SkeletonSequence]:
        """Read the sequences in order.

        Args:
            on_error: Called with the error of a damaged sequence or file, which is then left out; None raises it.
        """
        sizes, starts = self.sizes, self.index["start"][self.selection]
        # Consecutive sequences are read from one open file.
        for first, end, shard, _ in self._runs():
            for part in range(first, end, PART):
                numbers = self.selection[part : min(part + PART, end)]
                counts = sizes[part : part + len(numbers)].tolist()
                arrays = self._read(shard, int(starts[part]), counts)
                try:
                    yield from self._sequences(numbers, arrays, on_error=on_error)
                except SkeletonFormatError as error:
                    if on_error is None:
                        raise
                    on_error(error)

    def name(self, number: int) -> str:
        """Name of a sequence, by its index in the whole store."""
        ends = self.index["name_ends"]
        start = int(ends[number - 1]) if number else 0
        return bytes(self.index["names"][start : int(ends[number])]).decode("utf-8")

    def events(self, number: int) -> np.ndarray | None:
        """Events of a sequence, by its index in the whole store; see `SkeletonSequence`."""
        ends = self.index["event_ends"]
        start, end = int(ends[number - 1]) if number else 0, int(ends[number])
        # A recording that is not annotated has one row of -1, one without events no row.
        events = self.index["events"][start:end]
        return None if len(events) and events[0, 0] == NONE else events

    @property
    def names(self) -> list[str]:
        """Names of the selected sequences."""
        return [self.name(int(number)) for number in self.selection]

    def column(self, key: str) -> np.ndarray | None:
        """Entries of the selected sequences; None if unknown.

        Args:
            key: ``labels``, ``subjects``, ``cameras``, ``setups``, ``split_test``, ``names``, or an extra
                column, such as ``folds``.

        Raises:
            SkeletonFormatError: If some sequences are on a side of the split and some are not.
        """
        if f"column.{key}" in self.index:
            return self.index[f"column.{key}"][self.selection]
        if key == "names":
            return np.array(self.names)
        name = "split" if key == "split_test" else key.removesuffix("s")
        if name not in ("label", "subject", "camera", "setup", "split"):
            return None
        values = self.index[name][self.selection]
        if (values == NONE).all():
            return None
        if name == "split":
            check_sides([None if value == NONE else value for value in values.tolist()], str(self.path))
            return values == 1
        if name == "subject" and self.header.subject_names:
            return np.array([*self.header.subject_names, ""])[values]
        return values

    @property
    def extra_columns(self) -> dict[str, np.ndarray]:
        """Columns of the selected sequences that no `SkeletonSequence` has, such as ``folds``."""
        keys = (key.removeprefix("column.") for key in self.index if key.startswith("column."))
        return {key: self.index[f"column.{key}"][self.selection] for key in keys}

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each selected sequence."""
        return self.index["frames"][self.selection]

    @property
    def layout(self) -> Layout:
        """Joint layout of all sequences."""
        return replace(self.header.layout, coordinates=self.header.coordinates)

    @property
    def max_persons(self) -> int:
        """Largest number of people in a sequence."""
        return int(self.index["persons"].max())

    def drop_empty(self) -> SkeletonStore:
        """This store, which has no sequence without people."""
        return self

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        names = list(self.header.class_names)
        largest = max(self.index["label"].max(initial=-1), self.index["events"][:, 0].max(initial=-1))
        return names or [f"class {number}" for number in range(int(largest) + 1)]

    def relabelled(self, labels: np.ndarray, class_names: Sequence[str]) -> SkeletonStore:
        """The store with other labels, see `SkeletonDataset.relabelled`; nothing is written."""
        whole = np.full(len(self.index["label"]), NONE, dtype=np.int64)
        whole[self.selection] = labels
        header = replace(self.header, class_names=tuple(str(name) for name in class_names))
        return replace(self, header=header, index={**self.index, "label": whole})

    @property
    def content_hash(self) -> str:
        """SHA-256 over the frames and the index: the same data give the same hash."""
        return self.header.sha256

    def select(self, mask: np.ndarray) -> SkeletonStore:
        """The sequences where a boolean `mask` ``(len(self),)`` is true."""
        return replace(self, selection=self.selection[np.asarray(mask, dtype=bool)])
