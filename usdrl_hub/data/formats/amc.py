"""ASF/AMC: the bones of a skeleton in one file, their angles frame by frame in another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import notice
from ...layouts import Layout, get_layout
from ...sequence import METRES, SkeletonFormatError, SkeletonSequence
from ..reading import OnError, Reading
from .bodies import check_size, height_of, make_sequence
from .joint_names import find_body
from .kinematics import Rotation, apply, compose, identity, matrix, turn
from .lines import as_text, parse_numbers, read_text

# CMU and HDM05 record at this rate; the files do not say.
_FPS = 120.0
_MAX_BONES = 1000
_LONGEST_NAME = 40
_DEGREES_OF_FREEDOM = {"tx": 0, "ty": 1, "tz": 2, "rx": 0, "ry": 1, "rz": 2, "l": 0}


@dataclass
class _Bone:
    name: str
    direction: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    length: float = 0.0
    # Rotation of the bone's own axes, and what its numbers in a frame are: "rx", "tz", "l".
    axis: np.ndarray = field(default_factory=lambda: np.eye(3))
    freedom: list[str] = field(default_factory=list)
    parent: str = ""


def read(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Read an AMC file with the ASF file beside it: layout cmu31, y up, CMU's units.

    Args:
        path: The ``.amc``. Its skeleton is the ``.asf`` of the same name, or of the name up to an underscore
            (``01.asf`` of ``01_01.amc``), or the only one in the folder.
        reading: A layout all of whose joints are bones of the file is taken as it is. fps where it is not 120.
        on_error: Not called: a file holds one recording.

    Raises:
        SkeletonFormatError: If it is not AMC, is malformed, has no skeleton beside it or another's.
    """
    if path.suffix.lower() == ".asf":
        raise SkeletonFormatError(f"{path}: it is the skeleton of recordings that end in .amc: name one of those")
    skeleton_path = _find_skeleton(path)
    skeleton = _Skeleton(skeleton_path)
    names, motion, degrees = _parse_motion(path, skeleton)
    layout, chosen = _choose_joints(skeleton_path, skeleton, reading)
    check_size(path, len(motion), len(chosen))
    keypoints = _pose(path, skeleton, names, motion, chosen, skeleton.degrees if degrees is None else degrees)
    units = None
    height = height_of(keypoints[:, None], layout)
    inches = 1 / skeleton.length if skeleton.length > 0 else 0.0
    if height is not None and 0.8 < height * inches * METRES["in"] < 2.6:
        keypoints, units = keypoints * inches, "in"
    fps = None if reading.fps else _FPS
    yield make_sequence(path, keypoints[:, None], layout, reading, fps=fps, units=units, up="y", kind="its ASF")


def _find_skeleton(path: Path) -> Path:
    try:
        found = sorted(other for other in path.parent.iterdir() if other.suffix.lower() == ".asf")
    except OSError:
        found = []
    stem = path.stem.lower()
    parts = stem.split("_")
    for wanted in (stem, *("_".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))):
        for other in found:
            if other.stem.lower() == wanted:
                return other
    if len(found) == 1:
        return found[0]
    raise SkeletonFormatError(
        f"{path}: its skeleton is not beside it: put '{path.stem}.asf' or '{path.stem.partition('_')[0]}.asf' into "
        f"the folder, which has {len(found) or 'no'} .asf files"
    )


