"""Joint layouts: which joints a skeleton has, how they are linked, and how one layout becomes another.

All joint numbers are 0-based. This file also ships as remote code, so it imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np


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
        derived: Joints of other layouts made of joints of this one: name -> names to average (repeats are weights).
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
    derived: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the edges to draw and refuse joints that do not exist.

        Raises:
            ValueError: If a bone, edge, centre or axis names a joint outside the layout, or a joint has two parents.
        """
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
        children = [child for child, _ in self.bones]
        twice = sorted({child for child in children if children.count(child) > 1})
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
    def mirrored(self) -> tuple[int, ...]:
        """The joint on the other side of the body, for each joint; itself in the middle.

        Sides are told by names: ``left_`` and ``right_``, or ``L`` and ``R`` before the same capitals.
        """
        numbers = {name: number for number, name in enumerate(self.joint_names)}

        def other(name: str) -> str:
            for here, there in (("left_", "right_"), ("right_", "left_"), ("L", "R"), ("R", "L")):
                if name.startswith(here) and there + name[len(here) :] in numbers:
                    return there + name[len(here) :]
            return name

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
        if self.up != "y":
            config["up"] = self.up
        if self.coordinates != "3d":
            config["coordinates"] = self.coordinates
        return config


# What names a layout: a registered name, a layout, its JSON form, or its (child, parent) pairs.
LayoutLike: TypeAlias = str | Layout | Mapping[str, Any] | Sequence[Sequence[int]]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


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


