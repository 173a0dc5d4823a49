"""Readers of what pose estimators write: pyskl and MMAction2 pickles, JSON keypoints, and plain CSV."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EmptySequenceError, notice
from ..layouts import Layout, LayoutLike, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .pickles import load_numpy_pickle, without_collection
from .tracks import Detections, stack_people

# Which layout a pose estimator means by a number of joints.
_BY_JOINTS = {17: "coco17", 18: "openpose18", 25: "openpose25", 33: "mediapipe33"}
_BY_JOINTS_3D = {25: "ntu25", 33: "mediapipe33"}
# The layout that readers are given where nobody has named one.
_UNNAMED = "ntu25"
# Characters of the longest name of a recording.
_LONGEST_NAME = 1000
# The file of a frame, as OpenPose names it and others do, what it begins with, and what stands for all frames.
_FRAME = re.compile(r"(?P<start>.*?)(?P<frame>[0-9]{1,15})(?P<end>(?:_keypoints)?\.json)")
_OPENPOSE_FRAME = re.compile(r".+_[0-9]{12}_keypoints\.json")
_OPENPOSE = re.compile(rb'\s*\{\s*(?:"version"\s*:\s*[0-9.]+\s*,\s*)?"people"\s*:')
_SERIES = re.compile(r"(?P<start>.*)\*(?P<end>(?:_keypoints)?\.json)")
_ULTRALYTICS = (
    "it is JSON of Ultralytics, which is not read: give x, y and confidence of the joints of all pictures to "
    "from_pose_estimation"
)
# Columns of a table that say when a row is, in seconds, milliseconds or finer.
_TIMES = ("time", "timestamp", "t", "time_s", "time_ms", "timestamp_s", "timestamp_ms")
# Frame numbers and times beyond are none.
_LARGEST = 1 << 53


def read_pyskl(
    path: str | os.PathLike,
    on_error: Callable[[SkeletonFormatError], None] | None = None,
    layout: LayoutLike | None = None,
) -> tuple[Iterator[SkeletonSequence], dict[str, list[str]]]:
    """Read a pyskl or MMAction2 pickle: 2D keypoints in pixels, or 3D ones in metres, y up.

    Keypoints ``(M, T, V, 3)`` without ``keypoint_score`` are 3D, as those of NTU RGB+D's sensor; others are 2D.

    Args:
        path: The file.
        on_error: Called with the error of an annotation, which is then left out; None raises it.
        layout: Joint layout, where it has as many joints as the file; else, and where None, the one that such files
            mean by that number.

    Returns:
        The sequences, one by one, and the data set's splits: name -> names of sequences.

    Raises:
        SkeletonFormatError: If the file is not such a pickle, or an annotation is malformed; the message names file
            and annotation.
    """
    path = Path(path)
    content = load_numpy_pickle(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise SkeletonFormatError(f"{path}: it has no list 'annotations'")
    splits = content.get("split", {})
    if not isinstance(splits, dict) or not all(isinstance(names, list | tuple) for names in splits.values()):
        raise SkeletonFormatError(f"{path}: 'split' is not lists of names")
    named = {
        _text(f"{path}, 'split'", split): [_text(f"{path}, 'split'", name) for name in names]
        for split, names in splits.items()
    }
    keypoints = [entry.get("keypoint") for entry in content["annotations"] if isinstance(entry, dict)]
    # Annotations may refer to the same array again and again.
    if sum(array.nbytes for array in keypoints if isinstance(array, np.ndarray)) > 8 * path.stat().st_size + 1_000_000:
        raise SkeletonFormatError(f"{path}: it is refused: its annotations repeat the same keypoints")

    def sequences() -> Iterator[SkeletonSequence]:
        for number, entry in enumerate(content["annotations"]):
            try:
                yield _pyskl_sequence(path, number, entry, layout)
            except SkeletonFormatError as error:
                if on_error is None:
                    raise
                on_error(error)

    return sequences(), named


def _text(where: str, name: Any) -> str:
    """A name that a file has as text or as a number."""
    if isinstance(name, int | float) or (isinstance(name, str) and len(name) <= _LONGEST_NAME):
        return str(name)
    raise SkeletonFormatError(f"{where}: a name is not a text of at most {_LONGEST_NAME} characters")


def _pyskl_sequence(path: Path, number: int, entry: Any, layout: LayoutLike | None) -> SkeletonSequence:
    where = f"{path}, annotation {number}"
    if not isinstance(entry, dict):
        raise SkeletonFormatError(f"{where}: it is not a dictionary")
    keypoint, score = entry.get("keypoint"), entry.get("keypoint_score")
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind not in "fiu" or keypoint.ndim != 4:
        raise SkeletonFormatError(f"{where}: 'keypoint' is not an array (persons, frames, joints, 2 or 3)")
    is_3d = keypoint.shape[3] == 3 and score is None
    if score is not None:
        if not isinstance(score, np.ndarray) or score.dtype.kind not in "fiu" or score.shape != keypoint.shape[:3]:
            raise SkeletonFormatError(f"{where}: 'keypoint_score' is not an array of the shape {keypoint.shape[:3]}")
        keypoint = np.concatenate([keypoint[..., :2], score[..., None]], axis=-1)
    chosen = _layout_of(where, keypoint.shape[2], layout, is_3d)
    shape = entry.get("img_shape")
    shape = entry.get("original_shape") if shape is None else shape
    label = entry.get("label")
    try:
        # An array, a tuple or a list; a third number is that of colours.
        image_shape = None if is_3d or shape is None else (float(shape[0]), float(shape[1]))
        label = None if label is None else int(label)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise SkeletonFormatError(f"{where}: 'img_shape' or 'label' is not a number") from None
    if label is not None and label >= 1 << 31:
        raise SkeletonFormatError(f"{where}: 'label' is no number of a class")
    name = entry.get("frame_dir")
    fields: dict[str, Any] = {"coordinates": "3d", "up": "y"} if is_3d else {"image_shape": image_shape}
    return SkeletonSequence.from_array(
        # A copy, because the file's memory cannot be written.
        np.array(keypoint),
        chosen,
        "MTVC",
        name=str(number) if name is None else _text(where, name),
        label=None if label is None or label < 0 else label,
        **fields,
    )


def read_pose_json(
    path: str | os.PathLike,
    layout: LayoutLike | None = None,
    image_shape: tuple[float, float] | None = None,
    axes: str | None = None,
    missing: str = "refuse",
) -> SkeletonSequence:
    """Read the keypoints that a pose estimator, or a program of one's own, wrote as JSON.

    Understood are OpenPose (``people`` with ``pose_keypoints_2d``; a file is one frame, and ``NAME_*_keypoints.json``
    stands for all frames of a recording, see `join_frames`), AlphaPose (a list of detections with ``image_id``,
    ``keypoints`` and perhaps ``idx``), MMPose (``instance_info``) and MediaPipe (a list of frames with
    ``pose_world_landmarks``, in metres and y down, or ``pose_landmarks``, in shares of the picture); lists as
    `from_pose_estimation` takes them; and an array of any layout: lists of frames (of persons) of joints of
    coordinates, by themselves or as ``keypoints``.

    Args:
        path: The file.
        layout: Joint layout, where it has as many joints as the file; else, and where None, the one that pose
            estimators mean by that number.
        image_shape: Height and width of the picture, where the file does not say.
        axes: Axis order of an array, see `SkeletonSequence.from_array`.
        missing: What null and NaN in an array mean, as there.

    Returns:
        The sequence; people are told apart by the file's track numbers where it has them, else by their order, or, in
        OpenPose's frames, by where they were before.

    Raises:
        SkeletonFormatError: If the file is not JSON of one of these forms; the message names file and frame.
    """
    path = Path(path)
    if is_series(path):
        return _read_frames(path, layout, image_shape)
    content = _load_json(path)
    numbers = content.get("keypoints") if isinstance(content, dict) else content
    if _is_array(numbers):
        array = _array(path, numbers)
        found = SkeletonSequence.from_array(array, layout or "ntu25", axes, str(path), missing)
        return replace(found, name=path.stem, image_shape=None if found.coordinates == "3d" else image_shape)
    most = _most(path.stat().st_size)
    if isinstance(content, list) and any(isinstance(frame, list) for frame in content):
        return from_pose_estimation(content, image_shape, None, path.stem, str(path), most)
    detections, num_frames, kind = _detections(path, content)
    joints = _count_joints(path, detections)
    fields: dict[str, Any] = {"image_shape": image_shape}
    if kind == "world":
        fields |= {"coordinates": "3d", "up": "-y"}
    elif kind != "pixels":
        fields |= {"coordinates": "2d" if kind == "shares" else "2d+score", "image_shape": (1.0, 1.0)}
    chosen = _layout_of(path, joints, layout, kind == "world")
    keypoints = _stack(path, detections, num_frames, most, 3 if kind == "world" else 2)
    keypoints = keypoints[..., :2] if kind == "shares" else keypoints
    return SkeletonSequence(keypoints, chosen, name=path.stem, **fields)


def _most(size: int) -> int:
    """How many numbers the recording of a file of `size` bytes may have: one needs a few bytes."""
    return 6_000_000 + 5 * size


def _load_json(path: Path) -> Any:
    try:
        with without_collection():
            return json.loads(path.read_bytes())
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SkeletonFormatError(f"{path}: it is no JSON: {' '.join(str(error).split())[:120]}") from None


def _layout_of(where: str | Path, joints: int, layout: LayoutLike | None, is_3d: bool) -> Layout:
    """The layout that was named, where it fits what a file holds, else the one that such files mean.

    Raises:
        SkeletonFormatError: If there is none.
    """
    chosen = None if layout is None else get_layout(layout)
    if chosen is not None and chosen.num_joints == joints and (is_3d or chosen.coordinates != "3d"):
        return chosen
    known = _BY_JOINTS_3D if is_3d else _BY_JOINTS
    if joints not in known:
        raise SkeletonFormatError(f"{where}: no layout of a pose estimator has {joints} joints: name the layout")
    if chosen is not None and chosen.num_joints != joints and chosen.name != _UNNAMED:
        notice(f"Keypoints of {joints} joints are read as layout '{known[joints]}', not as '{chosen.name}'.")
    return get_layout(known[joints])


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


def _read_frames(path: Path, layout: LayoutLike | None, image_shape: tuple[float, float] | None) -> SkeletonSequence:
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
    places, num_frames = _frame_places(path, sorted(files))
    detections: list[_Detection] = []
    for number, file in sorted(files.items()):
        content = _load_json(file)
        people = content.get("people") if isinstance(content, dict) else None
        if not isinstance(people, list):
            raise SkeletonFormatError(f"{file}: it is no frame of OpenPose: it has no list 'people'")
        for person in people:
            row = _row(file, places[number], person, "pose_keypoints_2d")
            detections.append((places[number], _openpose_track(person), row))
    chosen = _layout_of(path, _count_joints(path, detections), layout, False)
    keypoints = _stack(path, detections, num_frames, _most(size))
    return SkeletonSequence(keypoints, chosen, name=name, image_shape=image_shape)


def _frame_places(where: str | Path, numbers: Iterable[int], told: bool = True) -> tuple[dict[int, int], int]:
    """Where frames stand in a recording, by their numbers, and how many frames it has.

    Numbers may begin anywhere, and be those of every fifth frame of a film.
    """
    distinct = sorted(set(numbers))
    step = math.gcd(*(number - distinct[0] for number in distinct)) or 1
    if step > 1 and told:
        notice(
            f"{where}: frame numbers are {step} apart: they are taken for frames one after the other",
            "frame numbers that are several apart",
        )
    return {number: (number - distinct[0]) // step for number in distinct}, (distinct[-1] - distinct[0]) // step + 1


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
    keypoints = _stack(told, detections, len(results), most)
    return SkeletonSequence(keypoints, "coco17", fps=fps, name=name, image_shape=image_shape)


def _estimated(where: str, results: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[_Detection]:
    joints = get_layout("coco17").num_joints
    for frame, people in enumerate(results):
        if not isinstance(people, list | tuple) or not all(isinstance(person, Mapping) for person in people):
            raise SkeletonFormatError(f"{where}, frame {frame}: it is not a list of people")
        for person in people:
            points, scores, labels = (
                _numbers(where, frame, _on_cpu(person.get(key, missing)))
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


# A person in a frame: (frame, track or None, joints (V, 3)).
_Detection = tuple[int, Hashable | None, np.ndarray]


def _detections(path: Path, content: Any) -> tuple[list[_Detection], int | None, str]:
    """Who is seen, in how many frames, and what the numbers are: "pixels", "shares" of the picture or "world"."""
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        notice(
            "a file of OpenPose holds one frame: the others are read with it where a folder is named, or "
            "'NAME_*_keypoints.json'"
        )
        rows = [_row(path, 0, person, "pose_keypoints_2d") for person in content["people"]]
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
            raise SkeletonFormatError(f"{path}: {_ULTRALYTICS}")
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


def _numbers(path: str | Path, frame: int, values: Any) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        if isinstance(values, Mapping) and {"x", "y"} <= set(values):
            raise SkeletonFormatError(f"{path}: {_ULTRALYTICS}") from None
        raise SkeletonFormatError(f"{path}, frame {frame}: the keypoints are not all numbers") from None
    if not np.isfinite(array).all():
        what = (
            "missing, NaN or infinite"
            if values is None or None in np.ravel(np.array(values, dtype=object))
            else "NaN or infinite"
        )
        raise SkeletonFormatError(f"{path}, frame {frame}: a keypoint is {what}")
    return array


def _row(path: Path, frame: int, person: Any, key: str) -> np.ndarray:
    values = person.get(key) if isinstance(person, dict) else None
    if not isinstance(values, list) or not values or len(values) % 3:
        raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of x, y, score for each joint")
    array = _numbers(path, frame, values)
    if array.ndim != 1:
        raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a flat list of numbers")
    return array.reshape(-1, 3)


def _track(value: Any) -> Hashable | None:
    """A track number or name; None for what stands for none. Some writers put numbers into lists."""
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value in (-1, ""):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _openpose_track(person: Mapping[str, Any]) -> Hashable | None:
    track = _track(person.get("person_id"))
    return None if isinstance(track, int | float) and track < 0 else track


def _alphapose(path: Path, content: Sequence[Any]) -> tuple[list[_Detection], int]:
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
        places, num_frames = _frame_places(path, known)
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
            _track(entry.get("idx")),
            _row(path, frames[entry["image_id"]], entry, "keypoints"),
        )
        for entry in content
    ], num_frames


def _number_of_picture(name: int | str) -> int | None:
    """The last number in the name of a picture, without its ending."""
    if isinstance(name, int):
        return name if 0 <= name < _LARGEST else None
    found = re.findall(r"[0-9]+", re.sub(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", "", name))
    return int(found[-1]) if found and len(found[-1]) <= 15 else None


def _mmpose(path: Path, content: Sequence[Any]) -> tuple[list[_Detection], int]:
    """MMPose numbers the frames from 0 or 1, and may leave out those without people."""
    frames: list[int] = []
    for place, entry in enumerate(content):
        instances = entry.get("instances") if isinstance(entry, dict) else None
        if not isinstance(instances, list):
            raise SkeletonFormatError(f"{path}, frame {place}: there is no list 'instances'")
        number = entry.get("frame_id", place)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _LARGEST:
            raise SkeletonFormatError(f"{path}, frame {place}: 'frame_id' is no number of a frame")
        frames.append(number)
    if len(set(frames)) < len(frames):
        raise SkeletonFormatError(f"{path}: several frames have the same 'frame_id'")
    places, num_frames = _frame_places(path, frames) if frames else ({}, 0)
    detections: list[_Detection] = []
    for number, entry in zip(frames, content, strict=True):
        frame = places[number]
        for instance in entry["instances"]:
            if not isinstance(instance, dict):
                raise SkeletonFormatError(f"{path}, frame {frame}: an instance is not an object")
            points = _numbers(path, frame, instance.get("keypoints"))
            scores = _numbers(path, frame, instance.get("keypoint_scores"))
            if points.ndim != 2 or points.shape[1] != 2 or scores.shape != points.shape[:1]:
                raise SkeletonFormatError(f"{path}, frame {frame}: 'keypoints' and 'keypoint_scores' do not fit")
            detections.append((frame, _track(instance.get("track_id")), np.c_[points, scores]))
    return detections, num_frames


def _mediapipe(path: Path, content: Sequence[Any], key: str) -> tuple[list[_Detection], int, str]:
    """MediaPipe's frames; what is called visibility, or presence, may be missing, and is no coordinate."""
    detections: list[_Detection] = []
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
            detections.append((frame, None, _numbers(path, frame, values)))
    return detections, len(content), "world" if is_world else "shares" if scores == {False} else "shares+score"


