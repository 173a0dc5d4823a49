"""Normalisation of skeleton sequences, and the clips a model reads, for ragged batches on any device.

Nothing loops over frames or joints. The rules are those of the data scripts of the authors' release
(pre_normalization); ``tests/goldens/normalize_*.npz`` and ``feeder_*.npz`` hold what these compute. This file also
ships as remote code, so it imports only its siblings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import torch

from .layouts import NORMALIZATIONS, Layout, get_layout, seen_joints
from .ragged import RaggedFrames, filled_frame_index

# Shorter vectors have no direction and no rotation axis; the release uses the same number.
NO_DIRECTION = 1e-6
# Frames that decide how a body is turned upright: a single frame of a depth sensor is noisy.
FIRST_FRAMES = 8
# Normalizations that move a joint to the origin, that fill empty frames, of 2D keypoints, and of these in pixels.
_CENTRED = ("ntu", "uav", "body")
FILLING = (*_CENTRED, "body-2d")
PIXELS = ("image", "release-2d")
_FLAT = (*PIXELS, "body-2d")
# What `body-2d` scales bodies to: about that of a standing person with a torso of half a metre.
BODY_SIZE = 0.35


def default_normalization(layout: Layout) -> str:
    """The normalization that the published checkpoints of a layout were trained with, or the nearest to it."""
    if layout.name == "coco17-release":
        return "release-2d"
    if not layout.is_3d:
        return "image"
    if layout.name == "uav17":
        return "uav"
    return "none" if layout.center is None else "ntu"


@dataclass(frozen=True)
class Geometry:
    """How bodies are filled, centred, turned and scaled; see `normalize_sequences`.

    Attributes:
        center_joint: Joint of person 0 that becomes the origin of each frame; None leaves the origin.
        x_axis: ``(start, end)`` joints of the vector of person 0 that is turned onto +x, or None.
        z_axis: The same for +z, which is turned first.
        upright: Turn about the vertical only, by the mean of the first frames (see `upright_rotation`); `z_axis` is
            not used.
        torso: ``(start, end)`` joints whose mean distance is scaled to `torso_length`; None leaves the size.
        torso_length: Length of the torso afterwards, in the unit of the result.
        body_size: Size that 2D keypoints are scaled to, with the middle of person 0 as origin, see `flat_body`; None
            does neither.
        fill: Whether empty frames are filled, see `filled_frame_index`.
    """

    center_joint: int | None = None
    x_axis: Sequence[int] | None = None
    z_axis: Sequence[int] | None = None
    upright: bool = False
    torso: Sequence[int] | None = None
    torso_length: float = 0.5
    body_size: float | None = None
    fill: bool = True

    @classmethod
    def preset(cls, name: str, layout: Layout, **changes: Any) -> Geometry:
        """The geometry of a normalization for a layout; see `USDRLFeatureExtractor` for their names.

        Args:
            name: One of `layouts.NORMALIZATIONS`.
            layout: Joints of the bodies.
            **changes: Fields that differ from the preset; None leaves the preset's value.

        Raises:
            ValueError: If there is no such normalization, it does not fit the layout, or a field is out of range.
        """
        if name not in NORMALIZATIONS:
            raise ValueError(f"unknown normalization {name!r}: use one of {', '.join(NORMALIZATIONS)}")
        if name in _FLAT and layout.is_3d:
            raise ValueError(f"normalization {name!r} is for 2D keypoints, but layout '{layout.name}' is 3D")
        if name == "body" and not layout.is_3d:
            raise ValueError(f"normalization 'body' is for 3D joints, but layout '{layout.name}' is 2D: use 'body-2d'")
        fields: dict[str, Any] = {"fill": name in FILLING, "upright": name == "body"}
        if name == "body-2d":
            fields["body_size"] = BODY_SIZE
        if name in _CENTRED:
            source = get_layout("uav17") if name == "uav" else layout
            fields |= {"center_joint": source.center, "x_axis": source.x_axis}
            fields["z_axis"] = None if name == "body" else source.z_axis
        fields |= {key: value for key, value in changes.items() if value is not None}
        if name in _CENTRED and fields["center_joint"] is None:
            raise ValueError(
                f"normalization {name!r} needs a centre joint, and layout '{layout.name}' names none: give "
                "center_joint, or use normalization='none'"
            )
        if name == "body" and "torso" not in fields:
            joints = layout.joint_names
            if not {"spine_base", "neck"} <= set(joints):
                raise ValueError(
                    f"normalization 'body' needs the joints spine_base and neck, which layout '{layout.name}' has "
                    "not: give torso=[start, end]"
                )
            fields["torso"] = [joints.index("spine_base"), joints.index("neck")]
        if layout.is_3d and fields.get("body_size") is not None:
            raise ValueError(f"body_size is for 2D keypoints, but layout '{layout.name}' is 3D")
        geometry = cls(**fields)
        geometry._check(layout.num_joints)
        return geometry

    def _check(self, num_joints: int) -> None:
        used = [] if self.center_joint is None else [self.center_joint]
        for name, axis in (("x_axis", self.x_axis), ("z_axis", self.z_axis), ("torso", self.torso)):
            if axis is not None and len(axis) != 2:
                raise ValueError(f"{name} must be two joints, [start, end], got {axis!r}")
            used += axis or ()
        if not all(0 <= joint < num_joints for joint in used):
            raise ValueError(f"center_joint, x_axis, z_axis and torso must be joints 0 to {num_joints - 1}")
        if not self.torso_length > 0:
            raise ValueError(f"torso_length must be above 0, got {self.torso_length}")
        size = self.body_size
        if size is not None and not (isinstance(size, int | float) and 0 < size < float("inf")):
            raise ValueError(f"body_size must be above 0, got {size!r}")


def center_persons_(keypoints: torch.Tensor, center_joint: int | None) -> torch.Tensor:
    """Move person 0's centre joint of each frame to the origin, in place.

    Joints whose coordinates sum to zero count as missing and become zero.

    Args:
        keypoints: ``(..., M, V, C)``; overwritten.
        center_joint: Joint of person 0 that becomes the origin; None leaves the keypoints as they are.
    """
    if center_joint is None:
        return keypoints
    # A sum over a short last axis is slow: one addition per coordinate is not.
    total = keypoints[..., 0]
    for channel in range(1, keypoints.shape[-1]):
        total = total + keypoints[..., channel]
    there = total != 0
    keypoints -= keypoints[..., :1, center_joint : center_joint + 1, :].clone()
    return keypoints if there.all() else keypoints.mul_(there[..., None])


def rotation_onto(vector: torch.Tensor, target: tuple[float, float, float]) -> torch.Tensor:
    """Rotations about the normal of a vector and an axis that turn the vector onto the axis.

    Args:
        vector: ``(B, 3)``.
        target: A unit vector.

    Returns:
        Float64 matrices ``(B, 3, 3)`` R with ``R v`` along `target`; the identity if the vector, the normal or the
        angle vanishes, so a vector exactly opposite to the target is not turned.
    """
    vector = vector.double()
    onto = vector.new_tensor(target).expand_as(vector)
    normal = torch.linalg.cross(vector, onto)
    length = torch.linalg.vector_norm(vector, dim=-1)
    angle = torch.arccos(((vector * onto).sum(-1) / length.clamp(min=1e-300)).clamp(-1, 1))
    fixed = (vector.abs().sum(-1) < NO_DIRECTION) | (normal.abs().sum(-1) < NO_DIRECTION) | (angle < NO_DIRECTION)
    x, y, z = (normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True).clamp(min=1e-300)).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).view(-1, 3, 3)
    sine, cosine = torch.sin(angle)[:, None, None], torch.cos(angle)[:, None, None]
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    rotation = identity + sine * cross + (1 - cosine) * (cross @ cross)
    return torch.where(fixed[:, None, None], identity, rotation)


def body_rotation(
    first_frame: torch.Tensor, x_axis: Sequence[int] | None, z_axis: Sequence[int] | None
) -> torch.Tensor:
    """Rotation that turns body vectors onto +z, then +x.

    Args:
        first_frame: Person 0 in frame 0, filled and centred, ``(B, V, 3)``.
        x_axis: ``(start, end)`` joints of the vector that is turned onto +x, or None.
        z_axis: The same for +z.

    Returns:
        Float64 matrices ``(B, 3, 3)``.
    """
    first_frame = first_frame.double()
    rotation = torch.eye(3, dtype=torch.float64, device=first_frame.device).expand(len(first_frame), 3, 3)
    for joints, target in ((z_axis, (0.0, 0.0, 1.0)), (x_axis, (1.0, 0.0, 0.0))):
        if joints is not None:
            vector = first_frame[:, joints[1]] - first_frame[:, joints[0]]
            rotation = rotation_onto((rotation @ vector[..., None])[..., 0], target) @ rotation
    return rotation


def upright_rotation(first_frames: torch.Tensor, x_axis: Sequence[int]) -> torch.Tensor:
    """Rotation about the vertical that turns a body vector into the x-y plane, towards +x.

    Args:
        first_frames: Person 0 in the first frames, ``(B, K, V, 3)``, y up.
        x_axis: ``(start, end)`` joints of the vector, which is averaged over the frames.

    Returns:
        Float64 matrices ``(B, 3, 3)``; the identity where the vector is vertical or zero.
    """
    vector = (first_frames[:, :, x_axis[1]] - first_frames[:, :, x_axis[0]]).double().mean(dim=1)
    length = torch.linalg.vector_norm(vector[:, [0, 2]], dim=-1)
    fixed = length < NO_DIRECTION
    cosine = torch.where(fixed, 1, vector[:, 0] / length.clamp(min=NO_DIRECTION))
    sine = torch.where(fixed, 0, vector[:, 2] / length.clamp(min=NO_DIRECTION))
    zero, one = torch.zeros_like(sine), torch.ones_like(sine)
    return torch.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], dim=-1).view(-1, 3, 3)


def torso_scale(batch: RaggedFrames, torso: Sequence[int], length: float) -> torch.Tensor:
    """Factor that scales person 0's mean distance between two joints to `length`, ``(B,)`` float64; 1 if unseen."""
    ends = batch.frames[:, 0, list(torso)].double()
    distance = torch.linalg.vector_norm(ends[:, 1] - ends[:, 0], dim=-1)
    seen = seen_joints(ends).all(-1).double()
    mean = batch.sum(distance * seen) / batch.sum(seen).clamp(min=1)
    return torch.where(mean < NO_DIRECTION, 1, length / mean.clamp(min=NO_DIRECTION))


