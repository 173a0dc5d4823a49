"""Joint layouts: which joints a skeleton has, how they are linked, and how one layout becomes another.

All joint numbers are 0-based. This file also ships as remote code, so it imports nothing of the package.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

# Rotations about x that bring an up axis onto y: the axes to take, and their signs.
TO_Y_UP: dict[str, tuple[list[int], list[float]]] = {
    "y": ([0, 1, 2], [1, 1, 1]),
    "z": ([0, 2, 1], [1, 1, -1]),
    "-y": ([0, 1, 2], [1, -1, -1]),
    "-z": ([0, 2, 1], [1, -1, 1]),
}
# Joints of a layout: whole bodies with hands and face have 133, and some steps need memory as their number squared.
MOST_JOINTS = 2048
# What a model reads of a skeleton: positions, vectors along the bones, differences of frames.
MODALITIES = ("joint", "bone", "motion")
# How skeletons of a layout may be turned, moved and scaled before a model reads them.
NORMALIZATIONS = ("ntu", "uav", "body", "image", "release-2d", "none")


@dataclass(frozen=True)
class Layout:
    """The joints of a skeleton.

    Attributes:
        name: Name in the registry, or any name for a custom layout.
        joint_names: One name per joint; paired joints start with ``left_`` and ``right_`` where the layout is ours.
        bones: ``(child, parent)`` pairs of the bone modality. A joint without a pair, or paired with itself, has a
            zero bone.
        edges: ``(joint, joint)`` pairs to draw; the bones without self-loops where left out.
        center: Joint that normalisation moves to the origin, or None.
        x_axis: ``(start, end)`` joints of the body vector that normalisation turns onto +x, or None.
        z_axis: ``(start, end)`` joints of the body vector that normalisation turns onto +z, or None.
        up: Axis that points up in the data that use this layout, ``"y"`` or ``"z"``.
        coordinates: ``"3d"``, ``"2d"`` or ``"2d+score"``: what the channels of the data are.
        derived: Recipes of this layout's own for joints of other layouts, tried before the general `RECIPES`.
    """

    name: str
    joint_names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    edges: tuple[tuple[int, int], ...] = ()
    center: int | None = None
    x_axis: tuple[int, int] | None = None
    z_axis: tuple[int, int] | None = None
    up: str = "y"
    coordinates: str = "3d"
    # Layouts with other recipes are unequal, but hash alike.
    derived: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Fill in the edges to draw and refuse joints that do not exist.

        Raises:
            ValueError: If a bone, edge, centre or axis names a joint outside the layout, a joint has two parents, two
                joints have one name, there are more than `MOST_JOINTS`, or the up axis or the coordinates are unknown.
        """
        if self.up not in TO_Y_UP:
            raise ValueError(f"layout '{self.name}': up must be one of {', '.join(TO_Y_UP)}, got {self.up!r}")
        if self.num_joints > MOST_JOINTS:
            raise ValueError(f"layout '{self.name}' has {self.num_joints} joints: {MOST_JOINTS} are the most")
        if self.coordinates not in ("3d", "2d", "2d+score"):
            raise ValueError(f"layout '{self.name}': coordinates must be 3d, 2d or 2d+score, got {self.coordinates!r}")
        if len(set(self.joint_names)) != self.num_joints:
            raise ValueError(f"layout '{self.name}' gives two joints the same name")
        if not self.edges:
            object.__setattr__(self, "edges", tuple((a, b) for a, b in self.bones if a != b))
        used = [joint for pair in (*self.bones, *self.edges) for joint in pair]
        used += [joint for joint in (self.center, *(self.x_axis or ()), *(self.z_axis or ())) if joint is not None]
        outside = sorted({joint for joint in used if not 0 <= joint < self.num_joints})
        if outside:
            raise ValueError(
                f"layout '{self.name}' has {self.num_joints} joints, but joint {outside[0]} is used: number them from "
                f"0 to {self.num_joints - 1}"
            )
        twice = sorted(child for child, count in Counter(child for child, _ in self.bones).items() if count > 1)
        if twice:
            raise ValueError(f"layout '{self.name}' gives joint {twice[0]} two parents: list each child once")

    @property
    def num_joints(self) -> int:
        """Number of joints V."""
        return len(self.joint_names)

    @property
    def parents(self) -> tuple[int, ...]:
        """Parent of each joint; a joint without a bone is its own parent."""
        parents = list(range(self.num_joints))
        for child, parent in self.bones:
            parents[child] = parent
        return tuple(parents)

    @property
    def distances(self) -> np.ndarray:
        """Bones between any two joints along the drawn edges, int64 ``(V, V)``; V where nothing links them."""
        count = self.num_joints
        distances = np.full((count, count), count)
        np.fill_diagonal(distances, 0)
        for a, b in self.edges:
            distances[a, b] = distances[b, a] = min(1, distances[a, b])
        for between in range(count):
            distances = np.minimum(distances, distances[:, [between]] + distances[[between]])
        return distances

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The joint on the other side of the body, for each joint; itself in the middle.

        Sides are told by names: ``left_`` and ``right_``, ``L`` and ``R`` or ``l`` and ``r`` in front, ``_L`` and
        ``_R`` at the end, of names that are otherwise the same.
        """
        numbers = {name: number for number, name in enumerate(self.joint_names)}

        def other(name: str) -> str:
            for left, right in (("left_", "right_"), ("L", "R"), ("l", "r")):
                for here, there in ((left, right), (right, left)):
                    if name.startswith(here) and there + name[len(here) :] in numbers:
                        return there + name[len(here) :]
            swapped = name[:-1] + {"L": "R", "R": "L"}.get(name[-1:], "")
            return swapped if name[-2:-1] == "_" and swapped in numbers else name

        return tuple(numbers[other(name)] for name in self.joint_names)

    def to_config(self) -> str | dict[str, Any]:
        """The JSON form of the layout: its name where the registry has it, else names and bones."""
        if LAYOUTS.get(self.name) == self:
            return self.name
        config: dict[str, Any] = {
            "name": self.name,
            "joint_names": list(self.joint_names),
            "bones": [list(pair) for pair in self.bones],
        }
        for key in ("center", "x_axis", "z_axis"):
            value = getattr(self, key)
            if value is not None:
                config[key] = list(value) if isinstance(value, tuple) else value
        if set(self.edges) != {(a, b) for a, b in self.bones if a != b}:
            config["edges"] = [list(pair) for pair in self.edges]
        if self.up != "y":
            config["up"] = self.up
        if self.coordinates != "3d":
            config["coordinates"] = self.coordinates
        if self.derived:
            config["derived"] = dict(self.derived)
        return config


# What names a layout: a registered name, a layout, its JSON form, or its (child, parent) pairs.
LayoutLike: TypeAlias = str | Layout | Mapping[str, Any] | Sequence[Sequence[int]]


def _tree(parents: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(enumerate(parents))


def _links(names: Sequence[str], text: str) -> tuple[tuple[int, int], ...]:
    """Edges from a text of ``name-name`` pairs."""
    pairs = (pair.split("-") for pair in text.split())
    return tuple((names.index(a), names.index(b)) for a, b in pairs)


def _spanning_parents(num_joints: int, edges: Sequence[tuple[int, int]], root: int = 0) -> list[int]:
    """Parents of a breadth-first tree over undirected edges; each component's first joint is its own parent."""
    neighbours: dict[int, list[int]] = {}
    for a, b in edges:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    parents = [-1] * num_joints
    for start in (root, *range(num_joints)):
        if parents[start] >= 0:
            continue
        parents[start] = start
        queue = [start]
        for joint in queue:
            for other in neighbours.get(joint, ()):
                if 0 <= other < num_joints and parents[other] < 0:
                    parents[other] = joint
                    queue.append(other)
    return parents


