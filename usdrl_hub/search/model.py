"""What tells the model of an index from others: its embeddings of fixed clips, and how it makes clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..finite import check_finite
from ..inference.embedding import clip_embeddings
from ..inference.engine import Engine
from ..inference.scores import NOT_FINITE
from ..layouts import get_layout
from .files import IndexFormatError, Maker
from .vectors import unit_vectors

# Settings of a feature extractor that do not change how a clip is made: which people are kept, what NaN means, and
# what describes the file.
_FREE = ("missing", "choose_by", "relink", "feature_extractor_type", "processor_class", "transformers_version")
# Cosine similarity of the probe's embeddings from which two models are the same. Fused or not, on whichever device and
# in float16, they differ by less than 2e-6; weights that differ by 0.5 % have 0.99997, by 2 % 0.9996.
_SAME, _SAME_IN_BFLOAT16 = 0.99999, 0.999


def probe(engine: Engine) -> np.ndarray:
    """Unit embeddings ``(2, D)`` of two fixed clips, which tell models, revisions and readouts apart."""
    extractor = engine.extractor
    joints = get_layout(extractor.layout).num_joints
    shape = (2, extractor.num_frames, extractor.num_persons, joints, extractor.num_channels)
    # Smooth and of the size of a body; a formula, so that no random generator has to stay as it is.
    steps = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    clips = np.sin(0.731 * steps) * 0.5 + np.sin(0.0137 * steps + shape[0])
    tensor = torch.from_numpy(clips.astype(np.float32)).to(engine.device)
    found = clip_embeddings(engine.run(tensor)).float().cpu().numpy()
    check_finite(found, "the embeddings of the model", NOT_FINITE)
    return unit_vectors(found)


def maker_of(engine: Engine, name: str) -> Maker:
    """What an index states of the model that made it; `name` is what it is loaded by."""
    rows = probe(engine).astype(np.float64).round(6).tolist()
    return Maker(name, _dtype(engine), tuple(map(tuple, rows)), _settings(engine))


def same_model(one: Maker, other: Maker) -> tuple[bool, float]:
    """Whether two models give the same embeddings of the same clips, and the least cosine similarity of those.

    Types of a different precision do not make two models of one.
    """
    least = _SAME_IN_BFLOAT16 if "bfloat16" in (one.dtype, other.dtype) else _SAME
    similar = float((np.array(one.probe) * np.array(other.probe)).sum(1).min())
    return similar >= least, similar


def _dtype(engine: Engine) -> str:
    return str(engine.model.dtype).removeprefix("torch.")


def _settings(engine: Engine) -> Mapping[str, Any]:
    """Settings of the feature extractor that every clip depends on, as JSON gives them back."""
    return _plain({key: value for key, value in engine.extractor.to_dict().items() if key not in _FREE})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def check_maker(maker: Maker, engine: Engine, where: str) -> None:
    """Refuse a model whose embeddings cannot be compared with those of an index.

    Args:
        maker: What made the index.
        engine: The model.
        where: The index, for the message.

    Raises:
        IndexFormatError: If it is another model, revision or readout, or makes its clips otherwise.
    """
    sizes = len(maker.probe[0]), engine.model.config.clip_embedding_size
    if sizes[0] != sizes[1]:
        raise IndexFormatError(
            f"{where}: its embeddings by {maker.name} have {sizes[0]} numbers, those of this model {sizes[1]}: take "
            "the model, revision and readout that made it"
        )
    settings = _settings(engine)
    for key in sorted({*maker.preprocessing, *settings}):
        if maker.preprocessing.get(key) != settings.get(key):
            raise IndexFormatError(
                f"{where}: it was made with the preprocessing {key}={maker.preprocessing.get(key)}, this model has "
                f"{settings.get(key)}: take the model that made it ({maker.name})"
            )
    same, similar = same_model(maker, maker_of(engine, ""))
    if not same:
        raise IndexFormatError(
            f"{where}: it was made by another model or revision ({maker.name}): the embeddings of the same clip have "
            f"a cosine similarity of {similar:.5f}: take the one that made it"
        )
