"""Raw folders to stores, in runs that can be killed and repeated, with a report of what became of each file."""

from __future__ import annotations

import hashlib
import multiprocessing.connection
import os
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from ..errors import UNREADABLE, EmptySequenceError, USDRLWarning, notice, unreadable
from ..files import check_space
from ..persons import CHOOSE_BY, PersonSelection, link_persons
from ..sequence import MISSING, SkeletonFormatError, SkeletonSequence, interpolate_missing, is_rate
from .arrays import load_npz
from .dataset import open_data
from .npz import SkeletonDataset
from .openpose import recording_name
from .protocols import named_sides, protocol_side
from .pyskl import read_pyskl
from .readers import iter_skeletons
from .reading import Reading
from .sources import InputFile, file_stamp, find_sources, read_names
from .store import SkeletonStore
from .store_writer import StoreWriter
from .text import read_pku_labels

# Files per part: how much is read again after a kill, and about how much memory a part takes (100 MB of NTU).
_PART = 1000
_KINDS = ("ntu60", "ntu120", "uav", "pku1", "pku2", "folder", "csv", "file")
_JOINTS = ("joints", "joints_missing", "joints_filled")


@dataclass(frozen=True)
class _Reading:
    """How files are read; the options of `prepare` that a reading process needs."""

    layout: str | None
    fps: float | None
    persons: int
    ignored: frozenset[str]
    missing: str
    image_shape: tuple[float, float] | None
    choose_by: str
    relink: bool
    clips: bool
    is_data_set: bool
    protocol: str | None


