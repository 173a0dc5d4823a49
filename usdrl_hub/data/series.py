"""Recordings with a file for each frame: OpenPose, CMU Panoptic, Ultralytics' labels; a name stands for all frames."""

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

# The file of a frame, as OpenPose names it and others do, what it begins with, and what stands for all frames.
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
        The paths, sorted; those of recordings may be given to all readers.
    """
    return sorted({series_of(file) or file for file in files})


def series_of(file: Path) -> Path | None:
    """What stands for the frames of a recording of which a file is one; None if it is none."""
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
    """What a recording is called: its file's name without the ending; that of its film, where frames are files."""
    match = _SERIES.fullmatch(Path(path).name)
    if match is None:
        return Path(path).stem
    return match["start"].rstrip("_-. ") or Path(path).absolute().parent.name


def read_series(path: Path, reading: Reading) -> SkeletonSequence:
    """The recording whose frames are files; numbers left out are frames in which no person is seen.

    Raises:
        SkeletonFormatError: If there are no such files, or one is something else; the message names it.
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
    places, num_frames = frame_positions(path, sorted(files))
    in_order = [(places[number], file) for number, file in sorted(files.items())]
    size = sum(file.stat().st_size for _, file in in_order)
    if path.suffix.lower() == ".txt":
        found = read_labels(in_order, path)
    else:
        contents = ((place, file, load_json(file)) for place, file in in_order)
        first = next(contents)
        if is_panoptic(first[2]):
            found = read_panoptic([first, *contents])
        else:
            found = Estimates(
                [
                    detection
                    for place, file, content in (first, *contents)
                    for detection in read_openpose(file, content, place)
                ],
                num_frames,
            )
    return to_sequence(path, found, reading, name=recording_name(path), size=size)


def read_openpose(file: Path, content: Any, frame: int = 0) -> list[Detection]:
    """The people of a frame of OpenPose.

    Raises:
        SkeletonFormatError: If it is none.
    """
    people = content.get("people") if isinstance(content, Mapping) else None
    if not isinstance(people, list):
        raise SkeletonFormatError(f"{file}: it is no frame of OpenPose: it has no list 'people'")
    return [(frame, _track(person), joint_row(file, frame, person, "pose_keypoints_2d")) for person in people]


def _track(person: Any) -> Hashable | None:
    track = track_number(person.get("person_id")) if isinstance(person, Mapping) else None
    return None if isinstance(track, int | float) and track < 0 else track
