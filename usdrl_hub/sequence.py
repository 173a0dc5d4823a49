"""`SkeletonSequence`: one recording, as every reader returns it and the feature extractor takes it.

This file also ships as remote code, so it imports only its sibling `layouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from .layouts import Layout, LayoutLike, convert_layout, get_layout

# Axis orders a caller may name. T frames, M persons, V joints, C coordinates.
AXES = ("TVC", "TMVC", "MTVC", "CTVM")
# An unnamed 4-axis array is read as T x M or M x T only if one of the two would mean more people than this.
MOST_PERSONS = 10


class SkeletonFormatError(ValueError):
    """Input that is not a usable skeleton sequence; the message names the file and the place."""


@dataclass(frozen=True, eq=False)
class SkeletonSequence:
    """One recording of one or more people.

    Attributes:
        keypoints: Array ``(T, M, V, C)`` float32; a joint, or a person in a frame, that is all zero was not seen.
        layout: Name of a registered layout, or a `Layout`.
        fps: Frames per second, or None if unknown.
        name: Name of the recording, usually the file name without its ending.
        label: Class index, 0-based, or None.
        subject: Who moves, as the data set numbers people, or None.
        up: Axis that points up, ``"y"`` or ``"z"``; None means the layout's.

    Raises:
        SkeletonFormatError: If the array is not four-axis and numeric, is empty, holds NaN or infinity, shows nobody,
            or has another number of joints than the layout.
    """

    keypoints: np.ndarray
    layout: LayoutLike = "ntu25"
    fps: float | None = None
    name: str = ""
    label: int | None = None
    subject: int | str | None = None
    up: str | None = None

    def __post_init__(self) -> None:
        """Bring the keypoints to float32 and refuse what no model can read."""
        where = self.name or "sequence"
        keypoints = to_float32(self.keypoints, where)
        if keypoints.ndim != 4:
            raise SkeletonFormatError(
                f"{where}: keypoints must have the four axes (frames, persons, joints, coordinates), "
                f"got shape {keypoints.shape}"
            )
        if 0 in keypoints.shape:
            empty = ("frames", "persons", "joints", "coordinates")[keypoints.shape.index(0)]
            raise SkeletonFormatError(f"{where}: no {empty} to read, the shape is {keypoints.shape}")
        layout = get_layout(self.layout)
        if keypoints.shape[2] != layout.num_joints:
            raise SkeletonFormatError(
                f"{where}: {keypoints.shape[2]} joints, but layout '{layout.name}' has {layout.num_joints}: name the "
                "layout the data have"
            )
        if self.up not in (None, "y", "z"):
            raise SkeletonFormatError(f"{where}: up must be 'y' or 'z', got {self.up!r}")
        finite = np.isfinite(keypoints)
        if not finite.all():
            frame, person, joint, _ = (int(i) for i in np.argwhere(~finite)[0])
            raise SkeletonFormatError(
                f"{where}: frame {frame}, person {person}, joint {joint} is NaN or infinite: fill or drop missing "
                "joints (all zero means missing)"
            )
        if not keypoints.any():
            raise SkeletonFormatError(f"{where}: every person is empty in every frame, so there is nothing to read")
        object.__setattr__(self, "keypoints", keypoints)

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.keypoints.shape[0]

    @property
    def num_persons(self) -> int:
        """Number of persons M."""
        return self.keypoints.shape[1]

    def to_layout(self, target: LayoutLike) -> SkeletonSequence:
        """Return the sequence in another layout and its up axis (see `layouts.convert_layout`).

        Raises:
            ValueError: If the layouts cannot be converted.
        """
        source, target = get_layout(self.layout), get_layout(target)
        up = self.up or source.up
        if source == target and up == target.up:
            return self
        keypoints = convert_layout(self.keypoints, source, target, up)
        return replace(self, keypoints=keypoints, layout=target, up="y" if target.up == "y" else up)

    def windows(self, size: int, stride: int) -> Iterator[tuple[int, SkeletonSequence]]:
        """Yield ``(start, sequence)`` windows of `size` frames; the last one ends at the last frame.

        A recording no longer than `size` is one window. Windows in which nobody is seen are left out.
        """
        last = max(self.num_frames - size, 0)
        for start in [*range(0, last, stride), last]:
            keypoints = self.keypoints[start : start + size]
            if keypoints.any():
                yield start, replace(self, keypoints=keypoints)

    @classmethod
    def from_array(
        cls, array: np.ndarray, layout: LayoutLike = "ntu25", axes: str | None = None, name: str = "", **fields
    ) -> SkeletonSequence:
        """Make a sequence of an array in any of the usual axis orders.

        Args:
            array: ``(T, V, C)``, ``(T, M, V, C)``, ``(M, T, V, C)`` or ``(C, T, V, M)``.
            layout: Joint layout of the array.
            axes: Which of `AXES` it is. None takes the only order that fits the shape and `MOST_PERSONS`.
            name: Used in errors.
            **fields: Further fields of the sequence.

        Raises:
            SkeletonFormatError: If the shape fits no order, or several and `axes` is None.
        """
        where = name or "array"
        array = to_float32(array, where)
        layout = get_layout(layout)
        if axes is None:
            axes = _guess_axes(array.shape, layout, where)
        elif axes not in AXES:
            raise SkeletonFormatError(f"{where}: axes must be one of {', '.join(AXES)}, got {axes!r}")
        elif len(axes) != array.ndim:
            raise SkeletonFormatError(f"{where}: axes {axes} need {len(axes)} axes, but the shape is {array.shape}")
        if axes == "TVC":
            array = array[:, None]
        else:
            array = array.transpose([axes.index(axis) for axis in "TMVC"])
        return cls(array, layout, name=name, **fields)


def to_float32(array: ArrayLike, where: str) -> np.ndarray:
    """Bring numbers to a float32 array.

    Raises:
        SkeletonFormatError: If the array is not real numbers (objects, text, complex), or overflows float32.
    """
    try:
        array = np.asarray(array)
    except ValueError:
        raise SkeletonFormatError(f"{where}: rows of different length are not an array of keypoints") from None
    if array.dtype.kind not in "fiu":
        raise SkeletonFormatError(f"{where}: keypoints must be real numbers, got an array of type {array.dtype}")
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def _guess_axes(shape: tuple[int, ...], layout: Layout, where: str) -> str:
    joints = layout.num_joints
    fitting = []
    if len(shape) == 3 and shape[1] == joints and shape[2] in (2, 3):
        fitting.append("TVC")
    if len(shape) == 4 and shape[2] == joints:
        first, second, _, last = shape
        if last in (2, 3) and second <= MOST_PERSONS:
            fitting.append("TMVC")
        if last in (2, 3) and first <= MOST_PERSONS and (first, second) != (1, 1):
            fitting.append("MTVC")
        if first in (2, 3) and last <= MOST_PERSONS:
            fitting.append("CTVM")
    if not fitting:
        raise SkeletonFormatError(
            f"{where}: shape {shape} is not a skeleton of layout '{layout.name}' ({joints} joints, 2 or 3 coordinates)"
            f" in any of the axes {', '.join(AXES)}: name the layout and the axes"
        )
    if len(fitting) > 1:
        raise SkeletonFormatError(
            f"{where}: shape {shape} can be read as {' or '.join(fitting)}: say which with axes={fitting[0]!r}"
        )
    return fitting[0]
