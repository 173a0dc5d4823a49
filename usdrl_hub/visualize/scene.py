"""A recording in metres, upright, with the camera that shows it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..layouts import TO_Y_UP, Layout, get_layout, make_joint, seen_joints
from ..sequence import METRES, SkeletonSequence, is_rate

# Playback rate of recordings without a frame rate: that of most sensors.
DEFAULT_FPS = 30.0
# The camera is a little beside and above the body's front, in radians.
_ASIDE, _ABOVE = 0.45, 0.16


@dataclass(frozen=True, eq=False)
class Scene:
    """A recording with a camera.

    Attributes:
        points: ``(T, M, V, 3)`` float32, right-handed, y up, 3D in metres; 2D keypoints have z = 0 and y = -row.
        seen: Which joints are visible ``(T, M, V)``.
        layout: Joint layout.
        flat: Whether the keypoints are 2D.
        fps: Frames per second, or None if unknown.
        people: Number of each person in the recording ``(M,)``, from 1; persons never seen are left out.
        azimuth: Direction to the camera about the vertical, in radians from +z to +x.
        elevation: Direction to the camera above the horizontal, in radians.
        floor: Height of the floor; None for no floor and a projection without perspective.
        image_shape: Height and width of the image of 2D keypoints in pixels, or None.
        size: Extent in metres ``(3,)`` of the box that is shown, or None for that of the recording.
    """

    points: np.ndarray
    seen: np.ndarray
    layout: Layout
    flat: bool = False
    fps: float | None = None
    people: Sequence[int] = ()
    azimuth: float = 0.0
    elevation: float = 0.0
    floor: float | None = None
    image_shape: tuple[float, float] | None = None
    size: tuple[float, ...] | None = None

    @classmethod
    def of(cls, sequence: SkeletonSequence) -> Scene:
        """Convert a recording of any layout, unit, handedness and up axis, and choose the camera."""
        layout = get_layout(sequence.layout)
        seen = _seen(sequence, layout)
        people = np.flatnonzero(seen.any((0, 2)))
        points = _upright(sequence, layout)[:, people]
        seen = seen[:, people]
        fps = sequence.fps if is_rate(sequence.fps) else None
        scene = cls(points, seen, layout, not sequence.is_3d, fps)
        scene = replace(scene, people=[int(person) + 1 for person in people], image_shape=sequence.image_shape)
        if scene.flat:
            return scene
        lowest = np.where(seen, points[..., 1], np.inf).min((1, 2))
        floor = float(np.percentile(lowest[np.isfinite(lowest)], 10))
        return replace(scene, azimuth=_azimuth(points, seen, layout), elevation=_ABOVE, floor=floor)

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.points)

    @property
    def rate(self) -> float:
        """Frames per second of playback."""
        return self.fps or DEFAULT_FPS

    @cached_property
    def sides(self) -> np.ndarray:
        """Side of each joint ``(V,)``: -1 left, 1 right, 0 neither."""
        names = self.layout.joint_names
        other = np.array(self.layout.mirrored)
        left = np.array([name.startswith(("left_", "L", "l")) or name.endswith("_L") for name in names])
        return np.where(other == np.arange(len(names)), 0, np.where(left, -1, 1))

    @cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates ``(3,)`` of the joints without outliers."""
        found = self.points[self.seen]
        found = found[:: max(len(found) // 200_000, 1)]
        low, high = np.percentile(found, [0.5, 99.5], axis=0)
        # Joints near the percentiles are no outliers.
        margin = 0.3 * float((high - low).max())
        near = found[((found >= low - margin) & (found <= high + margin)).all(-1)]
        if self.floor is not None:
            low[1] = min(low[1], self.floor)
        low, high = np.minimum(low, near.min(0)), np.maximum(high, near.max(0))
        if self.size is None:
            return low, high
        # Grown to both sides, but upwards only, as the floor is below.
        low = low - (np.array(self.size) - (high - low)) * (0.5, 0, 0.5)
        return low, low + self.size

    def subsampled(self, frames: np.ndarray, fps: float) -> Scene:
        """A selection of frames, with their frame rate."""
        return replace(self, points=self.points[frames], seen=self.seen[frames], fps=fps)

    def projected(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project points ``(..., 3)`` in perspective: positions ``(..., 2)`` and depth ``(...)``, larger if nearer.

        The page's script does the same.
        """
        low, high = self.box
        x, y, z = np.moveaxis(points - (low + high) / 2, -1, 0)
        cosine, sine = np.cos(self.azimuth), np.sin(self.azimuth)
        across, towards = x * cosine - z * sine, x * sine + z * cosine
        height = y * np.cos(self.elevation) - towards * np.sin(self.elevation)
        depth = y * np.sin(self.elevation) + towards * np.cos(self.elevation)
        if self.floor is None:
            return np.stack([across, height], -1), depth
        near = 1 / np.maximum(1 - depth / max(2.5 * float(np.linalg.norm(high - low)), 1e-9), 0.15)
        return np.stack([across * near, height * near], -1), depth

    @property
    def grid_step(self) -> float:
        """Distance in metres of the lines on the floor."""
        low, high = self.box
        return nice_step(float(np.linalg.norm(high - low)) / 6)

    @property
    def key(self) -> str:
        """What the marks in a picture mean, in words."""
        marks = [f"grid {self.grid_step:g} m"] if self.floor is not None else []
        return "; ".join(marks + (["the left side is paler"] if self.sides.any() else []))

    @property
    def aspect(self) -> float:
        """Height over width of the projected recording."""
        width, height = np.ptp(self.projected(self.corners)[0], axis=0)
        return float(height / max(width, 1e-9))

    @property
    def corners(self) -> np.ndarray:
        """Corners of the box ``(8, 3)``."""
        return np.stack(np.meshgrid(*zip(*self.box, strict=True)), -1).reshape(-1, 3)


def _seen(sequence: SkeletonSequence, layout: Layout) -> np.ndarray:
    keypoints = sequence.keypoints
    seen = seen_joints(keypoints, sequence.coordinates == "2d+score")
    anybody = seen.any(-1)
    if layout.center is not None and not seen[..., layout.center].any():
        # In a body centred on this joint, its zeros are positions: they lie in or near the body.
        low = np.where(seen[..., None], keypoints, np.inf).min(2)[anybody]
        high = np.where(seen[..., None], keypoints, -np.inf).max(2)[anybody]
        near = 0.25 * (high - low).max(-1, keepdims=True)
        if ((low - near <= 0) & (high + near >= 0)).all(-1).mean() > 0.5:
            seen[..., layout.center] = anybody
    return seen


def _upright(sequence: SkeletonSequence, layout: Layout) -> np.ndarray:
    """Keypoints ``(T, M, V, 3)``, y up."""
    if not sequence.is_3d:
        flat = sequence.keypoints[..., :2] * np.array([1, -1], np.float32)
        return np.concatenate([flat, np.zeros_like(flat[..., :1])], axis=-1)
    axes, signs = TO_Y_UP[sequence.up or layout.up]
    turned = sequence.keypoints[..., axes] * np.array(signs, np.float32) * np.float32(METRES[sequence.units])
    return turned * np.array([-1, 1, 1], np.float32) if sequence.mirrored else turned


def _azimuth(points: np.ndarray, seen: np.ndarray, layout: Layout) -> float:
    """Camera direction: at the front of one person, at right angles to the line between two."""
    step = max(len(points) // 500, 1)
    points, seen = points[::step].astype(np.float64), seen[::step]
    ahead = np.zeros(3)
    for left, right in (("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")):
        weights = [make_joint(name, layout) for name in (left, right)]
        if weights[0] is not None and weights[1] is not None:
            whole = seen[..., weights[0] != 0].all(-1) & seen[..., weights[1] != 0].all(-1)
            across = np.tensordot(points, weights[1] - weights[0], axes=(2, 0))[whole].sum(0)
            ahead += np.cross([0.0, 1.0, 0.0], across)
    front = float(np.arctan2(ahead[0], ahead[2])) if np.linalg.norm(ahead) > 0 else 0.0
    present = np.argsort(-seen.any(-1).sum(0), kind="stable")[:2]
    if len(present) < 2:
        return front + _ASIDE
    middles = [np.median(points[:, person][seen[:, person]], axis=0) for person in present]
    line = middles[1] - middles[0]
    side = float(np.arctan2(-line[2], line[0]))
    return side if np.cos(side - front) >= 0 else side + np.pi


def frames_to_draw(num_frames: int, fps: float, max_frames: int, max_fps: float) -> tuple[np.ndarray, float]:
    """Choose evenly spaced frames that play a recording at its own speed.

    Args:
        num_frames: Number of frames of the recording.
        fps: Its frames per second.
        max_frames: Most frames to draw.
        max_fps: Highest playback rate.

    Returns:
        Indices of the frames, and the playback rate, at which a frame lasts a whole number of hundredths of a second.
        The rate falls to as low as a fifth of `max_fps` to respect `max_frames`; longer recordings are sped up.
    """
    for divisor in (1, 2, 3, 4, 5):
        rate = 100 / np.ceil(100 / min(max_fps / divisor, fps) - 1e-9)
        count = max(round(num_frames / fps * rate), 1)
        if count <= max_frames:
            return np.minimum((np.arange(count) * fps / rate).round().astype(int), num_frames - 1), float(rate)
    return np.linspace(0, num_frames - 1, max_frames).round().astype(int), float(rate)


def nice_step(length: float) -> float:
    """The tick distance near a length: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(length, 1e-12)))
    rest = length / power
    return float(power * (1 if rest < 1.5 else 2 if rest < 3.5 else 5 if rest < 7.5 else 10))
