"""The command `usdrl`: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; invalid input ends with one sentence on stderr and exit status 2."""
    with _ending_cleanly():
        # Everything else is imported within this block, so that a signal during imports ends cleanly, too.
        status = _status(arguments)
        _flush()
    sys.exit(status)


class _Ended(SystemExit):
    """Exit on a signal."""


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into exceptions, so that temporary files are deleted; ignored signals stay ignored."""

    def end(number: int, _: Any) -> None:
        raise _Ended(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _status(arguments: Sequence[str] | None) -> int | str | None:
    """Run the command and return its exit status."""
    try:
        from .run import run

        return run(arguments)
    except _Ended as end:
        print(f"usdrl: {'interrupted' if end.code == 128 + signal.SIGINT else 'terminated'}", file=sys.stderr)
        return end.code
    except SystemExit as end:
        return end.code
    except KeyboardInterrupt:
        print("usdrl: interrupted", file=sys.stderr)
        return 130


def _flush() -> None:
    """Flush stdout; a closed pipe, as of `head`, is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter prints an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
