"""CUDA graphs: the kernels of a batch are launched by one call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from ..modeling_usdrl import USDRLPreTrainedModel
from .fused import is_fused
from .merged import is_hooked

# Capturing a graph takes as long as a few batches.
_BATCHES_BEFORE_REPLAY = 4
_RECORDING = threading.Lock()


def with_cuda_graph(model: Any) -> Callable[[torch.Tensor], Any]:
    """Wrap a fused CUDA model so that equal-sized batches replay a CUDA graph.

    Other models are returned unchanged, also hooked ones: a graph does not call hooks.
    """
    if not isinstance(model, USDRLPreTrainedModel) or model.device.type != "cuda" or not is_fused(model):
        return model
    if any(map(is_hooked, model.modules())):
        return model
    return CUDAGraphReplay(model)


class CUDAGraphReplay:
    """A fused model that captures a CUDA graph for batches of the first size.

    Launching kernels one by one takes longer than running them, and blocks the prefetching thread. The output of a
    replay is overwritten by the next one.
    """

    def __init__(self, model: USDRLPreTrainedModel):
        self.model = model
        # Shape of the first batch, which all but the last have, and the number of batches with it so far.
        self.size: torch.Size | None = None
        self.count = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, clips: torch.Tensor) -> Any:
        """Compute the model's output."""
        self.size = self.size or clips.shape
        if clips.shape != self.size:
            # Frees the graph's memory.
            self.graph = self.output = None
            self.count = 0
            return self.model(clips)
        self.count += 1
        if self.graph is None:
            if self.count < _BATCHES_BEFORE_REPLAY:
                return self.model(clips)
            self.record(clips)
        self.clips.copy_(clips)
        self.graph.replay()  # type: ignore[union-attr]
        return self.output

    def record(self, clips: torch.Tensor) -> None:
        """Capture a run, after a warm-up in the same stream that initialises libraries."""
        # One capture at a time per process, on a stream of the model's GPU: torch's default capture stream may be on
        # another one.
        with _RECORDING, torch.cuda.device(self.model.device):
            self.clips = torch.empty_like(clips).copy_(clips)
            side, current = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                self.model(self.clips)
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # The prefetching thread may run at the same time.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                self.output = self.model(self.clips)
            self.graph = graph
