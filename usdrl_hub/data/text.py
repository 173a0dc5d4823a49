"""Readers of text formats: NTU RGB+D and UAV-Human recordings, PKU-MMD videos, labels and splits."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import EmptySequenceError
from ..persons import motion_energy
from ..sequence import MOST_BODIES, SkeletonFormatError, SkeletonSequence
from .decimals import plain_decimals
from .formats.lines import read_text
from .reading import Reading

_PKU_PERSONS, _PKU_JOINTS = 2, 25
# Numbers of a recording at most, besides one per byte of its file.
_MOST_NUMBERS = 2_000_000
_LINES_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class BodyText:
    """A text format: a frame count; per frame a body count; per body a line, a joint count and its joints.

    Attributes:
        layout: Joint layout.
        joints: Joints of a body.
        joint_fields: Fields of a joint line, the first three its coordinates; None takes any number of them.
        body_fields: Fields of a body's first line; None takes any number.
        name: Pattern of a file name without its ending, with groups ``subject``, ``action`` and, where it has them,
            ``camera`` and ``setup``.
        first_action: Number of the first class in a file name.
    """

    layout: str
    joints: int
    joint_fields: int | None
    body_fields: int | None
    name: re.Pattern[str]
    first_action: int


NTU = BodyText(
    layout="ntu25",
    joints=25,
    joint_fields=12,
    body_fields=10,
    name=re.compile(r"S(?P<setup>[0-9]{3})C(?P<camera>[0-9]{3})P(?P<subject>[0-9]{3})R[0-9]{3}A(?P<action>[0-9]{3})$"),
    first_action=1,
)
UAV = BodyText(
    layout="uav17",
    joints=17,
    joint_fields=None,
    body_fields=None,
    name=re.compile(r"P(?P<subject>\d{1,9})S(?P<setup>\d{1,9})G\d+B\d+H\d+UC\d+LC\d+A(?P<action>\d{1,9})R\d+_\d+$"),
    first_action=0,
)
# Kinect v2 records at this rate.
_NTU_FPS = 30.0


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of an ASCII file without empty ones at its end.

    Raises:
        SkeletonFormatError: If it is not text, or empty.
    """
    try:
        lines = read_text(path).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise SkeletonFormatError(f"{path}: it is no {what}, which is text") from None
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise SkeletonFormatError(f"{path}: the file is empty")
    return lines


def read_body_text(path: Path, form: BodyText, reading: Reading = Reading()) -> SkeletonSequence:
    """Read a recording; its bodies are in descending order of motion energy, as in the release.

    Raises:
        SkeletonFormatError: If the file is malformed; the message names file and line.
    """
    lines = read_lines(path, "skeleton recording")
    bodies = _bodies(path, lines, form)
    num_frames = _integer(path, lines, 0, "the number of frames")
    coordinates = _coordinates(path, lines, [line for _, _, line in bodies], form)
    persons = max(person for _, person, _ in bodies) + 1
    # Empty frames take two bytes each, a body in them hundreds.
    if num_frames * persons * form.joints * 3 > _MOST_NUMBERS + path.stat().st_size:
        seen = len({frame for frame, _, _ in bodies})
        raise SkeletonFormatError(f"{path}: it has {num_frames} frames, but only {seen} of them contain bodies")
    keypoints = np.zeros((num_frames, persons, form.joints, 3), dtype=np.float64)
    keypoints[[frame for frame, _, _ in bodies], [person for _, person, _ in bodies]] = coordinates
    if persons > 1:
        keypoints = keypoints[:, np.argsort(-motion_energy(keypoints), kind="stable")]
    match = form.name.search(path.stem)
    found = {key: int(value) for key, value in (match.groupdict() if match else {}).items()}
    sequence = SkeletonSequence(
        keypoints,
        layout=form.layout,
        fps=reading.fps or (_NTU_FPS if form is NTU else None),
        name=path.stem,
        label=found["action"] - form.first_action if match else None,
        subject=found.get("subject"),
        camera=found.get("camera"),
        setup=found.get("setup"),
    )
    return reading.complete(sequence)


