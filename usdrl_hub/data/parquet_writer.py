"""Write a data set as Parquet files, as the Hugging Face Hub keeps them, block by block."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .huggingface import features_of, padded, rows_of
from .interface import SkeletonData
from .parquet import FOUND_BY, import_pyarrow

# Numbers of keypoints in a row group, and its most rows; small enough that some of them fit in memory.
_GROUP_BYTES, _GROUP_ROWS = 16 << 20, 128
# Bytes of a file at most, so that a stopped upload or download does not begin anew.
_FILE_BYTES = 256 << 20


def write_parquet(data: SkeletonData, folder: Path) -> dict[str, list[str]]:
    """Write a data set as Parquet files, one row group of sequences in memory at a time.

    Args:
        data: The data set.
        folder: Folder for the files.

    Returns:
        Files by split, "train" and "test"; only "train" where the data have no split, or several.

    Raises:
        ImportError: If `datasets` is not installed.
    """
    pyarrow = import_pyarrow()
    persons, layout = data.max_persons, data.layout
    shape = (persons, layout.num_joints, 2 if layout.coordinates == "2d" else 3)
    counts = {key: "int64" for key in FOUND_BY}
    schema = _schema(features_of(data, persons, counts))
    frame_bytes = 4 * int(np.prod(shape))
    written: dict[str, _Files] = {}
    waiting: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows_of(data)):
        side = row["split"] or "train"
        found = dict(zip(FOUND_BY, (*row["keypoints"].shape[:2], number), strict=True))
        rows = waiting.setdefault(side, [])
        rows.append(row | found)
        held = sum(entry["num_frames"] for entry in rows) * frame_bytes
        if len(rows) == _GROUP_ROWS or held >= _GROUP_BYTES:
            files = written.setdefault(side, _Files(pyarrow, folder, side, schema))
            files.write(_table(pyarrow, schema, waiting.pop(side), shape), held)
    for side, rows in waiting.items():
        files = written.setdefault(side, _Files(pyarrow, folder, side, schema))
        files.write(_table(pyarrow, schema, rows, shape), 0)
    return {side: files.finish() for side, files in written.items()}


class _Files:
    """The files of one split: a new one is begun where one is full; at the end they get the names of the hub."""

    def __init__(self, pyarrow: Any, folder: Path, side: str, schema: Any):
        self.pyarrow, self.folder, self.side, self.schema = pyarrow, folder, side, schema
        self.paths: list[Path] = []
        self.writer: Any = None
        self.held = 0

    def write(self, table: Any, size: int) -> None:
        if self.writer is None or self.held >= _FILE_BYTES:
            self._close()
            self.paths.append(self.folder / f"{self.side}-{len(self.paths)}.partial")
            self.writer = self.pyarrow.parquet.ParquetWriter(self.paths[-1], self.schema, compression="zstd")
            self.held = 0
        self.writer.write_table(table, row_group_size=len(table))
        self.held += size

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def finish(self) -> list[str]:
        self._close()
        names = []
        for number, path in enumerate(self.paths):
            names.append(f"{self.side}-{number:05}-of-{len(self.paths):05}.parquet")
            os.replace(path, self.folder / names[-1])
        return names


def _schema(features: Any) -> Any:
    """The schema of a file: keypoints as nested lists, which every reader of Parquet knows."""
    pyarrow = import_pyarrow()
    schema = features.arrow_schema
    nested = pyarrow.float32()
    for _ in range(4):
        nested = pyarrow.list_(nested)
    number = schema.get_field_index("keypoints")
    return schema.set(number, pyarrow.field("keypoints", nested))


def _table(pyarrow: Any, schema: Any, rows: Sequence[dict[str, Any]], shape: tuple[int, int, int]) -> Any:
    arrays = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if field.name == "keypoints":
            arrays.append(_nested(pyarrow, values, shape))
        else:
            arrays.append(pyarrow.array(values, type=field.type))
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _nested(pyarrow: Any, clips: Sequence[np.ndarray], shape: tuple[int, int, int]) -> Any:
    """Keypoints ``(T, M, V, C)`` of some sequences as nested lists, padded with absent people."""
    numbers = np.concatenate([padded(clip, shape[0]).ravel() for clip in clips])
    array = pyarrow.array(numbers.astype(np.float32, copy=False))
    for size in reversed(shape):
        array = pyarrow.ListArray.from_arrays(np.arange(0, len(array) + 1, size, dtype=np.int32), array)
    ends = np.cumsum([0, *(len(clip) for clip in clips)], dtype=np.int32)
    return pyarrow.ListArray.from_arrays(ends, array)
