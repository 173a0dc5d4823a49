"""Vectorised parsing of lines of decimal numbers, with the results of `float`."""

from __future__ import annotations

import numpy as np

# Characters of the longest number that is parsed.
_WIDEST = 12


def plain_decimals(rows: list[str], fields: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Parse the first three numbers of each line.

    The digits of a plain decimal such as ``-0.2059419`` make an exact integer, and one division by a power of ten
    rounds as `float` does.

    Args:
        rows: N lines of numbers, one space apart.
        fields: Numbers of a line; None for three or more.

    Returns:
        The numbers ``(N, 3)`` float64, and which lines were parsed ``(N,)``; the caller parses the others.
    """
    margin = " " * _WIDEST
    text = np.frombuffer(" ".join([margin, *rows, margin]).encode("ascii"), dtype=np.uint8)
    ends = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)) + 1) + _WIDEST
    first = ends - np.diff(ends, prepend=_WIDEST) + 1
    spaces = np.flatnonzero(text == ord(" "))
    # Spaces of each line, including the one that ends it.
    before_line = np.searchsorted(spaces, first)
    count = np.searchsorted(spaces, ends) - before_line + 1
    read = count >= 3 if fields is None else count == fields
    stop = spaces[before_line[:, None] + np.arange(3)]
    start = np.concatenate([first[:, None], stop[:, :2] + 1], axis=1)
    minus = text[start] == ord("-")
    size = np.minimum(stop - start - minus, _WIDEST + 1).astype(np.int8).ravel()
    # Each number is right-aligned in a column and padded with zeros.
    position = np.arange(_WIDEST, dtype=np.int8)[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(text, _WIDEST)[stop.ravel() - _WIDEST]
    digits = np.ascontiguousarray(windows.T) - np.uint8(ord("0"))
    digits[position < _WIDEST - size] = 0
    dot = digits == np.uint8((ord(".") - ord("0")) % 256)
    has_dot = dot.any(axis=0)
    whole = np.where(has_dot, dot.argmax(axis=0), _WIDEST).astype(np.int8)
    # Only the first point is removed: a second one is not a digit, and refused.
    digits[dot & (position == whole)] = 0
    plain = (size > has_dot) & (size <= _WIDEST) & (digits <= 9).all(axis=0)
    read &= plain.reshape(-1, 3).all(axis=1)
    powers = 10.0 ** np.arange(_WIDEST - 1, -1, -1)
    before = powers @ np.where(position < whole, digits, np.uint8(0)).astype(np.float64)
    # The digits before the point are one column too far left.
    integer = powers @ digits.astype(np.float64) - before + np.where(has_dot, before / 10, before)
    result = (integer / 10.0 ** np.maximum(_WIDEST - 1 - whole, 0)).reshape(-1, 3)
    return np.where(minus, -result, result), read
