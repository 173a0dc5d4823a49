"""Recordings with a file per frame (OpenPose, CMU Panoptic, Ultralytics), named by a pattern: ``NAME_*.json``."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..sequence import SkeletonFormatError, SkeletonSequence
from .detections import Detection, frame_positions, joint_row, load_json, track_number
from .formats.estimates import Estimates, to_sequence
from .formats.panoptic import is_panoptic, read_panoptic
from .formats.ultralytics import is_label, read_labels
from .reading import Reading

# Names of the files of frames, their first bytes, and the patterns that stand for all frames.
_FRAME = re.compile(
    r"(?P<start>.*?)(?P<frame>[0-9]{1,15})(?P<end>(?:_keypoints)?\.json|\.txt)", re.IGNORECASE | re.DOTALL
)
_OPENPOSE_FRAME = re.compile(r".+_[0-9]{12}_keypoints\.json")
_OPENPOSE = re.compile(rb'\{.{0,2000}?"people"\s*:\s*\[\s*(?:\]|\{.{0,2000}?"pose_keypoints_2d")', re.DOTALL)
_PANOPTIC = re.compile(rb'\{.{0,400}?"(?:bodies"\s*:\s*\[\s*\{.{0,200}?"joints[0-9]+|univTime)"', re.DOTALL)
_SERIES = re.compile(r"(?P<start>.*)\*(?P<end>(?:_keypoints)?\.json|\.txt)", re.IGNORECASE | re.DOTALL)


def join_frames(files: Iterable[Path]) -> list[Path]:
    """Paths of recordings: files of single frames become one path for each recording.

    Files of a frame have its number at the end of their names, such as ``NAME_000000000012_keypoints.json``, which
    becomes ``NAME_*_keypoints.json``, ``012.json``, or ``NAME_12.txt``.

    Args:
        files: Paths of files.

    Returns:
        The paths, sorted; readers take the patterns, too.
    """
    return sorted({series_of(file) or file for file in files})


def series_of(file: Path) -> Path | None:
    """The pattern of the recording that a file is a frame of; None if it is not a frame."""
    match = _FRAME.fullmatch(file.name)
    if match is None or not (_OPENPOSE_FRAME.fullmatch(file.name) or _is_frame(file)):
        return None
    return file.with_name(f"{match['start']}*{match['end']}")


def _is_frame(file: Path) -> bool:
    """Whether a file's content is that of one frame."""
    try:
        with open(file, "rb") as content:
            beginning = content.read(5000)
    except OSError:
        return False
    if file.suffix.lower() == ".txt":
        first = beginning.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
        return is_label(first.split())
    return any(form.match(beginning.lstrip()) is not None for form in (_OPENPOSE, _PANOPTIC))


def is_series(path: str | os.PathLike) -> bool:
    """Whether a path stands for all frames of a recording, see `join_frames`."""
    return _SERIES.fullmatch(Path(path).name) is not None and not Path(path).is_file()


def recording_name(path: str | os.PathLike) -> str:
    """Name of a recording: its file's name without the suffix, or the common part of the names of its frames."""
    match = _SERIES.fullmatch(Path(path).name)
    if match is None:
        return Path(path).stem
    return match["start"].rstrip("_-. ") or Path(path).absolute().parent.name


def frame_files(path: Path) -> dict[int, Path]:
    """The files of a recording with a file per frame, by the numbers of the frames.

    Raises:
        SkeletonFormatError: If there are none, or two have the same number.
    """
    files: dict[int, Path] = {}
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        match = _FRAME.fullmatch(file.name)
        if match and file.with_name(f"{match['start']}*{match['end']}") == path and file.is_file():
            number = int(match["frame"])
            if number in files:
                raise SkeletonFormatError(f"{path}: '{file.name}' and '{files[number].name}' are the same frame")
            files[number] = file
    if not files:
        raise SkeletonFormatError(f"{path}: there is no such file")
    return files


def read_series(path: Path, reading: Reading) -> SkeletonSequence:
    """Read a recording with a file per frame; missing numbers are frames in which no person is seen.

    Raises:
        SkeletonFormatError: If there are no such files, or one has another format; the message names it.
    """
    files = frame_files(path)
    positions, num_frames = frame_positions(path, sorted(files))
    in_order = [(positions[number], file) for number, file in sorted(files.items())]
    size = sum(file.stat().st_size for _, file in in_order)
    if path.suffix.lower() == ".txt":
        found = read_labels(in_order, path)
    else:
        contents = ((position, file, load_json(file)) for position, file in in_order)
        first = next(contents)
        if is_panoptic(first[2]):
            found = read_panoptic([first, *contents])
        else:
            found = Estimates(
                [
                    detection
                    for position, file, content in (first, *contents)
                    for detection in read_openpose(file, content, position)
                ],
                num_frames,
            )
    return to_sequence(path, found, reading, name=recording_name(path), size=size)


def read_openpose(file: Path, content: Any, frame: int = 0) -> list[Detection]:
    """The people of a frame of OpenPose.

    Raises:
        SkeletonFormatError: If it is not one.
    """
    people = content.get("people") if isinstance(content, Mapping) else None
    if not isinstance(people, list):
        raise SkeletonFormatError(f"{file}: it is not a frame of OpenPose: it has no list 'people'")
    return [(frame, _track(person), joint_row(file, frame, person, "pose_keypoints_2d")) for person in people]


def _track(person: Any) -> Hashable | None:
    track = track_number(person.get("person_id")) if isinstance(person, Mapping) else None
    return None if isinstance(track, int | float) and track < 0 else track
