"""How labelled data sets are opened: in memory, in a file, in a folder or on the hub."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..layouts import LayoutLike
from ..sequence import SkeletonFormatError, SkeletonSequence
from .arrays import load_npz
from .interface import SkeletonData as SkeletonData
from .npz import SkeletonDataset
from .parquet import ParquetStore
from .remote import HubAddress, is_address, open_address
from .sequence_list import SkeletonList
from .store import SkeletonStore


def open_data(
    source: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence],
    layout: LayoutLike | None = None,
    *,
    keypoints: str | None = None,
    stream: bool = False,
) -> SkeletonData:
    """Open a labelled data set.

    Args:
        source: An ``.npz`` file, which is loaded; the folder of a `SkeletonStore`, which stays on disk; the address
            of a data set on the Hugging Face Hub, see `data.remote.HubAddress`; sequences, which become a
            `SkeletonList`; or a data set, which is returned unchanged.
        layout: Joint layout of an ``.npz`` file or a data set of the hub that names neither a layout nor joints.
        keypoints: Column of the keypoints in a data set of the hub that usdrl did not push.
        stream: Read a data set of the hub over the network while it is used, without a copy on disk.

    Returns:
        The data set; `data[i]` is a labelled `SkeletonSequence`.

    Raises:
        SkeletonFormatError: If it is missing, of another kind or truncated, or its arrays or sequences do not fit.
    """
    if isinstance(source, SkeletonDataset | SkeletonStore | SkeletonList | SkeletonData):
        return source
    if not isinstance(source, str | os.PathLike):
        return SkeletonList(source)
    if is_address(source):
        return open_address(source, layout, keypoints=keypoints, stream=stream)
    if Path(source).is_dir():
        return SkeletonStore.open(source)
    if Path(source).suffix not in (".npz", ".npy") and Path(source).is_file() and not zipfile.is_zipfile(source):
        raise SkeletonFormatError(
            f"{source}: it is not a data set (an .npz file or a store): make one of recordings with 'usdrl prepare'"
        )
    return SkeletonDataset.from_arrays(load_npz(source), str(source), layout)


def source_name(data: Any) -> str:
    """Name of a data set in records and errors: that of its file or folder, else its kind."""
    if isinstance(data, str | os.PathLike) and is_address(data):
        return HubAddress.parse(data).repo_id
    if isinstance(data, ParquetStore):
        return data.title
    if isinstance(data, SkeletonStore):
        return data.path.name
    # The source of a data set in a file is its path, which is of this machine.
    return Path(data if isinstance(data, str | os.PathLike) else getattr(data, "source", "list of sequences")).name


def record_of(data: Any) -> dict[str, str]:
    """What the record of a run says of its data: their name, and the address with the commit of data of the hub."""
    origin = data.origin if isinstance(data, ParquetStore) else ""
    return {"dataset": source_name(data)} | ({"address": origin} if origin else {})
