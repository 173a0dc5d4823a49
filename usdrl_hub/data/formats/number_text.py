"""Text that is nothing but numbers, a line for each frame: Kinect v2 as data sets have it, KERAAL, MSR-Action3D."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import EmptySequenceError, notice
from ...layouts import LAYOUTS, get_layout
from ...sequence import SkeletonFormatError, SkeletonSequence
from ..detections import max_numbers
from ..reading import OnError, Reading
from ..text import read_pku_skeleton
from .estimates import rate_of_times, to_sequence
from .lines import as_text, read_text
from .mediapipe import read_array
from .sniffing import cells_of
from .ultralytics import is_label, read_labels


@dataclass(frozen=True)
class _Form:
    """What the numbers of a line are: `persons` times the joints of a layout, each of so many numbers."""

    layout: str
    numbers: int
    persons: int = 1
    units: str | None = None


# Forms by the numbers of a line: x, y, z; with a tracking state; or with a quaternion.
_FORMS = {
    75: _Form("ntu25", 3),
    100: _Form("ntu25", 4),
    175: _Form("ntu25", 7),
    150: _Form("ntu25", 3, 2),
    200: _Form("ntu25", 4, 2),
    350: _Form("ntu25", 7, 2),
    60: _Form("kinect20", 3),
    80: _Form("kinect20", 4),
    119: _Form("keraal17", 7, units="mm"),
}
_LANDMARKS = (99, 132)
_MSR_NAME = re.compile(r"a(?P<action>[0-9]{2})_s(?P<subject>[0-9]{2})_e[0-9]{2}")
_MSR_JOINTS, _MSR_FPS = 20, 15.0


def read(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Yield the recording of a file of numbers, between commas, semicolons, tabs or blanks.

    A line has 75 (Kinect v2's 25 joints), 100 (each with a tracking state), 175 (each with a quaternion), 150 (two
    people), 60 or 80 (Kinect v1's 20 joints), 99 or 132 (MediaPipe) or 119 numbers (KERAAL's 17 trackers); one more
    in front is a frame number or a time. Lines of four numbers, 20 for each frame, are MSR-Action3D. With a layout
    named, its joints with two, three or four numbers each.

    Raises:
        EmptySequenceError: If all of it is zero.
        SkeletonFormatError: If a line has another number of numbers; the message names it.
    """
    lines = _lines(path)
    cells = cells_of(lines[0][1])
    if len(cells) == 150 and "," not in lines[0][1] and ";" not in lines[0][1] and reading.layout is None:
        yield read_pku_skeleton(path, reading)
        return
    if is_label(cells):
        notice(
            "a file of Ultralytics' labels holds one frame: the others are read with it where a folder is named, or "
            "'NAME_*.txt'"
        )
        yield to_sequence(path, read_labels([(0, path)], path), reading)
        return
    if len(cells) == 4 and reading.layout is None:
        yield _read_msr(path, lines, reading)
        return
    form, before = _form_of(path, len(cells), reading)
    rows = _rows(path, lines, len(cells))
    # Numbers of frames are one apart; times are not.
    fps = rate_of_times(rows[:, 0].tolist()) if before else None
    if form is None:
        found = read_array(rows[:, before:], str(path), reading)
        if found is not None:
            yield replace(found, name=path.stem, fps=found.fps or fps)
        return
    joints = get_layout(form.layout).num_joints
    points = rows[:, before:].reshape(len(rows), form.persons, joints, form.numbers)
    keypoints = points[..., :3]
    if form.numbers == 4 and np.isin(points[..., 3], (0, 1, 2)).all():
        # A state of 0 is a joint that the sensor does not track.
        keypoints = np.where(points[..., 3:] == 0, 0, keypoints) if points[..., 3].any() else keypoints
    if not keypoints.any():
        raise EmptySequenceError(f"{path}: every number is zero: no person is visible")
    sequence = SkeletonSequence(keypoints, form.layout, fps, path.stem)
    yield reading.complete(sequence, form.units if reading.units is None else None)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a file that are not empty, with their numbers from 1."""
    text = as_text(read_text(path))
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line and not line.isspace()]
    if not lines:
        raise SkeletonFormatError(f"{path}: the file is empty")
    return lines


def _form_of(path: Path, count: int, reading: Reading) -> tuple[_Form | None, int]:
    """What a line's numbers are, and how many of them stand in front of the joints; MediaPipe's form is None."""
    if reading.layout is not None:
        layout = get_layout(reading.layout)
        for before in (0, 1):
            for persons in (1, 2):
                each, rest = divmod(count - before, persons * layout.num_joints)
                if rest == 0 and each in (2, 3, 4, 7) and (each > 2 or not layout.is_3d):
                    if LAYOUTS.get(layout.name) == layout:
                        return _Form(layout.name, each, persons), before
    for before in (0, 1):
        if count - before in _LANDMARKS and reading.layout in (None, "mediapipe33"):
            return None, before
        if count - before in _FORMS and reading.layout is None:
            return _FORMS[count - before], before
    expected = (
        f"2, 3, 4 or 7 for each joint of layout '{get_layout(reading.layout).name}'"
        if reading.layout is not None
        else "150 (PKU-MMD), 75, 100 or 175 (Kinect v2), 60 or 80 (Kinect v1), 99 or 132 (MediaPipe): name the layout"
    )
    raise SkeletonFormatError(f"{path}, line 1: {count} numbers, expected {expected}")


def _rows(path: Path, lines: Sequence[tuple[int, str]], count: int) -> np.ndarray:
    """Numbers of all lines, float64 ``(lines, count)``."""
    if len(lines) * count > max_numbers(path.stat().st_size):
        raise SkeletonFormatError(f"{path}: it has more lines than numbers")
    values = np.zeros((len(lines), count))
    for row, (number, line) in enumerate(lines):
        cells = cells_of(line)
        if len(cells) != count:
            raise SkeletonFormatError(f"{path}, line {number}: {len(cells)} numbers, expected {count}")
        if "," in line and ("\t" in line or ";" in line or len(line.split()) == count > 1):
            cells = [cell.replace(",", ".") for cell in cells]
        try:
            values[row] = list(map(float, cells))
            wrong = "_" in line
        except ValueError:
            wrong = True
        if wrong:
            raise SkeletonFormatError(f"{path}, line {number}: '{_not_a_number(cells)[:40]}' is not a number")
    if not np.isfinite(values).all():
        first = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise SkeletonFormatError(f"{path}, line {lines[first][0]}: a coordinate is NaN or infinite")
    return values


def _not_a_number(cells: Sequence[str]) -> str:
    for cell in cells:
        try:
            float(cell)
        except ValueError:
            return cell
        if "_" in cell:
            return cell
    return ""


def _read_msr(path: Path, lines: Sequence[tuple[int, str]], reading: Reading) -> SkeletonSequence:
    """A recording of MSR-Action3D: x, y, z and confidence of 20 joints in lines one after the other."""
    frames, rest = divmod(len(lines), _MSR_JOINTS)
    if rest or not frames:
        raise SkeletonFormatError(
            f"{path}, line {lines[-1][0]}: {len(lines)} lines of 4 numbers are not 20 joints in each frame, as "
            "MSR-Action3D has them"
        )
    points = _rows(path, lines, 4).reshape(frames, 1, _MSR_JOINTS, 4)[..., :3]
    if not points.any():
        raise EmptySequenceError(f"{path}: every number is zero: no person is visible")
    # Nobody is 20 m to the side of a depth camera.
    if reading.units is None and np.median(np.abs(points[..., 0])) > 20:
        raise SkeletonFormatError(
            f"{path}: its numbers are places in the depth image, not in space: read MSR-Action3D's "
            "'_skeleton3D.txt' of the same recording"
        )
    match = _MSR_NAME.search(path.stem)
    return reading.complete(
        SkeletonSequence(
            points,
            "msr20",
            # The data set was recorded at 15 frames per second; other files of this form do not say.
            fps=_MSR_FPS if match else None,
            name=path.stem,
            label=int(match["action"]) - 1 if match and int(match["action"]) > 0 else None,
            subject=int(match["subject"]) if match else None,
        )
    )
