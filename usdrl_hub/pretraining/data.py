"""Motion without labels for pretraining: normalised segments of any data sets, end to end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..data.dataset import SkeletonData
from ..errors import EmptySequenceError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import check_memory
from ..layouts import get_layout, seen_joints
from ..sequence import SkeletonFormatError, SkeletonSequence
from .views import hashed_uniform

# Segments that are normalised at once.
_BATCH = 256
# Most sequences of a block, as of a row group of a data set on the hub, its most frames, and blocks that are shuffled
# together.
BLOCK_SEQUENCES, BLOCK_FRAMES, BLOCKS_SHUFFLED = 128, 16_384, 8
# Nearest and farthest distance of a second person from the first, in normalised units (a torso is 0.5): that of people
# who shake hands, and of people who kick.
_DISTANCE = (0.4, 1.5)


class PretrainingDataset(torch.utils.data.Dataset):
    """Normalised segments of the sequences of one or more data sets, of which `ViewAugmentation` draws views.

    Items are ``{"frames": (T, M, V, C), "clip": int}``; `collate` makes a ragged batch of them.
    """

    def __init__(
        self,
        sources: Sequence[SkeletonData],
        feature_extractor: USDRLFeatureExtractor,
        window: int | None = None,
        *,
        in_memory: bool = True,
        progress: bool = False,
        synthetic_pairs: float = 0.0,
        in_blocks: bool = False,
        seed: int = 0,
    ):
        """List the segments, and normalise them if they are kept in memory.

        Args:
            sources: Data sets, of any layouts that convert to the extractor's.
            feature_extractor: The model's.
            window: Longest segment in frames; longer sequences are cut into segments of equal length. None keeps them
                whole (of which the extractor then reads its `max_frames`).
            in_memory: Normalise all segments once and keep them as float32, except those without people.
                Otherwise segments are read and normalised on demand, by the data loader's workers, and the next
                segment replaces one without visible people.
            progress: Show a bar while normalising.
            synthetic_pairs: Probability that a segment with one person gets a second one from another segment, see
                `compose_pair`; other pairs in each epoch. A two-person model can so be pretrained on single-person
                recordings.
            in_blocks: Draw the order by blocks of consecutive sequences, see `order`, and partners from the same
                block: what is read at one time lies together, as in a data set that is read from the hub.
            seed: Random seed of order and pairs.

        Raises:
            SkeletonFormatError: If no sequence can be read.
            ValueError: If a layout cannot be converted, `window` is not positive, `in_memory` has blocks, or pairs
                cannot be made, see `check_synthetic_pairs`.
        """
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 frame, got {window}")
        check_synthetic_pairs(synthetic_pairs, feature_extractor)
        self.synthetic_pairs, self.seed, self.epoch = synthetic_pairs, seed, 0
        self.sources = [source.drop_empty() for source in sources]
        self.feature_extractor = feature_extractor
        segments = [_segments(source.lengths, window) for source in self.sources]
        # Source, sequence, first frame and end of each segment.
        self.segments = np.concatenate([np.insert(rows, 0, number, axis=1) for number, rows in enumerate(segments)])
        if in_blocks and in_memory:
            raise ValueError("an order by blocks is for segments that are read on demand: leave in_memory out")
        self.blocks: np.ndarray | None = None
        self.memory: torch.Tensor | None = None
        if in_memory:
            self._keep(progress)
        if not len(self.segments):
            raise SkeletonFormatError("there is nothing to pretrain on: no person is visible in any frame")
        if in_blocks:
            blocks = _blocks([source.lengths for source in self.sources])
            numbers = np.concatenate([blocks[source][rows[:, 0]] for source, rows in enumerate(segments)])
            # First segment of each block, and their number at the end.
            self.blocks = np.append(np.unique(numbers, return_index=True)[1], len(numbers))

    def order(self) -> np.ndarray:
        """The segments of this epoch, a function of seed and epoch alone.

        Blocks are drawn in random order; the segments of eight of them at a time are shuffled.
        """
        if self.blocks is None:
            raise ValueError("only a data set with in_blocks has an order by blocks")
        random = np.random.default_rng([self.seed, self.epoch])
        drawn = random.permutation(len(self.blocks) - 1)
        parts = []
        for first in range(0, len(drawn), BLOCKS_SHUFFLED):
            rows = [
                np.arange(self.blocks[block], self.blocks[block + 1])
                for block in drawn[first : first + BLOCKS_SHUFFLED]
            ]
            parts.append(random.permutation(np.concatenate(rows)))
        return np.concatenate(parts)

    def _keep(self, progress: bool) -> None:
        """Normalise all segments with visible people, and forget the others."""
        self._check_memory()
        frames, lengths, kept = [], [], []
        batches = range(0, len(self.segments), _BATCH)
        for start in tqdm(batches, unit="batch", desc="normalising", disable=None if progress else True):
            read = [(row, self._read(row)) for row in range(start, min(start + _BATCH, len(self.segments)))]
            found = [(row, segment) for row, segment in read if segment is not None]
            if found:
                batch = self.feature_extractor.normalized([segment for _, segment in found])
                frames.append(batch.frames.float())
                lengths.append(batch.lengths)
                kept += [row for row, _ in found]
        self.segments = self.segments[kept]
        if frames:
            self.memory = torch.cat(frames)
            self.ends = torch.cat(lengths).cumsum(0)

    def _check_memory(self) -> None:
        """Refuse more motion than fits in memory, before any is read."""
        extractor = self.feature_extractor
        lengths = self.segments[:, 3] - self.segments[:, 2]
        if extractor.max_frames is not None:
            lengths = np.minimum(lengths, extractor.max_frames)
        joints = get_layout(extractor.layout).num_joints
        numbers = int(lengths.sum()) * extractor.num_persons * joints * extractor.num_channels
        remedy = "leave it on disk with --no-in-memory (in_memory=False)"
        # Twice for a moment, when the batches are joined.
        check_memory(8 * numbers, f"{len(self.segments)} segments of motion to pretrain on", remedy)

    def _read(self, row: int) -> SkeletonSequence | None:
        """A segment as it is in its data set; None if no person is visible in it."""
        source, number, start, end = (int(value) for value in self.segments[row])
        try:
            return self.sources[source].read(number, start, end)
        except EmptySequenceError:
            return None

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.segments)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One segment."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several segments at once."""
        frames = self._frames(indices)
        if self.synthetic_pairs:
            frames = self._with_partners(frames, indices)
        return [{"frames": segment, "clip": int(index)} for segment, index in zip(frames, indices, strict=True)]

    def _frames(self, indices: Sequence[int]) -> list[torch.Tensor]:
        """Normalised frames ``(T, M, V, C)`` of segments."""
        if self.memory is not None:
            starts = [int(self.ends[index - 1]) if index else 0 for index in indices]
            return [self.memory[start : int(self.ends[index])] for start, index in zip(starts, indices, strict=True)]
        batch = self.feature_extractor.normalized([self._read_next(index) for index in indices])
        return list(batch.frames.float().split(batch.lengths.tolist()))

    def batches(self, most: int = 20_000) -> Iterator[dict[str, torch.Tensor]]:
        """Segments in order, in batches as of `collate`: at most so many segments, evenly spread."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int)).tolist()
        for start in range(0, len(rows), _BATCH):
            yield self.collate(self.__getitems__(rows[start : start + _BATCH]))

    def _read_next(self, row: int) -> SkeletonSequence:
        """A segment, or the next one with visible people."""
        rows = ((row + step) % len(self) for step in range(len(self) + 1))
        return next(segment for row in rows if (segment := self._read(row)) is not None)

    def set_epoch(self, epoch: int) -> None:
        """Draw other pairs; the trainer calls it at the beginning of an epoch."""
        self.epoch = epoch

    def _with_partners(self, frames: list[torch.Tensor], indices: Sequence[int]) -> list[torch.Tensor]:
        """Add a person of another segment to some of those with one person."""
        drawn = hashed_uniform(self.seed, self.epoch, torch.as_tensor(indices), 5)
        alone = [not segment[:, 1:].any() for segment in frames]
        chosen = [row for row in range(len(frames)) if drawn[row, 0] < self.synthetic_pairs and alone[row]]
        partners = self._frames([self._partner(int(indices[row]), drawn[row, 1]) for row in chosen]) if chosen else []
        frames = list(frames)
        for row, partner in zip(chosen, partners, strict=True):
            frames[row] = compose_pair(frames[row], partner[:, 0], *drawn[row, 2:].tolist())
        return frames

    def _partner(self, index: int, share: torch.Tensor) -> int:
        """A segment drawn by a number in [0, 1): of all, or of the block of another segment."""
        first, end = 0, len(self)
        if self.blocks is not None:
            block = int(np.searchsorted(self.blocks, index, side="right")) - 1
            first, end = int(self.blocks[block]), int(self.blocks[block + 1])
        return first + int(share * (end - first))

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Join segments: `frames` ``(F, M, V, C)`` end to end, `lengths` and `clips` ``(B,)``."""
        return {
            "frames": torch.cat([item["frames"] for item in items]),
            "lengths": torch.tensor([len(item["frames"]) for item in items]),
            "clips": torch.tensor([item["clip"] for item in items]),
        }


