"""Sequences of different length end to end, and what is done to their people and frames before normalisation.

The frames of all sequences lie end to end in one tensor ``(F, M, V, C)`` beside their lengths ``(B,)``; nothing loops
over frames or joints. The rules are those of the data scripts of the authors' release. "Empty" means, as in the
release, that the coordinates of a person in a frame sum to zero. This file also ships as remote code, so it imports
only its siblings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .errors import notice
from .layouts import seen_joints


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


def end_to_end(
    arrays: Sequence[np.ndarray], device: str | torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of arrays ``(T, M, V, C)`` in one float32 tensor, and their lengths.

    Args:
        arrays: At least one; they differ in T only.
        device: Where the frames will be copied: for a GPU they are in pinned memory.
    """
    lengths = torch.tensor([len(array) for array in arrays])
    # NumPy's concatenation allocates anew each time, which takes longer than copying; torch caches pinned memory,
    # from which a GPU copies many times faster.
    pinned = device is not None and torch.device(device).type == "cuda" and torch.cuda.is_available()
    shape = (int(lengths.sum()), *arrays[0].shape[1:])
    frames = torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=pinned)
    torch.cat([_tensor(array) for array in arrays], out=frames)
    return frames, lengths


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares an array's memory if possible."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def person_energy(batch: RaggedFrames) -> torch.Tensor:
    """Motion of each person, by which the release selects people.

    Returns:
        Float64 tensor ``(B, M)``: the sum of the coordinates' population standard deviations over all joints of all
        non-empty frames; 0 for a person who is never seen.
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

    If more are seen, those with the largest energy, in descending order; otherwise all of them in the order given,
    padded with empty people.
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
    """Keep the first `max_frames` frames of each sequence, and say so where there are more."""
    if int(batch.lengths.max()) <= max_frames:
        return batch
    notice(
        f"only the first {max_frames} frames of a longer sequence are used, as in training; set the feature "
        "extractor's max_frames to None to use all"
    )
    position = torch.arange(len(batch.frames), device=batch.lengths.device) - batch.starts[batch.sequence_of_frame]
    kept = (position < max_frames).nonzero()[:, 0]
    return RaggedFrames(batch.frames.index_select(0, kept), batch.lengths.clamp(max=max_frames))


def nearest_joints(distances: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Weights that place each unseen joint at the nearest seen joints of the body.

    Args:
        distances: Bones between any two joints ``(V, V)``; see `layouts.Layout.distances`.
        seen: Whether a joint is seen ``(..., V)``.

    Returns:
        Float32 ``(..., V, V)``: rows of seen joints are the identity's, the others sum to 1, or to 0 where no joint is
        seen. Each further bone divides the weight by about a thousand, so that the nearest joints decide.
    """
    away = torch.where(seen[..., None, :], distances.float(), torch.inf)
    # Relative to the nearest joint: a thousandth for each of many bones would underflow.
    further = away - away.amin(-1, keepdim=True).clamp(max=torch.finfo(torch.float32).max)
    weights = torch.exp2(-10.0 * further)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(seen[..., :, None], torch.eye(len(distances), device=seen.device), weights)


def fill_joints(frames: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Place joints that were not seen (all zero) at the nearest seen joints of the same person and frame.

    Args:
        frames: ``(..., V, C)``.
        distances: See `nearest_joints`.

    Returns:
        Frames of the same shape; people without any seen joint stay zero.
    """
    seen = seen_joints(frames)
    partly = seen.any(-1) & ~seen.all(-1)
    if not partly.any():
        return frames
    filled = frames.clone()
    filled[partly] = nearest_joints(distances, seen[partly]).to(frames.dtype) @ frames[partly]
    return filled


def filled_frame_index(batch: RaggedFrames) -> torch.Tensor | None:
    """Index of the frame that each person's frame is read from once empty frames are filled.

    If a person's first frame is empty, the person's non-empty frames move to the front; an empty tail then repeats the
    frames before it from the beginning. Gaps inside stay, and so does a person who is never seen.

    Returns:
        Int64 tensor ``(F, M)`` of frame numbers in `batch.frames`; None if no frame changes.
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
    # Frames before the tail begins.
    kept = torch.where(starts_empty, count, last + 1).clamp(min=1)
    source = position % kept[sequence]
    # Position of the k-th non-empty frame of a person.
    seen_before = seen.long().cumsum(0) - seen.long()
    rank = seen_before - seen_before[start][sequence]
    slot = torch.where(seen, start[sequence][:, None] + rank, num_frames)
    compact = position.new_zeros(num_frames + 1, num_persons)
    compact.scatter_(0, slot, position.expand(-1, num_persons).contiguous())
    first = start[sequence][:, None]
    moved = compact.gather(0, first + source)
    source = torch.where(starts_empty[sequence], moved, source)
    return torch.where(count[sequence] > 0, first + source, first + position)
