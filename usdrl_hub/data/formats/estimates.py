"""What pose estimators say of a recording, whatever the form of their file, and the sequence made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import notice
from ...layouts import LayoutLike, get_layout
from ...sequence import SkeletonFormatError, SkeletonSequence, is_rate
from ..detections import (
    LARGEST,
    Detection,
    choose_layout,
    count_joints,
    frame_positions,
    max_numbers,
    stack_detections,
)
from ..reading import Reading

# Points of whole bodies by their number: how many of them, from the first, are the body without face and hands.
_BODIES = {133: 23, 136: 26}


@dataclass(frozen=True)
class Estimates:
    """What a file says of one recording.

    Attributes:
        detections: People seen: frame from 0, track or None, joints ``(V, 3)``: x, y, score, or x, y, z in 3D.
        num_frames: How many frames there are; as many as the detections need where None.
        numbers: ``"pixels"``, ``"shares"`` of the image's width and height, or ``"3d"``.
        has_scores: Whether the third number of a 2D joint is a score.
        layout: Joint layout where the file names its joints.
        units: Unit of 3D joints where it is not metres.
        fields: Further fields of the sequence, as the file has them.
    """

    detections: Sequence[Detection]
    num_frames: int | None = None
    numbers: str = "pixels"
    has_scores: bool = True
    layout: LayoutLike | None = None
    units: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def to_sequence(
    path: Path, found: Estimates, reading: Reading, *, name: str | None = None, size: int | None = None
) -> SkeletonSequence:
    """The recording that a file describes.

    Args:
        path: The file.
        found: What the file says.
        reading: What it does not say. An image's size turns shares of it into pixels.
        name: Name of the recording; the file's where None and the fields do not say.
        size: Bytes of its files; those of the file where None.

    Raises:
        EmptySequenceError: If no person is visible.
        SkeletonFormatError: If no layout fits, or a few people are spread over frames without end.
    """
    where = str(path)
    is_3d = found.numbers == "3d"
    joints = count_joints(Path(where), found.detections)
    detections = found.detections
    layout: LayoutLike
    if found.layout is not None:
        layout = get_layout(found.layout)
    else:
        joints, detections = _body(where, joints, detections, reading)
        layout = choose_layout(where, joints, reading, is_3d)
    most = max_numbers(path.stat().st_size if size is None else size)
    keypoints = stack_detections(where, detections, found.num_frames, most, 3 if is_3d else 2)
    fields: dict[str, Any] = {"name": name or path.stem, **found.fields}
    if is_3d:
        fields["coordinates"] = "3d"
        if reading.up is not None:
            fields.pop("up", None)
    else:
        fields["coordinates"] = "2d+score" if found.has_scores else "2d"
        keypoints = keypoints if found.has_scores else keypoints[..., :2]
        if found.numbers == "shares":
            height, width = fields.get("image_shape") or reading.image_shape or (1.0, 1.0)
            keypoints[..., 0] *= width
            keypoints[..., 1] *= height
            fields["image_shape"] = (float(height), float(width))
    if not is_rate(fields.get("fps")):
        fields.pop("fps", None)
    sequence = SkeletonSequence(keypoints, layout, **fields)
    return reading.complete(sequence, found.units if reading.units is None else None)


def _body(
    where: str, joints: int, detections: Sequence[Detection], reading: Reading
) -> tuple[int, Sequence[Detection]]:
    """The joints of the body of people who have points of face and hands, too."""
    wanted = None if reading.layout is None else get_layout(reading.layout).num_joints
    if wanted == joints:
        return joints, detections
    count = _BODIES.get(joints)
    # Halpe's and COCO-WholeBody's points begin with COCO's 17.
    if wanted == 17 and joints in (*_BODIES, 26):
        count = 17
    if count is None:
        return joints, detections
    if joints in _BODIES:
        notice(
            f"{where}: of {joints} points the {count} of the body are read, not those of face and hands",
            "points of face and hands left out",
        )
    return count, [(frame, track, row[:count]) for frame, track, row in detections]


def numbered_frames(where: str | Path, numbers: Sequence[Any], key: str) -> tuple[list[int], int]:
    """Frame of each entry by the number that it has, from 0, and how many frames there are.

    Args:
        where: What to call the file.
        numbers: The numbers of the entries; whole ones that may also be written as 3.0 or "3".
        key: What the file calls them.

    Raises:
        SkeletonFormatError: If one is not a frame number, or two are the same.
    """
    found = [frame_number(number) for number in numbers]
    if None in found:
        raise SkeletonFormatError(f"{where}: '{key}' of entry {found.index(None)} is not a frame number")
    if len(set(found)) < len(found):
        raise SkeletonFormatError(f"{where}: several frames have the same '{key}'")
    places, count = frame_positions(where, [number for number in found if number is not None]) if found else ({}, 0)
    return [places[number] for number in found if number is not None], count


def frame_number(value: Any) -> int | None:
    """A whole number that numbers a frame; None where it is none."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 30 and "_" not in value else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST:
        return None
    return int(value) if value == int(value) else None


def rate_of_times(times: Iterable[Any], name: str = "") -> float | None:
    """Frames per second of the times of frames; None where they are none.

    Args:
        times: A time for each frame.
        name: What the file calls them: ``_ms`` or ``_usec`` at its end says the unit.
    """
    # NaN is not below anything.
    values = [value for value in times if isinstance(value, int | float) and abs(value) < 1e18]
    steps = np.diff(np.array(values, dtype=np.float64))
    steps = steps[steps > 0]
    if not len(steps):
        return None
    usual = float(np.median(steps))
    second = second_of(name, usual)
    if second is None:
        return None
    near = steps[np.abs(steps - usual) <= 0.5 * usual]
    rate = second / float(near.mean() if len(near) else usual)
    # Times are rounded: 33 ms are 30 frames per second.
    return float(round(rate)) if abs(rate - round(rate)) < 0.02 * rate and rate > 5 else rate


def second_of(name: str, step: float) -> float | None:
    """How many of its unit times count in a second; None where neither their name nor their steps say."""
    for ending, second in (("_ms", 1e3), ("_msec", 1e3), ("_us", 1e6), ("_usec", 1e6), ("_ns", 1e9), ("_nsec", 1e9)):
        if name.lower().endswith(ending):
            return second
    if name.lower().endswith(("_s", "_sec")) or step < 1:
        return 1.0
    # A sensor takes 1 to 200 pictures in a second; times from 1 to 5 apart are ambiguous.
    return next((second for second in (1e3, 1e6, 1e9) if second / 200 <= step <= second), None)


def rate_of_file(value: Any) -> float | None:
    """A file's frames per second; None where it is not a rate."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and is_rate(value)
    return float(value) if is_number else None
