"""Stores that several processes prepared, joined into one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice

from ..sequence import SkeletonFormatError
from .store import PART, SkeletonStore
from .store_writer import StoreWriter


def join_stores(paths: Sequence[str | os.PathLike], output: str | os.PathLike) -> SkeletonStore:
    """Join stores into one, in the order given; memory does not grow with them.

    A run that was stopped continues when the call is made again.

    Args:
        paths: Stores of the same kind of sequences, classes and extra columns.
        output: Folder to make.

    Raises:
        SkeletonFormatError: If a store is damaged, or of another kind or other classes than the first.
        FolderInUseError: If another process is writing the output.
        OutputError: If something lies at `output`, or the disk has no room for it.
    """
    stores = [SkeletonStore.open(path) for path in paths]
    first = stores[0]
    for store in stores[1:]:
        for what, one, other in (
            ("layout, unit and axes", first.header.shared, store.header.shared),
            ("classes", first.header.class_names, store.header.class_names),
            ("numbers", first.header.dtype, store.header.dtype),
            ("extra columns", set(first.extra_columns), set(store.extra_columns)),
        ):
            if one != other:
                raise SkeletonFormatError(
                    f"{store.path}: its {what} differ from those of {first.path}, so they are no shards of one set"
                )
    settings = {"joined": [[str(store.path.resolve()), store.content_hash] for store in stores]}
    with StoreWriter(output, settings, first.header.dtype) as writer:
        done = writer.finished_sources
        for number, store in enumerate(stores):
            columns = store.extra_columns
            for start in range(0, len(store), PART):
                name, rows = f"{number}/{start}", slice(start, start + PART)
                if name in done:
                    continue
                part = list(islice(iter(store[rows]), PART))
                writer.write_part(part, {}, [name], {key: values[rows].tolist() for key, values in columns.items()})
        return writer.finish(first.header.class_names, first.header.dataset)
