"""Predictions of MMPose's inferencer and demos: of videos and of single images, 2D, and 3D by ``pose3d``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...sequence import SkeletonFormatError
from ..detections import Detection, to_numbers, track_number
from .estimates import Estimates, numbered_frames


def frames_of(content: Any) -> list[Any] | None:
    """The frames of a file, each with its ``instances``, or None where it is not MMPose's."""
    if isinstance(content, Mapping):
        if isinstance(content.get("instance_info"), list):
            return content["instance_info"]
        if isinstance(content.get("predictions"), list):
            # What the inferencer returns: a list for each image.
            return [{"instances": entry} for entry in content["predictions"]]
        return None
    if not isinstance(content, list):
        return None
    first = next((entry for entry in content if entry), None)
    if not isinstance(first, Mapping):
        return None
    if isinstance(first.get("instances"), list):
        return content
    # The people of one image.
    return [{"instances": content}] if {"keypoints", "keypoint_scores"} <= set(first) else None


def read_frames(path: Path, entries: Sequence[Any]) -> Estimates:
    """What MMPose saw; frames are numbered from 0 or 1, and those without people may be left out.

    Raises:
        SkeletonFormatError: If a frame is something else; the message names it.
    """
    frames: list[Any] = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("instances"), list):
            raise SkeletonFormatError(f"{path}, frame {place}: there is no list 'instances'")
        frames.append(entry.get("frame_id", place))
    places, num_frames = numbered_frames(path, frames, "frame_id")
    detections: list[Detection] = []
    dims: set[int] = set()
    for frame, entry in zip(places, entries, strict=True):
        for instance in entry["instances"]:
            if not isinstance(instance, Mapping):
                raise SkeletonFormatError(f"{path}, frame {frame}: an instance is not an object")
            points = to_numbers(path, frame, instance.get("keypoints"))
            # Of each of one person, by some versions.
            points = points[0] if points.ndim == 3 and len(points) == 1 else points
            if points.ndim != 2 or points.shape[1] not in (2, 3):
                raise SkeletonFormatError(f"{path}, frame {frame}: 'keypoints' are not (joints, 2) or (joints, 3)")
            dims.add(points.shape[1])
            if len(dims) > 1:
                raise SkeletonFormatError(f"{path}, frame {frame}: some people are 2D and others 3D")
            if points.shape[1] == 2:
                scores = to_numbers(path, frame, instance.get("keypoint_scores"))
                scores = scores[0] if scores.ndim == 2 and len(scores) == 1 else scores
                if scores.shape != points.shape[:1]:
                    raise SkeletonFormatError(f"{path}, frame {frame}: 'keypoints' and 'keypoint_scores' do not fit")
                points = np.c_[points, scores]
            detections.append((frame, track_number(instance.get("track_id")), points))
    if dims == {3}:
        layout = "h36m17" if all(len(points) == 17 for _, _, points in detections) else None
        return Estimates(detections, num_frames, "3d", layout=layout, fields={"up": "z"})
    return Estimates(detections, num_frames)