class _Skeleton:
    """An ASF file: bones by name, the root first."""

    def __init__(self, path: Path):
        self.path, self.line = path, 0
        self.bones = {"root": _Bone("root", freedom=["tx", "ty", "tz", "rx", "ry", "rz"])}
        self.position = [0.0, 0.0, 0.0]
        # How long a unit is in inches, inverted; 0 where the file does not say.
        self.length = 0.0
        self.degrees = True
        self.root_axis, self.root_angles = "XYZ", [0.0, 0.0, 0.0]
        self.bone: _Bone | None = None
        section = ""
        for self.line, raw in enumerate(read_text(path).split(b"\n"), 1):
            fields = as_text(raw.partition(b"#")[0]).split()
            if fields and fields[0].startswith(":"):
                section = fields[0].lower()
            elif fields:
                self.read_line(section, fields[0], fields[1:])
        self.bones["root"].axis = self.rotation(self.root_axis, self.root_angles)
        for each in self.bones.values():
            wrong = [freedom for freedom in each.freedom if freedom not in _DEGREES_OF_FREEDOM]
            if wrong:
                raise self.wrong(f"bone '{each.name}' has the unknown degree of freedom '{wrong[0][:20]}'")
        if len(self.bones) < 2:
            raise SkeletonFormatError(f"{path}: it is not an ASF skeleton: it has no bone")

    def wrong(self, what: str) -> SkeletonFormatError:
        """The error of this line."""
        return SkeletonFormatError(f"{self.path}, line {self.line}: {what}")

    def numbers(self, fields: Sequence[str], count: int) -> list[float]:
        """The first numbers of a line."""
        try:
            values = [float(text) for text in fields[:count]]
        except ValueError:
            values = []
        if len(values) < count or not np.isfinite(values).all() or np.abs(values).max() > 1e6:
            raise self.wrong(f"expected {count} numbers, got '{' '.join(fields)[:40]}'")
        return values

    def rotation(self, order: str, angles: list[float]) -> np.ndarray:
        """The matrix of angles about fixed axes."""
        if sorted(order.upper()) != ["X", "Y", "Z"]:
            raise self.wrong(f"'{order[:20]}' is not an order of axes, as XYZ is")
        return matrix(order, angles if self.degrees else np.rad2deg(angles).tolist())

    def read_line(self, section: str, key: str, values: list[str]) -> None:
        """A line of a section."""
        if section == ":units" and key == "length":
            self.length = self.numbers(values, 1)[0]
        elif section == ":units" and key == "angle":
            self.degrees = values[:1] != ["rad"]
        elif section == ":root":
            self.read_root(key, values)
        elif section == ":bonedata":
            self.read_bone(key, values)
        elif section == ":hierarchy" and key not in ("begin", "end"):
            for name in values:
                if key not in self.bones or name not in self.bones or name == "root" or self.bones[name].parent:
                    raise self.wrong(f"'{name[:40]}' is not a bone with a parent")
                self.bones[name].parent = key

    def read_root(self, key: str, values: list[str]) -> None:
        """What is said of the root."""
        if key == "order":
            self.bones["root"].freedom = [value.lower() for value in values]
        elif key == "axis":
            self.root_axis = values[0] if values else ""
        elif key == "position":
            self.position = self.numbers(values, 3)
        elif key == "orientation":
            self.root_angles = self.numbers(values, 3)

    def read_bone(self, key: str, values: list[str]) -> None:
        """What is said of a bone."""
        if key == "name":
            self.bone = bone = _Bone(" ".join(values))
            if bone.name in self.bones or len(self.bones) >= _MAX_BONES or not 0 < len(bone.name) <= _LONGEST_NAME:
                raise self.wrong(f"bone '{bone.name[:40]}' is there twice, or nameless")
            self.bones[bone.name] = bone
        elif self.bone is not None and key == "direction":
            self.bone.direction = self.numbers(values, 3)
        elif self.bone is not None and key == "length":
            self.bone.length = self.numbers(values, 1)[0]
        elif self.bone is not None and key == "axis":
            self.bone.axis = self.rotation(values[3] if len(values) > 3 else "XYZ", self.numbers(values, 3))
        elif self.bone is not None and key == "dof":
            self.bone.freedom = [value.lower() for value in values]


