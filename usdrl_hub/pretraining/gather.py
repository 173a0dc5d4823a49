"""Clip embeddings of all processes, for a loss that is a statistic of the whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class _Gather(torch.autograd.Function):
    """Join the clips of all processes, in order of rank, with gradients for each process's own clips.

    Every process computes the same loss of the joined batch, and distributed training averages over processes: with
    the gradients summed here, that average is the gradient of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, pooled: torch.Tensor) -> torch.Tensor:
        ctx.size = pooled.shape[1]
        gathered = [torch.empty_like(pooled) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, pooled.contiguous())
        return torch.cat(gathered, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.narrow(1, dist.get_rank() * ctx.size, ctx.size)


def gather_clips(pooled: torch.Tensor) -> torch.Tensor:
    """Join the embeddings of all processes' clips.

    Args:
        pooled: Embeddings ``(n, B, 2d)`` of n views of this process's clips; B is the same in every process.

    Returns:
        ``(n, W * B, 2d)`` of W processes, in order of rank; `pooled` itself where there is one process.
    """
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return _Gather.apply(pooled) if several else pooled
