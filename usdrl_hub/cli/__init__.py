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
    """Run the command; wrong input ends with one sentence on stderr and exit status 2."""
    with _ending_cleanly():
        # All else is imported where a signal ends it with one sentence.
        status = _status(arguments)
        _flush()
    sys.exit(status)


class _Ended(SystemExit):
    """The end that a signal asked for."""


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """End as on an error at SIGINT and SIGTERM, so that what is temporary goes; not where they are ignored."""

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
    """Run the command, say what went wrong, and let go of all that it held."""
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
    """Write what is left, unless whoever reads it, such as `head`, has enough."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Or the end of the interpreter would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