def _both_sides(table: dict[str, str]) -> dict[str, str]:
    """Write the rows of a table of recipes that begin with ``@`` for both sides.

    ``{S}`` becomes ``L`` or ``R``, ``{s}`` becomes ``l`` or ``r``.
    """
    rows: dict[str, str] = {}
    for name, recipe in table.items():
        if not name.startswith("@"):
            rows[name] = recipe
            continue
        for side, letter in (("left", "L"), ("right", "R")):
            rows[side + name[1:]] = recipe.format(S=letter, s=letter.lower())
    return rows


def _sides(text: str) -> tuple[str, ...]:
    """Joint names from a text in which ``@name`` stands for ``left_name right_name``."""
    names: list[str] = []
    for word in text.split():
        names += [f"left_{word[1:]}", f"right_{word[1:]}"] if word.startswith("@") else [word]
    return tuple(names)


# How a joint that a layout lacks is made of joints that it may have: recipes, in order of preference. A recipe is a
# text of names, each with an optional weight (``name*1.3``); weights are divided by their sum. ``@`` stands for the
# side of a paired joint. Names on the right may themselves be made by a recipe.
RECIPES: dict[str, tuple[str, ...]] = {
    # The middle of the body, from the hips up.
    "spine_base": ("hip_center", "pelvis", "mid_hip", "root", "hip", "left_hip right_hip", "torso"),
    "spine_mid": ("spine", "torso", "belly", "spine2", "spine_base spine_shoulder"),
    "spine_shoulder": ("shoulder_center", "thorax", "left_shoulder right_shoulder", "neck"),
    "neck": ("lowerneck", "spine_shoulder*2 head", "spine_shoulder"),
    "head": ("face", "left_ear right_ear", "nose", "neck"),
    # Other names of the same places.
    "hip_center": ("spine_base",),
    "pelvis": ("spine_base",),
    "mid_hip": ("spine_base",),
    "root": ("spine_base",),
    "hip": ("spine_base",),
    "spine": ("spine_mid",),
    "torso": ("spine_mid",),
    "belly": ("spine_mid",),
    "shoulder_center": ("spine_shoulder",),
    "thorax": ("spine_shoulder",),
    "face": ("head",),
    "nose": ("head",),
    "spine1": ("spine_base*2 spine_mid",),
    "spine2": ("spine_mid",),
    "spine3": ("spine_mid spine_shoulder",),
    # Joints of motion capture files that no recipe of theirs names alone.
    "lowerback": ("spine_base spine_mid",),
    "upperback": ("spine_mid spine_shoulder",),
    "upperneck": ("neck head",),
    "lwrist": ("left_wrist",),
    "rwrist": ("right_wrist",),
    "Spine": ("spine_base spine_mid",),
    "Chest": ("spine_mid spine_shoulder",),
    # Paired joints; the end of a limb lies a little beyond the last joint, along the limb.
    "@_eye": ("@_eye_inner @_eye_outer", "nose*2 @_ear", "head"),
    "@_eye_inner": ("@_eye",),
    "@_eye_outer": ("@_eye",),
    "@_ear": ("head",),
    "@_mouth": ("nose",),
    "@_collar": ("@_shoulder spine_shoulder",),
    "@_shoulder": ("@_upper_arm",),
    "@_wrist": ("@_hand",),
    "@_hand": ("@_index @_pinky", "@_wrist*1.15 @_elbow*-0.15", "@_wrist"),
    "@_hand_tip": ("@_index", "@_hand*1.5 @_wrist*-0.5", "@_wrist*1.3 @_elbow*-0.3", "@_hand"),
    "@_index": ("@_hand_tip",),
    "@_pinky": ("@_hand_tip",),
    "@_thumb": ("@_hand",),
    "@_ankle": ("@_foot",),
    "@_foot": ("@_big_toe @_small_toe", "@_toes", "@_ankle"),
    "@_toes": ("@_foot",),
    "@_big_toe": ("@_foot",),
    "@_small_toe": ("@_foot",),
    "@_heel": ("@_ankle",),
}


