"""AlphaPose's detections, which are COCO's results, too: a list with the image of each, in any order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import notice
from ...sequence import SkeletonFormatError
from ..detections import LARGEST, Detection, frame_positions, joint_row, track_number
from .estimates import Estimates


def is_detections(content: Any) -> bool:
    """Whether a file is a list of detections that name their images."""
    first = next((entry for entry in content if entry), None) if isinstance(content, list) else None
    return isinstance(first, Mapping) and "image_id" in first


def read_detections(path: Path, content: Sequence[Any]) -> Estimates:
    """The recording of the images; those without people are absent, and are frames without visible people.

    Raises:
        SkeletonFormatError: If a detection names no image, or has no keypoints.
    """
    numbers: dict[int | str, int | None] = {}
    for entry in content:
        if not isinstance(entry, Mapping) or "image_id" not in entry:
            raise SkeletonFormatError(f"{path}: a detection has no 'image_id'")
        image = entry["image_id"]
        if isinstance(image, bool) or not isinstance(image, int | str):
            raise SkeletonFormatError(f"{path}: an 'image_id' is not a name or number of a picture")
        if image not in numbers:
            numbers[image] = number_of_image(image)
    known = [number for number in numbers.values() if number is not None]
    if len(set(known)) == len(numbers):
        places, num_frames = frame_positions(path, known)
        frames = {image: places[number] for image, number in numbers.items() if number is not None}
    else:
        notice(
            f"{path}: the names of pictures ('image_id') do not number them: their order in the file is taken for "
            "that of time",
            "pictures without numbers",
        )
        frames, num_frames = {image: place for place, image in enumerate(numbers)}, len(numbers)
    detections: list[Detection] = [
        (
            frames[entry["image_id"]],
            track_number(entry.get("idx", entry.get("track_id"))),
            joint_row(path, frames[entry["image_id"]], entry, "keypoints"),
        )
        for entry in content
    ]
    return Estimates(detections, num_frames)


def number_of_image(name: int | str) -> int | None:
    """The last number in the name of a picture, without its ending."""
    if isinstance(name, int):
        return name if 0 <= name < LARGEST else None
    found = re.findall(r"[0-9]+", re.sub(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", "", name))
    return int(found[-1]) if found and len(found[-1]) <= 15 else None
