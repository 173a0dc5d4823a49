"""`Reading`: what the numbers of a file mean where the file does not say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import SkeletonFormatError, notice
from ..layouts import TO_Y_UP, LayoutLike, get_layout
from ..sequence import AXES, METRES, MISSING, SkeletonSequence, is_rate, sequences_of

# What a recording may say itself.
_SAID = ("layout", "fps", "up", "units", "image_shape", "mirrored")
# Layouts of arrays by their number of joints, where it is that of one body only: SMPL's, as in HumanML3D.
_BY_JOINTS = {22: "smpl22"}


@dataclass(frozen=True)
class Reading:
    """What the numbers of a file or an array mean where it does not say.

    What a file says is kept: a warning reports a field that contradicts it or has no effect on it. A field replaces
    what only the convention of a format says, such as the frame rate of NTU's recordings.

    Attributes:
        layout: Joint layout. None takes the file's own, else the pose estimators' usual one for the number of joints,
            else `default_layout`.
        axes: Axis order of an array, one of ``"TVC"``, ``"TMVC"``, ``"MTVC"`` and ``"CTVM"`` (T frames, M persons, V
            joints, C coordinates). None takes the only one that fits.
        fps: Frames per second.
        up: Axis of 3D keypoints that points up: ``"y"``, ``"z"``, ``"x"``, ``"-y"``, ``"-z"`` or ``"-x"``. None takes
            the layout's.
        units: Unit of 3D keypoints, ``"m"``, ``"cm"``, ``"mm"`` or ``"in"``; they are scaled to metres.
        image_shape: Height and width in pixels of the image that 2D keypoints lie in.
        missing: What NaN in an array means: an error (``"refuse"``), or a joint that was not seen
            (``"interpolate"``). None takes the model's choice where a model reads, else refuses.
        mirrored: Whether the axes of 3D keypoints are left-handed, as Unity's are, which mirrors the body. None takes
            what the file says, else right-handed ones.
        keypoints: Column of the keypoints in a data set of the hub that usdrl did not push.
        default_layout: Joint layout where neither `layout` nor the file says; a model's own where a model reads.

    Raises:
        ValueError: If a field is out of range.

    Example:
        >>> from usdrl_hub import Reading
        >>> Reading(layout="coco17", fps=25, image_shape=(1080, 1920)).fps
        25
    """

    layout: LayoutLike | None = None
    axes: str | None = None
    fps: float | None = None
    up: str | None = None
    units: str | None = None
    image_shape: tuple[float, float] | None = None
    missing: str | None = None
    default_layout: LayoutLike = "ntu25"
    mirrored: bool | None = None
    keypoints: str | None = None

    def __post_init__(self) -> None:
        """Refuse fields that are out of range."""
        for layout in (self.layout, self.default_layout):
            if layout is not None:
                get_layout(layout)
        choices = {"axes": AXES, "up": TO_Y_UP, "units": METRES, "missing": MISSING}
        for name, known in choices.items():
            if getattr(self, name) not in (None, *known):
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.fps is not None and not is_rate(self.fps):
            raise ValueError(f"frames per second must be between 0.01 and 10000, got {self.fps}")
        if self.image_shape is not None and not (len(self.image_shape) == 2 and min(self.image_shape) > 0):
            raise ValueError(f"image_shape must be (height, width) in pixels, got {self.image_shape!r}")

    @property
    def is_silent(self) -> bool:
        """Whether no field is given that a recording may say itself."""
        return all(getattr(self, name) is None for name in _SAID)

    def with_defaults(self, layout: LayoutLike, missing: str) -> Reading:
        """With a model's own layout and treatment of NaN where none is given."""
        return replace(self, default_layout=layout, missing=self.missing or missing)

    def guessed(self, shape: Sequence[int], where: str) -> Reading:
        """With the usual layout of an array of 22 joints in 3D, where none is given and the default has others.

        Only this number is taken for a layout: 21 joints may be a hand, 24 SMPL's rotations, 32 those of Azure Kinect
        or of Human3.6M.

        Args:
            shape: Of the array, `axes` in any order that `SkeletonSequence.from_array` takes.
            where: What to call it.
        """
        is_3d = len(shape) in (3, 4) and 3 in (shape[-1], shape[0])
        joints = shape[-2] if is_3d else 0
        usual = _BY_JOINTS.get(joints)
        if self.layout is not None or usual is None or get_layout(self.default_layout).num_joints == joints:
            return self
        notice(
            f"{where}: {joints} joints are read as layout '{usual}', that of SMPL: name another with --layout",
            "layouts guessed by the number of joints",
        )
        return replace(self, layout=usual)

    def sequence(self, array: np.ndarray, name: str = "", units: str | None = None, **fields: Any) -> SkeletonSequence:
        """Make a sequence of an array.

        Args:
            array: ``(T, V, C)``, ``(T, M, V, C)``, ``(M, T, V, C)`` or ``(C, T, V, M)``.
            name: Name of the sequence, used in errors.
            units: Unit of 3D keypoints where the file says it.
            **fields: Further fields of the sequence that the file says.

        Raises:
            SkeletonFormatError: If the shape fits no axis order, or several and `axes` is None.
        """
        layout = self.default_layout if self.layout is None else self.layout
        found = SkeletonSequence.from_array(array, layout, self.axes, name, self.missing or "refuse", **fields)
        return self.complete(found, units)

    def sequences(self, array: ArrayLike) -> list[SkeletonSequence]:
        """Make sequences of an array that holds one recording or, with one axis more, several.

        Raises:
            SkeletonFormatError: If no axis order fits, or several do.
        """
        layout = self.default_layout if self.layout is None else self.layout
        return [self.complete(found) for found in sequences_of(array, layout, self.axes, "", self.missing or "refuse")]

    def complete(self, sequence: SkeletonSequence, units: str | None = None) -> SkeletonSequence:
        """Fill in what the file of a sequence does not say; warn of fields that contradict it.

        Every reader passes its sequences through this once.

        Args:
            sequence: As the file has it; `fps`, `up` and `image_shape` are None where the file does not say.
            units: Unit of its 3D keypoints where the file says it; they are scaled to metres. Those of a sequence
                whose own `units` are others stay as they are.
        """
        given: dict[str, Any] = {name: value for name in _SAID if (value := getattr(self, name)) is not None}
        if not given and units in (None, "m"):
            return sequence
        where = sequence.name or "sequence"
        if "layout" in given:
            given["layout"] = get_layout(given["layout"]).name
        for name in ("image_shape",) if sequence.is_3d else ("up", "units", "mirrored"):
            if given.pop(name, None) is not None:
                kind = "3D" if sequence.is_3d else "2D, in pixels"
                notice(f"{where}: it is {kind}, so {name} has no effect", f"recordings on which {name} has no effect")
        said: dict[str, Any] = {
            "layout": get_layout(sequence.layout).name,
            "fps": sequence.fps if is_rate(sequence.fps) else None,
            "up": sequence.up,
            "units": sequence.units if sequence.units != "m" else units,
            "image_shape": sequence.image_shape,
            "mirrored": sequence.mirrored or None,
        }
        for name, value in given.items():
            if said[name] not in (None, value):
                notice(
                    f"{where}: its {name} is {said[name]}, as it says itself, and not {value} as given",
                    f"recordings that say another {name} than given",
                )
        found = {name: value for name, value in given.items() if said[name] is None}
        unit = found.pop("units", units or "m")
        if sequence.is_3d and sequence.units == "m" != unit:
            found["keypoints"] = sequence.keypoints * np.float32(METRES[unit])
        return replace(sequence, **found) if found else sequence


# Called with the error of one sequence of several, which is then left out; None raises it.
OnError: TypeAlias = Callable[[SkeletonFormatError], None] | None
Reader: TypeAlias = Callable[[Path, Reading, OnError], Iterator[SkeletonSequence]]