def _recipes(name: str) -> tuple[str, ...]:
    """Recipes of a joint, with the side filled in."""
    for side in ("left", "right"):
        if name.startswith(f"{side}_"):
            return tuple(recipe.replace("@", side) for recipe in RECIPES.get("@" + name[len(side) :], ()))
    return RECIPES.get(name, ())


_NTU25_NAMES = _sides(
    "spine_base spine_mid neck head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow "
    "right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot "
    "spine_shoulder left_hand_tip left_thumb right_hand_tip right_thumb"
)
_NTU25_PARENTS = (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11)

_KINECT20_NAMES = _sides(
    "hip_center spine shoulder_center head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow "
    "right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot"
)
_KINECT20_PARENTS = (0, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18)

_COCO17_NAMES = _sides("nose @eye @ear @shoulder @elbow @wrist @hip @knee @ankle")
_COCO17_PARENTS = (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)
# The list that the release applies to every 17-joint clip; it is not anatomical and leaves joint 5 without a bone.
_COCO17_RELEASE_BONES = (
    ((0, 1), (1, 3), (2, 4), (3, 5), (4, 6), (6, 8), (7, 9), (8, 10), (9, 7), (10, 8))
    + ((11, 13), (12, 14), (13, 15), (14, 16), (15, 13), (16, 14))
)  # fmt: skip

