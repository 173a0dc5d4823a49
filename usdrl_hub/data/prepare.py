"""Preparation of stores from raw files, in runs that can be killed and repeated, with a report."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from ..distributed import Workers
from ..errors import UNREADABLE, EmptySequenceError, notice, unreadable
from ..files import check_space
from ..layouts import Layout, LayoutLike, get_layout, seen_joints
from ..persons import PersonSelection
from ..sequence import SkeletonFormatError, SkeletonSequence, interpolate_missing
from .arrays import load_npz
from .dataset import open_data
from .formats.sniffing import array_names
from .npz import SkeletonDataset
from .parallel import ReadingPool
from .protocols import named_sides, protocol_side
from .pyskl import read_pyskl
from .readers import is_video, iter_skeletons
from .reading import Reading
from .remote import is_address
from .series import recording_name
from .sources import InputFile, file_stamp, find_sources, read_names
from .store import SkeletonStore
from .store_writer import StoreWriter
from .text import read_pku_labels
from .writing import in_layout

# Files per part, which bounds what is read again after a kill, and memory (100 MB of NTU); and parts of films, whose
# reading takes long: a part is one film, or more where there are more films.
_PART, _PARTS_OF_FILMS = 1000, 200
_KINDS = ("ntu60", "ntu120", "uav", "pku1", "pku2", "folder", "csv", "file")
_JOINTS = ("joints", "joints_missing", "joints_filled")


@dataclass(frozen=True)
class PrepareOptions:
    """Which recordings go into a store, and how they are stored.

    Attributes:
        ignore: Text file with a name per line, without endings, to leave out, such as NTU's samples with missing
            skeletons.
        protocol: Writes which side each recording is on, see `protocols.protocol_side`. For a pyskl file, which of its
            splits it is: "xsub" means the lists xsub_train and xsub_val; needed where it has several.
        split_file: PKU-MMD's split file for its protocol.
        clips: Cut recordings whose events are known into a labelled clip each; untrimmed recordings stay whole
            otherwise.
        int16: Store int16 with a scale per sequence (at most 0.1 mm off) in place of float32.
        to_layout: Layout that all recordings are converted to, such as BVH files of several rigs, which have joints of
            their own; 3D ones are then y up and in metres.
        film: Reads the people of a video, such as ``VideoReading().read`` of `inference.video`; videos are no
            recordings where it is None. The videos of a folder are read if there are no other recordings in it.
        all_films: Read the videos beside other recordings, too.
        shard: The share of the files that this process reads, see `Workers.of_shard` and `joining.join_stores`.
    """

    ignore: str | os.PathLike | None = None
    protocol: str | None = None
    split_file: str | os.PathLike | None = None
    clips: bool = False
    int16: bool = False
    to_layout: LayoutLike | None = None
    film: Callable[[Path], SkeletonSequence] | None = None
    all_films: bool = False
    shard: Workers = Workers()


# Result of a file: its sequences, each with its row of extra columns; problems as (reason, message); counts of joints.
_Read: TypeAlias = tuple[list[tuple[SkeletonSequence, dict[str, Any]]], list[tuple[str, str]], Counter[str]]


@dataclass(frozen=True)
class _Job:
    """The options of a reading process."""

    reading: Reading
    persons: PersonSelection
    protocol: str | None
    clips: bool
    ignored: frozenset[str]
    has_sides: bool
    is_data_set: bool
    to_layout: Layout | None
    film: Callable[[Path], SkeletonSequence] | None


def prepare(
    kind: str,
    raw: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    reading: Reading = Reading(),
    persons: PersonSelection = PersonSelection(),
    options: PrepareOptions = PrepareOptions(),
    workers: int = 1,
    progress: bool = False,
) -> tuple[SkeletonStore, dict[str, Any]]:
    """Make a store of a data set as its owners distribute it, or of a folder of your own.

    A run that was stopped in any way continues when the same call is made again; the store appears at the end, whole.

    Args:
        kind: "ntu60" or "ntu120": ``.skeleton`` files of NTU RGB+D; "uav": ``.txt`` files of UAV-Human; "pku1" or
            "pku2": skeleton and label files of PKU-MMD, anywhere below one folder; "folder": ``class name/recording``
            of any format that `read_skeleton` reads, or videos; "csv": a table with the columns `file` (relative to
            the table) and, where known, `label` (a class name), `subject`, `split` (train or test); "file": one file
            with a whole data set (``.npz``, pyskl ``.pkl``).
        raw: The folder (searched with its subfolders), or the file.
        output_dir: Folder to make.
        reading: What the files do not say. With `missing` "interpolate", missing joints are interpolated over time,
            see `sequence.interpolate_missing`.
        persons: The people kept of a recording.
        options: Which recordings, and how they are stored.
        workers: Processes that read.
        progress: Show a bar on standard error.

    Returns:
        The store, and a report: `read`, `frames`, `skipped` (reason -> number), `problems` (file -> why), `joints`
        that people who are seen have in all frames together, `joints_missing` of them, and `joints_filled` of those.

    Raises:
        SkeletonFormatError: If there is nothing to read.
        FolderInUseError: If another process is making the same store.
        ValueError: If an argument is impossible, the output folder is not empty, or the disk has no room for the
            files still to be read, by the size of those that were read.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of data '{kind}': use one of {', '.join(_KINDS)}")
    raw = Path(raw)
    sources, class_names = _find(kind, raw, options)
    sources = _shared(sources, options.shard, raw)
    job = _Job(
        reading=reading,
        persons=persons,
        protocol=options.protocol,
        clips=options.clips,
        ignored=frozenset(read_names(options.ignore) if options.ignore is not None else ()),
        has_sides=_has_sides(kind, raw, options),
        is_data_set=kind == "file",
        to_layout=None if options.to_layout is None else get_layout(options.to_layout),
        film=options.film,
    )
    stamps = {source.name: file_stamp(source.path) for source in sources}
    settings = _settings(kind, raw, job, class_names, [(str(source), stamps[source.name]) for source in sources])
    dtype = "int16" if options.int16 else "float32"
    with ReadingPool(workers) as pool, StoreWriter(output_dir, settings, dtype) as writer:
        _read_all(writer, sources, job, {name: size for name, (size, _) in stamps.items()}, pool, progress)
        report = _join_reports([part["report"] for part in writer.parts])
        if not report["read"]:
            # The files may be corrected before the next run.
            writer.discard()
            first = next(iter(report["problems"].values()), next(iter(report["skipped"]), "there is none"))
            raise SkeletonFormatError(f"{raw}: no sequence could be read, so no store is made: {first}")
        if kind == "file" and not class_names:
            class_names = _class_names_of(raw)
        store = writer.finish(class_names, kind)
    if kind in ("folder", "csv", "file"):
        _report_empty_classes(store)
    return store, report


