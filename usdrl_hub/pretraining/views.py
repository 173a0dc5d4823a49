"""The augmented views of multi-view consistency, whole batches at once on any device.

Every random number is a hash of (seed, step, clip, view, place), so views do not depend on the device, on how clips
are batched, nor on the number of processes or workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..normalization import RaggedFrames

_MASK = (1 << 63) - 1


def crop_resize(batch: RaggedFrames, start: torch.Tensor, length: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Cut sequences and resize the parts to one length, linearly, half-pixel centres, no antialiasing.

    Args:
        batch: Sequences.
        start: First frame of the part ``(n, B)``, counted within its sequence.
        length: Frames of the part ``(n, B)``.
        num_frames: Frames T of the result.

    Returns:
        ``(n, B, T, M, V, C)``.
    """
    steps = torch.arange(num_frames, dtype=torch.float64, device=length.device) + 0.5
    position = (steps * (length.double() / num_frames)[..., None] - 0.5).clamp(min=0)
    last = length[..., None] - 1
    before = torch.minimum(position.floor().long(), last)
    after = torch.minimum(before + 1, last)
    weight = (position - position.floor()).to(batch.frames.dtype)[..., None, None, None]
    first = (batch.starts + start)[..., None]
    return torch.lerp(batch.frames[first + before], batch.frames[first + after], weight)


def _hash(values: torch.Tensor) -> torch.Tensor:
    """Mix the bits of int64 values (the finaliser of splitmix64, which wraps around)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        # The shift is arithmetic: the sign must not be drawn in.
        values = (values ^ ((values >> shift) & (_MASK >> (shift - 1)))) * factor
    return values ^ ((values >> 31) & (_MASK >> 30))


def hashed_uniform(seed: int, step: int, clips: torch.Tensor, count: int) -> torch.Tensor:
    """Random numbers in [0, 1) that depend on the seed, the step and each clip's number only.

    Args:
        seed: Any whole number.
        step: Any whole number.
        clips: Number of each clip ``(B,)``, int64.
        count: How many numbers each clip gets.

    Returns:
        Float64 ``(B, count)``.
    """
    golden = -7046029254386353131
    place = torch.arange(1, count + 1, device=clips.device, dtype=torch.int64)
    key = torch.tensor([seed & _MASK, step & _MASK], device=clips.device, dtype=torch.int64)
    state = _hash(_hash(_hash(key[0] + golden) + key[1] + golden) + clips + golden)
    mixed = _hash(_hash(state[:, None] + place * golden))
    return ((mixed >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


@dataclass(frozen=True)
class ViewAugmentation:
    """How views of a sequence are drawn; the defaults are those of the TPAMI release.

    Each view is a random part in time, resized, with exactly one of two changes in space, the same for all frames and
    people: joint corruption (some joints are set to zero or multiplied by one random 3x3 matrix) or pose augmentation
    (all joints are multiplied by one shear matrix).

    Attributes:
        num_views: Views of each sequence.
        num_frames: Frames T of a view.
        crop_ratio: Smallest and largest share of the frames, in (0, 1]; uniform between.
        min_length: A part has at least this many frames, where the sequence has.
        corrupted_joints: Joints that joint corruption changes.
        corruptible_joints: They are drawn from the first that many; all where None. 17 in the TPAMI release, whatever
            the layout.
        corruption: Probability of joint corruption; otherwise pose augmentation.
        zeroed: Probability that corrupted joints are set to zero; otherwise they are multiplied.
        shear: Off-diagonal entries of the shear are uniform in [-shear, shear].

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

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        whole = ("num_views", "num_frames", "min_length", "corrupted_joints")
        if not all(isinstance(getattr(self, name), int) for name in whole):
            raise ValueError(f"{', '.join(whole)} must be whole numbers")
        if not isinstance(self.crop_ratio, list | tuple):
            raise ValueError(f"crop_ratio must be two shares in (0, 1], rising, got {self.crop_ratio}")
        if self.num_views < 2 or self.num_frames < 1 or self.min_length < 1:
            raise ValueError("num_views must be at least 2, num_frames and min_length at least 1")
        if len(self.crop_ratio) != 2 or not 0 < self.crop_ratio[0] <= self.crop_ratio[1] <= 1:
            raise ValueError(f"crop_ratio must be two shares in (0, 1], rising, got {self.crop_ratio}")
        for name in ("corruption", "zeroed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability, got {getattr(self, name)}")
        most = self.corruptible_joints
        if self.corrupted_joints < 0 or (most is not None and most < self.corrupted_joints):
            raise ValueError(f"{self.corrupted_joints} joints cannot be drawn from the first {most}")

    def draw(self, lengths: torch.Tensor, joints: int, clips: torch.Tensor, seed: int, step: int) -> dict:
        """Draw what happens to each view.

        Args:
            lengths: Frames of each sequence ``(B,)``.
            joints: Joints V.
            clips: Number of each sequence in its data set ``(B,)``.
            seed: The run's seed.
            step: The training step.

        Returns:
            `start` and `length` ``(n, B)`` in frames; `matrix` ``(n, B, V, 3, 3)``, by which each joint is multiplied.

        Raises:
            ValueError: If there are fewer joints than are to be corrupted.
        """
        most = min(self.corruptible_joints or joints, joints)
        if self.corrupted_joints > most:
            raise ValueError(
                f"{self.corrupted_joints} joints are to be corrupted, but only {most} can be drawn: lower "
                "corrupted_joints"
            )
        views, batch = self.num_views, len(lengths)
        drawn = hashed_uniform(seed, step, clips, views * (22 + most)).view(batch, views, -1).transpose(0, 1)
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
        return {"start": start, "length": length, "matrix": matrix}

    def __call__(self, batch: RaggedFrames, clips: torch.Tensor, seed: int = 0, step: int = 0) -> torch.Tensor:
        """Make the views of normalised sequences.

        Args:
            batch: The sequences; C is 3, or 2, of which only x and y are changed.
            clips: Number of each sequence in its data set ``(B,)``, int64.
            seed: The run's seed.
            step: The training step.

        Returns:
            ``(num_views, B, T, M, V, C)``.
        """
        joints, channels = batch.frames.shape[2:]
        drawn = self.draw(batch.lengths, joints, clips, seed, step)
        views = crop_resize(batch, drawn["start"], drawn["length"], self.num_frames)
        matrix = drawn["matrix"][:, :, None, None, :, :channels, :channels].to(views.dtype)
        # Products of three numbers: faster by hand than as millions of small matrix products.
        changed = views[..., :1] * matrix[..., 0]
        for channel in range(1, channels):
            changed.addcmul_(views[..., channel : channel + 1], matrix[..., channel])
        return changed
