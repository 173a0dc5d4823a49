"""MVNX: what Xsens MVN writes as XML, positions of 23 segments in each frame.

The parser defines no entities and opens no other files, so nothing grows and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np

from ...layouts import get_layout
from ...sequence import SkeletonFormatError, SkeletonSequence
from ..reading import OnError, Reading
from .bodies import check_size, make_sequence

_BYTES_AT_ONCE = 1 << 16
_MAX_SEGMENTS = 1000
_MAX_PEOPLE = 100
_DEEPEST = 100


@dataclass
class _Subject:
    rate: str
    segments: list[str] = field(default_factory=list)
    # Text of the positions of each frame.
    positions: list[str] = field(default_factory=list)


class _Refused(Exception):
    """What the parser does not take."""


def read(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Read an MVNX file: layout xsens23, metres, z up, fps as it says; frames of calibration poses are left out.

    Args:
        path: The file.
        reading: Axis and unit where they are others; the layout is the file's own.
        on_error: Not called: a file holds one recording, of one person or several.

    Raises:
        SkeletonFormatError: If it is not MVNX, is malformed, or lacks segments of the body.
    """
    subjects = _parse(path)
    layout = get_layout("xsens23")
    people = []
    for subject in subjects:
        missing = [name for name in layout.joint_names if name not in subject.segments]
        if missing:
            raise SkeletonFormatError(
                f"{path}: its {len(subject.segments)} segments are not a whole body: {', '.join(missing[:4])} "
                f"{'is' if len(missing) == 1 else 'are'} lacking"
            )
        positions = _positions(path, subject)
        check_size(path, len(positions), layout.num_joints)
        people.append(positions[:, [subject.segments.index(name) for name in layout.joint_names]])
    frames = max(map(len, people))
    check_size(path, frames, layout.num_joints * len(people))
    keypoints = np.zeros((frames, len(people), layout.num_joints, 3))
    for person, positions in enumerate(people):
        keypoints[: len(positions), person] = positions
    try:
        rate = float(subjects[0].rate)
    except ValueError:
        rate = 0.0
    fps = rate if 0.01 <= rate <= 1e5 else None
    yield make_sequence(path, keypoints, layout, reading, fps=fps, units="m", up="z", kind="MVNX")


def _positions(path: Path, subject: _Subject) -> np.ndarray:
    """Positions ``(T, S, 3)`` of all segments of a person."""
    size = 3 * len(subject.segments)
    values = np.empty((len(subject.positions), size))
    for frame, text in enumerate(subject.positions):
        fields = text.split()
        try:
            # Python takes 1_000 for a number.
            if len(fields) != size or "_" in text:
                raise ValueError
            values[frame] = list(map(float, fields))
        except ValueError:
            raise SkeletonFormatError(
                f"{path}, frame {frame}: its position has {len(fields)} fields, expected {size} numbers, three for "
                f"each of {len(subject.segments)} segments"
            ) from None
    if not np.isfinite(values).all():
        frame = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise SkeletonFormatError(f"{path}, frame {frame}: a position is NaN or infinite")
    return values.reshape(len(values), -1, 3)


class _Parser:
    """People with their segments and the text of their positions."""

    def __init__(self) -> None:
        self.subjects: list[_Subject] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.is_frame = False
        self.expat = expat.ParserCreate()
        self.expat.buffer_text = True
        self.expat.StartElementHandler, self.expat.EndElementHandler = self.begin, self.end
        # Of a document type the fourth fact says whether it defines something itself; Xsens' names a file elsewhere.
        self.expat.StartDoctypeDeclHandler = self.refuse

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        name = name.rpartition(":")[2]
        self.open.append(name)
        if len(self.open) == 1 and name != "mvnx":
            raise _Refused(f"it is XML, but no MVNX: its root is '{name[:40]}'")
        if len(self.open) > _DEEPEST:
            raise _Refused("its elements are nested too deeply")
        if name == "subject":
            if len(self.subjects) >= _MAX_PEOPLE:
                raise _Refused(f"it has more than {_MAX_PEOPLE} people")
            self.subjects.append(_Subject(attributes.get("frameRate", "")))
        elif name == "segment" and self.subjects and self.open[-2:-1] == ["segments"]:
            if len(self.subjects[-1].segments) >= _MAX_SEGMENTS:
                raise _Refused(f"it has more than {_MAX_SEGMENTS} segments")
            self.subjects[-1].segments.append(attributes.get("label", ""))
        elif name == "frame":
            # The first frames are the calibration's: "identity", "tpose", "tpose-isb", "npose".
            self.is_frame = attributes.get("type", "normal") == "normal"
        elif name == "position" and self.is_frame and self.subjects and self.open[-2:-1] == ["frame"]:
            self.expat.CharacterDataHandler = self.text.append

    def end(self, _: str) -> None:
        """An element ends."""
        name = self.open.pop()
        if name == "position" and self.expat.CharacterDataHandler is not None:
            self.expat.CharacterDataHandler = None
            self.subjects[-1].positions.append("".join(self.text))
            self.text.clear()
        elif name == "frame":
            self.is_frame = False

    def refuse(self, *facts: object) -> None:
        """A document type begins, or an entity: what is elsewhere is never read, and what is here may grow."""
        if facts[3:4] != (0,):
            raise _Refused("it defines entities in its document type (DOCTYPE), which is never read: remove that")


def _parse(path: Path) -> list[_Subject]:
    """People who have positions."""
    parser = _Parser()
    try:
        with open(path, "rb") as file:
            while part := file.read(_BYTES_AT_ONCE):
                parser.expat.Parse(part, False)
        parser.expat.Parse(b"", True)
    except _Refused as error:
        raise SkeletonFormatError(f"{path}: {error}") from None
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code) or "malformed"
        raise SkeletonFormatError(
            f"{path}, line {error.lineno}: it is not MVNX, or truncated: it is not well-formed XML ({reason})"
        ) from None
    except (LookupError, ValueError):
        # Names of encodings that Python does not know.
        raise SkeletonFormatError(f"{path}: its text is in an encoding that cannot be read") from None
    subjects = [subject for subject in parser.subjects if subject.positions]
    if not subjects:
        raise SkeletonFormatError(f"{path}: it has no positions of segments: export it from MVN with them")
    return subjects
