"""MediaPipe's landmarks in the forms that programs save them in: JSON of any kind, and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...layouts import get_layout, seen_joints
from ...sequence import SkeletonFormatError, SkeletonSequence
from ..detections import Detection, to_numbers
from ..reading import Reading
from .estimates import Estimates, frame_number, numbered_frames, rate_of_file, rate_of_times
from .layout_names import layout_of_names

# What the landmarks of a frame are called: in metres, y down, the hips at the origin; and in shares of the image.
WORLD = ("pose_world_landmarks", "poseWorldLandmarks", "worldLandmarks", "world_landmarks", "keypoints3D")
IMAGE = ("pose_landmarks", "poseLandmarks", "landmarks", "normalized_landmarks", "normalizedLandmarks", "landmark")
_FRAMES = ("frames", "results", "data", "poses")
_NUMBERS = ("frame", "frame_id", "frame_index", "frame_number", "frame_num", "frame_idx", "frameNumber", "frameIndex")
_TIMES = ("timestamp_ms", "timestampMs", "timestamp", "time_ms", "time_s", "time", "t", "timestamp_s", "timestamp_us")
_SCORES = ("visibility", "presence", "score", "v", "confidence")
# All zero is a joint that was not seen, but the middle of the hips is: all is moved by a ten-thousandth of a mm.
_OFF_ORIGIN = 1e-7
# World landmarks that are less visible than this (0 to 1) count as not seen, in files as in films.
MIN_VISIBILITY = 0.1
_LANDMARKS = 33
_LEFT_HIP, _RIGHT_HIP, _NOSE, _LEFT_ANKLE, _RIGHT_ANKLE = 23, 24, 0, 27, 28


def frames_of(content: Any) -> list[Any] | None:
    """The frames of MediaPipe in a file, or None where it is not MediaPipe's."""
    entries = content
    if isinstance(content, Mapping):
        entries = next((content[key] for key in _FRAMES if isinstance(content.get(key), list | dict)), None)
        if entries is None:
            # One frame by itself, or frames by their numbers.
            is_one = any(key in content for key in (*WORLD, *IMAGE))
            entries = [content] if is_one else content
        if isinstance(entries, Mapping):
            if not entries or any(frame_number(key) is None for key in entries):
                return None
            entries = [
                {**entry, "frame": key} if isinstance(entry, Mapping) else {"frame": key, "landmarks": entry}
                for key, entry in entries.items()
            ]
    if not isinstance(entries, list):
        return None
    first = next((entry for entry in entries if entry), None)
    is_frame = isinstance(first, Mapping) and any(
        key in entry for entry in entries if isinstance(entry, Mapping) for key in (*WORLD, *IMAGE)
    )
    return entries if is_frame or _is_landmarks(first) else None


def _is_landmarks(entry: Any) -> bool:
    """Whether something is a list of landmarks, or of such lists, one for each person."""
    for _ in range(2):
        if not isinstance(entry, list) or not entry:
            return False
        entry = next((item for item in entry if item), None)
        if isinstance(entry, Mapping):
            return {"x", "y"} <= set(entry)
    return False


def read_landmarks(path: Path, content: Any, entries: Sequence[Any]) -> Estimates:
    """What MediaPipe says, frame by frame; frames that are null or empty show nobody.

    World landmarks are taken where a file has them, else those in the image, whose visibility is their score.

    Args:
        path: The file.
        content: What is in it.
        entries: Its frames, see `frames_of`.

    Raises:
        SkeletonFormatError: If a frame is something else; the message names it.
    """
    known = {key for entry in entries if isinstance(entry, Mapping) for key in entry if entry[key]}
    key = next((name for name in (*WORLD, *IMAGE) if name in known), None)
    is_world = key in WORLD
    places, num_frames = _places(path, entries)
    detections: list[Detection] = []
    scored: set[bool] = set()
    for frame, entry in zip(places, entries, strict=True):
        if entry is not None and not isinstance(entry, Mapping | list):
            raise SkeletonFormatError(f"{path}, frame {frame}: it is not a frame of MediaPipe")
        landmarks = entry.get(key) if isinstance(entry, Mapping) else entry
        for person in _people(path, frame, landmarks, key or "landmarks"):
            values, has_scores = _row(path, frame, person, is_world)
            scored.add(has_scores)
            if len(scored) > 1 and not is_world:
                raise SkeletonFormatError(
                    f"{path}, frame {frame}: some landmarks have a 'visibility' and others have not"
                )
            detections.append((frame, None, values))
    fields: dict[str, Any] = {"fps": _rate(content, entries)}
    if is_world:
        return Estimates(detections, num_frames, "3d", fields={**fields, "up": "-y"})
    has_scores = scored == {True}
    shape = _image_shape(content)
    if shape is not None:
        fields["image_shape"] = shape
    return Estimates(
        detections, num_frames, "shares" if _are_shares(detections) else "pixels", has_scores, fields=fields
    )


