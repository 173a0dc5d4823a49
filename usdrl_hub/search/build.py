"""Windows of recordings and their embeddings, written to an index as they come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import SkeletonData, open_data
from ..data.formats.sniffing import array_names
from ..data.reading import Reading
from ..data.sources import file_stamp
from ..data.store import SkeletonStore, is_store
from ..errors import NonFiniteError, notice
from ..finite import check_finite
from ..inference.embedding import clip_embeddings
from ..inference.engine import Engine, batched
from ..inference.scores import NOT_FINITE
from ..inference.source import ErrorHandler, Source, list_files
from ..layouts import get_layout
from ..sequence import SkeletonSequence, is_rate
from .files import WHOLE, Part, shown_path
from .vectors import unit_vectors

# Frames per second of recordings that do not say it.
USUAL_FPS = 30.0
# Recordings of a data set between which a run can be stopped.
_CHUNK = 256
# Windows embedded between two looks at the clock, windows of a part at least, and seconds until one is written anyway.
_WINDOWS_AT_ONCE, _PART, _SECONDS = 1024, 16_384, 60.0


@dataclass(frozen=True)
class WindowOptions:
    """How recordings are cut and read.

    Attributes:
        window: Seconds of a window; 0 takes recordings whole.
        stride: Seconds between windows.
        each_person: Whether each person is a recording of their own.
        reading: What the files do not say.
        batch_size: Clips embedded at once.
        on_error: Called with the error of an input that is left out; None raises it.

    Raises:
        ValueError: If a number is out of range.
    """

    window: float = 2.0
    stride: float = 0.5
    each_person: bool = False
    reading: Reading = Reading()
    batch_size: int = 64
    on_error: ErrorHandler | None = None

    def __post_init__(self) -> None:
        """Refuse what no recording can be cut by."""
        if not (self.window == 0 or 0.1 <= self.window <= 3600):
            raise ValueError(f"a window has 0.1 to 3600 seconds, or 0 for whole recordings, got {self.window:g}")
        if self.window and not 0.01 <= self.stride <= self.window:
            raise ValueError(
                f"the stride must be from 0.01 seconds to the window's {self.window:g}, or movements between windows "
                f"would be missed; got {self.stride:g}"
            )


def cut(sequence: SkeletonSequence, window: float, stride: float) -> tuple[int, list[tuple[int, SkeletonSequence]]]:
    """Windows of a recording.

    Args:
        sequence: The recording.
        window: Seconds; 0 for the whole.
        stride: Seconds between windows.

    Returns:
        Frames of a window, and the windows in which a person is seen, each with its first frame.
    """
    if not is_rate(sequence.fps) and window:
        notice(f"{sequence.name}: its frame rate is unknown: {USUAL_FPS:g} is taken (--fps)", "unknown frame rates")
    rate = sequence.fps if is_rate(sequence.fps) else USUAL_FPS
    size = max(round(window * rate), 1) if window else sequence.num_frames
    return size, list(sequence.windows(size, max(round(stride * rate), 1)))


def embed_windows(
    engine: Engine, windows: Sequence[SkeletonSequence], batch_size: int, on_error: ErrorHandler | None = None
) -> np.ndarray:
    """Unit embeddings ``(n, D)`` float32 of prepared sequences, each as one clip.

    Args:
        engine: The encoder.
        windows: Prepared sequences.
        batch_size: Clips embedded at once.
        on_error: Called with the error of a window whose embedding is not finite, which becomes zeros and is like
            nothing; None raises it.

    Raises:
        NonFiniteError: See `on_error`; the message names the recording.
    """
    rows = []
    for batch in batched(windows, batch_size):
        found = clip_embeddings(engine.run(engine.extractor.clips(batch, engine.device))).float().cpu().numpy()
        for number, sequence in enumerate(batch):
            try:
                check_finite(found[number], f"{sequence.name or 'sequence'}: its embedding", NOT_FINITE)
            except NonFiniteError as error:
                if on_error is None:
                    raise
                on_error(error)
                found[number] = 0
        rows.append(found)
    return unit_vectors(np.concatenate(rows))


@dataclass(frozen=True)
class _Chunk:
    """Recordings between which a run can be stopped.

    Attributes:
        source: Path of their file or store, relative to the index.
        stamp: Its stamp.
        read: Recordings of the source that are read after this chunk, or `WHOLE`.
        recordings: Them.
        class_names: Names of the classes of their labels.
    """

    source: str
    stamp: str
    read: int
    recordings: Source
    class_names: Sequence[str]


def sources_of(paths: Sequence[str | os.PathLike], folder: Path) -> Iterator[tuple[Path, Path, str, str]]:
    """Yield each file and store below some paths: it, the path it was found under, and its name and stamp in an index.

    Args:
        paths: Files, folders and stores.
        folder: The index, which is not one of its own recordings.

    Raises:
        SkeletonFormatError: If there is nothing at a path.
    """
    seen = set()
    for given in map(Path, paths):
        for file in list_files(given):
            name = shown_path(file, folder)
            if name not in seen and not file.resolve().is_relative_to(folder.resolve()):
                seen.add(name)
                yield file, given, name, stamp_of(file)


def stamp_of(file: Path) -> str:
    """Text that changes when a file or store does."""
    return SkeletonStore.open(file).content_hash if is_store(file) else "-".join(map(str, file_stamp(file)))


def data_of(file: Path, reading: Reading) -> SkeletonData | None:
    """The data set in a file or store; None if it is a recording."""
    if is_store(file):
        return SkeletonStore.open(file)
    if file.suffix.lower() == ".npz" and "offsets" in array_names(file):
        return open_data(file, reading.layout)
    return None


def _chunks(file: Path, given: Path, name: str, stamp: str, done: int, options: WindowOptions) -> Iterator[_Chunk]:
    """Yield the recordings of a file or store after the first `done`."""
    choices: dict[str, Any] = {"each_person": options.each_person, "on_error": options.on_error}
    data = data_of(file, options.reading)
    if data is None:
        source = Source([file], options.reading, folder=given if given.is_dir() else None, **choices)
        yield _Chunk(name, stamp, WHOLE, source, ())
        return
    labelled = data.column("labels") is not None
    for start in range(done, len(data), _CHUNK):
        end = min(start + _CHUNK, len(data))
        source = Source(data[start:end], options.reading, **choices)
        yield _Chunk(name, stamp, WHOLE if end == len(data) else end, source, data.class_names if labelled else ())


class PartMaker:
    """Collects the windows of recordings until they are a part."""

    def __init__(self, engine: Engine, options: WindowOptions):
        self.engine, self.options = engine, options
        self.reading = json.dumps(_described(options.reading))
        self._begin()

    def _begin(self) -> None:
        self.part = Part(np.zeros((0, 0), np.float16))
        self.rows: list[np.ndarray] = []
        self.starts: list[int] = []
        self.waiting: list[SkeletonSequence] = []
        self.began = time.monotonic()

    def add(self, chunk: _Chunk) -> int:
        """Add the recordings of a chunk, and return their number."""
        if not self.part.sources or self.part.sources[-1] != chunk.source:
            self.part.sources.append(chunk.source)
            self.part.stamps.append(chunk.stamp)
            self.part.readings.append(self.reading)
            self.part.read.append(0)
        count = 0
        extractor = self.engine.extractor
        for sequence in chunk.recordings.for_model(extractor).prepared(extractor):
            self._add_recording(extractor.persons.kept(sequence), chunk.class_names)
            count += 1
            if len(self.waiting) >= _WINDOWS_AT_ONCE:
                self._embed()
        self.part.read[-1] = chunk.read
        return count

    def _add_recording(self, sequence: SkeletonSequence, class_names: Sequence[str]) -> None:
        options, part = self.options, self.part
        size, windows = cut(sequence, options.window, options.stride)
        label = sequence.label
        self.waiting += [window for _, window in windows]
        self.starts += [start for start, _ in windows]
        part.counts.append(len(windows))
        part.frames.append(sequence.num_frames)
        part.window_frames.append(size)
        part.fps.append(sequence.fps if is_rate(sequence.fps) else float("nan"))
        part.names.append(sequence.name)
        part.labels.append(class_names[label] if label is not None and 0 <= label < len(class_names) else "")
        part.source.append(len(part.sources) - 1)

    def _embed(self) -> None:
        if self.waiting:
            rows = embed_windows(self.engine, self.waiting, self.options.batch_size, self.options.on_error)
            self.rows.append(rows.astype(np.float16))
            self.waiting = []

    @property
    def is_full(self) -> bool:
        """Whether it is time to write a part."""
        return len(self.starts) >= _PART or time.monotonic() - self.began > _SECONDS

    def taken(self) -> Part | None:
        """The part so far, and begin the next one; None without sources."""
        self._embed()
        part, rows = self.part, self.rows
        part.starts = np.array(self.starts, np.int32)
        part.vectors = np.concatenate(rows) if rows else np.zeros((0, 0), np.float16)
        self._begin()
        return part if part.sources else None


def make_parts(
    engine: Engine,
    sources: Sequence[tuple[Path, Path, str, str]],
    done: dict[str, tuple[str, int]],
    options: WindowOptions,
    progress: Callable[[int], None],
) -> Iterator[Part]:
    """Embed recordings and yield parts of an index.

    Args:
        engine: The encoder.
        sources: See `sources_of`.
        done: Stamp, and recordings read so far, of each source that is in the index already.
        options: How recordings are cut and read.
        progress: Called with the number of further recordings.

    Raises:
        SkeletonFormatError: If a recording cannot be used; see `WindowOptions.on_error`.
        NonFiniteError: If an embedding is NaN or infinite.
    """
    maker = PartMaker(engine, options)
    for file, given, name, stamp in sources:
        read = done.get(name, (stamp, 0))[1]
        if read == WHOLE:
            continue
        for chunk in _chunks(file, given, name, stamp, read, options):
            progress(maker.add(chunk))
            if maker.is_full and (part := maker.taken()) is not None:
                yield part
    if (part := maker.taken()) is not None:
        yield part


def _described(reading: Reading) -> dict[str, Any]:
    """The fields of a `Reading` that are not at their defaults, as plain values."""
    names = [field.name for field in fields(reading) if field.name not in ("layout", "default_layout")]
    given = {name: getattr(reading, name) for name in names if getattr(reading, name) is not None}
    if reading.layout is not None:
        given["layout"] = get_layout(reading.layout).to_config()
    return given


def reading_of(text: str) -> Reading:
    """The `Reading` that `_described` has described.

    Raises:
        ValueError: If it is none.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("a reading is not a JSON object")
    try:
        known = Reading(**content)
    except TypeError:
        raise ValueError("a reading has fields that there are not") from None
    shape = known.image_shape
    return known if shape is None else replace(known, image_shape=(float(shape[0]), float(shape[1])))
