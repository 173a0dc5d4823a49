"""Reader of CSV tables: a row per frame and person, a column per coordinate of a joint."""

from __future__ import annotations

import csv
import math
import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import notice
from ..layouts import Layout, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .detections import LARGEST, max_numbers
from .reading import Reading
from .tracks import Detections, stack_people

# Columns of a table that say when a row is, in seconds, milliseconds or finer.
_TIMES = ("time", "timestamp", "t", "time_s", "time_ms", "timestamp_s", "timestamp_ms")


def read_csv(path: str | os.PathLike, reading: Reading = Reading()) -> SkeletonSequence:
    """Read a table with a row per frame (and person) and columns ``<joint>_x``, ``<joint>_y``, ``<joint>_z``.

    A column ``frame`` numbers the frames, or has their times, as a column ``time`` or ``timestamp`` does; a column
    ``person`` tells people apart; all may be missing. ``<joint>_score`` in place of ``_z`` makes it 2D with scores,
    neither makes it 2D. A joint with an empty coordinate was not seen. Numbers that are left out are frames in which
    nobody is seen; times are taken for frames as far apart as most of them are. Rows of the same frame and person are
    people told apart by where they are. All of these are told.

    Args:
        path: The file.
        reading: What the file does not say; every joint of its layout needs its columns.

    Raises:
        EmptySequenceError: If nobody is seen in it.
        SkeletonFormatError: If a column is missing or a cell is not a finite number; the message names file and line.
    """
    path, layout = Path(path), get_layout(reading.layout or reading.default_layout)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SkeletonFormatError(f"{path}: it is no CSV text: {str(error)[:80]}") from None
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    reader = csv.reader(text.splitlines())
    try:
        names = next((row for row in reader if row), [])
        line = reader.line_num
        below = next((row for row in reader if row), None)
        if below is None:
            raise SkeletonFormatError(f"{path}: there is no frame below the line of column names")
        columns, axes = _columns(path, layout, names, line)
        when = next((name for name in ("frame", *_TIMES) if name in columns), None)
        rows, frames, people, lines = _rows(path, reader, below, len(names), columns, layout, axes, when)
    except csv.Error as error:
        raise SkeletonFormatError(f"{path}, line {reader.line_num}: it is no CSV text: {str(error)[:80]}") from None
    places, num_frames, fps = _places_of_rows(path, when if frames else None, frames, people)
    points = np.frombuffer(rows).reshape(len(lines), layout.num_joints, len(axes))
    where = min(len(axes), 3) - (axes[-1] == "score")
    # NaN stands for an empty cell.
    points = np.where(np.isnan(points[..., :where]).any(-1, keepdims=True), 0, np.nan_to_num(points, nan=0.0))
    tracks = [person or None for person in people]
    if "person" not in columns and len(np.unique(places)) < len(places):
        notice(
            f"{path}: several rows have the same {when}: they are taken for people, told apart by where they are",
            "rows of the same frame",
        )
    dims = 3 if axes[-1] == "z" else 2
    keypoints = stack_people(
        str(path), Detections(places, tracks, points, dims), num_frames, max_numbers(path.stat().st_size), join=False
    )
    coordinates = {"z": "3d", "score": "2d+score"}.get(axes[-1], "2d")
    return reading.complete(SkeletonSequence(keypoints, layout, fps=fps, name=path.stem, coordinates=coordinates))


def _columns(path: Path, layout: Layout, names: list[str], line: int) -> tuple[dict[str, int], list[str]]:
    """Places of the columns by name, and what is known of a joint."""
    columns = {name.strip(): place for place, name in enumerate(names)}
    first = layout.joint_names[0]
    axes = ["x", "y"] + [axis for axis in ("z", "score") if f"{first}_{axis}" in columns][:1]
    wanted = [f"{joint}_{axis}" for joint in layout.joint_names for axis in axes]
    count = Counter(name.strip() for name in names)
    twice = next((name for name in (*wanted, "frame", "person", *_TIMES) if count[name] > 1), None)
    if twice is not None:
        raise SkeletonFormatError(f"{path}, line {line}: the column '{twice}' is there twice")
    lacking = next((name for name in wanted if name not in columns), None)
    if lacking is not None:
        raise SkeletonFormatError(f"{path}, line {line}: layout '{layout.name}' needs the column '{lacking}'")
    return columns, axes


