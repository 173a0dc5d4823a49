"""Long recordings: cut into windows of the model's length, whose outputs are averaged where they overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..normalization import resize
from ..postprocessing import smooth_over_shift_gap
from ..sequence import SkeletonSequence
from ..speedups import prefetch
from .engine import Engine, batched
from .scores import finite_rows
from .source import ErrorHandler

# Batches of windows made ahead of an accelerator.
_PREFETCHED_BATCHES = 16


def frame_outputs(
    engine: Engine,
    sequences: Iterable[SkeletonSequence],
    compute: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int,
    *,
    stride: int | None = None,
    on_error: ErrorHandler | None = None,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each sequence with an output for every frame of it, averaged where windows overlap.

    Args:
        engine: Says how clips are made, and where.
        sequences: Prepared sequences of any length.
        compute: Maps clips ``(B, T, M, V, C)`` of windows of the model's length to outputs ``(B, T, D)``.
        batch_size: Windows computed at once.
        stride: Frames between windows; half of their length where None. The last one ends at the last frame.
        on_error: Called with the error of a sequence whose outputs are not finite; None raises it.

    Yields:
        The sequence, and ``(T_i, D)`` float32, zero where no person is visible.

    Raises:
        NonFiniteError: If an output is NaN or infinite; the message names the sequence.
    """
    extractor = engine.extractor
    size = extractor.num_frames
    stride = stride or max(size // 2, 1)

    def windows() -> Iterator[tuple[SkeletonSequence, int, SkeletonSequence, bool]]:
        for sequence in sequences:
            cut = list(extractor.persons.kept(sequence).windows(size, stride))
            for number, (start, window) in enumerate(cut):
                yield sequence, start, window, number == len(cut) - 1

    def batches() -> Iterator[tuple[list[tuple[SkeletonSequence, int, SkeletonSequence, bool]], torch.Tensor]]:
        for batch in batched(windows(), batch_size):
            yield batch, extractor.clips([window for _, _, window, _ in batch], engine.device)

    total = count = None
    for batch, clips in prefetch(batches(), engine.device, _PREFETCHED_BATCHES):
        with torch.inference_mode():
            dense = compute(clips).cpu()
        for (sequence, start, window, is_last), features in zip(batch, dense, strict=True):
            if total is None or count is None:
                total = np.zeros((sequence.num_frames, features.shape[-1]), dtype=np.float32)
                count = np.zeros((sequence.num_frames, 1), dtype=np.float32)
            end = start + window.num_frames
            # A recording shorter than a window was stretched to it: resize its outputs back to its own frames.
            if window.num_frames != size:
                features = resize(features, window.num_frames)
            total[start:end] += features.numpy()
            count[start:end] += 1
            if is_last:
                outputs = (total / np.maximum(count, 1))[None]
                yield from finite_rows([sequence], outputs, "what the model says of its frames", on_error)
                total = count = None


def resize_nearest(values: torch.Tensor, length: int) -> torch.Tensor:
    """Values per frame ``(n, ...)`` resized to the nearest frame."""
    if len(values) == length:
        return values
    return values[((torch.arange(length) + 0.5) * len(values) / length).long()]


def video_windows(
    sequence: SkeletonSequence, extractor: USDRLFeatureExtractor, stride: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Windows of a video ``(W, T, M, V, C)``, their first frames ``(W,)``, and where the last one ends."""
    size = extractor.num_frames
    prepared = extractor.persons.kept(extractor.prepare(sequence))
    # Windows without people stay, as zeros: their frames need a class, too.
    seen = dict(prepared.windows(size, stride or max(size // 2, 1)))
    last = max(sequence.num_frames - size, 0)
    starts = [*range(0, last, stride or max(size // 2, 1)), last]
    clips = extractor([seen[start] for start in starts if start in seen], return_tensors="pt")["keypoints"]
    windows = clips.new_zeros(len(starts), *clips.shape[1:])
    windows[[index for index, start in enumerate(starts) if start in seen]] = clips
    return windows, torch.tensor(starts), max(sequence.num_frames, size)


def frame_probabilities(
    engine: Engine,
    sequences: Iterable[SkeletonSequence],
    *,
    batch_size: int = 64,
    stride: int | None = None,
    averaged: bool = False,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each recording with the class probabilities ``(T, K)`` of its frames by a detector.

    Args:
        engine: The detector.
        sequences: Recordings of any length.
        batch_size: Windows computed at once.
        stride: Frames between windows; half of their length where None. Probabilities are averaged where they overlap.
        averaged: Whether to average over the encoder's shift gap, too (`smooth_over_shift_gap`); the release does not.
    """

    def compute(clips: torch.Tensor) -> torch.Tensor:
        return engine.run(clips).logits.float().softmax(dim=-1)

    config = engine.model.config
    shift_gap = config.shift_gap if averaged and config.encoder == "dste" else 1
    prepared = (engine.extractor.prepare(sequence) for sequence in sequences)
    for sequence, values in frame_outputs(engine, prepared, compute, batch_size, stride=stride):
        yield sequence, smooth_over_shift_gap(torch.from_numpy(values), shift_gap).numpy()


def segment_probabilities(
    engine: Engine, sequences: Iterable[SkeletonSequence], *, stride: int | None = None
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each video with the class probabilities ``(T, K)`` of its frames by a segmenter; class 0 is background.

    Args:
        engine: The segmenter.
        sequences: Videos of any length.
        stride: Frames between windows; half of their length where None.

    Raises:
        NonFiniteError: If a score is NaN or infinite; the message names the recording.
    """
    for sequence in sequences:
        windows, starts, _ = video_windows(sequence, engine.extractor, stride)
        with torch.inference_mode():
            logits = engine.model(windows[None].to(engine.device), starts[None].to(engine.device)).logits[0]
        check_finite(logits, f"{sequence.name or 'the recording'}: the scores of its frames")
        yield sequence, resize_nearest(logits.float().softmax(dim=-1).cpu(), sequence.num_frames).numpy()


def segment(engine: Engine, sequences: Iterable[SkeletonSequence], *, stride: int | None = None) -> list[np.ndarray]:
    """The most probable class of every frame ``(T_i,)`` of each video, see `segment_probabilities`."""
    stream = segment_probabilities(engine, sequences, stride=stride)
    return [probabilities.argmax(axis=-1) for _, probabilities in stream]
