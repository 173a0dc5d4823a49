"""How often a movement is repeated in a recording, and where: self-similarity of the body's pose over time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.reading import Reading
from ..layouts import get_layout
from ..persons import PersonSelection
from ..sequence import SkeletonSequence, is_rate
from .source import ErrorHandler, Source

# Frames per second that poses are compared at, and the rate of recordings that do not say theirs.
_RATE, _USUAL_RATE = 15.0, 30.0
# Seconds: width of the filter over poses, and shortest and longest time between repetitions.
_SMOOTHING, _SHORTEST, _LONGEST = 0.15, 0.45, 30.0
# All of these were chosen on the development people of benchmarks/counting.py. Least autocorrelation of a period, and
# the share of the highest peak's that an earlier one needs; how far tempo may change, and what a change costs; the
# similarity that a repetition needs; speed of a moving body, as a share of that in the repetitions.
_LEAST, _EARLIER = 0.05, 0.8
_TEMPO, _TEMPO_COST = 1.5, 2.0
_SIMILAR, _MOVING = 0.2, 0.1
# A body moves if its farthest joint leaves its mean position by this share of the body's size (root mean square).
_STILL = 0.04
# Recordings shorter than this cannot hold a movement twice.
_FEWEST_FRAMES = 8


@dataclass(frozen=True, eq=False)
class Repetitions:
    """The repetitions of the movement that fills most of a recording.

    Attributes:
        spans: First frame, and the frame after the last, of each repetition, int64 ``(N, 2)``, in order of time. One
            repetition where a movement is not repeated, none where nothing moves.
        period: Typical duration of a repetition in frames; None without a repetition.
    """

    spans: np.ndarray
    period: float | None

    @property
    def count(self) -> int:
        """Number of repetitions."""
        return len(self.spans)


def count_repetitions(
    inputs: Any,
    *,
    reading: Reading = Reading(),
    each_person: bool = False,
    on_error: ErrorHandler | None = None,
) -> list[tuple[SkeletonSequence, Repetitions]]:
    """Count how often a movement is repeated in recordings of any length, without a model.

    The period is the lag at which poses are most alike (autocorrelation of the joints around the body's middle), and
    repetitions are followed through changes of tempo by dynamic programming. A movement done on the left and then on
    the right counts once, as the pair is what repeats. Of several people, the one who moves most is counted.

    Args:
        inputs: A file, a folder, a `SkeletonSequence`, an array, a data set, or an iterable of any of these.
        reading: What the inputs do not say themselves; 30 frames per second where neither says the rate.
        each_person: Whether each person of a recording is counted alone, as recordings ``<name>#<index>``.
        on_error: Called with the error of an input that cannot be used, which is then left out; None raises it.

    Returns:
        Each recording with its repetitions, in the order of the inputs.

    Raises:
        SkeletonFormatError: If an input cannot be read.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import count_repetitions
        >>> body = np.random.default_rng(0).normal(size=(25, 3))
        >>> wave = np.zeros((240, 25, 3))
        >>> wave[:, 10, 1] = np.sin(np.arange(240) / 40 * 2 * np.pi)  # one joint goes up and down six times
        >>> [(recording, repetitions)] = count_repetitions(body + wave)
        >>> repetitions.count
        6
    """
    source = Source(inputs, reading, on_error=on_error)
    return [(sequence, repetitions_of(sequence)) for sequence in _recordings(source, each_person)]


def _recordings(source: Source, each_person: bool) -> Iterator[SkeletonSequence]:
    for sequence in source:
        if each_person:
            yield from PersonSelection(sequence.num_persons).tracked(sequence).each_person()
        else:
            yield sequence


def repetitions_of(sequence: SkeletonSequence) -> Repetitions:
    """The repetitions in one recording, see `count_repetitions`."""
    people = [_joints_of(sequence, person) for person in range(sequence.num_persons)]
    begin, poses = max(people, key=lambda found: _movement(found[1]))
    if _movement(poses) < _STILL:
        return Repetitions(np.zeros((0, 2), np.int64), None)
    rate = sequence.fps if is_rate(sequence.fps) else _USUAL_RATE
    found = repetitions_of_features(poses.reshape(len(poses), -1), rate)
    return Repetitions(found.spans + begin, found.period)


def repetitions_of_features(features: np.ndarray, fps: float) -> Repetitions:
    """The repetitions in features of frames, such as joint positions or embeddings.

    Args:
        features: ``(T, D)``, compared by their dot product around their mean.
        fps: Frames per second.
    """
    step = max(fps / _RATE, 1.0)
    edges = _edges(_smoothed(features, fps, step), fps / step)
    frames = np.clip(np.rint(edges * step), 0, len(features)).astype(np.int64)
    return Repetitions(np.stack([frames[:-1], frames[1:]], axis=1), float(np.median(np.diff(frames))))


def _joints_of(sequence: SkeletonSequence, person: int) -> tuple[int, np.ndarray]:
    """The frame at which a person is first seen, and joints ``(T, V, D)`` around the middle until the last one.

    Joints that are never seen are left out; for moments in which one is not, its positions are interpolated.
    """
    values = sequence.keypoints[:, person, :, : 3 if sequence.is_3d else 2].astype(np.float64)
    known: np.ndarray = np.asarray(values.any(-1))
    frames = np.flatnonzero(known.any(1))
    if not len(frames):
        return 0, np.zeros((0, 1, values.shape[-1]))
    start, end = int(frames[0]), int(frames[-1]) + 1
    values, known = values[start:end], known[start:end]
    # A joint that is rarely seen would be mostly made up.
    often = known.mean(0) >= min(0.5, known.mean(0).max())
    values, known = values[:, often], known[:, often]
    time = np.arange(len(values))
    for joint in np.flatnonzero(~known.all(0)):
        seen = known[:, joint]
        for axis in range(values.shape[-1]):
            values[:, joint, axis] = np.interp(time, time[seen], values[seen, joint, axis])
    # Around the hips where they are seen; other joints move more.
    center = get_layout(sequence.layout).center
    if center is not None and often[center]:
        return start, values - values[:, [int(often[:center].sum())]]
    return start, values - values.mean(1, keepdims=True)


def _movement(joints: np.ndarray) -> float:
    """How far the joint that moves most leaves its mean position, as a share of the body's size."""
    if not len(joints):
        return 0.0
    mean = joints.mean(0)
    size = float(np.ptp(mean, axis=0).max())
    far = float(np.sqrt(np.square(joints - mean).sum(-1).mean(0)).max())
    return far / size if size > 0 else 0.0


def _smoothed(rows: np.ndarray, rate: float, step: float) -> np.ndarray:
    """Rows ``(N, D)`` around their mean, smoothed over time, with one for every `step` frames."""
    radius = max(math.ceil(4 * _SMOOTHING * rate), 1)
    kernel = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / (_SMOOTHING * rate)))
    padded = np.pad(rows, ((radius, radius), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], axis=1)
    places = np.arange(0, len(rows), step)
    low = places.astype(int)
    high, weight = np.minimum(low + 1, len(rows) - 1), (places - low)[:, None]
    poses = smooth[low] * (1 - weight) + smooth[high] * weight
    return poses - poses.mean(0)


