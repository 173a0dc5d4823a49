"""Recordings that are copies of others, also cropped, turned or with noise, and recordings that are like no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.dataset import SkeletonData
from ..facts.checkpoints import ENCODER
from ..inference.embedding import iter_embeddings
from ..inference.engine import Engine
from ..inference.source import ErrorHandler
from ..layouts import seen_joints
from ..sequence import SkeletonFormatError, SkeletonSequence
from .vectors import NearestVectors

# Nearest recordings of each whose motion is compared.
CANDIDATES = 30
# Largest distance of a copy's joints, in body sizes: 1 cm of noise in each coordinate is 0.04, and another performance
# of the same movement by the same person 0.12 and more.
MAX_DISTANCE = 0.08
# Share of the shorter recording that the longer one must hold, and of the longer that the shorter must be.
_OVERLAP, _LEAST_LENGTH = 0.9, 0.7
# Two people who stand still alike are no copies: joints must move by this many times their distance, unless it is that
# of rounding.
_MOTION, _ROUNDING = 1.5, 0.002
# Frames that are compared at every shift, and how much farther the joints may be in them than in all frames.
_FRAMES_COMPARED, _ROUGHLY = 12, 1.5


@dataclass(frozen=True)
class Copy:
    """Two recordings with the same motion.

    Attributes:
        first: Index of the one.
        second: Index of the other, which is larger.
        distance: Distance of the joints after the best turn and shift, root mean square, in body sizes; 0 for equal
            coordinates.
        shift: Frame of the first at which the second begins; negative if it begins earlier.
        similarity: Cosine similarity of the embeddings.
    """

    first: int
    second: int
    distance: float
    shift: int
    similarity: float


def find_copies(
    data: SkeletonData,
    model: Any = ENCODER,
    *,
    max_distance: float = MAX_DISTANCE,
    candidates: int = CANDIDATES,
    sides: np.ndarray | None = None,
    batch_size: int = 64,
    on_error: ErrorHandler | None = None,
) -> list[Copy]:
    """Find recordings of a data set with the same motion, also cropped at the ends, turned, moved or with noise.

    The nearest recordings by their embeddings are candidates; those whose joints coincide after the best turn and
    shift are copies.

    Args:
        data: The data set; it is read twice.
        model: A checkpoint's name or folder, a model, or an `Engine`.
        max_distance: Largest root mean square distance of the joints, in body sizes.
        candidates: Nearest recordings of each that are compared.
        sides: Side of each recording ``(n,)``: only pairs on two sides are looked for.
        batch_size: Clips embedded at once.
        on_error: Called with the error of a recording that is left out; None raises it.

    Returns:
        The pairs, by the index of the first.

    Raises:
        SkeletonFormatError: If there are fewer than two recordings.
        ValueError: If `max_distance` or `candidates` is out of range.
    """
    if not 0 <= max_distance <= 1:
        raise ValueError(f"the largest distance of a copy must be from 0 to 1 body sizes, got {max_distance:g}")
    if candidates < 1:
        raise ValueError(f"there must be at least 1 candidate, got {candidates}")
    numbers, vectors = embedded(data, Engine.load(model, head=False), batch_size, on_error)
    pairs = sorted(set(_candidates(numbers, vectors, candidates, sides)))
    found: list[Copy] = []
    read: dict[int, SkeletonSequence] = {}
    for first, second, similarity in pairs:
        # Only the recordings of the current first stay in memory.
        read = {number: sequence for number, sequence in read.items() if number >= first}
        for number in (first, second):
            if number not in read:
                read[number] = data.read(number)
        distance, shift = motion_distance(read[first], read[second], max_distance)
        if distance <= max_distance:
            found.append(Copy(first, second, distance, shift, similarity))
    return found


def embedded(
    data: SkeletonData, engine: Engine, batch_size: int, on_error: ErrorHandler | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices ``(k,)`` of the recordings that can be embedded, and their embeddings ``(k, D)``.

    Raises:
        SkeletonFormatError: If there are fewer than two.
    """
    numbers: list[int] = []

    def numbered() -> Iterator[SkeletonSequence]:
        for number in range(len(data)):
            try:
                sequence = data.read(number)
            except SkeletonFormatError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            # The number travels in place of the label, as recordings may be left out on the way.
            yield replace(sequence, label=number)

    rows = []
    stream = iter_embeddings(numbered(), engine, batch_size=batch_size, on_error=on_error)
    for sequence, row in stream:
        numbers.append(sequence.label or 0)
        rows.append(row)
    if len(rows) < 2:
        raise SkeletonFormatError(f"recordings are compared with each other, and there is {len(rows)} that can be")
    return np.array(numbers), np.stack(rows)


