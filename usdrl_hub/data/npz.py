"""`SkeletonDataset`: the sequences of one ``.npz`` file with their labels, subjects and splits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..layouts import Layout, LayoutLike, get_layout, match_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .checks import check_frames
from .store_files import MOST_CLASSES

# Joints of a body at most; the largest layouts have 133.
_MOST_JOINTS = 1000
# Fields of a sequence, besides the layout, that all sequences of a file share.
SHARED_FIELDS = ("up", "units", "coordinates", "mirrored")
# Arrays that are not extra columns: fields of sequences, and properties of the file.
_OF_SEQUENCES = {"labels", "subjects", "names", "cameras", "setups", "fps", "image_shape", "layout", "joint_names"}
_OF_SEQUENCES |= {"edges", "class_names", "frame_labels", "events", *SHARED_FIELDS}


@dataclass(frozen=True, eq=False)
class SkeletonDataset(Sequence):
    """Sequences of one data set with their labels, subjects and splits; indexing gives a `SkeletonSequence`.

    The file form is ``.npz`` with `data` ``(frames, persons, joints, coordinates)``, all sequences end to end, and
    `offsets` ``(n + 1,)``; also `labels` (-1 where unknown), `subjects`, `cameras`, `setups`, `names`, `class_names`,
    `joint_names`, `edges`, `split_test` ``(n,)`` or, of several splits, ``(n, S)``, `split_test_leaked`, `folds`,
    `fps` (one for all, or one per sequence, NaN where unknown), `image_shape` (height and width, for all or per
    sequence), `up`, `units`, `coordinates`, `mirrored`, see `SkeletonSequence`, and instead of `joint_names` and
    `edges` `layout`, the name of a registered layout or a description as JSON; of untrimmed recordings `frame_labels`
    ``(frames,)``, -1 for no class, or `events` ``(E, 3)`` of sequence, frame and class, or ``(E, 4)`` of sequence,
    first frame, the frame after the last, and class. A fourth coordinate is a sensor's tracking flag and is ignored.
    Further arrays of numbers with one entry per sequence are extra columns.

    Attributes:
        frames: Keypoints of all sequences ``(F, M, V, C)``, as stored.
        offsets: First frame of each sequence and the end ``(n + 1,)``.
        layout: Joint layout of the frames.
        joint_order: Order that brings the stored joints into the layout.
        fields: All other arrays of the file, by key.
        selection: Indices of the sequences of the file that are in this data set.
        source: Name of the file or data set, for errors.
    """

    frames: np.ndarray
    offsets: np.ndarray
    layout: Layout
    joint_order: list[int]
    fields: Mapping[str, np.ndarray]
    selection: np.ndarray
    source: str = "data set"

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], where: str, layout: LayoutLike | None = None
    ) -> SkeletonDataset:
        """Make a data set from the arrays of its ``.npz`` file.

        Args:
            arrays: The arrays by name.
            where: Name of the file or data set, used in errors.
            layout: Joint layout if the arrays name neither a layout nor joints.

        Raises:
            SkeletonFormatError: If an array is missing or does not fit the others.
        """
        for key in ("data", "offsets"):
            if key not in arrays:
                raise SkeletonFormatError(f"{where}: it is not a data set, because it has no array '{key}'")
        frames, offsets = arrays["data"], arrays["offsets"]
        if frames.ndim != 4 or frames.dtype.kind not in "fiu":
            raise SkeletonFormatError(
                f"{where}: 'data' must be numbers with the axes (frames, persons, joints, coordinates), got "
                f"{frames.dtype} of shape {frames.shape}"
            )
        valid = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
        if not valid or offsets[0] != 0 or offsets[-1] != len(frames) or (np.diff(offsets.astype(np.int64)) < 0).any():
            raise SkeletonFormatError(f"{where}: 'offsets' must rise from 0 to the {len(frames)} frames of 'data'")
        count = len(offsets) - 1
        check_fields(arrays, count, where)
        found, order = _layout_of(arrays, frames.shape[2], frames.shape[3], where, layout)
        fields = {key: value for key, value in arrays.items() if key not in ("data", "offsets")}
        return cls(frames, offsets.astype(np.int64), found, order, fields, np.arange(count), where)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.selection)

    @property
    def units(self) -> str | None:
        """Unit of 3D keypoints as the file says it, or None."""
        return str(self.fields["units"].reshape(-1)[0]) if "units" in self.fields else None

    def __getitem__(self, index):
        """One sequence, named as in the data set or by its number; for a slice, the data set of those sequences.

        Raises:
            SkeletonFormatError: If the sequence is not one that can be read, see `SkeletonSequence`.
        """
        if isinstance(index, slice):
            return replace(self, selection=self.selection[index])
        return self.read(index)

    def read(self, index: int, start: int = 0, end: int | None = None) -> SkeletonSequence:
        """Frames `start` to `end` of one sequence, without its events unless it is all of them.

        Raises:
            SkeletonFormatError: As for a whole sequence.
            IndexError: If the sequence has no such frames.
        """
        number = int(self.selection[index])
        first, last = int(self.offsets[number]), int(self.offsets[number + 1])
        end = last - first if end is None else end
        # A sequence without frames is refused below.
        if last > first:
            check_frames(start, end, last - first)
        whole = (start, end) == (0, last - first)
        keypoints = self.frames[first + start : first + end, ..., :3]
        if self.joint_order != list(range(len(self.joint_order))):
            keypoints = keypoints[:, :, self.joint_order]
        shared = {key: self.fields[key].reshape(-1)[0].item() for key in SHARED_FIELDS if key in self.fields}
        try:
            return SkeletonSequence(
                keypoints,
                layout=self.layout,
                fps=self._measure("fps", number),
                name=self._name(number),
                label=self._mark("labels", number),
                subject=_person(self._field("subjects", number)),
                camera=self._mark("cameras", number),
                setup=self._mark("setups", number),
                image_shape=self._measure("image_shape", number),
                events=self._events(number) if whole else None,
                split=self._side(number),
                **shared,
            )
        except SkeletonFormatError as error:
            raise type(error)(f"{self.source}: {error}") from None

    def __iter__(self) -> Iterator[SkeletonSequence]:
        """Yield the sequences in order."""
        return self.iterate()

    def iterate(self, on_error: Callable[[SkeletonFormatError], None] | None = None) -> Iterator[SkeletonSequence]:
        """Yield the sequences in order.

        Args:
            on_error: Called with the error of a sequence that cannot be read, which is then left out; None raises it.
        """
        for index in range(len(self)):
            try:
                yield self[index]
            except SkeletonFormatError as error:
                if on_error is None:
                    raise
                on_error(error)

    def _events(self, number: int) -> np.ndarray | None:
        """Events of a sequence ``(E, 3)`` of class, start and end; an event at a frame lasts for that frame."""
        if "frame_labels" in self.fields:
            labels = self.fields["frame_labels"][self.offsets[number] : self.offsets[number + 1]].astype(np.int64)
            # A recording without any class has no start.
            starts = np.flatnonzero(np.diff(labels, prepend=-1))
            ends = np.append(starts, len(labels))[1:] if len(starts) else starts
            events = np.stack([labels[starts], starts, ends], axis=1)
            return events[events[:, 0] >= 0]
        if "events" in self.fields:
            events = self.fields["events"][self.fields["events"][:, 0] == number].astype(np.int64)
            ends = events[:, 1] + 1 if events.shape[1] == 3 else events[:, 2]
            return np.stack([events[:, -1], events[:, 1], ends], axis=1)
        return None

    def _field(self, key: str, number: int):
        return self.fields[key][number] if key in self.fields else None

    def _name(self, number: int) -> str:
        return str(self._field("names", number) or number)

    def _mark(self, key: str, number: int) -> int | None:
        """A class or camera index; None for a negative number, which means unknown."""
        mark = self._field(key, number)
        return None if mark is None or mark < 0 else int(mark)

    def _measure(self, key: str, number: int) -> Any:
        """One or two numbers, of all sequences or of each; None for NaN, which means unknown."""
        if key not in self.fields:
            return None
        values, width = self.fields[key], 2 if key == "image_shape" else 1
        values = values.reshape(-1, width)
        # In a file of one sequence, both forms are the same.
        row = values[number if len(values) > 1 else 0].astype(np.float64)
        return None if np.isnan(row).any() else tuple(row.tolist()) if width > 1 else float(row[0])

    def _side(self, number: int) -> str | None:
        """The side of the split, if there is exactly one split."""
        side = self._field("split_test", number)
        return None if side is None or np.size(side) != 1 else "test" if np.any(side) else "train"

    def column(self, key: str) -> np.ndarray | None:
        """The entries of a per-sequence array for the selected sequences, or None if the file lacks it."""
        return self.fields[key][self.selection] if key in self.fields else None

    @property
    def names(self) -> list[str]:
        """Names of the selected sequences."""
        return [self._name(int(number)) for number in self.selection]

    @property
    def extra_columns(self) -> dict[str, np.ndarray]:
        """Arrays of numbers with one entry per selected sequence that no `SkeletonSequence` has, such as `folds`."""
        count = len(self.offsets) - 1
        return {
            key: values[self.selection]
            for key, values in self.fields.items()
            if key not in _OF_SEQUENCES
            and values.ndim in (1, 2)
            and len(values) == count
            and values.dtype.kind in "biuf"
        }

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each selected sequence."""
        return np.diff(self.offsets)[self.selection]

    @property
    def max_persons(self) -> int:
        """Largest number of people in a sequence."""
        return self.frames.shape[1]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, or ``class 0`` and so on if the file has none."""
        if "class_names" in self.fields and len(self.fields["class_names"]):
            return [str(name) for name in self.fields["class_names"]]
        classes = (classes_in(self.fields, key) for key in ("labels", "frame_labels", "events"))
        return [f"class {number}" for number in range(max(int(marks.max(initial=-1)) for marks in classes) + 1)]

    def relabelled(self, labels: np.ndarray, class_names: Sequence[str]) -> SkeletonDataset:
        """The data set with other labels ``(len(self),)``, -1 where unknown, and class names; events are unchanged."""
        whole = np.full(len(self.offsets) - 1, -1, dtype=np.int64)
        whole[self.selection] = labels
        return replace(self, fields={**self.fields, "labels": whole, "class_names": np.array(class_names)})

    def select(self, mask: np.ndarray) -> SkeletonDataset:
        """The sequences where a boolean `mask` ``(len(self),)`` is true."""
        return replace(self, selection=self.selection[np.asarray(mask, dtype=bool)])

    def drop_empty(self) -> SkeletonDataset:
        """The sequences in which at least one person is seen."""
        seen = np.fromiter((self.frames[self.offsets[n] : self.offsets[n + 1]].any() for n in self.selection), bool)
        return self.select(seen)


def classes_in(fields: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """The classes in an array of labels or events."""
    values = fields.get(key, np.zeros((0, 3), dtype=np.int64))
    return (values[:, -1] if key == "events" else values).astype(np.int64)


def _person(value) -> int | str | None:
    """The subject of a sequence; whole floats become integers, NaN and negative numbers None."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace") or None
    if isinstance(value, np.floating):
        return None if np.isnan(value) else int(value) if float(value).is_integer() else str(value)
    value = value.item() if isinstance(value, np.generic) else value
    return None if value == "" or (isinstance(value, int) and value < 0) else value


