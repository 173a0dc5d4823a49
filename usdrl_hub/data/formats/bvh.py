"""BVH: a tree of joints with their offsets, and a line of angles for each frame."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from ...errors import notice
from ...layouts import Layout
from ...sequence import SkeletonFormatError, SkeletonSequence
from ..reading import OnError, Reading
from .bodies import check_size, make_sequence
from .joint_names import find_body, find_joints, lacking, named_layout
from .kinematics import Rotation, apply, identity, turn
from .lines import as_text, fields_per_line, parse_numbers, rate_of, read_text

# Joints that a tree has at most.
_MAX_JOINTS = 2048
# Numbers that are kept at once of all rotations and positions.
_NUMBERS_AT_ONCE = 1 << 20
_TOKEN = re.compile(rb"[{}]|[^\s{}]+")


@dataclass
class _Joint:
    name: str
    parent: int
    offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    # Kinds of its channels, "Xposition" as (False, 0), "Zrotation" as (True, 2), and the column of the first.
    channels: list[tuple[bool, int]] = field(default_factory=list)
    column: int = 0


def read(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Read a BVH file: layout by the names of its joints, unit by the height of the body, fps by ``Frame Time``.

    Args:
        path: The file.
        reading: A layout all of whose joints the file names is taken as it is; else see `joint_names.RIGS`.
        on_error: Not called: a file holds one recording.

    Raises:
        SkeletonFormatError: If it is not BVH, is malformed, or names no whole body.
    """
    content = read_text(path)
    start = re.search(rb"^[ \t]*MOTION[ \t]*$", content, re.MULTILINE)
    if start is None:
        raise SkeletonFormatError(f"{path}: it is not BVH, or truncated: there is no line MOTION")
    hierarchy = _Hierarchy(path, content[: start.start()])
    joints = hierarchy.joints
    motion, fps = _parse_motion(path, content, start.end(), hierarchy.columns)
    layout, people = _find_people(path, joints, reading)
    check_size(path, len(motion), layout.num_joints * len(people))
    keypoints = np.stack([_pose(joints, chosen, motion) for chosen in people], axis=1)
    yield make_sequence(path, keypoints, layout, reading, fps=fps, units=None, up="y", kind="BVH")


class _Hierarchy:
    """The tree of joints, parents first; End Sites are joints named ``<parent>_end``."""

    def __init__(self, path: Path, text: bytes):
        self.path, self.text = path, text
        self.tokens: list[bytes] = _TOKEN.findall(text)
        self.position = self.columns = 0
        self.joints: list[_Joint] = []
        self.open: list[int] = []
        name = ""
        while self.position < len(self.tokens):
            word = self.take(1, "a word")[0]
            key = word.upper()
            if key in (b"ROOT", b"JOINT", b"END"):
                name = self.read_name(key == b"END")
            elif word == b"{":
                if len(self.joints) >= _MAX_JOINTS:
                    raise self.wrong(f"more than {_MAX_JOINTS} joints")
                self.joints.append(_Joint(name, self.open[-1] if self.open else -1, column=self.columns))
                self.open.append(len(self.joints) - 1)
            elif word == b"}" and self.open:
                self.open.pop()
            elif key == b"OFFSET" and self.open:
                self.read_offset()
            elif key == b"CHANNELS" and self.open:
                self.read_channels()
            elif key != b"HIERARCHY":
                raise self.wrong(f"'{as_text(word)[:40]}' is unexpected in the hierarchy of a BVH")
        if not self.joints or self.open:
            raise SkeletonFormatError(f"{path}: its hierarchy is truncated: a brace is open before MOTION")
        if not self.columns:
            raise SkeletonFormatError(f"{path}: no joint has channels, so nothing moves")

    def wrong(self, what: str) -> SkeletonFormatError:
        """The error of the token that was taken last."""
        number = min(max(self.position, 1), len(self.tokens)) - 1
        token = next(islice(_TOKEN.finditer(self.text), number, None))
        line = 1 + self.text.count(b"\n", 0, token.start())
        return SkeletonFormatError(f"{self.path}, line {line}: {what}")

    def take(self, count: int, what: str) -> list[bytes]:
        """The next tokens."""
        found = self.tokens[self.position : self.position + count]
        self.position += count
        if len(found) < count:
            raise self.wrong(f"the hierarchy ends where {what} should follow: it is truncated")
        return found

    def read_name(self, is_end: bool) -> str:
        """A name, which may have blanks: all up to the brace."""
        parts: list[bytes] = []
        while self.position < len(self.tokens) and self.tokens[self.position] not in (b"{", b"}"):
            parts += self.take(1, "a name")
        return f"{self.joints[self.open[-1]].name}_end" if is_end and self.open else as_text(b" ".join(parts))

    def read_offset(self) -> None:
        """Three numbers."""
        fields = self.take(3, "an offset")
        try:
            offset = [float(number.replace(b",", b".")) for number in fields]
        except ValueError:
            offset = [np.nan]
        if not np.isfinite(offset).all():
            raise self.wrong("an OFFSET needs three numbers")
        self.joints[self.open[-1]].offset = offset

    def read_channels(self) -> None:
        """The kinds of the numbers of a joint in each frame."""
        count = self.take(1, "a number of channels")[0]
        joint = self.joints[self.open[-1]]
        if not re.fullmatch(rb"[0-9]", count) or joint.channels:
            raise self.wrong(f"'{as_text(count)[:40]}' is not a number of channels from 0 to 9, or the joint has some")
        joint.column = self.columns
        for channel in self.take(int(count), "a channel"):
            kind = re.fullmatch(rb"([xyz])(position|rotation)", channel.lower())
            if kind is None:
                raise self.wrong(f"'{as_text(channel)[:40]}' is not a channel, as Xposition and Zrotation are")
            joint.channels.append((kind[2] == b"rotation", b"xyz".index(kind[1])))
        self.columns += int(count)