def _shared(sources: list[InputFile], shard: Workers, raw: Path) -> list[InputFile]:
    """The files of a shard.

    Raises:
        ValueError: If there are fewer files than shards.
    """
    if shard.count > max(len(sources), 1):
        raise ValueError(
            f"{raw}: {len(sources)} files cannot be shared among {shard.count}: give at most as many shards as files"
        )
    return sources[shard.share(len(sources), 1)]


def _has_sides(kind: str, raw: Path, options: PrepareOptions) -> bool:
    """Whether a protocol splits the files; a pyskl file has its own protocols."""
    return options.protocol is not None and not (kind == "file" and raw.suffix == ".pkl")


def _find(kind: str, raw: Path, options: PrepareOptions) -> tuple[list[InputFile], list[str]]:
    """The input files with their split, and the class names from folders."""
    if options.split_file is not None and (options.protocol is None or not kind.startswith("pku")):
        raise ValueError("a split file belongs to a protocol of PKU-MMD: name it, too, such as xsub")
    films = "none" if options.film is None else "all" if options.all_films else "alone"
    if options.protocol is None or not _has_sides(kind, raw, options):
        return find_sources(kind, raw, films)
    side = protocol_side(kind, options.protocol, options.split_file)
    sources, class_names = find_sources(kind, raw, films)
    return [replace(source, split=side(source.name)) for source in sources], class_names