def check_fields(arrays: Mapping[str, np.ndarray], count: int, where: str) -> None:
    """Refuse per-sequence arrays of a wrong length or type, and wrong shared values.

    Raises:
        SkeletonFormatError: Naming the array.
    """
    kinds = {"labels": "iu", "subjects": "iuUSf", "names": "US", "split_test": "biu", "split_test_leaked": "biu"}
    kinds |= {"folds": "iu", "correct": "biu", "cameras": "iu", "setups": "iu"}
    for key, array in arrays.items():
        # NumPy takes any bytes for text, on which Python fails later.
        if array.dtype.kind == "U":
            codes = np.frombuffer(array.tobytes(), dtype=f"{array.dtype.byteorder}u4")
            if (codes > sys.maxunicode).any():
                raise SkeletonFormatError(f"{where}: '{key}' is damaged: it holds characters that there are not")
    for key, kind in kinds.items():
        if key not in arrays:
            continue
        array = arrays[key]
        axes = (1, 2) if key == "split_test" else (1,)
        if array.ndim not in axes or len(array) != count:
            raise SkeletonFormatError(f"{where}: '{key}' must have one entry for each of the {count} sequences")
        if array.dtype.kind not in kind:
            raise SkeletonFormatError(f"{where}: '{key}' is of the wrong type {array.dtype}")
        if key.startswith("split_test") and not np.isin(array, (0, 1)).all():
            raise SkeletonFormatError(f"{where}: '{key}' must be true or false (1 or 0) for each sequence")
    _check_events(arrays, count, where)
    for key in ("up", "layout", *SHARED_FIELDS):
        if key in arrays and arrays[key].size != 1:
            raise SkeletonFormatError(f"{where}: '{key}' must be a single value, got shape {arrays[key].shape}")
        if key in arrays and arrays[key].dtype.kind != ("b" if key == "mirrored" else "U"):
            raise SkeletonFormatError(f"{where}: '{key}' is of the wrong type {arrays[key].dtype}")
    for key, width in (("fps", 1), ("image_shape", 2)):
        if key not in arrays:
            continue
        values = arrays[key]
        if values.size not in (width, width * count):
            expected = {1: "a single value", 2: "height and width"}[width]
            raise SkeletonFormatError(
                f"{where}: '{key}' must be {expected}, or one for each of the {count} sequences, "
                f"got shape {values.shape}"
            )
        # NaN is unknown, where each sequence has its own.
        if (
            values.dtype.kind not in "fiu"
            or not (((values > 0) & (values < np.inf)) | (np.isnan(values) & (values.size > width))).all()
        ):
            raise SkeletonFormatError(f"{where}: '{key}' must be a number above 0")
    for key in ("class_names", "joint_names"):
        if key in arrays and (arrays[key].ndim != 1 or (arrays[key].size and arrays[key].dtype.kind not in "US")):
            raise SkeletonFormatError(f"{where}: '{key}' must be a list of names")
    _check_classes(arrays, where)


