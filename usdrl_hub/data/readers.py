"""Readers of skeleton files: one file to one `SkeletonSequence`, or to several where it holds a data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..layouts import LayoutLike
from ..normalization import RaggedFrames, person_energy
from ..sequence import SkeletonFormatError, SkeletonSequence
from .dataset import SkeletonDataset, load_npz

SUFFIXES = (".skeleton", ".npy", ".npz")

# NTU RGB+D: setup, camera, performer, replication, action; all 1-based.
_NTU_NAME = re.compile(r"S\d{3}C\d{3}P(\d{3})R\d{3}A(\d{3})$")
_NTU_JOINTS = 25
_NTU_JOINT_FIELDS = 12
_NTU_BODY_FIELDS = 10
_NTU_FPS = 30.0
# The release reads this many bodies of a frame, by their order in it.
_NTU_MAX_BODIES = 4


def read_skeleton(path: str | os.PathLike, layout: LayoutLike = "ntu25", axes: str | None = None) -> SkeletonSequence:
    """Read one recording.

    Args:
        path: An NTU RGB+D ``.skeleton`` file, or a NumPy array in ``.npy`` or ``.npz`` (the only array in it, or the
            one called ``keypoints``).
        layout: Joint layout of an array; a ``.skeleton`` file has its own.
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
    path: str | os.PathLike, layout: LayoutLike = "ntu25", axes: str | None = None
) -> Iterator[SkeletonSequence]:
    """Yield every recording in a file: one, or all of a data set in the ``.npz`` form of `SkeletonDataset`.

    Args:
        path: See `read_skeleton`.
        layout: See `read_skeleton`.
        axes: See `read_skeleton`.

    Raises:
        SkeletonFormatError: See `read_skeleton`.
    """
    path = Path(path)
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise SkeletonFormatError(f"{path}: the file is empty")
    if path.suffix == ".skeleton":
        yield _read_ntu(path)
    elif path.suffix == ".npy":
        yield _from_array(_load_npy(path), layout, axes, path)
    elif path.suffix == ".npz":
        arrays = load_npz(path)
        if "offsets" in arrays:
            yield from SkeletonDataset.from_arrays(arrays, str(path))
            return
        key = "keypoints" if "keypoints" in arrays else next(iter(arrays))
        if len(arrays) > 1 and key != "keypoints":
            raise SkeletonFormatError(
                f"{path}: which of the arrays {', '.join(arrays)} is the skeleton? Call it 'keypoints', or add "
                "'offsets' for a data set"
            )
        yield _from_array(arrays[key], layout, axes, path)
    else:
        raise SkeletonFormatError(f"{path}: unknown kind of file, expected one of {', '.join(SUFFIXES)}")


def _from_array(array: np.ndarray, layout: LayoutLike, axes: str | None, path: Path) -> SkeletonSequence:
    # Errors name the whole path, the sequence only the file.
    return replace(SkeletonSequence.from_array(array, layout, axes, name=str(path)), name=path.stem)


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        reason = "it holds Python objects, which are never loaded" if "pickle" in str(error).lower() else "it is cut"
        raise SkeletonFormatError(f"{path}: cannot be read as a NumPy array: {reason}") from None


def _read_ntu(path: Path) -> SkeletonSequence:
    try:
        lines = path.read_bytes().decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise SkeletonFormatError(f"{path}: it is not an NTU .skeleton text file") from None
    while lines and not lines[-1].strip():
        lines.pop()
    bodies = _ntu_bodies(path, lines)
    num_frames = _ntu_integer(path, lines, 0, "the number of frames")
    coordinates = _ntu_coordinates(path, lines, [line for _, _, line in bodies])
    persons = max(person for _, person, _ in bodies) + 1
    keypoints = np.zeros((num_frames, persons, _NTU_JOINTS, 3), dtype=np.float64)
    keypoints[[frame for frame, _, _ in bodies], [person for _, person, _ in bodies]] = coordinates
    if persons > 1:
        energy = person_energy(RaggedFrames(torch.from_numpy(keypoints), torch.tensor([num_frames])))[0]
        keypoints = keypoints[:, energy.argsort(descending=True, stable=True).numpy()]
    match = _NTU_NAME.search(path.stem)
    return SkeletonSequence(
        keypoints,
        layout="ntu25",
        fps=_NTU_FPS,
        name=path.stem,
        label=int(match.group(2)) - 1 if match else None,
        subject=int(match.group(1)) if match else None,
    )