def _sides(derived: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Expand ``{side}_`` and ``{S}`` in a table of derived joints to left and right."""
    table: dict[str, tuple[str, ...]] = {}
    for name, sources in derived.items():
        if "{" not in name:
            table[name] = _names(sources)
            continue
        for side, letter in (("left", "L"), ("right", "R")):
            table[name.format(side=side)] = _names(sources.format(side=side, S=letter))
    return table


_NTU25_NAMES = _names(
    "spine_base spine_mid neck head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow "
    "right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot "
    "spine_shoulder left_hand_tip left_thumb right_hand_tip right_thumb"
)
_NTU25_PARENTS = (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11)

_COCO17_NAMES = _names(
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
_COCO17_PARENTS = (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)
# The list that the release applies to every 17-joint clip; it is not anatomical and leaves joint 5 without a bone.
_COCO17_RELEASE_BONES = (
    ((0, 1), (1, 3), (2, 4), (3, 5), (4, 6), (6, 8), (7, 9), (8, 10), (9, 7), (10, 8))
    + ((11, 13), (12, 14), (13, 15), (14, 16), (15, 13), (16, 14))
)  # fmt: skip

_KINECT20_NAMES = _names(
    "hip_center spine shoulder_center head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow "
    "right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot"
)
_KINECT20_PARENTS = (0, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18)
_KINECT20_DERIVED = _sides(
    {
        "spine_base": "hip_center",
        "spine_mid": "spine",
        "spine_shoulder": "shoulder_center",
        # Kinect v2 places the neck between the shoulders' centre and the head.
        "neck": "shoulder_center shoulder_center head",
        "{side}_hand_tip": "{side}_hand",
        "{side}_thumb": "{side}_hand",
    }
)

_UI_PRMD39_NAMES = _names(
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
_UI_PRMD39_DERIVED = _sides(
    {
        "spine_base": "LASI RASI LPSI RPSI",
        "spine_mid": "T10 STRN",
        "spine_shoulder": "C7 CLAV C7 CLAV C7 CLAV T10 STRN",
        "neck": "C7 CLAV",
        "head": "LFHD RFHD LBHD RBHD",
        "{side}_shoulder": "{S}SHO",
        "{side}_elbow": "{S}ELB",
        "{side}_wrist": "{S}WRA {S}WRB",
        "{side}_hand": "{S}WRA {S}WRB {S}FIN {S}FIN",
        "{side}_hand_tip": "{S}FIN",
        "{side}_thumb": "{S}WRA {S}FIN",
        "{side}_hip": "{S}ASI {S}PSI",
        "{side}_knee": "{S}KNE",
        "{side}_ankle": "{S}ANK",
        "{side}_foot": "{S}TOE",
    }
)


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        # Kinect v2, NTU RGB+D and PKU-MMD: +x of the normalised body runs from the left to the right shoulder.
        Layout("ntu25", _NTU25_NAMES, _tree(_NTU25_PARENTS), center=1, x_axis=(4, 8)),
        Layout(
            "kinect20",
            _KINECT20_NAMES,
            _tree(_KINECT20_PARENTS),
            center=1,
            x_axis=(4, 8),
            derived=_KINECT20_DERIVED,
        ),
        Layout("coco17", _COCO17_NAMES, _tree(_COCO17_PARENTS), coordinates="2d+score"),
        Layout(
            "coco17-release",
            _COCO17_NAMES,
            _COCO17_RELEASE_BONES,
            edges=tuple((a, b) for a, b in _tree(_COCO17_PARENTS) if a != b),
            coordinates="2d+score",
        ),
        # UAV-Human: COCO's joints in 3D; the release gives it the bones above and turns the left side upright.
        Layout(
            "uav17",
            _COCO17_NAMES,
            _COCO17_RELEASE_BONES,
            edges=tuple((a, b) for a, b in _tree(_COCO17_PARENTS) if a != b),
            center=1,
            z_axis=(11, 5),
        ),
        Layout(
            "ui-prmd39",
            _UI_PRMD39_NAMES,
            _tree(_spanning_parents(39, _UI_PRMD39_EDGES, root=5)),
            edges=_UI_PRMD39_EDGES,
            center=5,
            x_axis=(9, 16),
            up="z",
            derived=_UI_PRMD39_DERIVED,
        ),
    )
}


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
    return Layout("custom", tuple(f"joint_{i}" for i in range(num_joints)), pairs)


def _pairs(values: Any, what: str) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(a), int(b)) for a, b in values)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a list of (child, parent) joint numbers, got {values!r}") from None


def _custom_layout(config: Mapping[str, Any]) -> Layout:
    known = ("name", "joint_names", "bones", "edges", "center", "x_axis", "z_axis", "up", "coordinates")
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ValueError(f"a layout has no field '{unknown[0]}': use {', '.join(known)}")
    bones = config.get("bones", config.get("edges"))
    if "joint_names" not in config or bones is None:
        raise ValueError("a custom layout needs 'joint_names' and 'bones' (or 'edges')")
    fields = {key: config[key] for key in ("center", "up", "coordinates") if key in config}
    for key in ("x_axis", "z_axis"):
        if config.get(key) is not None:
            fields[key] = tuple(int(joint) for joint in config[key])
    return Layout(
        name=str(config.get("name", "custom")),
        joint_names=tuple(str(name) for name in config["joint_names"]),
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
    """
    names = [str(name) for name in joint_names]
    for layout in LAYOUTS.values():
        if len(names) == layout.num_joints and set(names) == set(layout.joint_names):
            return layout, [names.index(name) for name in layout.joint_names]
    parents = _spanning_parents(len(names), [(int(a), int(b)) for a, b in edges])
    return Layout("custom", tuple(names), _tree(parents)), list(range(len(names)))


def conversion_weights(source: Layout, target: Layout) -> np.ndarray:
    """Weights that make each joint of `target` an average of joints of `source`.

    A joint that both layouts name is taken as it is; otherwise the source's `Layout.derived` table says how.

    Returns:
        Array ``(V_target, V_source)`` whose rows sum to 1.

    Raises:
        ValueError: If a joint of `target` can be made of nothing in `source`.
    """
    weights = np.zeros((target.num_joints, source.num_joints), dtype=np.float32)
    for row, name in enumerate(target.joint_names):
        parts = (name,) if name in source.joint_names else source.derived.get(name)
        if parts is None:
            raise ValueError(
                f"layout '{source.name}' cannot be converted to '{target.name}': nothing says what its '{name}' is"
            )
        for part in parts:
            weights[row, source.joint_names.index(part)] += 1 / len(parts)
    return weights


def convert_layout(keypoints: np.ndarray, source: LayoutLike, target: LayoutLike, up: str | None = None) -> np.ndarray:
    """Convert keypoints from one joint layout to another, and turn them y-up where they are not.

    A source joint whose coordinates are all zero counts as missing: it is left out of the averages, and a joint made
    of missing joints only stays zero.

    Args:
        keypoints: Array ``(..., V_source, C)``, any length unit.
        source: Layout of `keypoints`.
        target: Layout wanted.
        up: Axis that points up in `keypoints`, ``"y"`` or ``"z"``; the source layout's where None. A z-up body is
            turned by -90 degrees about x, ``(x, y, z) -> (x, z, -y)``, if `target` is y-up.

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
    if source.joint_names != target.joint_names:
        weights = conversion_weights(source, target)
        present = (keypoints != 0).any(-1, keepdims=True).astype(keypoints.dtype)
        total = weights @ present
        keypoints = np.divide(
            weights @ keypoints, total, out=np.zeros(total.shape[:-1] + keypoints.shape[-1:], keypoints.dtype),
            where=total > 0,
        )  # fmt: skip
    if (up or source.up) == "z" and target.up == "y" and keypoints.shape[-1] == 3:
        keypoints = np.stack([keypoints[..., 0], keypoints[..., 2], -keypoints[..., 1]], axis=-1)
    return keypoints