_OPENPOSE18_NAMES = _sides(
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear"
)
_OPENPOSE18_PARENTS = (1, 1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15)
_OPENPOSE25_NAMES = _sides(
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist mid_hip right_hip "
    "right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear left_big_toe "
    "left_small_toe left_heel right_big_toe right_small_toe right_heel"
)
_OPENPOSE25_PARENTS = (1, 8, 1, 2, 3, 1, 5, 6, 8, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11)

_H36M17_NAMES = _sides(
    "hip right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck head left_shoulder "
    "left_elbow left_wrist right_shoulder right_elbow right_wrist"
)
_H36M17_PARENTS = (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)

_MEDIAPIPE33_NAMES = _sides(
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer @ear @mouth @shoulder "
    "@elbow @wrist @pinky @index @thumb @hip @knee @ankle @heel @toes"
)
_MEDIAPIPE33_PARENTS = (
    *(0, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16, 11, 12, 23, 24, 25, 26, 27, 28),
    *(29, 30),
)

_SMPL22_NAMES = _sides("pelvis @hip spine1 @knee spine2 @ankle spine3 @foot neck @collar head @shoulder @elbow @wrist")
_SMPL22_PARENTS = (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_SMPL24_NAMES = (*_SMPL22_NAMES, "left_hand", "right_hand")
_SMPL24_PARENTS = (*_SMPL22_PARENTS, 20, 21)

_UI_PRMD39_NAMES = _sides(
    "LFHD RFHD LBHD RBHD C7 T10 CLAV STRN RBAK LSHO LUPA LELB LFRM LWRA LWRB LFIN RSHO RUPA RELB RFRM RWRA RWRB RFIN "
    "LASI RASI LPSI RPSI LTHI LKNE LTIB LANK LHEE LTOE RTHI RKNE RTIB RANK RHEE RTOE"
)
_UI_PRMD39_EDGES = _links(
    _UI_PRMD39_NAMES,
    "LFHD-RFHD LFHD-LBHD RFHD-RBHD LBHD-RBHD LBHD-C7 RBHD-C7 C7-CLAV C7-T10 CLAV-STRN T10-RBAK CLAV-LSHO CLAV-RSHO "
    "LSHO-LUPA LUPA-LELB LELB-LFRM LFRM-LWRA LFRM-LWRB LWRA-LFIN LWRB-LFIN STRN-LASI T10-LPSI LASI-LTHI LTHI-LKNE "
    "LKNE-LTIB LTIB-LANK LANK-LHEE LANK-LTOE RSHO-RUPA RUPA-RELB RELB-RFRM RFRM-RWRA RFRM-RWRB RWRA-RFIN RWRB-RFIN "
    "STRN-RASI T10-RPSI RASI-RTHI RTHI-RKNE RKNE-RTIB RTIB-RANK RANK-RHEE RANK-RTOE LASI-RASI LPSI-RPSI",
)
# Markers lie on the skin: the middle of the body is the mean of a front and a back marker.
_UI_PRMD39_DERIVED = _both_sides(
    {
        "spine_base": "LASI RASI LPSI RPSI",
        "spine_mid": "T10 STRN",
        "spine_shoulder": "C7*3 CLAV*3 T10 STRN",
        "neck": "C7 CLAV",
        "head": "LFHD RFHD LBHD RBHD",
        "nose": "LFHD*3 RFHD*3 LBHD*-2 RBHD*-2",
        "@_ear": "{S}FHD {S}BHD",
        "@_eye": "{S}FHD",
        "@_shoulder": "{S}SHO",
        "@_elbow": "{S}ELB",
        "@_wrist": "{S}WRA {S}WRB",
        "@_hand": "{S}WRA {S}WRB {S}FIN*2",
        "@_hand_tip": "{S}FIN",
        "@_thumb": "{S}WRA {S}FIN",
        "@_hip": "{S}ASI {S}PSI",
        "@_knee": "{S}KNE",
        "@_ankle": "{S}ANK",
        "@_foot": "{S}TOE",
        "@_heel": "{S}HEE",
    }
)

# The joints of ASF/AMC files, CMU's and HDM05's: each is the far end of the bone it is named after.
_CMU31_NAMES = _sides(
    "root lhipjoint rhipjoint lowerback lfemur ltibia lfoot ltoes rfemur rtibia rfoot rtoes upperback thorax "
    "lowerneck lclavicle rclavicle upperneck head lhumerus lradius lwrist lhand lthumb lfingers rhumerus rradius "
    "rwrist rhand rthumb rfingers"
)
_CMU31_EDGES = _links(
    _CMU31_NAMES,
    "root-lhipjoint root-rhipjoint root-lowerback lhipjoint-lfemur lfemur-ltibia ltibia-lfoot lfoot-ltoes "
    "rhipjoint-rfemur rfemur-rtibia rtibia-rfoot rfoot-rtoes lowerback-upperback upperback-thorax thorax-lowerneck "
    "thorax-lclavicle thorax-rclavicle lowerneck-upperneck upperneck-head lclavicle-lhumerus lhumerus-lradius "
    "lradius-lwrist lwrist-lhand lwrist-lthumb lhand-lfingers rclavicle-rhumerus rhumerus-rradius rradius-rwrist "
    "rwrist-rhand rwrist-rthumb rhand-rfingers",
)
_CMU31_DERIVED = _both_sides(
    {
        "spine_base": "root",
        "spine_mid": "lowerback upperback",
        "spine_shoulder": "thorax",
        "neck": "lowerneck",
        "nose": "head",
        "@_shoulder": "{s}clavicle",
        "@_elbow": "{s}humerus",
        "@_wrist": "{s}radius",
        "@_hand": "{s}hand",
        "@_hand_tip": "{s}fingers",
        "@_thumb": "{s}thumb",
        "@_hip": "{s}hipjoint",
        "@_knee": "{s}femur",
        "@_ankle": "{s}tibia",
        "@_foot": "{s}foot",
        "@_toes": "{s}toes",
    }
)

# Bandai-Namco's joints are the near ends of the bones they are named after; hands and toes are ends.
_BANDAI21_NAMES = _sides(
    "Hips Spine Chest Neck Head Shoulder_L UpperArm_L LowerArm_L Hand_L Shoulder_R UpperArm_R LowerArm_R Hand_R "
    "UpperLeg_L LowerLeg_L Foot_L Toes_L UpperLeg_R LowerLeg_R Foot_R Toes_R"
)
_BANDAI21_EDGES = _links(
    _BANDAI21_NAMES,
    "Hips-Spine Spine-Chest Chest-Neck Neck-Head Chest-Shoulder_L Shoulder_L-UpperArm_L UpperArm_L-LowerArm_L "
    "LowerArm_L-Hand_L Chest-Shoulder_R Shoulder_R-UpperArm_R UpperArm_R-LowerArm_R LowerArm_R-Hand_R Hips-UpperLeg_L "
    "UpperLeg_L-LowerLeg_L LowerLeg_L-Foot_L Foot_L-Toes_L Hips-UpperLeg_R UpperLeg_R-LowerLeg_R LowerLeg_R-Foot_R "
    "Foot_R-Toes_R",
)
_BANDAI21_DERIVED = _both_sides(
    {
        "spine_base": "Hips",
        "spine_mid": "Spine Chest",
        "spine_shoulder": "Chest Neck*2",
        "neck": "Neck",
        "head": "Head",
        "@_collar": "Shoulder_{S}",
        "@_shoulder": "UpperArm_{S}",
        "@_elbow": "LowerArm_{S}",
        "@_wrist": "Hand_{S}",
        "@_hip": "UpperLeg_{S}",
        "@_knee": "LowerLeg_{S}",
        "@_ankle": "Foot_{S}",
        "@_foot": "Toes_{S}",
    }
)

_SBU15_NAMES = _sides(
    "head neck torso left_shoulder left_elbow left_hand right_shoulder right_elbow right_hand left_hip left_knee "
    "left_foot right_hip right_knee right_foot"
)
_SBU15_PARENTS = (1, 1, 1, 1, 3, 4, 1, 6, 7, 2, 9, 10, 2, 12, 13)
_JHMDB15_NAMES = _sides(
    "neck belly face right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow right_knee left_knee "
    "right_wrist left_wrist right_ankle left_ankle"
)
_JHMDB15_PARENTS = (0, 0, 0, 0, 0, 1, 1, 3, 4, 5, 6, 7, 8, 9, 10)


def _layouts() -> Iterator[Layout]:
    # Kinect v2, NTU RGB+D and PKU-MMD: +x of the normalised body runs from the left to the right shoulder.
    yield Layout("ntu25", _NTU25_NAMES, _tree(_NTU25_PARENTS), center=1, x_axis=(4, 8))
    yield Layout("kinect20", _KINECT20_NAMES, _tree(_KINECT20_PARENTS), center=1, x_axis=(4, 8))
    anatomical = tuple((a, b) for a, b in _tree(_COCO17_PARENTS) if a != b)
    yield Layout("coco17", _COCO17_NAMES, _tree(_COCO17_PARENTS), coordinates="2d+score")
    yield Layout("coco17-release", _COCO17_NAMES, _COCO17_RELEASE_BONES, anatomical, coordinates="2d+score")
    # UAV-Human: COCO's joints in 3D; the release gives it the bones above and turns the left side upright.
    yield Layout("uav17", _COCO17_NAMES, _COCO17_RELEASE_BONES, anatomical, center=1, z_axis=(11, 5))
    yield Layout("openpose18", _OPENPOSE18_NAMES, _tree(_OPENPOSE18_PARENTS), coordinates="2d+score")
    yield Layout("openpose25", _OPENPOSE25_NAMES, _tree(_OPENPOSE25_PARENTS), coordinates="2d+score")
    yield Layout("h36m17", _H36M17_NAMES, _tree(_H36M17_PARENTS), center=0, x_axis=(11, 14))
    yield Layout("mediapipe33", _MEDIAPIPE33_NAMES, _tree(_MEDIAPIPE33_PARENTS))
    yield Layout("smpl22", _SMPL22_NAMES, _tree(_SMPL22_PARENTS), center=0, x_axis=(16, 17))
    yield Layout("smpl24", _SMPL24_NAMES, _tree(_SMPL24_PARENTS), center=0, x_axis=(16, 17))
    yield Layout(
        "ui-prmd39",
        _UI_PRMD39_NAMES,
        _tree(_spanning_parents(39, _UI_PRMD39_EDGES, root=5)),
        _UI_PRMD39_EDGES,
        center=5,
        x_axis=(9, 16),
        up="z",
        derived=_UI_PRMD39_DERIVED,
    )
    for name in ("cmu31", "hdm05"):
        bones = _tree(_spanning_parents(31, _CMU31_EDGES))
        yield Layout(name, _CMU31_NAMES, bones, center=0, x_axis=(15, 16), derived=_CMU31_DERIVED)
    bones = _tree(_spanning_parents(21, _BANDAI21_EDGES))
    yield Layout("bandai21", _BANDAI21_NAMES, bones, center=0, x_axis=(6, 10), derived=_BANDAI21_DERIVED)
    yield Layout("sbu15", _SBU15_NAMES, _tree(_SBU15_PARENTS), center=2, x_axis=(3, 6))
    yield Layout("jhmdb15", _JHMDB15_NAMES, _tree(_JHMDB15_PARENTS), coordinates="2d")


LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _layouts()}