def _count_joints(path: Path, detections: Sequence[_Detection]) -> int:
    if not detections:
        raise EmptySequenceError(f"{path}: nobody is detected in it")
    joints = {len(row) for _, _, row in detections}
    if len(joints) > 1:
        raise SkeletonFormatError(f"{path}: people have {min(joints)} and {max(joints)} joints: the file is mixed")
    return joints.pop()


def _stack(
    path: str | Path,
    detections: Sequence[_Detection],
    num_frames: int | None = None,
    most: int | None = None,
    dims: int = 2,
    join: bool = True,
) -> np.ndarray:
    """Keypoints ``(T, M, V, 3)`` of the people that are seen longest, see `tracks.stack_people`."""
    with np.errstate(over="ignore"):
        rows = np.array([row for _, _, row in detections], dtype=np.float32)
    frames = np.array([frame for frame, _, _ in detections], dtype=np.int64)
    found = Detections(frames, [track for _, track, _ in detections], rows, dims)
    return stack_people(str(path), found, num_frames, most, join)


def read_csv(path: str | os.PathLike, layout: LayoutLike = "ntu25") -> SkeletonSequence:
    """Read a table with a row per frame (and person) and columns ``<joint>_x``, ``<joint>_y``, ``<joint>_z``.

    A column ``frame`` numbers the frames, or has their times, as a column ``time`` or ``timestamp`` does; a column
    ``person`` tells people apart; all may be missing. ``<joint>_score`` in place of ``_z`` makes it 2D with scores,
    neither makes it 2D. A joint with an empty coordinate was not seen. Numbers that are left out are frames in which
    nobody is seen; times are taken for frames as far apart as most of them are. Rows of the same frame and person are
    people told apart by where they are. All of these are told.

    Args:
        path: The file.
        layout: Joint layout; every joint of it needs its columns.

    Raises:
        EmptySequenceError: If nobody is seen in it.
        SkeletonFormatError: If a column is missing or a cell is not a finite number; the message names file and line.
    """
    path, layout = Path(path), get_layout(layout)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SkeletonFormatError(f"{path}: it is no CSV text: {str(error)[:80]}") from None
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    reader = csv.reader(text.splitlines())
    try:
        names = next((row for row in reader if row), [])
        line = reader.line_num
        below = next((row for row in reader if row), None)
        if below is None:
            raise SkeletonFormatError(f"{path}: there is no frame below the line of column names")
        columns, axes = _columns(path, layout, names, line)
        when = next((name for name in ("frame", *_TIMES) if name in columns), None)
        rows, frames, people, lines = _rows(path, reader, below, len(names), columns, layout, axes, when)
    except csv.Error as error:
        raise SkeletonFormatError(f"{path}, line {reader.line_num}: it is no CSV text: {str(error)[:80]}") from None
    places, num_frames, fps = _places_of_rows(path, when if frames else None, frames, people)
    points = np.frombuffer(rows).reshape(len(lines), layout.num_joints, len(axes))
    where = min(len(axes), 3) - (axes[-1] == "score")
    # NaN stands for an empty cell.
    points = np.where(np.isnan(points[..., :where]).any(-1, keepdims=True), 0, np.nan_to_num(points, nan=0.0))
    tracks = [person or None for person in people]
    if "person" not in columns and len(np.unique(places)) < len(places):
        notice(
            f"{path}: several rows have the same {when}: they are taken for people, told apart by where they are",
            "rows of the same frame",
        )
    dims = 3 if axes[-1] == "z" else 2
    keypoints = stack_people(
        str(path), Detections(places, tracks, points, dims), num_frames, _most(path.stat().st_size), join=False
    )
    coordinates = {"z": "3d", "score": "2d+score"}.get(axes[-1], "2d")
    return SkeletonSequence(keypoints, layout, fps=fps, name=path.stem, coordinates=coordinates)


