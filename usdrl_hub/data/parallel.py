"""Files read in several processes: results in order, with the notices of those processes."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from ..errors import USDRLWarning, notice

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Items that a process takes at once, and blocks that it is ahead of the caller at most, which bounds memory.
_BLOCK, _AHEAD = 16, 4


class ReadingPool:
    """`map` in this process, or in several that end with the block or with this process.

    Example::

        with ReadingPool(workers=4) as pool:
            for found in pool.map(read, files):
                ...
    """

    def __init__(self, workers: int = 1):
        """Start nothing yet.

        Args:
            workers: Processes; 1 means this one.

        Raises:
            ValueError: If it is less than 1.
        """
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers
        self._pool = ProcessPoolExecutor(workers, initializer=_begin_worker) if workers > 1 else None

    def __enter__(self) -> ReadingPool:
        """Return the pool itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """End the processes; items that wait are left."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Yield the result of each item in order.

        Args:
            work: What to do with an item; it, the items and the results must be picklable where there are several
                processes. Its notices are issued in this process, before its result is yielded.
            items: They are taken one after the other, not long before they are needed.
        """
        if self._pool is None:
            yield from map(work, items)
            return
        rest = iter(items)
        waiting: deque[Future[list[tuple[_Result, list[tuple[str, str]]]]]] = deque()
        while block := list(islice(rest, _BLOCK)):
            waiting.append(self._pool.submit(_work_on, work, block))
            if len(waiting) > _AHEAD * self.workers:
                yield from _results(waiting.popleft())
        while waiting:
            yield from _results(waiting.popleft())


def with_notices(work: Callable[[_Item], _Result], item: _Item) -> tuple[_Result, list[tuple[str, str]]]:
    """The result of an item, and in place of its notices their messages and kinds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", USDRLWarning)
        result = work(item)
    messages = [warning.message for warning in caught]
    return result, [(str(message), message.kind) for message in messages if isinstance(message, USDRLWarning)]


def _work_on(work: Callable[[Any], Any], block: Sequence[Any]) -> list[tuple[Any, list[tuple[str, str]]]]:
    return [with_notices(work, item) for item in block]


def _results(future: Future[list[tuple[_Result, list[tuple[str, str]]]]]) -> Iterator[_Result]:
    for result, notices in future.result():
        for message, kind in notices:
            notice(message, kind)
        yield result


def _begin_worker() -> None:
    """Let a reading process end with its parent, however that ends, and only then."""
    # Ctrl-C reaches all processes of a terminal; the parent reports it and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