def get_layout(layout: LayoutLike) -> Layout:
    """Return a layout from its name, its JSON form, a list of bones, or itself.

    Args:
        layout: A name in `LAYOUTS`; a mapping with ``joint_names`` and ``bones`` (or ``edges``) and any other field
            of `Layout`; or ``(child, parent)`` pairs that cover every joint.

    Raises:
        ValueError: If the name is unknown or the description is incomplete or inconsistent.
    """
    if isinstance(layout, Layout):
        return layout
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise ValueError(
                f"unknown layout '{layout}': use one of {', '.join(LAYOUTS)}, or give joint_names and bones"
            )
        return LAYOUTS[layout]
    if isinstance(layout, Mapping):
        return _custom_layout(layout)
    pairs = _pairs(layout, "layout")
    if not pairs:
        raise ValueError("a layout given as bones needs at least one (child, parent) pair")
    num_joints = max(max(pair) for pair in pairs) + 1
    if num_joints > MOST_JOINTS:
        raise ValueError(f"a layout given as bones names joint {num_joints - 1}: {MOST_JOINTS} are the most")
    return Layout("custom", tuple(f"joint_{i}" for i in range(num_joints)), pairs)


def _pairs(values: Any, what: str) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(a), int(b)) for a, b in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} must be a list of (child, parent) joint numbers, got {repr(values)[:60]}") from None


