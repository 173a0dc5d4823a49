"""What makes the same numbers faster: `acceleration/`, or nothing of it with ``USDRL_PLAIN=1``.

Everything inside the package that wants to be faster asks here, and only here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from .modeling_usdrl import USDRLPreTrainedModel

Item = TypeVar("Item")
Model = TypeVar("Model", bound=USDRLPreTrainedModel)

IS_PLAIN = os.environ.get("USDRL_PLAIN", "") not in ("", "0")


def for_inference(model: Model, packed: bool = True, keep: bool = False) -> Model:
    """The model in eval mode, fused; see `acceleration.fused.fuse`."""
    if IS_PLAIN:
        return model.eval()
    from .acceleration.fused import fuse

    return fuse(model, packed=packed, keep=keep)


def in_training(model: nn.Module) -> AbstractContextManager[None]:
    """A block in which the model is trained; see `acceleration.merged.merged_attention`."""
    if IS_PLAIN:
        return nullcontext()
    from .acceleration.merged import merged_attention

    return merged_attention(model)


def with_cuda_graph(model: Any) -> Callable[[torch.Tensor], Any]:
    """A function that computes what the model does; see `acceleration.replay.with_cuda_graph`."""
    if IS_PLAIN:
        return model
    from .acceleration import replay

    return replay.with_cuda_graph(model)


def prefetch(items: Iterable[Item], device: torch.device, count: int) -> Iterator[Item]:
    """The items, made by a thread while an accelerator computes; in turn on a CPU, where both want the same cores.

    Args:
        items: Tuples of which some parts may be tensors.
        device: Where those tensors are made.
        count: How many items may wait; see `acceleration.prefetch.prefetch`.
    """
    if IS_PLAIN or device.type == "cpu":
        return iter(items)
    from .acceleration import prefetch

    return prefetch.prefetch(items, count, device)
