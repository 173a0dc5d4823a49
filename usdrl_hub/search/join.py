"""Indexes that several processes made, joined into one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..files import new_folder
from ..sequence import SkeletonFormatError
from .files import Header, IndexFormatError, shown_path
from .index import MotionIndex
from .model import same_model
from .vectors import EXACT_LIMIT


def join_indexes(
    paths: Sequence[str | os.PathLike], output: str | os.PathLike, exact_limit: int = EXACT_LIMIT
) -> MotionIndex:
    """Join indexes of one model and one kind of windows into a new one.

    Args:
        paths: The indexes, of different sources.
        output: Folder of the new index.
        exact_limit: Windows beyond which search is approximate.

    Raises:
        IndexFormatError: If one is damaged, or of another model or other windows than the first.
        SkeletonFormatError: If two hold the same source.
        OutputError: If something lies at `output`, or the disk has no room for it.
    """
    output = Path(output)
    indexes = [MotionIndex.open(path) for path in paths]
    first = indexes[0].header
    name = first.maker.name
    if name.startswith((".", "/")):
        name = shown_path(indexes[0].path / name, output)
    with new_folder(output) as folder:
        header, seen = (
            replace(first, maker=replace(first.maker, name=name), parts=(), lists=None, counter=0),
            set[str](),
        )
        for index in indexes:
            if not _is_alike(index.header, first):
                raise IndexFormatError(f"{index.path}: it is of another model or other windows than {paths[0]}")
            for part in index.parts:
                sources = [shown_path(index.path / source, output) for source in part.sources]
                if twice := seen.intersection(sources):
                    raise SkeletonFormatError(f"{index.path}: {min(twice)} is in another of the indexes, too")
                moved = replace(part, sources=sources)
                header = header.with_file(folder, "windows", moved.arrays(), len(part.starts))
            seen.update(shown_path(index.path / source, output) for source in index.sources)
        header.write(folder)
    return MotionIndex.open(output).with_lists(exact_limit)


def _is_alike(one: Header, other: Header) -> bool:
    """Whether two indexes are of one model and one kind of windows."""
    kinds = [(header.window, header.stride, header.each_person, header.size) for header in (one, other)]
    if kinds[0] != kinds[1] or one.maker.preprocessing != other.maker.preprocessing:
        return False
    return same_model(one.maker, other.maker)[0]
