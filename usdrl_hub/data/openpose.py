"""Reader of OpenPose's JSON, one file per frame, and the names that stand for all frames of a recording."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..sequence import SkeletonFormatError, SkeletonSequence
from .detections import (
    Detection,
    choose_layout,
    count_joints,
    frame_positions,
    joint_row,
    load_json,
    max_numbers,
    stack_detections,
    track_number,
)
from .reading import Reading

# The file of a frame, as OpenPose names it and others do, what it begins with, and what stands for all frames.
_FRAME = re.compile(r"(?P<start>.*?)(?P<frame>[0-9]{1,15})(?P<end>(?:_keypoints)?\.json)")
_OPENPOSE_FRAME = re.compile(r".+_[0-9]{12}_keypoints\.json")
_OPENPOSE = re.compile(rb'\s*\{\s*(?:"version"\s*:\s*[0-9.]+\s*,\s*)?"people"\s*:')
_SERIES = re.compile(r"(?P<start>.*)\*(?P<end>(?:_keypoints)?\.json)")


def join_frames(files: Iterable[Path]) -> list[Path]:
    """Paths of recordings: OpenPose's files of single frames become one path for each recording.

    Files of a frame have its number at the end of their names, such as ``NAME_000000000012_keypoints.json``, which
    becomes ``NAME_*_keypoints.json``, or ``012.json``.

    Args:
        files: Paths of files.

    Returns:
        The paths, sorted; those of recordings may be given to all readers.
    """
    return sorted({_series_of(file) or file for file in files})


def _series_of(file: Path) -> Path | None:
    """What stands for the frames of a recording of which a file is one; None if it is none."""
    match = _FRAME.fullmatch(file.name)
    if match is None or not (_OPENPOSE_FRAME.fullmatch(file.name) or _is_openpose(file)):
        return None
    return file.with_name(f"{match['start']}*{match['end']}")


def _is_openpose(file: Path) -> bool:
    try:
        with open(file, "rb") as content:
            return _OPENPOSE.match(content.read(200)) is not None
    except OSError:
        return False


def is_series(path: str | os.PathLike) -> bool:
    """Whether a path stands for all of OpenPose's frames of a recording, see `join_frames`."""
    return _SERIES.fullmatch(Path(path).name) is not None and not Path(path).is_file()


def recording_name(path: str | os.PathLike) -> str:
    """What a recording is called: its file's name without the ending; that of its film, for OpenPose's frames."""
    match = _SERIES.fullmatch(Path(path).name)
    if match is None:
        return Path(path).stem
    return match["start"].rstrip("_-. ") or Path(path).absolute().parent.name


def read_openpose_frames(path: Path, reading: Reading) -> SkeletonSequence:
    """The recording whose frames OpenPose wrote; numbers left out are frames in which nobody is seen."""
    name = recording_name(path)
    files: dict[int, Path] = {}
    size = 0
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        match = _FRAME.fullmatch(file.name)
        if match and file.with_name(f"{match['start']}*{match['end']}") == path and file.is_file():
            number = int(match["frame"])
            if number in files:
                raise SkeletonFormatError(f"{path}: '{file.name}' and '{files[number].name}' are the same frame")
            files[number] = file
            size += file.stat().st_size
    if not files:
        raise SkeletonFormatError(f"{path}: there is no such file")
    places, num_frames = frame_positions(path, sorted(files))
    detections: list[Detection] = []
    for number, file in sorted(files.items()):
        content = load_json(file)
        people = content.get("people") if isinstance(content, dict) else None
        if not isinstance(people, list):
            raise SkeletonFormatError(f"{file}: it is no frame of OpenPose: it has no list 'people'")
        for person in people:
            row = joint_row(file, places[number], person, "pose_keypoints_2d")
            detections.append((places[number], _track(person), row))
    chosen = choose_layout(path, count_joints(path, detections), reading, False)
    keypoints = stack_detections(path, detections, num_frames, max_numbers(size))
    return reading.complete(SkeletonSequence(keypoints, chosen, name=name))


def _track(person: Mapping[str, Any]) -> Hashable | None:
    track = track_number(person.get("person_id"))
    return None if isinstance(track, int | float) and track < 0 else track
