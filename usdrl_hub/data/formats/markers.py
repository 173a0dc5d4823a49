"""What C3D and TRC files have in common: named points, of one person or several, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...layouts import Layout, convert_layout
from ...sequence import SkeletonFormatError, without_nan
from ..reading import Reading
from .joint_names import find_body, find_joints, find_marker_layout, find_markers, lacking, named_layout


def find_people(path: Path, names: Sequence[str], points: np.ndarray, reading: Reading) -> tuple[np.ndarray, Layout]:
    """The whole bodies that the points of a file make.

    Args:
        path: The file.
        names: Names of the points; those of one person may share a prefix that ends in a colon.
        points: Positions ``(T, P, 3)``, NaN where a point is not seen.
        reading: A layout all of whose joints are points of the file is taken as it is.

    Returns:
        Positions ``(T, M, V, 3)``, zero where a joint is not seen, and their layout: one of the registry where the
        file has all of its markers, else joints by `joint_names.RIGS`, else by `joint_names.MARKER_SETS`.

    Raises:
        SkeletonFormatError: If there is no whole body; the message says which joints are lacking.
    """
    named = find_body(path, names, reading.layout)
    points = without_nan(points)
    if named is not None:
        return points[:, named[1]][:, None], named[0]
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(name.rpartition(":")[0], []).append(index)
    # Props have prefixes, too; where no group is a body, the whole file may be.
    bodies: list[tuple[np.ndarray, Layout]] = []
    missing: list[str] = []
    for group in (*groups.values(), list(range(len(names)))):
        if bodies and len(group) == len(names):
            break
        body, without = _body([names[index] for index in group], points[:, group])
        if body is not None:
            bodies.append(body)
        elif not missing or len(without) < len(missing):
            missing = without
    if not bodies:
        shown = ", ".join(name.rpartition(":")[2][:20] for name in names[:5])
        raise SkeletonFormatError(
            f"{path}: its {len(names)} markers ({shown}, ...) make no whole body: nothing says where "
            f"{', '.join(missing[:4])} {'is' if len(missing) == 1 else 'are'}; name them with --layout FILE.json"
        )
    layout = bodies[0][1]
    return np.stack([body for body, other in bodies if other == layout], axis=1), layout


def _body(names: Sequence[str], points: np.ndarray) -> tuple[tuple[np.ndarray, Layout] | None, list[str]]:
    """The joints ``(T, V, 3)`` of one person and their layout, or what is lacking."""
    known = find_marker_layout(names)
    if known is not None:
        return (points[:, known[1]], known[0]), []
    joints = find_joints(names)
    if not lacking(joints):
        layout = named_layout(list(joints))
        return (points[:, [joints[name] for name in layout.joint_names]], layout), []
    markers, used = find_markers(names)
    missing = lacking(markers.derived)
    if missing:
        return None, min(missing, lacking(joints), key=len)
    layout = named_layout(list(markers.derived))
    return (convert_layout(points[:, used], markers, layout), layout), []
