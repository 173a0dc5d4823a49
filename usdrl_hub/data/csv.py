"""Reader of tables: a row per frame and person with a column per coordinate of a joint, or a row per joint."""

from __future__ import annotations

import csv
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import notice
from ..layouts import Layout, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .detections import LARGEST, layouts_with, max_numbers
from .formats import mediapipe
from .formats.columns import (
    FRAMES,
    PEOPLE,
    TIMES,
    Columns,
    column_of,
    count_joints,
    layout_of_rows,
    recognise,
    time_column,
)
from .formats.estimates import second_of
from .formats.lines import read_text
from .formats.sniffing import separator_of
from .reading import Reading
from .tracks import Detections, stack_people

# What pandas, R and spreadsheets write for a number that is not there, in lower case.
_EMPTY = ("", "nan", "na", "n/a", "null", "none")


@dataclass
class _Rows:
    """The rows of a table.

    Attributes:
        values: Coordinates of all rows, NaN for an empty cell.
        frames: Frame number or time of each row; empty without such a column.
        people: Person of each row.
        lines: Line of each row in the file.
        joints: Joint of each row, in a table with a row per joint.
    """

    values: Any = field(default_factory=lambda: array("d"))
    frames: list[float] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    joints: list[str] = field(default_factory=list)


def read_csv(path: str | os.PathLike, reading: Reading = Reading()) -> SkeletonSequence:
    """Read a table with a row per frame (and person) and columns ``<joint>_x``, ``<joint>_y``, ``<joint>_z``.

    Cells are separated by commas, semicolons (also with decimal commas), tabs or blanks. Columns may also be called
    ``SpineBase_X``, ``NOSE_x`` or ``nose.x``, ``x1, y1, z1, v1`` if joints are numbered, or ``landmark, x, y, z`` if
    each joint has a row; the layout is then that of these joints. A column ``frame`` has the numbers of the frames, or
    their times, as a column ``time`` or ``timestamp``; a column ``person`` identifies people; all are optional. With
    ``<joint>_score`` in place of ``_z`` the keypoints are 2D with scores, with neither 2D. A joint with an empty
    coordinate is missing. Missing frame numbers are frames in which no person is seen; times are rounded to multiples
    of their median step. Rows of the same frame without persons are people, tracked by position. Warnings report these
    cases.

    Args:
        path: The file.
        reading: What the file does not say; every joint of its layout needs its columns.

    Raises:
        EmptySequenceError: If no person is seen.
        SkeletonFormatError: If a column is missing or a cell is not a finite number; the message names file and line.
    """
    path = Path(path)
    reader = _reader(path)
    try:
        names: list[str] = next((row for row in reader if row), [])
        names = names[:-1] if len(names) > 1 and not names[-1].strip() else names
        line = reader.line_num
        below = next((row for row in reader if row), None)
        if below is None:
            raise SkeletonFormatError(f"{path}: there is no frame below the line of column names")
        columns = _columns(path, reading, names, line)
        rows = _rows(path, reader, below, len(names), columns)
    except csv.Error as error:
        raise SkeletonFormatError(f"{path}, line {reader.line_num}: it is not CSV text: {str(error)[:80]}") from None
    layout, points = columns.layout, np.frombuffer(rows.values).reshape(len(rows.lines), -1, len(columns.axes))
    if columns.joint is not None:
        layout, points = _widen(path, rows, points, columns, reading)
    when = None if columns.when is None or not rows.frames else columns.when[1]
    places, num_frames, fps = _places_of_rows(path, when, rows.frames, rows.people)
    if columns.person is None and len(np.unique(places)) < len(places):
        notice(
            f"{path}: several rows have the same {when}: they are read as several people, tracked by position",
            "rows of the same frame",
        )
    points, fields = _points(points, columns.axes, layout, reading)
    keypoints = stack_people(
        str(path),
        Detections(
            places, [person or None for person in rows.people], points, 3 if "coordinates" not in fields else 2
        ),
        num_frames,
        max_numbers(path.stat().st_size),
        join=False,
    )
    return reading.complete(
        SkeletonSequence(keypoints, layout, **{"fps": fps, "name": path.stem, "coordinates": "3d", **fields})
    )


