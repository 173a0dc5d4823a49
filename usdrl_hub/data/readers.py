"""Readers of skeleton files: one file to one `SkeletonSequence`, or to several where it holds a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..layouts import LayoutLike
from ..sequence import SkeletonFormatError, SkeletonSequence
from .dataset import SkeletonDataset, load_npz
from .poses import is_series, join_frames, read_csv, read_pose_json, read_pyskl
from .text import NTU, UAV, read_body_text, read_pku_skeleton

SUFFIXES = (".skeleton", ".npy", ".npz", ".pkl", ".json", ".csv")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp")


def find_recordings(folder: str | os.PathLike) -> list[Path]:
    """Paths of the recordings in a folder and its subfolders, sorted; frames are joined, see `poses.join_frames`."""
    return join_frames(file for file in Path(folder).rglob("*") if file.suffix in SUFFIXES and file.is_file())


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
    if is_series(path):
        yield read_pose_json(path, layout)
        return
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise SkeletonFormatError(f"{path}: the file is empty")
    if path.suffix == ".skeleton":
        yield read_body_text(path, NTU)
    elif path.suffix == ".npy":
        yield _from_array(_load_npy(path), layout, axes, path, missing)
    elif path.suffix == ".npz":
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
    elif path.suffix == ".pkl":
        yield from read_pyskl(path, on_error, layout)[0]
    elif path.suffix == ".json":
        yield read_pose_json(path, layout, axes=axes, missing=missing)
    elif path.suffix == ".csv":
        yield read_csv(path, layout)
    elif path.suffix == ".txt" and UAV.name.search(path.stem):
        yield read_body_text(path, UAV)
    elif path.suffix == ".txt":
        yield read_pku_skeleton(path)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        raise SkeletonFormatError(
            f"{path}: unknown kind of file: it is a video, in which a pose model sees skeletons: name a --pose-model "
            "and a --detector, or use read_video"
        )
    else:
        raise SkeletonFormatError(f"{path}: unknown kind of file, expected one of {', '.join(SUFFIXES)}")


def _from_array(array: np.ndarray, layout: LayoutLike, axes: str | None, path: Path, missing: str) -> SkeletonSequence:
    # Errors name the whole path, the sequence only the file.
    return replace(SkeletonSequence.from_array(array, layout, axes, str(path), missing), name=path.stem)


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        # NumPy reads a header as Python text, so a damaged one fails in any way that text can.
        with open(path, "rb") as file:
            known = file.read(6) == b"\x93NUMPY"
        reason = "it is cut" if known else "it is something else"
        if known and "Object arrays" in str(error):
            reason = "it holds Python objects, which are never loaded"
        raise SkeletonFormatError(f"{path}: cannot be read as a NumPy array: {reason}") from None