def _bodies(path: Path, lines: list[str], form: BodyText) -> list[tuple[int, int, int]]:
    """Frame, index in the frame, and first joint line of every body that is read."""
    num_frames = _integer(path, lines, 0, "the number of frames")
    if num_frames == 0:
        raise SkeletonFormatError(f"{path}, line 1: the recording has zero frames")
    bodies = []
    line = 1
    for frame in range(num_frames):
        count = _integer(path, lines, line, f"the number of bodies in frame {frame}")
        line += 1
        for body in range(count):
            _fields(path, lines, line, form.body_fields, "a body")
            joints = _integer(path, lines, line + 1, "the number of joints")
            if joints != form.joints:
                raise SkeletonFormatError(f"{path}, line {line + 2}: {joints} joints, expected {form.joints}")
            if line + 2 + joints > len(lines):
                raise SkeletonFormatError(
                    f"{path}, line {len(lines)}: the file ends inside frame {frame} of {num_frames}: it is truncated"
                )
            if body < MOST_BODIES:
                bodies.append((frame, body, line + 2))
            line += 2 + joints
    if line < len(lines):
        raise SkeletonFormatError(f"{path}, line {line + 1}: text goes on after the last of {num_frames} frames")
    if not bodies:
        raise EmptySequenceError(f"{path}: no body in any of {num_frames} frames, so there is nothing to read")
    return bodies


def _coordinates(path: Path, lines: list[str], starts: list[int], form: BodyText) -> np.ndarray:
    """Coordinates ``(N, V, 3)`` of the bodies whose joint lines begin at `starts`."""
    rows = [line for start in starts for line in lines[start : start + form.joints]]
    # In blocks, because parsing takes a number per digit.
    parts = [
        plain_decimals(rows[start : start + _LINES_AT_ONCE], form.joint_fields)
        for start in range(0, len(rows), _LINES_AT_ONCE)
    ]
    coordinates, read = (np.concatenate(column) for column in zip(*parts, strict=True))
    for row in np.flatnonzero(~read):
        body, joint = divmod(int(row), form.joints)
        _fields(path, lines, starts[body] + joint, form.joint_fields, "a joint")
        coordinates[row] = [float(field) for field in rows[row].split()[:3]]
    if not np.isfinite(coordinates).all():
        body, joint = divmod(int(np.argwhere(~np.isfinite(coordinates))[0, 0]), form.joints)
        raise SkeletonFormatError(f"{path}, line {starts[body] + joint + 1}: a coordinate is NaN or infinite")
    return coordinates.reshape(len(starts), form.joints, 3)


def _fields(path: Path, lines: list[str], line: int, count: int | None, what: str) -> None:
    if line >= len(lines):
        raise SkeletonFormatError(
            f"{path}, line {len(lines)}: the file ends where {what} should follow: it is truncated"
        )
    fields = lines[line].split()
    if count is not None and len(fields) != count:
        raise SkeletonFormatError(f"{path}, line {line + 1}: {len(fields)} fields for {what}, expected {count}")
    if count is None and what == "a joint" and len(fields) < 3:
        raise SkeletonFormatError(f"{path}, line {line + 1}: {len(fields)} fields for {what}, expected 3 or more")
    try:
        sum(map(float, fields))
        plain = "_" not in lines[line]
    except ValueError:
        plain = False
    if not plain:
        for field in fields:
            _number(path, line, field)


