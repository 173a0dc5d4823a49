"""Normalisation of skeleton sequences and the clips a model reads, for ragged batches on any device.

The frames of all sequences lie end to end in one tensor ``(F, M, V, C)`` beside their lengths ``(B,)``; nothing loops
over frames or joints. The rules are those of the data generation scripts of the authors' release (pre_normalization);
``tests/goldens/normalize_*.npz`` and ``feeder_*.npz`` hold what it computes. "Empty" means, there as here, that the
coordinates of a person in a frame sum to zero. This file also ships as remote code, so it imports nothing of the
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch

# Below this, a body vector has no direction and a rotation no axis; the release uses the same number.
_NO_DIRECTION = 1e-6
# Coordinates from here on cost digits, if a body is interpolated before it is centred.
_FAR = 8.0
# Frames that say which way a body stands: one frame of a depth sensor is noisy.
FIRST_FRAMES = 8


@dataclass(frozen=True)
class RaggedFrames:
    """Sequences of different length, end to end.

    Attributes:
        frames: Keypoints ``(F, M, V, C)``, F the sum of all lengths.
        lengths: Frames of each sequence ``(B,)``, int64, each at least 1.
    """

    frames: torch.Tensor
    lengths: torch.Tensor

    @property
    def starts(self) -> torch.Tensor:
        """First frame of each sequence ``(B,)``."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def sequence_of_frame(self) -> torch.Tensor:
        """Number of the sequence that each frame belongs to ``(F,)``."""
        batch = torch.arange(len(self.lengths), device=self.lengths.device)
        return torch.repeat_interleave(batch, self.lengths, output_size=len(self.frames))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum per-frame values ``(F, ...)`` over each sequence: ``(B, ...)``."""
        total = torch.zeros((len(self.lengths), *values.shape[1:]), dtype=values.dtype, device=values.device)
        return total.index_add_(0, self.sequence_of_frame, values)

    @property
    def seen(self) -> torch.Tensor:
        """Whether a person is not empty in a frame ``(F, M)``."""
        return self.frames.flatten(2).sum(-1) != 0


def person_energy(batch: RaggedFrames) -> torch.Tensor:
    """Motion of each person, by which the release chooses whom to keep.

    Returns:
        Float64 tensor ``(B, M)``: the population standard deviations of the coordinates over all joints of all
        non-empty frames, added up; 0 for a person who is never seen.
    """
    num_joints = batch.frames.shape[2]
    seen = batch.seen.double()
    count = (batch.sum(seen) * num_joints).clamp(min=1)[..., None]
    frames = batch.frames.double()
    mean = batch.sum(frames.sum(2) * seen[..., None]) / count
    deviation = frames - mean[batch.sequence_of_frame][:, :, None]
    variance = batch.sum(deviation.square().sum(2) * seen[..., None]) / count
    return variance.sqrt().sum(-1)


def select_persons(batch: RaggedFrames, num_persons: int) -> RaggedFrames:
    """Keep `num_persons` people of each sequence.

    Where more are seen, the ones with the largest energy, most energetic first; where as many or fewer are, all of
    them in the order given, and empty people after them.
    """
    num_frames, present, num_joints, num_channels = batch.frames.shape
    frames = batch.frames
    if present > 1:
        ever = batch.sum(batch.seen.long()) > 0
        crowded = ever.sum(1, keepdim=True) > num_persons
        rank = torch.where(crowded, person_energy(batch), ever.double()) if crowded.any() else ever.double()
        order = rank.argsort(dim=1, descending=True, stable=True)[:, :num_persons]
        index = order[batch.sequence_of_frame][..., None, None].expand(-1, -1, num_joints, num_channels)
        frames = frames.gather(1, index)
    if present < num_persons:
        padding = frames.new_zeros(num_frames, num_persons - present, num_joints, num_channels)
        frames = torch.cat([frames, padding], dim=1)
    return RaggedFrames(frames, batch.lengths)


def truncate(batch: RaggedFrames, max_frames: int) -> RaggedFrames:
    """Keep the first `max_frames` frames of each sequence."""
    if int(batch.lengths.max()) <= max_frames:
        return batch
    position = torch.arange(len(batch.frames), device=batch.lengths.device) - batch.starts[batch.sequence_of_frame]
    return RaggedFrames(batch.frames[position < max_frames], batch.lengths.clamp(max=max_frames))


def nearest_joints(distances: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Weights that put a joint that is not seen where the nearest seen joints of the body are.

    Args:
        distances: Bones between any two joints ``(V, V)``; see `layouts.Layout.distances`.
        seen: Whether a joint is seen ``(..., V)``.

    Returns:
        Float32 ``(..., V, V)``: rows of seen joints are the identity's, the others sum to 1, or to 0 where no joint is
        seen. Each bone more weighs a thousandth, so that the nearest decide.
    """
    away = torch.where(seen[..., None, :], distances.float(), torch.inf)
    # From the nearest on: a thousandth for each of many bones would vanish.
    further = away - away.amin(-1, keepdim=True).clamp(max=torch.finfo(torch.float32).max)
    weights = torch.exp2(-10.0 * further)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(seen[..., :, None], torch.eye(len(distances), device=seen.device), weights)


