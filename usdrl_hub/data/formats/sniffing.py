"""What kind of file a recording is: its content decides, and its ending only where the content could be several."""

from __future__ import annotations

import codecs
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# Bytes from which a kind is known.
_BEGINNING = 1 << 16
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][-+]?[0-9]+)?|nan", re.IGNORECASE)


@dataclass(frozen=True)
class Beginning:
    """The beginning of a file.

    Attributes:
        path: The file.
        content: Its first bytes.
    """

    path: Path
    content: bytes

    @cached_property
    def text(self) -> str | None:
        """It as text; None where it is none."""
        content = self.content
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content[: len(content) // 2 * 2].decode("utf-16", "replace")
        if b"\0" in content:
            return None
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")

    @cached_property
    def lines(self) -> list[str]:
        """Its whole lines that are not empty; the last one only where the file ends with it."""
        lines = re.split(r"[\r\n]+", (self.text or "").lstrip())
        if len(self.content) == _BEGINNING and len(lines) > 1:
            lines.pop()
        return [line for line in lines if line.strip()]

    @property
    def suffix(self) -> str:
        """The ending of its name, in lower case."""
        return self.path.suffix.lower()


def separator_of(line: str) -> str | None:
    """What separates the cells of a line: a tab, a semicolon, a comma, or blanks (None)."""
    return next((separator for separator in "\t;," if separator in line), None)


def cells_of(line: str) -> list[str]:
    """Cells of a line, without an empty one at its end."""
    separator = separator_of(line)
    cells = [cell.strip() for cell in line.split(separator)]
    return cells[:-1] if len(cells) > 1 and not cells[-1] else cells


def is_number(cell: str) -> bool:
    """Whether a cell is a number, with a point or a comma, or NaN."""
    return _NUMBER.fullmatch(cell) is not None


def _starts(*texts: str) -> Callable[[Beginning], bool]:
    return lambda head: (head.text or "").lstrip().startswith(texts)


def _starts_with_bytes(*texts: bytes) -> Callable[[Beginning], bool]:
    return lambda head: head.content.startswith(texts)


def array_names(path: Path) -> set[str]:
    """Names of the arrays in an archive; none where it is damaged, or no archive."""
    return {name.removesuffix(".npy") for name in _members(path) if name.endswith(".npy")}


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[:1000]
    except Exception:
        # A damaged archive fails in any way; its reader says so.
        return []


def _is_zip_of(ending: str) -> Callable[[Beginning], bool]:
    return lambda head: head.content.startswith(b"PK") and any(name.endswith(ending) for name in _members(head.path))


def _is_pickle(head: Beginning) -> bool:
    content = head.content
    return (len(content) > 1 and content[0] == 0x80 and content[1] <= 5) or content.startswith(
        (b"(dp", b"(lp", b"cnumpy", b"ccopy_reg")
    )


def _has_line(*words: str) -> Callable[[Beginning], bool]:
    return lambda head: any(line.strip().startswith(words) for line in head.lines[:5])


def _is_pose_format(head: Beginning) -> bool:
    """Whether a file is of pose-format: its version, the image's size, and names of parts of the body."""
    if len(head.content) < 20:
        return False
    version, *_, parts, length = struct.unpack("<fHHHHH", head.content[:14])
    name = head.content[14 : 14 + length]
    is_named = 0 < length < 60 and re.fullmatch(rb"[A-Za-z0-9_ ]+", name) is not None
    return round(version, 3) in (0, 0.1, 0.2) and 0 < parts < 100 and is_named


def _is_body_text(head: Beginning) -> bool:
    """Whether a file begins with counts of frames and bodies, as those of NTU RGB+D and UAV-Human do."""
    if head.suffix == ".skeleton" and head.lines and len(cells_of(head.lines[0])) == 1:
        # A wrong count is refused by its line.
        return True
    return len(head.lines) > 1 and all(re.fullmatch(r"\s*[0-9]{1,9}\s*", line) for line in head.lines[:2])


def _is_numbers(head: Beginning) -> bool:
    """Whether the lines of a file are nothing but numbers."""
    return bool(head.lines) and all(all(map(is_number, cells_of(line))) for line in head.lines[:2])


def _is_table(head: Beginning) -> bool:
    """Whether a file has a line of names and lines with as many cells below."""
    cells = [cells_of(line) for line in head.lines[:2]]
    return (
        len(cells) > 1
        and len(cells[0]) > 3
        and len(cells[0]) == len(cells[1])
        and separator_of(head.lines[0]) is not None
    )


# Numbers in a line of texts that are recordings, see `number_text`.
_LINES = (60, 75, 76, 80, 99, 100, 101, 119, 132, 150, 151, 175, 176, 200, 350)

# How each kind is known, the first that fits; kinds are keys of `readers.READERS` or of `foreign.FOREIGN`.
_KINDS: tuple[tuple[str, Callable[[Beginning], bool]], ...] = (
    ("npy", _starts_with_bytes(b"\x93NUMPY")),
    ("npz", _is_zip_of(".npy")),
    ("pytorch", _is_zip_of("data.pkl")),
    ("pickle", _is_pickle),
    ("pose-format", _is_pose_format),
    ("fbx", _starts_with_bytes(b"Kaydara FBX", b"; FBX")),
    ("hdf5", _starts_with_bytes(b"\x89HDF\r\n\x1a\n")),
    ("matlab", _starts_with_bytes(b"MATLAB 5.0")),
    ("bvh", _starts("HIERARCHY")),
    ("trc", _starts("PathFileType")),
    ("asf", _has_line(":version", ":units", "# AST/ASF")),
    ("amc", _has_line("#!OML:ASF", ":FULLY-SPECIFIED", ":DEGREES")),
    ("mvnx", lambda head: "<mvnx" in (head.text or "")[:5000]),
    ("c3d", lambda head: head.content[1:2] == b"\x50" and 0 < head.content[0] < 10 and head.text is None),
    ("json", _starts("{", "[")),
    ("opensim", lambda head: any(line.strip().startswith("inDegrees=") for line in head.lines[:12])),
    ("deeplabcut", _starts("scorer,")),
    ("body text", _is_body_text),
    ("numbers", _is_numbers),
    ("table", _is_table),
)
# What a file is taken for whose content could be anything.
BY_SUFFIX = {
    ".skeleton": "body text",
    ".npy": "npy",
    ".npz": "npz",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "table",
    ".tsv": "table",
    ".txt": "numbers",
    ".bvh": "bvh",
    ".trc": "trc",
    ".amc": "amc",
    ".asf": "asf",
    ".mvnx": "mvnx",
    ".c3d": "c3d",
    ".pose": "pose-format",
    ".slp": "hdf5",
    ".h5": "hdf5",
    ".fbx": "fbx",
    ".mot": "opensim",
    ".sto": "opensim",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".mat": "matlab",
}


def read_beginning(path: Path) -> Beginning:
    """The beginning of a file.

    Raises:
        OSError: If it cannot be opened.
    """
    with open(path, "rb") as file:
        return Beginning(path, file.read(_BEGINNING))


def kind_of(path: Path) -> str | None:
    """The kind of a file, or None where nothing is known.

    Raises:
        OSError: If it cannot be opened.
    """
    head = read_beginning(path)
    return next((kind for kind, fits in _KINDS if fits(head)), BY_SUFFIX.get(head.suffix))


def is_uav(path: Path) -> bool:
    """Whether a file of counts and bodies is UAV-Human's, whose bodies have 17 joints, and not NTU RGB+D's.

    Raises:
        OSError: If it cannot be opened.
    """
    lines = iter(read_beginning(path).lines[1:])
    # A frame without people is a line with 0; the count of joints comes after the line of the first body.
    counts = next((line for line in lines if line.strip() != "0"), None)
    next(lines, None)
    joints = next(lines, "").strip()
    return counts is not None and joints == "17"


def is_recording_text(path: Path) -> bool:
    """Whether a file of text is a recording beyond doubt: bodies, or a known number of numbers in each line.

    Raises:
        OSError: If it cannot be opened.
    """
    head = read_beginning(path)
    if not _is_numbers(head):
        return False
    if _is_body_text(head):
        return True
    cells = cells_of(head.lines[0])
    if len(cells) == 4:
        return separator_of(head.lines[0]) is None and all("." in cell for cell in cells[:3])
    return len(cells) in _LINES or (39 <= len(cells) <= 58 and cells[0].isdigit())
