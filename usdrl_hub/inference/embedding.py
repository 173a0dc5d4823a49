"""Embeddings of recordings: one per clip or one per frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..data.dataset import SkeletonData
from ..data.reading import Reading
from ..facts.checkpoints import ENCODER
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..finite import check_finite
from ..modeling_usdrl import USDRLModel, USDRLPreTrainedModel
from ..sequence import SkeletonSequence
from .engine import Engine, check_batch_size
from .scores import finite_rows
from .source import ErrorHandler, Source
from .windows import frame_outputs

# Clips encoded at once by `embed_clips`.
_CLIPS_AT_ONCE = 256


def extract_embeddings(
    inputs: Any,
    model: Any = ENCODER,
    *,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
) -> np.ndarray:
    """Embed recordings with a pretrained encoder, one embedding each.

    Args:
        inputs: A file, a folder, a `SkeletonSequence`, an array, a data set, or an iterable of any of these.
        model: A checkpoint's name, folder or hub repository; a loaded model, which is left as it is; or an `Engine`.
            What is loaded by name is fused: `fuse(model)` is as fast.
        reading: What the inputs do not say themselves, such as the joint layout of arrays.
        batch_size: Clips encoded at once.
        device: Where to compute; CUDA if there is one where None and `model` is a name.
        dtype: Type to compute in, such as "bfloat16".
        each_person: Whether each person of a recording is embedded alone, as recordings ``<name>#<index>``.

    Returns:
        Float32 ``(N, E)``, in the order of the inputs; ``(0, E)`` if there are none. E is the model's
        `config.clip_embedding_size`: its readout's, or 2d of the paper's pooled embedding.

    Raises:
        SkeletonFormatError: If an input cannot be read or does not fit the model.
        CheckpointLoadError: If the model cannot be found or loaded.
        NonFiniteError: If an embedding is NaN or infinite; the message names the recording.
        ValueError: If another argument is out of range.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import extract_embeddings
        >>> extract_embeddings([np.random.rand(90, 25, 3), np.random.rand(40, 25, 3)]).shape
        (2, 256)
    """
    engine = Engine.load(model, head=False, device=device, dtype=dtype)
    stream = iter_embeddings(inputs, engine, reading=reading, batch_size=batch_size, each_person=each_person)
    embeddings = [embedding for _, embedding in stream]
    return np.stack(embeddings) if embeddings else np.zeros((0, engine.model.config.clip_embedding_size), np.float32)


def iter_embeddings(
    inputs: Any,
    model: Any = ENCODER,
    *,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
    on_error: ErrorHandler | None = None,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Embed recordings one by one; memory does not grow with their number.

    Arguments and errors are those of `extract_embeddings`. An `on_error` is called with the error of an input that
    cannot be used, which is then left out; a model, device or type that cannot be used is an error of the call itself.

    Yields:
        Each recording, in the model's layout, with its embedding, float32 ``(E,)``.
    """
    engine = Engine.load(model, head=False, device=device, dtype=dtype)
    source = Source(inputs, reading, each_person=each_person, on_error=on_error)
    embedded = engine.outputs(source, batch_size, clip_embeddings)
    return (row for batch, rows in embedded for row in finite_rows(batch, rows, "its embedding", on_error))


def extract_frame_embeddings(
    inputs: Any,
    model: Any = ENCODER,
    *,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
) -> list[np.ndarray]:
    """Embed every frame of recordings, from windows of the model's length that overlap by half and are averaged.

    Arguments and errors are those of `extract_embeddings`.

    Returns:
        For each recording float32 ``(T, 2d)``, zero where no person is visible.
    """
    stream = iter_frame_embeddings(
        inputs, model, reading=reading, batch_size=batch_size, device=device, dtype=dtype, each_person=each_person
    )
    return [embedding for _, embedding in stream]


def iter_frame_embeddings(
    inputs: Any,
    model: Any = ENCODER,
    *,
    reading: Reading = Reading(),
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    each_person: bool = False,
    on_error: ErrorHandler | None = None,
) -> Iterator[tuple[SkeletonSequence, np.ndarray]]:
    """Embed every frame of recordings, one recording after the other.

    Arguments and errors are those of `iter_embeddings`.

    Yields:
        Each recording, in the model's layout, with float32 ``(T, 2d)``, see `extract_frame_embeddings`.
    """
    check_batch_size(batch_size)
    engine = Engine.load(model, head=False, device=device, dtype=dtype)
    source = Source(inputs, reading, each_person=each_person, on_error=on_error)

    def encode(clips: torch.Tensor) -> torch.Tensor:
        return engine.run(clips).last_hidden_state.float()

    return frame_outputs(engine, source.prepared(engine.extractor), encode, batch_size, on_error=on_error)


def clip_embeddings(output: Any) -> torch.Tensor:
    """What clips are compared by ``(B, E)``: the encoder's readout, or its pooled output where it has none."""
    # The output class of a repository's own, older code lacks the field.
    readout = getattr(output, "readout", None)
    return output.pooler_output if readout is None else readout


@torch.inference_mode()
def embed_clips(model: USDRLPreTrainedModel, clips: torch.Tensor, *, pooled: bool = False) -> torch.Tensor:
    """Clip embeddings ``(N, E)`` float32 on the CPU of clips ``(N, T, M, V, C)``; the model is left in its mode.

    Args:
        model: A model, whose head is not used.
        clips: Normalised clips.
        pooled: Whether to give the pooled embeddings ``(N, 2d)``, which heads read, of a model with a readout, too.

    Raises:
        NonFiniteError: If one is NaN or infinite.
    """
    encoder: USDRLModel = model.base_model  # type: ignore[assignment]
    training = encoder.training
    encoder.eval()
    outputs = (encoder(part.to(encoder.device)) for part in clips.split(_CLIPS_AT_ONCE))
    parts = [(output.pooler_output if pooled else clip_embeddings(output)).float().cpu() for output in outputs]
    encoder.train(training)
    embeddings = torch.cat(parts)
    check_finite(embeddings, "the embeddings of the clips")
    return embeddings


def embed_part(
    model: USDRLPreTrainedModel,
    extractor: USDRLFeatureExtractor,
    part: SkeletonData,
    *,
    pooled: bool = False,
    change: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """Embeddings of a part of a data set, see `embed_clips`, and its labels; memory holds one batch of clips.

    Args:
        model: See `embed_clips`.
        extractor: Its feature extractor.
        part: Labelled recordings.
        pooled: See `embed_clips`.
        change: Changes the clips ``(B, T, M, V, C)`` before they are embedded.
    """
    features = []
    for start in range(0, len(part), _CLIPS_AT_ONCE):
        clips = extractor(list(part[start : start + _CLIPS_AT_ONCE]), return_tensors="pt")["keypoints"]
        features.append(embed_clips(model, clips if change is None else change(clips), pooled=pooled))
    return torch.cat(features), np.asarray(part.column("labels"))