def _reader(path: Path) -> Any:
    """The rows of a table; its separator is recognised."""
    try:
        text = read_text(path).decode()
    except UnicodeDecodeError as error:
        raise SkeletonFormatError(f"{path}: it is not CSV text: {str(error)[:80]}") from None
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    separator = separator_of(text.lstrip().partition("\n")[0])
    if separator is None and " " in text.strip().partition("\n")[0]:
        separator, text = "\t", re.sub(r"[ \t]+", "\t", re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text))
    if separator in (";", "\t"):
        text = re.sub(r"(?<=[0-9]),(?=[0-9])", ".", text)
    return csv.reader(text.split("\n"), delimiter=separator or ",")


def _columns(path: Path, reading: Reading, names: list[str], line: int) -> Columns:
    """The meaning of the columns: the joints of the layout by its own names, else by other known names."""
    layout = get_layout(reading.layout or reading.default_layout)
    columns = {name.strip(): place for place, name in enumerate(names)}
    first = layout.joint_names[0]
    axes = ["x", "y"] + [axis for axis in ("z", "score") if f"{first}_{axis}" in columns][:1]
    wanted = [[f"{joint}_{axis}" for axis in axes] for joint in layout.joint_names]
    count = Counter(name.strip() for name in names)
    twice = next((name for name in (*chain(*wanted), *FRAMES, *PEOPLE, *TIMES) if count[name] > 1), None)
    if twice is not None:
        raise SkeletonFormatError(f"{path}, line {line}: the column '{twice}' is there twice")
    lacking = next((name for name in chain(*wanted) if name not in columns), None)
    if lacking is None:
        places = [[columns[name] for name in joint] for joint in wanted]
        return Columns(layout, places, tuple(axes), time_column(names), column_of(names, PEOPLE))
    found = recognise(names, reading)
    if found is None:
        joints, is_3d = count_joints(names)
        remedy = f": of its {joints} joints, name the layout{layouts_with(joints, is_3d)}" if joints > 1 else ""
        without = [joint for joint in layout.joint_names if not any(f"{joint}_{axis}" in columns for axis in axes)]
        if 0 < len(without) < layout.num_joints / 2:
            remedy = (
                f": it has those of {layout.num_joints - len(without)} joints: add empty columns of "
                f"{', '.join(without)}, or describe your joints in a JSON file and name it with --layout"
            )
        raise SkeletonFormatError(f"{path}, line {line}: layout '{layout.name}' needs the column '{lacking}'{remedy}")
    return found


def _rows(path: Path, reader: Any, below: list[str], width: int, columns: Columns) -> _Rows:
    """Coordinates of all rows, with their frames, people and lines."""
    rows = _Rows()
    wanted = list(chain(*columns.places))
    when = columns.when
    for row in chain([below], reader):
        if not row:
            continue
        line = reader.line_num
        if len(row) == width + 1 and not row[-1].strip():
            row.pop()
        if len(row) != width:
            raise SkeletonFormatError(f"{path}, line {line}: {len(row)} cells, the first line has {width}")
        rows.values.extend(_cells(path, line, [row[column] for column in wanted]))
        if when is not None and when[1] != "frame" and not _is_number(row[when[0]]):
            # Times such as "12:03:05" are not parsed: the order of the rows is that of time.
            when = None
        if when is not None:
            frame = _cell(path, line, row[when[0]])
            if math.isnan(frame):
                raise SkeletonFormatError(f"{path}, line {line}: the cell of the column '{when[1]}' is empty")
            rows.frames.append(frame)
        rows.people.append("" if columns.person is None else row[columns.person].strip())
        if columns.joint is not None:
            rows.joints.append(row[columns.joint].strip())
        rows.lines.append(line)
    if when is None:
        rows.frames = []
    return rows


def _widen(
    path: Path, rows: _Rows, points: np.ndarray, columns: Columns, reading: Reading
) -> tuple[Layout, np.ndarray]:
    """Join rows of joints to rows of frames, with joints ``(N, V, C)``, NaN for a missing row."""
    different = list(dict.fromkeys(rows.joints))
    found = layout_of_rows(different, "z" in columns.axes, reading) if len(different) < 3000 else None
    if found is None:
        raise SkeletonFormatError(
            f"{path}: no layout has its {len(different)} joints, such as '{different[0][:40]}': name the layout"
        )
    layout, joint_of = found
    frame_of, starts = _group(path, rows)
    wide = np.full((len(starts), layout.num_joints, points.shape[-1]), np.nan)
    joints = [joint_of.get(joint, -1) for joint in rows.joints]
    known = np.array(joints) >= 0
    wide[np.array(frame_of)[known], np.array(joints)[known]] = points[known, 0]
    rows.frames = [rows.frames[start] for start in starts] if rows.frames else []
    rows.people = [rows.people[start] for start in starts]
    rows.lines = [rows.lines[start] for start in starts]
    return layout, wide


