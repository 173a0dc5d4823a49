"""`SkeletonSequence`: one recording, as readers return it and the feature extractor takes it.

This file also ships as remote code, so it imports only its siblings `errors` and `layouts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from .errors import EmptySequenceError, SkeletonFormatError
from .layouts import LAYOUTS, TO_Y_UP, Layout, LayoutLike, convert_layout, get_layout, make_joint, seen_joints

# Axis orders of arrays: T frames, M persons, V joints, C coordinates.
AXES = ("TVC", "TMVC", "MTVC", "CTVM")
# People of a recording. An unnamed 4-axis array is read as T x M or M x T only if the other means more people.
MOST_PERSONS = 10
# Bodies of a frame of NTU RGB+D and UAV-Human, by their order in it, as the release reads them.
MOST_BODIES = 4
# Coordinates of a joint.
CHANNELS = {"3d": 3, "2d": 2, "2d+score": 3}
# Length of each unit in metres.
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}
# Largest coordinate of a body: 10 000 km, or 10 million pixels.
FARTHEST = 1e7
_ONE_LESS = "leave out the last number of each joint, if it is a confidence"
# Treatments of missing joints (NaN).
MISSING = ("refuse", "interpolate")
# Probability above which a detector's class is an event wherever events are shown; the probabilities are averaged over
# the shift gap first.
DETECTION_THRESHOLD = 0.3


@dataclass(frozen=True, eq=False)
class SkeletonSequence:
    """One recording of one or more people.

    Attributes:
        keypoints: Array ``(T, M, V, C)`` float32. A missing joint, or a person who is not in a frame, is all zero.
        layout: Name of a registered layout, or a `Layout`.
        fps: Frames per second, or None if unknown.
        name: Name of the recording, usually the file name without its suffix.
        label: Class index, 0-based, or None.
        subject: Number or name of the person in the data set, or None.
        camera: Number of the camera in the data set, or None.
        setup: Number of the camera setup or scene in the data set, or None.
        up: Axis that points up: ``"y"``, ``"z"``, ``"x"``, ``"-y"`` (y down), ``"-z"`` or ``"-x"``; None means the
            layout's.
        units: ``"m"``, ``"cm"``, ``"mm"`` or ``"in"`` for 3D; 2D is in pixels.
        coordinates: ``"3d"``, ``"2d"`` or ``"2d+score"``; None takes ``"2d"`` for two coordinates, else the layout's.
        mirrored: Whether the axes of 3D keypoints are left-handed, as Unity's are, which mirrors the body.
        image_shape: Height and width in pixels of the image that 2D keypoints lie in.
        events: Annotated actions of an untrimmed recording, int64 ``(E, 3)``: class index, 0-based; first frame; end
            frame, exclusive. None if it is not annotated.
        split: ``"train"`` or ``"test"`` where the data set defines a split.
        judged: Whether a reader has looked for an implausible body already, so that nobody else reports it again.

    Raises:
        EmptySequenceError: If no person is seen.
        SkeletonFormatError: If the array is not four-axis and numeric, is empty, contains NaN, infinity or coordinates
            beyond 10 000 km or 10 million pixels, or does not fit the layout or the other attributes.
    """

    keypoints: np.ndarray
    layout: LayoutLike = "ntu25"
    fps: float | None = None
    name: str = ""
    label: int | None = None
    subject: int | str | None = None
    camera: int | None = None
    setup: int | None = None
    up: str | None = None
    units: str = "m"
    coordinates: str | None = None
    mirrored: bool = False
    image_shape: tuple[float, float] | None = None
    events: np.ndarray | None = None
    split: str | None = None
    judged: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Convert the keypoints to float32 and refuse what no model can read."""
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
        self._check_attributes(where, layout, keypoints.shape[-1])
        numbers = keypoints.reshape(-1)
        farthest = FARTHEST / METRES[self.units] if self.is_3d else FARTHEST
        # Fast path: a non-zero dot product within range implies finite, not-all-zero keypoints.
        with np.errstate(over="ignore", invalid="ignore"):
            is_well = 0 < np.dot(numbers, numbers) <= farthest**2
        if not is_well:
            self._check_numbers(where, keypoints, farthest)
        object.__setattr__(self, "keypoints", keypoints)

    def _check_numbers(self, where: str, keypoints: np.ndarray, farthest: float) -> None:
        finite = np.isfinite(keypoints)
        if not finite.all():
            frame, person, joint, _ = (int(i) for i in np.argwhere(~finite)[0])
            raise SkeletonFormatError(
                f"{where}: frame {frame}, person {person}, joint {joint} is NaN or infinite: fill or drop missing "
                "joints (all zero means missing)"
            )
        if max(keypoints.max(), -keypoints.min()) > farthest:
            frame, person, joint, _ = (int(i) for i in np.argwhere(np.abs(keypoints) > farthest)[0])
            unit = self.units if self.is_3d else "pixels"
            raise SkeletonFormatError(
                f"{where}: frame {frame}, person {person}, joint {joint} is more than {farthest:g} {unit} away, where "
                "no body is: check the numbers"
            )
        if not keypoints.any():
            raise EmptySequenceError(f"{where}: every person is empty in every frame, so there is nothing to read")

    def _check_attributes(self, where: str, layout: Layout, channels: int) -> None:
        if self.up is not None and self.up not in TO_Y_UP:
            raise SkeletonFormatError(f"{where}: up must be one of {', '.join(TO_Y_UP)}, got {self.up!r}")
        if self.units not in METRES:
            raise SkeletonFormatError(f"{where}: units must be one of {', '.join(METRES)}, got {self.units!r}")
        coordinates = self.coordinates
        if coordinates is None:
            # A layout of 2D keypoints with a third channel has scores there.
            flat = "3d" if layout.is_3d else "2d+score"
            coordinates = "2d" if channels == 2 else flat
        if coordinates not in CHANNELS:
            raise SkeletonFormatError(
                f"{where}: coordinates must be one of {', '.join(CHANNELS)}, got {self.coordinates!r}"
            )
        if channels != CHANNELS[coordinates]:
            raise SkeletonFormatError(
                f"{where}: {coordinates} keypoints have {CHANNELS[coordinates]} numbers per joint, not {channels}"
                + (f": {_ONE_LESS}" if channels == CHANNELS[coordinates] + 1 else "")
            )
        if self.image_shape is not None and not (len(self.image_shape) == 2 and min(self.image_shape) > 0):
            raise SkeletonFormatError(
                f"{where}: image_shape must be height and width in pixels, got {self.image_shape!r}"
            )
        object.__setattr__(self, "coordinates", coordinates)
        if self.split not in (None, "train", "test"):
            raise SkeletonFormatError(f"{where}: split must be 'train' or 'test', got {self.split!r}")
        if self.events is not None:
            object.__setattr__(self, "events", self._check_events(where))

    def _check_events(self, where: str) -> np.ndarray:
        """The events, clipped to the end of the recording."""
        events = np.asarray(self.events)
        if events.size == 0:
            return np.zeros((0, 3), dtype=np.int64)
        if events.ndim != 2 or events.shape[1] != 3 or events.dtype.kind not in "iu":
            raise SkeletonFormatError(f"{where}: events must be whole numbers (class, start, end), one row each")
        events = events.astype(np.int64)
        wrong = (events < 0).any(axis=1) | (events[:, 1] >= events[:, 2]) | (events[:, 1] >= len(self.keypoints))
        if wrong.any():
            row = events[wrong][0].tolist()
            raise SkeletonFormatError(
                f"{where}: the event (class, start, end) = {tuple(row)} is not in its {len(self.keypoints)} frames"
            )
        events[:, 2] = np.minimum(events[:, 2], len(self.keypoints))
        return events

    @property
    def is_3d(self) -> bool:
        """Whether the keypoints are 3D, and not pixels."""
        return self.coordinates == "3d"

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.keypoints.shape[0]

    @property
    def num_persons(self) -> int:
        """Number of persons M."""
        return self.keypoints.shape[1]

    def to_layout(self, target: LayoutLike) -> SkeletonSequence:
        """Return the sequence in another layout; 3D keypoints also in metres, upright and not mirrored.

        Raises:
            ValueError: If the layouts cannot be converted.
        """
        source, target = get_layout(self.layout), get_layout(target)
        up = self.up or source.up
        turned = self.is_3d and up != "y" and target.up == "y"
        changed = self.mirrored or (self.is_3d and self.units != "m")
        if source == target and not turned and not changed:
            return self
        keypoints = convert_layout(self.keypoints, source, target, up, self.coordinates)
        if self.is_3d and changed:
            keypoints = keypoints * np.float32(METRES[self.units])
            keypoints[..., 0] *= -1 if self.mirrored else 1
        up = "y" if turned else up
        return replace(self, keypoints=keypoints, layout=target, up=up, units="m", mirrored=False)

    def windows(self, size: int, stride: int) -> Iterator[tuple[int, SkeletonSequence]]:
        """Yield ``(start, sequence)`` windows of `size` frames without events; the last one ends at the last frame.

        A recording no longer than `size` is one window. Windows in which no person is seen are left out.
        """
        last = max(self.num_frames - size, 0)
        for start in [*range(0, last, stride), last]:
            keypoints = self.keypoints[start : start + size]
            if keypoints.any():
                yield start, replace(self, keypoints=keypoints, events=None)

    def clips(self) -> Iterator[SkeletonSequence]:
        """Yield the frames of each event as a recording labelled with its class, named ``<name>_<number>``.

        Events in which no person is seen are left out.
        """
        for number, (label, start, end) in enumerate([] if self.events is None else self.events.tolist()):
            keypoints = self.keypoints[start:end]
            if keypoints.any():
                name = f"{self.name}_{number:03d}"
                yield replace(self, keypoints=keypoints, label=label, events=None, name=name)

    def each_person(self) -> Iterator[SkeletonSequence]:
        """Yield a recording of each person, named ``<name>#<index>``; people never seen are left out."""
        for person in range(self.num_persons):
            keypoints = self.keypoints[:, person : person + 1]
            if keypoints.any():
                yield replace(self, keypoints=keypoints, name=f"{self.name}#{person}")

    def frame_labels(self) -> np.ndarray:
        """Class of each frame ``(T,)`` int64, -1 for none; where events overlap, the later one's."""
        labels = np.full(self.num_frames, -1, dtype=np.int64)
        for label, start, end in [] if self.events is None else self.events.tolist():
            labels[start:end] = label
        return labels

    @classmethod
    def from_array(
        cls,
        array: np.ndarray,
        layout: LayoutLike = "ntu25",
        axes: str | None = None,
        name: str = "",
        missing: str = "refuse",
        **fields,
    ) -> SkeletonSequence:
        """Make a sequence from an array in any of the usual axis orders.

        Args:
            array: ``(T, V, C)``, ``(T, M, V, C)``, ``(M, T, V, C)`` or ``(C, T, V, M)``.
            layout: Joint layout of the array.
            axes: One of `AXES`. None takes the only order that fits the shape and `MOST_PERSONS`.
            name: Name of the sequence, used in errors.
            missing: What NaN means: an error (``"refuse"``), or a missing joint (``"interpolate"``), which becomes
                zero, as `interpolate_missing` takes it.
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
        if missing == "interpolate":
            array = without_nan(array)
        return cls(array, layout, name=name, **fields)


def without_nan(keypoints: np.ndarray) -> np.ndarray:
    """Keypoints ``(..., C)`` in which a joint with a coordinate that is NaN is all zero: it was not seen."""
    return np.where(np.isnan(keypoints).any(-1, keepdims=True), keypoints.dtype.type(0), keypoints)


def interpolate_missing(sequence: SkeletonSequence) -> SkeletonSequence:
    """Interpolate missing joints linearly over time.

    Interpolated are joints that are all zero, or have score 0, between the first and the last frame of their person;
    before its first and after its last position a joint is held. Joints never seen stay zero, as do frames before a
    person appears and after it leaves. Scores are unchanged.
    """
    keypoints = sequence.keypoints
    seen = seen_joints(keypoints, sequence.coordinates == "2d+score")
    frame = np.arange(len(keypoints))[:, None, None]
    before = np.maximum.accumulate(np.where(seen, frame, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, frame, len(keypoints))[::-1], axis=0)[::-1]
    person = seen.any(-1, keepdims=True)
    present = np.maximum.accumulate(person, axis=0) & np.maximum.accumulate(person[::-1], axis=0)[::-1]
    fill = ~seen & present & seen.any(0)
    if not fill.any():
        return sequence
    first, last = np.where(before < 0, after, before), np.where(after == len(keypoints), before, after)
    first, last = np.clip(first, 0, len(keypoints) - 1), np.clip(last, 0, len(keypoints) - 1)
    weight = ((frame - first) / np.maximum(last - first, 1)).astype(np.float32)[..., None]
    persons, joints = np.arange(keypoints.shape[1])[:, None], np.arange(keypoints.shape[2])
    filled = keypoints[first, persons, joints] * (1 - weight) + keypoints[last, persons, joints] * weight
    if sequence.coordinates == "2d+score":
        filled[..., 2] = keypoints[..., 2]
    return replace(sequence, keypoints=np.where(fill[..., None], filled, keypoints))


def is_rate(fps: float | None) -> TypeGuard[float]:
    """Whether a number is a frame rate that a recording can have; NaN is not."""
    return fps is not None and 0.01 <= fps <= 10_000


def implausible(bodies: np.ndarray, layout: LayoutLike) -> str | None:
    """Describe an implausible size or handedness of 3D bodies, and the remedy; None if there is none.

    A person's trunk (pelvis to neck) is between 0.1 m (MediaPipe estimates such in yoga) and 1 m long; with
    right-handed axes the toes point away from the back. Bodies that lack one of these joints in all frames are not
    judged.

    Args:
        bodies: K frames of each of B recordings ``(B, K, V, 3)``, metres.
        layout: Their layout.
    """
    layout = get_layout(layout)
    ends = [make_joint(name, layout) for name in ("spine_base", "neck")]
    whole = seen_joints(bodies).all(-1)
    if ends[0] is None or ends[1] is None or not whole.any():
        return None
    trunk = (ends[1] - ends[0]) @ bodies.astype(np.float64)
    lengths = _middle(np.sqrt((trunk * trunk).sum(-1)), whole)
    if (lengths < 0.1).any():
        return "A body is much smaller than a person is in metres: check the units."
    if (lengths > 1).any():
        unit = "mm" if np.nanmax(lengths) > 100 else "cm"
        return f"A body is much larger than a person is in metres: give units='{unit}'."
    if toes_point_backwards(bodies, layout):
        return "The toes of a body point backwards, so its axes may be left-handed: give the sequence mirrored=True."
    return None


def toes_point_backwards(bodies: np.ndarray, layout: LayoutLike) -> bool:
    """Whether the toes of a body point to its back in most frames, as they do where left and right are exchanged.

    Args:
        bodies: K frames of each of B bodies ``(B, K, V, 3)``, in any unit and with any axis up.
        layout: Their layout; toes that it does not name are not judged.
    """
    layout = get_layout(layout)
    names = ("spine_base", "neck", "left_shoulder", "right_shoulder", "left_ankle", "left_foot")
    made = [make_joint(name, layout) for name in names]
    whole = seen_joints(bodies).all(-1)
    if not {"left_ankle", "left_foot"} <= set(layout.joint_names) or any(joint is None for joint in made):
        return False
    if not whole.any():
        return False
    joints = np.stack(made) @ bodies.astype(np.float64)  # type: ignore[arg-type]
    trunk, shoulders = joints[..., 1, :] - joints[..., 0, :], joints[..., 3, :] - joints[..., 2, :]
    ahead, toes = np.cross(trunk, shoulders), joints[..., 5, :] - joints[..., 4, :]
    size = np.sqrt((ahead * ahead).sum(-1) * (toes * toes).sum(-1))
    return bool((_middle((ahead * toes).sum(-1) / np.maximum(size, 1e-9), whole) < -0.5).any())


def _middle(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Median of each row over its valid frames, for rows that have any."""
    count = there.sum(-1)
    known = count > 0
    # Invalid frames sort to the end; numpy's masked median is ten times slower.
    ordered, count = np.sort(np.where(there, values, np.inf)[known], axis=-1), count[known]
    row = np.arange(len(ordered))
    return (ordered[row, (count - 1) // 2] + ordered[row, count // 2]) / 2


def to_float32(array: ArrayLike, where: str) -> np.ndarray:
    """Convert numbers to a float32 array.

    Raises:
        SkeletonFormatError: If the array is not real numbers (objects, text, complex), or overflows float32.
    """
    try:
        array = np.asarray(array)
    except ValueError:
        raise SkeletonFormatError(f"{where}: rows of different length are not an array of keypoints") from None
    if array.dtype == np.float32:
        return array
    if array.dtype.kind not in "fiu":
        raise SkeletonFormatError(f"{where}: keypoints must be real numbers, got an array of type {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array, dtype=np.float32)


def sequences_of(
    array: ArrayLike, layout: LayoutLike, axes: str | None, name: str, missing: str = "refuse"
) -> list[SkeletonSequence]:
    """The recordings in an array: one, or several with one axis more.

    Args:
        array: Numbers in nested lists or an array; see `SkeletonSequence.from_array`.
        layout: Joint layout of the array.
        axes: Axis order of one recording; None takes the only order that fits.
        name: Used in errors.
        missing: What NaN means.

    Raises:
        SkeletonFormatError: If no order fits, or several do: ``(4, 40, 25, 3)`` may be 40 frames of four people, or 40
            frames of one person in each of four recordings.
    """
    array, layout = to_float32(array, name), get_layout(layout)
    single = array.ndim - 1 if array.ndim == 5 else array.ndim
    if axes is not None:
        single = len(axes)
    elif array.ndim == 4:
        several = array.shape[2] == layout.num_joints and array.shape[3] in (2, 3) and array.shape[0] > 1
        fitting = _fitting(array.shape, layout)
        if several and fitting == ["MTVC"]:
            raise SkeletonFormatError(
                f"{name or 'array'}: shape {array.shape} can be read as one recording of {array.shape[0]} people, "
                f"axes='MTVC', or as {array.shape[0]} recordings, axes='TVC': say which with axes='...'"
            )
        single = 3 if several and not fitting else 4
    if array.ndim != single + 1:
        return [SkeletonSequence.from_array(array, layout, axes, name=name, missing=missing)]
    names = [f"{name}, {number}" if name else f"sequence {number}" for number in range(len(array))]
    return [
        SkeletonSequence.from_array(item, layout, axes, name=called, missing=missing)
        for item, called in zip(array, names, strict=True)
    ]


def is_nested_numbers(value: object) -> bool:
    """Whether a value is nested lists of numbers, as ``array.tolist()`` makes them."""
    depth = 0
    while isinstance(value, list | tuple) and value and depth < 10:
        value, depth = value[0], depth + 1
    return depth > 0 and isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _guess_axes(shape: tuple[int, ...], layout: Layout, where: str) -> str:
    joints = layout.num_joints
    fitting = _fitting(shape, layout)
    if fitting and not shape[0]:
        raise SkeletonFormatError(f"{where}: no frames to read, the shape is {shape}")
    if not fitting:
        others = sorted(name for name, other in LAYOUTS.items() if _fitting(shape, other))
        remedy = (
            f"name another layout, such as {', '.join(others[:6])}"
            if others
            else "name the axes, or give the layout as its joints and bones"
        )
        if shape and _fitting((*shape[:-1], shape[-1] - 1), layout):
            remedy = _ONE_LESS
        raise SkeletonFormatError(
            f"{where}: shape {shape} is not a skeleton of layout '{layout.name}' ({joints} joints, 2 or 3 coordinates)"
            f" in any of the axes {', '.join(AXES)}: {remedy}"
        )
    if len(fitting) > 1:
        raise SkeletonFormatError(
            f"{where}: shape {shape} can be read as {' or '.join(fitting)}: say which with axes='...'"
        )
    return fitting[0]


def _fitting(shape: tuple[int, ...], layout: Layout) -> list[str]:
    """Axis orders in which an array of this shape can be a skeleton of the layout."""
    fitting: list[str] = []
    # A 3D layout is tried with three coordinates first.
    for channels in [(3,), (2,)] if layout.is_3d else [(2, 3)]:
        if not fitting:
            fitting = _fitting_axes(shape, layout.num_joints, channels)
    return fitting


def _fitting_axes(shape: tuple[int, ...], joints: int, channels: tuple[int, ...]) -> list[str]:
    fitting = []
    if len(shape) == 3 and shape[1] == joints and shape[2] in channels:
        fitting.append("TVC")
    if len(shape) == 4 and shape[2] == joints:
        first, second, _, last = shape
        if last in channels and second <= MOST_PERSONS:
            fitting.append("TMVC")
        if last in channels and first <= MOST_PERSONS and (first, second) != (1, 1):
            fitting.append("MTVC")
        if first in channels and last <= MOST_PERSONS:
            fitting.append("CTVM")
    return fitting
