"""Readers of keypoints that pose estimators write as JSON or return: AlphaPose, MMPose, MediaPipe, ViTPose."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EmptySequenceError, notice
from ..layouts import get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .detections import (
    LARGEST,
    ULTRALYTICS,
    Detection,
    choose_layout,
    count_joints,
    frame_positions,
    joint_row,
    load_json,
    max_numbers,
    stack_detections,
    to_numbers,
    track_number,
)
from .openpose import is_series, read_openpose_frames
from .reading import Reading


def read_pose_json(path: str | os.PathLike, reading: Reading = Reading()) -> SkeletonSequence:
    """Read the keypoints that a pose estimator, or a program of one's own, wrote as JSON.

    Understood are OpenPose (``people`` with ``pose_keypoints_2d``; a file is one frame, and ``NAME_*_keypoints.json``
    stands for all frames of a recording, see `join_frames`), AlphaPose (a list of detections with ``image_id``,
    ``keypoints`` and perhaps ``idx``), MMPose (``instance_info``) and MediaPipe (a list of frames with
    ``pose_world_landmarks``, in metres and y down, or ``pose_landmarks``, in shares of the picture); lists as
    `from_pose_estimation` takes them; and an array of any layout: lists of frames (of persons) of joints of
    coordinates, by themselves or as ``keypoints``.

    Args:
        path: The file.
        reading: What the file does not say; null in an array is what NaN is.

    Returns:
        The sequence; people are told apart by the file's track numbers where it has them, else by their order, or, in
        OpenPose's frames, by where they were before.

    Raises:
        SkeletonFormatError: If the file is not JSON of one of these forms; the message names file and frame.
    """
    path = Path(path)
    if is_series(path):
        return read_openpose_frames(path, reading)
    content = load_json(path)
    numbers = content.get("keypoints") if isinstance(content, dict) else content
    if _is_array(numbers):
        return replace(reading.sequence(_array(path, numbers), str(path)), name=path.stem)
    most = max_numbers(path.stat().st_size)
    if isinstance(content, list) and any(isinstance(frame, list) for frame in content):
        chosen = choose_layout(path, get_layout("coco17").num_joints, reading, False)
        found = from_pose_estimation(content, None, None, path.stem, str(path), most)
        return reading.complete(replace(found, layout=chosen))
    detections, num_frames, kind = _detections(path, content)
    joints = count_joints(path, detections)
    fields: dict[str, Any] = {}
    if kind == "world":
        fields |= {"coordinates": "3d", "up": reading.up or "-y"}
    elif kind != "pixels":
        fields |= {"coordinates": "2d" if kind == "shares" else "2d+score", "image_shape": (1.0, 1.0)}
    chosen = choose_layout(path, joints, reading, kind == "world")
    keypoints = stack_detections(path, detections, num_frames, most, 3 if kind == "world" else 2)
    keypoints = keypoints[..., :2] if kind == "shares" else keypoints
    return reading.complete(SkeletonSequence(keypoints, chosen, name=path.stem, **fields))


def from_pose_estimation(
    results: Sequence[Sequence[Mapping[str, Any]]],
    image_shape: tuple[float, float] | None = None,
    fps: float | None = None,
    name: str = "",
    where: str | None = None,
    most: int | None = None,
) -> SkeletonSequence:
    """Make a recording of what the pose models of transformers (ViTPose) say about the pictures of a video.

    Args:
        results: What ``post_process_pose_estimation`` of the image processor returns, for all pictures in order: a
            list for each, of a dictionary for each person with `keypoints` ``(n, 2)`` in pixels, `scores` ``(n,)``
            and, where some joints are left out, `labels` ``(n,)``, which of COCO's 17 they are. Tensors, arrays or
            lists.
        image_shape: Height and width of the pictures.
        fps: Pictures per second.
        name: Name of the recording.
        where: What to call it in errors; its name where None.
        most: Numbers that the keypoints have at most; any where None.

    Returns:
        A recording of layout ``coco17`` with scores, a frame for each picture. The people of a frame who lie nearest
        to those of the frames before keep their place, see `tracks.stack_people`.

    Raises:
        SkeletonFormatError: If the results have another form, or nobody is in any picture.
    """
    told = where or name or "poses"
    detections = list(_estimated(told, results))
    if not detections:
        raise EmptySequenceError(f"{told}: nobody is detected in its {len(results)} frames")
    keypoints = stack_detections(told, detections, len(results), most)
    return SkeletonSequence(keypoints, "coco17", fps=fps, name=name, image_shape=image_shape)


def _estimated(where: str, results: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[Detection]:
    joints = get_layout("coco17").num_joints
    for frame, people in enumerate(results):
        if not isinstance(people, list | tuple) or not all(isinstance(person, Mapping) for person in people):
            raise SkeletonFormatError(f"{where}, frame {frame}: it is not a list of people")
        for person in people:
            points, scores, labels = (
                to_numbers(where, frame, _on_cpu(person.get(key, missing)))
                for key, missing in (("keypoints", None), ("scores", None), ("labels", range(joints)))
            )
            fits = points.ndim == 2 and points.shape[1] == 2 and scores.shape == labels.shape == points.shape[:1]
            if not fits or not np.isin(labels, np.arange(joints)).all():
                raise SkeletonFormatError(
                    f"{where}, frame {frame}: 'keypoints' (n, 2), 'scores' (n,) and 'labels' (n,) do not fit the "
                    f"{joints} joints of COCO"
                )
            row = np.zeros((joints, 3))
            row[labels.astype(int)] = np.c_[points, scores]
            yield frame, None, row


def _on_cpu(values: Any) -> Any:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def _detections(path: Path, content: Any) -> tuple[list[Detection], int | None, str]:
    """Who is seen, in how many frames, and what the numbers are: "pixels", "shares" of the picture or "world"."""
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        notice(
            "a file of OpenPose holds one frame: the others are read with it where a folder is named, or "
            "'NAME_*_keypoints.json'"
        )
        rows = [joint_row(path, 0, person, "pose_keypoints_2d") for person in content["people"]]
        return [(0, None, row) for row in rows], 1, "pixels"
    if isinstance(content, dict) and isinstance(content.get("instance_info"), list):
        return *_mmpose(path, content["instance_info"]), "pixels"
    # Frames in which nobody is seen may be null or empty, at any place.
    first = next((entry for entry in content if entry), None) if isinstance(content, list) else content
    if isinstance(first, dict):
        if "image_id" in first and isinstance(content, list):
            return *_alphapose(path, content), "pixels"
        for key in ("pose_world_landmarks", "pose_landmarks", "landmarks"):
            if isinstance(content, list) and any(isinstance(entry, dict) and key in entry for entry in content):
                return _mediapipe(path, content, key)
        keypoints = first.get("keypoints")
        if isinstance(keypoints, dict) and {"x", "y"} <= set(keypoints):
            raise SkeletonFormatError(f"{path}: {ULTRALYTICS}")
    raise SkeletonFormatError(f"{path}: it is not JSON of OpenPose, AlphaPose, MMPose or MediaPipe")


def _is_array(content: Any) -> bool:
    """Whether lists hold nothing but lists, down to the first number."""
    if not isinstance(content, list):
        return False
    while isinstance(content, list) and content:
        # What is missing may be null.
        content = next((item for item in content if item is not None), None)
    return content is None or isinstance(content, int | float)


def _array(path: Path, values: Any) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise SkeletonFormatError(
            f"{path}: its lists are no array: every frame needs as many joints, and every joint as many numbers"
        ) from None


def _alphapose(path: Path, content: Sequence[Any]) -> tuple[list[Detection], int]:
    """AlphaPose names the pictures of detections; those without people are absent, and the order may be any."""
    numbers: dict[int | str, int | None] = {}
    for entry in content:
        if not isinstance(entry, dict) or "image_id" not in entry:
            raise SkeletonFormatError(f"{path}: a detection has no 'image_id'")
        image = entry["image_id"]
        if isinstance(image, bool) or not isinstance(image, int | str):
            raise SkeletonFormatError(f"{path}: an 'image_id' is no name or number of a picture")
        if image not in numbers:
            numbers[image] = _number_of_picture(image)
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
    return [
        (
            frames[entry["image_id"]],
            track_number(entry.get("idx")),
            joint_row(path, frames[entry["image_id"]], entry, "keypoints"),
        )
        for entry in content
    ], num_frames


def _number_of_picture(name: int | str) -> int | None:
    """The last number in the name of a picture, without its ending."""
    if isinstance(name, int):
        return name if 0 <= name < LARGEST else None
    found = re.findall(r"[0-9]+", re.sub(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", "", name))
    return int(found[-1]) if found and len(found[-1]) <= 15 else None


def _mmpose(path: Path, content: Sequence[Any]) -> tuple[list[Detection], int]:
    """MMPose numbers the frames from 0 or 1, and may leave out those without people."""
    frames: list[int] = []
    for place, entry in enumerate(content):
        instances = entry.get("instances") if isinstance(entry, dict) else None
        if not isinstance(instances, list):
            raise SkeletonFormatError(f"{path}, frame {place}: there is no list 'instances'")
        number = entry.get("frame_id", place)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < LARGEST:
            raise SkeletonFormatError(f"{path}, frame {place}: 'frame_id' is no number of a frame")
        frames.append(number)
    if len(set(frames)) < len(frames):
        raise SkeletonFormatError(f"{path}: several frames have the same 'frame_id'")
    places, num_frames = frame_positions(path, frames) if frames else ({}, 0)
    detections: list[Detection] = []
    for number, entry in zip(frames, content, strict=True):
        frame = places[number]
        for instance in entry["instances"]:
            if not isinstance(instance, dict):
                raise SkeletonFormatError(f"{path}, frame {frame}: an instance is not an object")
            points = to_numbers(path, frame, instance.get("keypoints"))
            scores = to_numbers(path, frame, instance.get("keypoint_scores"))
            if points.ndim != 2 or points.shape[1] != 2 or scores.shape != points.shape[:1]:
                raise SkeletonFormatError(f"{path}, frame {frame}: 'keypoints' and 'keypoint_scores' do not fit")
            detections.append((frame, track_number(instance.get("track_id")), np.c_[points, scores]))
    return detections, num_frames


def _mediapipe(path: Path, content: Sequence[Any], key: str) -> tuple[list[Detection], int, str]:
    """MediaPipe's frames; what is called visibility, or presence, may be missing, and is no coordinate."""
    detections: list[Detection] = []
    scores: set[bool] = set()
    is_world = key == "pose_world_landmarks"
    for frame, entry in enumerate(content):
        people = entry.get(key) if isinstance(entry, dict) else None
        if people is None:
            if entry is not None and not isinstance(entry, dict):
                raise SkeletonFormatError(f"{path}, frame {frame}: it is no frame of MediaPipe")
            continue
        # One person's landmarks may stand without the list of people around them.
        if isinstance(people, list) and people and isinstance(people[0], dict):
            people = [people]
        if not isinstance(people, list):
            raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of landmarks")
        for person in people:
            if not isinstance(person, list) or not all(isinstance(landmark, Mapping) for landmark in person):
                raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of landmarks")
            if not person:
                continue
            if is_world:
                values = [[landmark.get(axis) for axis in ("x", "y", "z")] for landmark in person]
            else:
                found = [landmark.get("visibility", landmark.get("presence")) for landmark in person]
                scores.add(found[0] is not None)
                if len(scores) > 1 or any((score is None) in scores for score in found):
                    raise SkeletonFormatError(
                        f"{path}, frame {frame}: some landmarks have a 'visibility' and others have not"
                    )
                values = [
                    [landmark.get("x"), landmark.get("y"), 0.0 if score is None else score]
                    for landmark, score in zip(person, found, strict=True)
                ]
            detections.append((frame, None, to_numbers(path, frame, values)))
    return detections, len(content), "world" if is_world else "shares" if scores == {False} else "shares+score"
