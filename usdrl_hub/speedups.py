"""The only door to `acceleration/`; with ``USDRL_PLAIN=1`` everything computes the same without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
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
    """A context in which the model trains; see `acceleration.merged.training_layers`."""
    if IS_PLAIN:
        return nullcontext()
    from .acceleration.merged import training_layers

    return training_layers(model)


def with_cuda_graph(model: Any) -> Callable[[torch.Tensor], Any]:
    """The model, with CUDA graphs where they pay off; see `acceleration.replay.with_cuda_graph`."""
    if IS_PLAIN:
        return model
    from .acceleration import replay

    return replay.with_cuda_graph(model)


def prefetch(items: Iterable[Item], device: torch.device, count: int) -> Iterator[Item]:
    """Compute items in a thread while an accelerator works; on a CPU, in turn, as both would need the same cores.

    Args:
        items: Tuples that may contain tensors.
        device: Device of those tensors.
        count: Most items computed ahead; see `acceleration.prefetch.prefetch`.
    """
    if IS_PLAIN or device.type == "cpu":
        return iter(items)
    from .acceleration import prefetch

    return prefetch.prefetch(items, count, device)


def fetch(values: Iterable[tuple[Item, torch.Tensor]], device: torch.device) -> Iterator[tuple[Item, np.ndarray]]:
    """Copy tensors to the CPU; from a GPU while it computes the next ones.

    Args:
        values: Items, each with a tensor.
        device: Device of the tensors; the CPU for those that must not wait for the next.
    """
    if IS_PLAIN or device.type != "cuda":
        return ((item, tensor.cpu().numpy()) for item, tensor in values)
    from .acceleration import prefetch

    return prefetch.fetch(values)
