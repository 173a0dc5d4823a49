"""`fit_readout`: an encoder's embedding to compare clips by, from the statistics of its pretraining data."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..configuration_usdrl import USDRLConfig
from ..finite import check_finite
from ..modeling_usdrl import USDRLModel, USDRLReadout

# Numbers of equal parts of a clip, and components, of a readout.
PARTS, SIZE = (1, 2), 256


def readout_config(config: USDRLConfig, parts: Sequence[int] = PARTS, size: int = SIZE) -> USDRLConfig:
    """A configuration with a readout.

    Raises:
        ValueError: If the parts do not divide the clip, or the size is above the numbers that are pooled.
    """
    if config.is_causal:
        raise ValueError("a causal model has no readout")
    if not isinstance(parts, list | tuple) or any(type(number) is not int for number in (*parts, size)):
        raise ValueError(f"readout: parts must be a list of whole numbers and size one, got {parts!r} and {size!r}")
    return USDRLConfig.from_dict({**config.to_dict(), "readout_parts": list(parts), "readout_size": size})


def recipe_readout(config: USDRLConfig, entries: Mapping[str, Any], num_clips: int | None = None) -> dict[str, Any]:
    """The entries of a recipe as arguments of `fit_readout`, whose `size` a smaller model or archive may reduce.

    Args:
        config: Configuration of the model.
        entries: The recipe's `readout`: `parts`, `size` at most, `shrinkage`.
        num_clips: Clips that the readout will be fitted to, of which it keeps at most half as many components.

    Raises:
        ValueError: See `check_readout`.
    """
    check_readout(config, **{**entries, "size": 1})
    size = entries.get("size", SIZE)
    if type(size) is int:
        most = readout_config(config, entries.get("parts", PARTS), 1).readout_input_size
        size = min(size, most, most if num_clips is None else max(num_clips // 2, 1))
    check_readout(config, **{**entries, "size": size})
    return {**entries, "size": size}


def check_readout(config: USDRLConfig, parts: Sequence[int] = PARTS, size: int = SIZE, shrinkage: float = 0.1) -> None:
    """Refuse a readout that cannot be fitted.

    Raises:
        ValueError: See `readout_config`; or if the shrinkage is not a positive number.
    """
    readout_config(config, parts, size)
    if isinstance(shrinkage, bool) or not isinstance(shrinkage, int | float) or not 0 < shrinkage < math.inf:
        raise ValueError(f"readout: shrinkage must be a positive number, got {shrinkage!r}")


@torch.inference_mode()
def fit_readout(
    model: USDRLModel,
    batches: Iterable[torch.Tensor],
    *,
    parts: Sequence[int] = PARTS,
    size: int = SIZE,
    shrinkage: float = 0.1,
) -> None:
    """Give an encoder a readout: principal components of its pooled tokens, scaled towards equal variance.

    A few directions have nearly all the variance of a decorrelated encoder's maxima, most of which tells bodies and
    sensors apart, not motions. Component k with standard deviation s_k is divided by s_k + shrinkage * s_1, so that
    large ones count alike and small ones, which are noise, stay small.

    Args:
        model: Gets the readout, and the configuration's fields of it.
        batches: Normalised clips ``(B, T, M, V, C)``, such as the pretraining data's; no labels are used.
        parts: See `USDRLConfig`.
        size: Components that are kept.
        shrinkage: Share of the largest standard deviation that is added to each.

    Raises:
        ValueError: See `check_readout`; or if there are no more clips than components.
        NonFiniteError: If an encoding is NaN or infinite.
    """
    check_readout(model.config, parts, size, shrinkage)
    config = readout_config(model.config, parts, size)
    readout = USDRLReadout(config).to(model.device)
    training, before = model.training, model.config
    width = config.readout_input_size
    count, total, squares = 0, torch.zeros(width, dtype=torch.double), torch.zeros(width, width, dtype=torch.double)
    model.eval()
    try:
        for clips in batches:
            output = model(clips.to(model.device))
            pooled = readout.pool(output.temporal_hidden_state.float(), output.spatial_hidden_state.float())
            pooled = pooled.cpu().double()
            check_finite(pooled, "the pooled tokens of the clips")
            count, total, squares = count + len(pooled), total + pooled.sum(0), squares + pooled.T @ pooled
    finally:
        model.train(training)
    if count <= size:
        raise ValueError(f"a readout of {size} numbers needs more than {size} clips, got {count}")
    mean = total / count
    variances, directions = torch.linalg.eigh(squares / count - mean.outer(mean))
    # The largest first; rounding can make the smallest negative.
    deviations = variances.flip(0).clamp(min=0).sqrt()[:size]
    directions = directions.flip(1).T[:size]
    # Relative to the mean, whose rounding gives equal clips a variance, too.
    if not deviations[0] > 1e-6 * mean.norm():
        raise ValueError("a readout needs clips that differ")
    readout.mean.copy_(mean)
    readout.projection.copy_(directions / (deviations + shrinkage * deviations[0])[:, None])
    for name in ("readout_parts", "readout_size"):
        setattr(before, name, copy.copy(getattr(config, name)))
    model.readout = readout.to(dtype=model.dtype)