def fill_joints(frames: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Put joints that were not seen (all zero) where the nearest seen joints of the same person and frame are.

    Args:
        frames: ``(..., V, C)``.
        distances: See `nearest_joints`.

    Returns:
        Frames of the same shape; people of whom nothing is seen stay zero.
    """
    seen = (frames != 0).any(-1)
    partly = seen.any(-1) & ~seen.all(-1)
    if not partly.any():
        return frames
    filled = frames.clone()
    filled[partly] = nearest_joints(distances, seen[partly]).to(frames.dtype) @ frames[partly]
    return filled


def filled_frame_index(batch: RaggedFrames) -> torch.Tensor | None:
    """Frame that stands at each place after empty frames are filled, per person.

    A person whose first frame is empty has the non-empty frames moved to the front; then an empty tail repeats what
    stands before it from the beginning; gaps inside stay. A person who is never seen keeps the places as they are.

    Returns:
        Int64 tensor ``(F, M)`` of frame numbers into `batch.frames`; None where all stay where they are.
    """
    seen = batch.seen
    count = batch.sum(seen.long())
    if ((count == 0) | (count == batch.lengths[:, None])).all():
        return None
    sequence, start = batch.sequence_of_frame, batch.starts
    num_frames, num_persons = batch.frames.shape[:2]
    position = (torch.arange(num_frames, device=sequence.device) - start[sequence])[:, None]
    last = torch.full_like(count, -1).scatter_reduce_(
        0, sequence[:, None].expand_as(seen), torch.where(seen, position, -1), "amax"
    )
    starts_empty = ~seen[start] & (count > 0)
    # How many places hold frames before the tail begins.
    kept = torch.where(starts_empty, count, last + 1).clamp(min=1)
    place = position % kept[sequence]
    # Where the k-th non-empty frame of a person stands.
    seen_before = seen.long().cumsum(0) - seen.long()
    rank = seen_before - seen_before[start][sequence]
    slot = torch.where(seen, start[sequence][:, None] + rank, num_frames)
    compact = position.new_zeros(num_frames + 1, num_persons)
    compact.scatter_(0, slot, position.expand(-1, num_persons).contiguous())
    first = start[sequence][:, None]
    moved = compact.gather(0, first + place)
    place = torch.where(starts_empty[sequence], moved, place)
    return torch.where(count[sequence] > 0, first + place, first + position)


def center_persons(keypoints: torch.Tensor, center_joint: int) -> torch.Tensor:
    """Move person 0's centre joint of each frame to the origin.

    Joints whose coordinates sum to zero count as missing and become zero.

    Args:
        keypoints: ``(..., M, V, C)``.
        center_joint: Joint of person 0 that becomes the origin.
    """
    return (keypoints - keypoints[..., :1, center_joint : center_joint + 1, :]) * _not_missing(keypoints)[..., None]


def _not_missing(keypoints: torch.Tensor) -> torch.Tensor:
    """Whether the coordinates of a joint do not sum to zero ``(...)``."""
    # Sums over a short last axis are slow: one addition a coordinate is not.
    total = keypoints[..., 0]
    for channel in range(1, keypoints.shape[-1]):
        total = total + keypoints[..., channel]
    return total != 0


def _wholly_there(batch: RaggedFrames) -> torch.Tensor | None:
    """Whether a person is there ``(B, M)``, if each is with all joints in all frames or never; None otherwise."""
    there = _not_missing(batch.frames)
    if there.all():
        return there.new_ones(len(batch.lengths), there.shape[1])
    ever = batch.sum(there.any(-1).long()) > 0
    return ever if (there == ever[batch.sequence_of_frame][..., None]).all() else None


def rotation_onto(vector: torch.Tensor, target: tuple[float, float, float]) -> torch.Tensor:
    """Rotations that turn vectors onto an axis about the normal of both.

    Args:
        vector: ``(B, 3)``.
        target: A unit vector.

    Returns:
        Float64 matrices ``(B, 3, 3)`` R with ``R v`` along `target`; the identity where the vector, the normal or the
        angle vanishes, so a vector exactly opposite to the target stays as it is.
    """
    vector = vector.double()
    onto = vector.new_tensor(target).expand_as(vector)
    normal = torch.linalg.cross(vector, onto)
    length = torch.linalg.vector_norm(vector, dim=-1)
    angle = torch.arccos(((vector * onto).sum(-1) / length.clamp(min=1e-300)).clamp(-1, 1))
    fixed = (vector.abs().sum(-1) < _NO_DIRECTION) | (normal.abs().sum(-1) < _NO_DIRECTION) | (angle < _NO_DIRECTION)
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
    """Rotation of a body whose vectors go onto +z, then +x.

    Args:
        first_frame: Person 0 in frame 0, filled and centred, ``(B, V, 3)``.
        x_axis: ``(start, end)`` joints of the vector that goes onto +x, or None.
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
    """Rotation of a body about the vertical that brings a body vector above the x axis.

    Args:
        first_frames: Person 0 in the first frames, ``(B, K, V, 3)``, y up.
        x_axis: ``(start, end)`` joints of the vector; its mean over the frames counts.

    Returns:
        Float64 matrices ``(B, 3, 3)``; the identity where the vector is vertical or zero.
    """
    vector = (first_frames[:, :, x_axis[1]] - first_frames[:, :, x_axis[0]]).double().mean(dim=1)
    length = torch.linalg.vector_norm(vector[:, [0, 2]], dim=-1)
    fixed = length < _NO_DIRECTION
    cosine = torch.where(fixed, 1, vector[:, 0] / length.clamp(min=_NO_DIRECTION))
    sine = torch.where(fixed, 0, vector[:, 2] / length.clamp(min=_NO_DIRECTION))
    zero, one = torch.zeros_like(sine), torch.ones_like(sine)
    return torch.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], dim=-1).view(-1, 3, 3)


