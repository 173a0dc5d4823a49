"""Which sequences of a data set train and which test."""

from __future__ import annotations

import numpy as np

from ..sequence import SkeletonFormatError
from .dataset import SkeletonDataset


def default_split(dataset: SkeletonDataset) -> tuple[SkeletonDataset, SkeletonDataset, str]:
    """Split a data set by its own protocol.

    The file's `split_test` where it has one (the first column of several; sequences in `split_test_leaked`, copies of
    training ones, are left out of the test); else people with odd numbers train and with even numbers test.

    Returns:
        Training part, test part, and the rule in words.

    Raises:
        SkeletonFormatError: If the file has neither, or a part is empty.
    """
    split, subjects = dataset.column("split_test"), dataset.column("subjects")
    if split is not None:
        test = split.astype(bool) if split.ndim == 1 else split[:, 0].astype(bool)
        leaked = dataset.column("split_test_leaked")
        rule = "the file's split_test" + ("" if split.ndim == 1 else ", first column")
        kept = test
        if leaked is not None:
            kept = test & ~leaked.astype(bool)
            rule += f", without {int((test & ~kept).sum())} test clips that are copies of training clips"
        parts = dataset.select(~test), dataset.select(kept)
    elif subjects is not None and subjects.dtype.kind in "iu" and len(np.unique(subjects)) > 1:
        parts = dataset.select(subjects % 2 == 1), dataset.select(subjects % 2 == 0)
        rule = "people with odd numbers train, people with even numbers test"
    else:
        raise SkeletonFormatError(
            "the data set says neither who moves (integer 'subjects') nor which sequences test ('split_test'): add one"
        )
    if not len(parts[0]) or not len(parts[1]):
        raise SkeletonFormatError(f"the split ({rule}) leaves no sequence to {'test' if len(parts[0]) else 'train'}")
    return (*parts, rule)
