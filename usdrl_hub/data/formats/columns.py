"""Columns of a table of joints, whatever its writer called them: which joint and coordinate each one is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...layouts import LAYOUTS, Layout, get_layout
from ..reading import Reading
from .layout_names import layout_of_names, places_in, plain_name

# Columns that number frames, or say when a row is, in seconds, milliseconds or finer; and that tell people apart.
FRAMES = (
    "frame",
    "frame_id",
    "frame_number",
    "frame_num",
    "frame_no",
    "frame_idx",
    "frame_index",
    "frameid",
    "frames",
)
TIMES = (
    *("time", "timestamp", "t", "time_s", "time_ms", "timestamp_s", "timestamp_ms", "time_us", "timestamp_us"),
    *("time_sec", "time_msec", "timestamp_usec", "timestamp_ns", "timestamp_nsec"),
)
PEOPLE = ("person", "person_id", "track_id", "body_id", "body", "trackingid", "tracking_id", "pose_id", "person_idx")
# Columns of a table with a row for each joint that say which joint it is.
_JOINTS = (
    *("landmark", "joint", "landmark_id", "joint_id", "landmark_index", "joint_index", "landmark_name", "joint_name"),
    *("keypoint", "keypoint_id", "keypoint_name", "index", "idx", "name", "part", "bodypart", "id"),
)
_SCORES = "score|visibility|visible|vis|v|conf|confidence|c|likelihood|presence|prob|probability"
_AXIS = f"x|y|z|{_SCORES}"
# nose_x, Nose.X, nose x, "nose (x)"; NoseX; x_nose; x1, visibility_12; 0_x, joint0.x, kp_3_y.
_NAMED = re.compile(rf"(?P<joint>.*[^\W_])[\s_.:/\-]+\(?(?P<axis>{_AXIS})\)?", re.IGNORECASE)
_CAMEL = re.compile(r"(?P<joint>.*[a-z0-9])(?P<axis>[XYZ])")
_BEFORE = re.compile(rf"(?P<axis>{_AXIS})[\s_.:]+(?P<joint>.*[A-Za-z].*)", re.IGNORECASE)
_COUNTED = re.compile(rf"(?P<axis>{_AXIS})[\s_.:]*(?P<number>[0-9]{{1,4}})", re.IGNORECASE)
_NUMBERED = re.compile(
    rf"(?:joint|landmark|lm|keypoint|kp|kpt|point|pt|j|p|pose)?[\s_.:]*(?P<number>[0-9]{{1,4}})"
    rf"[\s_.:]*(?P<axis>{_AXIS})",
    re.IGNORECASE,
)
# Layouts of numbered joints, in 2D and 3D; 17 joints in 3D could be several.
_FLAT = {17: "coco17", 18: "openpose18", 25: "openpose25", 26: "halpe26", 33: "mediapipe33"}
_SPATIAL = {20: "kinect20", 25: "ntu25", 32: "azure32", 33: "mediapipe33"}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Attributes:
        layout: Joint layout.
        places: Column of each coordinate of each joint ``[V][C]``.
        axes: What the coordinates are: x, y, and perhaps z and score.
        when: Column of frame numbers or times, and what it is called; None where there is none.
        person: Column that identifies people, or None.
        joint: Column that says which joint a row is, of a table with a row for each; `places` then has one row.
    """

    layout: Layout
    places: list[list[int]]
    axes: tuple[str, ...]
    when: tuple[int, str] | None
    person: int | None
    joint: int | None = None


def column_of(names: Sequence[str], known: Sequence[str]) -> int | None:
    """Where the first of the known names stands, whatever its case and blanks; None where none does."""
    plain = [re.sub(r"[\s_]+", "_", name.strip().lower()) for name in names]
    return next((plain.index(name) for name in known if name in plain), None)


def time_column(names: Sequence[str]) -> tuple[int, str] | None:
    """Where frame numbers or times stand, and their plain name: ``frame`` for numbers."""
    place = column_of(names, FRAMES)
    if place is not None:
        return place, "frame"
    place = column_of(names, TIMES)
    return None if place is None else (place, re.sub(r"[\s_]+", "_", names[place].strip().lower()))


def recognise(names: Sequence[str], reading: Reading) -> Columns | None:
    """What the columns of a table are; None where they are not those of any layout.

    Args:
        names: Names of the columns.
        reading: Its layout is taken, where it says one.
    """
    found = _joints_of(names)
    when, person = time_column(names), column_of(names, PEOPLE)
    if set(found) == {""}:
        return _long(names, found[""], reading, when, person)
    axes = _shared_axes(list(found.values()))
    numbers = sorted(joint for joint in found if isinstance(joint, int))
    named = [joint for joint in found if isinstance(joint, str) and joint]
    if numbers and not named:
        layout = _numbered_layout(numbers, axes, reading)
        joints: Sequence[str | int | None] = numbers
    else:
        layout, joints = _named_layout(named, axes, reading)
    if layout is None or None in joints:
        return None
    places = [[found[joint][axis] for axis in axes] for joint in joints if joint is not None]
    return Columns(layout, places, axes, when, person)


