"""What readers do with positions: find which axis is up and the unit, doubt implausible bodies, make the recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import notice
from ...layouts import TO_Y_UP, Layout, get_layout, make_joint, seen_joints
from ...sequence import METRES, SkeletonFormatError, SkeletonSequence, toes_point_backwards, without_nan
from ..reading import Reading

# Frames that are looked at to find the unit and which axis is up.
_FRAMES = 500
# Axes by name: which, and its sign.
_AXES = {"y": (1, 1), "z": (2, 1), "-y": (1, -1), "-z": (2, -1), "x": (0, 1), "-x": (0, -1)}
# Units that files without one are written in, in metres.
_UNITS = {
    **METRES,
    "feet": 0.3048,
    # CMU's captures: 0.45 units are an inch.
    "units of 56.4 mm": 0.0254 / 0.45,
}
# Heights that a person may have, in metres, and the one that others are scaled to.
_HEIGHTS, _USUAL_HEIGHT = (1.1, 2.3), 1.7
# Heights that people have in files, in metres: children, and MediaPipe's estimates of people who bend.
_PLAUSIBLE = (0.4, 2.5)
# Joints that show whether a body is upside down, and the share of frames above which it is: people turn somersaults.
_HEADS, _FEET, _MOST = ("head", "neck"), ("left_ankle", "right_ankle"), 0.75
# Layouts of programs whose y points down.
_Y_DOWN = {"mediapipe33": "MediaPipe", "azure32": "Azure Kinect", "panoptic19": "CMU Panoptic"}
# What a person's shank, thigh and trunk (hip to shoulder) are together, in heights.
_SHARE_OF_HEIGHT = 0.78
# A body stands along an axis where the line from its ankles to its head is so near to it (a cosine).
_UPRIGHT = 0.8
# Numbers that the joints of a file may have: so many, and so many for each byte.
_MAX_NUMBERS, _NUMBERS_PER_BYTE = 2 << 20, 3


def check_size(path: Path, frames: int, joints: int) -> None:
    """Refuse a body whose joints take far more memory than the file.

    Raises:
        SkeletonFormatError: If they do.
    """
    if 3 * frames * joints > _MAX_NUMBERS + _NUMBERS_PER_BYTE * path.stat().st_size:
        raise SkeletonFormatError(
            f"{path}: it speaks of {frames} frames of {joints} joints, far more than such a file holds"
        )


def _points(keypoints: np.ndarray, layout: Layout, *names: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The mean of some joints ``(T, 3)`` and whether it is seen ``(T,)``; None where the layout lacks them all."""
    made = [weights for name in names if (weights := make_joint(name, layout)) is not None]
    if not made:
        return None
    weights = np.mean(made, axis=0)
    return np.einsum("v,tvc->tc", weights, keypoints), seen_joints(keypoints)[:, weights != 0].all(-1)


