"""Readers of keypoints that pose estimators and sensors write as JSON, or that pose models of transformers return."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EmptySequenceError, notice
from ..layouts import TO_Y_UP, get_layout
from ..sequence import AXES, CHANNELS, METRES, SkeletonFormatError, SkeletonSequence
from .detections import Detection, choose_layout, load_json, max_numbers, stack_detections, to_numbers
from .formats import alphapose, azure, coco, keraal, kinetics, mediapipe, mmpose, panoptic, ultralytics
from .formats.estimates import Estimates, rate_of_file, to_sequence
from .formats.foreign import FOREIGN
from .reading import OnError, Reading
from .series import is_series, read_openpose, read_series


def read_pose_json(path: str | os.PathLike, reading: Reading = Reading()) -> SkeletonSequence:
    """Read a file of one recording, see `iter_pose_json`.

    Raises:
        SkeletonFormatError: See `iter_pose_json`; or if the file has several recordings.
    """
    sequences = iter_pose_json(path, reading)
    first = next(sequences)
    if next(sequences, None) is not None:
        raise SkeletonFormatError(f"{path}: it holds several sequences: read them with iter_skeletons")
    return first


def iter_pose_json(
    path: str | os.PathLike, reading: Reading = Reading(), on_error: OnError = None
) -> Iterator[SkeletonSequence]:
    """Yield the recordings of a JSON or JSON lines file of a pose estimator or your own program.

    The form is recognised by the content: OpenPose (a file is one frame, and ``NAME_*_keypoints.json`` stands for all
    frames of a recording, see `series.join_frames`), AlphaPose and COCO's results, MMPose (2D and 3D), MediaPipe
    (world landmarks, in metres and y down, or landmarks in shares of the image), Ultralytics, annotations of COCO,
    Kinetics-skeleton, Azure Kinect, CMU Panoptic and KERAAL; lists as `from_pose_estimation` takes them; and an array
    of any layout: lists of frames (of persons) of joints of coordinates, by themselves or as ``keypoints`` beside
    fields of `SkeletonSequence`, as `write_skeleton` writes them.

    Args:
        path: The file.
        reading: What the file does not say; null in an array counts as NaN.
        on_error: Called with the error of one recording of several, which is then left out; None raises it.

    Yields:
        The sequences; people are tracked by the file's track numbers, if it has any, else by position.

    Raises:
        SkeletonFormatError: If the file is not JSON of one of these forms; the message names file and frame.
    """
    path = Path(path)
    if is_series(path):
        yield read_series(path, reading)
        return
    content = load_json(path)
    numbers = content.get("keypoints") if isinstance(content, dict) else content
    if _is_array(numbers):
        yield _read_array(path, _array(path, numbers), content if isinstance(content, dict) else {}, reading)
        return
    if coco.is_annotations(content):
        for name, found in coco.read_annotations(path, content):
            try:
                yield to_sequence(path, found, reading, name=name)
            except SkeletonFormatError as error:
                if on_error is None:
                    raise
                on_error(error)
        return
    estimates = _estimates(path, content)
    if estimates is not None:
        yield to_sequence(path, estimates, reading)
        return
    if isinstance(content, list) and any(isinstance(frame, list) for frame in content):
        chosen = choose_layout(path, get_layout("coco17").num_joints, reading, False)
        limit = max_numbers(path.stat().st_size)
        sequence = from_pose_estimation(content, name=path.stem, where=str(path), limit=limit)
        yield reading.complete(replace(sequence, layout=chosen))
        return
    raise SkeletonFormatError(
        f"{path}: it is not JSON of OpenPose, AlphaPose, MMPose, MediaPipe, Ultralytics, COCO, Azure Kinect or any "
        "other known program"
    )


def from_pose_estimation(
    results: Sequence[Sequence[Mapping[str, Any]]],
    *,
    image_shape: tuple[float, float] | None = None,
    fps: float | None = None,
    name: str = "",
    where: str | None = None,
    limit: int | None = None,
) -> SkeletonSequence:
    """Make a recording from the results of a pose model of transformers (ViTPose) for the frames of a video.

    Args:
        results: The results of ``post_process_pose_estimation`` of the image processor for all frames in order: a list
            per frame of a dictionary per person with `keypoints` ``(n, 2)`` in pixels, `scores` ``(n,)``
            and, if some joints are left out, `labels` ``(n,)``, their indices in COCO's 17. Tensors, arrays or
            lists.
        image_shape: Height and width of the images.
        fps: Frames per second.
        name: Name of the recording.
        where: Name in errors; `name` if None.
        limit: Count of numbers that the keypoints have at most; None for any.

    Returns:
        A recording of layout ``coco17`` with scores. People are tracked by position, see `tracks.stack_people`.

    Raises:
        SkeletonFormatError: If the results have another form, or no person is detected.
    """
    where = where or name or "poses"
    detections = list(_estimated(where, results))
    if not detections:
        raise EmptySequenceError(f"{where}: no person is detected in its {len(results)} frames")
    keypoints = stack_detections(where, detections, len(results), limit)
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


def program_of(content: Any) -> str | None:
    """The program or data set whose form the content of a JSON file has; None where it is an array or unknown."""
    numbers = content.get("keypoints") if isinstance(content, dict) else content
    if _is_array(numbers):
        return None
    if coco.is_annotations(content):
        return "COCO annotations"
    if (name := next((name for name, fits, _ in _FORMS if fits(content)), None)) is not None:
        return name
    return "ViTPose" if isinstance(content, list) and any(isinstance(frame, list) for frame in content) else None


def _estimates(path: Path, content: Any) -> Estimates | None:
    """The content of a file of one recording; None if the form is unknown."""
    read = next((read for _, fits, read in _FORMS if fits(content)), None)
    return None if read is None else read(path, content)


def _is_openpose(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("people"), list)


def _is_opencap(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("bodies"), dict) and "time" in content


def _read_panoptic(path: Path, content: Any) -> Estimates:
    _warn_of_one_frame("CMU Panoptic", "NAME_*.json")
    return panoptic.read_panoptic([(0, path, content)])


def _read_openpose(path: Path, content: Any) -> Estimates:
    _warn_of_one_frame("OpenPose", "NAME_*_keypoints.json")
    return Estimates(read_openpose(path, content), 1)


def _refuse_opencap(path: Path, _: Any) -> Estimates:
    raise SkeletonFormatError(f"{path}: {FOREIGN['opencap']}")


def _read_mmpose(path: Path, content: Any) -> Estimates:
    return mmpose.read_frames(path, mmpose.frames_of(content) or [])


def _read_ultralytics(path: Path, content: Any) -> Estimates:
    return ultralytics.read_images(path, ultralytics.frames_of(content) or [])


def _read_mediapipe(path: Path, content: Any) -> Estimates:
    return mediapipe.read_landmarks(path, content, mediapipe.frames_of(content) or [])


# The form of each program or data set: how its content is known, and its reader; the first that fits is taken.
_FORMS: tuple[tuple[str, Callable[[Any], bool], Callable[[Path, Any], Estimates]], ...] = (
    ("Kinetics-skeleton", kinetics.is_kinetics, kinetics.read_kinetics),
    ("Azure Kinect", azure.is_azure, azure.read_azure),
    ("KERAAL", keraal.is_positions, keraal.read_positions),
    ("CMU Panoptic", panoptic.is_panoptic, _read_panoptic),
    ("OpenPose", _is_openpose, _read_openpose),
    ("OpenCap", _is_opencap, _refuse_opencap),
    ("MMPose", lambda content: mmpose.frames_of(content) is not None, _read_mmpose),
    ("AlphaPose or COCO results", alphapose.is_detections, alphapose.read_detections),
    ("Ultralytics", lambda content: ultralytics.frames_of(content) is not None, _read_ultralytics),
    ("MediaPipe", lambda content: mediapipe.frames_of(content) is not None, _read_mediapipe),
)


def _warn_of_one_frame(program: str, pattern: str) -> None:
    notice(
        f"a file of {program} holds one frame: the others are read with it where a folder is named, or '{pattern}'",
        stacklevel=4,
    )


def _read_array(path: Path, array: np.ndarray, content: Mapping[str, Any], reading: Reading) -> SkeletonSequence:
    """The recording of an array, with what the file says beside it, as `write_skeleton` does."""
    said = _said_of_array(path, content)
    name, rate = said.pop("name", path.stem), rate_of_file(content.get("fps"))
    if "layout" not in said and (landmarks := mediapipe.read_array(array, str(path), reading)) is not None:
        return replace(landmarks, name=name, fps=rate or landmarks.fps)
    if "layout" not in said:
        reading = reading.guessed(array.shape, str(path))
    layout, axes = said.pop("layout", reading.layout or reading.default_layout), said.pop("axes", reading.axes)
    missing = reading.missing or "refuse"
    found = SkeletonSequence.from_array(array, layout, axes, str(path), missing, fps=rate, **said)
    return replace(reading.complete(found, found.units), name=name)


def _said_of_array(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of its array; values that mean nothing here are reported and left out."""
    said: dict[str, Any] = {}
    for name, convert in _SAID_OF_ARRAYS.items():
        if content.get(name) is not None:
            try:
                said[name] = convert(content[name])
            except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
                notice(f"{path}: its '{name}' means nothing here and is left out", f"files whose '{name}' is unknown")
    return said