def torso_scale(batch: RaggedFrames, torso: Sequence[int], length: float) -> torch.Tensor:
    """Factor that brings person 0's mean distance between two joints to `length`, ``(B,)`` float64; 1 where unseen."""
    ends = batch.frames[:, 0, list(torso)].double()
    distance = torch.linalg.vector_norm(ends[:, 1] - ends[:, 0], dim=-1)
    seen = (ends != 0).any(-1).all(-1).double()
    mean = batch.sum(distance * seen) / batch.sum(seen).clamp(min=1)
    return torch.where(mean < _NO_DIRECTION, 1, length / mean.clamp(min=_NO_DIRECTION))


def normalize_sequences(
    batch: RaggedFrames,
    center_joint: int | None = None,
    x_axis: Sequence[int] | None = None,
    z_axis: Sequence[int] | None = None,
    fill: bool = True,
    upright: bool = False,
    torso: Sequence[int] | None = None,
    torso_length: float = 0.5,
) -> RaggedFrames:
    """Fill empty frames, centre on person 0, and turn and scale the body, over whole sequences.

    Args:
        batch: Sequences with C = 3 if anything is to be turned.
        center_joint: See `center_persons`; None leaves the origin.
        x_axis: See `body_rotation`.
        z_axis: See `body_rotation`.
        fill: Whether empty frames are filled (see `filled_frame_index`).
        upright: Turn about the vertical only, see `upright_rotation`, over the first frames; `z_axis` is not used.
        torso: ``(start, end)`` joints whose mean distance is brought to `torso_length`; None leaves the size.
        torso_length: See `torso`, in the unit of the result.

    Returns:
        The normalised sequences, as long as they were.
    """
    index = torch.arange(len(batch.frames), device=batch.lengths.device)[:, None]
    filled = filled_frame_index(batch) if fill else None
    turn = _Turn(center_joint, x_axis, z_axis, upright, torso, torso_length)
    frames, change = _centered(batch, filled, index, turn)[:, 0], _body_change(batch, filled, turn)
    if change is not None:
        frames = torch.einsum("nmvc,ndc->nmvd", frames, change.to(frames.dtype)[batch.sequence_of_frame])
    return RaggedFrames(frames, batch.lengths)