class _Lines:
    """The lines of a motion that are not empty: where they are, their first fields, and how many numbers follow."""

    def __init__(self, path: Path, block: bytes, first_line: int):
        self.path, self.first_line = path, first_line
        self.text = np.frombuffer(b"\n" + block + b"\n", dtype=np.uint8)
        blank = self.text <= ord(" ")
        begins = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
        ends = np.flatnonzero(~blank[:-1] & blank[1:]) + 1
        of_line = np.searchsorted(begins, np.flatnonzero(self.text == ord("\n")))
        counts = np.diff(of_line)
        self.lines = np.flatnonzero(counts)
        names = of_line[self.lines]
        self.counts = counts[self.lines] - 1
        self.begins, self.sizes = begins[names], ends[names] - begins[names]

    def wrong(self, row: int, what: str) -> SkeletonFormatError:
        """The error of a line."""
        return SkeletonFormatError(f"{self.path}, line {self.first_line + int(self.lines[row])}: {what}")

    def name(self, row: int) -> str:
        """The first field of a line."""
        return as_text(bytes(self.text[self.begins[row] : self.begins[row] + min(self.sizes[row], _LONGEST_NAME)]))

    def like_first(self, template: np.ndarray) -> np.ndarray:
        """Whether each line has the first field of another ``(L,)``, which is given by its index."""
        widest = int(self.sizes.max())
        if widest > _LONGEST_NAME:
            raise self.wrong(int(self.sizes.argmax()), "the name of a bone is too long")
        padded = np.concatenate([self.text, np.zeros(widest, np.uint8)])
        same = self.sizes == self.sizes[template]
        # One byte of all names at a time: a name is a few bytes, and lines are many.
        for byte in range(widest):
            same &= (padded[self.begins + byte] == padded[self.begins[template] + byte]) | (self.sizes <= byte)
        return same

    def parse(self, count: int) -> np.ndarray:
        """The numbers behind the first fields of the first lines, one after the other."""
        covered = np.zeros(len(self.text) + 1, np.int8)
        covered[self.begins] = 1
        covered[self.begins + self.sizes] -= 1
        numbers = np.where(np.cumsum(covered[:-1], dtype=np.int8) > 0, np.uint8(ord(" ")), self.text)
        end = self.begins[count] if count < len(self.begins) else len(numbers)
        total = int(self.counts[:count].sum())
        return parse_numbers(numbers[1:end].tobytes(), total, self.path, self.first_line)


def _parse_motion(path: Path, skeleton: _Skeleton) -> tuple[list[str], np.ndarray, bool | None]:
    """Bones in the order of a frame, their numbers ``(T, N)``, and whether angles are degrees, if it says."""
    content = read_text(path)
    head = re.search(rb"^[ \t]*[0-9]+[ \t]*$", content, re.MULTILINE)
    if head is None:
        raise SkeletonFormatError(f"{path}: it is not AMC, or empty: no line is the number of a frame")
    flags = content[: head.start()].upper()
    degrees = True if b":DEGREES" in flags else False if b":RADIANS" in flags else None
    rows = _Lines(path, content[head.start() :], content.count(b"\n", 0, head.start()) + 1)
    # A line of one number begins a frame; bones without numbers are not written.
    is_frame = (rows.counts == 0) & (rows.text[rows.begins] <= ord("9"))
    frame_at = np.flatnonzero(is_frame)
    per_frame = int(frame_at[1]) if len(frame_at) > 1 else len(rows.lines)
    names = [rows.name(row) for row in range(1, per_frame)]
    for row, name in enumerate(names, 1):
        if name not in skeleton.bones:
            raise rows.wrong(row, f"'{name}' is not a bone of the skeleton beside it")
    if not names or len(set(names)) < len(names):
        raise rows.wrong(0, "the first frame has no bone, or one twice")
    # All frames have the lines of the first.
    template = np.arange(len(rows.lines)) % per_frame
    wanted = np.array([0, *(len(skeleton.bones[name].freedom) for name in names)])[template]
    same = rows.like_first(template)
    is_bad = np.where(template == 0, ~is_frame, ~same | (rows.counts != wanted))
    frames, rest = divmod(len(is_bad), per_frame)
    if frames > 1 and not rest and is_bad[-1] and not content.endswith(b"\n"):
        frames -= 1
    if frames * per_frame < len(is_bad) and frames:
        notice(
            f"{path}: the last of {frames + 1} frames is cut: the {frames} that are whole are read",
            "other numbers of frames than the file says",
        )
    bad = np.flatnonzero(is_bad[: max(frames, 1) * per_frame])
    if len(bad):
        row = int(bad[0])
        if template[row] and same[row]:
            raise rows.wrong(row, f"{rows.counts[row]} numbers of '{rows.name(row)}', expected {wanted[row]}")
        raise rows.wrong(row, f"'{rows.name(row)}' is not the line that follows in the first frame")
    motion = rows.parse(frames * per_frame).reshape(frames, -1)
    if not np.isfinite(motion).all():
        frame = int(np.argwhere(~np.isfinite(motion))[0, 0])
        raise rows.wrong(frame * per_frame, "a number of this frame is NaN or infinite")
    return names, motion, degrees