def _custom_layout(config: Mapping[str, Any]) -> Layout:
    known = ("name", "joint_names", "bones", "edges", "center", "x_axis", "z_axis", "up", "coordinates", "derived")
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ValueError(f"a layout has no field '{unknown[0]}': use {', '.join(known)}")
    bones = config.get("bones", config.get("edges"))
    if "joint_names" not in config or bones is None:
        raise ValueError("a custom layout needs 'joint_names' and 'bones' (or 'edges')")
    try:
        fields: dict[str, Any] = {key: str(config[key]) for key in ("up", "coordinates") if key in config}
        if config.get("center") is not None:
            fields["center"] = int(config["center"])
        for key in ("x_axis", "z_axis"):
            if config.get(key) is not None:
                start, end = (int(joint) for joint in config[key])
                fields[key] = (start, end)
        fields["derived"] = {str(name): str(recipe) for name, recipe in dict(config.get("derived", {})).items()}
        fields["joint_names"] = tuple(str(name) for name in config["joint_names"])
        for recipe in fields["derived"].values():
            weights = [float(weight or 1) for _, _, weight in (part.partition("*") for part in recipe.split())]
            if not weights or not math.isfinite(sum(weights)) or sum(weights) == 0:
                raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            "a custom layout needs a list of joint_names, a joint number as center, two as x_axis and z_axis, and "
            "recipes by name as derived"
        ) from None
    return Layout(
        name=str(config.get("name", "custom")),
        bones=_pairs(bones, "bones"),
        edges=_pairs(config["edges"], "edges") if "edges" in config and "bones" in config else (),
        **fields,
    )


