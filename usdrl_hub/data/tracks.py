"""Tracking of the people in a recording: by the file's track numbers where they are consistent, else by position."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import EmptySequenceError, SkeletonFormatError, notice
from ..layouts import seen_joints
from ..sequence import MOST_PERSONS

# Distance that a person moves at most, in body sizes (diagonals around the seen joints): from one frame to the next,
# for each further frame in which the person is not seen, and in all.
_REACH, _REACH_PER_FRAME, _FARTHEST = 1.0, 0.1, 3.0
# Body sizes added to a distance for each frame of a gap.
_PER_FRAME = 0.01
# Longest gap in frames over which two track numbers are joined.
_LONGEST_GAP = 30
# People in a frame at most, because all pairs are compared.
_MOST_IN_A_FRAME = 200
_PAIRS_AT_ONCE, _ROWS_AT_ONCE = 1 << 18, 1 << 14
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Detections:
    """People seen in the frames of a recording.

    Attributes:
        frames: Frame of each detection ``(N,)``, from 0.
        tracks: Track number of each detection in the file, or None.
        rows: Their joints ``(N, V, C)``; a missing joint is all zero.
        dims: Number of leading coordinates that are a position.
    """

    frames: np.ndarray
    tracks: Sequence[Hashable | None]
    rows: np.ndarray
    dims: int = 2


def stack_people(
    where: str, found: Detections, num_frames: int | None = None, max_numbers: int | None = None, join: bool = True
) -> np.ndarray:
    """Keypoints ``(T, M, V, C)`` of the people that are seen longest, in descending order of their frames.

    A track number that two people share in a frame is ignored: its detections are tracked by position, as those
    without a number. Tracks by position persist over frames in which the person is not seen. With `join`, a track
    number that begins near the recent end of another continues it; without it, people who all have numbers stay in
    the file's order. Warnings report shared and joined numbers, and people who are left out.

    Args:
        where: Name of the recording, used in errors and warnings.
        found: The detections.
        num_frames: Frames T; as many as the detections need where None.
        max_numbers: Count of numbers that the result has at most.
        join: Whether track numbers may change while a person is seen.

    Raises:
        EmptySequenceError: If no person is seen.
        SkeletonFormatError: If there are more numbers than `max_numbers`, or hundreds of people in a frame.
    """
    total = num_frames or int(found.frames.max()) + 1
    seen = seen_joints(found.rows).any(-1)
    if not seen.any():
        raise EmptySequenceError(f"{where}: no person is seen in its {total} frames")
    if not seen.all():
        tracks = [track for track, there in zip(found.tracks, seen, strict=True) if there]
        found = replace(found, frames=found.frames[seen], tracks=tracks, rows=found.rows[seen])
    numbers, shared = _numbers(found)
    order = np.argsort(found.frames, kind="stable")
    middle, size = _middles(found)
    segments = _segments(where, found, numbers, order, middle, size)
    people, joined = _join(found, numbers, segments, order, middle, size, join)
    count = np.bincount(people)
    first = np.full(len(count), len(people))
    np.minimum.at(first, people, np.arange(len(people)))
    longest = np.lexsort((first, -count))[:MOST_PERSONS]
    if not join and (numbers >= 0).all():
        # The file itself says who is who, and so in which order they are.
        longest = longest[np.argsort(first[longest])]
    _warn(where, shared, joined, len(count), int(count.sum() - count[longest].sum()))
    shape = (total, len(longest), *found.rows.shape[1:])
    # A few rows may claim any number of frames.
    if max_numbers is not None and int(np.prod(shape, dtype=object)) > max_numbers:
        raise SkeletonFormatError(
            f"{where}: frame numbers reach {total}, but only {len(np.unique(found.frames))} frames contain detections"
        )
    index = np.full(len(count), -1)
    index[longest] = np.arange(len(longest))
    kept = index[people] >= 0
    keypoints = np.zeros(shape, dtype=np.float32)
    with np.errstate(over="ignore"):
        keypoints[found.frames[kept], index[people[kept]]] = found.rows[kept]
    return keypoints


def _warn(where: str, shared: int, joined: int, people: int, left_out: int) -> None:
    if shared:
        notice(
            f"{where}: two people have the same track number in a frame ({shared} numbers): they are tracked "
            "by position",
            "track numbers that two people share",
        )
    if joined:
        notice(
            f"{where}: {joined} track numbers begin where another has just ended: they are joined",
            "track numbers that go on as others",
        )
    if people > MOST_PERSONS:
        notice(
            f"{where}: the {MOST_PERSONS} people seen longest of {people} are read; the others are seen {left_out} "
            "times and are left out",
            "people left out",
        )


def _numbers(found: Detections) -> tuple[np.ndarray, int]:
    """Track numbers ``(N,)`` from 0, -1 for none or a shared one, and how many are shared."""
    known: dict[Hashable, int] = {}
    numbers = np.array(
        [-1 if track is None else known.setdefault(track, len(known)) for track in found.tracks], dtype=np.int64
    )
    has = np.flatnonzero(numbers >= 0)
    keys = np.unique(found.frames[has], return_inverse=True)[1].ravel() * max(len(known), 1) + numbers[has]
    unique, index, times = np.unique(keys, return_index=True, return_counts=True)
    shared = np.unique(numbers[has][index[times > 1]])
    numbers[np.isin(numbers, shared)] = -1
    return numbers, len(shared)


def _middles(found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Centre ``(N, D)`` and body size ``(N,)`` of each detection."""
    middle, size = np.zeros((len(found.rows), found.dims)), np.zeros(len(found.rows))
    # In blocks, to bound memory.
    for start in range(0, len(found.rows), _ROWS_AT_ONCE):
        here = slice(start, start + _ROWS_AT_ONCE)
        points = found.rows[here, :, : found.dims].astype(np.float64)
        seen = seen_joints(found.rows[here])[..., None]
        middle[here] = (points * seen).sum(1) / np.maximum(seen.sum(1), 1)
        extent = np.where(seen, points, -np.inf).max(1) - np.where(seen, points, np.inf).min(1)
        size[here] = np.sqrt(np.square(np.where(np.isfinite(extent), extent, 0)).sum(-1))
    return middle, size


