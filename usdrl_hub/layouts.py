"""Joint layouts: the joints of a skeleton, their bones, and conversion between layouts.

All joint numbers are 0-based. This file also ships as remote code, so it imports only its sibling `layout_tables`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from .layout_tables import RECIPES, TABLES, spanning_parents, tree_bones

# Rotations that bring an up axis onto y: the axes to take, and their signs.
TO_Y_UP: dict[str, tuple[list[int], list[float]]] = {
    "y": ([0, 1, 2], [1, 1, 1]),
    "z": ([0, 2, 1], [1, 1, -1]),
    "-y": ([0, 1, 2], [1, -1, -1]),
    "-z": ([0, 2, 1], [1, -1, 1]),
    "x": ([1, 0, 2], [-1, 1, 1]),
    "-x": ([1, 0, 2], [1, -1, 1]),
}
# Joints of a layout at most: bodies with hands and face have 133, and some steps take memory quadratic in them.
MOST_JOINTS = 2048
# Modalities: joint positions, bone vectors, differences between frames.
MODALITIES = ("joint", "bone", "motion")
# How bodies are centred, rotated and scaled before a model reads them.
NORMALIZATIONS = ("ntu", "uav", "body", "body-2d", "image", "release-2d", "none")


@dataclass(frozen=True)
class Layout:
    """The joints of a skeleton.

    Attributes:
        name: Name in the registry, or any name for a custom layout.
        joint_names: One name per joint; paired joints start with ``left_`` and ``right_`` where the layout is ours.
        bones: ``(child, parent)`` pairs of the bone modality. A joint without a pair, or paired with itself, has a
            zero bone.
        edges: ``(joint, joint)`` pairs to draw; by default the bones without self-loops.
        center: Joint that normalisation moves to the origin, or None.
        x_axis: ``(start, end)`` joints of the body vector that normalisation rotates onto +x, or None.
        z_axis: ``(start, end)`` joints of the body vector that normalisation rotates onto +z, or None.
        up: Axis that points up in the data that use this layout, a key of `TO_Y_UP`.
        coordinates: The channels of the data: ``"3d"``, ``"2d"`` or ``"2d+score"``.
        derived: This layout's own recipes for joints of other layouts, tried before those of `layout_tables.RECIPES`.
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
    # Layouts that differ in their recipes are unequal, but have the same hash.
    derived: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Fill in the edges to draw, and refuse joints that do not exist.

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
    def is_3d(self) -> bool:
        """Whether the data that use this layout are 3D."""
        return self.coordinates == "3d"

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
        """Edges between any two joints along the drawn skeleton, int64 ``(V, V)``; V if they are not connected."""
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
        """The joint on the other side of the body, for each joint; a joint of the middle is its own.

        Names give the sides: a prefix ``left_`` and ``right_``, ``Left`` and ``Right``, ``L`` and ``R`` or ``l`` and
        ``r``, or a suffix ``_L`` and ``_R``, of names that are otherwise equal.
        """
        numbers = {name: number for number, name in enumerate(self.joint_names)}

        def other(name: str) -> str:
            for left, right in (("left_", "right_"), ("Left", "Right"), ("L", "R"), ("l", "r")):
                for here, there in ((left, right), (right, left)):
                    if name.startswith(here) and there + name[len(here) :] in numbers:
                        return there + name[len(here) :]
            swapped = name[:-1] + {"L": "R", "R": "L"}.get(name[-1:], "")
            return swapped if name[-2:-1] == "_" and swapped in numbers else name

        return tuple(numbers[other(name)] for name in self.joint_names)

    def to_config(self) -> str | dict[str, Any]:
        """The JSON form of the layout: its name if it is registered, else joint names and bones."""
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
        if not self.is_3d:
            config["coordinates"] = self.coordinates
        if self.derived:
            config["derived"] = dict(self.derived)
        return config


# A layout: a registered name, a `Layout`, its JSON form, or its (child, parent) pairs.
LayoutLike: TypeAlias = str | Layout | Mapping[str, Any] | Sequence[Sequence[int]]


