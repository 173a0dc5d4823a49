"""Joint names of programs and data sets: which layout they are, and in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from ...layouts import LAYOUTS, get_layout

# Names of other programs for joints of ours, without sides, case and separators.
_OTHERS = {
    # Kinect's SDK and KERAAL.
    "handtip": "handtip",
    # MediaPipe's enumeration.
    "footindex": "toes",
    "mouth": "mouth",
    # OpenPose, AlphaPose, Halpe.
    "bigtoe": "bigtoe",
    "smalltoe": "smalltoe",
    "middlehip": "midhip",
    "pelvis": "pelvis",
    "clavicle": "collar",
}
# Layouts that names may mean, the likelier ones first.
_KNOWN = (
    *("ntu25", "kinect20", "coco17", "openpose18", "openpose25", "mediapipe33", "halpe26", "wholebody23"),
    *("h36m17", "azure32", "smpl22", "smpl24", "panoptic19", "posetrack17"),
)


@cache
def plain_name(name: str) -> str:
    """A joint's name with its side in front, without case and separators: ``ShoulderLeft`` is ``left shoulder``."""
    # Camel case becomes words; r and l in front of a capital are sides.
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name.strip())
    parts = [part for part in re.split(r"[^a-z0-9]+", words.lower()) if part]
    side = ""
    for part in (*parts[:1], *parts[-1:]) if len(parts) > 1 else ():
        if part in ("left", "right", "l", "r"):
            side = "left" if part[0] == "l" else "right"
            parts.remove(part)
            break
    else:
        parts, side = _inner_side(parts)
    plain = "".join(parts)
    plain = _OTHERS.get(plain, plain)
    return f"{side} {plain}" if side else plain


def _inner_side(parts: list[str]) -> tuple[list[str], str]:
    """Words without a side that stands between them, as in ``left_eye_inner``, or in one with them."""
    for side in ("left", "right"):
        if side in parts:
            return [part for part in parts if part != side], side
    joined = "".join(parts)
    for side in ("left", "right"):
        if joined.startswith(side) or joined.endswith(side):
            return [joined.removeprefix(side).removesuffix(side)], side
    # RShoulder and LWrist without a change of case between them.
    match = re.fullmatch(
        r"([lr])(shoulder|elbow|wrist|hand|hip|knee|ankle|foot|eye|ear|bigtoe|smalltoe|heel|toes)", joined
    )
    if match:
        return [match[2]], {"l": "left", "r": "right"}[match[1]]
    return parts, ""


@cache
def _plain_joints(layout: str) -> tuple[str, ...]:
    return tuple(plain_name(name) for name in get_layout(layout).joint_names)


def layout_of_names(names: Sequence[str], least: float = 1.0) -> tuple[str, list[int | None]] | None:
    """The layout that names mean: the one with the fewest joints that has them all.

    Args:
        names: Names of joints.
        least: Which share of the layout's joints must be named.

    Returns:
        The layout's name, and where each of its joints stands in the names, None where it is not named. None where
        no layout has all of the names.
    """
    plain = [plain_name(name) for name in names]
    wanted = set(plain)
    if len(wanted) < len(plain):
        return None
    fitting = [
        (len(joints) - len(wanted), place, layout)
        for place, layout in enumerate((*_KNOWN, *(name for name in LAYOUTS if name not in _KNOWN)))
        if wanted <= set(joints := _plain_joints(layout)) and len(wanted) >= least * len(joints)
    ]
    if not fitting:
        return None
    layout = min(fitting)[2]
    return layout, places_in(plain, layout)


def places_in(names: Sequence[str], layout: str) -> list[int | None]:
    """Where each joint of a layout stands in plain names; None where it does not."""
    where = {name: place for place, name in reversed(list(enumerate(names)))}
    return [where.get(joint) for joint in _plain_joints(layout)]