def _number(path: Path, line: int, field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = None
    # Python parses 1_000 as a number.
    if value is None or "_" in field:
        raise SkeletonFormatError(f"{path}, line {line + 1}: '{field[:40]}' is not a number")
    return value


def _integer(path: Path, lines: list[str], line: int, what: str) -> int:
    if line >= len(lines):
        raise SkeletonFormatError(
            f"{path}, line {len(lines)}: the file ends where {what} should follow: it is truncated"
        )
    text = lines[line].strip()
    # A longer number is not a count.
    if not text.isdigit() or len(text) > 9:
        raise SkeletonFormatError(f"{path}, line {line + 1}: expected {what}, got '{text[:40]}'")
    return int(text)


def read_pku_skeleton(path: str | os.PathLike, reading: Reading = Reading()) -> SkeletonSequence:
    """Read an untrimmed PKU-MMD video: a line per frame, 2 persons x 25 joints x 3 coordinates in metres.

    Raises:
        SkeletonFormatError: If a line has another number of fields, or a field is not a finite number.
    """
    path = Path(path)
    lines = read_lines(path, "PKU-MMD skeleton file")
    size = _PKU_PERSONS * _PKU_JOINTS * 3
    # Each number takes at least a digit and a space; of more lines than fit, one is refused below.
    rows = min(len(lines), sum(map(len, lines)) // (2 * size - 1) + 1)
    values = np.empty((rows, size), dtype=np.float64)
    for number, line in enumerate(lines):
        fields = line.split()
        if len(fields) != size:
            raise SkeletonFormatError(f"{path}, line {number + 1}: {len(fields)} numbers, expected {size}")
        try:
            values[number] = [float(field) for field in fields]
            wrong = "_" in line
        except ValueError:
            wrong = True
        if wrong:
            values[number] = [_number(path, number, field) for field in fields]
    if not np.isfinite(values).all():
        first = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise SkeletonFormatError(f"{path}, line {first + 1}: a coordinate is NaN or infinite")
    match = re.search(r"-([LMR])$", path.stem)
    sequence = SkeletonSequence(
        values.reshape(-1, _PKU_PERSONS, _PKU_JOINTS, 3),
        layout="ntu25",
        fps=reading.fps or _NTU_FPS,
        name=path.stem,
        camera="LMR".index(match.group(1)) if match else None,
    )
    return reading.complete(sequence)


def read_pku_labels(path: str | os.PathLike) -> np.ndarray:
    """Read the actions in a PKU-MMD video: lines ``label,start,end,confidence``.

    Returns:
        Int64 array ``(actions, 3)`` of class (1-based, 1 to 51), start and end frame (exclusive), in the file's order.
        Start and end of a row are exchanged if the end comes first, as in one row of the data set.

    Raises:
        SkeletonFormatError: If a line is malformed.
    """
    path = Path(path)
    rows = []
    for number, line in enumerate(read_lines(path, "PKU-MMD label file")):
        fields = [field.strip() for field in line.split(",")]
        if len(fields) not in (3, 4) or not all(field.isdigit() and len(field) < 10 for field in fields):
            raise SkeletonFormatError(
                f"{path}, line {number + 1}: expected label,start,end,confidence, got '{line[:40]}'"
            )
        label, start, end = (int(field) for field in fields[:3])
        if not 1 <= label <= 51:
            raise SkeletonFormatError(f"{path}, line {number + 1}: class {label} is not one of 1 to 51")
        rows.append((label, min(start, end), max(start, end)))
    return np.array(rows, dtype=np.int64)


def read_pku_split(path: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Read a PKU-MMD split file: names of the training videos, names of the validation videos.

    Raises:
        SkeletonFormatError: If the file has not four lines, or a name is on both sides.
    """
    path = Path(path)
    lines = read_lines(path, "PKU-MMD split file")
    if len(lines) != 4:
        raise SkeletonFormatError(f"{path}, line {len(lines)}: expected four lines, a heading and names, twice")
    train, test = ([name.strip() for name in lines[line].split(",") if name.strip()] for line in (1, 3))
    both = sorted(set(train) & set(test))
    if both or not train or not test:
        what = f"'{both[0]}' is on both sides" if both else "a side is empty"
        raise SkeletonFormatError(f"{path}, line 4: {what}")
    return train, test
