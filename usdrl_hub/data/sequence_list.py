"""`SkeletonList`: sequences in memory as a labelled data set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..layouts import Layout, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .checks import check_frames, check_sides, kind_of
from .npz import SHARED_FIELDS, check_fields, classes_in

# Columns by the fields of a sequence.
_OF_LISTS = {"labels": "label", "subjects": "subject", "cameras": "camera", "setups": "setup", "split_test": "split"}


class SkeletonList(Sequence):
    """Sequences in memory as a labelled data set.

    Labels, subjects, cameras, splits, frame rates and events are those of the sequences.
    """

    def __init__(
        self,
        sequences: Iterable[SkeletonSequence],
        class_names: Sequence[str] = (),
        columns: Mapping[str, ArrayLike] | None = None,
    ):
        """Make a data set of sequences.

        Args:
            sequences: At least one; all of one layout, kind of coordinates, units and axes, as in a store.
            class_names: Names of the classes; ``class 0`` and so on if empty.
            columns: Further columns with one entry per sequence: `folds`, `split_test` of several splits ``(n, S)``,
                `split_test_leaked`, `correct`, or any numbers.

        Raises:
            SkeletonFormatError: If one is not a `SkeletonSequence`, they differ in kind, or a column does not fit.
        """
        self.sequences = list(sequences)
        self.source = "list of sequences"
        if not self.sequences:
            raise SkeletonFormatError(f"{self.source}: there is no sequence in it")
        kinds: dict[Any, str] = {}
        for number, sequence in enumerate(self.sequences):
            if not isinstance(sequence, SkeletonSequence):
                raise SkeletonFormatError(
                    f"{self.source}: entry {number} is a {type(sequence).__name__}, not a SkeletonSequence: make it "
                    "one with SkeletonSequence.from_array or read_skeleton"
                )
            if sequence.label is not None and not isinstance(sequence.label, int | np.integer):
                raise SkeletonFormatError(
                    f"{self.source}: the label of '{sequence.name or number}' is {sequence.label!r}, not the number "
                    "of a class: number the classes from 0, and give their names as class_names"
                )
            # Cheap to compare, unlike the kind: most sequences have the same.
            layout = sequence.layout if isinstance(sequence.layout, str) else id(sequence.layout)
            mark = (layout, sequence.keypoints.shape[-1], *(getattr(sequence, key) for key in SHARED_FIELDS))
            if mark not in kinds:
                kinds[mark] = kind_of(sequence)
            if kinds[mark] != kind_of(self.sequences[0]) and len(kinds) > 1:
                raise SkeletonFormatError(
                    f"{self.source}: '{sequence.name}' differs in layout, coordinates, units or axes from "
                    f"'{self.sequences[0].name}': bring all into one layout with to_layout"
                )
        self.columns = {key: np.asarray(values) for key, values in (columns or {}).items()}
        self._class_names = [str(name) for name in class_names]
        # Labels and classes of events in the form of a file, to share its checks.
        classes = [np.zeros(0, dtype=np.int64) if s.events is None else s.events[:, 0] for s in self.sequences]
        fields = {"labels": _marks(self.sequences, "label"), "frame_labels": np.concatenate(classes)}
        self._classes = max(int(classes_in(fields, key).max(initial=-1)) for key in fields) + 1
        fields |= {"class_names": np.array(self._class_names), "data": fields["frame_labels"], **self.columns}
        check_fields(fields, len(self.sequences), self.source)
        for key, values in self.columns.items():
            if values.ndim not in (1, 2) or len(values) != len(self.sequences) or values.dtype.kind not in "biuf":
                raise SkeletonFormatError(
                    f"{self.source}: '{key}' must have one number for each of the {len(self.sequences)} sequences"
                )

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.sequences)

    def __getitem__(self, index):
        """One sequence; for a slice, the data set of those sequences."""
        if isinstance(index, slice):
            return self._part(range(len(self))[index])
        return self.sequences[index]

    def _part(self, indices: Sequence[int]) -> SkeletonList:
        part = copy.copy(self)
        part.sequences = [self.sequences[index] for index in indices]
        part.columns = {key: values[np.asarray(indices, dtype=np.int64)] for key, values in self.columns.items()}
        return part

    def read(self, index: int, start: int = 0, end: int | None = None) -> SkeletonSequence:
        """Frames `start` to `end` of one sequence, without its events unless it is all of them.

        Raises:
            SkeletonFormatError: If no person is seen in them.
            IndexError: If the sequence has no such frames.
        """
        sequence = self.sequences[index]
        end = sequence.num_frames if end is None else end
        check_frames(start, end, sequence.num_frames)
        if (start, end) == (0, sequence.num_frames):
            return sequence
        return replace(sequence, keypoints=sequence.keypoints[start:end], events=None)

    def iterate(self, on_error: Callable[[SkeletonFormatError], None] | None = None) -> Iterator[SkeletonSequence]:
        """Yield the sequences in order; `on_error` is never called."""
        return iter(self.sequences)

    def column(self, key: str) -> np.ndarray | None:
        """Entries of the sequences, see `SkeletonStore.column`; None if unknown.

        Raises:
            SkeletonFormatError: If only some are in the split, or some subjects have numbers and some have names.
        """
        if key in self.columns:
            return self.columns[key]
        if key == "names":
            return np.array(self.names)
        values = [getattr(sequence, _OF_LISTS[key]) for sequence in self.sequences] if key in _OF_LISTS else []
        if all(value is None for value in values):
            return None
        if key == "split_test":
            check_sides(values, self.source)
            return np.array([value == "test" for value in values])
        named = [isinstance(value, str) for value in values if value is not None]
        if key == "subjects" and any(named):
            if not all(named):
                raise SkeletonFormatError(
                    f"{self.source}: some people have numbers and some have names: give all of them the one or other"
                )
            return np.array(["" if value is None else value for value in values])
        return _marks(self.sequences, _OF_LISTS[key])

    @property
    def names(self) -> list[str]:
        """Names of the sequences; the index of one without a name."""
        return [sequence.name or str(number) for number, sequence in enumerate(self.sequences)]

    @property
    def extra_columns(self) -> dict[str, np.ndarray]:
        """Columns that no `SkeletonSequence` has, such as `folds`."""
        return dict(self.columns)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each sequence."""
        return np.array([sequence.num_frames for sequence in self.sequences], dtype=np.int64)

    @property
    def layout(self) -> Layout:
        """Joint layout of all sequences."""
        first = self.sequences[0]
        return replace(get_layout(first.layout), coordinates=first.coordinates or "3d")

    @property
    def max_persons(self) -> int:
        """Largest number of people in a sequence."""
        return max(sequence.num_persons for sequence in self.sequences)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, or ``class 0`` and so on if none were given."""
        return self._class_names or [f"class {number}" for number in range(self._classes)]

    def relabelled(self, labels: np.ndarray, class_names: Sequence[str]) -> SkeletonList:
        """The data set with other labels, see `SkeletonDataset.relabelled`."""
        part = copy.copy(self)
        part.sequences = [
            replace(sequence, label=None if label < 0 else label)
            for sequence, label in zip(self.sequences, np.asarray(labels).tolist(), strict=True)
        ]
        part._class_names = [str(name) for name in class_names]
        return part

    def select(self, mask: np.ndarray) -> SkeletonList:
        """The sequences where a boolean `mask` ``(len(self),)`` is true."""
        return self._part(np.flatnonzero(np.asarray(mask, dtype=bool)).tolist())

    def drop_empty(self) -> SkeletonList:
        """This list: each `SkeletonSequence` has at least one person."""
        return self


def _marks(sequences: Sequence[SkeletonSequence], key: str) -> np.ndarray:
    """Class, subject or camera indices ``(n,)``, -1 for unknown."""
    return np.array([-1 if (mark := getattr(s, key)) is None else mark for s in sequences], dtype=np.int64)
