"""The augmented views of multi-view consistency, whole batches at once on any device.

Every random number is a hash of seed, step, clip and index, so views do not depend on the device, on how clips are
batched, or on the number of processes and workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count as counted

import numpy as np
import torch

from ..data.pose_errors import PoseErrors, erring_body, limbs
from ..layouts import Layout, LayoutLike, get_layout, seen_joints, weights_through
from ..normalization import center_persons_
from ..ragged import RaggedFrames, nearest_joints
from .camera import DRAWS, RandomCamera, in_picture

_MASK = (1 << 63) - 1
# Seeds the stream of random numbers of the simulated sensor, apart from that of the release's changes.
_SENSOR = 0x5E2505
# The same for cameras and pose estimators, and the step between two streams of one of them.
_CAMERA, _ESTIMATOR, _NEXT = 0xCA3E2A, 0xE571A7, 0x1000003
# Layouts that `other_layout` draws from. Layouts added to the registry later are not among them, so that runs of a
# recipe stay the same.
OTHER_LAYOUTS = tuple(
    "ntu25 kinect20 coco17 coco17-release uav17 openpose18 openpose25 h36m17 mediapipe33 smpl22 smpl24 ui-prmd39 "
    "cmu31 hdm05 bandai21 sbu15 jhmdb15".split()
)


def crop_resize(
    batch: RaggedFrames,
    start: torch.Tensor,
    length: torch.Tensor,
    num_frames: int,
    stride: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crop sequences and resize the crops to one length: linear, half-pixel centres, no antialiasing.

    Args:
        batch: Sequences.
        start: First frame of the crop ``(n, B)``, counted within its sequence.
        length: Frames of the crop ``(n, B)``.
        num_frames: Frames T of the result.
        stride: Every `stride`-th frame of the crop is used ``(n, B)``, as by a slower sensor; all where None.

    Returns:
        ``(n, B, T, M, V, C)``.
    """
    steps = torch.arange(num_frames, dtype=torch.float64, device=length.device) + 0.5
    position = (steps * (length.double() / num_frames)[..., None] - 0.5).clamp(min=0)
    last = length[..., None] - 1
    every = torch.ones_like(last) if stride is None else stride[..., None]
    position = torch.minimum(position, last.double()) / every
    before = position.floor().long() * every
    after = torch.minimum(before + every, last)
    weight = (position - position.floor()).to(batch.frames.dtype)
    first = (batch.starts + start)[..., None]
    # A weighted sum of two frames each, of which neither is copied: new memory takes longer than the arithmetic.
    views = torch.nn.functional.embedding_bag(
        torch.stack([first + before, first + after], -1).view(-1, 2),
        batch.frames.flatten(1),
        per_sample_weights=torch.stack([1 - weight, weight], -1).view(-1, 2),
        mode="sum",
    )
    return views.view(*before.shape, *batch.frames.shape[1:])


def _hash(values: torch.Tensor) -> torch.Tensor:
    """Mix the bits of int64 values (the finaliser of splitmix64, which wraps around)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        # The shift is arithmetic: the mask takes the sign bits away.
        values = (values ^ ((values >> shift) & (_MASK >> (shift - 1)))) * factor
    return values ^ ((values >> 31) & (_MASK >> 30))


def hashed_uniform(seed: int, step: int, clips: torch.Tensor, count: int) -> torch.Tensor:
    """Random numbers in [0, 1) of `hashed_bits`, float64 ``(B, count)``."""
    return ((hashed_bits(seed, step, clips, count) >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


def hashed_bits(seed: int, step: int, clips: torch.Tensor, count: int) -> torch.Tensor:
    """Random whole numbers that depend on the seed, the step and each clip's number only.

    Args:
        seed: Any whole number.
        step: Any whole number.
        clips: Number of each clip ``(B,)``, int64.
        count: Numbers for each clip.

    Returns:
        Int64 ``(B, count)``.
    """
    golden = -7046029254386353131
    index = torch.arange(1, count + 1, device=clips.device, dtype=torch.int64)
    key = torch.tensor([seed & _MASK, step & _MASK], device=clips.device, dtype=torch.int64)
    state = _hash(_hash(_hash(key[0] + golden) + key[1] + golden) + clips + golden)
    return _hash(_hash(state[:, None] + index * golden))


class _Body:
    """Distances, mirror images, limbs and conversions of a layout's joints, as tensors."""

    def __init__(self, layout: Layout, others: Sequence[LayoutLike] = OTHER_LAYOUTS):
        self.center = layout.center
        self.distances = torch.from_numpy(layout.distances)
        self.mirrored = torch.eye(layout.num_joints)[list(layout.mirrored)]
        self.parts = torch.from_numpy(limbs(layout))
        # The identity where it converts to no other layout.
        known = [other for other in map(get_layout, others) if other.name != layout.name]
        through = [weights for other in known if (weights := weights_through(layout, other, layout)) is not None]
        self.others = torch.from_numpy(np.stack(through or [np.eye(layout.num_joints, dtype=np.float32)]))