def clip_batch(
    batch: RaggedFrames,
    num_frames: int,
    center_joint: int | None = None,
    x_axis: Sequence[int] | None = None,
    z_axis: Sequence[int] | None = None,
    crop_ratio: float = 1.0,
    fill: bool = True,
    upright: bool = False,
    torso: Sequence[int] | None = None,
    torso_length: float = 0.5,
) -> torch.Tensor:
    """Normalise sequences and resize the middle of each to one length.

    Equal to `normalize_sequences` followed by linear interpolation with half-pixel centres and no antialiasing, but
    only the frames that the result needs are centred and turned.

    Args:
        batch: Sequences.
        num_frames: Frames T of a clip.
        center_joint: See `normalize_sequences`.
        x_axis: See `normalize_sequences`.
        z_axis: See `normalize_sequences`.
        crop_ratio: Share of the frames to use, in (0, 1]: frames ``[b, n - b)``, ``b = int((1 - ratio) n / 2)``.
        fill: Whether empty frames are filled (see `filled_frame_index`).
        upright: See `normalize_sequences`.
        torso: See `normalize_sequences`.
        torso_length: See `normalize_sequences`.

    Returns:
        Clips ``(B, T, M, V, C)``.
    """
    lengths = batch.lengths
    border = ((1 - crop_ratio) * lengths.double() / 2).long()
    before, after, weight = _resize_positions(lengths - 2 * border, num_frames)
    first = (batch.starts + border)[:, None]
    filled = filled_frame_index(batch) if fill else None
    turn = _Turn(center_joint, x_axis, z_axis, upright, torso, torso_length)
    change = _body_change(batch, filled, turn)
    weight = weight.to(batch.frames.dtype)[:, :, None, None, None]
    frames, later = (_gathered(batch, filled, first + place) for place in (before, after))
    if center_joint is None:
        clips = frames.lerp_(later, weight)
        return clips if change is None else _turned(clips, change)
    there = _wholly_there(batch)
    masks = [] if there is not None else [_not_missing(values)[..., None] for values in (frames, later)]
    start = frames[:, :1, :1, center_joint : center_joint + 1, :].clone()
    far = (start.abs() > _FAR).any(-1, keepdim=True)
    if far.any():
        # Far from the origin, interpolation would lose the digits that the centred body needs.
        frames, later = frames - start * far, later - start * far
    if there is None:
        # Interpolated where the centre goes, and not where it is: so the digits are those of the short way.
        origins = [
            values[..., :1, center_joint : center_joint + 1, :] * mask
            for values, mask in zip((frames, later), masks, strict=True)
        ]
        clips = (frames * masks[0]).lerp_(later * masks[1], weight) - origins[0].lerp_(origins[1], weight)
    else:
        # Where nothing is missing, the interpolated centre is the centre of what was interpolated.
        clips = frames.lerp_(later, weight)
        clips -= clips[..., :1, center_joint : center_joint + 1, :].clone()
        if not there.all():
            clips *= there[:, None, :, None, None]
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


