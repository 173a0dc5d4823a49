"""Causal models: clips that follow each other, and the class after every frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..modeling_usdrl import USDRLForEarlyActionPrediction
from ..normalization import RaggedFrames
from ..sequence import SkeletonSequence
from .inputs import batched

# Frames that a stream longer than the model's clip sees again when it restarts.
OVERLAP = 16


def left_aligned(
    batch: RaggedFrames, num_frames: int, overlap: int = OVERLAP
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Cut sequences into clips that follow each other; those of one place in all sequences come together.

    Args:
        batch: Normalised sequences.
        num_frames: Frames T of a clip.
        overlap: Frames that a clip after the first sees again.

    Yields:
        Clips ``(B, T, M, V, C)``, which repeat the last frame where a sequence has ended; the frame of the sequence in
        each place ``(B, T)``; and whether it is seen for the first time there ``(B, T)``.
    """
    place = torch.arange(num_frames, device=batch.lengths.device)
    start, step = 0, num_frames - min(overlap, num_frames - 1)
    seen = 0
    while start == 0 or seen < int(batch.lengths.max()):
        frame = start + place
        index = batch.starts[:, None] + torch.minimum(frame, batch.lengths[:, None] - 1)
        new = (frame >= seen) & (frame < batch.lengths[:, None])
        yield batch.frames[index], frame.expand(len(batch.lengths), -1), new
        seen, start = start + num_frames, start + step


@torch.inference_mode()
def causal_predictions(
    model: USDRLForEarlyActionPrediction,
    extractor: USDRLFeatureExtractor,
    sequences: Iterable[SkeletonSequence],
    batch_size: int = 64,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each sequence with the logits ``(T_i, K)`` after every frame of it.

    A sequence longer than the model's clip goes on in further clips, which see the last frames of the one before
    again; the running maximum is carried on.

    Args:
        model: A causal model, in eval mode.
        extractor: Its feature extractor.
        sequences: Clips or streams.
        batch_size: Sequences scored at once.

    Raises:
        NonFiniteError: If a score is NaN or infinite; the message names the sequence.
    """
    for group in batched(sequences, batch_size):
        batch = extractor.normalized(group, device=model.device)
        longest = int(batch.lengths.max())
        logits = torch.zeros(len(group), longest, len(model.config.class_names))
        maximum = None
        for clips, frame, new in left_aligned(batch, extractor.num_frames):
            encoded = model.usdrl(clips).temporal_hidden_state
            # What stands after a sequence's end must not enter its maximum; nor may it be what is read out.
            inside = frame < batch.lengths[:, None]
            encoded = encoded.masked_fill(~inside[..., None], -torch.inf)
            running = model.running_maximum(encoded, maximum)
            maximum = running[:, -1]
            row, place = new.nonzero(as_tuple=True)
            logits[row.cpu(), frame[row, place].cpu()] = model.classifier(running[row, place]).float().cpu()
        for sequence, values, length in zip(group, logits, batch.lengths.tolist(), strict=True):
            check_finite(values[:length], f"{sequence.name or 'the recording'}: the scores of its frames")
            yield sequence, values[:length].numpy()