def _settings(
    kind: str, raw: Path, job: _Job, class_names: list[str], found: list[tuple[str, tuple[int, int]]]
) -> dict[str, Any]:
    """Settings that a run shares with the one that it continues; changed files make another run."""
    sources = hashlib.sha256(repr(found).encode("utf-8", "backslashreplace")).hexdigest()
    same = {"kind": kind, "raw": str(raw.resolve()), "classes": class_names, "sources": sources}
    return same | {"ignored": sorted(job.ignored), "job": repr(replace(job, ignored=frozenset()))}


def _read_all(
    writer: StoreWriter,
    sources: Sequence[InputFile],
    job: _Job,
    sizes: Mapping[str, int],
    pool: ReadingPool,
    progress: bool,
) -> None:
    """Read the files that are not in finished parts, and write further parts."""
    done = writer.finished_sources
    left = [source for source in sources if source.name not in done]
    bar = tqdm(total=len(sources), initial=len(sources) - len(left), unit="file", disable=None if progress else True)
    with bar:
        results = zip(left, _counted(pool.map(partial(_read_source, job=job), left), bar), strict=True)
        rest = sum(sizes[source.name] for source in left)
        has_films = any(is_video(source.path) for source in sources)
        part = min(-(-len(sources) // _PARTS_OF_FILMS), _PART) if has_films else _PART
        while batch := list(islice(results, part)):
            written = _write_batch(writer, batch)
            size = sum(sizes[source.name] for source, _ in batch)
            rest -= size
            if size:
                check_space(writer.partial, written * rest // size, f"{writer.path} with the files still to be read")


def _counted(results: Iterator[_Read], bar: tqdm) -> Iterator[_Read]:
    for result in results:
        yield result
        bar.update()


def _report_empty_classes(store: SkeletonStore) -> None:
    """Warn of classes without a clip or an event."""
    found = np.union1d(store.index["label"], store.index["events"][:, 0])
    empty = [name for number, name in enumerate(store.class_names) if number not in found]
    if (found >= 0).any() and empty:
        shown = ", ".join(f"'{name}'" for name in empty[:5]) + (f" and {len(empty) - 5} more" if empty[5:] else "")
        notice(f"{len(empty)} of {len(store.class_names)} classes have no clip: {shown}", "classes without clips")


def _read_source(source: InputFile, job: _Job) -> _Read:
    joints: Counter[str] = Counter()
    if recording_name(source.path) in job.ignored:
        return [], [("in the list of names to leave out", "")], joints
    if job.has_sides and source.split is None:
        return [], [("on no side of the protocol", "")], joints
    sequences: list[tuple[SkeletonSequence, dict[str, Any]]] = []
    problems: list[tuple[str, str]] = []

    def note(error: SkeletonFormatError) -> None:
        problems.append(("no person is seen" if isinstance(error, EmptySequenceError) else "malformed", str(error)))

    try:
        for sequence, columns in _recordings(source, job, problems, note):
            sequence = sequence if job.to_layout is None else in_layout(sequence, job.to_layout)
            sequence = job.persons.tracked(_labelled(sequence, source, problems))
            present = seen_joints(sequence.keypoints)
            joints["joints"] += int(present.any(-1).sum()) * present.shape[2]
            joints["joints_missing"] += int((present.any(-1, keepdims=True) & ~present).sum())
            if job.reading.missing == "interpolate":
                sequence = interpolate_missing(sequence)
                filled = seen_joints(sequence.keypoints) & ~present & present.any(-1, keepdims=True)
                joints["joints_filled"] += int(filled.sum())
            sequence = job.persons.kept(sequence)
            cut = list(sequence.clips()) if job.clips and sequence.events is not None else [sequence]
            # A clip inherits the split and the columns of its recording.
            sequences += [(clip, columns) for clip in cut]
    except SkeletonFormatError as error:
        note(error)
    except UNREADABLE as error:
        problems.append(("unreadable", str(unreadable(error, str(source.path)))))
    return sequences, problems, joints


def _recordings(
    source: InputFile,
    job: _Job,
    problems: list[tuple[str, str]],
    note: Callable[[SkeletonFormatError], None],
) -> Iterator[tuple[SkeletonSequence, dict[str, Any]]]:
    """Yield the recordings of a file, each with its row of extra columns."""
    if is_video(source.path) and job.film is not None:
        yield job.reading.complete(job.film(source.path), "m"), dict(source.columns)
        return
    if is_address(source.path):
        data = open_data(source.path, job.reading.layout, keypoints=job.reading.keypoints)
        columns = data.extra_columns
        for number, sequence in enumerate(data.iterate(note)):
            row = {key: values[number].tolist() for key, values in columns.items()}
            yield job.reading.complete(sequence, sequence.units), row
        return
    if source.path.suffix.lower() in (".pkl", ".pickle") and job.is_data_set:
        found, lists = read_pyskl(source.path, job.reading, note)
        sides = named_sides(lists, job.protocol, str(source.path))
        for sequence in found:
            if sides is None:
                yield sequence, {}
            elif sequence.name in sides:
                yield replace(sequence, split=sides[sequence.name]), {}
            else:
                problems.append(("on no side of the protocol", ""))
        return
    if source.path.is_file() and "offsets" in array_names(source.path):
        dataset = SkeletonDataset.from_arrays(load_npz(source.path), str(source.path), job.reading.layout)
        columns = dataset.extra_columns if job.is_data_set else {}
        for number in range(len(dataset)):
            try:
                sequence = job.reading.complete(dataset[number], dataset.units)
                row = {key: values[number].tolist() for key, values in columns.items()}
                yield sequence, row | dict(source.columns)
            except SkeletonFormatError as error:
                note(error)
        return
    for sequence in iter_skeletons(source.path, job.reading, on_error=note):
        yield sequence, dict(source.columns)


def _labelled(sequence: SkeletonSequence, source: InputFile, problems: list[tuple[str, str]]) -> SkeletonSequence:
    """The sequence with its metadata from folders, tables and label files; events outside it are problems."""
    fields: dict[str, Any] = {}
    if source.label is not None:
        fields |= {"label": source.label, "name": Path(source.name).with_name(recording_name(source.name)).as_posix()}
    if source.subject is not None:
        fields["subject"] = source.subject
    if source.split is not None:
        fields["split"] = source.split
    if source.labels is not None:
        # Classes count from 0.
        some = source.labels.stat().st_size > 0
        events = read_pku_labels(source.labels) - (1, 0, 0) if some else np.zeros((0, 3), dtype=np.int64)
        inside = (events[:, 1] < events[:, 2]) & (events[:, 1] < sequence.num_frames)
        if not inside.all():
            problems.append(
                ("events outside their video", f"{source.labels}: {(~inside).sum()} events are not in the video")
            )
        fields["events"] = events[inside]
    return replace(sequence, **fields) if fields else sequence


def _write_batch(writer: StoreWriter, batch: Sequence[tuple[InputFile, _Read]]) -> int:
    """Write a part with the results of some files; returns its size in bytes."""
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
    if not is_address(path) and "offsets" not in array_names(path):
        return []
    dataset = open_data(path)
    return dataset.class_names if dataset.column("labels") is not None else []