def _one_of(known: Collection[Any], kind: type = str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, kind) or value not in known:
            raise ValueError
        return value

    return convert


def _of_type(*kinds: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError
        return value

    return convert


def _size(value: Any) -> tuple[float, float]:
    height, width = map(float, value)
    if not 0 < min(height, width) <= max(height, width) < np.inf:
        raise ValueError
    return height, width


# What a file may say of an array of keypoints, besides its rate: fields of `SkeletonSequence`, and the axis order.
_SAID_OF_ARRAYS: dict[str, Callable[[Any], Any]] = {
    "layout": get_layout,
    "axes": _one_of(AXES),
    "name": _of_type(str),
    "up": _one_of(TO_Y_UP),
    "units": _one_of(METRES),
    "coordinates": _one_of(CHANNELS),
    "mirrored": _of_type(bool),
    "image_shape": _size,
    "label": _of_type(int),
    "subject": _of_type(int, str),
    "camera": _of_type(int),
    "setup": _of_type(int),
    "split": _one_of(("train", "test")),
    "events": lambda value: np.array(value, dtype=np.int64).reshape(-1, 3),
}


def _is_array(content: Any) -> bool:
    """Whether nested lists contain only lists, down to the first number."""
    if not isinstance(content, list):
        return False
    while isinstance(content, list) and content:
        # Missing values may be null.
        content = next((item for item in content if item is not None), None)
    return content is None or isinstance(content, int | float)


def _array(path: Path, values: Any) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise SkeletonFormatError(
            f"{path}: its lists form no array: every frame needs as many joints, and every joint as many numbers"
        ) from None