def _rows(
    path: Path,
    reader: Any,
    below: list[str],
    width: int,
    columns: Mapping[str, int],
    layout: Layout,
    axes: Sequence[str],
    when: str | None,
) -> tuple[Any, list[float], list[str], list[int]]:
    """Numbers of all rows, NaN where a cell is empty; their frames, people and lines."""
    values = array("d")
    frames, people, lines = [], [], []
    wanted = [columns[f"{joint}_{axis}"] for joint in layout.joint_names for axis in axes]
    for row in chain([below], reader):
        if not row:
            continue
        line = reader.line_num
        if len(row) != width:
            raise SkeletonFormatError(f"{path}, line {line}: {len(row)} cells, the first line has {width}")
        values.extend(_cells(path, line, [row[column] for column in wanted]))
        if when is not None and when != "frame" and not _is_number(row[columns[when]]):
            # Times as "12:03:05" say no more than the order of the rows.
            when = None
        if when is not None:
            frame = _cell(path, line, row[columns[when]])
            if math.isnan(frame):
                raise SkeletonFormatError(f"{path}, line {line}: the cell of the column '{when}' is empty")
            frames.append(frame)
        people.append(row[columns["person"]].strip() if "person" in columns else "")
        lines.append(line)
    return values, frames if when is not None else [], people, lines


def _places_of_rows(
    path: Path, when: str | None, frames: Sequence[float], people: Sequence[str]
) -> tuple[np.ndarray, int | None, float | None]:
    """Frame of each row, from 0; how many frames there are, and frames per second where times say so."""
    if when is None:
        # The rows of each person are one after the other.
        order: Counter[str] = Counter()
        rows = []
        for person in people:
            rows.append(order[person])
            order[person] += 1
        return np.array(rows, dtype=np.int64), None, None
    values = np.array(frames)
    distinct, where = np.unique(values, return_inverse=True)
    if np.abs(distinct).max() >= LARGEST * 1024:
        raise SkeletonFormatError(f"{path}: a number in the column '{when}' is too large for a frame or a time")
    if len(distinct) == 1:
        return np.zeros(len(values), dtype=np.int64), None, None
    steps = np.diff(distinct)
    usual = float(np.median(steps))
    is_whole = (distinct == np.round(distinct)).all() and np.abs(distinct).max() < LARGEST
    step = math.gcd(*(distinct - distinct[0]).astype(np.int64).tolist()) if is_whole else 0
    fps = None
    # Times in milliseconds are whole numbers, too, but hardly ever as near to each other as they can be.
    if when == "frame" and is_whole and (steps == step).mean() >= 0.25:
        jumps = np.round(steps / step)
        if step > 1:
            notice(
                f"{path}: frame numbers are {step} apart: they are taken for frames one after the other",
                "frame numbers that are several apart",
            )
    else:
        jumps = np.maximum(np.round(steps / usual), 1)
        second = _second_of(when, usual)
        fps = None if second is None else float(second * jumps.sum() / (distinct[-1] - distinct[0]))
        notice(
            f"{path}: the column '{when}' rises by {usual:g} from row to row: it is taken for times, "
            + ("of an unknown unit" if fps is None else f"{fps:.4g} frames per second"),
            "times in place of frame numbers",
        )
    places = np.concatenate([[0.0], np.cumsum(jumps)])
    if places[-1] >= LARGEST:
        raise SkeletonFormatError(f"{path}: the column '{when}' speaks of more frames than a recording has")
    left_out = int(places[-1]) + 1 - len(distinct)
    if left_out:
        notice(
            f"{path}: {left_out} of {int(places[-1]) + 1} frames have no row: nobody is seen in them",
            "frames without a row",
        )
    return places.astype(np.int64)[where.ravel()], int(places[-1]) + 1, fps


def _second_of(name: str, step: float) -> float | None:
    """How many of its unit a column of times counts in a second; None where neither its name nor its steps say."""
    if name.endswith("_ms"):
        return 1000.0
    if name.endswith("_s") or step < 1:
        return 1.0
    # A sensor takes 1 to 200 pictures in a second; of times from 1 to 5 apart nobody knows.
    for second in (1e3, 1e6, 1e9):
        if second / 200 <= step <= second:
            return second
    return None


def _is_number(text: str) -> bool:
    try:
        return not text.strip() or math.isfinite(float(text))
    except ValueError:
        return False


def _cells(path: Path, line: int, cells: list[str]) -> list[float]:
    """Numbers of a row; NaN where a cell is empty."""
    try:
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        numbers = [math.inf]
    text = "".join(cells)
    # NaN and infinity as words, underscores, and numbers too large: each is looked at, and refused by name.
    if "n" in text or "N" in text or "_" in text or math.inf in numbers or -math.inf in numbers:
        return [_cell(path, line, cell) for cell in cells]
    return numbers


def _cell(path: Path, line: int, text: str) -> float:
    """A number; NaN where the cell is empty."""
    try:
        value = float(text)
    except ValueError:
        if not text.strip():
            return math.nan
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise SkeletonFormatError(f"{path}, line {line}: '{text[:40]}' is not a finite number")
    return value
