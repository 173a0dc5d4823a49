"""Motion without labels for pretraining: normalised sequences of any data sets, end to end."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

# Sequences that are normalised at once.
_BATCH = 256
# How far a second person is put from the first, in units of bodies whose torso is half a metre: as people do who shake
# hands or kick.
_DISTANCE = (0.4, 1.5)


class PretrainingDataset(torch.utils.data.Dataset):
    """Normalised sequences of one or more data sets, of which `ViewAugmentation` draws views.

    Items are ``{"frames": (T, M, V, C), "clip": int}``; `collate` makes a ragged batch of them.
    """

    def __init__(
        self,
        sources: Sequence[SkeletonData],
        feature_extractor: USDRLFeatureExtractor,
        window: int | None = None,
        in_memory: bool = True,
        progress: bool = False,
        pairs: float = 0.0,
        seed: int = 0,
    ):
        """List the sequences, and normalise them if they are to stay in memory.

        Args:
            sources: Data sets, of any layouts that convert to the extractor's.
            feature_extractor: The model's.
            window: Longest piece in frames; longer sequences are cut into pieces of equal length. None keeps them
                whole (of which the extractor then reads its `max_frames`).
            in_memory: Normalise everything once and keep it, as float32, and leave out pieces in which nobody is seen;
                otherwise pieces are read and normalised whenever they are asked for, by the data loader's workers, and
                others stand in for those in which nobody is seen.
            progress: Show a bar while normalising.
            pairs: Probability that a piece with one person gets a second one: that of another piece, turned about the
                vertical and put beside the first at random; others each epoch. What makes a model of two people of
                recordings of one.
            seed: Seeds the pairs.

        Raises:
            SkeletonFormatError: If no sequence can be read.
            ValueError: If a layout cannot be converted, `window` is not positive, or `pairs` is no probability or the
                extractor's bodies are not upright or have no place for a second person.
        """
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 frame, got {window}")
        check_pairs(pairs, feature_extractor)
        self.pairs, self.seed, self.epoch = pairs, seed, 0
        self.sources = [source.drop_empty() for source in sources]
        self.feature_extractor = feature_extractor
        places = [_pieces(source.lengths, window) for source in self.sources]
        numbers = [np.full(len(rows), number) for number, rows in enumerate(places)]
        # Source, sequence, first frame and end of each piece.
        self.pieces = np.concatenate([np.c_[number, rows] for number, rows in zip(numbers, places, strict=True)])
        self.memory: torch.Tensor | None = None
        if in_memory:
            self._keep(progress)
        if not len(self.pieces):
            raise SkeletonFormatError(
                "there is no motion to pretrain on: the data sets hold no frame with anybody in it"
            )

    def _keep(self, progress: bool) -> None:
        """Normalise all pieces; those in which nobody is seen are left out."""
        self._check_memory()
        frames, lengths, kept = [], [], []
        batches = range(0, len(self.pieces), _BATCH)
        for start in tqdm(batches, unit="batch", desc="normalising", disable=None if progress else True):
            pieces = [(row, self._read(row)) for row in range(start, min(start + _BATCH, len(self.pieces)))]
            found = [(row, piece) for row, piece in pieces if piece is not None]
            if found:
                batch = self.feature_extractor.normalized([piece for _, piece in found])
                frames.append(batch.frames.float())
                lengths.append(batch.lengths)
                kept += [row for row, _ in found]
        self.pieces = self.pieces[kept]
        if frames:
            self.memory = torch.cat(frames)
            self.ends = torch.cat(lengths).cumsum(0)

    def _check_memory(self) -> None:
        """Refuse to keep more motion than memory has room for, before any is read."""
        extractor = self.feature_extractor
        lengths = self.pieces[:, 3] - self.pieces[:, 2]
        if extractor.max_frames is not None:
            lengths = np.minimum(lengths, extractor.max_frames)
        joints = get_layout(extractor.layout).num_joints
        numbers = int(lengths.sum()) * extractor.num_persons * joints * extractor.num_channels
        remedy = "leave it on disk with --no-in-memory (in_memory=False)"
        # Twice for a moment, when the batches are joined.
        check_memory(8 * numbers, f"{len(self.pieces)} pieces of motion to pretrain on", remedy)

    def _read(self, row: int) -> SkeletonSequence | None:
        """A piece as it is in its data set, or None where nobody is seen in it."""
        source, number, start, end = (int(value) for value in self.pieces[row])
        try:
            return self.sources[source].read(number, start, end)
        except EmptySequenceError:
            return None

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One piece."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several pieces at once."""
        if self.memory is not None:
            starts = [int(self.ends[index - 1]) if index else 0 for index in indices]
            frames = [self.memory[start : int(self.ends[index])] for start, index in zip(starts, indices, strict=True)]
        else:
            pieces = [self._read(index) for index in indices]
            # Where nobody is seen for a while, another part of the same data stands in.
            pieces = [piece or self._first(index) for piece, index in zip(pieces, indices, strict=True)]
            batch = self.feature_extractor.normalized(pieces)  # type: ignore[arg-type]
            frames = list(batch.frames.float().split(batch.lengths.tolist()))
        if self.pairs:
            frames = self._paired(frames, indices)
        return [{"frames": piece, "clip": int(index)} for piece, index in zip(frames, indices, strict=True)]

    def set_epoch(self, epoch: int) -> None:
        """Draw other pairs; the trainer says which epoch begins."""
        self.epoch = epoch

    def _paired(self, frames: list[torch.Tensor], indices: Sequence[int]) -> list[torch.Tensor]:
        """Put somebody of another piece beside those who are alone."""
        drawn = hashed_uniform(self.seed, self.epoch, torch.as_tensor(indices), 5)
        chosen = [row for row, piece in enumerate(frames) if drawn[row, 0] < self.pairs and not piece[:, 1:].any()]
        if not chosen:
            return frames
        others = [int(drawn[row, 1] * len(self)) for row in chosen]
        pairs, self.pairs = self.pairs, 0.0
        try:
            partners = [item["frames"][:, 0] for item in self.__getitems__(others)]
        finally:
            self.pairs = pairs
        frames = list(frames)
        for row, partner in zip(chosen, partners, strict=True):
            frames[row] = beside(frames[row], partner, *drawn[row, 2:].tolist())
        return frames

    def _first(self, row: int) -> SkeletonSequence:
        """The next piece in which somebody is seen."""
        return next(
            piece for step in range(1, len(self) + 1) if (piece := self._read((row + step) % len(self))) is not None
        )

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Join pieces: `frames` ``(F, M, V, C)`` end to end, `lengths` and `clips` ``(B,)``."""
        return {
            "frames": torch.cat([item["frames"] for item in items]),
            "lengths": torch.tensor([len(item["frames"]) for item in items]),
            "clips": torch.tensor([item["clip"] for item in items]),
        }


def check_pairs(pairs: float, feature_extractor: USDRLFeatureExtractor) -> None:
    """Refuse pairs that cannot be made.

    Raises:
        ValueError: If `pairs` is no probability, the extractor keeps one person, or its bodies are not upright.
    """
    if not isinstance(pairs, int | float) or not 0 <= pairs <= 1:
        raise ValueError(f"pairs must be a probability, got {pairs!r}")
    if pairs and feature_extractor.num_persons < 2:
        raise ValueError("pairs need a model of two persons: give num_persons 2")
    if pairs and not feature_extractor.upright:
        raise ValueError("pairs need upright bodies of three coordinates: give the extractor normalization 'body'")


def beside(frames: torch.Tensor, partner: torch.Tensor, turn: float, bearing: float, distance: float) -> torch.Tensor:
    """Put a second person into a sequence, at the speed they move at: back and forth where theirs is shorter.

    Args:
        frames: Upright sequence ``(T, M, V, 3)``, y up, the first person about the origin; M at least 2.
        partner: The second person ``(S, V, 3)``, also about the origin; joints that are all zero stay so.
        turn: How far they are turned about the vertical, in [0, 1) of a full turn.
        bearing: In which direction they stand, in [0, 1) of a full turn.
        distance: How far, in [0, 1] from the nearest to the farthest place.

    Returns:
        The sequence with the second person, ``(T, M, V, 3)``.
    """
    length = len(partner)
    step = torch.arange(len(frames)) % max(2 * length - 2, 1)
    moved = partner[torch.where(step < length, step, 2 * length - 2 - step)]
    seen = seen_joints(moved)[..., None]
    angle = 2 * math.pi * turn
    rotation = moved.new_tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    away = _DISTANCE[0] + (_DISTANCE[1] - _DISTANCE[0]) * distance
    place = moved.new_tensor([away * math.sin(2 * math.pi * bearing), 0, away * math.cos(2 * math.pi * bearing)])
    result = frames.clone()
    result[:, 1] = (moved @ rotation.T + place) * seen
    return result


def _pieces(lengths: np.ndarray, window: int | None) -> np.ndarray:
    """Sequence, first frame and end of each piece ``(P, 3)``; those of a sequence differ by a frame at most."""
    lengths = np.asarray(lengths, dtype=np.int64)
    count = np.ones_like(lengths) if window is None else np.maximum(-(-lengths // window), 1)
    sequence = np.repeat(np.arange(len(lengths)), count)
    place = np.arange(len(sequence)) - np.repeat(np.cumsum(count) - count, count)
    total, pieces = lengths[sequence], count[sequence]
    return np.c_[sequence, place * total // pieces, (place + 1) * total // pieces]
