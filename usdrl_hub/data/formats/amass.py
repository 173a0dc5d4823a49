"""AMASS and other ``.npz`` files of SMPL, SMPL+H and SMPL-X poses, as joints of a body of our own.

The body models themselves may not be passed on, so the bones have the lengths of a person of average height, and the
shape (``betas``) is left out.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ...layouts import get_layout
from ...sequence import SkeletonFormatError, SkeletonSequence
from ..arrays import load_npz
from ..reading import OnError, Reading
from .bodies import make_sequence
from .kinematics import Rotation, apply, compose, from_rotation_vectors

# From each joint's parent to it in the rest pose (a T pose that faces z, y up, left along x), in metres. Chosen by
# hand after the proportions of an average person 1.7 m tall; no numbers of a body model.
_REST = {
    "pelvis": (0.0, 0.0, 0.0),
    "left_hip": (0.08, -0.08, 0.0),
    "right_hip": (-0.08, -0.08, 0.0),
    "spine1": (0.0, 0.11, -0.02),
    "left_knee": (0.02, -0.4, 0.0),
    "right_knee": (-0.02, -0.4, 0.0),
    "spine2": (0.0, 0.14, 0.02),
    "left_ankle": (-0.01, -0.41, -0.03),
    "right_ankle": (0.01, -0.41, -0.03),
    "spine3": (0.0, 0.06, 0.0),
    "left_foot": (0.03, -0.06, 0.13),
    "right_foot": (-0.03, -0.06, 0.13),
    "neck": (0.0, 0.21, -0.04),
    "left_collar": (0.08, 0.12, -0.03),
    "right_collar": (-0.08, 0.12, -0.03),
    "head": (0.0, 0.1, 0.04),
    "left_shoulder": (0.1, 0.04, -0.01),
    "right_shoulder": (-0.1, 0.04, -0.01),
    "left_elbow": (0.27, -0.01, -0.02),
    "right_elbow": (-0.27, -0.01, -0.02),
    "left_wrist": (0.25, 0.0, 0.0),
    "right_wrist": (-0.25, 0.0, 0.0),
}
_JOINTS = len(_REST)
# The body's rotations come first in `poses`: 72 of SMPL, 156 of SMPL+H, 165 of SMPL-X, 63 or 66 of the body alone.
_RATES = ("mocap_framerate", "mocap_frame_rate", "fps", "frame_rate", "framerate")
# In names of arrays that may be a motion.
_OF_MOTION = re.compile(r"pose|joint|point|orient|theta|skel|kp|jtr|vert", re.IGNORECASE)
_NAMES = {"poses", "trans", "root_orient", "pose_body", *_RATES}


def is_amass(path: Path) -> bool:
    """Whether an ``.npz`` file holds poses of SMPL, by the names of its arrays."""
    names = _names(path)
    is_shape = "betas" in names and not any(_OF_MOTION.search(name) for name in names)
    return not {"offsets", "keypoints"} & names and (is_shape or bool({"poses", "pose_body"} & names))


def _names(path: Path) -> set[str]:
    """Names of the arrays of an ``.npz`` file; of what is none, no name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return set()


def read(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Read poses of SMPL: layout smpl22, metres, z up, fps as the file says.

    Args:
        path: The file.
        reading: Axis and fps where the file does not say; the layout is the file's own.
        on_error: Not called: a file holds one recording.

    Raises:
        SkeletonFormatError: If the arrays have other shapes, or are not finite numbers.
    """
    if not {"poses", "pose_body"} & _names(path):
        raise SkeletonFormatError(
            f"{path}: it is the shape of a person ('betas') without a motion: read AMASS' files that have 'poses'"
        )
    arrays = load_npz(path, _NAMES)
    rotations = _rotations(path, arrays)
    frames = len(rotations)
    trans = arrays.get("trans", np.zeros((frames, 3)))
    trans = _array(path, "trans", trans)
    if trans.shape != (frames, 3):
        raise SkeletonFormatError(f"{path}: 'trans' must be ({frames}, 3), got the shape {trans.shape}")
    layout = get_layout("smpl22")
    keypoints = _pose(rotations, layout.parents) + trans[:, None]
    fps = next((_rate(arrays[name]) for name in _RATES if name in arrays), None)
    yield make_sequence(path, keypoints[:, None], layout, reading, fps=fps, units="m", up="z", kind="AMASS")


def _array(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise SkeletonFormatError(f"{path}: '{name}' must be numbers, got an array of type {array.dtype}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all() or (array.size and np.abs(array).max() > 1e6):
        raise SkeletonFormatError(f"{path}: '{name}' holds NaN, infinity, or numbers that are not angles or positions")
    return array


def _rotations(path: Path, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Axis and angle of the joints of the body ``(T, 22, 3)``."""
    if "poses" in arrays:
        poses = _array(path, "poses", arrays["poses"])
        if poses.ndim == 3 and poses.shape[-1] == 3:
            poses = poses.reshape(len(poses), -1)
    else:
        body = _array(path, "pose_body", arrays["pose_body"])
        if body.ndim < 2:
            raise SkeletonFormatError(f"{path}: 'pose_body' must be (frames, 63), got the shape {body.shape}")
        body = body.reshape(len(body), -1) if len(body) else body.reshape(0, 63)
        root = _array(path, "root_orient", arrays.get("root_orient", np.zeros((len(body), 3))))
        if root.shape != (len(body), 3):
            raise SkeletonFormatError(f"{path}: 'root_orient' must be ({len(body)}, 3), got the shape {root.shape}")
        poses = np.concatenate([root, body], axis=1)
    if poses.ndim != 2 or poses.shape[1] < 3 * _JOINTS or poses.shape[1] % 3:
        raise SkeletonFormatError(
            f"{path}: 'poses' must have three numbers for each joint of SMPL, {3 * _JOINTS} or more in a frame, got "
            f"the shape {poses.shape}"
        )
    if not len(poses):
        raise SkeletonFormatError(f"{path}: 'poses' has no frame")
    return poses[:, : 3 * _JOINTS].reshape(len(poses), _JOINTS, 3)


def _rate(array: np.ndarray) -> float | None:
    if array.size != 1 or array.dtype.kind not in "fiu":
        return None
    rate = float(array.reshape(-1)[0])
    return rate if 0.01 <= rate <= 1e5 else None


def _pose(rotations: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """Positions ``(T, 22, 3)`` relative to the pelvis by forward kinematics."""
    positions = [np.zeros((3, len(rotations)))]
    turned: list[Rotation] = [from_rotation_vectors(rotations[:, 0])]
    for joint, offset in enumerate(list(_REST.values())[1:], 1):
        parent = parents[joint]
        positions.append(positions[parent] + apply(turned[parent], offset))
        turned.append(compose(turned[parent], from_rotation_vectors(rotations[:, joint])))
    return np.stack(positions).transpose(2, 0, 1)