def _edges(poses: np.ndarray, rate: float) -> np.ndarray:
    """Where repetitions begin and end, ``(K + 1,)`` in rows of `poses`: one repetition where none repeats."""
    period = None if len(poses) < _FEWEST_FRAMES else _period(poses, rate)
    marks = [] if period is None else _marks(poses, period)
    if len(marks) < 2:
        speed = _speed(poses, 3)
        return np.array(_moving(speed, float(speed.max())), dtype=float)
    gaps = np.diff(marks)
    typical = np.median(gaps[:3]), np.median(gaps[-3:])
    speed = _speed(poses, max(int(typical[0] / 3), 3))
    moving = _moving(speed, float(np.median(speed[marks[0] : marks[-1] + 1])))
    # Before the first and after the last mark there is less than a repetition.
    first = max(min(moving[0], marks[0]), marks[0] - typical[0])
    last = min(max(moving[1], marks[-1]), marks[-1] + typical[1])
    times = np.array([first, *marks, last])
    turns = np.array([-(marks[0] - first) / typical[0], *range(len(marks)), 0.0])
    turns[-1] = turns[-2] + (last - marks[-1]) / typical[1]
    count = max(round(turns[-1] - turns[0]), 1)
    return np.interp(np.linspace(turns[0], turns[-1], count + 1), turns, times)


def _period(poses: np.ndarray, rate: float) -> int | None:
    """The lag in rows at which poses are most alike; None if at none."""
    count = len(poses)
    spectrum = np.square(np.abs(np.fft.rfft(poses, 2 * count, axis=0))).sum(1)
    alike = np.fft.irfft(spectrum)[:count]
    if alike[0] <= 0:
        return None
    alike = alike[: min(int(0.75 * count), int(_LONGEST * rate)) + 1] / alike[0]
    inner = alike[1:-1]
    peaks = 1 + np.flatnonzero((inner > alike[:-2]) & (inner >= alike[2:]))
    peaks = peaks[(peaks >= _SHORTEST * rate) & (alike[peaks] > _LEAST)]
    return int(peaks[alike[peaks] >= _EARLIER * alike[peaks].max()][0]) if len(peaks) else None


def _marks(poses: np.ndarray, period: int) -> list[int]:
    """Rows that are one repetition apart each, of the path with the most similar repetitions."""
    count = len(poses)
    lags = np.arange(max(int(period / _TEMPO), 3), min(math.ceil(period * _TEMPO), count - 2) + 1)
    if not len(lags):
        return []
    energy = np.square(poses).sum(1)
    local, mean = _averaged(energy, period), float(energy.mean())
    gains = np.full((len(lags), count), -np.inf)
    for number, lag in enumerate(lags):
        alike = _averaged(np.einsum("td,td->t", poses[:-lag], poses[lag:]), period)
        both = (local[:-lag] + local[lag:]) / 2
        cost = _TEMPO_COST * math.log(lag / period) ** 2
        gains[number, :-lag] = alike / np.maximum(both, 0.1 * mean) - _SIMILAR - cost
    best, before = np.zeros(count), np.zeros(count, dtype=int)
    for row in range(lags[0], count):
        fitting = lags[lags <= row]
        values = best[row - fitting] + gains[np.arange(len(fitting)), row - fitting]
        choice = int(values.argmax())
        if values[choice] > 0:
            best[row], before[row] = values[choice], fitting[choice]
    marks = [int(best.argmax())]
    while before[marks[-1]]:
        marks.append(marks[-1] - int(before[marks[-1]]))
    return marks[::-1]


def _averaged(values: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` values around each, with zeros beyond the ends."""
    width = min(width, 2 * len(values))
    sums = np.cumsum(np.concatenate([np.zeros(width // 2 + 1), values, np.zeros(width)]))
    return (sums[width : width + len(values)] - sums[: len(values)]) / width


def _speed(poses: np.ndarray, width: int) -> np.ndarray:
    return _averaged(np.square(np.diff(poses, axis=0, prepend=poses[:1])).sum(1), width)


def _moving(speed: np.ndarray, typical: float) -> tuple[int, int]:
    """The first row that moves, and the row after the last."""
    rows = np.flatnonzero(speed > _MOVING * typical)
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, len(speed))
