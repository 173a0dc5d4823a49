"""Tables and lines on stdout."""

from __future__ import annotations

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
        print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first row as the header."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            say("  ".join("-" * width for width in widths))
