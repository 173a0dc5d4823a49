"""The interface of labelled data sets, in memory, in a file or in a folder, and how they are opened."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..layouts import Layout, LayoutLike
from ..sequence import SkeletonFormatError, SkeletonSequence
from .arrays import load_npz
from .npz import SkeletonDataset
from .sequence_list import SkeletonList
from .store import SkeletonStore


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


def open_data(
    source: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence], layout: LayoutLike | None = None
) -> SkeletonData:
    """Open a labelled data set.

    Args:
        source: An ``.npz`` file, which is loaded; the folder of a `SkeletonStore`, which stays on disk; sequences,
            which become a `SkeletonList`; or a data set, which is returned unchanged.
        layout: Joint layout of an ``.npz`` file that names neither a layout nor joints.

    Raises:
        SkeletonFormatError: If it is missing, of another kind or truncated, or its arrays or sequences do not fit.
    """
    if isinstance(source, SkeletonDataset | SkeletonStore | SkeletonList | SkeletonData):
        return source
    if not isinstance(source, str | os.PathLike):
        return SkeletonList(source)
    if Path(source).is_dir():
        return SkeletonStore.open(source)
    if Path(source).suffix not in (".npz", ".npy") and Path(source).is_file() and not zipfile.is_zipfile(source):
        raise SkeletonFormatError(
            f"{source}: it is not a data set (an .npz file or a store): make one of recordings with 'usdrl prepare'"
        )
    return SkeletonDataset.from_arrays(load_npz(source), str(source), layout)


def source_name(data: Any) -> str:
    """Name of a data set in records and errors: that of its file or folder, else its kind."""
    if isinstance(data, SkeletonStore):
        return data.path.name
    # The source of a data set in a file is its path, which is of this machine.
    return Path(data if isinstance(data, str | os.PathLike) else getattr(data, "source", "list of sequences")).name
