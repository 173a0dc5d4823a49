"""Input files of `prepare`, from a raw folder or a table of files."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import notice
from ..facts.datasets import NTU120_CLASSES, PKU_CLASSES
from ..sequence import SkeletonFormatError
from .formats.lines import read_text
from .formats.sniffing import separator_of
from .readers import SUFFIXES, find_recordings, find_videos
from .remote import commit_of, is_address
from .text import NTU, UAV


@dataclass(frozen=True)
class InputFile:
    """An input file with its metadata.

    Attributes:
        name: Its path below the raw folder, which also names it in reports.
        path: Its path.
        label: Class index from its folder or the table; None for the file's own.
        subject: Subject from the table; None for the file's own.
        split: "train" or "test", or None.
        labels: File with its annotated actions, or None.
        columns: Further numbers from the table, by name; NaN where a cell is empty.
    """

    name: str
    path: Path
    label: int | None = None
    subject: int | str | None = None
    split: str | None = None
    labels: Path | None = None
    columns: tuple[tuple[str, float], ...] = ()


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and modification time of a file; zeros for none, as for a name that stands for several."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def find_sources(kind: str, raw: Path, films: str = "none") -> tuple[list[InputFile], list[str]]:
    """Find the input files of a data set.

    Args:
        kind: See `prepare.prepare`.
        raw: The folder, or the file.
        films: Which videos of a folder count: "none", "alone" (all, if there are no other recordings) or "all".

    Returns:
        The files in order, and the class names from folders.

    Raises:
        SkeletonFormatError: If there is none, or a table of files is malformed.
    """
    if kind in ("file", "csv"):
        if kind == "file" and is_address(raw):
            # By its commit, so that a run goes on with the data that it was begun with.
            return [InputFile(commit_of(raw), raw)], []
        if not raw.is_file():
            wrong = "it is a folder: take the kind 'folder'" if raw.is_dir() else "there is no such file"
            raise SkeletonFormatError(f"{raw}: {wrong}")
        return ([InputFile(raw.name, raw)], []) if kind == "file" else _read_list(raw)
    if not raw.is_dir():
        wrong = (
            "it is a file: take the kind 'file', or 'csv' for a table" if raw.is_file() else "there is no such folder"
        )
        raise SkeletonFormatError(f"{raw}: {wrong}")
    if kind == "folder":
        classes = sorted(
            folder.name for folder in raw.iterdir() if folder.is_dir() and not folder.name.startswith(".")
        )
        found = _find_classes(raw, classes, films)
        expected = f"class/recording with an ending of {', '.join(SUFFIXES)}" + ", or a video" * (films != "none")
    elif kind in ("pku1", "pku2"):
        classes = list(PKU_CLASSES)
        found = _find_pku(raw)
        expected = "0002-L.txt with skeletons"
    else:
        form, suffix = (UAV, ".txt") if kind == "uav" else (NTU, ".skeleton")
        max_action = {"ntu60": 60, "ntu120": 120}.get(kind, 10**9)
        classes = list(NTU120_CLASSES[: {"ntu60": 60, "ntu120": 120}.get(kind, 0)])
        found = []
        for file in sorted(raw.rglob(f"*{suffix}")):
            match = form.name.search(file.stem)
            if match and int(match["action"]) <= max_action:
                found.append(InputFile(file.relative_to(raw).as_posix(), file))
        expected = "S001C001P001R001A001.skeleton" if form is NTU else "a name of UAV-Human"
    if not found:
        raise SkeletonFormatError(f"{raw}: there is no file such as {expected} in it")
    return found, classes


def _find_classes(raw: Path, classes: list[str], films: str) -> list[InputFile]:
    """Recordings and videos in a folder of each class."""
    recordings = [(label, file) for label, name in enumerate(classes) for file in find_recordings(raw / name)]
    videos = [(label, file) for label, name in enumerate(classes) for file in find_videos(raw / name)]
    if recordings and videos and films != "all":
        notice(
            f"{raw}: videos beside recordings are left out ({len(videos)}): name them in a table to read them",
            "videos left out",
        )
        videos = []
    found = sorted(recordings if films == "none" else recordings + videos)
    return [InputFile(file.relative_to(raw).as_posix(), file, label) for label, file in found]


def _find_pku(raw: Path) -> list[InputFile]:
    """Videos of PKU-MMD, each with the label file of the same name, if there is one."""
    skeletons: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for file in sorted(raw.rglob("*.txt")):
        if not re.search(r"^[A-Za-z0-9]+-[LMR]$", file.stem):
            continue
        try:
            with open(file, "rb") as content:
                beginning = content.read(200)
        except OSError:
            # The error is reported when the file is read.
            beginning = b" "
        # An empty file in a folder of labels is a video without actions.
        is_label = b"," in beginning or (not beginning and "label" in file.parent.name.lower())
        kept = labels if is_label else skeletons
        if file.stem in kept:
            raise SkeletonFormatError(f"{file}: {kept[file.stem]} is the same video: keep one of them")
        kept[file.stem] = file
    return [
        InputFile(file.relative_to(raw).as_posix(), file, labels=labels.get(name)) for name, file in skeletons.items()
    ]


def _read_list(path: Path) -> tuple[list[InputFile], list[str]]:
    """The files of a table, and the classes in order of their names, or numerically."""
    try:
        text = read_text(path).decode()
        separator = separator_of(text.partition("\n")[0]) or ","
        rows = list(csv.DictReader(io.StringIO(text), delimiter=separator, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SkeletonFormatError(f"{path}: the table cannot be read: {str(error)[:80]}") from None
    if not rows or "file" not in rows[0]:
        raise SkeletonFormatError(
            f"{path}, line 1: there is no row below a column 'file': the columns are file, label, subject and split, "
            "and others that hold numbers"
        )
    further = [name for name in rows[0] if name not in ("file", "label", "subject", "split", None)]
    if taken := sorted({"labels", "subjects", "cameras", "setups", "split_test", "names", ""} & set(further)):
        remedy = "" if taken[0] else ": name it, or leave it out, as pandas does with to_csv(index=False)"
        raise SkeletonFormatError(f"{path}, line 1: a column cannot be called '{taken[0]}'{remedy}")
    names = {row["label"].strip() for row in rows if (row.get("label") or "").strip()}
    numbered = all(map(_is_number, names))
    classes = sorted(names, key=lambda name: (int(name) if numbered else 0, name))
    people = [(row.get("subject") or "").strip() for row in rows]
    numbered = all(_is_number(name) for name in people if name)
    sources = []
    for line, (row, person) in enumerate(zip(rows, people, strict=True), start=2):
        if None in row or None in row.values() or not row["file"].strip():
            raise SkeletonFormatError(f"{path}, line {line}: it has not as many cells as line 1, or names no file")
        label, split = (row.get("label") or "").strip(), (row.get("split") or "").strip() or None
        if split not in (None, "train", "test"):
            raise SkeletonFormatError(f"{path}, line {line}: split is '{split}', not train or test")
        subject = (int(person) if numbered else person) if person else None
        name = row["file"].strip()
        # Where cells are not separated by commas, numbers may have decimal ones.
        cells = {key: row[key] if separator == "," else row[key].replace(",", ".") for key in further}
        columns = tuple((key, _number_in(cell, f"{path}, line {line}", key)) for key, cell in cells.items())
        source = InputFile(name, path.parent / name, classes.index(label) if label else None, subject, split)
        sources.append(replace(source, columns=columns))
    if 0 < sum(source.split is None for source in sources) < len(sources):
        raise SkeletonFormatError(
            f"{path}: some files are on a side of the split and some are not: fill in the column"
        )
    repeated = [name for name, count in Counter(source.name for source in sources).items() if count > 1]
    if repeated:
        raise SkeletonFormatError(f"{path}: it names '{repeated[0]}' more than once")
    return sources, classes


def _number_in(cell: str, where: str, key: str) -> float:
    """The number of a cell; NaN of an empty one."""
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise SkeletonFormatError(
            f"{where}: '{cell[:40]}' in column '{key}' is no number: the columns are file, label, subject and split, "
            "and others that hold numbers, such as a score or a session's number"
        )
    return value


def _is_number(name: str) -> bool:
    """Whether a cell is a number that fits in 64 bits; a longer one is a name."""
    return name.isdecimal() and len(name) < 19


def read_names(path: str | os.PathLike) -> set[str]:
    """Names in a text file, one per line.

    Raises:
        SkeletonFormatError: If it cannot be read.
    """
    try:
        return {line.strip() for line in Path(path).read_text("ascii").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError):
        raise SkeletonFormatError(f"{path}: the list of names to leave out cannot be read") from None