def _people(path: Path, frame: int, landmarks: Any, key: str) -> Iterable[Any]:
    """Lists of landmarks of each person of a frame; one person's may stand without a list around them."""
    if isinstance(landmarks, Mapping):
        landmarks = landmarks["landmark"] if isinstance(landmarks.get("landmark"), list) else _in_order(landmarks)
    if not landmarks:
        return []
    if not isinstance(landmarks, list):
        raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of landmarks")
    if isinstance(landmarks[0], Mapping) and "landmark" not in landmarks[0]:
        return [landmarks]
    if all(isinstance(point, list) and all(isinstance(value, int | float) for value in point) for point in landmarks):
        return [landmarks]
    if len(landmarks) in (3 * _LANDMARKS, 4 * _LANDMARKS) and all(isinstance(item, int | float) for item in landmarks):
        # All numbers of a person in a row.
        each = len(landmarks) // _LANDMARKS
        return [[landmarks[start : start + each] for start in range(0, len(landmarks), each)]]
    return [person.get("landmark") if isinstance(person, Mapping) else person for person in landmarks if person]


def _in_order(named: Mapping[str, Any]) -> Any:
    """Landmarks by name as a list in MediaPipe's order; as they are where the names are others'."""
    found = layout_of_names([*named]) if len(named) == _LANDMARKS else None
    if found is None or found[0] != "mediapipe33":
        return named
    values = list(named.values())
    return [values[place] for place in found[1] if place is not None]


def _row(path: Path, frame: int, person: Any, is_world: bool) -> tuple[np.ndarray, bool]:
    """Numbers ``(V, 3)`` of a person, and whether the third of 2D ones is a score."""
    if isinstance(person, list) and person and isinstance(person[0], list):
        # Without names: x, y, z and perhaps a score.
        values = to_numbers(path, frame, person)
        if values.ndim != 2 or values.shape[1] not in (2, 3, 4) or (is_world and values.shape[1] == 2):
            raise SkeletonFormatError(f"{path}, frame {frame}: a landmark is not x, y, z and perhaps a visibility")
        if is_world:
            return keep_visible(off_origin(values[:, :3]), values[:, 3] if values.shape[1] == 4 else None), False
        score = values[:, 3] if values.shape[1] == 4 else np.zeros(len(values))
        return np.c_[values[:, :2], score], values.shape[1] == 4
    if not isinstance(person, list) or not all(isinstance(landmark, Mapping) for landmark in person):
        raise SkeletonFormatError(f"{path}, frame {frame}: it is not a list of landmarks")
    if is_world:
        values = to_numbers(path, frame, [[point.get(axis) for axis in ("x", "y", "z")] for point in person])
        scores = [point.get("visibility") for point in person]
        visible = None if None in scores else to_numbers(path, frame, scores)
        return keep_visible(off_origin(values), visible), False
    name = next((key for key in _SCORES if person and person[0].get(key) is not None), None)
    found = [None if name is None else point.get(name) for point in person]
    if name is None:
        found = [next((point[key] for key in _SCORES if point.get(key) is not None), None) for point in person]
    if None in found and any(score is not None for score in found):
        raise SkeletonFormatError(f"{path}, frame {frame}: some landmarks have a 'visibility' and others have not")
    has_scores = bool(found) and found[0] is not None
    rows = [
        [point.get("x"), point.get("y"), score if has_scores else 0.0]
        for point, score in zip(person, found, strict=True)
    ]
    return to_numbers(path, frame, rows), has_scores


def _places(path: Path, entries: Sequence[Any]) -> tuple[list[int], int]:
    """Frame of each entry, by its number where all have one."""
    for key in _NUMBERS:
        numbers = [entry.get(key) if isinstance(entry, Mapping) else None for entry in entries]
        whole = [frame_number(number) for number in numbers]
        if entries and None not in whole and len(set(whole)) == len(whole):
            return numbered_frames(path, numbers, key)
    return list(range(len(entries))), len(entries)


