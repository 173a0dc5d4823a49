"""Readers of skeleton files: one file to one `SkeletonSequence`, or to several where it holds a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import notice
from ..layouts import TO_Y_UP, LayoutLike, get_layout, make_joint, seen_joints
from ..sequence import SkeletonFormatError, SkeletonSequence
from .arrays import load_npy, load_npz
from .csv import read_csv
from .npz import SkeletonDataset
from .openpose import is_series, join_frames
from .poses import read_pose_json
from .pyskl import read_pyskl
from .text import NTU, UAV, read_body_text, read_pku_skeleton

# What is done with the error of one sequence of several; None raises it.
OnError: TypeAlias = Callable[[SkeletonFormatError], None] | None
SUFFIXES = (".skeleton", ".npy", ".npz", ".pkl", ".json", ".csv")
# Joints by which one sees whether a person stands on the head.
_HEADS, _FEET = ("head", "neck"), ("left_ankle", "right_ankle")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp")


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file is a video by its name."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_recordings(folder: str | os.PathLike) -> list[Path]:
    """Paths of the recordings in a folder and its subfolders, sorted; frames are joined, see `openpose.join_frames`.

    Subfolders that cannot be opened, and folders with a name like a file's, are told.
    """

    def tell(error: OSError) -> None:
        notice(f"{error.filename}: it cannot be opened: {error.strerror}", "folders that cannot be opened")

    files: list[Path] = []
    for place, folders, names in os.walk(os.fspath(folder), onerror=tell):
        files += [Path(place, name) for name in names if Path(name).suffix in SUFFIXES]
        for name in folders:
            if Path(name).suffix in SUFFIXES:
                notice(f"{Path(place, name)}: it is a folder, not a file", "folders with a name like a file's")
    return join_frames(file for file in files if file.is_file())


def read_skeleton(path: str | os.PathLike, layout: LayoutLike = "ntu25", axes: str | None = None) -> SkeletonSequence:
    """Read one recording.

    Args:
        path: An NTU RGB+D ``.skeleton`` file; a UAV-Human or PKU-MMD ``.txt`` file; a NumPy array in ``.npy`` or
            ``.npz`` (the only array in it, or the one called ``keypoints``); a pose estimator's ``.json`` (see
            `read_pose_json`; also plain lists of numbers, and ``NAME_*_keypoints.json`` for OpenPose's frames); or a
            ``.csv`` (see `read_csv`).
        layout: Joint layout of an array (in JSON, too) or a CSV, and of other keypoints where it has as many joints;
            else files have their own.
        axes: Axis order of an array, see `SkeletonSequence.from_array`.

    Returns:
        The sequence, metres and y up for ``.skeleton``, named after the file. An NTU file name gives label and
        subject; bodies are ordered by motion energy, most energetic first, as the release orders them.

    Raises:
        SkeletonFormatError: If the file is missing, unreadable, malformed, or holds several sequences; the message
            names the file and the line or array.
    """
    path = Path(path)
    sequences = iter_skeletons(path, layout, axes)
    first = next(sequences)
    if next(sequences, None) is not None:
        raise SkeletonFormatError(f"{path}: it holds several sequences: read them with iter_skeletons")
    return first


def iter_skeletons(
    path: str | os.PathLike,
    layout: LayoutLike = "ntu25",
    axes: str | None = None,
    on_error: Callable[[SkeletonFormatError], None] | None = None,
    missing: str = "refuse",
) -> Iterator[SkeletonSequence]:
    """Yield every recording in a file: one, or all of a data set (``.npz`` or pyskl ``.pkl``).

    Args:
        path: See `read_skeleton`.
        layout: See `read_skeleton`.
        axes: See `read_skeleton`.
        on_error: Called with the error of a sequence of a data set, which is then left out; None raises it.
        missing: What NaN in an array means; see `SkeletonSequence.from_array`.

    Raises:
        SkeletonFormatError: See `read_skeleton`.
    """
    path = Path(path)

    def named(error: SkeletonFormatError) -> SkeletonFormatError:
        """The error with the whole path: a sequence knows its own name only."""
        text = str(error.args[0]) if error.args else str(error)
        return error if str(path) in text else type(error)(f"{path}: {text}")

    try:
        tell = on_error and (lambda error: on_error(named(error)))
        yield from _sequences(path, layout, axes, tell, missing)
    except SkeletonFormatError as error:
        raise named(error) from None
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror or type(error).__name__}") from None


def _sequences(
    path: Path,
    layout: LayoutLike,
    axes: str | None,
    on_error: Callable[[SkeletonFormatError], None] | None,
    missing: str,
) -> Iterator[SkeletonSequence]:
    """See `iter_skeletons`."""
    if is_series(path):
        yield read_pose_json(path, layout)
        return
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise SkeletonFormatError(f"{path}: the file is empty")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise SkeletonFormatError(
            f"{path}: unknown kind of file: it is a video, in which a pose model sees skeletons: name a --pose-model "
            "and a --detector, or use read_video"
        )
    if path.suffix not in _READERS:
        raise SkeletonFormatError(f"{path}: unknown kind of file, expected one of {', '.join(SUFFIXES)}")
    yield from _READERS[path.suffix](path, layout, axes, on_error, missing)


def _read_npz(
    path: Path, layout: LayoutLike, axes: str | None, on_error: OnError, missing: str
) -> Iterator[SkeletonSequence]:
    arrays = load_npz(path)
    if "offsets" in arrays:
        yield from SkeletonDataset.from_arrays(arrays, str(path)).iterate(on_error)
        return
    key = "keypoints" if "keypoints" in arrays else next(iter(arrays))
    if len(arrays) > 1 and key != "keypoints":
        raise SkeletonFormatError(
            f"{path}: which of the arrays {', '.join(arrays)} is the skeleton? Call it 'keypoints', or add "
            "'offsets' for a data set"
        )
    yield _from_array(arrays[key], layout, axes, path, missing)


def _read_txt(path: Path, *_: Any) -> Iterator[SkeletonSequence]:
    yield read_body_text(path, UAV) if UAV.name.search(path.stem) else read_pku_skeleton(path)


def _from_array(array: np.ndarray, layout: LayoutLike, axes: str | None, path: Path, missing: str) -> SkeletonSequence:
    # Errors name the whole path, the sequence only the file.
    found = replace(SkeletonSequence.from_array(array, layout, axes, str(path), missing), name=path.stem)
    return put_upright(found, str(path))


# Reader of each kind of file: of the path, layout, axes, on_error and missing, as `iter_skeletons` takes them.
_READERS: dict[str, Callable[..., Iterator[SkeletonSequence]]] = {
    ".skeleton": lambda path, *_: iter([read_body_text(path, NTU)]),
    ".npy": lambda path, layout, axes, _, missing: iter([_from_array(load_npy(path), layout, axes, path, missing)]),
    ".npz": _read_npz,
    ".pkl": lambda path, layout, _, on_error, __: read_pyskl(path, on_error, layout)[0],
    ".json": lambda path, layout, axes, _, missing: iter(
        [put_upright(read_pose_json(path, layout, axes=axes, missing=missing), str(path))]
    ),
    ".csv": lambda path, layout, *_: iter([put_upright(read_csv(path, layout), str(path))]),
    ".txt": _read_txt,
}


def put_upright(sequence: SkeletonSequence, where: str) -> SkeletonSequence:
    """Tell of 3D people whose heads are below their feet in most frames; MediaPipe's, whose y points down, are turned.

    Args:
        sequence: A recording; as it is where it says which axis points up.
        where: What to call it.
    """
    layout = get_layout(sequence.layout)
    if not sequence.is_3d or sequence.up is not None:
        return sequence
    head = next((joint for name in _HEADS if (joint := make_joint(name, layout)) is not None), None)
    feet = [joint for name in _FEET if (joint := make_joint(name, layout)) is not None]
    if head is None or not feet:
        return sequence
    order, signs = TO_Y_UP[layout.up]
    height = sequence.keypoints[..., order[1]] * signs[1]
    seen = seen_joints(sequence.keypoints)
    used = (head != 0) | (np.stack(feet) != 0).any(0)
    there = seen[..., used].all(-1)
    if not there.any() or (height @ head < height @ np.mean(feet, axis=0))[there].mean() <= 0.5:
        return sequence
    down = layout.up.removeprefix("-") if layout.up.startswith("-") else f"-{layout.up}"
    if layout.name == "mediapipe33":
        notice(f"{where}: MediaPipe's y points down: the people are turned over (up='-y')", "people turned over")
        return replace(sequence, up=down)
    notice(
        f"{where}: heads are below feet in most frames: if {layout.up} does not point up, give the sequence its up, "
        f"such as up='{down}'",
        "heads below feet",
    )
    return sequence