def match_layout(joint_names: Sequence[str], edges: Sequence[Sequence[int]]) -> tuple[Layout, list[int]]:
    """Find the layout that a file's joint names describe.

    Args:
        joint_names: Names of the file's joints, in the file's order.
        edges: The file's own links, used where the names are not a registered layout's.

    Returns:
        The layout and the order that brings the file's joints into it: ``keypoints[..., order, :]``. A layout of the
        registry where the set of names is one's, else a custom one in the file's order.

    Raises:
        ValueError: If no joint is named.
    """
    names = [str(name) for name in joint_names]
    if not names:
        raise ValueError("it names no joint")
    for layout in LAYOUTS.values():
        if len(names) == layout.num_joints and set(names) == set(layout.joint_names):
            return layout, [names.index(name) for name in layout.joint_names]
    parents = _spanning_parents(len(names), [(int(a), int(b)) for a, b in edges])
    return Layout("custom", tuple(names), _tree(parents)), list(range(len(names)))


@lru_cache(maxsize=256)
def conversion_weights(source: Layout, target: Layout) -> np.ndarray:
    """Weights that make each joint of `target` of joints of `source`.

    A joint that both layouts name is taken as it is; otherwise the source's own recipes (`Layout.derived`) and then
    the general ones (`RECIPES`) say how. Weights are negative only where a limb is extended beyond its last joint.

    Returns:
        Array ``(V_target, V_source)`` whose rows sum to 1; read-only, because it is kept.

    Raises:
        ValueError: If a joint of `target` can be made of nothing in `source`.
    """
    weights = np.zeros((target.num_joints, source.num_joints), dtype=np.float32)
    # A joint with a name of the target's own is the joint that it alone stands for in the target's recipes.
    meaning = {recipe: name for name, recipe in target.derived.items()}
    for row, name in enumerate(target.joint_names):
        made = make_joint(name, source)
        if made is None and name in meaning:
            made = make_joint(meaning[name], source)
        if made is None:
            raise ValueError(
                f"layout '{source.name}' cannot be converted to '{target.name}': nothing says what its '{name}' is"
            )
        weights[row] = made
    weights.setflags(write=False)
    return weights


def weights_through(source: Layout, between: Layout, target: Layout, least: int = 0) -> np.ndarray | None:
    """Weights ``(V_target, V_source)`` of joints that come by way of another layout, of those joints that it can have.

    Args:
        source: Layout of the joints.
        between: Layout of the way.
        target: Layout wanted.
        least: How many joints the layout between must have.

    Returns:
        The weights; None where it has fewer, or `target` cannot be made of them.
    """
    made = {name: row for name in between.joint_names if (row := make_joint(name, source)) is not None}
    if len(made) < max(least, 1):
        return None
    try:
        back = conversion_weights(Layout(between.name, tuple(made), (), derived=between.derived), target)
    except ValueError:
        return None
    return back @ np.stack(list(made.values()))