def _parse_motion(path: Path, content: bytes, start: int, columns: int) -> tuple[np.ndarray, float | None]:
    """Numbers of all frames ``(T, columns)`` and frames per second."""
    head = re.compile(rb"\s*Frames:?\s*([0-9]+)\s+Frame\s+Time:?\s*([0-9.,eE+-]+)[^\n]*", re.IGNORECASE)
    found = head.match(content, start)
    line = content.count(b"\n", 0, start) + 2
    if found is None or len(found[1]) > 9:
        raise SkeletonFormatError(f"{path}, line {line}: expected 'Frames: N' and 'Frame Time: SECONDS' after MOTION")
    block = content[found.end() :]
    first_line = content.count(b"\n", 0, found.end()) + 1
    counts, lines = fields_per_line(block)
    frames, promised = len(counts), int(found[1])
    if frames and not content.endswith(b"\n") and (frames < promised or counts[-1] < columns):
        # The last frame is cut, or its last number may be.
        frames -= 1
    wrong = np.flatnonzero(counts[:frames] != columns)
    if len(wrong):
        raise SkeletonFormatError(
            f"{path}, line {first_line + int(lines[wrong[0]])}: {int(counts[wrong[0]])} numbers for a frame, "
            f"expected {columns}"
        )
    if not frames:
        raise SkeletonFormatError(f"{path}, line {first_line}: there is no frame in it")
    if frames != promised:
        notice(
            f"{path}: {frames} whole frames are there, not the {promised} that it says: those are read",
            "other numbers of frames than the file says",
        )
    if frames < len(counts):
        block = block[: _start_of_line(block, int(lines[frames]))]
    motion = parse_numbers(block, frames * columns, path, first_line).reshape(frames, columns)
    if not np.isfinite(motion).all():
        row = int(np.argwhere(~np.isfinite(motion))[0, 0])
        raise SkeletonFormatError(f"{path}, line {first_line + int(lines[row])}: a number is NaN or infinite")
    return motion, rate_of(found[2].decode().replace(",", "."))


def _start_of_line(block: bytes, line: int) -> int:
    """Where a line begins, counted from 0."""
    return int(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))[line - 1]) + 1 if line else 0


def _find_people(path: Path, joints: Sequence[_Joint], reading: Reading) -> tuple[Layout, list[list[int]]]:
    """The layout of the bodies, and which joints of the file each is made of: one for each root."""
    named = find_body(path, [joint.name for joint in joints], reading.layout)
    if named is not None:
        return named[0], [named[1]]
    root_of: list[int] = []
    for index, joint in enumerate(joints):
        root_of.append(index if joint.parent < 0 else root_of[joint.parent])
    roots = sorted(set(root_of))
    bodies = [_body(joints, [index for index, at in enumerate(root_of) if at == root]) for root in roots]
    whole = [body for body in bodies if not lacking(body)]
    if not whole:
        names = [joint.name for joint in joints if not joint.name.endswith("_end")]
        missing = lacking(min(bodies, key=lambda body: len(lacking(body))))
        raise SkeletonFormatError(
            f"{path}: none of its joints ({', '.join(names[:6])}, ...) is known as {', '.join(missing[:3])}: name "
            "them with --layout FILE.json, or add them to data.formats.joint_names.RIGS"
        )
    alike = [body for body in whole if set(body) == set(whole[0])]
    if len(alike) < len(roots):
        count = len(roots) - len(alike)
        notice(
            f"{path}: {count} of {len(roots)} roots {'is' if count == 1 else 'are'} not a whole body as the first is, "
            "and left out",
            "roots that are not a whole body",
        )
    layout = named_layout(list(alike[0]))
    return layout, [[body[name] for name in layout.joint_names] for body in alike]


