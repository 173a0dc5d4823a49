"""Skeletons from pictures by BlazePose: a detector and a landmark network in ONNX, people tracked over time.

The networks are those of MediaPipe Pose (Bazarevsky et al., 2020, arXiv 2006.10204; Apache-2.0), converted by
``conversion/blazepose.py``. They are run by onnxruntime, without MediaPipe.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats.mediapipe import MIN_VISIBILITY
from ..errors import CheckpointLoadError, EmptySequenceError
from ..layouts import get_layout
from ..loading import find_file
from ..sequence import SkeletonSequence, is_rate
from .one_euro import BETA, MIN_CUTOFF, SPEED_CUTOFF, OneEuro

LAYOUT = "mediapipe33"
# The networks that come with the package: of people, and of their landmarks ("lite").
SHIPPED = Path(__file__).parent.parent / "pose"
# Probability above which a person is there.
THRESHOLD = 0.5
# Side of what the networks see, in pixels, and of the landmarks' heat map.
_DETECTOR_SIDE, _LANDMARK_SIDE, _HEATMAP_SIDE = 224, 256, 64
_CHOICES = ("landmarks", "detector", "max_persons", "threshold", "min_visibility", "smooth", "num_threads")
# Cells along a side of the detector's grids, and anchors per cell.
_GRIDS = ((28, 2), (14, 2), (7, 6))
# A person's square is larger than the circle around the body by this factor.
_MARGIN = 1.25
# Landmarks that are no joints: middle of the hips, and a point on the circle around the body.
_CENTER, _ROUND = 33, 34
SHOULDERS, HIPS = [11, 12], [23, 24]
# Detections overlapping more than this (intersection over union) are one person.
_OVERLAP = 0.3
# Two tracks are of one person if their middles are closer than this share of the smaller square.
_SAME = 0.15
# Frames between searches for further people while a person is tracked.
_SEARCH_EVERY = 10
# Seconds for which a lost person is remembered.
_MEMORY = 1.0
# Mean change of brightness from one frame to the next, of 255, that is a cut of the film.
_CUT = 45.0


@dataclass(frozen=True, eq=False)
class Pose:
    """A person in a picture.

    Attributes:
        track: Number of the person, the same in all pictures of a film until a cut.
        world: Landmarks ``(33, 3)`` in metres, x to the right, y down, z away from the camera; the middle of the hips
            is the origin.
        image: The same in the picture ``(33, 2)``, in pixels.
        visibility: Probability ``(33,)`` that a landmark is in the picture and not hidden.
        presence: Probability that a person is there.
    """

    track: int
    world: np.ndarray
    image: np.ndarray
    visibility: np.ndarray
    presence: float


@dataclass(frozen=True)
class _Square:
    """A turned square around a person: middle and side in pixels, angle in radians."""

    x: float
    y: float
    side: float
    angle: float

    @classmethod
    def around(cls, center: np.ndarray, rim: np.ndarray) -> _Square:
        across = rim - center
        side = 2 * float(np.hypot(*across)) * _MARGIN
        return cls(float(center[0]), float(center[1]), side, float(np.pi / 2 - np.arctan2(-across[1], across[0])))

    def distance(self, other: _Square) -> float:
        """Distance of the middles as a share of the smaller side."""
        return float(np.hypot(self.x - other.x, self.y - other.y)) / max(min(self.side, other.side), 1e-6)


@dataclass
class _Track:
    number: int
    square: _Square
    # Pixels a frame.
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    smooth: OneEuro | None = None
    # Frames since the person was seen.
    lost: int = 0

    def expected(self, frames: int) -> _Square:
        """Where the person is likely to be some frames later."""
        x, y = (self.square.x, self.square.y) + self.velocity * frames
        return _Square(float(x), float(y), self.square.side, self.square.angle)

    def move(self, square: _Square) -> None:
        step = np.array([square.x - self.square.x, square.y - self.square.y]) / (self.lost + 1)
        self.velocity, self.square, self.lost = 0.7 * self.velocity + 0.3 * step, square, 0


class BlazePoseEstimator:
    """Finds the people in the pictures of a film, and their 33 landmarks in 3D.

    Example::

        recording = read_video("film.mp4", BlazePoseEstimator())

    Attributes:
        layout: Joint layout of its recordings, ``mediapipe33``.
    """

    layout = LAYOUT

    def __init__(
        self,
        landmarks: str | os.PathLike | None = None,
        *,
        detector: str | os.PathLike | None = None,
        max_persons: int = 2,
        threshold: float = THRESHOLD,
        min_visibility: float = MIN_VISIBILITY,
        smooth: bool = True,
        num_threads: int | None = None,
    ):
        """Load the networks.

        Args:
            landmarks: ONNX file of the landmark network, or ``OWNER/REPOSITORY/FILE.onnx`` on the hub; the package's
                own ("lite") where None. ``conversion/blazepose.py`` makes the larger ones, "full" and "heavy".
            detector: ONNX file of the person detector; the package's own where None.
            max_persons: People tracked at once; each takes a run of the landmark network for every frame.
            threshold: Probability above which a person is there, between 0 and 1.
            min_visibility: Landmarks that are less visible count as not seen, in [0, 1).
            smooth: Whether positions in metres pass a One-Euro filter, which takes jitter away and lags behind by
                some frames at rest, less in motion.
            num_threads: Threads of a network; onnxruntime's choice where None.

        Raises:
            CheckpointLoadError: If a file is not one of these networks.
            ValueError: If onnxruntime is not installed, or a number is out of range.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"the threshold for persons must be between 0 and 1, got {threshold}")
        if not 0 <= min_visibility < 1:
            raise ValueError(f"min_visibility must be at least 0 and below 1, got {min_visibility}")
        if max_persons < 1 or int(max_persons) != max_persons:
            raise ValueError(f"max_persons must be a whole number of at least 1, got {max_persons}")
        chosen: tuple[Any, ...] = landmarks, detector, max_persons, threshold, min_visibility, smooth, num_threads
        self._choices: dict[str, Any] = dict(zip(_CHOICES, chosen, strict=True))
        self._detector = _session(detector or SHIPPED / "detector.onnx", ("boxes", "scores"), num_threads)
        outputs = ("landmarks", "presence", "heatmap", "world")
        self._landmarker = _session(landmarks or SHIPPED / "lite.onnx", outputs, num_threads)
        self.max_persons, self.threshold = max_persons, threshold
        self.min_visibility, self.smooth = min_visibility, smooth

    def __repr__(self) -> str:
        """What was chosen, which names its results in a data set that is being made."""
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._choices.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Let other processes load the networks again."""
        return partial(type(self), **self._choices), ()

    def detect(self, image: np.ndarray) -> list[_Square]:
        """Squares around up to `max_persons` people in a picture ``(H, W, 3)`` uint8, those in the foreground first.

        The whole picture is searched first. If that leaves room for further people, overlapping squares of its short
        side are searched, in which people far away are large enough to be found.
        """
        _check_picture(image)
        height, width = image.shape[:2]
        short, side = sorted((height, width))
        windows = [_Square(width / 2, height / 2, side, 0.0)]
        count = min(int(np.ceil(2 * (side - short) / short)) + 1, 6) if side > short else 0
        for at in np.linspace(short / 2, side - short / 2, count):
            x, y = (at, height / 2) if width > height else (width / 2, at)
            windows.append(_Square(float(x), float(y), short, 0.0))
        found: list[_Square] = []
        for window in windows:
            if len(found) < self.max_persons:
                for square in self._detect(image, window):
                    if all(square.distance(other) >= 2 * _SAME for other in found):
                        found.append(square)
        return found[: self.max_persons]

    def _detect(self, image: np.ndarray, window: _Square) -> list[_Square]:
        """The same in a square of the picture, likeliest first."""
        picture = _crop(image, window, _DETECTOR_SIDE) / 127.5 - 1
        boxes, scores = self._detector.run(None, {"input": picture[None].astype(np.float32)})
        # The score of a box is a logit.
        logits = scores[0, :, 0]
        likely = np.flatnonzero(logits > np.log(self.threshold / (1 - self.threshold)))
        likely = likely[np.argsort(-logits[likely], kind="stable")]
        boxes = boxes[0, likely] / _DETECTOR_SIDE
        centers = boxes[:, :2] + ANCHORS[likely]
        points = boxes[:, 4:8].reshape(-1, 2, 2) + ANCHORS[likely][:, None]
        points = (points - 0.5) * window.side + (window.x, window.y)
        kept: list[int] = []
        for number in range(len(likely)):
            if not kept or _overlaps(centers[number], boxes[number, 2:4], centers[kept], boxes[kept, 2:4]) <= _OVERLAP:
                kept.append(number)
            if len(kept) == self.max_persons:
                break
        return [_Square.around(*points[number]) for number in kept]

    def landmarks(self, image: np.ndarray, square: _Square, track: int = 0) -> tuple[Pose, _Square]:
        """The person in a square of a picture, and the square in which to look for him in the next one."""
        picture = _crop(image, square, _LANDMARK_SIDE) / 255
        marks, presence, heatmap, world = self._landmarker.run(None, {"input": picture[None].astype(np.float32)})
        marks = marks.reshape(-1, 5)
        points = _refined(marks[:, :2] / _LANDMARK_SIDE, heatmap[0])
        cosine, sine = np.cos(square.angle), np.sin(square.angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        points = (points - 0.5) @ turn.T * square.side + (square.x, square.y)
        joints = get_layout(LAYOUT).num_joints
        world = world.reshape(-1, 3)[:joints].astype(np.float64)
        world[:, :2] = world[:, :2] @ turn.T
        visibility = 1 / (1 + np.exp(-marks[:joints, 3]))
        pose = Pose(track, world, points[:joints], visibility, float(presence[0, 0]))
        return pose, _Square.around(points[_CENTER], points[_ROUND])

    def track(self, images: Iterable[np.ndarray], fps: float | None = None) -> Iterator[list[Pose]]:
        """Yield the people of each picture of a film, who keep their numbers over time.

        Args:
            images: Pictures ``(H, W, 3)`` uint8, RGB.
            fps: Pictures per second; 30 where that is None or cannot be.

        Yields:
            A list for each picture, by number of the person; empty where no person is visible.

        Raises:
            ValueError: If a picture has another shape or type.
        """
        tracks: list[_Track] = []
        lost: list[_Track] = []
        fps, number, before = fps if is_rate(fps) else 30.0, 0, None
        for frame, image in enumerate(images):
            _check_picture(image)
            thumbnail = image[:: max(image.shape[0] // 24, 1), :: max(image.shape[1] // 24, 1)].mean(-1)
            if before is None or before.shape != thumbnail.shape or np.abs(thumbnail - before).mean() > _CUT:
                tracks, lost = [], []
            before = thumbnail
            if not tracks or (len(tracks) < self.max_persons and frame % _SEARCH_EVERY == 0):
                for square in self.detect(image):
                    if len(tracks) == self.max_persons:
                        break
                    if any(square.distance(track.square) < 2 * _SAME for track in tracks):
                        continue
                    again = min(lost, key=lambda track: square.distance(track.expected(track.lost)), default=None)
                    if again is not None and square.distance(again.expected(again.lost)) < 0.5:
                        lost.remove(again)
                        again.move(square)
                        again.smooth = None
                        tracks.append(again)
                    else:
                        tracks.append(_Track(number, square))
                        number += 1
            found: list[tuple[_Track, Pose, _Square]] = []
            for track in tracks:
                pose, square = self.landmarks(image, track.square, track.number)
                if pose.presence >= self.threshold:
                    found.append((track, pose, square))
            # Where two have come upon the same person, it is the one who was expected there.
            found.sort(key=lambda item: item[2].distance(item[0].expected(1)))
            apart: list[tuple[_Track, Pose, _Square]] = []
            for item in found:
                if all(item[2].distance(other[2]) >= _SAME for other in apart):
                    apart.append(item)
            for track, _, square in apart:
                track.move(square)
            seen = [track for track, _, _ in apart]
            gone = [*lost, *(track for track in tracks if track not in seen)]
            for track in gone:
                track.lost += 1
            lost = [track for track in gone if track.lost <= _MEMORY * fps]
            tracks = sorted(seen, key=lambda track: track.number)
            yield [
                self._smoothed(track, pose, fps) for track, pose, _ in sorted(apart, key=lambda item: item[0].number)
            ]

    def _smoothed(self, track: _Track, pose: Pose, fps: float) -> Pose:
        if not self.smooth:
            return pose
        track.smooth = track.smooth or OneEuro(fps)
        return Pose(pose.track, track.smooth(pose.world), pose.image, pose.visibility, pose.presence)

    def recording(
        self,
        images: Iterable[np.ndarray],
        *,
        fps: float | None = None,
        name: str = "",
        where: str | None = None,
        in_picture: bool = False,
    ) -> SkeletonSequence:
        """The people of a film as a recording in 3D, or as they are in its pictures.

        A 3D body is moved in the plane of the picture as it moves there: its size in metres and in pixels give the
        scale (the median over the film). Its distance from the camera is not known and stays the same.

        Args:
            images: Pictures ``(H, W, 3)`` uint8, RGB, in order.
            fps: Pictures per second; None if unknown.
            name: Name of the recording.
            where: What to call it in errors; its name where None.
            in_picture: Give 2D landmarks in pixels, not smoothed, with their visibility as the score.

        Returns:
            A recording of layout ``mediapipe33``, in metres with y down where it is 3D, a frame for each picture;
            landmarks that are less visible than `min_visibility` are zero, which means not seen.

        Raises:
            EmptySequenceError: If there is no picture, or no person is found in any.
        """
        pictures = iter(images)
        first = next(pictures, None)
        poses = list(self.track(() if first is None else chain([first], pictures), fps))
        numbers = sorted({pose.track for people in poses for pose in people})
        if not numbers:
            reason = f"no person is found in its {len(poses)} pictures" if poses else "there is no picture in it"
            raise EmptySequenceError(f"{where or name or 'film'}: {reason}")
        keypoints = np.zeros((len(poses), len(numbers), get_layout(LAYOUT).num_joints, 3), np.float32)
        for person, number in enumerate(numbers):
            own = [(frame, pose) for frame, people in enumerate(poses) for pose in people if pose.track == number]
            points = np.stack([pose.world for _, pose in own])
            image = np.stack([pose.image for _, pose in own])
            visibility = np.stack([pose.visibility for _, pose in own])
            if in_picture:
                points = np.concatenate([image, visibility[..., None]], -1)
            else:
                points[..., :2] += _path(image, points)[:, None]
            hidden = visibility < self.min_visibility
            keypoints[[frame for frame, _ in own], person] = np.where(hidden[..., None], 0, points)
        if in_picture and first is not None:
            flat: dict[str, Any] = {"coordinates": "2d+score", "image_shape": first.shape[:2]}
            return SkeletonSequence(keypoints, LAYOUT, fps=fps, name=name, **flat)
        return SkeletonSequence(keypoints, LAYOUT, fps=fps, name=name, up="-y")


def _anchors() -> np.ndarray:
    """Middles of the detector's anchors ``(2254, 2)``, as shares of its picture."""
    grids = []
    for cells, count in _GRIDS:
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat((np.stack([x, y], -1).reshape(-1, 2) + 0.5) / cells, count, axis=0))
    return np.concatenate(grids).astype(np.float32)