def _columns(path: Path, layout: Layout, names: list[str], line: int) -> tuple[dict[str, int], list[str]]:
    """Places of the columns by name, and what is known of a joint."""
    columns = {name.strip(): place for place, name in enumerate(names)}
    first = layout.joint_names[0]
    axes = ["x", "y"] + [axis for axis in ("z", "score") if f"{first}_{axis}" in columns][:1]
    wanted = [f"{joint}_{axis}" for joint in layout.joint_names for axis in axes]
    count = Counter(name.strip() for name in names)
    twice = next((name for name in (*wanted, "frame", "person", *_TIMES) if count[name] > 1), None)
    if twice is not None:
        raise SkeletonFormatError(f"{path}, line {line}: the column '{twice}' is there twice")
    lacking = next((name for name in wanted if name not in columns), None)
    if lacking is not None:
        raise SkeletonFormatError(f"{path}, line {line}: layout '{layout.name}' needs the column '{lacking}'")
    return columns, axes


def _rows(
    path: Path,
    reader: Any,
    below: list[str],
    width: int,
    columns: Mapping[str, int],
    layout: Layout,
    axes: Sequence[str],
    when: str | None,
) -> tuple[Any, list[float], list[str], list[int]]:
    """Numbers of all rows, NaN where a cell is empty; their frames, people and lines."""
    values = array("d")
    frames, people, lines = [], [], []
    wanted = [columns[f"{joint}_{axis}"] for joint in layout.joint_names for axis in axes]
    for row in chain([below], reader):
        if not row:
            continue
        line = reader.line_num
        if len(row) != width:
            raise SkeletonFormatError(f"{path}, line {line}: {len(row)} cells, the first line has {width}")
        values.extend(_cells(path, line, [row[column] for column in wanted]))
        if when is not None and when != "frame" and not _is_number(row[columns[when]]):
            # Times as "12:03:05" say no more than the order of the rows.
            when = None
        if when is not None:
            frame = _cell(path, line, row[columns[when]])
            if math.isnan(frame):
                raise SkeletonFormatError(f"{path}, line {line}: the cell of the column '{when}' is empty")
            frames.append(frame)
        people.append(row[columns["person"]].strip() if "person" in columns else "")
        lines.append(line)
    return values, frames if when is not None else [], people, lines


