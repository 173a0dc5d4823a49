"""A labelled data set of skeleton sequences in one ``.npz`` file, and its clips for training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from zipfile import is_zipfile

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..layouts import Layout, get_layout, match_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .store import SkeletonStore, check_frames
from .store_files import MOST_CLASSES


def load_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Load all arrays of an ``.npz`` file; nothing in it is unpickled.

    Raises:
        SkeletonFormatError: If the file is missing or cut, or an array holds Python objects.
    """
    path = Path(path)
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise SkeletonFormatError(f"{path}: it is a single array, not a .npz archive")
        with loaded as archive:
            arrays = {}
            for key in archive.files:
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    if "pickle" in str(error).lower() or "object" in str(error).lower():
                        raise SkeletonFormatError(
                            f"{path}: array '{key}' holds Python objects, which are never loaded"
                        ) from None
                    raise
    except SkeletonFormatError:
        raise
    except Exception:
        # NumPy reads a header as Python text, so a damaged one fails in any way that text can.
        raise SkeletonFormatError(f"{path}: cannot be read as a .npz archive: it is cut or something else") from None
    if not arrays:
        raise SkeletonFormatError(f"{path}: there is no array in it")
    return arrays


@dataclass(frozen=True, eq=False)
class SkeletonDataset(Sequence):
    """Sequences of one data set with their labels, subjects and splits; indexing gives a `SkeletonSequence`.

    The file form is ``.npz`` with `data` ``(frames, persons, joints, coordinates)``, all sequences end to end, and
    `offsets` ``(n + 1,)``; also `labels`, `subjects`, `names`, `class_names`, `joint_names`, `edges`, `split_test`,
    `split_test_leaked`, `folds`, `fps`, `up` (``"y"`` or ``"z"``), and `layout`, the name of a registered layout,
    instead of `joint_names` and `edges`; of untrimmed recordings `frame_labels` ``(frames,)``, -1 where nothing
    happens, or `events` ``(E, 3)`` of sequence, frame and class. A fourth coordinate is a sensor's tracking flag and
    is left out.

    Attributes:
        frames: Keypoints of all sequences ``(F, M, V, C)``, as stored.
        offsets: First frame of each sequence and the end ``(n + 1,)``.
        layout: Joint layout of the frames.
        joint_order: Order that brings the stored joints into the layout.
        fields: Everything else in the file, by key.
        selection: Which sequences of the file this data set consists of.
        source: Where it comes from, for errors.
    """

    frames: np.ndarray
    offsets: np.ndarray
    layout: Layout
    joint_order: list[int]
    fields: Mapping[str, np.ndarray]
    selection: np.ndarray
    source: str = "data set"

    @classmethod
    def open(cls, path: str | os.PathLike) -> SkeletonDataset | SkeletonStore:
        """Open a data set: an ``.npz`` file, which is loaded, or the folder of a `SkeletonStore`, which stays on disk.

        Raises:
            SkeletonFormatError: If it is missing, of another kind, cut, or its arrays do not fit together.
        """
        if Path(path).is_dir():
            return SkeletonStore.open(path)
        if Path(path).suffix not in (".npz", ".npy") and Path(path).is_file() and not is_zipfile(path):
            raise SkeletonFormatError(
                f"{path}: it is no data set, which is an .npz file or a store: make a store of recordings with 'usdrl "
                "prepare'"
            )
        return cls.from_arrays(load_npz(path), str(path))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], where: str) -> SkeletonDataset:
        """Make a data set of the arrays of its file form.

        Raises:
            SkeletonFormatError: If an array is missing or does not fit the others.
        """
        for key in ("data", "offsets"):
            if key not in arrays:
                raise SkeletonFormatError(f"{where}: it is no data set, because it has no array '{key}'")
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
        _check_fields(arrays, count, where)
        layout, order = _layout_of(arrays, frames.shape[2], frames.shape[3], where)
        fields = {key: value for key, value in arrays.items() if key not in ("data", "offsets")}
        return cls(frames, offsets.astype(np.int64), layout, order, fields, np.arange(count), where)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.selection)

    def __getitem__(self, index):
        """One sequence, named as in the data set or by its number; for a slice, the data set of those sequences.

        Raises:
            SkeletonFormatError: If the sequence is not one that can be read, see `SkeletonSequence`.
        """
        if isinstance(index, slice):
            return replace(self, selection=self.selection[index])
        return self.piece(index)

    def piece(self, index: int, start: int = 0, end: int | None = None) -> SkeletonSequence:
        """Frames `start` to `end` of one sequence, without its events unless it is all of them.

        Raises:
            SkeletonFormatError: As for a whole sequence.
            IndexError: If the sequence has no such frames.
        """
        number = int(self.selection[index])
        first, last = int(self.offsets[number]), int(self.offsets[number + 1])
        end = last - first if end is None else end
        # A sequence without frames is what it is, and refused below.
        if last > first:
            check_frames(start, end, last - first)
        whole = (start, end) == (0, last - first)
        keypoints = self.frames[first + start : first + end, ..., :3]
        if self.joint_order != list(range(len(self.joint_order))):
            keypoints = keypoints[:, :, self.joint_order]
        label = self._field("labels", number)
        subject = _person(self._field("subjects", number))
        try:
            return SkeletonSequence(
                keypoints,
                layout=self.layout,
                fps=float(self.fields["fps"]) if "fps" in self.fields else None,
                name=str(self._field("names", number) or number),
                label=None if label is None or label < 0 else int(label),
                subject=subject,
                up=str(self.fields["up"]) if "up" in self.fields else None,
                events=self._events(number) if whole else None,
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
            # Where nothing ever happens, there is no start.
            starts = np.flatnonzero(np.diff(labels, prepend=-1))
            ends = np.append(starts, len(labels))[1:] if len(starts) else starts
            events = np.stack([labels[starts], starts, ends], axis=1)
            return events[events[:, 0] >= 0]
        if "events" in self.fields:
            events = self.fields["events"][self.fields["events"][:, 0] == number]
            return np.stack([events[:, 2], events[:, 1], events[:, 1] + 1], axis=1)
        return None

    def _field(self, key: str, number: int):
        return self.fields[key][number] if key in self.fields else None

    def column(self, key: str) -> np.ndarray | None:
        """The entries of a per-sequence array for the selected sequences, or None where the file lacks it."""
        return self.fields[key][self.selection] if key in self.fields else None

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each selected sequence."""
        return np.diff(self.offsets)[self.selection]

    @property
    def max_persons(self) -> int:
        """Most people that a sequence has."""
        return self.frames.shape[1]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, or ``class 0`` and so on where the file has none."""
        if "class_names" in self.fields and len(self.fields["class_names"]):
            return [str(name) for name in self.fields["class_names"]]
        labels = self.fields.get("labels")
        return [f"class {number}" for number in range(0 if labels is None else int(labels.max()) + 1)]

    def select(self, mask: np.ndarray) -> SkeletonDataset:
        """The sequences where a boolean `mask` ``(len(self),)`` is true."""
        return replace(self, selection=self.selection[np.asarray(mask, dtype=bool)])

    def usable(self) -> SkeletonDataset:
        """The sequences that have frames in which somebody is seen."""
        seen = np.fromiter((self.frames[self.offsets[n] : self.offsets[n + 1]].any() for n in self.selection), bool)
        return self.select(seen)


def _person(value) -> int | str | None:
    """Who moves, as a sequence holds it; numbers that a file has as floats are numbers, and NaN is nobody known."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, np.floating):
        return None if np.isnan(value) else int(value) if float(value).is_integer() else str(value)
    return value.item() if isinstance(value, np.generic) else value


def _check_fields(arrays: Mapping[str, np.ndarray], count: int, where: str) -> None:
    """Refuse per-sequence arrays of another length or type, and shared values that are none.

    Raises:
        SkeletonFormatError: Naming the array.
    """
    kinds = {"labels": "iu", "subjects": "iuUSf", "names": "US", "split_test": "biu", "split_test_leaked": "biu"}
    for key, kind in (kinds | {"folds": "iu", "correct": "biu"}).items():
        if key not in arrays:
            continue
        array = arrays[key]
        axes = (1, 2) if key == "split_test" else (1,)
        if array.ndim not in axes or len(array) != count:
            raise SkeletonFormatError(f"{where}: '{key}' must have one entry for each of the {count} sequences")
        if array.dtype.kind not in kind:
            raise SkeletonFormatError(f"{where}: '{key}' is of the wrong type {array.dtype}")
    shapes = {"frame_labels": (len(arrays["data"]),), "events": (len(arrays.get("events", ())), 3)}
    for key, shape in shapes.items():
        if key in arrays and (arrays[key].shape != shape or arrays[key].dtype.kind not in "iu"):
            raise SkeletonFormatError(f"{where}: '{key}' must be whole numbers of shape {shape}")
    for key in ("fps", "up", "layout"):
        if key in arrays and arrays[key].size != 1:
            raise SkeletonFormatError(f"{where}: '{key}' must be a single value, got shape {arrays[key].shape}")
    if "fps" in arrays and (arrays["fps"].dtype.kind not in "fiu" or not 0 < arrays["fps"].item() < np.inf):
        raise SkeletonFormatError(f"{where}: 'fps' must be a number above 0")
    for key in ("class_names", "joint_names"):
        if key in arrays and (arrays[key].ndim != 1 or (arrays[key].size and arrays[key].dtype.kind not in "US")):
            raise SkeletonFormatError(f"{where}: '{key}' must be a list of names")
    _check_classes(arrays, where)
    if "events" in arrays and len(events := arrays["events"]):
        lengths = np.diff(arrays["offsets"].astype(np.int64))
        outside = (events[:, 0] < 0) | (events[:, 0] >= count)
        outside |= (events[:, 1] < 0) | (events[:, 1] >= lengths[np.where(outside, 0, events[:, 0])])
        if outside.any():
            sequence, frame, _ = events[outside][0].tolist()
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
        values = arrays[key][:, 2] if key == "events" else arrays[key]
        most = int(values.max(initial=0))
        if key == "events" and (values < 0).any():
            raise SkeletonFormatError(f"{where}: 'events' has the class {values.min()}: classes are numbered from 0")
        if len(names) and most >= len(names):
            raise SkeletonFormatError(f"{where}: label {most} of '{key}' has no name among {len(names)} class_names")
        if most >= MOST_CLASSES:
            raise SkeletonFormatError(
                f"{where}: label {most} of '{key}' is not from 0 to {MOST_CLASSES - 1}: number the classes from 0"
            )


def _layout_of(arrays: Mapping[str, np.ndarray], joints: int, channels: int, where: str) -> tuple[Layout, list[int]]:
    """The layout that a data set names or describes, and the order that brings its joints into it."""
    try:
        if "layout" in arrays and "joint_names" not in arrays:
            layout = get_layout(str(arrays["layout"].reshape(())))
            order = list(range(layout.num_joints))
        else:
            names = arrays.get("joint_names", np.array([f"joint_{i}" for i in range(joints)]))
            edges = arrays["edges"].tolist() if "edges" in arrays else []
            layout, order = match_layout([str(name) for name in names], edges)
    except (TypeError, ValueError) as error:
        raise SkeletonFormatError(f"{where}: its layout cannot be read: {error}") from None
    if layout.num_joints != joints:
        raise SkeletonFormatError(f"{where}: its layout has {layout.num_joints} joints, but 'data' has {joints}")
    if channels == 2:
        layout = replace(layout, coordinates="2d")
    elif channels not in (3, 4):
        raise SkeletonFormatError(f"{where}: 'data' has {channels} coordinates per joint, expected 2, 3 or 4")
    return layout, order


# A data set in memory or on disk; both have what training and scoring ask of one.
LabelledData: TypeAlias = SkeletonDataset | SkeletonStore


class ClipDataset(torch.utils.data.Dataset):
    """Clips of labelled sequences, as `transformers.Trainer` and a `DataLoader` take them.

    Every item is ``{"keypoints": (T, M, V, C), "labels": int}``. A loader's batch is made by one call of the feature
    extractor.
    """

    def __init__(
        self,
        sequences: Sequence[SkeletonSequence] | SkeletonStore,
        feature_extractor: USDRLFeatureExtractor,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        """Wrap sequences that all have labels.

        Args:
            sequences: A `SkeletonDataset`, a `SkeletonStore` or a list.
            feature_extractor: The model's.
            augment: Changes each batch of clips ``(B, T, M, V, C)``, such as `ClipAugmentation`; for training only.
        """
        self.sequences = sequences
        self.feature_extractor = feature_extractor
        self.augment = augment

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        """One clip and its label."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor | int]]:
        """Several clips at once."""
        sequences = [self.sequences[index] for index in indices]
        clips = self.feature_extractor(sequences, return_tensors="pt")["keypoints"]
        if self.augment is not None:
            clips = self.augment(clips)
        items = []
        for clip, sequence in zip(clips, sequences, strict=True):
            if sequence.label is None:
                raise ValueError(f"{sequence.name}: it has no label to train on")
            items.append({"keypoints": clip, "labels": sequence.label})
        return items
