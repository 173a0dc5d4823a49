"""The interface of labelled data sets, in memory, in a file, in a folder or on the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..layouts import Layout
from ..sequence import SkeletonFormatError, SkeletonSequence


@runtime_checkable
class SkeletonData(Protocol):
    """A labelled data set of n sequences: `SkeletonDataset`, `SkeletonStore`, `SkeletonList`, or your own class."""

    @property
    def layout(self) -> Layout:
        """Joint layout of all sequences."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; ``class 0`` and so on if the data set has none."""

    @property
    def names(self) -> list[str]:
        """Names of the sequences."""

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each sequence, int64 ``(n,)``."""

    @property
    def max_persons(self) -> int:
        """Largest number of people in a sequence."""

    @property
    def extra_columns(self) -> Mapping[str, np.ndarray]:
        """Arrays ``(n,)`` or ``(n, S)`` by name that no `SkeletonSequence` has, such as ``folds``."""

    def __len__(self) -> int:
        """Number of sequences n."""

    def __iter__(self) -> Iterator[SkeletonSequence]:
        """Yield the sequences in order."""

    def __getitem__(self, index: Any, /) -> Any:
        """One sequence; for a slice, the data set of those sequences."""

    def read(self, index: int, start: int = 0, end: int | None = None) -> SkeletonSequence:
        """Read frames `start` to `end` of one sequence, without its events unless it is all of them."""

    def iterate(self, on_error: Callable[[SkeletonFormatError], None] | None = None) -> Iterator[SkeletonSequence]:
        """Yield the sequences in order; errors go to `on_error`, if it is given."""

    def column(self, key: str) -> np.ndarray | None:
        """Entries ``(n,)`` of `labels`, `subjects`, `cameras`, `setups`, `split_test`, `names` or an extra column."""

    def relabelled(self, labels: np.ndarray, class_names: Sequence[str]) -> SkeletonData:
        """The data set with other labels ``(n,)``, -1 where unknown, and their names."""

    def select(self, mask: np.ndarray) -> SkeletonData:
        """The sequences where a boolean `mask` ``(n,)`` is true."""

    def drop_empty(self) -> SkeletonData:
        """The sequences in which at least one person is seen."""
