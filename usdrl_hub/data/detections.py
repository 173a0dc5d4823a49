"""Detections of people in the frames of a recording, from files of pose estimators."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EmptySequenceError, notice
from ..layouts import LAYOUTS, Layout, get_layout
from ..sequence import SkeletonFormatError
from .pickles import without_collection
from .reading import Reading
from .tracks import Detections, stack_people

# The usual layout of pose estimators, by the number of joints.
_BY_JOINTS = {
    17: "coco17",
    18: "openpose18",
    23: "wholebody23",
    25: "openpose25",
    26: "halpe26",
    33: "mediapipe33",
}
_BY_JOINTS_3D = {19: "panoptic19", 25: "ntu25", 32: "azure32", 33: "mediapipe33"}
# Frame numbers and times at most.
LARGEST = 1 << 53
# A person in a frame: (frame, track or None, joints (V, 3)).
Detection = tuple[int, Hashable | None, np.ndarray]


def max_numbers(size: int) -> int:
    """Upper bound on the count of numbers in a recording from a file of `size` bytes."""
    return 6_000_000 + 5 * size


def load_json(path: Path) -> Any:
    """Load a JSON file; one of JSON lines becomes a list of them.

    Raises:
        SkeletonFormatError: If it cannot be read or is not JSON.
    """
    try:
        content = path.read_bytes()
        with without_collection():
            try:
                return json.loads(content)
            except json.JSONDecodeError as error:
                if error.msg != "Extra data":
                    raise
                lines = re.split(r"[\r\n]+", content.decode(json.detect_encoding(content)))
                return [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SkeletonFormatError(f"{path}: it is not JSON: {' '.join(str(error).split())[:120]}") from None


def choose_layout(where: str | Path, joints: int, reading: Reading, is_3d: bool) -> Layout:
    """The layout of a file's joints: the one given, else a model's if it fits, else the usual one.

    Raises:
        SkeletonFormatError: If the layout given does not fit, or none is known.
    """
    known = _BY_JOINTS_3D if is_3d else _BY_JOINTS
    for layout in (reading.layout, reading.default_layout):
        chosen = None if layout is None else get_layout(layout)
        if chosen is None:
            continue
        if chosen.num_joints == joints and (is_3d or not chosen.is_3d or chosen.name == known.get(joints)):
            return chosen
        if layout is reading.layout:
            has = f"{chosen.num_joints} {'3D' if chosen.is_3d else '2D'} joints"
            remedy = f"leave the layout out for '{known[joints]}'" if joints in known else "name the file's own layout"
            raise SkeletonFormatError(
                f"{where}: it has {joints} {'3D' if is_3d else '2D'} joints, but layout '{chosen.name}' has {has}: "
                f"{remedy}"
            )
    if joints not in known:
        raise SkeletonFormatError(
            f"{where}: no layout of a pose estimator has {joints} joints: name the layout{layouts_with(joints, is_3d)}"
        )
    return get_layout(known[joints])


def layouts_with(joints: int, is_3d: bool) -> str:
    """Layouts that have so many joints, in words that follow "name the layout"; empty where there are none."""
    fitting = [name for name, layout in LAYOUTS.items() if layout.num_joints == joints and (is_3d or not layout.is_3d)]
    return f", such as {', '.join(fitting[:6])}" if fitting else ""


def frame_positions(where: str | Path, numbers: Iterable[int]) -> tuple[dict[int, int], int]:
    """Position of each numbered frame in the recording, and the number of frames.

    Numbers may start anywhere and have a constant step, such as every fifth frame of a video.
    """
    distinct = sorted(set(numbers))
    step = math.gcd(*(number - distinct[0] for number in distinct)) or 1
    if step > 1:
        notice(
            f"{where}: frame numbers are {step} apart: they are read as consecutive frames",
            "frame numbers that are several apart",
        )
    return {number: (number - distinct[0]) // step for number in distinct}, (distinct[-1] - distinct[0]) // step + 1


def to_numbers(path: str | Path, frame: int, values: Any) -> np.ndarray:
    """Keypoints of a frame as a float64 array.

    Raises:
        SkeletonFormatError: If one is missing, no number, NaN or infinite.
    """
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise SkeletonFormatError(f"{path}, frame {frame}: the keypoints are not all numbers") from None
    if not np.isfinite(array).all():
        what = (
            "missing, NaN or infinite"
            if values is None or None in np.ravel(np.array(values, dtype=object))
            else "NaN or infinite"
        )
        raise SkeletonFormatError(f"{path}, frame {frame}: a keypoint is {what}")
    return array


def joint_row(path: Path, frame: int, person: Any, key: str) -> np.ndarray:
    """Joints ``(V, 3)`` of a person from a flat list of x, y and score.

    Raises:
        SkeletonFormatError: If `key` holds no such list.
    """
    values = person.get(key) if isinstance(person, dict) else None
    if not isinstance(values, list) or not values or len(values) % 3:
        raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of x, y, score for each joint")
    array = to_numbers(path, frame, values)
    if array.ndim != 1:
        raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a flat list of numbers")
    return array.reshape(-1, 3)


def track_number(value: Any) -> Hashable | None:
    """A track number or name; None where the file has none. Some writers wrap the number in a list."""
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value in (-1, ""):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def count_joints(path: Path, detections: Sequence[Detection]) -> int:
    """Number of joints that all detections have.

    Raises:
        EmptySequenceError: If there is no detection.
        SkeletonFormatError: If their numbers of joints differ.
    """
    if not detections:
        raise EmptySequenceError(f"{path}: no person is detected in it")
    joints = {len(row) for _, _, row in detections}
    if len(joints) > 1:
        raise SkeletonFormatError(f"{path}: people have {min(joints)} and {max(joints)} joints: the file is mixed")
    return joints.pop()


def stack_detections(
    path: str | Path,
    detections: Sequence[Detection],
    num_frames: int | None = None,
    limit: int | None = None,
    dims: int = 2,
    join: bool = True,
) -> np.ndarray:
    """Keypoints ``(T, M, V, 3)`` of the people that are seen longest, see `tracks.stack_people`."""
    with np.errstate(over="ignore"):
        rows = np.array([row for _, _, row in detections], dtype=np.float32)
    frames = np.array([frame for frame, _, _ in detections], dtype=np.int64)
    found = Detections(frames, [track for _, track, _ in detections], rows, dims)
    return stack_people(str(path), found, num_frames, limit, join)