ANCHORS = _anchors()


def constants() -> dict[str, Any]:
    """What another implementation must know of the method, such as the JavaScript of an exported page."""
    return {
        "detector_side": _DETECTOR_SIDE,
        "landmark_side": _LANDMARK_SIDE,
        "heatmap_side": _HEATMAP_SIDE,
        "grids": [list(grid) for grid in _GRIDS],
        "margin": _MARGIN,
        "center": _CENTER,
        "round": _ROUND,
        "overlap": _OVERLAP,
        "same": _SAME,
        "search_every": _SEARCH_EVERY,
        "memory": _MEMORY,
        "cut": _CUT,
        "min_cutoff": MIN_CUTOFF,
        "beta": BETA,
        "speed_cutoff": SPEED_CUTOFF,
        "joints": get_layout(LAYOUT).num_joints,
        "shoulders": SHOULDERS,
        "hips": HIPS,
        "threshold": THRESHOLD,
        "min_visibility": MIN_VISIBILITY,
    }


def _session(path: str | os.PathLike, outputs: tuple[str, ...], threads: int | None) -> Any:
    """An ONNX file ready to run."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("seeing people in video needs onnxruntime: pip install 'usdrl-hub[video]'") from None
    path = find_file(path)
    if not path.is_file():
        raise CheckpointLoadError(f"{path}: there is no such file: make it with conversion/blazepose.py")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CheckpointLoadError(f"{path}: it is not an ONNX file that onnxruntime can run") from error
    found = tuple(output.name for output in session.get_outputs())
    if found != outputs:
        raise CheckpointLoadError(
            f"{path}: it gives {', '.join(found)[:80]} and not {', '.join(outputs)}: take a file that "
            "conversion/blazepose.py has made"
        )
    return session


def _check_picture(image: Any) -> None:
    shape, kind = np.shape(image), getattr(image, "dtype", None)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or kind != np.uint8:
        raise ValueError(f"a picture must be (H, W, 3) of uint8, RGB, got shape {shape} of {kind}")


def _crop(image: np.ndarray, square: _Square, side: int) -> np.ndarray:
    """A turned square of a picture ``(side, side, 3)`` float32 in [0, 255], bilinear; black outside."""
    steps = ((np.arange(side) + 0.5) / side - 0.5) * square.side
    cosine, sine = np.cos(square.angle), np.sin(square.angle)
    x = (square.x + cosine * steps - sine * steps[:, None] - 0.5).astype(np.float32)
    y = (square.y + sine * steps + cosine * steps[:, None] - 0.5).astype(np.float32)
    height, width = image.shape[:2]
    left, top = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    right_share, bottom_share = ((at - cell)[..., None] for at, cell in ((x, left), (y, top)))
    pixels = image.reshape(-1, 3)

    def at(column: np.ndarray, row: np.ndarray) -> np.ndarray:
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        values = pixels[np.where(inside, row * width + column, 0)].astype(np.float32)
        return values if inside.all() else values * inside[..., None]

    upper = at(left, top) * (1 - right_share) + at(left + 1, top) * right_share
    lower = at(left, top + 1) * (1 - right_share) + at(left + 1, top + 1) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share


def _refined(points: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Landmarks ``(39, 2)`` in [0, 1] moved to the middles of their heat around them ``(64, 64, 39)``, of logits."""
    reach = 3
    cells = np.floor(points * _HEATMAP_SIDE).astype(int)
    inside = ((cells >= 0) & (cells < _HEATMAP_SIDE)).all(-1)
    near = np.arange(-reach, reach + 1)
    columns, rows = (np.where(inside, cells[:, axis], 0)[:, None, None] for axis in (0, 1))
    columns, rows = np.broadcast_arrays(columns + near, rows + near[:, None])
    within = (columns >= 0) & (columns < _HEATMAP_SIDE) & (rows >= 0) & (rows < _HEATMAP_SIDE)
    logits = heatmap[
        rows.clip(0, _HEATMAP_SIDE - 1), columns.clip(0, _HEATMAP_SIDE - 1), np.arange(len(points))[:, None, None]
    ]
    heat = np.where(within, 1 / (1 + np.exp(-logits)), 0)
    sure = inside & (heat.max((1, 2)) >= 0.5)
    total = np.where(sure, heat.sum((1, 2)), 1)
    middles = np.stack([(columns * heat).sum((1, 2)), (rows * heat).sum((1, 2))], -1) / total[:, None]
    return np.where(sure[:, None], (middles / _HEATMAP_SIDE).astype(np.float32), points)


def _overlaps(center: np.ndarray, size: np.ndarray, centers: np.ndarray, sizes: np.ndarray) -> float:
    """The largest intersection over union of a box with others."""
    low = np.maximum(center - size / 2, centers - sizes / 2)
    high = np.minimum(center + size / 2, centers + sizes / 2)
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    return float((shared / (np.prod(size) + np.prod(sizes, axis=-1) - shared)).max())


def _path(image: np.ndarray, world: np.ndarray) -> np.ndarray:
    """How the middle of the hips moves in the plane of the picture ``(T, 2)``, in metres.

    Args:
        image: Landmarks in pixels ``(T, 33, 2)``.
        world: The same in metres ``(T, 33, 3)``.
    """
    lengths = []
    for points in (world[..., :2], image):
        torso = points[:, SHOULDERS].mean(1) - points[:, HIPS].mean(1)
        lengths.append(np.linalg.norm(torso, axis=-1))
    scale = np.median(lengths[0] / np.maximum(lengths[1], 1e-6))
    return image[:, HIPS].mean(1) * scale
