"""Tables and lines on stdout."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import printable

if TYPE_CHECKING:
    from ..inference.prediction import Prediction


def say(text: str) -> None:
    """Print lines with control characters escaped, as they quote names from untrusted files."""
    print("\n".join(printable(line) for line in text.split("\n")))


def heading(model: str, names: Sequence[str]) -> str:
    """The line above predictions: the model and its classes."""
    shown = ", ".join(map(printable, names[:10])) + (", ..." if len(names) > 10 else "")
    return f"model {model}, {len(names)} classes: {shown}"


def print_predictions(
    predictions: Iterable[Prediction],
    model: str,
    names: Sequence[str],
    top_k: int,
    *,
    truth: bool = False,
    threshold: float | None = None,
) -> None:
    """Print a table with the most probable classes of each recording.

    Args:
        predictions: Predictions of recordings.
        model: The model's name.
        names: Its classes.
        top_k: Number of classes shown.
        truth: Also show the labels.
        threshold: Similarity below which a recording is none of the classes; None where the model cannot tell.
    """
    header = ["file", *(f"{rank + 1}." for rank in range(min(top_k, len(names)))), *(["truth"] if truth else [])]
    rows = [header]
    for prediction in predictions:
        row = [prediction.sequence.name]
        row += [
            f"{value:.4g} {label}" if prediction.is_regression else f"{100 * value:5.1f} % {label}"
            for label, value in prediction.top(top_k)
        ]
        if not prediction.is_known:
            row = [row[0], f"{prediction.label} (most like {row[1].split('% ')[-1]})", *[""] * (len(row) - 2)]
        if truth:
            label = prediction.sequence.label
            row.append("" if label is None else prediction.class_names[label])
        rows.append(row)
    # Without rows, the errors of all recordings have been printed.
    if len(rows) > 1:
        say(heading(model, names))
        if threshold:
            say(f"less similar than {threshold:.2f} to the training clips of a class: none of these (--threshold)")
        say("")
        shown = fitted(rows, fixed=1 + truth) if sys.stdout.isatty() else rows
        print_table(shown)
        if len(shown[0]) < len(header):
            left = len(shown[0]) - 1 - truth
            say(f"\n{left} of {len(header) - 1 - truth} classes fit this terminal: --json prints all")


def fitted(rows: Sequence[Sequence[str]], *, fixed: int, shortest: int = 24) -> list[list[str]]:
    """Rows of a table that fit the terminal: long cells are cut first, then columns of ranks are left out.

    Args:
        rows: Rows of the same number of cells: a name, cells by rank, and perhaps a last one.
        fixed: Columns that stay: 1 for the first, 2 for the first and the last.
        shortest: Length to which cells behind the first may be cut.
    """
    width = shutil.get_terminal_size().columns
    cut, length = [list(row) for row in rows], max(len(cell) for row in rows for cell in row[1:])
    while _width(cut) > width and length > shortest:
        length -= 1
        cut = [
            [row[0], *(cell if len(cell) <= length else cell[: length - 1] + "…" for cell in row[1:])] for row in rows
        ]
    while _width(cut) > width and len(cut[0]) > fixed + 1:
        at = len(cut[0]) - fixed
        cut = [row[:at] + row[at + 1 :] for row in cut]
    return cut


def _width(rows: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True)) - 2


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first row as the header."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            say("  ".join("-" * width for width in widths))
