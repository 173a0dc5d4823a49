"""The command `usdrl`: parse, call, print."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import torch
import typer
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ..distributed import Workers
from ..errors import one_sentence
from . import data, demo, hub, predict, show, train
from .messages import Notices
from .needs import App

__all__ = ["app", "main"]

app = App(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="USDRL, the foundation model for skeleton-based human action understanding.",
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"usdrl {version('usdrl-hub')}")
        except PackageNotFoundError:
            print("usdrl, of a folder that is not installed")
        raise typer.Exit


@app.callback()
def _options(
    tell_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version and end.")
    ] = False,
) -> None:
    """USDRL, the foundation model for skeleton-based human action understanding."""


# In the order of the help.
_COMMANDS: dict[str, Callable[..., None]] = {
    "predict": predict.predict,
    "embed": predict.embed,
    "render": show.render,
    "map": show.map_command,
    "finetune": train.finetune,
    "pretrain": train.pretrain,
    "evaluate": train.evaluate,
    "benchmarks": hub.benchmarks,
    "recipes": hub.recipes,
    "convert": hub.convert,
    "export": hub.export,
    "prepare": data.prepare,
    "check": data.check,
    "list": hub.list_command,
    "push": hub.push,
    "demo": demo.demo,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; wrong input ends with one sentence on stderr and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is told as well as it can.
            stream.reconfigure(errors="backslashreplace")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with Notices().told(), _ending_cleanly():
            status = _status(arguments)
            _flush()
    finally:
        Workers.leave()
    sys.exit(status)


def _flush() -> None:
    """Write what is left, unless whoever reads it, such as `head`, has enough."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Or the end of the interpreter would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    """Run the command, tell what went wrong, and let go of all that it held."""
    try:
        app(args=None if arguments is None else list(arguments))
    except _Ended as end:
        print(f"usdrl: {'interrupted' if end.code == 128 + signal.SIGINT else 'terminated'}", file=sys.stderr)
        return end.code
    except SystemExit as end:
        return end.code
    except SafetensorError as error:
        print(f"usdrl: a file cannot be written or read: {one_sentence(error)}", file=sys.stderr)
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(f"usdrl: {_too_large(error)}", file=sys.stderr)
    except RecursionError:
        print("usdrl: a file is nested too deeply to be read", file=sys.stderr)
    except (ValueError, OSError, StrictDataclassError, BrokenProcessPool) as error:
        print(f"usdrl: {one_sentence(error)}", file=sys.stderr)
    except RuntimeError as error:
        # torch has no type for what its allocator of main memory says.
        if "alloc" not in str(error):
            raise
        print(f"usdrl: {_too_large(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("usdrl: interrupted", file=sys.stderr)
        return 130
    else:
        return None
    return 2


def _too_large(error: BaseException) -> str:
    return (
        f"there is not enough memory: give a smaller --batch-size, or shorter recordings ({one_sentence(error)[:120]})"
    )