def _body(joints: Sequence[_Joint], inside: Sequence[int]) -> dict[str, int]:
    """Where the joints of a body are, of those below one root."""
    named = [index for index in inside if not joints[index].name.endswith("_end")]
    found = {name: named[index] for name, index in find_joints([joints[at].name for at in named]).items()}
    if lacking(found):
        return found
    for side in ("left", "right"):
        _add_toes(joints, found, f"{side}_ankle", f"{side}_foot")
    middle = _middle_of_spine(joints, found)
    return found if middle is None else found | {"spine_mid": middle}


def _add_toes(joints: Sequence[_Joint], found: dict[str, int], ankle: str, foot: str) -> None:
    """Where toes have no joint, or one that lies right below the ankle, the foot ends at the End Site."""
    last = found.get(foot, found[ankle])
    end = next((index for index, joint in enumerate(joints) if joint.parent == last), None)
    length = [float(np.linalg.norm(joints[index].offset)) if index is not None else 0.0 for index in (last, end)]
    if end is not None and (foot not in found or length[0] < 0.5 * length[1]):
        found[foot] = end


def _middle_of_spine(joints: Sequence[_Joint], found: dict[str, int]) -> int | None:
    """The joint between hips and neck that is nearest to the middle of the way."""
    if "spine_base" not in found or "neck" not in found:
        return None
    way, joint = [found["neck"]], joints[found["neck"]]
    while joint.parent >= 0 and way[-1] != found["spine_base"]:
        way.append(joint.parent)
        joint = joints[joint.parent]
    if way[-1] != found["spine_base"]:
        return None
    lengths = np.cumsum([np.linalg.norm(joints[index].offset) for index in way[:-1]])
    if len(way) < 3 or not lengths[-1] > 0:
        return None
    share = lengths[:-1] / lengths[-1]
    best = int(np.argmin(np.abs(share - 0.5)))
    inner = way[1 + best]
    return inner if abs(share[best] - 0.5) < 0.25 and inner not in found.values() else None


def _pose(joints: Sequence[_Joint], chosen: Sequence[int], motion: np.ndarray) -> np.ndarray:
    """Positions ``(T, len(chosen), 3)`` of some joints by forward kinematics."""
    needed: set[int] = set()
    for index in chosen:
        while index >= 0 and index not in needed:
            needed.add(index)
            index = joints[index].parent
    order = sorted(needed)
    result = np.empty((len(motion), len(chosen), 3), dtype=np.float32)
    step = max(16, _NUMBERS_AT_ONCE // (12 * len(order)))
    added = {index: _is_added(joints[index], motion) for index in order}
    for start in range(0, len(motion), step):
        part = motion[start : start + step].T
        positions: dict[int, np.ndarray] = {}
        rotations: dict[int, Rotation] = {}
        for index in order:
            joint = joints[index]
            local: list[np.ndarray | float] = list(joint.offset)
            rotation = rotations.get(joint.parent, identity())
            turned = rotation
            for column, (is_rotation, axis) in enumerate(joint.channels, joint.column):
                if is_rotation:
                    angle = np.deg2rad(part[column])
                    turned = turn(turned, axis, np.cos(angle), np.sin(angle))
                else:
                    local[axis] = part[column] + (joint.offset[axis] if added[index] else 0.0)
            positions[index] = apply(rotation, local) + positions.get(joint.parent, 0.0)
            rotations[index] = turned
        for column, index in enumerate(chosen):
            result[start : start + step, column] = positions[index].T
    return result


def _is_added(joint: _Joint, motion: np.ndarray) -> bool:
    """Whether positions of a joint below the root are added to its offset: where they are nearly nothing.

    Most writers write the position itself in place of the offset.
    """
    columns = [joint.column + number for number, (is_rotation, _) in enumerate(joint.channels) if not is_rotation]
    if joint.parent < 0 or not columns:
        return False
    return float(np.abs(motion[:, columns]).mean()) < 0.05 * float(np.abs(joint.offset).mean())