def flat_body(batch: RaggedFrames) -> tuple[torch.Tensor, torch.Tensor]:
    """Middle and size of person 0 in the picture, over whole sequences.

    Both need no joint in particular: 2D keypoints of any layout have them, of an upper body, too.

    Returns:
        The mean of all joints seen in all frames ``(B, 2)``, and the root mean square distance of the joints from
        their mean in a frame, averaged over the frames ``(B,)``; both float64, and 0 where nothing is seen.
    """
    body, seen = batch.frames[:, 0, :, :2].double(), seen_joints(batch.frames[:, 0]).double()[..., None]
    number = seen.sum(1)
    total = (body * seen).sum(1)
    middle = batch.sum(total) / batch.sum(number).clamp(min=1)
    away = (body - (total / number.clamp(min=1))[:, None]) * seen
    spread = (away.square().sum((1, 2)) / number[:, 0].clamp(min=1)).sqrt()
    frames = batch.sum((number[:, 0] > 0).double()).clamp(min=1)
    return middle, batch.sum(spread) / frames


def place_flat_body(frames: torch.Tensor, middle: torch.Tensor, size: torch.Tensor, body_size: float) -> torch.Tensor:
    """Move the middle of bodies in the picture to the origin, and scale their size to `body_size`.

    Args:
        frames: ``(N, ..., M, V, C)``, coordinates x and y, then anything that stays, as the score.
        middle: Middle ``(N, 2)`` of each; see `flat_body`.
        size: Size ``(N,)`` of each. A body without one, of which one joint at most is seen at a time, becomes unseen:
            left as it is, it would stay in pixels.
        body_size: Size afterwards.

    Returns:
        The placed frames; joints that are not seen stay zero.
    """
    shape = (len(frames), *[1] * (frames.ndim - 2))
    scale = torch.where(size < NO_DIRECTION, 0, body_size / size.clamp(min=NO_DIRECTION))
    placed = (frames[..., :2] - middle.view(*shape, 2)) * scale.view(*shape, 1)
    placed = torch.cat([placed.to(frames.dtype), frames[..., 2:]], -1)
    return torch.where(seen_joints(frames)[..., None], placed, 0)


