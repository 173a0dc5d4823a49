"""`MotionIndex`: windows of an archive's recordings, to be searched for moments like one of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import OutputError, notice
from ..facts.checkpoints import ENCODER
from ..files import locked
from ..inference.engine import Engine
from ..inference.source import Source
from ..lookup import loaded_from
from ..sequence import SkeletonFormatError, SkeletonSequence, is_rate
from .build import USUAL_FPS, WindowOptions, cut, embed_windows, make_parts, reading_of, sources_of, stamp_of
from .files import HEADER, Header, IndexFormatError, Part, damaged, read_lists, selected, shown_path
from .hits import Hit, Query, is_named, merged, read_hit, span_of
from .model import check_maker, maker_of
from .vectors import EXACT_LIMIT, GROWTH, InvertedFile, NearestVectors

# Windows looked at for each hit at first and at least, and at most in all.
_WINDOWS_PER_HIT, _FEWEST_WINDOWS, _MOST_WINDOWS = 10, 100, 20_000
# A hit is at most this many times as long as the query or a window.
_LONGEST = 1.5


@dataclass(frozen=True)
class _Table:
    """Windows and recordings of all parts, in order.

    Attributes:
        part_ends: Where the windows of each part end.
        recording: Number of the recording of each window.
        starts: First frame of each window.
        bases: Number of the first recording of each part.
    """

    part_ends: np.ndarray
    recording: np.ndarray
    starts: np.ndarray
    bases: list[int]


@dataclass(frozen=True, eq=False)
class MotionIndex:
    """Embedded windows of recordings on disk, searched exactly or, where there are many, by an inverted file.

    Attributes:
        path: The folder.
        header: Its header: the model, the windows and the files.
        parts: The windows; their vectors stay on disk.
        inverted: Codes of the windows, or None in a small index.

    Example:
        >>> from usdrl_hub import MotionIndex
        >>> from usdrl_hub.data.samples import load_samples, sample_path
        >>> index = MotionIndex.build([sample_path()], "index")
        >>> len(index.search(load_samples()[0], top_k=3))
        3
    """

    path: Path
    header: Header
    parts: Sequence[Part]
    inverted: InvertedFile | None = None

    @classmethod
    def open(cls, path: str | os.PathLike) -> MotionIndex:
        """Open an index; nothing of it is run, and each array is checked before it is used.

        Raises:
            IndexFormatError: If there is none, or a file of it is missing, truncated or inconsistent.
        """
        path = Path(path)
        header = Header.read(path)
        parts = [Part.open(path / part.file, part.windows, header.size) for part in header.parts]
        if header.lists is None:
            return cls(path, header, parts)
        arrays = read_lists(path / header.lists.file)
        try:
            inverted = InvertedFile.of(arrays, header.size, header.count)
        except ValueError as error:
            damaged(path / header.lists.file, str(error))
        return cls(path, header, parts, inverted)

    @classmethod
    def build(
        cls,
        sources: Sequence[str | os.PathLike],
        path: str | os.PathLike,
        model: Any = None,
        *,
        options: WindowOptions | None = None,
        exact_limit: int = EXACT_LIMIT,
        progress: bool = False,
    ) -> MotionIndex:
        """Make an index of recordings, or add them to one.

        A run that was stopped in any way continues when the call is made again. Sources that are in the index are
        passed over; the windows of those that have changed since are replaced.

        Args:
            sources: Files, folders and stores.
            path: The folder of the index.
            model: A checkpoint's name or folder, a model or an `Engine`; `usdrl/mocap-tiny`, or the index's own, where
                None.
            options: How recordings are cut and read; an index has windows of one kind.
            exact_limit: Windows beyond which search is approximate.
            progress: Show a bar on standard error.

        Raises:
            SkeletonFormatError: If there is nothing to read, or a recording cannot be used and there is no
                `options.on_error`.
            IndexFormatError: If `path` is another index's, of another model or other windows, or is damaged.
            FolderInUseError: If another process is writing it.
            USDRLError: If it needs FAISS, which is not installed.
        """
        path, options = Path(path), options or WindowOptions()
        with locked(path):
            exists = (path / HEADER).exists()
            if not exists and path.exists() and (not path.is_dir() or any(path.glob("[!.]*"))):
                raise OutputError(f"{path}: it exists already and is no index: name a new folder")
            index = cls.open(path) if exists else None
            engine = Engine.load(model or (index.model_name if index else ENCODER), head=False)
            found = list(sources_of(sources, path))
            if not found:
                raise SkeletonFormatError("there is no recording to index: name files, folders or stores")
            if index is None:
                index = cls(path, _new_header(engine, options, path), ())
            else:
                index.check_model(engine)
                index._check_windows(options)
            return index._extended(engine, found, options, exact_limit, progress)

    def _extended(
        self,
        engine: Engine,
        found: Sequence[tuple[Path, Path, str, str]],
        options: WindowOptions,
        exact_limit: int,
        progress: bool,
    ) -> MotionIndex:
        """Add what is new of some sources; the lock is held."""
        index, known = self, self.sources
        changed = {name for *_, name, stamp in found if name in known and known[name][0] != stamp}
        if changed:
            notice(f"{self.path}: {len(changed)} sources have changed and are indexed anew", "changed sources")
            index = index._without(lambda part: [part.sources[place] not in changed for place in part.source], changed)
        known = index.sources
        self.path.mkdir(parents=True, exist_ok=True)
        with tqdm(unit="recording", disable=None if progress else True) as bar:
            for part in make_parts(engine, found, known, options, bar.update):
                header = index.header
                vectors = part.vectors if len(part.starts) else np.zeros((0, header.size), np.float16)
                part.vectors = vectors
                header = header.with_file(self.path, "windows", part.arrays(), len(vectors))
                header.write(self.path)
                index = replace(index, header=header, parts=(*index.parts, part))
        index = type(self).open(self.path) if index.header.parts else index
        if not len(index):
            raise SkeletonFormatError(f"{self.path}: no recording could be read, so there is nothing to search")
        return index.with_lists(exact_limit)

    def with_lists(self, exact_limit: int = EXACT_LIMIT) -> MotionIndex:
        """The index with an inverted file of all its windows, trained or extended, if it is large enough for one."""
        count = len(self)
        if count <= exact_limit and self.inverted is None:
            return self
        inverted = self.inverted
        if inverted is None or count > GROWTH * inverted.trained_for:
            inverted = InvertedFile.train(self.vectors, count, self.header.size)
        elif len(inverted) < count:
            inverted = inverted.extended(self.vectors, count)
        else:
            return self
        header = self.header.with_file(self.path, "lists", inverted.arrays(), count)
        header.write(self.path)
        return replace(self, header=header, inverted=inverted)

    def remove(self, names: Iterable[str | os.PathLike]) -> tuple[MotionIndex, int]:
        """Delete recordings from the index; their vectors are gone from the disk, too.

        Args:
            names: Names of recordings, or paths of their files and stores.

        Returns:
            The index without them, and how many recordings were removed.

        Raises:
            SkeletonFormatError: If none has a name, or all would be removed.
            FolderInUseError: If another process is writing the index.
        """
        with locked(self.path):
            index = type(self).open(self.path)
            gone: set[str] = set()
            recordings = {name for part in index.parts for name in part.names}
            sources = {source for part in index.parts for source in part.sources}
            for name in map(str, names):
                below = shown_path(name, self.path)
                found = {source for source in sources if source == below or source.startswith(f"{below}/")}
                found |= {name} & recordings
                if not found:
                    raise SkeletonFormatError(
                        f"{self.path}: there is no recording and no source '{name}' in the index"
                    )
                gone |= found
            before = index.num_recordings

            def stays(part: Part) -> list[bool]:
                pairs = zip(part.names, part.source, strict=True)
                return [name not in gone and part.sources[place] not in gone for name, place in pairs]

            if not any(any(stays(part)) for part in index.parts):
                raise SkeletonFormatError(f"{self.path}: nothing would be left: delete the folder instead")
            after = index._without(stays, gone)
            return after, before - after.num_recordings

    def _without(self, stays: Any, sources: set[str]) -> MotionIndex:
        """Rewrite the parts that lose recordings; the lock is held.

        Args:
            stays: Gives whether each recording of a part stays.
            sources: Sources of which nothing is left, which may be indexed again.
        """
        header, kept = replace(self.header, parts=()), []
        files = dict(zip(self.header.parts, self.parts, strict=True))
        for stored, part in files.items():
            mask = np.array(stays(part), dtype=bool)
            windows = np.repeat(mask, part.counts)
            kept.append(windows)
            if mask.all() and not sources.intersection(part.sources):
                header = replace(header, parts=(*header.parts, stored))
                continue
            shorter = selected(part, mask, windows, sources)
            if shorter.sources:
                header = header.with_file(self.path, "windows", shorter.arrays(), len(shorter.starts))
        if self.inverted is not None:
            covered = np.concatenate(kept)[: len(self.inverted)]
            inverted = self.inverted.without(covered)
            header = header.with_file(self.path, "lists", inverted.arrays(), len(inverted))
        header.write(self.path)
        return type(self).open(self.path)

    def __len__(self) -> int:
        """Number of windows."""
        return self.header.count

    @property
    def num_recordings(self) -> int:
        """Number of recordings."""
        return sum(len(part.names) for part in self.parts)

    @property
    def sources(self) -> dict[str, tuple[str, int]]:
        """Stamp of each source, and recordings read of it so far, by its path relative to the index."""
        known: dict[str, tuple[str, int]] = {}
        for part in self.parts:
            known |= dict(zip(part.sources, zip(part.stamps, part.read, strict=True), strict=True))
        return known

    @property
    def model_name(self) -> str:
        """Name or folder of the model that made it.

        Raises:
            IndexFormatError: If it has none.
        """
        name = self.header.maker.name
        if not name:
            raise IndexFormatError(f"{self.path}: it was made by a model without a name or folder: give the model")
        return str((self.path / name).resolve()) if name.startswith((".", "/")) else name

    @property
    def about(self) -> str:
        """How it is searched, in words."""
        if self.inverted is None:
            return f"exact search of {len(self)} windows"
        lists, parts = len(self.inverted.ends), self.inverted.codebooks.shape[0]
        return (
            f"IVF-PQ search of {len(self)} windows: {lists} lists, {parts} bytes a code, candidates compared exactly"
        )

    def check_model(self, engine: Engine) -> None:
        """Refuse a model whose embeddings cannot be compared with those of the index.

        Raises:
            IndexFormatError: If it is another model, revision or readout, or makes its clips otherwise.
        """
        check_maker(self.header.maker, engine, str(self.path))

    def _check_windows(self, options: WindowOptions) -> None:
        header = self.header
        for name, own, given in (
            ("window", header.window, options.window),
            ("stride", header.stride, options.stride),
            ("per-person", header.each_person, options.each_person),
        ):
            if own != given and not (name == "stride" and header.window == 0):
                raise IndexFormatError(
                    f"{self.path}: it was made with --{name} {own}, not {given}: leave it as it was, or make another "
                    "index"
                )

    @cached_property
    def _table(self) -> _Table:
        recordings, starts, bases, base = [], [], [], 0
        for part in self.parts:
            recordings.append(np.repeat(np.arange(base, base + len(part.counts)), part.counts))
            starts.append(part.starts)
            bases.append(base)
            base += len(part.counts)
        ends = np.cumsum([len(part.starts) for part in self.parts])
        return _Table(ends, np.concatenate(recordings), np.concatenate(starts), bases)

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        """Unit embeddings ``(n, D)`` float32 of windows by their numbers, which must rise; they are read from disk."""
        ends = self._table.part_ends
        found = np.empty((len(numbers), self.header.size), np.float32)
        bounds = np.searchsorted(numbers, ends)
        start = 0
        for part, first, end in zip(self.parts, [0, *ends[:-1].tolist()], bounds.tolist(), strict=True):
            found[start:end] = part.vectors[numbers[start:end] - first]
            start = end
        # A damaged file may hold any numbers.
        return np.nan_to_num(found, copy=False, nan=0.0, posinf=0.0, neginf=0.0)

    @cached_property
    def nearest(self) -> NearestVectors:
        """The search by vectors."""
        return NearestVectors(self.vectors, len(self), self.header.size, self.inverted)

    def search(
        self,
        query: SkeletonSequence,
        model: Any = None,
        *,
        start: float = 0.0,
        end: float | None = None,
        top_k: int = 10,
        source: str | os.PathLike | None = None,
        batch_size: int = 64,
    ) -> list[Hit]:
        """Find the moments that are most like a recording, or a part of it.

        A query up to one and a half windows long is embedded as it is; of a longer one, windows are, and a hit is like
        one of them.

        Args:
            query: The recording.
            model: The model that made the index, where it is loaded already; else it is loaded by its name.
            start: Second of the query to begin at.
            end: Second to end at; the recording's end where None.
            top_k: Number of hits.
            source: File or store of the query: where it is in the index, the query itself is left out of the hits.
            batch_size: Clips embedded at once.

        Returns:
            At most `top_k` hits, the best first; windows of one recording that overlap are one hit.

        Raises:
            SkeletonFormatError: If the recording does not fit the model, or nobody is seen between `start` and `end`.
            IndexFormatError: If the model is another than the index's.
            ValueError: If `top_k` is below 1, or the part is not in the recording.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        engine = Engine.load(model or self.model_name, head=False)
        self.check_model(engine)
        asked = self.prepared(query, engine, start=start, end=end)
        embedded = embed_windows(engine, asked.clips, batch_size)
        own = None if source is None else (shown_path(source, self.path), query.name, asked.span)
        rate = query.fps if is_rate(query.fps) else USUAL_FPS
        longest = _LONGEST * max(self.header.window, (asked.span[1] - asked.span[0]) / rate)
        return self._hits(embedded, top_k, longest, own)

    def prepared(
        self, query: SkeletonSequence, engine: Engine, *, start: float = 0.0, end: float | None = None
    ) -> Query:
        """The clips that stand for a query; arguments and errors are those of `search`."""
        rate = query.fps if is_rate(query.fps) else USUAL_FPS
        first, last = span_of(query, start, end, rate)
        extractor = engine.extractor
        clips: list[SkeletonSequence] = []
        shown: list[SkeletonSequence] = []
        source = Source(query, each_person=self.header.each_person).for_model(extractor)
        for sequence in source.prepared(extractor):
            kept = extractor.persons.kept(sequence)
            part = kept.keypoints[first:last]
            if not part.any():
                continue
            shown.append(replace(kept, keypoints=part, events=None))
            size, windows = cut(shown[-1], self.header.window, self.header.stride)
            is_long = self.header.window and len(part) > _LONGEST * size
            clips += [window for _, window in windows] if is_long else [shown[-1]]
        if not clips:
            raise SkeletonFormatError(f"{query.name or 'the query'}: nobody is seen in this part of it")
        return Query(clips, shown[0], (first, last))

    def _hits(
        self, queries: np.ndarray, top_k: int, longest: float, own: tuple[str, str, tuple[int, int]] | None
    ) -> list[Hit]:
        """Merge the nearest windows of all queries until there are enough hits."""
        count = max(_WINDOWS_PER_HIT * top_k, _FEWEST_WINDOWS)
        while True:
            scores, numbers = self.nearest.search(queries, count)
            best: dict[int, float] = {}
            for score, number in zip(scores.ravel().tolist(), numbers.ravel().tolist(), strict=True):
                if number >= 0:
                    best[number] = max(score, best.get(number, -1.0))
            hits = merged(self._windows(best, own), top_k, longest)
            if len(hits) == top_k or count >= min(len(self), _MOST_WINDOWS):
                return hits
            count *= 4

    def _windows(self, scores: Mapping[int, float], own: tuple[str, str, tuple[int, int]] | None) -> list[Hit]:
        """Windows as hits of their own, the best first, without the query itself."""
        table, found = self._table, []
        for number, score in sorted(scores.items(), key=lambda item: (-item[1], item[0])):
            part, place = self._recording(int(table.recording[number]))
            start = int(table.starts[number])
            end = min(start + part.window_frames[place], part.frames[place])
            name, where = part.names[place], part.sources[part.source[place]]
            if (
                own is not None
                and where == own[0]
                and is_named(name, own[1])
                and start < own[2][1]
                and end > own[2][0]
            ):
                continue
            fps = part.fps[place] if is_rate(part.fps[place]) else None
            file = Path(os.path.normpath(self.path / where))
            found.append(Hit(name, file, start, end, fps, score, part.labels[place] or None, 1))
        return found

    def _recording(self, number: int) -> tuple[Part, int]:
        """The part that a recording is in, and its place there."""
        bases = self._table.bases
        part = int(np.searchsorted(bases, number, side="right")) - 1
        # Parts without recordings have the base of the next one.
        while not len(self.parts[part].names):
            part -= 1
        return self.parts[part], number - bases[part]

    def read(self, hits: Sequence[Hit], model: Any = None) -> list[SkeletonSequence]:
        """Read the frames of hits from their files, as the model sees them: in its layout, the people that it keeps.

        Raises:
            SkeletonFormatError: If a file is gone or cannot be read, or has no such recording any more.
        """
        engine = Engine.load(model or self.model_name, head=False)
        readings: dict[str, str] = {}
        for part in self.parts:
            readings |= dict(zip(part.sources, part.readings, strict=True))
        stamps = self.sources
        found: dict[int, SkeletonSequence] = {}
        for source in dict.fromkeys(hit.source for hit in hits):
            wanted = [number for number, hit in enumerate(hits) if hit.source == source]
            if not source.exists():
                raise SkeletonFormatError(f"{source}: the recordings of the index are no longer there")
            key = shown_path(source, self.path)
            if stamps[key][0] != stamp_of(source):
                notice(f"{source}: it has changed since it was indexed: index it again", "changed sources")
            try:
                reading = reading_of(readings[key])
            except ValueError:
                damaged(self.path / HEADER, f"how {source} was read is not stored rightly")
            for number in wanted:
                found[number] = read_hit(hits[number], reading, engine, self.header.each_person)
        return [found[number] for number in range(len(hits))]


def _new_header(engine: Engine, options: WindowOptions, path: Path) -> Header:
    name = loaded_from(engine.model)
    if name and Path(name).is_dir():
        # Begins with a dot or a slash, which no name in a hub does.
        name = shown_path(name, path)
        name = name if name.startswith((".", "/")) else f"./{name}"
    stride = options.stride if options.window else 0.0
    maker = maker_of(engine, name)
    return Header(maker, len(maker.probe[0]), options.window, stride, options.each_person)
