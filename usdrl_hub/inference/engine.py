"""`Engine`: a model loaded for inference, the extractor that makes its clips, and batches of clips for it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from ..errors import CheckpointLoadError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..loading import extractor_of, find_device, load_feature_extractor, load_model
from ..sequence import SkeletonSequence
from ..speedups import fetch, for_inference, prefetch, with_cuda_graph
from .feed import StoreFeed
from .scores import check_min_similarity
from .source import Source

Item = TypeVar("Item")
# Batches preprocessed per call, to amortise kernel-launch overhead; also the prefetch depth.
_BATCHES_TOGETHER = {"cpu": 4, "other": 16}
_FRAMES_TOGETHER = {"cpu": 1 << 16, "other": 1 << 17}


class Engine:
    """A model for inference and the feature extractor that makes its clips.

    Wherever a function takes a model, it takes an engine: with an extractor of your own, or to load a model once for
    several calls.

    Attributes:
        model: A model in eval mode, or a `USDRLEnsemble`.
        extractor: Its feature extractor.
        threshold: A recogniser's clip is "none of these" if its similarity to the training clips of its class is
            lower, see `USDRLForActionRecognition`; None takes the model's own `min_similarity`, 0 refuses no clip.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import Engine, Source
        >>> engine = Engine.load("usdrl/mocap-tiny", head=False, device="cpu")
        >>> [(sequences, clips)] = engine.batches(Source(np.random.rand(90, 25, 3)), 64)
        >>> engine.run(clips).pooler_output.shape
        torch.Size([1, 192])
    """

    def __init__(self, model: Any, extractor: USDRLFeatureExtractor, threshold: float | None = None):
        check_min_similarity(threshold)
        self.model = model
        self.extractor = extractor
        self.threshold = threshold
        self._compute: Callable[[torch.Tensor], Any] | None = None

    @classmethod
    def load(
        cls,
        model: Any,
        *,
        extractor: USDRLFeatureExtractor | None = None,
        head: bool = True,
        fused: bool = True,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        threshold: float | None = None,
    ) -> Engine:
        """Load a model, or take a loaded one, in eval mode on the device and in the type wanted.

        A loaded model is never changed: if it has to be moved, cast or set to eval mode, a copy is.

        Args:
            model: A checkpoint's name, folder or hub repository; a model or `USDRLEnsemble`; or an engine.
            extractor: The feature extractor; the model's own where None, see `loading.extractor_of`.
            head: Whether the head is needed; otherwise the engine holds the encoder alone.
            fused: Whether a model loaded by name is fused, which makes it faster; see `acceleration.fused.fuse`.
            device: Where to compute. None takes CUDA if there is one for a name, and the model's own device otherwise.
            dtype: Floating type such as "bfloat16". None takes float32 for a name, and the model's own otherwise.
            threshold: See the class; None takes that of an engine.

        Raises:
            CheckpointLoadError: If the model or its extractor cannot be found or loaded, or an ensemble is to embed.
            ValueError: If the device or the type is unknown, or the threshold is not in [0, 1].
        """
        wanted = find_dtype(dtype)
        check_min_similarity(threshold)
        if isinstance(model, Engine):
            threshold = model.threshold if threshold is None else threshold
            model, extractor = model.model, extractor or model.extractor
        if isinstance(model, str | os.PathLike):
            target = find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            found = load_for_inference(model, head=head, fused=fused, device=target, dtype=wanted or torch.float32)
            return cls(found, extractor or load_feature_extractor(model), threshold)
        if hasattr(model, "base_model"):
            # Also a class of the same name from a repository's own code.
            extractor = extractor or extractor_of(model)
            model = model if head else model.base_model
        elif not hasattr(model, "feature_extractor"):
            raise CheckpointLoadError(
                f"a {type(model).__name__} is no model: give a name, a USDRL model, a USDRLEnsemble or an Engine"
            )
        elif not head:
            raise CheckpointLoadError("an ensemble has no embedding of its own: take one of its models")
        else:
            extractor = extractor or model.feature_extractor
        target = model.device if device is None else find_device(device)
        wanted = wanted or model.dtype
        if model.device != target or model.dtype != wanted or model.training:
            model = copy.deepcopy(model).to(device=target, dtype=wanted).eval()
        return cls(model, extractor, threshold)

    @property
    def min_similarity(self) -> float | None:
        """Similarity below which clips are none of the model's classes; None if the model cannot tell."""
        models = getattr(self.model, "models", [self.model])
        own = [getattr(model.config, "min_similarity", None) for model in models]
        return None if None in own else own[0] if self.threshold is None else self.threshold

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    def run(self, clips: torch.Tensor) -> Any:
        """Compute the model's output for clips ``(B, T, M, V, C)`` on its device, without gradients.

        On a GPU the output of a fused model may be overwritten by that of the next clips: copy what is kept.
        """
        if self._compute is None:
            self._compute = with_cuda_graph(self.model)
        with torch.inference_mode():
            return self._compute(clips)

    def batches(self, source: Source, batch_size: int) -> Iterator[tuple[Sequence[SkeletonSequence], torch.Tensor]]:
        """Make clips of the recordings of a source, ahead of the model where that is faster.

        Args:
            source: Recordings.
            batch_size: Recordings of a batch.

        Returns:
            Batches of up to `batch_size` prepared recordings, and their clips ``(B, T, M, V, C)`` on the device. Those
            of a stream come as soon as a batch is full; those of a store may be read when they are asked for.

        Raises:
            ValueError: If `batch_size` is below 1.
            SkeletonFormatError: While iterating; see `Source.prepared`.
        """
        check_batch_size(batch_size)
        kind = "cpu" if self.device.type == "cpu" else "other"
        most = 1 if source.is_stream else _BATCHES_TOGETHER[kind]
        feed = StoreFeed.for_source(source, self.extractor, self.device)
        if feed is not None:
            made = self._stored_batches(feed, source, batch_size, kind)
        else:
            made = self._batches(source.prepared(self.extractor), batch_size, most, _FRAMES_TOGETHER[kind])
        return prefetch(made, self.device, _BATCHES_TOGETHER[kind])

    def _stored_batches(
        self, feed: StoreFeed, source: Source, batch_size: int, kind: str
    ) -> Iterator[tuple[Sequence[SkeletonSequence], torch.Tensor]]:
        """Yield batches of a store."""
        most, max_frames = _BATCHES_TOGETHER[kind], _FRAMES_TOGETHER[kind]
        frames, start, together = np.cumsum([0, *feed.lengths]), 0, 1
        while start < len(feed):
            # As many whole batches as fit in `max_frames`, but one at least.
            fitting = int(np.searchsorted(frames, frames[start] + max_frames, "right")) - 1 - start
            count = min(together, max(fitting // batch_size, 1)) * batch_size
            part = slice(start, min(start + count, len(feed)))
            clips = feed.clips(part)
            if clips is None:
                # Read one by one, the damaged ones are found.
                each = source.of(feed.store[part]).prepared(self.extractor)
                yield from self._batches(each, batch_size, most, max_frames)
            else:
                for first, some in zip(range(part.start, part.stop, batch_size), clips.split(batch_size), strict=True):
                    yield feed.sequences(slice(first, first + len(some))), some
            # The model is idle until the first batches are there, so these are small.
            start, together = part.stop, min(2 * together, most)

    def outputs(
        self, source: Source, batch_size: int, wanted: Callable[[Any], torch.Tensor]
    ) -> Iterator[tuple[Sequence[SkeletonSequence], np.ndarray]]:
        """Batches of recordings, see `batches`, with a tensor of the model's output, as float32 arrays.

        Args:
            source: Recordings.
            batch_size: Recordings of a batch.
            wanted: The tensor of an output.

        Raises:
            ValueError: See `batches`.
            SkeletonFormatError: See `batches`.
        """
        computed = ((batch, wanted(self.run(clips)).float()) for batch, clips in self.batches(source, batch_size))
        return fetch(computed, torch.device("cpu") if source.is_stream else self.device)

    def _batches(
        self, sequences: Iterator[SkeletonSequence], batch_size: int, most: int, max_frames: int
    ) -> Iterator[tuple[Sequence[SkeletonSequence], torch.Tensor]]:
        """Yield batches, up to `most` of which are preprocessed together."""
        waiting: list[list[SkeletonSequence]] = []
        together = 1
        failed: Exception | None = None
        batches = batched(sequences, batch_size)
        while failed is None:
            try:
                batch = next(batches, None)
            except Exception as error:
                # Batches read before the error are yielded before it.
                failed, batch = error, None
            if batch is not None:
                waiting.append(batch)
            frames = sum(sequence.num_frames for batch in waiting for sequence in batch)
            if waiting and (batch is None or len(waiting) == together or frames > max_frames):
                clips = self.extractor.clips([sequence for part in waiting for sequence in part], self.device)
                yield from zip(waiting, clips.split(batch_size), strict=True)
                waiting = []
                # The model is idle until the first batches are there, so these are small.
                together = min(2 * together, most)
            if batch is None and failed is None:
                return
        raise failed


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of up to `size` items.

    Raises:
        ValueError: If `size` is below 1.
    """
    check_batch_size(size)
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def check_batch_size(size: int) -> None:
    """Refuse batches without items.

    Raises:
        ValueError: If `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")


def load_for_inference(
    name: str | os.PathLike, *, head: bool = True, fused: bool = True, device: torch.device, dtype: torch.dtype
) -> Any:
    """Load a checkpoint in eval mode; see `Engine.load`.

    Args:
        name: A checkpoint's name, folder or hub repository.
        head: Whether the head is needed; otherwise the encoder alone is returned.
        fused: Whether the model is fused.
        device: Where to compute.
        dtype: Type to compute in.

    Raises:
        CheckpointLoadError: See `load_model`.
    """
    # Fusing merges weights, which half precision would round first.
    loaded: Any = load_model(name, dtype=torch.promote_types(dtype, torch.float32))
    loaded = loaded if head else loaded.base_model
    if fused:
        # A fused model returns neither, even if the configuration asks for them.
        loaded.config.output_hidden_states = loaded.config.output_attentions = False
    loaded = loaded.to(device)
    return (for_inference(loaded) if fused else loaded).to(dtype)


def find_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The floating type of a name; None for None.

    Raises:
        ValueError: If there is no such type.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is not None and not isinstance(found, torch.dtype) or dtype is not None and found is None:
        raise ValueError(f"unknown dtype '{dtype}': use float32, bfloat16 or float16")
    if found is not None and not found.is_floating_point:
        raise ValueError(f"dtype must be a floating type such as bfloat16, got {dtype}")
    return found