def _check_events(arrays: Mapping[str, np.ndarray], count: int, where: str) -> None:
    """Refuse labels of frames and events that are not those of the sequences.

    Raises:
        SkeletonFormatError: Naming the array.
    """
    labels, events = arrays.get("frame_labels"), arrays.get("events")
    if labels is not None and (labels.shape != (len(arrays["data"]),) or labels.dtype.kind not in "iu"):
        raise SkeletonFormatError(f"{where}: 'frame_labels' must be whole numbers of shape {(len(arrays['data']),)}")
    if events is None:
        return
    if events.ndim != 2 or events.shape[1] not in (3, 4) or events.dtype.kind not in "iu":
        raise SkeletonFormatError(
            f"{where}: 'events' must be whole numbers of shape {(len(events) if events.ndim else 0, 3)}, or 4"
        )
    lengths = np.diff(arrays["offsets"].astype(np.int64))
    outside = (events[:, 0] < 0) | (events[:, 0] >= count)
    outside |= (events[:, 1] < 0) | (events[:, 1] >= lengths[np.where(outside, 0, events[:, 0])])
    if outside.any():
        sequence, frame = events[outside][0].tolist()[:2]
        raise SkeletonFormatError(
            f"{where}: 'events' names frame {frame} of sequence {sequence}, which is not among the {count} "
            "sequences or has not as many frames"
        )


