"""KERAAL's positions of pose estimators: joints by name or number in frames by number, in shares of the image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...layouts import get_layout
from ...sequence import SkeletonFormatError
from ..detections import Detection, frame_positions, to_numbers
from .estimates import Estimates, frame_number
from .layout_names import layout_of_names

_NUMBERED = {17: "coco17", 18: "openpose18", 25: "openpose25", 33: "mediapipe33"}


def is_positions(content: Any) -> bool:
    """Whether a file is positions of joints by frame and name."""
    frames = content.get("positions") if isinstance(content, Mapping) else None
    return (
        isinstance(frames, Mapping) and bool(frames) and all(isinstance(frame, Mapping) for frame in frames.values())
    )


def read_positions(path: Path, content: Mapping[str, Any]) -> Estimates:
    """The recording of a file; a third number of BlazePose's joints, a depth in shares of the width, is left out.

    Raises:
        SkeletonFormatError: If a frame is something else, or no layout has the joints.
    """
    frames = content["positions"]
    numbers = {key: frame_number(key) for key in frames}
    names = list(dict.fromkeys(name for frame in frames.values() for name in frame))
    if all(name.isdigit() and len(name) < 4 for name in names):
        count = max(map(int, names), default=-1) + 1
        # The last joints may be seen in no frame.
        joints = next((number for number in _NUMBERED if number - 3 < count <= number), count)
        layout, places = _NUMBERED.get(joints), [str(joint) for joint in range(joints)]
    else:
        found = layout_of_names(names, least=0.8)
        layout = None if found is None else found[0]
        places = [] if found is None else [names[place] if place is not None else "" for place in found[1]]
    if layout is None:
        raise SkeletonFormatError(
            f"{path}: no layout has its {len(names)} joints, such as '{''.join(names[:1])[:40]}'"
        )
    known = [number for number in numbers.values() if number is not None]
    if len(set(known)) == len(frames):
        order, num_frames = frame_positions(path, known)
        of_frame = {key: order[number] for key, number in numbers.items() if number is not None}
    else:
        # Times in place of numbers.
        of_frame, num_frames = {key: place for place, key in enumerate(frames)}, len(frames)
    detections: list[Detection] = []
    for key, frame in frames.items():
        if not frame:
            continue
        row = np.zeros((get_layout(layout).num_joints, 3))
        for joint, name in enumerate(places):
            if name in frame:
                point = to_numbers(path, of_frame[key], frame[name])
                if point.shape not in ((2,), (3,)):
                    raise SkeletonFormatError(f"{path}, frame {key[:40]}: '{name[:40]}' is not two or three numbers")
                row[joint, :2] = point[:2]
        detections.append((of_frame[key], None, row))
    values = [np.abs(row).max() for _, _, row in detections]
    return Estimates(
        detections, num_frames, "shares" if values and np.median(values) < 4 else "pixels", False, layout=layout
    )
