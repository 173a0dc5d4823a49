"""Parsing of many lines of decimal numbers at once, to the digit as `float` parses them."""

from __future__ import annotations

import numpy as np

# Characters of the longest number that is read with all others at once.
_WIDEST = 12


def plain_decimals(rows: list[str], fields: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first three numbers of all lines ``(N, 3)`` float64 at once, as `float` reads them, and which were read.

    Read are lines of `fields` numbers one space apart that begin with plain decimals such as ``-0.2059419``: their
    digits make an exact integer, and one division by a power of ten rounds as `float` does. The other lines are for
    the caller.
    """
    margin = " " * _WIDEST
    text = np.frombuffer(" ".join([margin, *rows, margin]).encode("ascii"), dtype=np.uint8)
    ends = np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)) + 1) + _WIDEST
    first = ends - np.diff(ends, prepend=_WIDEST) + 1
    spaces = np.flatnonzero(text == ord(" "))
    # The spaces of a line, counted on from the last one before it; the one that ends it is counted, too.
    before_line = np.searchsorted(spaces, first)
    count = np.searchsorted(spaces, ends) - before_line + 1
    read = count >= 3 if fields is None else count == fields
    stop = spaces[before_line[:, None] + np.arange(3)]
    start = np.concatenate([first[:, None], stop[:, :2] + 1], axis=1)
    minus = text[start] == ord("-")
    size = np.minimum(stop - start - minus, _WIDEST + 1).astype(np.int8).ravel()
    # Each number right-aligned in a column of its own, with zeros before it.
    place = np.arange(_WIDEST, dtype=np.int8)[:, None]
    windows = np.lib.stride_tricks.sliding_window_view(text, _WIDEST)[stop.ravel() - _WIDEST]
    digits = np.ascontiguousarray(windows.T) - np.uint8(ord("0"))
    digits[place < _WIDEST - size] = 0
    dot = digits == np.uint8((ord(".") - ord("0")) % 256)
    has_dot = dot.any(axis=0)
    whole = np.where(has_dot, dot.argmax(axis=0), _WIDEST).astype(np.int8)
    # Only the first point is taken out: a second one, as any letter, is no digit.
    digits[dot & (place == whole)] = 0
    plain = (size > has_dot) & (size <= _WIDEST) & (digits <= 9).all(axis=0)
    read &= plain.reshape(-1, 3).all(axis=1)
    powers = 10.0 ** np.arange(_WIDEST - 1, -1, -1)
    before = powers @ np.where(place < whole, digits, np.uint8(0)).astype(np.float64)
    # The digits before the point stand one place too far left.
    integer = powers @ digits.astype(np.float64) - before + np.where(has_dot, before / 10, before)
    result = (integer / 10.0 ** np.maximum(_WIDEST - 1 - whole, 0)).reshape(-1, 3)
    return np.where(minus, -result, result), read