def _placed(batch: RaggedFrames, geometry: Geometry) -> RaggedFrames:
    """The batch with 2D bodies placed, where the geometry says so."""
    if geometry.body_size is None:
        return batch
    middle, size = (values[batch.sequence_of_frame] for values in flat_body(batch))
    return RaggedFrames(place_flat_body(batch.frames, middle, size, geometry.body_size), batch.lengths)


def normalize_pixels(keypoints: np.ndarray, name: str, image_shape: Sequence[float]) -> np.ndarray:
    """Divide 2D keypoints by the size of the image.

    Args:
        keypoints: ``(T, M, V, 2)`` in pixels, or ``(T, M, V, 3)`` with scores, which stay.
        name: ``"image"``, which divides x by the width and y by the height; or ``"release-2d"``, which repeats a slip
            of the release that its 2D checkpoints were trained with: joint 0 is divided by the height, joint 1 by the
            width, and the other joints stay in pixels.
        image_shape: Height and width of the image in pixels.
    """
    height, width = image_shape
    scale = np.ones((keypoints.shape[2], 2), dtype=np.float32)
    if name == "image":
        scale[:] = width, height
    else:
        scale[0], scale[1:2] = height, width
    return np.concatenate([keypoints[..., :2] / scale, keypoints[..., 2:]], axis=-1)


