"""CMU Panoptic's bodies: a file for each frame, 19 joints in centimetres, y down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...layouts import get_layout
from ...sequence import SkeletonFormatError
from ..detections import Detection, to_numbers, track_number
from .estimates import Estimates

# Frames per second of the cameras by what a file calls them.
_RATES = {"hd_29_97": 29.97, "vga_25": 25.0, "kinect_30": 30.0}


def is_panoptic(content: Any) -> bool:
    """Whether a file is a frame of CMU Panoptic."""
    return (
        isinstance(content, Mapping)
        and isinstance(content.get("bodies"), list)
        and (
            "univTime" in content
            or any(isinstance(body, Mapping) and "joints19" in body for body in content["bodies"])
        )
    )


def read_panoptic(frames: Sequence[tuple[int, Path, Any]]) -> Estimates:
    """The recording of some frames.

    Args:
        frames: Number, from 0, file and content of each.

    Raises:
        SkeletonFormatError: If a body has no 19 joints; the message names the file.
    """
    joints = get_layout("panoptic19").num_joints
    detections: list[Detection] = []
    for frame, file, content in frames:
        if not is_panoptic(content):
            raise SkeletonFormatError(f"{file}: it is not a frame of CMU Panoptic")
        for body in content["bodies"]:
            values = to_numbers(file, frame, body.get("joints19") if isinstance(body, Mapping) else None)
            if values.shape != (4 * joints,):
                raise SkeletonFormatError(f"{file}: 'joints19' of a body are not {joints} joints x 4 numbers")
            points = values.reshape(joints, 4)
            # A joint that no camera sees has the score -1.
            detections.append((frame, track_number(body.get("id")), np.where(points[:, 3:] < 0, 0, points[:, :3])))
    name = frames[0][2].get("fpsType")
    rate = _RATES.get(name) if isinstance(name, str) else None
    count = max(frame for frame, _, _ in frames) + 1
    return Estimates(detections, count, "3d", layout="panoptic19", units="cm", fields={"up": "-y", "fps": rate})
