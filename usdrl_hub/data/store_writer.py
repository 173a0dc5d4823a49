"""Writing of stores, part by part, so that a killed run can continue."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import OutputError
from ..files import check_space, locked, naming, new_file
from ..sequence import METRES, SkeletonFormatError, SkeletonSequence
from .checks import check_label, difference, kind_of
from .store import PART, SPLITS, SkeletonStore
from .store_files import FORMAT, HEADER, INDEX, NONE

# Files of a finished store.
_MADE = re.compile(r"frames-[0-9]{5,9}\.safetensors|index\.safetensors|store\.json")


def write_store(
    sequences: Iterable[SkeletonSequence],
    path: str | os.PathLike,
    class_names: Sequence[str] = (),
    dtype: str = "float32",
) -> SkeletonStore:
    """Write a store of a stream of sequences; memory does not grow with their number.

    Args:
        sequences: All of one layout and kind of coordinates. The class names and extra columns of
            a data set, such as `folds`, are stored, too.
        path: Folder to make.
        class_names: Names of the classes; those of the data set if empty.
        dtype: "float32", or "int16" for half the size, at most 0.1 mm off.

    Returns:
        The store, opened.

    Raises:
        SkeletonFormatError: If the sequences differ in kind, there is none, or one has an impossible label.
        FolderInUseError: If another process is writing it.
        ValueError: If something lies at `path`, or the disk has no room for it.
    """
    # Random settings: a failed call is never continued.
    with StoreWriter(path, {"stream": os.urandom(8).hex()}, dtype) as writer:
        try:
            columns: Mapping[str, np.ndarray] = getattr(sequences, "extra_columns", {})
            names = class_names if len(class_names) else getattr(sequences, "class_names", ())
            iterator, start = iter(sequences), 0
            while part := list(islice(iterator, PART)):
                rows = slice(start, start + len(part))
                writer.write_part(part, {}, [], {key: values[rows].tolist() for key, values in columns.items()})
                start += len(part)
            return writer.finish(names)
        except BaseException:
            writer.discard()
            raise


class StoreWriter:
    """Writes a store part by part into a folder ``.NAME.partial``; finished parts survive a kill.

    A part is a shard of frames with its part of the index and the names of its sources. It is finished when its last
    file, written under a temporary name, is renamed. The partial folder lies beside the store and is renamed at the
    end; if the store's folder exists and is empty, as a mount may be, the partial folder lies inside, and its files
    are moved at the end, the header last.

    A writer locks the store until `finish` or `close`, so that no other process writes it.
    """

    def __init__(self, path: str | os.PathLike, settings: dict[str, Any], dtype: str = "float32"):
        """Begin a store, or continue one that was begun with the same settings.

        Args:
            path: The store to write.
            settings: Everything that determines the content; a partial store with other settings is deleted.
            dtype: "float32" or "int16".

        Raises:
            FolderInUseError: If another process is writing it.
            ValueError: If something exists at `path`, the type is unknown, or it cannot be written.
        """
        self.path = Path(path)
        if dtype not in ("float32", "int16"):
            raise ValueError(f"a store holds float32 or int16, not {dtype!r}")
        self.dtype = np.dtype(dtype)
        self.settings = json.dumps({**settings, "dtype": dtype, "format": FORMAT}, sort_keys=True, default=str)
        target = self.path.resolve()
        self.partial = target.with_name(f".{target.name}.partial")
        with ExitStack() as stack:
            # First, so that the lock of a writer that died at the very end is removed, too.
            stack.enter_context(locked(target))
            self._check_is_new(target)
            # Errors name the store, not the partial folder.
            stack.enter_context(naming(target, self.partial))
            self.parts = self._begin(target)
            self._held = stack.pop_all()

    def __enter__(self) -> StoreWriter:
        """The writer, which unlocks the store at the end of the block."""
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.__exit__(*error)

    def close(self) -> None:
        """Unlock the store; its parts stay, for a writer with the same settings to continue."""
        self._held.close()

    def discard(self) -> None:
        """Delete what is written."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _check_is_new(self, target: Path) -> None:
        """Refuse a path at which anything exists but an empty folder, or one in which a writer died."""
        if not os.path.lexists(target):
            return
        if target.is_dir():
            entries = {entry.name for entry in target.iterdir()}
            if self.partial.name in entries and HEADER not in entries:
                entries -= {self.partial.name, *(name for name in entries if _MADE.fullmatch(name))}
            # It may contain the lock.
            if not entries - {".lock", ".lock.soft"}:
                return
        raise OutputError(f"{self.path}: it exists already and is not an empty folder: name a new one")

    def _begin(self, target: Path) -> list[dict[str, Any]]:
        """Make the partial folder, or continue an existing one; returns its finished parts."""
        stamp = "settings.json"
        try:
            if target.is_dir():
                beside, self.partial = self.partial, target / self.partial.name
                if beside.is_dir() and not self.partial.exists():
                    _moved(beside, self.partial)
                # A writer died while it moved its files.
                for entry in target.iterdir():
                    if _MADE.fullmatch(entry.name):
                        os.replace(entry, self.partial / entry.name)
            if self.partial.is_dir():
                try:
                    if (self.partial / stamp).read_text("utf-8") == self.settings:
                        # The lock is held, so no other process writes these.
                        for leftover in self.partial.glob(".*.partial"):
                            leftover.unlink()
                        return self._read_parts()
                except (OSError, ValueError):
                    # Its writer died at once, or it is damaged.
                    pass
                shutil.rmtree(self.partial)
            self.partial.mkdir()
            with new_file(self.partial / stamp) as file:
                file.write_text(self.settings, "utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: it cannot be written: {error.strerror or error}") from None
        return []

    def _read_parts(self) -> list[dict[str, Any]]:
        """The records of the finished parts.

        Raises:
            ValueError: If a file of a part is damaged.
        """
        parts = []
        for number, file in enumerate(sorted(self.partial.glob("part-*.json"))):
            part = json.loads(file.read_text("utf-8"))
            names = [f"part-{number:05d}.json"]
            if part["count"]:
                names += [f"{kind}-{number:05d}.safetensors" for kind in ("frames", "index")]
            if not all((self.partial / name).is_file() for name in names):
                raise ValueError(f"part {number} is not whole")
            parts.append(part)
        return parts

    @property
    def finished_sources(self) -> set[str]:
        """Sources that are read or refused in a finished part."""
        return {source for part in self.parts for source in part["sources"]}

    def write_part(
        self,
        sequences: Sequence[SkeletonSequence],
        report: dict[str, Any],
        sources: Iterable[str],
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> int:
        """Write one part.

        Args:
            sequences: All of one layout and kind of coordinates; may be empty.
            report: Any JSON value, kept with the part.
            sources: Names of the inputs that this part finishes.
            columns: Extra entries of each sequence, such as `folds`, as JSON values; the same keys in all parts.

        Returns:
            Bytes of its frames and index.

        Raises:
            SkeletonFormatError: If a sequence differs in kind from the others, or is too large for int16.
            OutputError: If the disk has no room for it.
        """
        number, size = len(self.parts), 0
        kind = kind_of(sequences[0]) if sequences else None
        for sequence in sequences:
            self.check(sequence, sequences[0])
        part: dict[str, Any] = {"kind": kind, "report": report, "sources": sorted(sources), "count": len(sequences)}
        part["columns"] = {key: list(values) for key, values in (columns or {}).items()}
        if sequences:
            scales = np.array([self._scale(sequence) for sequence in sequences], dtype=np.float32)
            flat = [self._encode(sequence, scale) for sequence, scale in zip(sequences, scales, strict=True)]
            frames = np.concatenate(flat)
            index = _make_index(sequences, number, [len(values) for values in flat], scales)
            size = frames.nbytes + sum(array.nbytes for array in index.values())
            check_space(self.partial, size, str(self.path))
            for name, content in (("frames", {"frames": frames}), ("index", index)):
                self._save(content, f"{name}-{number:05d}.safetensors")
            part["sha256"] = hashlib.sha256(frames.tobytes()).hexdigest()
            part["subject_names"] = _subject_names(sequences)
        with new_file(self.partial / f"part-{number:05d}.json") as file:
            file.write_text(json.dumps(part), "utf-8")
        self.parts.append(part)
        return size

    def _save(self, arrays: dict[str, np.ndarray], name: str) -> None:
        with new_file(self.partial / name) as file:
            save_file(arrays, file)

    def check(self, sequence: SkeletonSequence, first: SkeletonSequence | None = None) -> None:
        """Refuse a sequence that does not fit those of earlier parts, or `first`.

        Raises:
            SkeletonFormatError: If its layout, coordinates or units differ, it is too large for int16, or a label is
                not a class index.
        """
        held = kind_of(first) if first else next((part["kind"] for part in self.parts if part["kind"]), None)
        if held is not None and kind_of(sequence) != held:
            raise SkeletonFormatError(f"{sequence.name}: {difference(sequence, held)}")
        if self.dtype == np.int16 and float(np.abs(sequence.keypoints).max()) > _max_int16(sequence):
            raise SkeletonFormatError(
                f"{sequence.name}: coordinates beyond {_max_int16(sequence):.1f} {sequence.units} would be off by "
                "more than 0.1 mm in int16: make the store of float32"
            )
        check_label(sequence)

    def _scale(self, sequence: SkeletonSequence) -> float:
        return float(np.abs(sequence.keypoints).max()) / 32767 if self.dtype == np.int16 else 1.0

    def _encode(self, sequence: SkeletonSequence, scale: float) -> np.ndarray:
        values = sequence.keypoints.ravel()
        return np.round(values / scale).astype(np.int16) if self.dtype == np.int16 else values

    def finish(self, class_names: Sequence[str] = (), dataset: str | None = None) -> SkeletonStore:
        """Join the parts and move the store to its path.

        Args:
            class_names: Names of the classes.
            dataset: The data set, such as "ntu60", which determines the protocols.

        Raises:
            SkeletonFormatError: If no part holds a sequence.
        """
        class_names = [str(name) for name in class_names]
        filled = [number for number, part in enumerate(self.parts) if part["count"]]
        if not filled:
            raise SkeletonFormatError(f"{self.path}: no sequence could be read, so no store is made")
        parts = [load_file(self.partial / f"index-{number:05d}.safetensors") for number in filled]
        index = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for key in ("name_ends", "event_ends"):
            index[key] = np.cumsum(np.concatenate([np.diff(part[key], prepend=0) for part in parts]))
        people = sorted({name for number in filled for name in self.parts[number]["subject_names"]})
        if people:
            index["subject"] = np.concatenate(
                [
                    _renumbered(part["subject"], self.parts[number]["subject_names"], people)
                    for number, part in zip(filled, parts, strict=True)
                ]
            )
        index["shard"] = np.repeat(np.arange(len(filled)), [len(part["shard"]) for part in parts])
        for key in self.parts[filled[0]]["columns"]:
            index[f"column.{key}"] = np.array(
                [value for number in filled for value in self.parts[number]["columns"][key]]
            )
        digest = hashlib.sha256(self.parts[filled[0]]["kind"].encode())
        for number in filled:
            digest.update(self.parts[number]["sha256"].encode())
        for key in sorted(index):
            digest.update(key.encode() + np.ascontiguousarray(index[key]).tobytes())
        largest = max(int(index["label"].max()), int(index["events"][:, 0].max(initial=NONE)))
        if class_names and largest >= len(class_names):
            raise SkeletonFormatError(
                f"{self.path}: class {largest} has no name among the {len(class_names)} class names"
            )
        header = {**json.loads(self.parts[filled[0]]["kind"]), "format": FORMAT, "dtype": self.dtype.name}
        header |= {"class_names": class_names, "sha256": digest.hexdigest(), "count": len(index["shard"])}
        header |= {"subject_names": people, "dataset": dataset}
        header["shards"] = [self._describe_shard(number) for number in filled]
        self._save(index, INDEX)
        with new_file(self.partial / HEADER) as file:
            file.write_text(json.dumps(header), "utf-8")
        self._put_in_place()
        self.close()
        return SkeletonStore.open(self.path)

    def _put_in_place(self) -> None:
        """Move the files to the store's path, the header last: without it, there is no store."""
        target = self.path.resolve()
        if target.is_dir():
            made = [file for file in self.partial.iterdir() if _MADE.fullmatch(file.name)]
            for file in sorted(made, key=lambda file: file.name == HEADER):
                os.replace(file, target / file.name)
            shutil.rmtree(self.partial)
            return
        os.replace(self.partial, target)
        # Only now: a run that is killed before this can come here again.
        for entry in target.iterdir():
            if not _MADE.fullmatch(entry.name):
                entry.unlink()

    def _describe_shard(self, number: int) -> dict[str, Any]:
        file = self.partial / f"frames-{number:05d}.safetensors"
        with open(file, "rb") as content:
            header = int.from_bytes(content.read(8), "little")
        sha256 = self.parts[number]["sha256"]
        return {"file": file.name, "offset": 8 + header, "bytes": file.stat().st_size, "sha256": sha256}


def _moved(folder: Path, target: Path) -> None:
    """Move a folder, or delete it if the target is on another disk."""
    try:
        os.replace(folder, target)
    except OSError:
        shutil.rmtree(folder)


def _max_int16(sequence: SkeletonSequence) -> float:
    """Largest coordinate for which int16 is at most 0.1 mm (in 2D: a hundredth of a pixel) off."""
    step = 0.0002 / METRES[sequence.units] if sequence.is_3d else 0.02
    return step * 32767


def _subject_names(sequences: Sequence[SkeletonSequence]) -> list[str]:
    """Sorted names of the subjects; empty if they have numbers."""
    return sorted({sequence.subject for sequence in sequences if isinstance(sequence.subject, str)})


def _renumbered(subjects: np.ndarray, names: Sequence[str], people: Sequence[str]) -> np.ndarray:
    """Subject indices into `people`, given indices into `names`."""
    if not names:
        if (subjects != NONE).any():
            raise SkeletonFormatError(
                "some people have numbers and some have names: give all of them the one or other"
            )
        return subjects
    return np.append([people.index(name) for name in names], NONE).astype(subjects.dtype)[subjects]


def _make_index(
    sequences: Sequence[SkeletonSequence], shard: int, sizes: Sequence[int], scales: np.ndarray
) -> dict[str, np.ndarray]:
    def numbers(key: str) -> np.ndarray:
        values = (getattr(sequence, key) for sequence in sequences)
        try:
            return np.array([NONE if value is None else value for value in values], dtype=np.int64)
        except (OverflowError, TypeError, ValueError):
            raise SkeletonFormatError(f"a {key} is not a whole number that fits in 64 bits") from None

    people = {name: number for number, name in enumerate(_subject_names(sequences))}
    if people and any(isinstance(sequence.subject, int | np.integer) for sequence in sequences):
        raise SkeletonFormatError("some people have numbers and some have names: give all of them the one or other")
    subjects = [people.get(sequence.subject, NONE) for sequence in sequences]  # type: ignore[arg-type]
    unknown = np.full((1, 3), NONE, dtype=np.int64)
    events = [unknown if sequence.events is None else sequence.events for sequence in sequences]
    splits = [SPLITS.index(sequence.split) - 1 for sequence in sequences]
    # File names need not be valid text.
    names = [sequence.name.encode("utf-8", "backslashreplace") for sequence in sequences]
    shapes = [sequence.image_shape or (np.nan, np.nan) for sequence in sequences]
    return {
        "shard": np.full(len(sequences), shard, dtype=np.int64),
        "start": np.cumsum([0, *sizes[:-1]], dtype=np.int64),
        "frames": np.array([sequence.num_frames for sequence in sequences], dtype=np.int32),
        "persons": np.array([sequence.num_persons for sequence in sequences], dtype=np.int32),
        **{key: numbers(key) for key in ("label", "camera", "setup")},
        "subject": np.array(subjects, dtype=np.int64) if people else numbers("subject"),
        "split": np.array(splits, dtype=np.int32),
        "events": np.concatenate(events),
        "event_ends": np.cumsum([len(rows) for rows in events], dtype=np.int64),
        "fps": np.array([sequence.fps or np.nan for sequence in sequences], dtype=np.float64),
        "image_shape": np.array(shapes, dtype=np.float32),
        "scale": scales,
        "names": np.frombuffer(b"".join(names), dtype=np.uint8),
        "name_ends": np.cumsum([len(name) for name in names], dtype=np.int64),
    }