def normalize_sequences(batch: RaggedFrames, geometry: Geometry) -> RaggedFrames:
    """Fill empty frames, centre on person 0, and turn and scale the body, over whole sequences.

    Args:
        batch: Sequences, with C = 3 if anything is to be turned.
        geometry: What is done.

    Returns:
        The normalised sequences, as long as they were.
    """
    index = torch.arange(len(batch.frames), device=batch.lengths.device)
    filled = filled_frame_index(batch) if geometry.fill else None
    # Afterwards: the coordinates of a placed body can sum to zero, which stands for an empty frame.
    batch = _placed(batch, geometry)
    frames, change = _centered(batch, filled, index, geometry), _body_change(batch, filled, geometry)
    if change is not None:
        frames = torch.einsum("nmvc,ndc->nmvd", frames, change.to(frames.dtype)[batch.sequence_of_frame])
    return RaggedFrames(frames, batch.lengths)


def normalize_further(beginning: RaggedFrames, frames: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Normalise frames that follow the beginnings of sequences, turned and scaled as the beginnings are.

    Args:
        beginning: The first frames of sequences, all that decides how a body is turned and scaled.
        frames: Later frames of each ``(B, K, M, V, C)``. Empty ones are not filled.
        geometry: What is done.

    Returns:
        ``(B, K, M, V, C)``.
    """
    if geometry.body_size is not None:
        frames = place_flat_body(frames, *flat_body(beginning), geometry.body_size)
    change = _body_change(beginning, filled_frame_index(beginning) if geometry.fill else None, geometry)
    frames = center_persons_(frames.clone(), geometry.center_joint)
    return frames if change is None else _turned(frames, change)


def clip_batch(batch: RaggedFrames, num_frames: int, geometry: Geometry, crop_ratio: float = 1.0) -> torch.Tensor:
    """Normalise sequences and resize the middle of each to one length.

    Equal to `normalize_sequences` followed by linear interpolation with half-pixel centres and no antialiasing, but
    only the frames that the result needs are normalised.

    Args:
        batch: Sequences.
        num_frames: Frames T of a clip.
        geometry: See `normalize_sequences`.
        crop_ratio: Share of the frames to use, in (0, 1]: frames ``[b, n - b)``, ``b = int((1 - ratio) n / 2)``.

    Returns:
        Clips ``(B, T, M, V, C)``.
    """
    border = ((1 - crop_ratio) * batch.lengths.double() / 2).long()
    before, after, weight = _resize_positions(batch.lengths - 2 * border, num_frames)
    first = (batch.starts + border)[:, None]
    filled = filled_frame_index(batch) if geometry.fill else None
    batch = _placed(batch, geometry)
    frames, later = (_centered(batch, filled, first + position, geometry) for position in (before, after))
    clips = frames.lerp_(later, weight.to(frames.dtype)[:, :, None, None, None])
    change = _body_change(batch, filled, geometry)
    # Turning is linear, so it comes last: half as many frames are turned.
    return clips if change is None else _turned(clips, change)


def resize(frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Resize one sequence ``(n, ...)`` to `num_frames` by linear interpolation with half-pixel centres."""
    before, after, weight = _resize_positions(torch.tensor([len(frames)], device=frames.device), num_frames)
    weight = weight[0].to(frames.dtype).view(-1, *[1] * (frames.ndim - 1))
    return frames[before[0]] * (1 - weight) + frames[after[0]] * weight


def _resize_positions(lengths: torch.Tensor, num_frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Neighbours and weights of each output frame: three tensors ``(B, T)``, the weight that of the later one."""
    steps = torch.arange(num_frames, dtype=torch.float64, device=lengths.device) + 0.5
    position = (steps * (lengths.double() / num_frames)[:, None] - 0.5).clamp(min=0)
    before = position.floor().long()
    after = torch.minimum(before + 1, lengths[:, None] - 1)
    before = torch.minimum(before, lengths[:, None] - 1)
    return before, after, position - position.floor()


def _turned(clips: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Clips ``(B, T, M, V, C)``, each multiplied by its own matrix ``(B, C, C)``."""
    batch, channels = len(clips), clips.shape[-1]
    # Products with 3 x 3 matrices are slow: eight joints share one block-diagonal matrix.
    joints = gcd(clips[0].numel() // channels, 8)
    blocks = clips.new_zeros(batch, joints, channels, joints, channels)
    blocks.diagonal(dim1=1, dim2=3).copy_(change.transpose(1, 2)[..., None])
    size = joints * channels
    return torch.bmm(clips.reshape(batch, -1, size), blocks.view(batch, size, size)).view_as(clips)


def _centered(
    batch: RaggedFrames, filled: torch.Tensor | None, index: torch.Tensor, geometry: Geometry
) -> torch.Tensor:
    """A copy of the frames ``(..., M, V, C)`` of a batch at positions ``(...)``, filled and centred."""
    if filled is None:
        frames = batch.frames.index_select(0, index.flatten()).unflatten(0, index.shape)
    else:
        persons = batch.frames.shape[1]
        bodies = filled[index] * persons + torch.arange(persons, device=index.device)
        # Indexing with tensors would copy number by number.
        frames = batch.frames.flatten(0, 1).index_select(0, bodies.flatten()).unflatten(0, bodies.shape)
    return center_persons_(frames, geometry.center_joint)


def _body_change(batch: RaggedFrames, filled: torch.Tensor | None, geometry: Geometry) -> torch.Tensor | None:
    """Matrices ``(B, C, C)`` float64 that turn and scale each sequence's centred coordinates; None for no change."""
    change, x_axis, z_axis = None, geometry.x_axis, geometry.z_axis
    if geometry.upright and x_axis is not None:
        offset = torch.arange(FIRST_FRAMES, device=batch.lengths.device)
        first = batch.starts[:, None] + torch.minimum(offset, batch.lengths[:, None] - 1)
        change = upright_rotation(_centered(batch, filled, first, geometry)[:, :, 0], x_axis)
    elif x_axis is not None or z_axis is not None:
        change = body_rotation(_centered(batch, filled, batch.starts, geometry)[:, 0], x_axis, z_axis)
    if geometry.torso is None:
        return change
    scale = torso_scale(batch, geometry.torso, geometry.torso_length)[:, None, None]
    if change is None:
        size = batch.frames.shape[-1]
        change = torch.eye(size, dtype=torch.float64, device=scale.device).expand(len(scale), size, size)
    return change * scale
