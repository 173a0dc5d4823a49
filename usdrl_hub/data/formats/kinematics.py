"""Forward kinematics over many frames at once: rotations as three columns ``(3, T)`` of their matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# A rotation in each of T frames: the columns of its matrix, each (3, T).
Rotation = list[np.ndarray]


def identity() -> Rotation:
    """The rotation that turns nothing, in any number of frames."""
    return [np.eye(3)[:, [axis]] for axis in range(3)]


def turn(rotation: Rotation, axis: int, cosine: np.ndarray, sine: np.ndarray) -> Rotation:
    """The rotation followed, in its own frame, by one about its axis x, y or z (0, 1, 2) by angles ``(T,)``."""
    turned = list(rotation)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turned[a] = cosine * rotation[a] + sine * rotation[b]
    turned[b] = cosine * rotation[b] - sine * rotation[a]
    return turned


def apply(rotation: Rotation, vector: Sequence[np.ndarray | float] | np.ndarray) -> np.ndarray:
    """The vector, three numbers or arrays ``(T,)``, turned ``(3, T)``."""
    return vector[0] * rotation[0] + vector[1] * rotation[1] + vector[2] * rotation[2]


def compose(rotation: Rotation, other: Rotation | np.ndarray) -> Rotation:
    """The product of two rotations; the second is columns, or a matrix ``(3, 3)``."""
    columns = list(other.T) if isinstance(other, np.ndarray) else other
    return [apply(rotation, column) for column in columns]


def matrix(axes: str, degrees: Sequence[float]) -> np.ndarray:
    """The matrix ``(3, 3)`` of rotations about fixed axes, one after the other: ``"XYZ"`` turns about x first."""
    rotation = identity()
    for axis, angle in reversed(list(zip(axes.upper(), np.deg2rad(degrees), strict=True))):
        rotation = turn(rotation, "XYZ".index(axis), np.cos(angle), np.sin(angle))
    return np.concatenate(rotation, axis=1)


def from_rotation_vectors(vectors: np.ndarray) -> Rotation:
    """Rotations about axes ``(T, 3)`` whose lengths are the angles in radians."""
    angle = np.sqrt((vectors * vectors).sum(-1))
    x, y, z = (vectors / np.maximum(angle, 1e-12)[:, None]).T
    cosine, sine = np.cos(angle), np.sin(angle)
    rest = 1 - cosine
    return [
        np.stack([cosine + x * x * rest, y * x * rest + z * sine, z * x * rest - y * sine]),
        np.stack([x * y * rest - z * sine, cosine + y * y * rest, z * y * rest + x * sine]),
        np.stack([x * z * rest + y * sine, y * z * rest - x * sine, cosine + z * z * rest]),
    ]
