"""Embeddings of many recordings in one ``.npz`` file, written as they come and by several processes."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from ..data.arrays import load_npz
from ..data.npz import SkeletonDataset
from ..data.store import SkeletonStore, is_store
from ..distributed import Workers
from ..files import check_space, locked, new_file, remove_leftovers, scratch_file
from ..sequence import SkeletonFormatError, SkeletonSequence


def expected_rows(source: Any, per_frame: bool = False) -> int:
    """A lower bound of the number of embeddings of data sets, stores and files, without reading them.

    Args:
        source: A data set or store, or a list of files and stores.
        per_frame: Whether there is one embedding per frame instead of one per recording.
    """
    if isinstance(source, SkeletonDataset | SkeletonStore):
        return int(source.lengths.sum(dtype=np.int64)) if per_frame else len(source)
    return sum(
        expected_rows(SkeletonStore.open(file), per_frame) if is_store(file) else int(not per_frame) for file in source
    )


def write_embeddings(
    stream: Iterable[tuple[SkeletonSequence, np.ndarray]],
    path: str | os.PathLike,
    *,
    rows: int = 0,
    workers: Workers | None = None,
) -> int:
    """Write names and embeddings to an ``.npz`` file as they come; only the names stay in memory.

    Args:
        stream: What `iter_embeddings` or `iter_frame_embeddings` yields.
        path: File to write, whole or not at all: `names` ``(N,)`` and `embeddings` ``(N, 2d)``; of frames ``(all
            frames, 2d)``, with the `offsets` ``(N + 1,)`` of the recordings. Float32.
        rows: A lower bound of the rows, see `expected_rows`; the disk must have room for them before the first one is
            written.
        workers: Processes that share the recordings, each with a stream of its own; this one alone where None. The
            first process writes the file, in the order of the processes, which must share a file system.

    Returns:
        Number of recordings written, by all processes.

    Raises:
        SkeletonFormatError: If the stream is empty.
        FolderInUseError: If another process is writing the file.
        OSError: If the file cannot be written, or the disk has no room for the rows.
    """
    path, workers = Path(path), workers or Workers(0, 1)
    part = failed = partial = None
    with ExitStack() as stack:
        try:
            if workers.is_first:
                stack.enter_context(locked(path))
                remove_leftovers(path)
                partial = stack.enter_context(new_file(path))
        except Exception as error:
            failed = error
        # Before the work, so that no process works in vain.
        with workers.gathered(failed is None) as ready:
            if failed is not None:
                raise failed
            if not all(ready):
                raise SkeletonFormatError(f"{path} is not written: another process failed, see its error")
        try:
            part = stack.enter_context(_Part.of(stream, path, rows))
        except Exception as error:
            failed = error
        # Every process gets here, failed ones too, so none waits forever; temporary files live until they were read.
        with workers.gathered(part) as parts:
            if failed is not None:
                raise failed
            if None in parts:
                raise SkeletonFormatError(f"{path} is not written: another process failed, see its error")
            count = sum(len(part.names) for part in parts)
            if not count:
                raise SkeletonFormatError(f"no recording could be embedded, so {path} is not written")
            if partial is not None:
                _write_archive(partial, parts)
    return count


@dataclass
class _Part:
    """The embeddings of one process.

    Attributes:
        file: File that holds the rows.
        names: Names of the recordings.
        lengths: Rows of each recording.
        width: Numbers of a row.
        per_frame: Whether there is a row per frame.
    """

    file: str
    names: list[str]
    lengths: list[int]
    width: int = 0
    per_frame: bool = False

    @classmethod
    @contextmanager
    def of(cls, stream: Iterable[tuple[SkeletonSequence, np.ndarray]], path: Path, rows: int) -> Iterator[_Part]:
        """Write the rows of a stream to a file beside `path` that is removed afterwards."""
        with scratch_file(path) as file:
            part = cls(str(file), [], [])
            with open(file, "wb") as raw:
                for sequence, embedding in stream:
                    found = np.atleast_2d(embedding)
                    if not part.names:
                        # Twice: the rows, and the archive that is made of them.
                        check_space(path, 2 * 4 * rows * found.shape[1], f"{path} of {rows} embeddings")
                    part.width, part.per_frame = found.shape[1], embedding.ndim == 2
                    part.names.append(sequence.name)
                    part.lengths.append(len(found))
                    raw.write(np.ascontiguousarray(found, dtype="<f4").tobytes())
            # The file is closed: some systems do not open one twice.
            yield part


def _write_archive(path: Path, parts: list[_Part]) -> None:
    """Write the parts of all processes, in their order, as an ``.npz`` file."""
    lengths = [length for part in parts for length in part.lengths]
    arrays = {"names": np.array([name for part in parts for name in part.names])}
    if any(part.per_frame for part in parts):
        arrays["offsets"] = np.cumsum([0, *lengths])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                npy_format.write_array(member, array, allow_pickle=False)
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            width = max(part.width for part in parts)
            header = {"descr": "<f4", "fortran_order": False, "shape": (sum(lengths), width)}
            npy_format.write_array_header_1_0(member, header)
            for part in parts:
                with open(part.file, "rb") as raw:
                    shutil.copyfileobj(raw, member, 1 << 20)


def join_embeddings(paths: Sequence[str | os.PathLike], output: str | os.PathLike) -> int:
    """Join the files of several `write_embeddings` into one, in the order given; their arrays are copied as they come.

    Args:
        paths: Files of embeddings of one model and level.
        output: File to write.

    Returns:
        Number of recordings.

    Raises:
        SkeletonFormatError: If a file is not one of embeddings, or differs from the first in kind.
        OutputError: If the file cannot be written.
    """
    parts: list[_Part] = []
    with ExitStack() as stack:
        for path in paths:
            arrays = load_npz(path)
            names, rows = arrays.get("names"), arrays.get("embeddings")
            offsets = arrays.get("offsets")
            fits = names is not None and rows is not None and rows.ndim == 2 and rows.dtype == np.float32
            if names is None or rows is None or not fits or names.dtype.kind != "U":
                raise SkeletonFormatError(f"{path}: it holds no embeddings of 'usdrl embed'")
            lengths = np.ones(len(names), np.int64) if offsets is None else np.diff(offsets.astype(np.int64))
            if len(lengths) != len(names) or (lengths < 0).any() or int(lengths.sum()) != len(rows):
                raise SkeletonFormatError(f"{path}: its names do not fit its embeddings")
            kind = offsets is not None, rows.shape[1]
            if parts and kind != (parts[0].per_frame, parts[0].width):
                raise SkeletonFormatError(f"{path}: its embeddings are of another model or level than {paths[0]}'s")
            file = stack.enter_context(scratch_file(output))
            file.write_bytes(np.ascontiguousarray(rows, dtype="<f4").tobytes())
            parts.append(_Part(str(file), names.tolist(), lengths.tolist(), rows.shape[1], offsets is not None))
        with locked(output), new_file(output) as partial:
            _write_archive(partial, parts)
    return sum(len(part.names) for part in parts)
