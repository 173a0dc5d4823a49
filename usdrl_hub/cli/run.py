"""Run a command; errors become one sentence on stderr."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from safetensors import SafetensorError

from ..after_import import after_import
from ..errors import one_sentence
from .app import app
from .messages import Notices


def run(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: Words of the command line; those of this process if None.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal's encoding lacks are escaped.
            stream.reconfigure(errors="backslashreplace")
    after_import("transformers.utils.logging", _quieten_transformers)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with Notices().collected():
            return _run(arguments)
    finally:
        # Imported here it would import torch again where a signal has broken off torch's import.
        workers = getattr(sys.modules.get("usdrl_hub.distributed"), "Workers", None)
        if workers is not None:
            workers.leave()


def _quieten_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _run(arguments: Sequence[str] | None) -> int:
    try:
        app(args=None if arguments is None else list(arguments))
    except SafetensorError as error:
        print(f"usdrl: a file cannot be written or read: {one_sentence(error)}", file=sys.stderr)
    except RecursionError:
        print("usdrl: a file is nested too deeply to be read", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, BrokenProcessPool):
            print(f"usdrl: {one_sentence(error)}", file=sys.stderr)
        # torch's CPU allocator raises a plain RuntimeError.
        elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "alloc" in str(error):
            said = one_sentence(error)[:120]
            advice = "give a smaller --batch-size, or shorter recordings"
            print(f"usdrl: there is not enough memory: {advice} ({said})", file=sys.stderr)
        else:
            raise
    except (ValueError, OSError) as error:
        print(f"usdrl: {one_sentence(error)}", file=sys.stderr)
    except Exception as error:
        from huggingface_hub.errors import StrictDataclassError

        if not isinstance(error, StrictDataclassError):
            raise
        print(f"usdrl: {one_sentence(error)}", file=sys.stderr)
    else:
        return 0
    return 2
