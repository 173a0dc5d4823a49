"""Kinetics-skeleton, as ST-GCN has it: OpenPose's 18 joints in shares of the image, and a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...sequence import SkeletonFormatError
from ..detections import Detection, to_numbers
from .estimates import Estimates, numbered_frames


def is_kinetics(content: Any) -> bool:
    """Whether a file is of Kinetics-skeleton."""
    entries = content.get("data") if isinstance(content, Mapping) else None
    return isinstance(entries, list) and any(isinstance(entry, Mapping) and "skeleton" in entry for entry in entries)


def read_kinetics(path: Path, content: Mapping[str, Any]) -> Estimates:
    """The recording of a file; frames without people have an empty list, or are left out.

    Raises:
        SkeletonFormatError: If a frame is something else; the message names it.
    """
    entries = content["data"]
    for place, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("skeleton"), list):
            raise SkeletonFormatError(f"{path}, frame {place}: there is no list 'skeleton'")
    numbers = [entry.get("frame_index", place) for place, entry in enumerate(entries)]
    places, num_frames = numbered_frames(path, numbers, "frame_index")
    detections: list[Detection] = []
    for frame, entry in zip(places, entries, strict=True):
        for person in entry["skeleton"]:
            if not isinstance(person, Mapping):
                raise SkeletonFormatError(f"{path}, frame {frame}: a person is not an object")
            points, scores = (to_numbers(path, frame, person.get(key)) for key in ("pose", "score"))
            if points.ndim != 1 or scores.ndim != 1 or len(points) != 2 * len(scores):
                raise SkeletonFormatError(f"{path}, frame {frame}: 'pose' is not two numbers for each of 'score'")
            detections.append((frame, None, np.c_[points.reshape(-1, 2), scores]))
    label = content.get("label_index")
    is_class = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 1 << 31
    return Estimates(detections, num_frames, "shares", fields={"label": label if is_class else None})