def check_synthetic_pairs(probability: float, feature_extractor: USDRLFeatureExtractor) -> None:
    """Refuse synthetic pairs that cannot be made.

    Raises:
        ValueError: If the probability is none, the extractor keeps one person, or its bodies are not upright.
    """
    if not isinstance(probability, int | float) or not 0 <= probability <= 1:
        raise ValueError(f"synthetic_pairs must be a probability, got {probability!r}")
    if probability and feature_extractor.num_persons < 2:
        raise ValueError("synthetic_pairs need a model of two persons: give num_persons 2")
    if probability and not feature_extractor.upright:
        raise ValueError("synthetic_pairs need upright bodies in 3D: give the extractor normalization 'body'")


def compose_pair(
    frames: torch.Tensor, partner: torch.Tensor, yaw: float, bearing: float, distance: float
) -> torch.Tensor:
    """Add a second person to a sequence; a shorter motion is played forward and backward.

    Args:
        frames: Upright sequence ``(T, M, V, 3)``, y up, the first person about the origin; M at least 2.
        partner: The second person ``(S, V, 3)``, also about the origin; joints that are all zero stay so.
        yaw: Rotation of the second person about the vertical, in [0, 1) of a full turn.
        bearing: Direction in which the second person stands, in [0, 1) of a full turn.
        distance: Distance from the first person, in [0, 1] from the nearest to the farthest.

    Returns:
        The sequence with the second person, ``(T, M, V, 3)``.
    """
    length = len(partner)
    step = torch.arange(len(frames)) % max(2 * length - 2, 1)
    moved = partner[torch.where(step < length, step, 2 * length - 2 - step)]
    seen = seen_joints(moved)[..., None]
    angle = 2 * math.pi * yaw
    rotation = moved.new_tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    away = _DISTANCE[0] + (_DISTANCE[1] - _DISTANCE[0]) * distance
    offset = moved.new_tensor([away * math.sin(2 * math.pi * bearing), 0, away * math.cos(2 * math.pi * bearing)])
    result = frames.clone()
    result[:, 1] = (moved @ rotation.T + offset) * seen
    return result


