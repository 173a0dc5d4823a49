"""Augmentation of batches of clips on their device, seeded by torch's generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..layouts import LayoutLike, get_layout
from ..normalization import center_persons_
from .pose_errors import PoseErrors, erring_body, torch_bits


def random_crop(clips: torch.Tensor, shortest: float) -> torch.Tensor:
    """Replace each clip by a random part of it, resized linearly to the same number of frames.

    Args:
        clips: ``(B, T, M, V, C)``.
        shortest: Smallest share of the frames kept, in (0, 1]; the share is uniform up to 1, the position uniform.
    """
    batch, frames = clips.shape[:2]
    share = shortest + (1 - shortest) * torch.rand(batch, 1, device=clips.device)
    start = (1 - share) * torch.rand(batch, 1, device=clips.device)
    steps = torch.linspace(0, 1, frames, device=clips.device)
    position = (start + share * steps) * (frames - 1)
    before = position.floor().long().clamp(max=max(frames - 2, 0))
    after = (before + 1).clamp(max=frames - 1)
    row = torch.arange(batch, device=clips.device)[:, None]
    weight = (position - before).to(clips.dtype)[..., None, None, None]
    return clips[row, before] * (1 - weight) + clips[row, after] * weight


def random_shear(clips: torch.Tensor, strength: float) -> torch.Tensor:
    """Multiply each clip by its own 3x3 matrix: the identity plus entries uniform in [-strength, strength].

    Args:
        clips: ``(B, T, M, V, 3)``.
        strength: 0 changes nothing; the diagonal stretches, the rest shears.
    """
    change = (2 * torch.rand(len(clips), 3, 3, device=clips.device, dtype=clips.dtype) - 1) * strength
    matrix = torch.eye(3, device=clips.device, dtype=clips.dtype) + change
    return torch.einsum("btmvc,bdc->btmvd", clips, matrix)


def random_missing_joints(clips: torch.Tensor, max_share: float) -> torch.Tensor:
    """Set joints of each clip to zero for its whole length; the share is uniform in [0, `max_share`] per clip."""
    batch, _, _, joints, _ = clips.shape
    share = max_share * torch.rand(batch, 1, 1, 1, 1, device=clips.device)
    return clips * (torch.rand(batch, 1, 1, joints, 1, device=clips.device) >= share)


def mirror_image(clips: torch.Tensor, mirrored: Sequence[int]) -> torch.Tensor:
    """Mirror clips: negate x, and exchange left and right joints.

    Args:
        clips: ``(B, T, M, V, C)``, bodies centred near x = 0.
        mirrored: The joint on the other side of each joint; see `Layout.mirrored`.
    """
    return clips[:, :, :, list(mirrored)] * clips.new_tensor([-1.0] + [1.0] * (clips.shape[-1] - 1))


def random_mirror(clips: torch.Tensor, mirrored: Sequence[int]) -> torch.Tensor:
    """Mirror a random half of the clips, see `mirror_image`."""
    chosen = torch.rand(len(clips), 1, 1, 1, 1, device=clips.device) < 0.5
    return torch.where(chosen, mirror_image(clips, mirrored), clips)


@dataclass(frozen=True)
class ClipAugmentation:
    """Random mirroring, pose errors, cropping, shearing and joint dropout for supervised training.

    Attributes:
        shortest_crop: See `random_crop`; 1 switches it off.
        shear: See `random_shear`; 0 switches it off. Clips that are not 3D are not sheared.
        missing_joints: See `random_missing_joints`; 0 switches it off.
        mirrored: See `random_mirror`; None switches it off. Not for classes that tell left from right.
        pose_errors: Errors of pose estimators, for models that are to read films; None leaves them out.
        layout: Layout of the clips, for `pose_errors`.
        center_joint: Joint of the first person that bodies are centred on again after pose errors; None leaves them.
        pace: Recorded frames from one frame of a clip to the next, over which pose errors last.
    """

    shortest_crop: float = 0.5
    shear: float = 0.3
    missing_joints: float = 0.3
    mirrored: tuple[int, ...] | None = None
    pose_errors: PoseErrors | None = None
    layout: LayoutLike = "ntu25"
    center_joint: int | None = None
    pace: float = 1.0

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Augment clips ``(B, T, M, V, C)``."""
        if self.mirrored is not None:
            clips = random_mirror(clips, self.mirrored)
        if self.pose_errors is not None:
            layout = get_layout(self.layout)
            bits = torch_bits(len(clips), clips.device)
            clips = self.pose_errors(clips, erring_body(layout, layout.is_3d), bits, self.pace)
            clips = center_persons_(clips, self.center_joint)
        if self.shortest_crop < 1:
            clips = random_crop(clips, self.shortest_crop)
        if self.shear and clips.shape[-1] == 3:
            clips = random_shear(clips, self.shear)
        return random_missing_joints(clips, self.missing_joints) if self.missing_joints else clips