def _segments(
    where: str, found: Detections, numbers: np.ndarray, order: np.ndarray, middle: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Segment of each detection ``(N,)``, from 0: detections of one person in consecutive frames."""
    frames = found.frames[order]
    starts = np.flatnonzero(np.diff(frames, prepend=frames[0] - 1))
    sizes = np.diff(starts, append=len(frames))
    if sizes.max() > _MOST_IN_A_FRAME:
        raise SkeletonFormatError(
            f"{where}, frame {int(frames[starts[sizes.argmax()]])}: {int(sizes.max())} people, too many to track"
        )
    before = np.full(len(frames), -1)
    # All pairs of detections in consecutive frames, in blocks.
    pairs = sizes[:-1] * sizes[1:] * (np.diff(frames[starts]) == 1)
    block = np.cumsum(pairs) // _PAIRS_AT_ONCE
    for number in np.unique(block):
        here = np.flatnonzero((block == number) & (pairs > 0))
        if not len(here):
            continue
        which = np.repeat(here, pairs[here])
        inside = np.arange(len(which)) - np.repeat(np.cumsum(pairs[here]) - pairs[here], pairs[here])
        left = starts[which] + inside // sizes[which + 1]
        right = starts[which + 1] + inside % sizes[which + 1]
        a, b = order[left], order[right]
        same = (numbers[a] == numbers[b]) & (numbers[a] >= 0)
        free = (numbers[a] < 0) & (numbers[b] < 0)
        away = np.sqrt(np.square(middle[a] - middle[b]).sum(-1))
        near = same | (free & (away <= _REACH * np.maximum(size[a], size[b])))
        a, b = _nearest(a[near], b[near], np.where(same, -1.0, away)[near])
        before[b] = a
    # Pointer doubling: each detection finds the first one of its segment.
    leap = np.where(before < 0, np.arange(len(before)), before)
    while True:
        farther = leap[leap]
        if (farther == leap).all():
            break
        leap = farther
    return np.unique(leap, return_inverse=True)[1].ravel()


def _nearest(a: np.ndarray, b: np.ndarray, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Greedy matching: pairs of mutual nearest neighbours, then of the rest, and so on."""
    order = np.argsort(away, kind="stable")
    (names_a, a), (names_b, b) = (np.unique(side[order], return_inverse=True) for side in (a, b))
    a, b = a.ravel(), b.ravel()
    found: list[tuple[np.ndarray, np.ndarray]] = [(a[:0], b[:0])]
    while len(a):
        rank = np.arange(len(a))
        best_a, best_b = np.full(len(names_a), len(a)), np.full(len(names_b), len(a))
        np.minimum.at(best_a, a, rank)
        np.minimum.at(best_b, b, rank)
        both = (best_a[a] == rank) & (best_b[b] == rank)
        found.append((a[both], b[both]))
        taken_a, taken_b = np.zeros(len(names_a), dtype=bool), np.zeros(len(names_b), dtype=bool)
        taken_a[a[both]], taken_b[b[both]] = True, True
        rest = ~(taken_a[a] | taken_b[b])
        a, b = a[rest], b[rest]
    return names_a[np.concatenate([one for one, _ in found])], names_b[np.concatenate([other for _, other in found])]


def _join(
    found: Detections,
    numbers: np.ndarray,
    segments: np.ndarray,
    order: np.ndarray,
    middle: np.ndarray,
    size: np.ndarray,
    join: bool,
) -> tuple[np.ndarray, int]:
    """Person of each detection ``(N,)``, and how many track numbers continue another.

    Segments are taken in order of time; those that begin in one frame are matched to the people last seen nearest.
    """
    count = int(segments.max()) + 1
    first, last = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    last[segments[order]] = order
    first[segments[order[::-1]]] = order[::-1]
    number, begin, end = numbers[first], found.frames[first].astype(np.int64), found.frames[last].astype(np.int64)
    # End of the last segment of a number, and start of the next one.
    whole = np.full(int(number.max()) + 2, -1, dtype=np.int64)
    np.maximum.at(whole, number, end)
    whole_end = np.where(number >= 0, whole[number], end)
    upcoming = np.full(count, _NEVER)
    by_number = np.lexsort((begin, number))
    follows = (number[by_number][1:] == number[by_number][:-1]) & (number[by_number][1:] >= 0)
    upcoming[by_number[:-1][follows]] = begin[by_number[1:][follows]]
    people = np.full(count, -1)
    of_number: dict[int, int] = {}
    joined = 0
    last_seen = _LastSeen(found.dims)
    in_time = np.lexsort((first, begin))
    for group in np.split(in_time, np.flatnonzero(np.diff(begin[in_time])) + 1):
        fresh = [segment for segment in group.tolist() if int(number[segment]) not in of_number]
        for segment in group.tolist():
            people[segment] = of_number.get(int(number[segment]), -1)
        if fresh:
            new = np.array(fresh)
            numbered = number[new] >= 0
            position = middle[first[new]]
            people[new] = last_seen.nearest(
                int(begin[new[0]]), whole_end[new], position, size[first[new]], numbered, join
            )
            joined += int((numbered & (people[new] >= 0)).sum())
            for segment in new[people[new] < 0].tolist():
                people[segment] = last_seen.add()
            of_number |= {int(number[segment]): int(people[segment]) for segment in new[numbered].tolist()}
        last_seen.put(
            people[group], end[group], upcoming[group], middle[last[group]], size[last[group]], number[group] >= 0
        )
    return people[segments], joined


class _LastSeen:
    """When and where the people of a recording were last seen, and their body sizes."""

    def __init__(self, dims: int) -> None:
        self.count = 0
        # People who may reappear without their number.
        self.active = np.zeros(0, dtype=np.int64)
        self.end, self.until = np.zeros(16, dtype=np.int64), np.full(16, _NEVER)
        self.position, self.size = np.zeros((16, dims)), np.zeros(16)
        self.numbered = np.zeros(16, dtype=bool)

    def add(self) -> int:
        """Add a person; returns the index."""
        if self.count == len(self.end):
            for name in ("end", "until", "position", "size", "numbered"):
                array = getattr(self, name)
                more = np.full_like(array, _NEVER) if name == "until" else np.zeros_like(array)
                setattr(self, name, np.concatenate([array, more]))
        self.count += 1
        return self.count - 1

    def put(
        self,
        people: np.ndarray,
        end: np.ndarray,
        upcoming: np.ndarray,
        position: np.ndarray,
        size: np.ndarray,
        numbered: np.ndarray,
    ) -> None:
        """Update people with segments; one without a number in a gap of a numbered track keeps the number."""
        self.until[people] = np.where(numbered, upcoming, self.until[people])
        self.numbered[people] |= numbered
        self.end[people], self.position[people], self.size[people] = end, position, size
        self.active = np.union1d(self.active, people)

    def nearest(
        self,
        begin: int,
        end: np.ndarray,
        position: np.ndarray,
        size: np.ndarray,
        numbered: np.ndarray,
        join: bool,
    ) -> np.ndarray:
        """Index of the person that each segment from frame `begin` to frames `end` may be; -1 for none."""
        result = np.full(len(end), -1)
        gone = self.numbered[self.active] & (begin - self.end[self.active] > _LONGEST_GAP)
        self.active = self.active[~gone]
        some = self.active[self.end[self.active] < begin]
        if not len(some):
            return result
        tracked = self.numbered[some] | numbered[:, None]
        # Until its number reappears, a track is free for a segment without a number.
        free = np.where(numbered[:, None], self.until[some] == _NEVER, self.until[some] > end[:, None])
        gap = begin - self.end[some]
        away = np.sqrt(np.square(self.position[some] - position[:, None]).sum(-1))
        body = np.maximum(np.maximum(self.size[some], size[:, None]), 1e-9)
        reach = np.minimum(_REACH + _REACH_PER_FRAME * (gap - 1), _FARTHEST)
        near = free & (away <= reach * body)
        if not join:
            near &= ~(self.numbered[some] & numbered[:, None])
        row, column = np.nonzero(near)
        row, column = _nearest(row, column, (away / body + _PER_FRAME * gap)[row, column])
        result[row] = some[column]
        # Without numbers, a known person is preferred to a new one.
        near = free & ~tracked & (result < 0)[:, None]
        near[:, column] = False
        row, column = np.nonzero(near)
        row, column = _nearest(row, column, away[row, column])
        result[row] = some[column]
        return result
