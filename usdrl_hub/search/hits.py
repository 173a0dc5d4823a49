"""Hits of a search: moments of recordings, merged from windows and read from their files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.reading import Reading
from ..inference.engine import Engine
from ..inference.source import Source
from ..sequence import SkeletonFormatError, SkeletonSequence
from .build import USUAL_FPS, data_of


@dataclass(frozen=True)
class Hit:
    """A moment of an archive that is like the query.

    Attributes:
        recording: Name of the recording.
        source: Its file or store.
        start: First frame.
        end: The frame after the last.
        fps: Frames per second of the recording, or None if unknown.
        score: Cosine similarity of the most similar window, in [-1, 1].
        label: Name of the recording's class, or None.
        windows: Windows that were merged.
    """

    recording: str
    source: Path
    start: int
    end: int
    fps: float | None
    score: float
    label: str | None
    windows: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from` and `to` are seconds, or None without a frame rate."""
        seconds = [None if self.fps is None else round(frame / self.fps, 4) for frame in (self.start, self.end)]
        return {
            "recording": self.recording,
            "source": str(self.source),
            "start": self.start,
            "end": self.end,
            "from": seconds[0],
            "to": seconds[1],
            "score": self.score,
            "label": self.label,
            "windows": self.windows,
        }


@dataclass(frozen=True, eq=False)
class Query:
    """What a search looks for.

    Attributes:
        clips: Prepared clips that stand for it, each embedded as one.
        shown: The whole of it, as the model sees it.
        span: Its first frame, and the frame after its last.
    """

    clips: Sequence[SkeletonSequence]
    shown: SkeletonSequence
    span: tuple[int, int]


def span_of(query: SkeletonSequence, start: float, end: float | None, rate: float) -> tuple[int, int]:
    """First and last frame of a part of a recording, given in seconds."""
    length = query.num_frames / rate
    last = length if end is None else end
    where = query.name or "the query"
    if not 0 <= start < length:
        raise ValueError(f"{where}: it has {length:.2f} seconds, so a query cannot begin at {start:g}")
    if not start < last:
        raise ValueError(f"{where}: a query must end after {start:g} seconds, where it begins, not at {last:g}")
    if last > length + 1 / rate:
        raise ValueError(f"{where}: it has {length:.2f} seconds, so a query cannot end at {last:g}")
    first = min(int(start * rate), query.num_frames - 1)
    return first, min(max(round(last * rate), first + 1), query.num_frames)


def is_named(name: str, query: str) -> bool:
    """Whether a recording of an index, which may be named below a folder or be one person, is the query."""
    whole = name.rpartition("#")[0] if name.rpartition("#")[2].isdecimal() else name
    return query in (name, whole) or name.endswith(f"/{query}") or whole.endswith(f"/{query}")


def merged(windows: Sequence[Hit], top_k: int, longest: float) -> list[Hit]:
    """Merge windows of a recording that overlap, the best first; see `MotionIndex.search`."""
    hits: list[Hit] = []
    by_recording: dict[tuple[Path, str], list[int]] = {}
    for window in windows:
        near = by_recording.setdefault((window.source, window.recording), [])
        rate = window.fps or USUAL_FPS
        half = (window.end - window.start) / 2
        for place in near:
            hit = hits[place]
            shared = min(hit.end, window.end) - max(hit.start, window.start)
            if shared < 0:
                continue
            start, end = min(hit.start, window.start), max(hit.end, window.end)
            if end - start <= longest * rate:
                hits[place] = replace(hit, start=start, end=end, windows=hit.windows + 1)
                break
            if shared >= half:
                # Too far to be part of the hit, too near to be another.
                break
        else:
            if len(hits) == top_k:
                continue
            near.append(len(hits))
            hits.append(window)
    return hits


def read_hit(hit: Hit, reading: Reading, engine: Engine, each_person: bool) -> SkeletonSequence:
    """Read the frames of a hit; see `MotionIndex.read`."""
    data = data_of(hit.source, reading)
    inputs: Any = [hit.source]
    bare = hit.recording.rpartition("#")[0] if each_person else hit.recording
    if data is not None:
        numbers = [number for number, name in enumerate(data.names) if name == bare]
        inputs = data.select(np.isin(np.arange(len(data)), numbers))
    extractor = engine.extractor
    errors: list[Exception] = []
    source = Source(inputs, reading, each_person=each_person, on_error=errors.append)
    for sequence in source.for_model(extractor).prepared(extractor):
        if (hit.recording == sequence.name or hit.recording.endswith(f"/{sequence.name}")) and (
            sequence.num_frames >= hit.end
        ):
            kept = extractor.persons.kept(sequence)
            with suppress(SkeletonFormatError):
                return replace(kept, keypoints=kept.keypoints[hit.start : hit.end], events=None)
    raise SkeletonFormatError(f"{hit.source}: it has no recording '{hit.recording}' of {hit.end} frames any more")
