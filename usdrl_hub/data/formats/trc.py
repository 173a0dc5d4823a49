"""TRC: markers or joints as a table of text, of OpenSim, OpenCap, Pose2Sim and Cortex."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import notice
from ...sequence import SkeletonFormatError, SkeletonSequence
from ..reading import OnError, Reading
from .bodies import check_size, make_sequence, unit_of
from .lines import as_text, parse_rows, read_text
from .markers import find_people

_HEAD = 5
_MAX_POINTS = 10_000


def read(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Read a TRC file: joints by the names of its points, ``Units`` and ``DataRate`` as it says, y up mostly.

    Args:
        path: The file.
        reading: A layout all of whose joints are points of the file is taken as it is.
        on_error: Not called: a file holds one recording.

    Raises:
        SkeletonFormatError: If it is not TRC, is malformed, or its points make no whole body.
    """
    names, points, rate, unit = read_points(path)
    keypoints, layout = find_people(path, names, points, reading)
    yield make_sequence(path, keypoints, layout, reading, fps=rate, units=unit_of(unit), up="y", kind="TRC")


def read_points(path: Path) -> tuple[list[str], np.ndarray, float | None, str]:
    """Names, positions ``(T, P, 3)``, frames per second and unit of the points; NaN where one is not seen.

    Raises:
        SkeletonFormatError: If it is not TRC, or is malformed.
    """
    content = read_text(path)
    *head, block = (content.split(b"\n", _HEAD) + [b""] * _HEAD)[: _HEAD + 1]
    if not head[0].lstrip().lower().startswith(b"pathfiletype"):
        raise SkeletonFormatError(f"{path}: it is not a TRC file: its first line does not begin with PathFileType")
    # The separator is the one between the names of points; blanks may be part of a name.
    separator = b"\t" if b"\t" in head[3] else b"," if b"," in head[3] else b" "
    keys, values = ([as_text(field).strip() for field in line.split(separator)] for line in head[1:3])
    facts = {key.lower(): value for key, value in zip(keys, values, strict=False)}
    cells = [as_text(cell).strip() for cell in head[3].split(separator)]
    names = [cell for cell in cells[2:] if cell]
    axes = sum(bool(cell.strip()) for cell in head[4].split(separator))
    if not names or not cells[0].lower().startswith("frame") or len(names) > _MAX_POINTS:
        raise SkeletonFormatError(f"{path}, line 4: expected Frame#, Time and the names of points")
    if axes != 3 * len(names):
        raise SkeletonFormatError(f"{path}, line 5: {axes} coordinates of {len(names)} points, expected three of each")
    columns = 2 + 3 * len(names)
    rows = _rows(path, block, separator, columns)
    if np.isinf(rows).any():
        raise SkeletonFormatError(f"{path}, line {_HEAD + 1}: a number in it is infinite")
    points = rows[:, 2:].reshape(len(rows), -1, 3)
    # Some programs write zeros where a point is not seen.
    points[(points == 0).all(-1)] = np.nan
    return names, points, _rate(facts.get("datarate", ""), rows[:, 1]), facts.get("units", "")


def _rows(path: Path, block: bytes, separator: bytes, columns: int) -> np.ndarray:
    """The rows of the table ``(T, columns)``; NaN where a cell is empty, or is not there at the end of a row."""
    text = np.frombuffer(b"\n" + block + b"\n", np.uint8)
    line_ends = np.flatnonzero(text == ord("\n"))
    filled = np.diff(np.searchsorted(np.flatnonzero((text > ord(" ")) & (text != separator[0])), line_ends))
    if not filled.any():
        raise SkeletonFormatError(f"{path}, line {_HEAD + 1}: there is no frame in it")
    if separator == b" ":
        return parse_rows(block, columns, path, _HEAD + 1, "a frame")
    check_size(path, int((filled > 0).sum()), columns // 3)
    marks = np.diff(np.searchsorted(np.flatnonzero(text == separator[0]), line_ends))
    cells = int(marks[filled.argmax()]) + 1
    is_table = (
        (marks[filled > 0] == cells - 1).all() and not marks[filled == 0].any() and cells in (columns, columns + 1)
    )
    if not is_table or b" " in block or b"\n" + separator in block or block.startswith(separator):
        return parse_rows(_with_nan(block, separator, columns, path), columns, path, _HEAD + 1, "a frame")
    # Where all rows have as many cells, the empty ones are filled at once.
    for _ in range(2):
        block = block.replace(separator + separator, separator + b"nan" + separator)
    block = (block + b"\n").replace(separator + b"\n", separator + b"nan\n")
    return parse_rows(block.replace(separator, b" "), cells, path, _HEAD + 1, "a frame")[:, :columns]


def _with_nan(block: bytes, separator: bytes, columns: int, path: Path) -> bytes:
    """The table with NaN for each empty cell, without cells behind `columns`; lines without any cell stay empty."""
    lines, unnamed = block.split(b"\n"), False
    for number, line in enumerate(lines):
        if not line.strip(b" \t\f\v" + separator):
            lines[number] = b""
            continue
        cells = [cell.strip() or b"nan" for cell in line.split(separator)]
        more = len(cells) - columns
        if more > 0 and any(cell != b"nan" for cell in cells[columns:]):
            # Cortex writes points without a name behind those that have one.
            if (more - (cells[-1] == b"nan")) % 3:
                raise SkeletonFormatError(
                    f"{path}, line {_HEAD + 1 + number}: {len(cells)} cells for a frame, expected {columns}"
                )
            unnamed = True
        lines[number] = b" ".join(cells[:columns] + [b"nan"] * -more)
    if unnamed:
        notice(f"{path}: points behind those that have names are left out", "points without a name")
    return b"\n".join(lines)


def _rate(text: str, times: np.ndarray) -> float | None:
    """Frames per second as the head says, else by the column of times."""
    try:
        rate = float(text.replace(",", "."))
    except ValueError:
        rate = 0.0
    if 0.01 <= rate <= 1e5:
        return rate
    steps = np.diff(times[np.isfinite(times)])
    step = float(np.median(steps)) if len(steps) else 0.0
    return round(1 / step, 3) if 1e-5 < step < 100 else None
