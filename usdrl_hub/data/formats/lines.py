"""Text of motion-capture files: any encoding and line ending in, rows of numbers out."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np

from ...sequence import SkeletonFormatError


def read_text(path: Path) -> bytes:
    """The text of a file as UTF-8 without a byte order mark, its lines ended by a line feed.

    Raises:
        SkeletonFormatError: If it is UTF-16 that is cut.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeError:
            raise SkeletonFormatError(f"{path}: it is UTF-16 text that is truncated or damaged") from None
    content = content.removeprefix(codecs.BOM_UTF8)
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content


def as_text(content: bytes) -> str:
    """A name or a line as text; bytes that are not UTF-8 are read as Latin-1."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def fields_per_line(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """How many fields each line that has any has, and the lines' indices from 0, both int64 ``(L,)``."""
    text = np.frombuffer(b"\n" + block + b"\n", dtype=np.uint8)
    blank = text <= ord(" ")
    begins = np.flatnonzero(blank[:-1] & ~blank[1:])
    counts = np.diff(np.searchsorted(begins, np.flatnonzero(text == ord("\n"))))
    lines = np.flatnonzero(counts)
    return counts[lines], lines


def parse_rows(block: bytes, columns: int, path: Path, first_line: int, what: str) -> np.ndarray:
    """Parse lines of numbers between blanks; empty lines are passed over.

    Args:
        block: The lines.
        columns: Numbers in each line.
        path: The file, for errors.
        first_line: The number of the first line in the file, from 1.
        what: What a line stands for, such as "a frame".

    Returns:
        Array ``(lines, columns)`` float64; NaN and infinity are left to the caller.

    Raises:
        SkeletonFormatError: If a line has another number of fields, or a field is not a number.
    """
    counts, lines = fields_per_line(block)
    if (counts != columns).any():
        wrong = int(np.flatnonzero(counts != columns)[0])
        raise SkeletonFormatError(
            f"{path}, line {first_line + int(lines[wrong])}: {int(counts[wrong])} numbers for {what}, "
            f"expected {columns}"
        )
    return parse_numbers(block, len(counts) * columns, path, first_line).reshape(-1, columns)


def parse_numbers(block: bytes, count: int, path: Path, first_line: int) -> np.ndarray:
    """Parse numbers between blanks and line ends, float64 ``(count,)``.

    Raises:
        SkeletonFormatError: If a field is not a number; the message names its line.
    """
    if b"," in block and b"." not in block:
        block = block.replace(b",", b".")
    # Where only digits, signs, points, exponents and perhaps NaN are in it.
    if not block.translate(None, b"0123456789+-.eE \t\nnNaA"):
        try:
            # NumPy stops at what is not a number: older ones warn, newer ones raise.
            numbers = np.fromstring(block, sep=" ")
            if len(numbers) == count:
                return numbers
        except (ValueError, DeprecationWarning):
            pass
    return _numbers_one_by_one(block, path, first_line)


def _numbers_one_by_one(block: bytes, path: Path, first_line: int) -> np.ndarray:
    """See `parse_numbers`: also NaN and infinity as words."""
    numbers: list[float] = []
    for line, text in enumerate(block.split(b"\n"), first_line):
        for field in text.split():
            try:
                # Python takes 1_000 for a number.
                if b"_" in field:
                    raise ValueError
                numbers.append(float(field))
            except ValueError:
                raise SkeletonFormatError(f"{path}, line {line}: '{as_text(field)[:40]}' is not a number") from None
    return np.array(numbers)


def rate_of(text: str) -> float | None:
    """Frames per second of a time between frames in seconds, as written: 0.008333 is 120.

    Returns:
        The whole number that the time is rounded from, where there is one; None where it is not a time.
    """
    try:
        seconds = float(text)
    except ValueError:
        return None
    if not 1e-4 <= seconds <= 100:
        return None
    mantissa = text.strip().lower().partition("e")
    # The last digit written stands for so many seconds.
    digit = 10.0 ** (int(mantissa[2] or 0) - len(mantissa[0].partition(".")[2]))
    whole = round(1 / seconds)
    return float(whole) if whole and abs(1 / whole - seconds) <= digit else 1 / seconds