def _joints_of(names: Sequence[str]) -> dict[str | int, dict[str, int]]:
    """Joints by name or number, and the column of each of their coordinates; those with x and y."""
    found: dict[str | int, dict[str, int]] = {}
    for place, name in enumerate(names):
        joint, axis = _parse(name.strip())
        if axis and axis not in found.setdefault(joint, {}):
            found[joint][axis] = place
    return {joint: axes for joint, axes in found.items() if {"x", "y"} <= set(axes)}


def count_joints(names: Sequence[str]) -> tuple[int, bool]:
    """How many joints the columns of a table have, and whether they are 3D."""
    found = _joints_of(names)
    return len(found), "z" in _shared_axes(list(found.values()))


def _parse(name: str) -> tuple[str | int, str]:
    """The joint, by name or number, and the coordinate of a column; without a coordinate "" where it is none."""
    if re.fullmatch(_AXIS, name, re.IGNORECASE):
        return "", _axis(name)
    for pattern in (_COUNTED, _NUMBERED, _NAMED, _CAMEL, _BEFORE):
        match = pattern.fullmatch(name)
        if match:
            groups = match.groupdict()
            joint = int(groups["number"]) if groups.get("number") else groups["joint"].strip()
            return joint, _axis(match["axis"])
    return name, ""


def _axis(text: str) -> str:
    return text.lower() if text.lower() in ("x", "y", "z") else "score"


def _shared_axes(joints: Sequence[Mapping[str, int]]) -> tuple[str, ...]:
    """Coordinates that all joints have."""
    return tuple(axis for axis in ("x", "y", "z", "score") if joints and all(axis in axes for axes in joints))


def _numbered_layout(numbers: Sequence[int], axes: Sequence[str], reading: Reading) -> Layout | None:
    count = len(numbers)
    if list(numbers) not in (list(range(count)), list(range(1, count + 1))):
        return None
    known = (_SPATIAL if "z" in axes else _FLAT).get(count)
    chosen = reading.layout or known
    if reading.layout is None and get_layout(reading.default_layout).num_joints == count:
        default = get_layout(reading.default_layout)
        chosen = default if default.is_3d == ("z" in axes) else known
    layout = None if chosen is None else get_layout(chosen)
    return layout if layout is not None and layout.num_joints == count else None


def _named_layout(
    names: Sequence[str], axes: Sequence[str], reading: Reading
) -> tuple[Layout | None, Sequence[str | None]]:
    """The layout whose joints all have columns, and the name of each joint's columns."""
    chosen = reading.layout
    if chosen is not None:
        layout = get_layout(chosen)
        if set(layout.joint_names) <= set(names):
            return layout, layout.joint_names
        if LAYOUTS.get(layout.name) != layout:
            return layout, [None]
        places = places_in([plain_name(name) for name in names], layout.name)
    else:
        # Other columns may have coordinates, too, such as those of hands.
        found = layout_of_names(names) or _largest_layout(names)
        if found is None:
            return None, []
        layout, places = get_layout(found[0]), found[1]
    return layout, [None if place is None else names[place] for place in places]


def _largest_layout(names: Sequence[str]) -> tuple[str, list[int | None]] | None:
    """The layout with the most joints that all have names."""
    plain = [plain_name(name) for name in names]
    whole = [
        (layout.num_joints, name)
        for name, layout in LAYOUTS.items()
        if layout.num_joints > 10 and {plain_name(joint) for joint in layout.joint_names} <= set(plain)
    ]
    if not whole:
        return None
    most = max(count for count, _ in whole)
    name = next(name for count, name in whole if count == most)
    return name, places_in(plain, name)


def _long(
    names: Sequence[str],
    found: Mapping[str, int],
    reading: Reading,
    when: tuple[int, str] | None,
    person: int | None,
) -> Columns | None:
    """A table with a row for each joint; its layout follows from the joints of its rows."""
    joint = column_of(names, _JOINTS)
    if joint is None or joint == person:
        return None
    axes = _shared_axes([found])
    layout = get_layout(reading.layout or reading.default_layout)
    return Columns(layout, [[found[axis] for axis in axes]], axes, when, person, joint)


def layout_of_rows(joints: Sequence[str], is_3d: bool, reading: Reading) -> tuple[Layout, dict[str, int]] | None:
    """The layout of a table with a row for each joint, and the joint of each name or number; None where none fits.

    Args:
        joints: The different names or numbers of joints.
        is_3d: Whether there is a z.
        reading: Its layout is taken, where it says one.
    """
    if all(joint.isdigit() and len(joint) < 5 for joint in joints):
        numbers = sorted(map(int, joints))
        layout = _numbered_layout(numbers, "xyz" if is_3d else "xy", reading)
        return None if layout is None else (layout, {str(number): place for place, number in enumerate(numbers)})
    layout, names = _named_layout(list(joints), "xyz" if is_3d else "xy", reading)
    if layout is None or None in names:
        return None
    return layout, {name: place for place, name in enumerate(names) if name is not None}