def _group(path: Path, rows: _Rows) -> tuple[list[int], list[int]]:
    """Index of the frame (of a person) of each row of a joint, and the first row of each frame."""
    groups: dict[Any, int] = {}
    starts: list[int] = []
    frame_of: list[int] = []
    there: set[tuple[int, str]] = set()
    count = 0
    for number, (joint, person) in enumerate(zip(rows.joints, rows.people, strict=True)):
        key = (rows.frames[number] if rows.frames else count, person)
        if (groups.get(key, -1), joint) in there:
            if rows.frames:
                raise SkeletonFormatError(
                    f"{path}, line {rows.lines[number]}: the joint '{joint[:40]}' has a second row in its frame"
                )
            # Without numbers, a frame ends when a joint repeats.
            count += 1
            key = (count, person)
        group = groups.setdefault(key, len(groups))
        if group == len(starts):
            starts.append(number)
        frame_of.append(group)
        there.add((group, joint))
    return frame_of, starts


def _points(
    points: np.ndarray, axes: Sequence[str], layout: Layout, reading: Reading
) -> tuple[np.ndarray, dict[str, Any]]:
    """Joints ``(N, V, C)``, all zero if a coordinate is missing, and the fields of 2D keypoints."""
    seen = ~np.isnan(points[..., : 3 if "z" in axes else 2]).any(-1, keepdims=True)
    points = np.where(seen, np.nan_to_num(points, nan=0.0), 0)
    if "z" not in axes:
        return points, {"coordinates": "2d+score" if "score" in axes else "2d"}
    if layout.name != "mediapipe33":
        return points[..., :3], {}
    if not mediapipe.is_in_image(points):
        visible = points[..., 3] if "score" in axes else None
        return mediapipe.keep_visible(mediapipe.off_origin(points[..., :3]), visible), {}
    height, width = reading.image_shape or (1.0, 1.0)
    flat = points[..., [0, 1, 3]] if "score" in axes else points[..., :2]
    shape = {"image_shape": (float(height), float(width))}
    return flat * np.array([width, height, 1.0][: flat.shape[-1]]), {
        "coordinates": "2d+score" if "score" in axes else "2d",
        **shape,
    }


def _places_of_rows(
    path: Path, when: str | None, frames: Sequence[float], people: Sequence[str]
) -> tuple[np.ndarray, int | None, float | None]:
    """Frame of each row, from 0; the number of frames; and the frame rate, if times give one."""
    if when is None:
        # The rows of each person are consecutive frames.
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
                f"{path}: frame numbers are {step} apart: they are read as consecutive frames",
                "frame numbers that are several apart",
            )
    else:
        jumps = np.maximum(np.round(steps / usual), 1)
        second = second_of(when, usual)
        fps = None if second is None else float(second * jumps.sum() / (distinct[-1] - distinct[0]))
        notice(
            f"{path}: the column '{when}' rises by {usual:g} from row to row: it is taken for times, "
            + ("of an unknown unit" if fps is None else f"{fps:.4g} frames per second"),
            "times in place of frame numbers",
        )
    places = np.concatenate([[0.0], np.cumsum(jumps)])
    if places[-1] >= LARGEST:
        raise SkeletonFormatError(f"{path}: the column '{when}' has frame numbers beyond those of a recording")
    left_out = int(places[-1]) + 1 - len(distinct)
    if left_out:
        notice(
            f"{path}: {left_out} of {int(places[-1]) + 1} frames have no row: they are read as frames without people",
            "frames without a row",
        )
    return places.astype(np.int64)[where.ravel()], int(places[-1]) + 1, fps


def _is_number(text: str) -> bool:
    try:
        return not text.strip() or math.isfinite(float(text))
    except ValueError:
        return False


def _cells(path: Path, line: int, cells: list[str]) -> list[float]:
    """Numbers of a row; NaN for an empty cell."""
    try:
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        numbers = [math.inf]
    text = "".join(cells)
    # Words such as nan and inf, underscores and overflow: parsed one by one, to name the cell in the error.
    if "n" in text or "N" in text or "_" in text or math.inf in numbers or -math.inf in numbers:
        return [_cell(path, line, cell) for cell in cells]
    return numbers


def _cell(path: Path, line: int, text: str) -> float:
    """A number; NaN for an empty cell, or for what tables write in its place."""
    if text.strip().lower() in _EMPTY:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise SkeletonFormatError(f"{path}, line {line}: '{text[:40]}' is not a finite number")
    return value