def prepare(
    kind: str,
    raw: str | os.PathLike,
    output_dir: str | os.PathLike,
    ignore: str | os.PathLike | None = None,
    layout: str | None = None,
    fps: float | None = None,
    persons: int = 2,
    int16: bool = False,
    workers: int = 1,
    progress: bool = False,
    protocol: str | None = None,
    split_file: str | os.PathLike | None = None,
    clips: bool = False,
    missing: str = "refuse",
    image_shape: tuple[float, float] | None = None,
    choose_by: str = "energy",
    relink: bool = False,
) -> tuple[SkeletonStore, dict[str, Any]]:
    """Make a store of a data set as its owners distribute it, or of a folder of one's own.

    A run that was stopped in any way goes on where it was when the same call is made again; the store appears at the
    end, whole.

    Args:
        kind: "ntu60" or "ntu120": ``.skeleton`` files of NTU RGB+D; "uav": ``.txt`` files of UAV-Human; "pku1" or
            "pku2": skeleton and label files of PKU-MMD, anywhere below one folder; "folder": ``class name/recording``
            of any format that `read_skeleton` reads; "csv": a table with the columns `file` (relative to the table)
            and, where known, `label` (a class name), `subject`, `split` (train or test); "file": one file with a whole
            data set (``.npz``, pyskl ``.pkl``).
        raw: The folder (searched with its subfolders), or the file.
        output_dir: Folder to make.
        ignore: Text file with a name per line, without endings, to leave out, such as NTU's samples with missing
            skeletons.
        layout: Joint layout of array files.
        fps: Frames per second, where the files do not say.
        persons: People kept of a recording.
        int16: Store int16 with a scale per sequence (at most 0.1 mm off) in place of float32.
        workers: Processes that read.
        progress: Show a bar on standard error.
        protocol: Writes which side each recording is on, see `protocols.protocol_side`. For a pyskl file, which of its
            splits it is: "xsub" means the lists xsub_train and xsub_val; needed where it has several.
        split_file: PKU-MMD's split file for its protocol.
        clips: Cut recordings whose events are known into a labelled clip each; untrimmed recordings stay whole
            otherwise.
        missing: "refuse" NaN, or "interpolate" what is missing over time, see `sequence.interpolate_missing`.
        image_shape: Height and width in pixels of the picture that 2D keypoints lie in, where files do not say.
        choose_by: Whom to keep, see `USDRLFeatureExtractor`; the release keeps the most energetic.
        relink: Tell people apart by where they were before, see `persons.link_persons`.

    Returns:
        The store, and a report: `read`, `frames`, `skipped` (reason -> number), `problems` (file -> why), `joints`
        that people who are seen have in all frames together, `joints_missing` of them, and `joints_filled` of those.

    Raises:
        SkeletonFormatError: If there is nothing to read.
        FolderInUseError: If another process is making the same store.
        ValueError: If an argument is impossible, the output folder is not empty, or the disk has no room for what the
            files still to be read come to, as those that were read tell.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of data '{kind}': use one of {', '.join(_KINDS)}")
    if workers < 1 or persons < 1:
        raise ValueError("workers and persons must be at least 1")
    if fps is not None and not is_rate(fps):
        raise ValueError(f"frames per second must be between 0.01 and 10000, got {fps}")
    if missing not in MISSING or choose_by not in CHOOSE_BY:
        raise ValueError(f"missing must be one of {', '.join(MISSING)}, choose_by one of {', '.join(CHOOSE_BY)}")
    raw = Path(raw)
    if split_file is not None and (protocol is None or not kind.startswith("pku")):
        raise ValueError("a split file belongs to a protocol of PKU-MMD: name it, too, such as xsub")
    # A pyskl file brings its own protocols.
    is_pickle = kind == "file" and raw.suffix == ".pkl"
    side = protocol_side(kind, protocol, split_file) if protocol and not is_pickle else None
    sources, class_names = find_sources(kind, raw)
    if side is not None:
        sources = [replace(source, split=side(source.name)) for source in sources]
    ignored = read_names(ignore) if ignore is not None else set()
    reading = _Reading(
        layout,
        fps,
        persons,
        frozenset(ignored),
        missing,
        image_shape,
        choose_by,
        relink,
        clips,
        kind == "file",
        protocol,
    )
    settings: dict[str, Any] = {"kind": kind, "raw": str(raw.resolve()), "protocol": protocol, **vars(reading)}
    stamps = {source.name: file_stamp(source.path) for source in sources}
    sizes = {name: size for name, (size, _) in stamps.items()}
    # A file that was mended since is read again.
    found = [(str(source), stamps[source.name]) for source in sources]
    settings |= {"ignored": sorted(ignored), "sources": found, "classes": class_names}
    settings["sources"] = hashlib.sha256(repr(settings["sources"]).encode("utf-8", "backslashreplace")).hexdigest()
    with StoreWriter(output_dir, settings, "int16" if int16 else "float32") as writer:
        done = writer.finished_sources
        left = [source for source in sources if source.name not in done]
        read = partial(_read_with_notices, reading=reading, has_sides=side is not None)
        bar = tqdm(
            total=len(sources), initial=len(sources) - len(left), unit="file", disable=None if progress else True
        )
        with bar, _mapper(workers) as mapped:
            results = zip(left, _told(mapped(read, left)), strict=True)
            rest = sum(sizes[source.name] for source in left)
            while batch := list(islice(results, _PART)):
                written = _write_batch(writer, batch)
                size = sum(sizes[source.name] for source, _ in batch)
                rest -= size
                if size:
                    check_space(
                        writer.partial, written * rest // size, f"{output_dir} with the files still to be read"
                    )
                bar.update(len(batch))
        report = _join_reports([part["report"] for part in writer.parts])
        if not report["read"]:
            # What was refused may be mended before the next run.
            writer.discard()
            first = next(iter(report["problems"].values()), next(iter(report["skipped"]), "there is none"))
            raise SkeletonFormatError(f"{raw}: no sequence could be read, so no store is made: {first}")
        if kind == "file" and not class_names:
            class_names = _class_names_of(raw)
        store = writer.finish(class_names, kind)
        if kind in ("folder", "csv", "file"):
            _tell_empty_classes(store)
        return store, report


def _begin_worker() -> None:
    """Have a process that reads end with the one that started it, however that ends, and by nothing else."""
    # Ctrl-C reaches all processes of a terminal; the first one tells it, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _tell_empty_classes(store: SkeletonStore) -> None:
    """Warn of classes by name, such as folders, that no clip and no event is of."""
    found = np.union1d(store.index["label"], store.index["events"][:, 0])
    empty = [name for number, name in enumerate(store.class_names) if number not in found]
    if (found >= 0).any() and empty:
        told = ", ".join(f"'{name}'" for name in empty[:5]) + (f" and {len(empty) - 5} more" if empty[5:] else "")
        notice(f"{len(empty)} of {len(store.class_names)} classes have no clip: {told}", "classes without clips")


class _mapper:
    """`map` in this process, or in several that end with the block, or with this process if it is killed."""

    def __init__(self, workers: int):
        self.pool = ProcessPoolExecutor(workers, initializer=_begin_worker) if workers > 1 else None

    def __enter__(self) -> Callable[..., Iterator[Any]]:
        return partial(self.pool.map, chunksize=16) if self.pool else map

    def __exit__(self, *_: Any) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)


# What one file gave: its sequences with the row of columns that each has in its data set, problems as (reason,
# message), and how many joints it has, lacks and was given.
_Read: TypeAlias = tuple[list[tuple[SkeletonSequence, dict[str, Any]]], list[tuple[str, str]], Counter[str]]


def _read_with_notices(source: InputFile, reading: _Reading, has_sides: bool) -> tuple[_Read, list[tuple[str, str]]]:
    """See `_read_source`; and the notices of it with their kinds, for the process that tells them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", USDRLWarning)
        read = _read_source(source, reading, has_sides)
    messages = [warning.message for warning in caught]
    return read, [(str(message), message.kind) for message in messages if isinstance(message, USDRLWarning)]