def _check_classes(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Refuse classes without a name where there are names, and numbers that no class has where there are none.

    Raises:
        SkeletonFormatError: Naming the array.
    """
    names = arrays.get("class_names", ())
    for key in ("labels", "frame_labels", "events"):
        if key not in arrays:
            continue
        values = classes_in(arrays, key)
        largest = int(values.max(initial=0))
        if key == "events" and (values < 0).any():
            raise SkeletonFormatError(f"{where}: 'events' has the class {values.min()}: classes are numbered from 0")
        if len(names) and largest >= len(names):
            raise SkeletonFormatError(
                f"{where}: label {largest} of '{key}' has no name among {len(names)} class_names"
            )
        if largest >= MOST_CLASSES:
            raise SkeletonFormatError(
                f"{where}: label {largest} of '{key}' is not from 0 to {MOST_CLASSES - 1}: number the classes from 0"
            )


def _layout_of(
    arrays: Mapping[str, np.ndarray], joints: int, channels: int, where: str, given: LayoutLike | None
) -> tuple[Layout, list[int]]:
    """The layout that a data set names or describes, and the order that brings its joints into it."""
    try:
        if "joint_names" not in arrays and ("layout" in arrays or given is not None):
            layout = get_layout(_named_in(arrays) if "layout" in arrays else given)  # type: ignore[arg-type]
            order = list(range(layout.num_joints))
        else:
            names = arrays.get("joint_names", np.array([f"joint_{i}" for i in range(joints)]))
            if max(len(names), joints) > _MOST_JOINTS:
                raise ValueError(f"it has {max(len(names), joints)} joints, no body has more than {_MOST_JOINTS}")
            edges = _edges_of(arrays, joints)
            layout, order = match_layout([str(name) for name in names], edges)
    except (TypeError, ValueError, RecursionError) as error:
        raise SkeletonFormatError(f"{where}: its layout cannot be read: {error}") from None
    if layout.num_joints != joints:
        raise SkeletonFormatError(f"{where}: its layout has {layout.num_joints} joints, but 'data' has {joints}")
    if channels == 2 and layout.is_3d and "coordinates" not in arrays:
        layout = replace(layout, coordinates="2d")
    elif channels not in (2, 3, 4):
        raise SkeletonFormatError(f"{where}: 'data' has {channels} coordinates per joint, expected 2, 3 or 4")
    return layout, order


def _named_in(arrays: Mapping[str, np.ndarray]) -> LayoutLike:
    """The name of a layout, or its description as JSON, in the array `layout`."""
    text = str(arrays["layout"].reshape(()))
    return json.loads(text) if text.startswith("{") else text


def _edges_of(arrays: Mapping[str, np.ndarray], joints: int) -> list[list[int]]:
    """The edges between joints, checked before they become Python lists."""
    edges = arrays.get("edges", np.zeros((0, 2), dtype=np.int64))
    if edges.size == 0:
        return []
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu" or len(edges) > joints**2:
        raise ValueError(f"'edges' must be whole numbers of shape (n, 2), got {edges.dtype} of {edges.shape}")
    return edges.tolist()
