"""What the command writes on stderr: errors of single inputs, and warnings."""

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
    """Errors of single inputs: told on stderr as they come, and in the exit status at the end."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        """Print an error and count it."""
        self.count += 1
        tqdm.write(f"usdrl: {one_sentence(error)}", file=sys.stderr)

    def finish(self) -> None:
        """End with status 2 if there were errors."""
        if self.count:
            raise typer.Exit(2)


class Notices:
    """Warnings told on stderr: the first of each kind as it comes, and how many more there were at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # Those that are not the whole message: others were told in full.
        self.kinds: set[str] = set()

    @contextmanager
    def told(self) -> Iterator[None]:
        """While the command runs, warnings of this package come here; others go their usual way."""
        with warnings.catch_warnings():
            # Notes of libraries to developers, which a user of the command can do nothing about.
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
        """Tell a warning, unless one of its kind was told already."""
        self.counts[warning.kind] += 1
        if warning.kind != str(warning):
            self.kinds.add(warning.kind)
        if self.counts[warning.kind] == 1:
            tqdm.write(f"usdrl: note: {one_sentence(warning)}", file=sys.stderr)

    def finish(self) -> None:
        """Tell of how many more there were."""
        for kind, count in self.counts.items():
            if count > 1 and kind in self.kinds:
                tqdm.write(f"usdrl: note: {count - 1} more like it ({printable(kind)})", file=sys.stderr)