def _told(results: Iterator[tuple[_Read, list[tuple[str, str]]]]) -> Iterator[_Read]:
    """Pass on what was read, and tell its notices here: those of other processes would not be counted."""
    for read, notices in results:
        for message, kind in notices:
            notice(message, kind)
        yield read


def _read_source(source: InputFile, reading: _Reading, has_sides: bool) -> _Read:
    joints: Counter[str] = Counter()
    if recording_name(source.path) in reading.ignored:
        return [], [("in the list of names to leave out", "")], joints
    if has_sides and source.split is None:
        return [], [("on no side of the protocol", "")], joints
    sequences: list[tuple[SkeletonSequence, dict[str, Any]]] = []
    problems: list[tuple[str, str]] = []

    def note(error: SkeletonFormatError) -> None:
        problems.append(("nobody is seen" if isinstance(error, EmptySequenceError) else "malformed", str(error)))

    try:
        for sequence, columns in _recordings(source, reading, problems, note):
            sequence = _completed(sequence, source, reading, problems)
            if reading.relink:
                sequence = link_persons(sequence)
            present = (sequence.keypoints != 0).any(-1)
            joints["joints"] += int(present.any(-1).sum()) * present.shape[2]
            joints["joints_missing"] += int((present.any(-1, keepdims=True) & ~present).sum())
            if reading.missing == "interpolate":
                sequence = interpolate_missing(sequence)
                joints["joints_filled"] += int((sequence.keypoints != 0).any(-1).sum() - present.sum())
            sequence = PersonSelection(reading.persons, reading.choose_by)(sequence)
            cut = list(sequence.clips()) if reading.clips and sequence.events is not None else [sequence]
            # A clip is what its recording is: on its side of the split, in its fold.
            sequences += [(clip, columns) for clip in cut]
    except SkeletonFormatError as error:
        note(error)
    except UNREADABLE as error:
        problems.append(("unreadable", str(unreadable(error, str(source.path)))))
    return sequences, problems, joints


