"""2D keypoints of 3D motion: random cameras, for models of 2D keypoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..data.pose_errors import HEAD, head_axes, measured
from ..layouts import Layout, LayoutLike, conversion_weights, get_layout, seen_joints
from ..normalization import flat_body, place_flat_body
from ..ragged import RaggedFrames, fill_joints

# Numbers that one view draws.
DRAWS = 8
# Nearest depth before the camera, in metres: what is behind it cannot be projected.
_NEAREST = 0.3


@dataclass(frozen=True)
class RandomCamera:
    """A still camera for each view, before a body in metres, y up.

    All ranges are uniform. The camera looks at the middle of the body; its focal length follows from `coverage`, so
    that `distance` decides how strong the perspective is. Joints outside the picture are missing.

    Attributes:
        layout: Joint layout of the 3D motion, which converts to the model's.
        max_yaw: Largest angle about the vertical, in degrees, from the direction that the motion was recorded in.
        pitch: Lowest and highest angle by which the camera looks down, in degrees.
        max_roll: Largest turn of the picture, in degrees.
        distance: Nearest and farthest distance from the middle of the body, in metres (for a torso of 0.5 m).
        coverage: Smallest and largest share of the picture's height or width, whichever is filled first, that the
            motion takes; above 1, a part of it is outside.
        aspect: Width of the picture by its height, between these two; uniform in the logarithm.

    Raises:
        ValueError: If a value is outside its range, or the layout is not 3D.
    """

    layout: LayoutLike = "ntu25"
    max_yaw: float = 180.0
    pitch: Sequence[float] = (-10.0, 30.0)
    max_roll: float = 5.0
    distance: Sequence[float] = (2.0, 8.0)
    coverage: Sequence[float] = (0.4, 1.05)
    aspect: Sequence[float] = (0.5625, 1.7778)

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        if not get_layout(self.layout).is_3d:
            raise ValueError(f"camera: layout '{get_layout(self.layout).name}' is not 3D")
        for name, least, most in (
            ("pitch", -90, 90),
            ("distance", 1, 1000),
            ("coverage", 0.05, 2),
            ("aspect", 0.1, 10),
        ):
            value = getattr(self, name)
            good = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
            if not good or not least <= value[0] <= value[1] <= most:
                raise ValueError(f"camera: {name} must be two numbers from {least} to {most}, rising, got {value!r}")
        for name, most in (("max_yaw", 180), ("max_roll", 90)):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= most:
                raise ValueError(f"camera: {name} must be an angle in [0, {most}] degrees, got {value!r}")

    def project(
        self, motion: torch.Tensor, target: LayoutLike, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints in the picture.

        Args:
            motion: ``(N, T, M, V, 3)`` in metres, y up; people who are absent are zero.
            target: Layout of the keypoints.
            drawn: Random numbers in [0, 1) ``(N, DRAWS)``.

        Returns:
            Keypoints ``(N, T, M, V', 3)``, x and y (down) as shares of the picture's height, and the score 1 (0 where
            nobody is); and the width of each picture by its height ``(N,)``.
        """
        present = seen_joints(motion).any(-1)
        joints = self._joints(motion, get_layout(target))
        mask = present[..., None, None].expand(*joints.shape[:-1], 1)
        number = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
        joints = joints - (joints * mask).sum((1, 2, 3), keepdim=True) / number
        drawn = drawn.to(motion.dtype)
        joints = torch.einsum("ntmvc,ndc->ntmvd", joints, self._rotation(drawn))
        low, high = self.distance
        away = (low + (high - low) * drawn[:, 3]).view(-1, 1, 1, 1)
        depth = (away - joints[..., 2]).clamp(min=_NEAREST)
        flat = torch.stack([joints[..., 0] / depth, -joints[..., 1] / depth], -1)
        # From infinite to infinite where nobody is: the extent is then 0.
        least = torch.where(mask, flat, torch.inf).amin((1, 2, 3))
        most = torch.where(mask, flat, -torch.inf).amax((1, 2, 3))
        extent = (most - least).nan_to_num(0, 0, 0).clamp(min=1e-6)
        narrow, wide = (math.log(value) for value in self.aspect)
        aspect = torch.exp(narrow + (wide - narrow) * drawn[:, 5])
        size = torch.stack([aspect, torch.ones_like(aspect)], -1)
        low, high = self.coverage
        scale = (low + (high - low) * drawn[:, 4]) / (extent / size).amax(-1)
        free = size - extent * scale[:, None]
        corner = free * drawn[:, 6:8] - least.nan_to_num(0, 0, 0) * scale[:, None]
        flat = flat * scale.view(-1, 1, 1, 1, 1) + corner[:, None, None, None]
        return torch.cat([flat, torch.ones_like(flat[..., :1])], -1) * mask, aspect

    def _joints(self, motion: torch.Tensor, target: Layout) -> torch.Tensor:
        """Joints of another layout ``(N, T, M, V', 3)``, with the face that motion capture does not have."""
        source = get_layout(self.layout)
        weights = torch.tensor(conversion_weights(source, target), device=motion.device, dtype=motion.dtype)
        joints = torch.einsum("wv,ntmvc->ntmwc", weights, motion)
        face = {name: offset for name, offset in measured()["face"].items() if name not in source.joint_names}
        rows = [target.joint_names.index(name) for name in face if name in target.joint_names]
        if rows and set(HEAD) <= set(source.joint_names):
            axes = head_axes(*(motion[..., source.joint_names.index(name), :] for name in HEAD))
            offsets = motion.new_tensor([face[target.joint_names[row]] for row in rows])
            joints[..., rows, :] += torch.einsum("fa,ntmac->ntmfc", offsets, axes)
        return joints

    def _rotation(self, drawn: torch.Tensor) -> torch.Tensor:
        """Rotations ``(N, 3, 3)`` into the axes of the camera: x to the right, y up, z towards it."""
        yaw = (2 * drawn[:, 0] - 1) * math.radians(self.max_yaw)
        low, high = (math.radians(angle) for angle in self.pitch)
        pitch, roll = low + (high - low) * drawn[:, 1], (2 * drawn[:, 2] - 1) * math.radians(self.max_roll)
        one, zero = torch.ones_like(yaw), torch.zeros_like(yaw)

        def matrix(*rows: torch.Tensor) -> torch.Tensor:
            return torch.stack(rows, -1).unflatten(-1, (3, 3))

        turn = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
        tilt = matrix(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
        spin = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
        return spin @ tilt @ turn


def in_picture(
    keypoints: torch.Tensor,
    aspect: torch.Tensor,
    channels: int,
    distances: torch.Tensor | None,
    body_size: float | None = None,
) -> torch.Tensor:
    """Keypoints as a model reads them, without joints outside the picture.

    Args:
        keypoints: From `RandomCamera.project` ``(N, T, M, V, 3)``.
        aspect: Width of each picture by its height ``(N,)``.
        channels: Coordinates to keep: 2, or 3 with the score.
        distances: See `ragged.fill_joints`, to fill missing joints; None leaves them zero.
        body_size: Places bodies, see `normalization.place_flat_body`; None gives shares of width and height.

    Returns:
        ``(N, T, M, V, channels)``.
    """
    size = torch.stack([aspect, torch.ones_like(aspect)], -1)[:, None, None, None]
    shares = keypoints[..., :2] / size
    inside = ((shares >= 0) & (shares <= 1)).all(-1) & (keypoints[..., 2] > 0)
    flat = shares if body_size is None else keypoints[..., :2]
    keypoints = torch.cat([flat, keypoints[..., 2:]], -1)[..., :channels] * inside[..., None]
    if distances is not None:
        keypoints = fill_joints(keypoints, distances.to(keypoints.device))
    if body_size is None:
        return keypoints
    number, frames = keypoints.shape[:2]
    lengths = torch.full((number,), frames, device=keypoints.device)
    middle, size = flat_body(RaggedFrames(keypoints.flatten(0, 1), lengths))
    return place_flat_body(keypoints, middle, size, body_size)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