def _few(keypoints: np.ndarray) -> np.ndarray:
    """A few frames of all people, one after the other ``(K, V, 3)``."""
    every = keypoints[:: max(1, len(keypoints) // _FRAMES)]
    return every.reshape(-1, *keypoints.shape[2:]).astype(np.float64)


def height_of(keypoints: np.ndarray, layout: Layout) -> float | None:
    """How tall a body ``(T, M, V, 3)`` is, in its unit, by its bones, in any pose; None where no body is whole."""
    few = _few(keypoints)
    names = ("ankle", "knee", "hip", "shoulder")
    lengths = []
    for side in ("left", "right"):
        chain = [_points(few, layout, f"{side}_{name}") for name in names]
        if all(point is not None for point in chain):
            seen = np.all([point[1] for point in chain], axis=0)  # type: ignore[index]
            positions = np.stack([point[0] for point in chain])[:, seen]  # type: ignore[index]
            lengths.append(np.linalg.norm(np.diff(positions, axis=0), axis=-1).sum(0))
    joined = np.concatenate(lengths) if lengths else np.zeros(0)
    return float(np.median(joined)) / _SHARE_OF_HEIGHT if len(joined) else None


def put_upright(sequence: SkeletonSequence, where: str) -> SkeletonSequence:
    """Turn over the people of programs whose y points down, where their heads are below their feet in most frames.

    Args:
        sequence: A recording; one that says which axis points up is left as it is.
        where: Its name in the warning.
    """
    layout = get_layout(sequence.layout)
    if layout.name not in _Y_DOWN or not sequence.is_3d or sequence.up is not None:
        return sequence
    if _share_upside_down(sequence) <= 0.5:
        return sequence
    program = _Y_DOWN[layout.name]
    notice(f"{where}: {program}'s y points down: the people are turned over (up='-y')", "people turned over")
    return replace(sequence, up=_opposite(layout.up))


def _share_upside_down(sequence: SkeletonSequence) -> float:
    """Share of the frames in which heads are below the feet, of those in which both are seen."""
    layout = get_layout(sequence.layout)
    head = next((joint for name in _HEADS if (joint := make_joint(name, layout)) is not None), None)
    feet = [joint for name in _FEET if (joint := make_joint(name, layout)) is not None]
    if head is None or not feet:
        return 0.0
    # Pixels count from the top.
    axis, sign = 1, -1.0
    if sequence.is_3d:
        order, signs = TO_Y_UP[sequence.up or layout.up]
        axis, sign = order[1], signs[1]
    height = sequence.keypoints[..., axis] * sign
    used = (head != 0) | (np.stack(feet) != 0).any(0)
    there = seen_joints(sequence.keypoints)[..., used].all(-1)
    return float((height @ head < height @ np.mean(feet, axis=0))[there].mean()) if there.any() else 0.0


def _opposite(axis: str) -> str:
    return axis.removeprefix("-") if axis.startswith("-") else f"-{axis}"


def note_implausible(sequence: SkeletonSequence, where: str) -> None:
    """Warn of people whose heads are below their feet; in 3D, who are too small or large, or whose toes point back.

    Heads and toes are judged by most frames in which they are seen; the height is that of the bones, in any pose.

    Args:
        sequence: A recording in metres. An axis up that it says itself is not doubted, since people turn over.
        where: Its file.
    """
    if not sequence.is_3d and _share_upside_down(sequence) > _MOST:
        notice(
            f"{where}: heads are below feet in most frames: y of 2D keypoints points down, as in pictures: give -y "
            "where yours points up, or the layout where it is another",
            "heads below feet",
        )
    if not sequence.is_3d or sequence.units != "m":
        return
    layout = get_layout(sequence.layout)
    if sequence.up is None and _share_upside_down(sequence) > _MOST:
        notice(
            f"{where}: heads are below feet in most frames: if {layout.up} does not point up, name the axis that "
            f"does, such as up='{_opposite(layout.up)}'",
            "heads below feet",
        )
    height = height_of(sequence.keypoints, layout)
    if height is not None and not _PLAUSIBLE[0] <= height <= _PLAUSIBLE[1]:
        units = [unit for unit, metres in METRES.items() if _HEIGHTS[0] <= height * metres <= _HEIGHTS[1]]
        remedy = f"if it says no unit, give units='{units[0]}'" if units else "check the unit that it is in"
        notice(f"{where}: people are {height:.3g} m tall by their bones: {remedy}", "implausible bodies")
        return
    every = sequence.keypoints[:: max(1, sequence.num_frames // _FRAMES)]
    if not sequence.mirrored and toes_point_backwards(every.transpose(1, 0, 2, 3), layout):
        notice(
            f"{where}: toes point backwards in most frames: if its axes are left-handed, as Unity's are, give "
            "--left-handed (mirrored=True)",
            "implausible bodies",
        )


def guess_unit(path: Path, kind: str, height: float | None) -> float:
    """Metres in a unit of a file that names none, guessed by the height of its body; a notice reports the guess.

    Raises:
        SkeletonFormatError: If the body has no height.
    """
    if height is None or not 1e-6 < height < 1e9:
        raise SkeletonFormatError(f"{path}: its body has no height to guess the unit by: name it with --units")
    fitting = [(unit, metres) for unit, metres in _UNITS.items() if _HEIGHTS[0] <= height * metres <= _HEIGHTS[1]]
    if not fitting:
        notice(
            f"{path}: {kind} names no unit, and a body {height:.4g} units tall fits none: it is scaled to "
            f"{_USUAL_HEIGHT} m; name the unit with --units",
            "units guessed by body height",
        )
        return _USUAL_HEIGHT / height
    unit, metres = min(fitting, key=lambda pair: abs(np.log(height * pair[1] / _USUAL_HEIGHT)))
    notice(
        f"{path}: {kind} names no unit: by its height of {height:.4g} the body is in {unit}, {height * metres:.2f} m "
        "tall; name another with --units",
        "units guessed by body height",
    )
    return metres


def find_up(path: Path, keypoints: np.ndarray, layout: Layout, usual: str) -> str:
    """The axis along which people stand ``(T, M, V, 3)``: the line from their ankles to their heads.

    Args:
        path: The file, for the notice where it is not the usual axis.
        keypoints: The people.
        layout: Their layout.
        usual: The axis that files of the kind have up; it is taken where people stand along it in a twentieth of the
            frames, because people also lie and bend.
    """
    few = _few(keypoints)
    top = _points(few, layout, "head") or _points(few, layout, "neck")
    feet = _points(few, layout, "left_ankle", "right_ankle")
    if top is None or feet is None:
        return usual
    lines = (top[0] - feet[0])[top[1] & feet[1]]
    lengths = np.linalg.norm(lines, axis=-1)
    lines = lines[lengths > 0] / lengths[lengths > 0, None]
    if not len(lines):
        return usual
    share = {name: float((lines[:, axis] * sign > _UPRIGHT).mean()) for name, (axis, sign) in _AXES.items()}
    best = max(share, key=lambda name: share[name])
    if share[usual] >= 0.05 or share[best] < 0.5:
        return usual
    notice(f"{path}: people stand along its axis {best}: up is {best}; name another with --up", "up found by bodies")
    return best


def unit_of(text: str) -> str | None:
    """A unit as a file names it, as `SkeletonSequence.units` does; None where it is none of those."""
    plain = text.strip().lower()
    words = {"met": "m", "cent": "cm", "millim": "mm", "inch": "in"}
    return plain if plain in METRES else next((unit for word, unit in words.items() if plain.startswith(word)), None)


def make_sequence(
    path: Path,
    keypoints: np.ndarray,
    layout: Layout,
    reading: Reading,
    *,
    fps: float | None,
    units: str | None,
    up: str,
    kind: str,
) -> SkeletonSequence:
    """The recording of a motion-capture file.

    Args:
        path: The file.
        keypoints: Positions ``(T, M, V, 3)``; zero or NaN is unseen.
        layout: Their layout.
        reading: What the user says where the file does not.
        fps: Frames per second, as the file says.
        units: Unit, as the file says; where None and `reading` has none, it is guessed by the height of the body.
        up: The axis that files of the kind usually have up.
        kind: The kind of file, in notices.

    Raises:
        SkeletonFormatError: If a position is infinite, or all joints are unseen.
    """
    keypoints = without_nan(keypoints)
    up = reading.up or find_up(path, keypoints, layout, up)
    if units is None and reading.units is None and keypoints.any():
        keypoints = keypoints * guess_unit(path, kind, height_of(keypoints, layout))
    return reading.complete(SkeletonSequence(keypoints, layout, fps=fps, name=path.stem, up=up), units)
