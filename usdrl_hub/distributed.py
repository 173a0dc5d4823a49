"""Distributed jobs, as started by ``accelerate launch`` or ``torchrun``."""

from __future__ import annotations

# torch is imported where it is used: commands that compute nothing, as `usdrl prepare`, read their share here, too.
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

# The variables that a launcher sets for each process, and the values without a launcher.
_LAUNCHED = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@dataclass(frozen=True)
class Workers:
    """This process's position in a distributed job; the defaults describe a single process.

    Attributes:
        rank: Rank of this process, from 0.
        count: Number of processes.
        local_rank: Rank on its machine, which is the index of its GPU.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> Workers:
        """Read the launcher's environment variables."""
        return cls(*(int(os.environ.get(name, default)) for name, default in _LAUNCHED.items()))

    @classmethod
    def of_shard(cls, shard: str | None) -> Workers:
        """Position of a process that a scheduler started with its share of the work, such as "3/8"; None is all of it.

        Raises:
            ValueError: If it is not a share, from 1/n to n/n.
        """
        if shard is None:
            return cls()
        number, _, count = shard.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 1_000_000):
            raise ValueError(f"a shard is i/n with i from 1 to n, such as 3/8, not '{shard}'")
        return cls(int(number) - 1, int(count))

    @property
    def is_first(self) -> bool:
        """Whether this process writes the results and prints messages for all."""
        return self.rank == 0

    @property
    def device(self) -> str | None:
        """The GPU of this process; None for a single process or without GPUs."""
        import torch

        return f"cuda:{self.local_rank}" if self.count > 1 and torch.cuda.is_available() else None

    def share(self, count: int, block: int) -> slice:
        """The slice of `count` items that this process handles: contiguous whole blocks, in order of rank.

        With `block` equal to the batch size, batches are the same as in a single process.
        """
        blocks = -(-count // block)
        first, end = (self.rank * blocks // self.count, (self.rank + 1) * blocks // self.count)
        return slice(first * block, min(end * block, count))

    @contextmanager
    def gathered(self, item: Any) -> Iterator[list[Any]]:
        """Gather an item from every process, in order of rank; the block's end is a barrier."""
        if self.count == 1:
            yield [item]
            return
        import torch.distributed as dist

        if not dist.is_initialized():
            # The slowest process may take hours longer than the fastest.
            dist.init_process_group("gloo", timeout=timedelta(days=7))
        items: list[Any] = [None] * self.count
        dist.all_gather_object(items, item)
        try:
            yield items
        finally:
            dist.barrier()

    @staticmethod
    def leave() -> None:
        """Destroy the process group; call it last, when no distributed model is referenced any more.

        PyTorch's communication threads end with the last reference to the group, which a distributed model holds. A
        model in a reference cycle (a trainer with a patched method) lives until garbage collection. At interpreter
        exit that is too late: a thread that still frees a tensor aborts the process (PyTorch issue 190489), and the
        launcher then stops the others.
        """
        dist = sys.modules.get("torch.distributed")
        if dist is not None and dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
            gc.collect()