def _ntu_bodies(path: Path, lines: list[str]) -> list[tuple[int, int, int]]:
    """Frame, place in the frame, and first joint line of every body that is read."""
    num_frames = _ntu_integer(path, lines, 0, "the number of frames")
    if num_frames == 0:
        raise SkeletonFormatError(f"{path}, line 1: the recording has zero frames")
    bodies = []
    line = 1
    for frame in range(num_frames):
        count = _ntu_integer(path, lines, line, f"the number of bodies in frame {frame}")
        line += 1
        for body in range(count):
            _ntu_fields(path, lines, line, _NTU_BODY_FIELDS, "a body")
            joints = _ntu_integer(path, lines, line + 1, "the number of joints")
            if joints != _NTU_JOINTS:
                raise SkeletonFormatError(f"{path}, line {line + 2}: {joints} joints, expected {_NTU_JOINTS}")
            if line + 2 + joints > len(lines):
                raise SkeletonFormatError(
                    f"{path}, line {len(lines)}: the file ends inside frame {frame} of {num_frames}: it is cut"
                )
            if body < _NTU_MAX_BODIES:
                bodies.append((frame, body, line + 2))
            line += 2 + joints
    if line < len(lines):
        raise SkeletonFormatError(f"{path}, line {line + 1}: text goes on after the last of {num_frames} frames")
    if not bodies:
        raise SkeletonFormatError(f"{path}: no body in any of {num_frames} frames, so there is nothing to read")
    return bodies


def _ntu_coordinates(path: Path, lines: list[str], starts: list[int]) -> np.ndarray:
    """Coordinates ``(N, V, 3)`` of the bodies whose joint lines begin at `starts`."""
    rows = [line for start in starts for line in lines[start : start + _NTU_JOINTS]]
    # Only the three coordinates are read: splitting and converting all twelve fields takes four times as long.
    try:
        whole = all(line.count(" ") == _NTU_JOINT_FIELDS - 1 and "_" not in line for line in rows)
        numbers = [float(field) for line in rows for field in line.split(None, 3)[:3]] if whole else []
    except ValueError:
        numbers = []
    if len(numbers) != 3 * len(rows):
        for start in starts:
            for line in range(start, start + _NTU_JOINTS):
                _ntu_fields(path, lines, line, _NTU_JOINT_FIELDS, "a joint")
        numbers = [float(field) for line in rows for field in line.split()[:3]]
    coordinates = np.array(numbers).reshape(len(starts), _NTU_JOINTS, 3)
    if not np.isfinite(coordinates).all():
        body, joint, _ = np.argwhere(~np.isfinite(coordinates))[0]
        raise SkeletonFormatError(f"{path}, line {starts[body] + joint + 1}: a coordinate is NaN or infinite")
    return coordinates


def _ntu_fields(path: Path, lines: list[str], line: int, count: int, what: str) -> None:
    if line >= len(lines):
        raise SkeletonFormatError(f"{path}, line {len(lines)}: the file ends where {what} should follow: it is cut")
    fields = lines[line].split()
    if len(fields) != count:
        raise SkeletonFormatError(f"{path}, line {line + 1}: {len(fields)} fields for {what}, expected {count}")
    for field in fields:
        try:
            float(field)
            # Python takes 1_000 for a number.
            wrong = "_" in field
        except ValueError:
            wrong = True
        if wrong:
            raise SkeletonFormatError(f"{path}, line {line + 1}: '{field[:40]}' is not a number")


def _ntu_integer(path: Path, lines: list[str], line: int, what: str) -> int:
    if line >= len(lines):
        raise SkeletonFormatError(f"{path}, line {len(lines)}: the file ends where {what} should follow: it is cut")
    text = lines[line].strip()
    # Longer numbers than this are no count of anything in such a file.
    if not text.isdigit() or len(text) > 9:
        raise SkeletonFormatError(f"{path}, line {line + 1}: expected {what}, got '{text[:40]}'")
    return int(text)
