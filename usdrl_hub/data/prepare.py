"""Raw folders to stores: which files there are, what became of each, and a run that can be killed and repeated."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..normalization import RaggedFrames, select_persons
from ..sequence import SkeletonFormatError, SkeletonSequence
from .readers import SUFFIXES, iter_skeletons
from .store import SkeletonStore, StoreWriter
from .text import NTU, UAV

# Files per part: how much is read again after a kill, and about how much memory a part takes (100 MB of NTU).
_PART = 1000
_KINDS = ("ntu60", "ntu120", "uav", "folder", "file")


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        name: Its path below the raw folder, which also names it in reports.
        path: Where it lies.
        label: Class that its folder means, or None for the one that the file tells.
    """

    name: str
    path: Path
    label: int | None = None


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
) -> tuple[SkeletonStore, dict[str, Any]]:
    """Make a store of a data set as its owners distribute it, or of a folder of one's own.

    A run that was stopped in any way goes on where it was when the same call is made again; the store appears at the
    end, whole.

    Args:
        kind: "ntu60" or "ntu120": ``.skeleton`` files of NTU RGB+D; "uav": ``.txt`` files of UAV-Human; "folder":
            ``class name/recording`` of any format that `read_skeleton` reads; "file": one file with a whole data set
            (``.npz``, pyskl ``.pkl``).
        raw: The folder (searched with its subfolders), or the file.
        output_dir: Folder to make.
        ignore: Text file with a name per line, without endings, to leave out, such as NTU's samples with missing
            skeletons.
        layout: Joint layout of array files.
        fps: Frames per second, where the files do not say.
        persons: People kept of a recording, the most energetic ones, as the release does.
        int16: Store int16 with a scale per sequence (at most 0.1 mm off) in place of float32.
        workers: Processes that read.
        progress: Show a bar on standard error.

    Returns:
        The store, and a report: `read`, `frames`, `skipped` (reason -> number), `problems` (file -> why).

    Raises:
        SkeletonFormatError: If there is nothing to read.
        ValueError: If an argument is impossible or the output folder is not empty.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of data '{kind}': use one of {', '.join(_KINDS)}")
    if workers < 1 or persons < 1:
        raise ValueError("workers and persons must be at least 1")
    raw = Path(raw)
    sources, class_names = _find_sources(kind, raw)
    ignored = _read_names(ignore) if ignore is not None else set()
    settings: dict[str, Any] = {
        "kind": kind,
        "raw": str(raw.resolve()),
        "layout": layout,
        "fps": fps,
        "persons": persons,
    }
    settings |= {"ignore": sorted(ignored), "sources": len(sources), "classes": class_names}
    writer = StoreWriter(output_dir, settings, "int16" if int16 else "float32")
    done = writer.finished_sources
    left = [source for source in sources if source.name not in done]
    read = partial(_read_source, layout=layout, fps=fps, persons=persons, ignored=frozenset(ignored))
    bar = tqdm(total=len(sources), initial=len(sources) - len(left), unit="file", disable=None if progress else True)
    with bar, _mapper(workers) as mapped:
        results = zip(left, mapped(read, left), strict=True)
        while batch := list(islice(results, _PART)):
            _write_batch(writer, batch)
            bar.update(len(batch))
    report = _join_reports([part["report"] for part in writer.parts])
    if kind == "file" and not class_names:
        class_names = _class_names_of(raw)
    return writer.finish(class_names), report


class _mapper:
    """`map` in this process, or in several that end with the block."""

    def __init__(self, workers: int):
        self.pool = ProcessPoolExecutor(workers) if workers > 1 else None

    def __enter__(self) -> Callable[..., Iterator[Any]]:
        return partial(self.pool.map, chunksize=16) if self.pool else map

    def __exit__(self, *_: Any) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)


def _find_sources(kind: str, raw: Path) -> tuple[list[Source], list[str]]:
    """The input files in order, and the class names that folders give."""
    if kind == "file":
        if not raw.is_file():
            raise SkeletonFormatError(f"{raw}: there is no such file")
        return [Source(raw.name, raw)], []
    if not raw.is_dir():
        raise SkeletonFormatError(f"{raw}: there is no such folder")
    if kind == "folder":
        classes = sorted(
            folder.name for folder in raw.iterdir() if folder.is_dir() and not folder.name.startswith(".")
        )
        found = [
            Source(file.relative_to(raw).as_posix(), file, label)
            for label, name in enumerate(classes)
            for file in sorted((raw / name).rglob("*"))
            if file.suffix in SUFFIXES and file.is_file()
        ]
        expected = f"class/recording with an ending of {', '.join(SUFFIXES)}"
    else:
        form, suffix = (UAV, ".txt") if kind == "uav" else (NTU, ".skeleton")
        most = {"ntu60": 60, "ntu120": 120}.get(kind, 10**9)
        classes = []
        found = []
        for file in sorted(raw.rglob(f"*{suffix}")):
            match = form.name.search(file.stem)
            if match and int(match["action"]) <= most:
                found.append(Source(file.relative_to(raw).as_posix(), file))
        expected = "S001C001P001R001A001.skeleton" if form is NTU else "a name of UAV-Human"
    if not found:
        raise SkeletonFormatError(f"{raw}: there is no file such as {expected} in it")
    return found, classes


def _read_names(path: str | os.PathLike) -> set[str]:
    try:
        return {line.strip() for line in Path(path).read_text("ascii").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError):
        raise SkeletonFormatError(f"{path}: the list of names to leave out cannot be read") from None


def _read_source(
    source: Source, layout: str | None, fps: float | None, persons: int, ignored: frozenset[str]
) -> tuple[list[SkeletonSequence], list[tuple[str, str]]]:
    """Sequences of one file, and its problems as (reason, message)."""
    if source.path.stem in ignored:
        return [], [("in the list of names to leave out", "")]
    sequences: list[SkeletonSequence] = []
    problems: list[tuple[str, str]] = []

    def note(error: SkeletonFormatError) -> None:
        nobody = "nobody" in str(error) or "no body" in str(error) or "every person is empty" in str(error)
        problems.append(("nobody is seen" if nobody else "malformed", str(error)))

    try:
        for sequence in iter_skeletons(source.path, layout or "ntu25", on_error=note):
            sequence = _keep_persons(sequence, persons)
            if source.label is not None:
                sequence = replace(sequence, label=source.label, name=Path(source.name).with_suffix("").as_posix())
            sequences.append(sequence if sequence.fps or fps is None else replace(sequence, fps=fps))
    except SkeletonFormatError as error:
        note(error)
    return sequences, problems


def _keep_persons(sequence: SkeletonSequence, persons: int) -> SkeletonSequence:
    if sequence.num_persons <= persons:
        return sequence
    # Imported late: a reading process has no other use for it.
    import torch

    batch = RaggedFrames(torch.from_numpy(sequence.keypoints), torch.tensor([sequence.num_frames]))
    return replace(sequence, keypoints=select_persons(batch, persons).frames.numpy())


def _write_batch(writer: StoreWriter, batch: Sequence[tuple[Source, tuple[list, list]]]) -> None:
    sequences: list[SkeletonSequence] = []
    skipped: Counter[str] = Counter()
    problems: dict[str, str] = {}
    for source, (found, errors) in batch:
        for sequence in found:
            try:
                writer.check(sequence, sequences[0] if sequences else None)
                sequences.append(sequence)
            except SkeletonFormatError as error:
                errors = [*errors, ("of another kind", str(error))]
        for reason, message in errors:
            skipped[reason] += 1
            if message:
                problems[source.name] = message
    report = {"read": len(sequences), "frames": sum(s.num_frames for s in sequences)}
    writer.write_part(sequences, {**report, "skipped": skipped, "problems": problems}, [s.name for s, _ in batch])


def _join_reports(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    problems: dict[str, str] = {}
    for report in reports:
        skipped.update(report["skipped"])
        problems |= report["problems"]
    total = {key: sum(report[key] for report in reports) for key in ("read", "frames")}
    return {**total, "skipped": dict(skipped), "problems": problems}


def _class_names_of(path: Path) -> list[str]:
    if path.suffix != ".npz":
        return []
    from .dataset import SkeletonDataset

    dataset = SkeletonDataset.open(path)
    return dataset.class_names if dataset.column("labels") is not None else []
