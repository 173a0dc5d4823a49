"""Errors of single inputs and warnings, printed to stderr."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from tqdm import tqdm

from ..errors import USDRLWarning, one_sentence, printable


class Errors:
    """Errors of single inputs: printed at once, and counted for the exit status."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        """Print an error and count it."""
        self.count += 1
        tqdm.write(f"usdrl: {one_sentence(error)}", file=sys.stderr)

    def finish(self) -> None:
        """Exit with status 2 if there were errors."""
        if self.count:
            raise typer.Exit(2)


class Notices:
    """Warnings: the first of each kind is printed at once, the number of further ones at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # Kinds with several messages; warnings without a kind repeat the same message.
        self.kinds: set[str] = set()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect this package's warnings within the block; other warnings are shown as usual."""
        with warnings.catch_warnings():
            # Notes for developers, on which a user of the command cannot act.
            warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers")
            warnings.filterwarnings("always", category=USDRLWarning)
            usual = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
                if isinstance(message, USDRLWarning):
                    self.add(message)
                else:
                    usual(message, category, *place, **more)

            warnings.showwarning = show
            try:
                yield
            finally:
                self.finish()

    def add(self, warning: USDRLWarning) -> None:
        """Print a warning if it is the first of its kind."""
        self.counts[warning.kind] += 1
        if warning.kind != str(warning):
            self.kinds.add(warning.kind)
        if self.counts[warning.kind] == 1:
            tqdm.write(f"usdrl: note: {one_sentence(warning)}", file=sys.stderr)

    def finish(self) -> None:
        """Print the number of further warnings of each kind."""
        for kind, count in self.counts.items():
            if count > 1 and kind in self.kinds:
                tqdm.write(f"usdrl: note: {count - 1} more like it ({printable(kind)})", file=sys.stderr)
