"""Readers of what pose estimators write: pyskl and MMAction2 pickles, JSON keypoints, and plain CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EmptySequenceError, notice
from ..layouts import Layout, LayoutLike, get_layout
from ..sequence import MOST_PERSONS, SkeletonFormatError, SkeletonSequence, link_persons
from .pickles import load_numpy_pickle

# Which layout a pose estimator means by a number of joints.
_BY_JOINTS = {17: "coco17", 18: "openpose18", 25: "openpose25", 33: "mediapipe33"}
_BY_JOINTS_3D = {25: "ntu25", 33: "mediapipe33"}
# The layout that readers are given where nobody has named one.
_UNNAMED = "ntu25"
# Characters of the longest name of a recording.
_LONGEST_NAME = 1000
# What OpenPose calls the file of a frame, and what stands for all frames of a recording.
_FRAME = re.compile(r"(?P<name>.+)_\d{12}_keypoints\.json")
_SERIES = re.compile(r"(?P<name>.+)_\*_keypoints\.json")


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
    if isinstance(content, list) and any(isinstance(frame, list) for frame in content):
        return from_pose_estimation(content, image_shape, None, path.stem, str(path))
    detections, kind = _detections(path, content)
    joints = _count_joints(path, detections)
    fields: dict[str, Any] = {"image_shape": image_shape}
    if kind == "world":
        fields |= {"coordinates": "3d", "up": "-y"}
    elif kind == "shares":
        fields |= {"coordinates": "2d+score", "image_shape": (1.0, 1.0)}
    chosen = _layout_of(path, joints, layout, kind == "world")
    most = 8_000_000 + 5 * path.stat().st_size
    return SkeletonSequence(_stack(path, detections, most=most), chosen, name=path.stem, **fields)


def _load_json(path: Path) -> Any:
    try:
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
    """Paths of recordings: OpenPose's files of single frames become one ``NAME_*_keypoints.json`` for each recording.

    Args:
        files: Paths of files.

    Returns:
        The paths, sorted; those of recordings may be given to all readers.
    """
    frames = {file: _FRAME.fullmatch(file.name) for file in files}
    return sorted(
        {file.with_name(f"{match['name']}_*_keypoints.json") if match else file for file, match in frames.items()}
    )


def is_series(path: str | os.PathLike) -> bool:
    """Whether a path stands for all of OpenPose's frames of a recording, see `join_frames`."""
    return _SERIES.fullmatch(Path(path).name) is not None


def recording_name(path: str | os.PathLike) -> str:
    """What a recording is called: its file's name without the ending; that of its film, for OpenPose's frames."""
    match = _SERIES.fullmatch(Path(path).name)
    return match["name"] if match else Path(path).stem


def _read_frames(path: Path, layout: LayoutLike | None, image_shape: tuple[float, float] | None) -> SkeletonSequence:
    """The recording whose frames OpenPose wrote, in the order of their numbers, which may have gaps."""
    name = recording_name(path)
    matches = {file: _FRAME.fullmatch(file.name) for file in path.parent.iterdir()} if path.parent.is_dir() else {}
    files = sorted(file for file, match in matches.items() if match and match["name"] == name)
    if not files:
        raise SkeletonFormatError(f"{path}: there is no such file")
    detections: list[_Detection] = []
    for number, file in enumerate(files):
        content = _load_json(file)
        people = content.get("people") if isinstance(content, dict) else None
        if not isinstance(people, list):
            raise SkeletonFormatError(f"{file}: it is no frame of OpenPose: it has no list 'people'")
        for person in people:
            row = _row(file, number, person, "pose_keypoints_2d")
            track = person.get("person_id")
            track = track[0] if isinstance(track, list) and track else track
            detections.append((number, track if isinstance(track, int) and track >= 0 else None, row))
    chosen = _layout_of(path, _count_joints(path, detections), layout, False)
    keypoints = _stack(path, detections, len(files))
    sequence = SkeletonSequence(keypoints, chosen, name=name, image_shape=image_shape)
    has_tracks = all(track is not None for _, track, _ in detections)
    return sequence if has_tracks else link_persons(sequence)


