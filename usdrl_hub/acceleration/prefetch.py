"""Prefetching: a thread computes the next items while earlier ones are used; and fetching results from a GPU."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], count: int = 2, device: torch.device | None = None) -> Iterator[Item]:
    """Yield items that a thread computes up to `count` ahead.

    An error is raised in the position of its item. Closing the generator stops the thread after its current item.

    Args:
        items: An iterable that computes the items.
        count: Most items computed ahead.
        device: Device of the tensors in items, which are then tuples. On a GPU the thread has its own stream;
            otherwise each item would wait for all work that the consumer has launched.
    """
    # Of high priority: its kernels are few and short, and the consumer waits for them.
    stream = torch.cuda.Stream(device, priority=-1) if device is not None and device.type == "cuda" else None
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=count)
    stopped = threading.Event()

    def put(is_item: bool, value: Any) -> bool:
        while not stopped.is_set():
            try:
                made.put((is_item, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            with torch.inference_mode(), torch.cuda.stream(stream):
                for item in items:
                    if stream is not None:
                        stream.synchronize()
                    if not put(True, item):
                        return
            put(False, None)
        except BaseException as error:
            put(False, error)

    worker = threading.Thread(target=work, daemon=True, name="usdrl-prefetch")
    worker.start()
    try:
        while True:
            is_item, value = made.get()
            if is_item:
                for part in value if stream is not None else ():
                    if isinstance(part, torch.Tensor):
                        # The allocator must not reuse its memory before the consumer's stream has finished with it.
                        part.record_stream(torch.cuda.current_stream(device))
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        stopped.set()
        worker.join()


def fetch(values: Iterable[tuple[Item, torch.Tensor]], behind: int = 3) -> Iterator[tuple[Item, np.ndarray]]:
    """Copy tensors of a GPU to the CPU while it computes the next ones.

    An error is raised in the position of its item.

    Args:
        values: Items, each with a tensor, which may be overwritten by the next one's.
        behind: Tensors that are being computed while the caller has an earlier one. Several keep the GPU busy while
            other threads keep this one waiting.
    """
    iterator = iter(values)
    waiting: deque[tuple[Item, torch.Tensor, torch.cuda.Event]] = deque()
    failed: Exception | None = None
    ended = False
    while True:
        while not ended and len(waiting) <= behind:
            try:
                item, tensor = next(iterator)
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                copy.copy_(tensor, non_blocking=True)
                copied = torch.cuda.Event()
                # That of the tensor's device, which need not be the current one.
                copied.record(torch.cuda.current_stream(tensor.device))
                waiting.append((item, copy, copied))
            except StopIteration:
                ended = True
            except Exception as error:
                failed, ended = error, True
        if not waiting:
            break
        item, copy, copied = waiting.popleft()
        copied.synchronize()
        # The caller may keep it, and pinned memory is for copying only.
        yield item, copy.numpy().copy()
    if failed is not None:
        raise failed