def _places_of_rows(
    path: Path, when: str | None, frames: Sequence[float], people: Sequence[str]
) -> tuple[np.ndarray, int | None, float | None]:
    """Frame of each row, from 0; how many frames there are, and frames per second where times say so."""
    if when is None:
        # The rows of each person are one after the other.
        order: Counter[str] = Counter()
        rows = []
        for person in people:
            rows.append(order[person])
            order[person] += 1
        return np.array(rows, dtype=np.int64), None, None
    values = np.array(frames)
    distinct, where = np.unique(values, return_inverse=True)
    if np.abs(distinct).max() >= _LARGEST * 1024:
        raise SkeletonFormatError(f"{path}: a number in the column '{when}' is too large for a frame or a time")
    if len(distinct) == 1:
        return np.zeros(len(values), dtype=np.int64), None, None
    steps = np.diff(distinct)
    usual = float(np.median(steps))
    is_whole = (distinct == np.round(distinct)).all() and np.abs(distinct).max() < _LARGEST
    step = math.gcd(*(distinct - distinct[0]).astype(np.int64).tolist()) if is_whole else 0
    fps = None
    # Times in milliseconds are whole numbers, too, but hardly ever as near to each other as they can be.
    if when == "frame" and is_whole and (steps == step).mean() >= 0.25:
        jumps = np.round(steps / step)
        if step > 1:
            notice(
                f"{path}: frame numbers are {step} apart: they are taken for frames one after the other",
                "frame numbers that are several apart",
            )
    else:
        jumps = np.maximum(np.round(steps / usual), 1)
        second = _second_of(when, usual)
        fps = None if second is None else float(second * jumps.sum() / (distinct[-1] - distinct[0]))
        notice(
            f"{path}: the column '{when}' rises by {usual:g} from row to row: it is taken for times, "
            + ("of an unknown unit" if fps is None else f"{fps:.4g} frames per second"),
            "times in place of frame numbers",
        )
    places = np.concatenate([[0.0], np.cumsum(jumps)])
    if places[-1] >= _LARGEST:
        raise SkeletonFormatError(f"{path}: the column '{when}' speaks of more frames than a recording has")
    left_out = int(places[-1]) + 1 - len(distinct)
    if left_out:
        notice(
            f"{path}: {left_out} of {int(places[-1]) + 1} frames have no row: nobody is seen in them",
            "frames without a row",
        )
    return places.astype(np.int64)[where.ravel()], int(places[-1]) + 1, fps