def _recipes(name: str) -> tuple[str, ...]:
    """General recipes of a joint, with the side filled in."""
    for side in ("left", "right"):
        if name.startswith(f"{side}_"):
            return tuple(recipe.replace("@", side) for recipe in RECIPES.get("@" + name[len(side) :], ()))
    return RECIPES.get(name, ())


LAYOUTS: dict[str, Layout] = {name: Layout(name, **fields) for name, fields in TABLES.items()}


def get_layout(layout: LayoutLike) -> Layout:
    """Return a layout from its name, its JSON form, a list of bones, or itself.

    Args:
        layout: A name in `LAYOUTS`; a mapping with ``joint_names`` and ``bones`` (or ``edges``) and any other field
            of `Layout`; or ``(child, parent)`` pairs that cover every joint.

    Returns:
        The layout.

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
    parents = spanning_parents(len(names), [(int(a), int(b)) for a, b in edges])
    return Layout("custom", tuple(names), tree_bones(parents)), list(range(len(names)))


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


def weights_through(source: Layout, between: Layout, target: Layout, min_joints: int = 0) -> np.ndarray | None:
    """Weights ``(V_target, V_source)`` of a conversion by way of an intermediate layout.

    Args:
        source: Layout of the joints.
        between: Intermediate layout; only its joints that `source` can make are used.
        target: Layout wanted.
        min_joints: Number of joints of the intermediate layout that `source` must make.

    Returns:
        The weights; None if there are fewer joints, or `target` cannot be made of them.
    """
    made = {name: row for name in between.joint_names if (row := make_joint(name, source)) is not None}
    if len(made) < max(min_joints, 1):
        return None
    try:
        back = conversion_weights(Layout(between.name, tuple(made), (), derived=between.derived), target)
    except ValueError:
        return None
    return back @ np.stack(list(made.values()))


@lru_cache(maxsize=4096)
def make_joint(name: str, source: Layout, asked: frozenset[str] = frozenset()) -> np.ndarray | None:
    """Weights ``(V,)`` that make a joint of those of a layout, or None if no recipe does.

    Args:
        name: The joint.
        source: Layout of the joints that are there.
        asked: Joints whose recipes lead here; a recipe that needs one of them would be circular.

    Returns:
        The weights; they are cached, so copy before you write.
    """
    if name in source.joint_names:
        return np.eye(source.num_joints, dtype=np.float32)[source.joint_names.index(name)]
    if name in asked:
        return None
    own = (source.derived[name],) if name in source.derived else ()
    # Recipes of joints that the source has come first.
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


def seen_joints(keypoints: Any, has_score: bool = False) -> Any:
    """Whether each joint is seen: not all of its coordinates are zero.

    Args:
        keypoints: An array or tensor ``(..., C)``.
        has_score: Whether the third coordinate is a score, which must be above 0.

    Returns:
        Booleans ``(...)``, an array or tensor as `keypoints` is.
    """
    # One comparison per coordinate: a reduction over a short last axis takes ten times as long.
    seen = keypoints[..., 0] != 0
    for channel in range(1, keypoints.shape[-1]):
        seen |= keypoints[..., channel] != 0
    return seen & (keypoints[..., 2] > 0) if has_score else seen


def _apply(weights: np.ndarray, keypoints: np.ndarray, has_score: bool) -> np.ndarray:
    """Apply weights ``(V_target, V)`` to keypoints ``(..., V, C)``, leaving out missing joints."""
    weights = weights.astype(keypoints.dtype)
    has_score = has_score and keypoints.shape[-1] == 3
    present = seen_joints(keypoints, has_score)
    if not has_score and present.all():
        return weights @ keypoints
    # Without a joint to extend the limb from, it ends at its last joint.
    positive = np.maximum(weights, 0)
    whole = (present[..., None, :] | (weights == 0)).all(-1)[..., None]
    seen = present.astype(keypoints.dtype)[..., None]
    total = positive @ seen
    kept = positive @ (keypoints * seen)
    partial = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    converted = np.where(whole, weights @ keypoints, partial)
    if has_score:
        # The score of a joint is the lowest of its parts.
        score = np.where(weights != 0, np.where(present, keypoints[..., 2], 0)[..., None, :], np.inf).min(-1)
        converted[..., 2] = score
        converted[score <= 0] = 0
    return converted.astype(keypoints.dtype, copy=False)