def _candidates(
    numbers: np.ndarray, vectors: np.ndarray, count: int, sides: np.ndarray | None
) -> Iterator[tuple[int, int, float]]:
    """Pairs of recordings, the smaller index first, with near embeddings."""
    groups: Iterable[tuple[np.ndarray, np.ndarray]]
    everything = np.arange(len(numbers))
    if sides is None:
        groups = [(everything, everything)]
    else:
        own = np.asarray(sides)[numbers]
        groups = [(np.flatnonzero(own == side), np.flatnonzero(own != side)) for side in np.unique(own)]
    for queries, others in groups:
        if not len(queries) or not len(others):
            continue
        nearest = NearestVectors.of(vectors[others])
        scores, found = nearest.search(vectors[queries], count + 1)
        for query, row, similar in zip(queries.tolist(), found.tolist(), scores.tolist(), strict=True):
            for place, score in zip(row, similar, strict=True):
                other = int(others[place])
                if place >= 0 and other != query:
                    yield (*sorted((int(numbers[query]), int(numbers[other]))), round(score, 4))  # type: ignore[misc]


def motion_distance(
    one: SkeletonSequence, other: SkeletonSequence, max_distance: float = float("inf")
) -> tuple[float, int]:
    """How far the joints of two recordings are from each other at the best shift in time, turn and position.

    Args:
        one: A recording.
        other: Another one, of the same layout.
        max_distance: Distance beyond which its exact value does not matter.

    Returns:
        Root mean square distance of the joints in body sizes (root mean square distance of a body's joints from their
        middle), and the frame of `one` at which `other` begins. The distance is infinite if the lengths or layouts
        differ too much, or if nothing moves by more than the distance.
    """
    if one.keypoints.shape[2:] != other.keypoints.shape[2:] or one.coordinates != other.coordinates:
        return np.inf, 0
    a, b = one.num_frames, other.num_frames
    if min(a, b) < _LEAST_LENGTH * max(a, b):
        return np.inf, 0
    persons = min(one.num_persons, other.num_persons)
    first, first_seen = _joints(one, persons)
    second, second_seen = _joints(other, persons)
    least = int(np.ceil(_OVERLAP * min(a, b)))
    shifts = np.arange(least - b, a - least + 1)
    # A few frames that are in both at each shift say which shift is best.
    starts = np.maximum(shifts, 0)
    lengths = np.minimum(a, b + shifts) - starts
    steps = np.linspace(0, 1, min(_FRAMES_COMPARED, int(lengths.min())))
    frames = starts[:, None] + (steps * (lengths[:, None] - 1)).round().astype(int)
    there = frames - shifts[:, None]
    size = _body_size(first, first_seen)
    rough = _distances(first[frames], second[there], first_seen[frames] & second_seen[there]) / size
    best = int(rough.argmin())
    if not rough[best] <= _ROUGHLY * max_distance:
        return float(rough[best]), int(shifts[best])
    here = slice(int(starts[best]), int(starts[best] + lengths[best]))
    there_too = slice(here.start - int(shifts[best]), here.stop - int(shifts[best]))
    whole = first_seen[here] & second_seen[there_too]
    distance = float(_distances(first[None, here], second[None, there_too], whole[None])[0]) / size
    # Single frames have no motion: postures are compared.
    if len(whole) > 1 and distance > _ROUNDING and _motion(first[here], whole) / size < _MOTION * distance:
        distance = float("inf")
    return distance, int(shifts[best])


