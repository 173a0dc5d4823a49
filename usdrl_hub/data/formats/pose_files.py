"""Reader of ``.pose`` files of sign-language processing, by the package pose-format (extra ``pose``)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EmptySequenceError, notice
from ...layouts import get_layout, seen_joints
from ...sequence import SkeletonFormatError, SkeletonSequence, is_rate
from ..reading import OnError, Reading
from .bodies import check_size
from .layout_names import layout_of_names, places_in, plain_name
from .mediapipe import keep_visible, off_origin

# Components of a body, the one that is read first: MediaPipe in space and in the image, OpenPose.
_BODIES = ("POSE_WORLD_LANDMARKS", "POSE_LANDMARKS", "pose_keypoints_2d")
# Share of the joints of a layout that must be named for its names to mean it.
_LEAST = 0.2


def read(path: Path, reading: Reading, _: OnError) -> Iterator[SkeletonSequence]:
    """Yield the recording of a file; of its components the body is read, not face and hands.

    MediaPipe's world landmarks are 3D, in metres and y down; landmarks in the image and OpenPose's keypoints are 2D
    with scores. Joints that the file lacks are unseen.

    Raises:
        EmptySequenceError: If no person is seen.
        SkeletonFormatError: If the package is missing, the file is damaged, or it has no component of a body.
    """
    try:
        from pose_format import Pose
    except ImportError:
        raise SkeletonFormatError(
            f"{path}: it is a .pose file, which the package pose-format reads: pip install 'usdrl-hub[pose]'"
        ) from None
    try:
        content = path.read_bytes()
        pose = Pose.read(content)
        values = np.ma.getdata(pose.body.data).astype(np.float64)
        scores = np.asarray(pose.body.confidence, dtype=np.float64)
        parts = [(str(part.name), [str(name) for name in part.points]) for part in pose.header.components]
        size, fps = (float(pose.header.dimensions.height), float(pose.header.dimensions.width)), float(pose.body.fps)
        is_cut = _is_cut(content, pose, len(values))
    except OSError:
        raise
    except Exception as error:
        # The package checks nothing: a damaged file fails in any way.
        raise SkeletonFormatError(f"{path}: it is a damaged .pose file: {type(error).__name__}") from None
    if is_cut:
        raise SkeletonFormatError(f"{path}: it is a damaged .pose file: it has not the frames that its header names")
    counts = [len(names) for _, names in parts]
    if values.ndim != 4 or values.shape[2] != sum(counts) or scores.shape != values.shape[:3]:
        raise SkeletonFormatError(f"{path}: it is a damaged .pose file: its header does not fit its numbers")
    chosen = next((number for name in _BODIES for number, part in enumerate(parts) if part[0] == name), None)
    if chosen is None:
        raise SkeletonFormatError(
            f"{path}: it has no component of a body ({', '.join(_BODIES)}) among its {len(parts)} components"
        )
    start = sum(counts[:chosen])
    name, joints = parts[chosen]
    part = slice(start, start + len(joints))
    yield _recording(path, name, joints, values[:, :, part], scores[:, :, part], size, fps, reading)


def _is_cut(content: bytes, pose: Any, frames: int) -> bool:
    """Whether a file of version 0.1 was cut: the package counts its frames by its bytes and reads on."""
    if round(pose.header.version, 3) != 0.1:
        return False
    header = io.BytesIO()
    pose.header.write(header)
    # 16 bits are too few for long recordings.
    named = struct.unpack_from("<3H", content, header.tell())[1]
    return named not in (frames % 2**16, min(frames, 2**16 - 1))


def _recording(
    path: Path,
    name: str,
    joints: list[str],
    values: np.ndarray,
    scores: np.ndarray,
    size: tuple[float, float],
    fps: float,
    reading: Reading,
) -> SkeletonSequence:
    """The recording of a component ``(T, M, P, 2 or 3)`` with scores ``(T, M, P)``, 0 for a point that is not seen."""
    found = layout_of_names(joints, _LEAST)
    layout = get_layout("mediapipe33" if name.startswith("POSE_") else found[0] if found else "openpose25")
    places = places_in([plain_name(joint) for joint in joints], layout.name)
    known = [place is not None for place in places]
    if not any(known):
        raise SkeletonFormatError(f"{path}: the points of '{name}' are not those of layout '{layout.name}'")
    if not all(known):
        notice(
            f"{path}: of the {layout.num_joints} joints of layout '{layout.name}' it has {sum(known)}; the others are "
            "unseen",
            "files with a part of the joints",
        )
    check_size(path, len(values) * max(values.shape[1], 1), layout.num_joints)
    is_3d = name == "POSE_WORLD_LANDMARKS"
    keypoints = np.zeros((*values.shape[:2], layout.num_joints, 3))
    columns = [place for place in places if place is not None]
    points, seen = values[:, :, columns], scores[:, :, columns] > 0
    if not np.isfinite(points).all() or not np.isfinite(scores).all():
        raise SkeletonFormatError(f"{path}: a coordinate or a confidence is NaN or infinite")
    third = points[..., 2] if is_3d and points.shape[-1] == 3 else scores[:, :, columns]
    made = np.concatenate([points[..., :2], third[..., None]], axis=-1)
    if is_3d:
        made = keep_visible(off_origin(made), scores[:, :, columns])
    keypoints[:, :, known] = np.where(seen[..., None], made, 0)
    if not seen_joints(keypoints).any():
        raise EmptySequenceError(f"{path}: no person is seen in its {len(values)} frames")
    fields: dict[str, Any] = {"fps": fps if is_rate(fps) else None, "name": path.stem}
    if is_3d:
        fields |= {"coordinates": "3d", "up": reading.up or "-y"}
    else:
        fields |= {"coordinates": "2d+score", "image_shape": size if min(size) > 0 else None}
    return reading.complete(SkeletonSequence(keypoints, layout, **fields))
