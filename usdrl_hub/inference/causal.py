"""Causal models: consecutive clips of long recordings, and the class after every frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from ..finite import check_finite
from ..ragged import RaggedFrames
from ..sequence import SkeletonSequence
from .engine import Engine, batched

# Frames that consecutive clips share.
OVERLAP = 16


def left_aligned(
    batch: RaggedFrames, num_frames: int, overlap: int = OVERLAP
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Cut sequences into consecutive clips; the k-th clips of all sequences form a batch.

    Args:
        batch: Normalised sequences.
        num_frames: Frames T of a clip.
        overlap: Frames that a clip shares with the one before it.

    Yields:
        Clips ``(B, T, M, V, C)``, which repeat the last frame after a sequence's end; the frame number in the sequence
        of each clip frame ``(B, T)``; and whether no earlier clip has that frame ``(B, T)``.
    """
    offset = torch.arange(num_frames, device=batch.lengths.device)
    start, step = 0, num_frames - min(overlap, num_frames - 1)
    seen = 0
    while start == 0 or seen < int(batch.lengths.max()):
        frame = start + offset
        index = batch.starts[:, None] + torch.minimum(frame, batch.lengths[:, None] - 1)
        new = (frame >= seen) & (frame < batch.lengths[:, None])
        yield batch.frames[index], frame.expand(len(batch.lengths), -1), new
        seen, start = start + num_frames, start + step


@torch.inference_mode()
def causal_predictions(
    engine: Engine, sequences: Iterable[SkeletonSequence], *, batch_size: int = 64
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each sequence with the logits ``(T_i, K)`` after every frame of it.

    A sequence longer than the model's clip continues in further clips, which overlap; the running maximum is carried
    on.

    Args:
        engine: An early predictor.
        sequences: Sequences of any length.
        batch_size: Sequences scored at once.

    Raises:
        NonFiniteError: If a score is NaN or infinite; the message names the sequence.
    """
    model, extractor = engine.model, engine.extractor
    for group in batched(sequences, batch_size):
        batch = extractor.normalized(group, device=engine.device)
        longest = int(batch.lengths.max())
        logits = torch.zeros(len(group), longest, len(model.config.class_names))
        maximum = None
        for clips, frame, new in left_aligned(batch, extractor.num_frames):
            encoded = model.usdrl(clips).temporal_hidden_state
            # Frames repeated after a sequence's end must not enter its maximum.
            inside = frame < batch.lengths[:, None]
            encoded = encoded.masked_fill(~inside[..., None], -torch.inf)
            running = model.running_maximum(encoded, maximum)
            maximum = running[:, -1]
            row, index = new.nonzero(as_tuple=True)
            logits[row.cpu(), frame[row, index].cpu()] = model.classifier(running[row, index]).float().cpu()
        for sequence, values, length in zip(group, logits, batch.lengths.tolist(), strict=True):
            check_finite(values[:length], f"{sequence.name or 'the recording'}: the scores of its frames")
            yield sequence, values[:length].numpy()
