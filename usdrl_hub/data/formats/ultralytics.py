"""Keypoints of Ultralytics' pose models: ``to_json()`` of each image, and the folder ``labels`` of ``save_txt``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...sequence import SkeletonFormatError
from ..detections import Detection, to_numbers, track_number
from .estimates import Estimates, frame_number, numbered_frames

# Numbers of a line of `save_txt` before its keypoints: class, and centre and size of the box.
_BEFORE = 5
_JOINTS = 17


def frames_of(content: Any) -> list[Any] | None:
    """The images of a file, each a list of people, or None where it is not Ultralytics'."""
    entries = content if isinstance(content, list) else None
    if isinstance(content, Mapping):
        entries = next(
            (content[key] for key in ("frames", "results", "data") if isinstance(content.get(key), list)), None
        )
    if entries is None:
        return None
    # `to_json` returns text, which may have been put into a list as it is.
    entries = [_parsed(entry) for entry in entries]
    if _is_person(next((entry for entry in entries if entry), None)):
        return [entries]
    people = (person for entry in entries for person in _people(entry) or ())
    return entries if _is_person(next(people, None)) else None


def _parsed(entry: Any) -> Any:
    if isinstance(entry, str) and entry.lstrip().startswith("["):
        try:
            return json.loads(entry)
        except (ValueError, RecursionError):
            return entry
    return entry


def _is_person(entry: Any) -> bool:
    keypoints = entry.get("keypoints") if isinstance(entry, Mapping) else None
    return isinstance(keypoints, Mapping) and {"x", "y"} <= set(keypoints)


def _people(entry: Any) -> list[Any] | None:
    """The people of an image: a list, or the only list of an object."""
    if isinstance(entry, Mapping):
        entry = next((value for value in entry.values() if isinstance(value, list) and value), [])
    return entry if isinstance(entry, list) else None


def read_images(path: Path, entries: Sequence[Any]) -> Estimates:
    """What Ultralytics saw in each image; an image without people is an empty list.

    Raises:
        SkeletonFormatError: If an image is something else; the message names it.
    """
    detections: list[Detection] = []
    scored: set[bool] = set()
    numbers = [entry.get("frame") if isinstance(entry, Mapping) else None for entry in entries]
    is_numbered = bool(entries) and all(frame_number(number) is not None for number in numbers)
    places = numbered_frames(path, numbers, "frame")[0] if is_numbered else list(range(len(entries)))
    for frame, entry in zip(places, entries, strict=True):
        for person in (_people(entry) if entry else []) or []:
            if not _is_person(person):
                raise SkeletonFormatError(f"{path}, frame {frame}: a person has no 'keypoints' with x and y")
            keypoints = person["keypoints"]
            scored.add("visible" in keypoints)
            columns = [to_numbers(path, frame, keypoints[key]) for key in ("x", "y", "visible") if key in keypoints]
            if any(column.ndim != 1 or len(column) != len(columns[0]) for column in columns) or len(scored) > 1:
                raise SkeletonFormatError(f"{path}, frame {frame}: x, y and visible are not as many numbers")
            if len(columns) == 2:
                columns.append(np.zeros(len(columns[0])))
            detections.append((frame, track_number(person.get("track_id")), np.stack(columns, axis=1)))
    count = max(places) + 1 if places else 0
    are_shares = bool(detections) and max(np.abs(row[:, :2]).max(initial=0) for _, _, row in detections) <= 1.5
    return Estimates(detections, count, "shares" if are_shares else "pixels", scored != {False})


def is_label(cells: Sequence[str]) -> bool:
    """Whether the cells of a line are a person of `save_txt`: class, box and 17 keypoints in shares of the image."""
    if len(cells) not in (39, 40, 41, 56, 57, 58):
        return False
    return cells[0].isdigit() and all(_is_share(cell) for cell in cells[1:_BEFORE])


def _is_share(cell: str) -> bool:
    try:
        return 0 <= float(cell) <= 1
    except ValueError:
        return False


def read_labels(files: Sequence[tuple[int, Path]], path: Path) -> Estimates:
    """The recording whose images are a file each, a line for each person.

    Args:
        files: Frame, from 0, and file of each image.
        path: What to call them together.

    Raises:
        SkeletonFormatError: If a line is something else; the message names file and line.
    """
    detections: list[Detection] = []
    widths: set[int] = set()
    for frame, file in files:
        try:
            lines = file.read_bytes().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise SkeletonFormatError(f"{file}: it is not text of Ultralytics' labels") from None
        for number, line in enumerate(lines, start=1):
            cells = line.split()
            if not cells:
                continue
            if not is_label(cells):
                raise SkeletonFormatError(
                    f"{file}, line {number}: {len(cells)} numbers are not a class, a box and {_JOINTS} keypoints"
                )
            try:
                values = to_numbers(file, frame, list(map(float, cells)))
            except ValueError as error:
                raise SkeletonFormatError(f"{file}, line {number}: {str(error)[-80:]}") from None
            width = 3 if len(cells) > 50 else 2
            widths.add(width)
            keypoints = values[_BEFORE : _BEFORE + width * _JOINTS].reshape(_JOINTS, width)
            # Behind the keypoints stand the confidence of the box and a track number, which is whole.
            rest = cells[_BEFORE + width * _JOINTS :]
            track = int(rest[-1]) if rest and rest[-1].isdigit() and len(rest[-1]) < 16 else None
            row = keypoints if width == 3 else np.c_[keypoints, np.zeros(_JOINTS)]
            detections.append((frame, track, row))
    if len(widths) > 1:
        raise SkeletonFormatError(f"{path}: some keypoints have a third number and others have not")
    return Estimates(detections, max(frame for frame, _ in files) + 1, "shares", widths != {2})