def _rate(content: Any, entries: Sequence[Any]) -> float | None:
    """Frames per second, as a file says or as the times of its frames do."""
    if isinstance(content, Mapping):
        for place in (content, *(value for value in content.values() if isinstance(value, Mapping))):
            for key in ("fps", "frame_rate", "frameRate", "framerate"):
                if (rate := rate_of_file(place.get(key))) is not None:
                    return rate
    for key in _TIMES:
        times = [entry[key] for entry in entries if isinstance(entry, Mapping) and key in entry]
        if len(times) > 1 and (rate := rate_of_times(times, "timestamp_ms" if key == "timestampMs" else key)):
            return rate
    return None


def _image_shape(content: Any) -> tuple[float, float] | None:
    """Height and width of the image, where a file says."""
    if not isinstance(content, Mapping):
        return None
    for place in (content, *(value for value in content.values() if isinstance(value, Mapping))):
        for keys in (("height", "width"), ("image_height", "image_width"), ("frame_height", "frame_width")):
            shape = [rate_of_file(place.get(key)) for key in keys]
            if shape[0] and shape[1]:
                return shape[0], shape[1]
    return None


def _are_shares(detections: Sequence[Detection]) -> bool:
    """Whether points are shares of the image, not pixels: people may reach out of it, but not far."""
    if not detections:
        return True
    return bool(np.median([np.abs(row[:, :2]).max() for _, _, row in detections[:1000]]) < 4)


def read_array(array: np.ndarray, where: str, reading: Reading) -> SkeletonSequence | None:
    """The recording of an array of landmarks, or None where it is something else.

    Args:
        array: ``(T, 99)``, ``(T, 132)`` or ``(..., 33, 3 or 4)``; a fourth number is the visibility.
        where: What to call it.
        reading: What else is known.

    Returns:
        In metres where they are world landmarks, `up` unsaid, without those that are not visible; else in shares of
        the image, with the visibility as score.
    """
    if reading.layout is not None and get_layout(reading.layout).name != "mediapipe33":
        return None
    joints = get_layout("mediapipe33").num_joints
    if array.ndim == 2 and array.shape[1] in (3 * joints, 4 * joints):
        array = array.reshape(len(array), joints, -1)
    if array.ndim not in (3, 4) or array.shape[-2] != joints or array.shape[-1] not in (3, 4):
        return None
    reading = replace(reading, layout="mediapipe33")
    if not is_in_image(array):
        visible = array[..., 3] if array.shape[-1] == 4 else None
        return reading.sequence(keep_visible(off_origin(array[..., :3]), visible), where)
    flat = array[..., [0, 1, 3]] if array.shape[-1] == 4 else array[..., :2]
    height, width = reading.image_shape or (1.0, 1.0)
    flat = flat * np.array([width, height, 1.0][: flat.shape[-1]])
    coordinates = "2d+score" if array.shape[-1] == 4 else "2d"
    return reading.sequence(flat, where, coordinates=coordinates, image_shape=(float(height), float(width)))


def off_origin(points: np.ndarray) -> np.ndarray:
    """Landmarks ``(..., 3)`` in metres, those that are not all zero moved so that the middle of the hips is not."""
    return np.where(points.any(-1, keepdims=True), points + _OFF_ORIGIN, points)


def keep_visible(points: np.ndarray, visibility: np.ndarray | None) -> np.ndarray:
    """Landmarks ``(..., 33, 3)`` in metres, zero where their visibility ``(..., 33)`` is below `MIN_VISIBILITY`.

    A body without any visible landmark is kept: programs that know no visibility write zeros.
    """
    if visibility is None:
        return points
    # NaN says nothing.
    visible = ~(visibility < MIN_VISIBILITY)
    return np.where((visible | ~visible.any(-1, keepdims=True))[..., None], points, 0)


def is_in_image(points: np.ndarray) -> bool:
    """Whether landmarks ``(..., 33, 3)`` are those in the image, shares of it with a depth, and not metres.

    Both have the hips at depth 0; in metres the hips are at the origin altogether, in the image hardly ever at its
    corner, and all of it lies between 0 and 1.
    """
    points = points.reshape(-1, *points.shape[-2:])[:, :, :3]
    there = points[seen_joints(points).all(-1)].astype(np.float64)[:2000]
    if not len(there):
        return False
    hips = (there[:, _LEFT_HIP] + there[:, _RIGHT_HIP]) / 2
    inside = ((there[..., :2] > -0.5) & (there[..., :2] < 1.5)).all((1, 2)).mean() > 0.9
    ankles = (there[:, _LEFT_ANKLE, 1] + there[:, _RIGHT_ANKLE, 1]) / 2
    falls = np.median(ankles - there[:, _NOSE, 1]) > 0
    is_flat = np.median(np.abs(hips[:, 2])) < 0.05
    return bool(inside and falls and is_flat and np.median(np.abs(hips[:, :2]).max(-1)) > 0.15)