def _recordings(
    source: InputFile,
    reading: _Reading,
    problems: list[tuple[str, str]],
    note: Callable[[SkeletonFormatError], None],
) -> Iterator[tuple[SkeletonSequence, dict[str, Any]]]:
    """Yield the recordings of a file, each with its row of the columns that a data set in one file has."""
    if source.path.suffix == ".pkl" and reading.is_data_set:
        found, lists = read_pyskl(source.path, on_error=note)
        sides = named_sides(lists, reading.protocol, str(source.path))
        for sequence in found:
            if sides is None:
                yield sequence, {}
            elif sequence.name in sides:
                yield replace(sequence, split=sides[sequence.name]), {}
            else:
                problems.append(("on no side of the protocol", ""))
        return
    if source.path.suffix == ".npz" and source.path.is_file() and "offsets" in (arrays := load_npz(source.path)):
        dataset = SkeletonDataset.from_arrays(arrays, str(source.path))
        columns = dataset.extra_columns if reading.is_data_set else {}
        for number in range(len(dataset)):
            try:
                yield dataset[number], {key: values[number].tolist() for key, values in columns.items()}
            except SkeletonFormatError as error:
                note(error)
        return
    how = Reading(layout=reading.layout, missing=reading.missing)
    for sequence in iter_skeletons(source.path, how, on_error=note):
        yield sequence, {}


def _completed(
    sequence: SkeletonSequence, source: InputFile, reading: _Reading, problems: list[tuple[str, str]]
) -> SkeletonSequence:
    """The sequence with what is known of it from elsewhere; events that are not in it are problems."""
    fields: dict[str, Any] = {}
    if source.label is not None:
        fields |= {"label": source.label, "name": Path(source.name).with_name(recording_name(source.name)).as_posix()}
    if source.subject is not None:
        fields["subject"] = source.subject
    if source.split is not None:
        fields["split"] = source.split
    if source.labels is not None:
        # Classes are counted from 0 here, as everywhere.
        some = source.labels.stat().st_size > 0
        events = read_pku_labels(source.labels) - (1, 0, 0) if some else np.zeros((0, 3), dtype=np.int64)
        inside = (events[:, 1] < events[:, 2]) & (events[:, 1] < sequence.num_frames)
        if not inside.all():
            problems.append(
                ("events outside their video", f"{source.labels}: {(~inside).sum()} events are not in the video")
            )
        fields["events"] = events[inside]
    if sequence.fps is None and reading.fps is not None:
        fields["fps"] = reading.fps
    if reading.image_shape is not None and not sequence.is_3d and sequence.image_shape is None:
        fields["image_shape"] = reading.image_shape
    return replace(sequence, **fields) if fields else sequence


def _write_batch(writer: StoreWriter, batch: Sequence[tuple[InputFile, _Read]]) -> int:
    """Write a part of what was read of some files; how many bytes it takes."""
    sequences: list[SkeletonSequence] = []
    rows: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    problems: dict[str, str] = {}
    joints: Counter[str] = Counter()
    for source, (found, errors, counted) in batch:
        joints += counted
        for sequence, row in found:
            try:
                writer.check(sequence, sequences[0] if sequences else None)
                sequences.append(sequence)
                rows.append(row)
            except SkeletonFormatError as error:
                errors = [*errors, ("of another kind", str(error))]
        for reason, message in errors:
            skipped[reason] += 1
            if message:
                problems[source.name] = message
    report = {"read": len(sequences), "frames": sum(s.num_frames for s in sequences)}
    report |= {key: joints[key] for key in _JOINTS}
    done = [source.name for source, _ in batch]
    columns = {key: [row[key] for row in rows] for key in rows[0]} if rows else None
    return writer.write_part(sequences, {**report, "skipped": skipped, "problems": problems}, done, columns)


def _join_reports(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    problems: dict[str, str] = {}
    for report in reports:
        skipped.update(report["skipped"])
        problems |= report["problems"]
    total = {key: sum(report[key] for report in reports) for key in ("read", "frames", *_JOINTS)}
    return {**total, "skipped": dict(skipped), "problems": problems}


def _class_names_of(path: Path) -> list[str]:
    if path.suffix != ".npz":
        return []
    dataset = open_data(path)
    return dataset.class_names if dataset.column("labels") is not None else []