@dataclass(frozen=True)
class _Turn:
    """How a body is centred, turned and scaled; see `normalize_sequences`."""

    center_joint: int | None
    x_axis: Sequence[int] | None
    z_axis: Sequence[int] | None
    upright: bool
    torso: Sequence[int] | None
    torso_length: float


def _turned(clips: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Clips ``(B, T, M, V, C)``, each multiplied by its own matrix ``(B, C, C)``."""
    batch, channels = len(clips), clips.shape[-1]
    # Products with matrices of three columns are slow: eight joints at once are not.
    joints = gcd(clips[0].numel() // channels, 8)
    blocks = clips.new_zeros(batch, joints, channels, joints, channels)
    blocks.diagonal(dim1=1, dim2=3).copy_(change.transpose(1, 2)[..., None])
    size = joints * channels
    return torch.bmm(clips.reshape(batch, -1, size), blocks.view(batch, size, size)).view_as(clips)


def _centered(batch: RaggedFrames, filled: torch.Tensor | None, places: torch.Tensor, turn: _Turn) -> torch.Tensor:
    """Frames of a batch about person 0's centre joint."""
    frames = _gathered(batch, filled, places)
    return frames if turn.center_joint is None else center_persons(frames, turn.center_joint)


def _gathered(batch: RaggedFrames, filled: torch.Tensor | None, places: torch.Tensor) -> torch.Tensor:
    """Frames ``(..., M, V, C)`` of a batch at places ``(...)``; see `filled_frame_index`."""
    if filled is None:
        return batch.frames.index_select(0, places.flatten()).unflatten(0, places.shape)
    return batch.frames[filled[places], torch.arange(batch.frames.shape[1], device=places.device)]


def _body_change(batch: RaggedFrames, filled: torch.Tensor | None, turn: _Turn) -> torch.Tensor | None:
    """What each sequence's centred coordinates are multiplied by, float64 ``(B, C, C)``; None where by nothing."""
    change = None
    if turn.upright and turn.x_axis is not None:
        place = torch.arange(FIRST_FRAMES, device=batch.lengths.device)
        first = batch.starts[:, None] + torch.minimum(place, batch.lengths[:, None] - 1)
        change = upright_rotation(_centered(batch, filled, first, turn)[:, :, 0], turn.x_axis)
    elif turn.x_axis is not None or turn.z_axis is not None:
        change = body_rotation(_centered(batch, filled, batch.starts, turn)[:, 0], turn.x_axis, turn.z_axis)
    if turn.torso is None:
        return change
    scale = torso_scale(batch, turn.torso, turn.torso_length)[:, None, None]
    if change is None:
        size = batch.frames.shape[-1]
        change = torch.eye(size, dtype=torch.float64, device=scale.device).expand(len(scale), size, size)
    return change * scale


def normalize_further(beginning: RaggedFrames, frames: torch.Tensor, fill: bool = True, **turn: Any) -> torch.Tensor:
    """Normalise frames that come after the beginnings of sequences, turned and scaled as the beginnings are.

    Args:
        beginning: First frames of sequences, of which nothing more may be known yet.
        frames: Later frames of each ``(B, K, M, V, C)``.
        fill: Whether empty frames of the beginnings are filled (see `filled_frame_index`); later ones are not.
        **turn: `center_joint`, `x_axis`, `z_axis`, `upright`, `torso` and `torso_length`; see `normalize_sequences`.

    Returns:
        ``(B, K, M, V, C)``.
    """
    how = _Turn(**turn)
    change = _body_change(beginning, filled_frame_index(beginning) if fill else None, how)
    frames = frames if how.center_joint is None else center_persons(frames, how.center_joint)
    return frames if change is None else _turned(frames.contiguous(), change)