@dataclass(frozen=True)
class ViewAugmentation:
    """How views of a sequence are drawn; the defaults are those of the TPAMI release.

    Each view is a random crop in time, resized, with one of two changes in space, the same for all frames and people:
    joint corruption (some joints are set to zero or multiplied by one random 3x3 matrix) or pose augmentation (all
    joints are multiplied by one shear matrix).

    Attributes:
        num_views: Views of each sequence.
        num_frames: Frames T of a view.
        crop_ratio: Smallest and largest share of the frames, in (0, 1]; uniform between.
        min_length: A crop has at least this many frames, where the sequence has.
        corrupted_joints: Joints that joint corruption changes.
        corruptible_joints: They are drawn from the first so many joints; all where None. 17 in the TPAMI release for
            every layout.
        corruption: Probability of joint corruption; otherwise pose augmentation.
        zeroed: Probability that corrupted joints are set to zero; otherwise they are multiplied.
        shear: Off-diagonal entries of the shear are uniform in [-shear, shear].

    The release does no more. The following changes simulate sensors and are made before those above. They need
    `layout`, and an extractor that fills joints in the same way (`fill_joints`) and centres bodies on the layout's
    centre.

    Attributes:
        layout: The model's layout.
        joint_dropout: Probability that joints are missing in a whole view: a share of up to `max_joint_dropout` of
            them, filled from the nearest joints, see `ragged.nearest_joints`.
        max_joint_dropout: Largest share of missing joints, in (0, 1).
        limb_dropout: Probability that a part of the body is missing instead: all joints beyond one bone.
        other_layout: Probability that the body is instead converted to another layout and back.
        other_layouts: The layouts that it is drawn from; those that the model's does not convert to are left out.
        max_stride: Every k-th frame is used, k uniform from 1 to this number.
        noise: Largest standard deviation of noise, in normalised units, drawn for each view.
        mirror: Probability that a sequence is mirrored, in all its views.
        max_yaw: Largest rotation about the vertical, in degrees.
        scale_jitter: Largest change of size, as a share.

    Then the motion can be seen by cameras and pose estimators.

    Attributes:
        camera: Random cameras that turn 3D motion into 2D keypoints for a 2D model. `layout` is then that of the 3D
            motion, and `keypoint_layout` the model's.
        keypoint_layout: Layout of the keypoints that cameras see.
        num_channels: Coordinates of those keypoints: 2, or 3 with the score.
        body_size: Bodies in the picture are placed and scaled to this, see `normalization.place_flat_body`; None gives
            shares of the picture.
        pose_errors: What pose estimators do to bodies: see `PoseErrors`.

    Raises:
        ValueError: If a value is outside its range.
    """

    num_views: int = 4
    num_frames: int = 64
    crop_ratio: Sequence[float] = (0.1, 1.0)
    min_length: int = 64
    corrupted_joints: int = 15
    corruptible_joints: int | None = 17
    corruption: float = 0.5
    zeroed: float = 0.5
    shear: float = 1.0
    layout: LayoutLike | None = None
    joint_dropout: float = 0.0
    max_joint_dropout: float = 0.5
    limb_dropout: float = 0.0
    other_layout: float = 0.0
    other_layouts: Sequence[LayoutLike] = OTHER_LAYOUTS
    max_stride: int = 1
    noise: float = 0.0
    mirror: float = 0.0
    max_yaw: float = 0.0
    scale_jitter: float = 0.0
    camera: RandomCamera | None = None
    keypoint_layout: LayoutLike | None = None
    num_channels: int = 3
    body_size: float | None = None
    pose_errors: PoseErrors | None = None
    _body: _Body | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse values outside their ranges, and prepare the layout."""
        whole = ("num_views", "num_frames", "min_length", "corrupted_joints")
        if not all(isinstance(getattr(self, name), int) for name in whole):
            raise ValueError(f"{', '.join(whole)} must be whole numbers")
        if not isinstance(self.crop_ratio, list | tuple):
            raise ValueError(f"crop_ratio must be two shares in (0, 1], rising, got {self.crop_ratio}")
        if self.num_views < 2 or self.num_frames < 1 or self.min_length < 1:
            raise ValueError("num_views must be at least 2, num_frames and min_length at least 1")
        if len(self.crop_ratio) != 2 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1] <= 1:
            raise ValueError(f"crop_ratio must be two shares in (0, 1], rising, got {self.crop_ratio}")
        for name in ("corruption", "zeroed", "joint_dropout", "limb_dropout", "other_layout", "mirror"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability, got {getattr(self, name)}")
        if self.joint_dropout + self.limb_dropout + self.other_layout > 1:
            raise ValueError("joint_dropout, limb_dropout and other_layout exclude each other: their sum is at most 1")
        if not (0 < self.max_joint_dropout < 1 and 0 <= self.scale_jitter < 1):
            raise ValueError("max_joint_dropout must be a share in (0, 1), and scale_jitter one in [0, 1)")
        if not (0 <= self.noise and 0 <= self.max_yaw <= 180):
            raise ValueError("noise must be at least 0, and max_yaw in [0, 180] degrees")
        if not isinstance(self.max_stride, int) or self.max_stride < 1:
            raise ValueError(f"max_stride must be a whole number of at least 1, got {self.max_stride!r}")
        if self.camera is not None and self.keypoint_layout is None:
            raise ValueError("a camera needs keypoint_layout, the layout of the keypoints that it sees")
        if self._of_joints or self.pose_errors is not None:
            if self.layout is None:
                raise ValueError("joint and limb dropout, other layouts, mirror and pose_errors need the layout")
            object.__setattr__(self, "_body", _Body(get_layout(self.layout), self.other_layouts))
        candidates = self.corruptible_joints
        if self.corrupted_joints < 0 or (candidates is not None and candidates < self.corrupted_joints):
            raise ValueError(f"{self.corrupted_joints} joints cannot be drawn from the first {candidates}")

    @property
    def _of_joints(self) -> bool:
        """Whether joints are computed from other joints."""
        return self.joint_dropout + self.limb_dropout + self.other_layout + self.mirror > 0

    def _drawn_matrices(self, drawn: torch.Tensor, mirror: torch.Tensor) -> torch.Tensor:
        """Rotation, size and mirroring of each view, before the release's changes ``(n, B, 3, 3)``."""
        angle = (2 * drawn[..., 5] - 1) * math.radians(self.max_yaw)
        size = 1 + (2 * drawn[..., 6] - 1) * self.scale_jitter
        cosine, sine, zero = angle.cos() * size, angle.sin() * size, torch.zeros_like(angle)
        matrix = torch.stack([cosine, zero, sine, zero, size, zero, -sine, zero, cosine], dim=-1).unflatten(-1, (3, 3))
        side = torch.where(mirror, -1.0, 1.0).to(matrix.dtype)
        return matrix * torch.stack([side, torch.ones_like(side), torch.ones_like(side)], dim=-1)[:, None, :]

    def _drawn_joints(self, drawn: torch.Tensor, mirror: torch.Tensor, body: _Body) -> torch.Tensor:
        """Weights of the joints from which each view computes its joints ``(n, B, V, V)``."""
        kind, share = drawn[..., 0, None], drawn[..., 1, None] * self.max_joint_dropout
        distances, parts, others = (t.to(drawn.device) for t in (body.distances, body.parts, body.others))
        part = parts[(drawn[..., 2] * len(parts)).long()]
        lost = torch.where(kind < self.joint_dropout, drawn[..., 8:] < share, part)
        # At least one joint is kept.
        lost &= (kind < self.joint_dropout + self.limb_dropout) & ~lost.all(-1, keepdim=True)
        weights = nearest_joints(distances, ~lost)
        start = self.joint_dropout + self.limb_dropout
        converted = (kind >= start) & (kind < start + self.other_layout)
        other = others[(drawn[..., 2] * len(others)).long()]
        weights = torch.where(converted[..., None], other, weights)
        return torch.where(mirror[:, None, None], body.mirrored.to(drawn.device) @ weights, weights)

    def _sensed(self, views: torch.Tensor, drawn: dict, clips: torch.Tensor, seed: int, step: int) -> torch.Tensor:
        """Add noise to the people seen, replace missing joints, and centre the result."""
        if self.noise:
            number = views[:, 0].numel()
            # Uniform with a standard deviation of 1: as good as normal, and simple to compute from the hash.
            noise = (2 * hashed_uniform(seed ^ ~_SENSOR, step, clips, number).to(views.dtype) - 1) * math.sqrt(3)
            noise = noise.view(-1, *views[:, 0].shape).transpose(0, 1)
            spread = drawn["spread"].to(views.dtype)[..., None, None, None, None]
            views = views + seen_joints(views)[..., None] * spread * noise
        if "joints" not in drawn:
            return views
        views = torch.einsum("nbwv,nbtmvc->nbtmwc", drawn["joints"].to(views.dtype), views)
        center = self._body.center if self._body is not None else None
        if center is None:
            return views
        return torch.where(seen_joints(views)[..., None], views - views[..., :1, center : center + 1, :], 0)

    def whole(self) -> ViewAugmentation:
        """Views of whole sequences that change nothing; for a model of 2D keypoints, as cameras see them."""
        return replace(
            self,
            num_views=2,
            crop_ratio=(1.0, 1.0),
            corruption=0.0,
            shear=0.0,
            joint_dropout=0.0,
            limb_dropout=0.0,
            other_layout=0.0,
            max_stride=1,
            noise=0.0,
            mirror=0.0,
            max_yaw=0.0,
            scale_jitter=0.0,
            pose_errors=self.pose_errors if self.camera is not None else None,
        )

    def draw(self, lengths: torch.Tensor, joints: int, clips: torch.Tensor, seed: int, step: int) -> dict:
        """Draw the changes of each view.

        Args:
            lengths: Frames of each sequence ``(B,)``.
            joints: Joints V.
            clips: Number of each sequence in its data set ``(B,)``.
            seed: The run's seed.
            step: The training step.

        Returns:
            `start` and `length` ``(n, B)`` in frames; `matrix` ``(n, B, V, 3, 3)``, by which each joint is multiplied.

        Raises:
            ValueError: If there are fewer joints than `corrupted_joints`.
        """
        count = 8 + joints
        if self.camera is not None:
            joints = get_layout(self.keypoint_layout or self.camera.layout).num_joints
        candidates = min(self.corruptible_joints or joints, joints)
        if self.corrupted_joints > candidates:
            raise ValueError(
                f"{self.corrupted_joints} joints are to be corrupted, but only {candidates} can be drawn: lower "
                "corrupted_joints"
            )
        views, batch = self.num_views, len(lengths)
        drawn = hashed_uniform(seed, step, clips, views * (22 + candidates)).view(batch, views, -1).transpose(0, 1)
        low, high = self.crop_ratio
        scale = low + (high - low) * drawn[..., 0]
        length = torch.minimum((lengths * scale).floor().long().clamp(min=self.min_length), lengths)
        start = ((lengths - length + 1) * drawn[..., 1]).long()
        corrupt = (drawn[..., 2] < self.corruption)[..., None]
        zero = (drawn[..., 3] < self.zeroed)[..., None, None]
        eye = torch.eye(3, dtype=torch.float64, device=lengths.device)
        shear = torch.where(eye == 1, eye, (2 * drawn[..., 4:13].unflatten(-1, (3, 3)) - 1) * self.shear)
        broken = torch.where(zero, torch.zeros_like(eye), 2 * drawn[..., 13:22].unflatten(-1, (3, 3)) - 1)
        chosen = drawn.new_zeros(views, batch, joints, dtype=torch.bool)
        picked = drawn[..., 22:].argsort(dim=-1, stable=True)[..., : self.corrupted_joints]
        chosen.scatter_(-1, picked, True)
        corrupted = torch.where(chosen[..., None, None], broken[..., None, :, :], eye)
        matrix = torch.where(corrupt[..., None, None], corrupted, shear[..., None, :, :])
        result = {"start": start, "length": length, "matrix": matrix}
        if self._of_joints or self.max_stride > 1 or self.noise or self.max_yaw or self.scale_jitter:
            drawn = hashed_uniform(seed ^ _SENSOR, step, clips, 1 + views * count)
            mirror, drawn = drawn[:, 0] < self.mirror, drawn[:, 1:].unflatten(-1, (views, count)).transpose(0, 1)
            change = self._drawn_matrices(drawn, mirror)
            if self.camera is None:
                result["matrix"] = matrix @ change[..., None, :, :]
            else:
                result["change"] = change
            result["stride"] = 1 + (drawn[..., 3] * self.max_stride).long()
            result["spread"] = drawn[..., 4] * self.noise
            if self._of_joints and self._body is not None:
                result["joints"] = self._drawn_joints(drawn, mirror, self._body)
        return result

    def __call__(self, batch: RaggedFrames, clips: torch.Tensor, seed: int = 0, step: int = 0) -> torch.Tensor:
        """Make the views of normalised sequences.

        Args:
            batch: The sequences; C is 3, or 2.
            clips: Number of each sequence in its data set ``(B,)``, int64.
            seed: The run's seed.
            step: The training step.

        Returns:
            ``(num_views, B, T, M, V, C)``.
        """
        joints, channels = batch.frames.shape[2:]
        drawn = self.draw(batch.lengths, joints, clips, seed, step)
        views = crop_resize(batch, drawn["start"], drawn["length"], self.num_frames, drawn.get("stride"))
        if "spread" in drawn:
            views = self._sensed(views, drawn, clips, seed, step)
        if self.camera is not None or self.pose_errors is not None:
            views = self._observed(views, drawn, clips, seed, step)
            joints, channels = views.shape[-2:]
        if self.camera is not None:
            return _changed_in_picture(views, drawn["matrix"], 0.5 if self.body_size is None else 0.0)
        matrix = drawn["matrix"][:, :, None, None, :, :channels, :channels].to(views.dtype)
        # Faster than millions of 3x3 matrix products.
        changed = views[..., :1] * matrix[..., 0]
        for channel in range(1, channels):
            changed.addcmul_(views[..., channel : channel + 1], matrix[..., channel])
        return changed

    def _observed(self, views: torch.Tensor, drawn: dict, clips: torch.Tensor, seed: int, step: int) -> torch.Tensor:
        """Views as cameras and pose estimators see them."""
        number, batch = views.shape[:2]

        def bits(salt: int) -> Callable[[int], torch.Tensor]:
            calls = counted()

            def draw(count: int) -> torch.Tensor:
                stream = seed ^ (salt + next(calls) * _NEXT)
                rows = hashed_bits(stream, step, clips, number * count).view(batch, number, count)
                return rows.transpose(0, 1).flatten(0, 1)

            return draw

        flat, camera, errors = views.flatten(0, 1), self.camera, self.pose_errors
        aspect, fill = None, False
        if camera is not None:
            if "change" in drawn:
                flat = torch.einsum("ntmvc,ndc->ntmvd", flat, drawn["change"].flatten(0, 1).to(flat.dtype))
            random = ((bits(_CAMERA)(DRAWS) >> 11) & ((1 << 53) - 1)).double() / (1 << 53)
            flat, aspect = camera.project(flat, self.keypoint_layout or camera.layout, random)
        layout = get_layout(self.layout if aspect is None else self.keypoint_layout)  # type: ignore[arg-type]
        if errors is not None:
            # In the picture, joints are filled below, with those outside it.
            fill, errors = errors.fill, errors if aspect is None else replace(errors, fill=False)
            pace = (drawn["length"].double() / self.num_frames).flatten()
            body = erring_body(layout, aspect is None and layout.is_3d)
            flat = errors(flat, body, bits(_ESTIMATOR), pace)
        if aspect is not None:
            distances = torch.from_numpy(layout.distances) if fill else None
            flat = in_picture(flat, aspect, self.num_channels, distances, self.body_size)
        elif layout.is_3d:
            flat = center_persons_(flat, layout.center)
        return flat.unflatten(0, (number, batch))


def _changed_in_picture(views: torch.Tensor, matrix: torch.Tensor, middle: float) -> torch.Tensor:
    """Views ``(n, B, T, M, V, C)`` with joint corruption or shear about the middle of the picture or body.

    Scores stay, but for joints that are set to zero.
    """
    matrix = matrix[:, :, None, None].to(views.dtype)
    kept = (matrix != 0).any(-1).any(-1)
    flat = torch.einsum("...dc,...c->...d", matrix[..., :2, :2], views[..., :2] - middle) + middle
    changed = torch.cat([flat, views[..., 2:]], -1)
    return torch.where((kept & seen_joints(views))[..., None], changed, 0)
