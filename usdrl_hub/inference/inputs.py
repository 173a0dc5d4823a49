"""What embedding and prediction share: batches of clips, and the model made ready."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import torch

from ..configuration_usdrl import USDRLConfig
from ..errors import NonFiniteError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..loading import extractor_of, load_feature_extractor, load_model
from ..modeling_usdrl import USDRLPreTrainedModel
from ..sequence import SkeletonSequence
from ..speedups import for_inference, prefetch
from .source import ErrorHandler

Item = TypeVar("Item")
# Batches preprocessed per call, to amortise kernel-launch overhead; also the prefetch depth.
_BATCHES_TOGETHER = {"cpu": 4, "other": 16}
_FRAMES_TOGETHER = {"cpu": 1 << 16, "other": 1 << 17}
# What one clip of a sound model may come to.
NOT_FINITE = "its coordinates are too large for the model, or the model has diverged or is damaged"


def batches_of_clips(
    sequences: Iterable[SkeletonSequence],
    extractor: USDRLFeatureExtractor,
    size: int,
    device: torch.device,
    at_once: bool = False,
) -> Iterator[tuple[list[SkeletonSequence], torch.Tensor]]:
    """Yield lists of up to `size` prepared sequences with their clips on the device, read ahead where that pays.

    Args:
        sequences: As `USDRLFeatureExtractor.prepare` has given them.
        extractor: The model's.
        size: Sequences of a batch.
        device: Where the clips go.
        at_once: Make each batch as soon as its sequences are there, instead of some batches together.

    Raises:
        ValueError: If `size` is below 1.
    """
    place = "cpu" if device.type == "cpu" else "other"

    def with_clips(batches: list[list[SkeletonSequence]]) -> Iterator[tuple[list[SkeletonSequence], torch.Tensor]]:
        clips = extractor.clips([sequence for batch in batches for sequence in batch], device)
        return zip(batches, clips.split(size), strict=True)

    def batches() -> Iterator[tuple[list[SkeletonSequence], torch.Tensor]]:
        waiting: list[list[SkeletonSequence]] = []
        together = 1
        failed = None
        iterator = batched(sequences, size)
        while True:
            try:
                batch = next(iterator, None)
            except Exception as error:
                # What was read before it comes before it.
                failed = error
                break
            if batch is None:
                break
            waiting.append(batch)
            frames = sum(sequence.num_frames for batch in waiting for sequence in batch)
            if at_once or len(waiting) == together or frames > _FRAMES_TOGETHER[place]:
                yield from with_clips(waiting)
                waiting = []
                # Few at first: until then, whoever uses them has nothing to do.
                together = min(2 * together, _BATCHES_TOGETHER[place])
        if waiting:
            yield from with_clips(waiting)
        if failed is not None:
            raise failed

    return prefetch(batches(), device, _BATCHES_TOGETHER[place])


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of up to `size` items.

    Raises:
        ValueError: If `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def finite_rows(
    sequences: Sequence[SkeletonSequence], values: np.ndarray, what: str, on_error: ErrorHandler | None
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Yield each sequence with what a model gave for it, where that is finite: one that is not costs no other.

    Args:
        sequences: N sequences.
        values: ``(N, ...)``.
        what: What they are, for the error.
        on_error: Called with the error of a sequence that has NaN or infinity; None raises it.

    Raises:
        NonFiniteError: See `on_error`; the message names the sequence.
    """
    for sequence, row in zip(sequences, values, strict=True):
        try:
            check_finite(row, f"{sequence.name or 'sequence'}: {what}", NOT_FINITE)
        except NonFiniteError as error:
            if on_error is None:
                raise
            on_error(error)
        else:
            yield sequence, row


def class_scores(logits: torch.Tensor, config: USDRLConfig) -> torch.Tensor:
    """What logits ``(..., K)`` say, in float32, as the model's `problem_type` has it.

    Probabilities that sum to 1; of classes that may hold together (``"multi_label_classification"``) each by itself;
    of a ``"regression"`` the numbers as they are.
    """
    values = logits.float()
    if config.problem_type == "regression":
        return values
    return values.sigmoid() if config.problem_type == "multi_label_classification" else values.softmax(dim=-1)


def names_one_class(config: USDRLConfig) -> bool:
    """Whether a head's logits are those of classes that exclude each other."""
    return config.problem_type in (None, "single_label_classification")


def ready_model(
    model: str | os.PathLike | USDRLPreTrainedModel,
    feature_extractor: USDRLFeatureExtractor | None,
    whole: bool,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
) -> tuple[USDRLPreTrainedModel, USDRLFeatureExtractor]:
    """Load or take a model, in eval mode on the device and in the type wanted.

    What is loaded is fused. A model that is given computes as it is, with whatever hangs on it; where it would have to
    be moved, cast or set to eval mode, a copy is.

    Args:
        model: A checkpoint's name or folder, or a model.
        feature_extractor: The extractor; that of the checkpoint where None, see `extractor_of`.
        whole: Whether the head is needed, too.
        device: A device; CUDA if there is one for a name, and the model's own for a model, where None.
        dtype: A floating type; float32 for a name, the model's own for a model, where None.

    Raises:
        CheckpointLoadError: See `load_model`.
        ValueError: If the device or the type is unknown.
    """
    dtype = find_dtype(dtype)
    if not isinstance(model, USDRLPreTrainedModel):
        place = find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        fused = load_fused(model, whole, place, dtype or torch.float32)
        return fused, feature_extractor or load_feature_extractor(model)
    wanted = model if whole else cast(USDRLPreTrainedModel, model.base_model)
    place = model.device if device is None else find_device(device)
    dtype = dtype or model.dtype
    if model.device != place or model.dtype != dtype or model.training:
        wanted = copy.deepcopy(wanted).to(device=place, dtype=dtype).eval()  # type: ignore[call-arg]
    return wanted, feature_extractor or extractor_of(model)


def load_fused(name: str | os.PathLike, whole: bool, device: torch.device, dtype: torch.dtype) -> USDRLPreTrainedModel:
    """Load a model that is to do no more than infer; see `acceleration.fused.fuse`.

    Args:
        name: A checkpoint's name or folder.
        whole: Whether the head is needed, too.
        device: Where to compute.
        dtype: What to compute in.

    Raises:
        CheckpointLoadError: See `load_model`.
    """
    # Weights are merged before they lose digits.
    loaded = load_model(name, dtype=torch.promote_types(dtype, torch.float32))
    loaded = loaded if whole else cast(USDRLPreTrainedModel, loaded.base_model)
    # Some configurations ask for them.
    loaded.config.output_hidden_states = loaded.config.output_attentions = False
    return for_inference(loaded.to(device)).to(dtype)  # type: ignore[arg-type]


def find_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The floating type of a name; None of None.

    Raises:
        ValueError: If there is none.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is not None and not isinstance(found, torch.dtype) or dtype is not None and found is None:
        raise ValueError(f"unknown dtype '{dtype}': use float32, bfloat16 or float16")
    if found is not None and not found.is_floating_point:
        raise ValueError(f"dtype must be a floating type such as bfloat16, got {dtype}")
    return found


def find_device(device: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: If it is not available.
    """
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise RuntimeError("the meta device computes nothing")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device '{device}' is not available here: use cpu, or a device that torch sees") from None
    return found
