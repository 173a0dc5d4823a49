"""Motion without labels for pretraining: normalised sequences of any data sets, end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..data.dataset import LabelledData
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..sequence import SkeletonFormatError, SkeletonSequence

# Sequences that are normalised at once.
_BATCH = 256


class PretrainingDataset(torch.utils.data.Dataset):
    """Normalised sequences of one or more data sets, of which `ViewAugmentation` draws views.

    Items are ``{"frames": (T, M, V, C), "clip": int}``; `collate` makes a ragged batch of them.
    """

    def __init__(
        self,
        sources: Sequence[LabelledData],
        feature_extractor: USDRLFeatureExtractor,
        window: int | None = None,
        in_memory: bool = True,
        progress: bool = False,
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

        Raises:
            SkeletonFormatError: If no sequence can be read.
            ValueError: If a layout cannot be converted, or `window` is not positive.
        """
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 frame, got {window}")
        self.sources = [source.usable() for source in sources]
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

    def _read(self, row: int) -> SkeletonSequence | None:
        """A piece as it is in its data set, or None where nobody is seen in it."""
        source, number, start, end = (int(value) for value in self.pieces[row])
        try:
            return self.sources[source].piece(number, start, end)
        except SkeletonFormatError as error:
            if "every person is empty" in str(error):
                return None
            raise

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
        return [{"frames": piece, "clip": int(index)} for piece, index in zip(frames, indices, strict=True)]

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


def _pieces(lengths: np.ndarray, window: int | None) -> np.ndarray:
    """Sequence, first frame and end of each piece ``(P, 3)``; those of a sequence differ by a frame at most."""
    lengths = np.asarray(lengths, dtype=np.int64)
    count = np.ones_like(lengths) if window is None else np.maximum(-(-lengths // window), 1)
    sequence = np.repeat(np.arange(len(lengths)), count)
    place = np.arange(len(sequence)) - np.repeat(np.cumsum(count) - count, count)
    total, pieces = lengths[sequence], count[sequence]
    return np.c_[sequence, place * total // pieces, (place + 1) * total // pieces]