def _joints(sequence: SkeletonSequence, persons: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates ``(T, J, C)`` of the joints of all people, and whether they are seen ``(T, J)``."""
    keypoints = sequence.keypoints[:, :persons]
    seen = seen_joints(keypoints, sequence.coordinates == "2d+score")
    points = keypoints[..., : 3 if sequence.is_3d else 2].astype(np.float64)
    return points.reshape(len(points), -1, points.shape[-1]), seen.reshape(len(seen), -1)


def _distances(one: np.ndarray, other: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Distances ``(S,)`` of joints ``(S, F, J, C)`` that are seen in both ``(S, F, J)``, after the best turns."""
    count = whole.sum((1, 2))
    weight = whole[..., None] / np.maximum(count, 1)[:, None, None, None]
    left = (one - (one * weight).sum((1, 2), keepdims=True)) * whole[..., None]
    right = (other - (other * weight).sum((1, 2), keepdims=True)) * whole[..., None]
    # Kabsch 1976.
    u, values, v = np.linalg.svd(np.einsum("sfjc,sfjd->scd", left, right))
    values[:, -1] *= np.sign(np.linalg.det(u @ v))
    rest = (left * left).sum((1, 2, 3)) + (right * right).sum((1, 2, 3)) - 2 * values.sum(1)
    distances = np.sqrt(np.maximum(rest / np.maximum(count, 1), 0))
    # Where hardly a joint is seen in both, nothing is known.
    return np.where(count >= 0.25 * whole[0].size, distances, np.inf)


def _body_size(points: np.ndarray, whole: np.ndarray) -> float:
    """Root mean square distance of the joints ``(F, J, C)`` from their middle in a frame."""
    count = np.maximum(whole.sum(-1, keepdims=True), 1)[..., None]
    middle = (points * whole[..., None]).sum(-2, keepdims=True) / count
    away = (points - middle) * whole[..., None]
    return float(np.sqrt((away * away).sum() / max(int(whole.sum()), 1))) or 1e-9


def _motion(points: np.ndarray, whole: np.ndarray) -> float:
    """Root mean square distance of each joint from its mean position."""
    count = np.maximum(whole.sum(0), 1)[..., None]
    away = (points - (points * whole[..., None]).sum(0) / count) * whole[..., None]
    return float(np.sqrt((away * away).sum() / max(int(whole.sum()), 1)))


@dataclass(frozen=True)
class Outlier:
    """A recording that is unlike the others.

    Attributes:
        index: Its index.
        distance: Mean cosine distance to its nearest others.
        ratio: The distance as a multiple of the median recording's.
        nearest: Index of the most similar recording.
    """

    index: int
    distance: float
    ratio: float
    nearest: int


def find_outliers(
    data: SkeletonData,
    model: Any = ENCODER,
    *,
    neighbours: int = 10,
    batch_size: int = 64,
    on_error: ErrorHandler | None = None,
) -> list[Outlier]:
    """Order the recordings of a data set by their distance to the nearest others (Ramaswamy 2000), farthest first.

    Args:
        data: The data set.
        model: A checkpoint's name or folder, a model, or an `Engine`.
        neighbours: Nearest recordings whose distances are averaged; fewer where there are fewer.
        batch_size: Clips embedded at once.
        on_error: Called with the error of a recording that is left out; None raises it.

    Raises:
        SkeletonFormatError: If there are fewer than two recordings.
        ValueError: If `neighbours` is below 1.
    """
    if neighbours < 1:
        raise ValueError(f"there must be at least 1 neighbour, got {neighbours}")
    numbers, vectors = embedded(data, Engine.load(model, head=False), batch_size, on_error)
    scores, found = NearestVectors.of(vectors).search(vectors, neighbours + 1)
    rows = np.arange(len(numbers))
    outliers: list[tuple[float, int, int]] = []
    for row, similar, others in zip(rows.tolist(), scores, found, strict=True):
        kept = (others != row) & (others >= 0)
        distances = (1 - similar[kept])[:neighbours]
        # Where nothing near was found it is as far away as can be.
        outliers.append((float(distances.mean()) if len(distances) else 2.0, row, int([*others[kept], row][0])))
    usual = max(float(np.median([distance for distance, *_ in outliers])), 1e-9)
    outliers.sort(key=lambda entry: (-entry[0], entry[1]))
    return [
        Outlier(int(numbers[row]), distance, distance / usual, int(numbers[nearest]))
        for distance, row, nearest in outliers
    ]


def groups_of(copies: Sequence[Copy]) -> list[list[int]]:
    """Recordings that are copies of each other, as lists of indices."""
    group: dict[int, list[int]] = {}
    for copy in copies:
        one, other = group.setdefault(copy.first, [copy.first]), group.setdefault(copy.second, [copy.second])
        if one is not other:
            one += other
            group |= dict.fromkeys(other, one)
    return sorted({id(members): sorted(members) for members in group.values()}.values())
