"""Azure Kinect's bodies, as its offline processor writes them: 32 joints in millimetres, y down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...layouts import get_layout
from ...sequence import SkeletonFormatError
from ..detections import Detection, to_numbers, track_number
from .estimates import Estimates, frame_number, numbered_frames, rate_of_times


def is_azure(content: Any) -> bool:
    """Whether a file is Azure Kinect's."""
    frames = content.get("frames") if isinstance(content, Mapping) else None
    return isinstance(frames, list) and any(
        isinstance(frame, Mapping) and ("bodies" in frame or "num_bodies" in frame) for frame in frames
    )


def read_azure(path: Path, content: Mapping[str, Any]) -> Estimates:
    """The recording of a file; frames without people have no bodies.

    Raises:
        SkeletonFormatError: If a frame is something else; the message names it.
    """
    frames = content["frames"]
    for place, frame in enumerate(frames):
        if not isinstance(frame, Mapping) or not isinstance(frame.get("bodies", []), list):
            raise SkeletonFormatError(f"{path}, frame {place}: there is no list 'bodies'")
    numbers = [frame.get("frame_id") for frame in frames]
    if None in map(frame_number, numbers):
        numbers = list(range(len(frames)))
    places, num_frames = numbered_frames(path, numbers, "frame_id")
    joints = get_layout("azure32").num_joints
    detections: list[Detection] = []
    for place, frame in zip(places, frames, strict=True):
        for body in frame.get("bodies", []):
            points = to_numbers(path, place, body.get("joint_positions") if isinstance(body, Mapping) else None)
            if points.shape != (joints, 3):
                raise SkeletonFormatError(
                    f"{path}, frame {place}: 'joint_positions' are not {joints} joints x 3 numbers"
                )
            detections.append((place, track_number(body.get("body_id")), points))
    times = next(
        (key for key in ("timestamp_usec", "timestamp_us", "timestamp_ms") if any(key in frame for frame in frames)),
        None,
    )
    fps = None if times is None else rate_of_times([frame.get(times) for frame in frames], times)
    return Estimates(detections, num_frames, "3d", layout="azure32", units="mm", fields={"up": "-y", "fps": fps})