def from_pose_estimation(
    results: Sequence[Sequence[Mapping[str, Any]]],
    image_shape: tuple[float, float] | None = None,
    fps: float | None = None,
    name: str = "",
    where: str | None = None,
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

    Returns:
        A recording of layout ``coco17`` with scores, a frame for each picture. The people of a frame who lie nearest
        to those of the frames before keep their place, see `link_persons`.

    Raises:
        SkeletonFormatError: If the results have another form, or nobody is in any picture.
    """
    told = where or name or "poses"
    detections = list(_estimated(told, results))
    if not detections:
        raise EmptySequenceError(f"{told}: nobody is detected in its {len(results)} frames")
    keypoints = _stack(told, detections, len(results))
    return link_persons(SkeletonSequence(keypoints, "coco17", fps=fps, name=name, image_shape=image_shape))


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
_Detection = tuple[int, int | None, np.ndarray]


def _detections(path: Path, content: Any) -> tuple[list[_Detection], str]:
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        rows = [_row(path, 0, person, "pose_keypoints_2d") for person in content["people"]]
        return [(0, None, row) for row in rows], "pixels"
    if isinstance(content, dict) and isinstance(content.get("instance_info"), list):
        return list(_mmpose(path, content["instance_info"])), "pixels"
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if "image_id" in content[0]:
            return list(_alphapose(path, content)), "pixels"
        for key, kind in (("pose_world_landmarks", "world"), ("pose_landmarks", "shares"), ("landmarks", "shares")):
            if key in content[0]:
                return list(_mediapipe(path, content, key)), kind
    raise SkeletonFormatError(f"{path}: it is not JSON of OpenPose, AlphaPose, MMPose or MediaPipe")


def _is_array(content: Any) -> bool:
    """Whether lists hold nothing but lists, down to the first number."""
    if not isinstance(content, list):
        return False
    while isinstance(content, list) and content:
        content = content[0]
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
        raise SkeletonFormatError(f"{path}, frame {frame}: the keypoints are not all numbers") from None
    if not np.isfinite(array).all():
        raise SkeletonFormatError(f"{path}, frame {frame}: a keypoint is NaN or infinite")
    return array


def _row(path: Path, frame: int, person: Any, key: str) -> np.ndarray:
    values = person.get(key) if isinstance(person, dict) else None
    if not isinstance(values, list) or not values or len(values) % 3:
        raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of x, y, score for each joint")
    array = _numbers(path, frame, values)
    if array.ndim != 1:
        raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a flat list of numbers")
    return array.reshape(-1, 3)


def _alphapose(path: Path, content: Sequence[Any]) -> Iterator[_Detection]:
    frames: dict[str, int] = {}
    for entry in content:
        if not isinstance(entry, dict) or "image_id" not in entry:
            raise SkeletonFormatError(f"{path}: a detection has no 'image_id'")
        frame = frames.setdefault(str(entry["image_id"]), len(frames))
        track = entry.get("idx")
        yield frame, track if isinstance(track, int) else None, _row(path, frame, entry, "keypoints")


def _mmpose(path: Path, content: Sequence[Any]) -> Iterator[_Detection]:
    for frame, entry in enumerate(content):
        instances = entry.get("instances") if isinstance(entry, dict) else None
        if not isinstance(instances, list):
            raise SkeletonFormatError(f"{path}, frame {frame}: there is no list 'instances'")
        for instance in instances:
            if not isinstance(instance, dict):
                raise SkeletonFormatError(f"{path}, frame {frame}: an instance is not an object")
            points = _numbers(path, frame, instance.get("keypoints"))
            scores = _numbers(path, frame, instance.get("keypoint_scores"))
            if points.ndim != 2 or points.shape[1] != 2 or scores.shape != points.shape[:1]:
                raise SkeletonFormatError(f"{path}, frame {frame}: 'keypoints' and 'keypoint_scores' do not fit")
            track = instance.get("track_id")
            yield frame, track if isinstance(track, int) else None, np.c_[points, scores]


def _mediapipe(path: Path, content: Sequence[Any], key: str) -> Iterator[_Detection]:
    third = "z" if key == "pose_world_landmarks" else "visibility"
    for frame, entry in enumerate(content):
        people = entry.get(key) if isinstance(entry, dict) else None
        if people is None:
            continue
        # One person's landmarks may stand without the list of people around them.
        if isinstance(people, list) and people and isinstance(people[0], dict):
            people = [people]
        if not isinstance(people, list):
            raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of landmarks")
        for person in people:
            if not isinstance(person, list) or not all(isinstance(landmark, Mapping) for landmark in person):
                raise SkeletonFormatError(f"{path}, frame {frame}: '{key}' is not a list of landmarks")
            values = [[landmark.get(axis) for axis in ("x", "y", third)] for landmark in person]
            if person:
                yield frame, None, _numbers(path, frame, values)


def _count_joints(path: Path, detections: Sequence[_Detection]) -> int:
    if not detections:
        raise EmptySequenceError(f"{path}: nobody is detected in it")
    joints = {len(row) for _, _, row in detections}
    if len(joints) > 1:
        raise SkeletonFormatError(f"{path}: people have {min(joints)} and {max(joints)} joints: the file is mixed")
    return joints.pop()


def _stack(
    path: str | Path, detections: Sequence[_Detection], num_frames: int | None = None, most: int | None = None
) -> np.ndarray:
    """Keypoints ``(T, M, V, 3)`` of the people that are seen longest, most frames first; at most so many numbers."""
    tracked: list[tuple[int, int]] = []
    order: Counter[int] = Counter()
    for frame, track, _ in detections:
        tracked.append((frame, order[frame] if track is None else track))
        order[frame] += 1
    longest = Counter(person for _, person in tracked).most_common(MOST_PERSONS)
    places = {person: place for place, (person, _) in enumerate(longest)}
    shape = (num_frames or max(frame for frame, _ in tracked) + 1, len(places), len(detections[0][2]), 3)
    # A few rows may claim frames without end.
    if most is not None and math.prod(shape) > most:
        raise SkeletonFormatError(f"{path}: it speaks of {shape[0]} frames, in nearly all of which nobody is seen")
    keypoints = np.zeros(shape, dtype=np.float32)
    for (frame, person), (_, _, row) in zip(tracked, detections, strict=True):
        if person in places:
            keypoints[frame, places[person]] = row
    return keypoints


def read_csv(path: str | os.PathLike, layout: LayoutLike = "ntu25") -> SkeletonSequence:
    """Read a table with a row per frame (and person) and columns ``<joint>_x``, ``<joint>_y``, ``<joint>_z``.

    A column ``frame`` numbers the frames, a column ``person`` the people; both may be missing. ``<joint>_score`` in
    place of ``_z`` makes it 2D with scores, neither makes it 2D. An empty cell is a joint that was not seen.

    Args:
        path: The file.
        layout: Joint layout; every joint of it needs its columns.

    Raises:
        SkeletonFormatError: If a column is missing or a cell is not a finite number; the message names file and line.
    """
    path, layout = Path(path), get_layout(layout)
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SkeletonFormatError(f"{path}: it is no CSV text: {str(error)[:80]}") from None
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise SkeletonFormatError(f"{path}: there is no frame below the line of column names")
    header = {name.strip(): number for number, name in enumerate(rows[0])}
    first = layout.joint_names[0]
    axes = ["x", "y"] + [axis for axis in ("z", "score") if f"{first}_{axis}" in header][:1]
    columns = []
    for joint in layout.joint_names:
        for axis in axes:
            if f"{joint}_{axis}" not in header:
                raise SkeletonFormatError(f"{path}, line 1: layout '{layout.name}' needs the column '{joint}_{axis}'")
            columns.append(header[f"{joint}_{axis}"])
    values = np.zeros((len(rows) - 1, len(columns)))
    frames, people = [], []
    for number, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):
            raise SkeletonFormatError(
                f"{path}, line {number + 2}: {len(row)} cells, the first line has {len(rows[0])}"
            )
        values[number] = [_cell(path, number, row[column]) for column in columns]
        frames.append(int(_cell(path, number, row[header["frame"]])) if "frame" in header else number)
        people.append(int(_cell(path, number, row[header["person"]])) if "person" in header else 0)
    points = values.reshape(len(values), layout.num_joints, len(axes))
    padded = points if len(axes) == 3 else np.pad(points, ((0, 0), (0, 0), (0, 1)))
    # Frame numbers may begin anywhere; frames that are left out are frames in which nobody was seen.
    start = min(frames)
    most = 8_000_000 + 5 * path.stat().st_size
    detections = [(f - start, p, row) for f, p, row in zip(frames, people, padded, strict=True)]
    keypoints = _stack(path, detections, most=most)
    coordinates = {"z": "3d", "score": "2d+score"}.get(axes[-1], "2d")
    return SkeletonSequence(keypoints[..., : len(axes)], layout, name=path.stem, coordinates=coordinates)


def _cell(path: Path, number: int, text: str) -> float:
    if not text.strip():
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise SkeletonFormatError(f"{path}, line {number + 2}: '{text[:40]}' is not a finite number")
    return value