class BlockSampler(torch.utils.data.Sampler[int]):
    """The order by blocks of a `PretrainingDataset`, of the epoch that it is in."""

    def __init__(self, dataset: PretrainingDataset):
        """Draw from a data set with `in_blocks`."""
        self.dataset = dataset

    def __iter__(self) -> Iterator[int]:
        """Yield the segments of the epoch."""
        return iter(self.dataset.order().tolist())

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.dataset)


def _blocks(lengths: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Block of each sequence of each source: consecutive sequences, at most so many, and so many frames in all."""
    block, found = -1, []
    for source in lengths:
        numbers, count, frames = [], BLOCK_SEQUENCES, 0
        for length in source.tolist():
            if count >= BLOCK_SEQUENCES or frames >= BLOCK_FRAMES:
                block, count, frames = block + 1, 0, 0
            numbers.append(block)
            count, frames = count + 1, frames + length
        found.append(np.array(numbers, dtype=np.int64))
    return found


def _segments(lengths: np.ndarray, window: int | None) -> np.ndarray:
    """Sequence, first frame and end of each segment ``(P, 3)``; those of a sequence differ by a frame at most."""
    lengths = np.asarray(lengths, dtype=np.int64)
    count = np.ones_like(lengths) if window is None else np.maximum(-(-lengths // window), 1)
    sequence = np.repeat(np.arange(len(lengths)), count)
    position = np.arange(len(sequence)) - np.repeat(np.cumsum(count) - count, count)
    total, parts = lengths[sequence], count[sequence]
    return np.c_[sequence, position * total // parts, (position + 1) * total // parts]