def _second_of(name: str, step: float) -> float | None:
    """How many of its unit a column of times counts in a second; None where neither its name nor its steps say."""
    if name.endswith("_ms"):
        return 1000.0
    if name.endswith("_s") or step < 1:
        return 1.0
    # A sensor takes 1 to 200 pictures in a second; of times from 1 to 5 apart nobody knows.
    for second in (1e3, 1e6, 1e9):
        if second / 200 <= step <= second:
            return second
    return None


def _is_number(text: str) -> bool:
    try:
        return not text.strip() or math.isfinite(float(text))
    except ValueError:
        return False


def _cells(path: Path, line: int, cells: list[str]) -> list[float]:
    """Numbers of a row; NaN where a cell is empty."""
    try:
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        numbers = [math.inf]
    text = "".join(cells)
    # NaN and infinity as words, underscores, and numbers too large: each is looked at, and refused by name.
    if "n" in text or "N" in text or "_" in text or math.inf in numbers or -math.inf in numbers:
        return [_cell(path, line, cell) for cell in cells]
    return numbers


def _cell(path: Path, line: int, text: str) -> float:
    """A number; NaN where the cell is empty."""
    try:
        value = float(text)
    except ValueError:
        if not text.strip():
            return math.nan
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise SkeletonFormatError(f"{path}, line {line}: '{text[:40]}' is not a finite number")
    return value