@lru_cache(maxsize=4096)
def make_joint(name: str, source: Layout, asked: frozenset[str] = frozenset()) -> np.ndarray | None:
    """Weights ``(V,)`` that make one named joint of the source's, or None; `asked` are joints it is wanted for.

    They are kept: copy before you write.
    """
    if name in source.joint_names:
        return np.eye(source.num_joints, dtype=np.float32)[source.joint_names.index(name)]
    if name in asked:
        return None
    own = (source.derived[name],) if name in source.derived else ()
    # What the source has itself comes before what would have to be made first.
    recipes = sorted(own + _recipes(name), key=lambda recipe: not _parts(recipe) <= set(source.joint_names))
    for recipe in recipes:
        parts = [part.partition("*") for part in recipe.split()]
        made = [make_joint(part, source, asked | {name}) for part, _, _ in parts]
        if all(weights is not None for weights in made):
            scales = np.array([float(scale or 1) for _, _, scale in parts], dtype=np.float32)
            return np.tensordot(scales / scales.sum(), np.stack(made), axes=1)  # type: ignore[arg-type]
    return None


def _parts(recipe: str) -> set[str]:
    return {part.partition("*")[0] for part in recipe.split()}


def convert_layout(
    keypoints: np.ndarray,
    source: LayoutLike,
    target: LayoutLike,
    up: str | None = None,
    coordinates: str | None = None,
) -> np.ndarray:
    """Convert keypoints from one joint layout to another, and turn 3D ones y-up where they are not.

    A source joint whose coordinates are all zero (or whose score is 0, where there are scores) counts as missing: it
    is left out of the averages, and a joint made of missing joints only stays zero. The score of a joint that is made
    of several is the lowest of theirs.

    Args:
        keypoints: Array ``(..., V_source, C)``, any length unit.
        source: Layout of `keypoints`.
        target: Layout wanted.
        up: Axis that points up in `keypoints`, a key of `TO_Y_UP`; the source layout's where None. If `target` is
            y-up, the body is turned about x.
        coordinates: ``"3d"``, ``"2d"`` or ``"2d+score"``; the source layout's where None.

    Returns:
        Array ``(..., V_target, C)`` of the same floating type.

    Raises:
        ValueError: If the joint count is not the source layout's, or the layouts cannot be converted.
    """
    source, target = get_layout(source), get_layout(target)
    if keypoints.shape[-2] != source.num_joints:
        raise ValueError(
            f"keypoints have {keypoints.shape[-2]} joints, but layout '{source.name}' has {source.num_joints}: "
            "name the layout they have"
        )
    coordinates = coordinates or source.coordinates
    if source.joint_names != target.joint_names:
        keypoints = _apply(conversion_weights(source, target), keypoints, coordinates == "2d+score")
    up = up or source.up
    if up != "y" and target.up == "y" and coordinates == "3d":
        axes, signs = TO_Y_UP[up]
        keypoints = keypoints[..., axes] * np.array(signs, keypoints.dtype)
    return keypoints


def seen_joints(keypoints: np.ndarray) -> Any:
    """Whether a joint is seen, an array ``(...)``: not all of its coordinates ``(..., C)`` are zero."""
    # One comparison a coordinate: a reduction over a short last axis takes ten times as long.
    seen: np.ndarray = keypoints[..., 0] != 0
    for channel in range(1, keypoints.shape[-1]):
        seen |= keypoints[..., channel] != 0
    return seen


def _apply(weights: np.ndarray, keypoints: np.ndarray, has_score: bool) -> np.ndarray:
    """Weigh keypoints ``(..., V, C)`` by ``(V_target, V)``, leaving out missing joints."""
    weights = weights.astype(keypoints.dtype)
    present = seen_joints(keypoints)
    if not has_score and present.all():
        return weights @ keypoints
    if has_score and keypoints.shape[-1] == 3:
        present &= keypoints[..., 2] > 0
    # Where a part of an extended limb is missing, the limb ends at its last joint.
    positive = np.maximum(weights, 0)
    whole = (present[..., None, :] | (weights == 0)).all(-1)[..., None]
    seen = present.astype(keypoints.dtype)[..., None]
    total = positive @ seen
    kept = positive @ (keypoints * seen)
    partial = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    converted = np.where(whole, weights @ keypoints, partial)
    if has_score and keypoints.shape[-1] == 3:
        # A joint is as sure as the least sure of its parts.
        score = np.where(weights != 0, np.where(present, keypoints[..., 2], 0)[..., None, :], np.inf).min(-1)
        converted[..., 2] = score
        converted[score <= 0] = 0
    return converted.astype(keypoints.dtype, copy=False)