def _choose_joints(path: Path, skeleton: _Skeleton, reading: Reading) -> tuple[Layout, list[str]]:
    names = list(skeleton.bones)
    named = find_body(path, names, reading.layout)
    if named is not None:
        return named[0], [names[index] for index in named[1]]
    layout = get_layout("cmu31")
    missing = [joint for joint in layout.joint_names if joint not in skeleton.bones]
    if missing:
        raise SkeletonFormatError(
            f"{path}: it has no bone '{missing[0]}' of CMU's 31, but {', '.join(names[1:6])}, ...: name its joints "
            "with --layout FILE.json"
        )
    return layout, list(layout.joint_names)


def _pose(
    path: Path,
    skeleton: _Skeleton,
    names: Sequence[str],
    motion: np.ndarray,
    chosen: Sequence[str],
    degrees: bool,
) -> np.ndarray:
    """Positions ``(T, len(chosen), 3)`` of the far ends of bones, and of the root."""
    columns: dict[str, int] = {}
    for name in names:
        columns[name] = sum(len(skeleton.bones[other].freedom) for other in columns)
    positions: dict[str, np.ndarray] = {}
    rotations: dict[str, Rotation] = {}
    numbers = motion.T

    def add(name: str) -> None:
        bone = skeleton.bones[name]
        moved: list[np.ndarray | float] = [0.0, 0.0, 0.0]
        length: np.ndarray | float = bone.length
        turns = []
        for column, freedom in enumerate(bone.freedom if name in columns else [], columns.get(name, 0)):
            if freedom == "l":
                length = length + numbers[column]
            elif freedom.startswith("t"):
                moved[_DEGREES_OF_FREEDOM[freedom]] = numbers[column]
            else:
                angle = np.deg2rad(numbers[column]) if degrees else numbers[column]
                turns.append((_DEGREES_OF_FREEDOM[freedom], angle))
        rotation = rotations.get(bone.parent, identity())
        start = positions.get(bone.parent, np.array(skeleton.position)[:, None])
        start = start + apply(rotation, moved)
        if turns or not np.array_equal(bone.axis, np.eye(3)):
            rotation = compose(rotation, bone.axis)
            # About fixed axes: the first is turned about first, and so stands last.
            for axis, angle in reversed(turns):
                rotation = turn(rotation, axis, np.cos(angle), np.sin(angle))
            rotation = compose(rotation, bone.axis.T)
        rotations[name] = rotation
        positions[name] = start + apply(rotation, [part * length for part in bone.direction])

    for name in chosen:
        way = [name]
        while skeleton.bones[way[-1]].parent and skeleton.bones[way[-1]].parent not in positions:
            way.append(skeleton.bones[way[-1]].parent)
            if len(way) > len(skeleton.bones):
                raise SkeletonFormatError(f"{path}: the bones of its skeleton form a cycle")
        if way[-1] != "root" and not skeleton.bones[way[-1]].parent:
            raise SkeletonFormatError(f"{path}: bone '{way[-1]}' of its skeleton has no parent")
        for bone_name in reversed(way):
            if bone_name not in positions:
                add(bone_name)
    shape = (3, len(motion))
    return np.stack([np.broadcast_to(positions[name], shape).T for name in chosen], axis=1)
