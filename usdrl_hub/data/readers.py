"""Readers of skeleton files: one file to one `SkeletonSequence`, or to several where it holds a data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import notice
from ..layouts import LAYOUTS, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence, without_nan
from .arrays import load_npy, load_npz
from .csv import read_csv
from .formats import amass, amc, bvh, c3d, gcn_arrays, mediapipe, mvnx, number_text, pose_files, trc
from .formats.bodies import find_up, note_implausible, put_upright
from .formats.foreign import FOREIGN
from .formats.sniffing import BY_SUFFIX, array_names, is_recording_text, is_uav, kind_of
from .npz import SkeletonDataset
from .poses import iter_pose_json
from .pyskl import read_pyskl
from .reading import OnError, Reader, Reading
from .series import is_series, join_frames
from .text import NTU, UAV, read_body_text

# What macOS writes beside each file on other systems' disks.
_RESOURCES = "._"
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp")


def is_video(path: str | os.PathLike) -> bool:
    """Whether a file is a video by its name."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_recordings(folder: str | os.PathLike) -> list[Path]:
    """Paths of the recordings in a folder and its subfolders, sorted; frames are joined, see `series.join_frames`.

    Subfolders that cannot be opened, and folders that are named like a file, are reported by a warning.
    """
    files, others = walk(folder)
    foreign = {suffix: count for suffix, count in others.items() if suffix != ".asf" and is_foreign(suffix)}
    if foreign:
        notice(
            f"{folder}: files of kinds that are not read are left out ({count_endings(foreign)}): name one to learn "
            "what to do",
            "files of kinds that are not read",
        )
    return files


def walk(folder: str | os.PathLike) -> tuple[list[Path], Counter[str]]:
    """The recordings in a folder as `find_recordings` finds them, and how many other files have each ending."""

    def warn(error: OSError) -> None:
        notice(f"{error.filename}: it cannot be opened: {error.strerror}", "folders that cannot be opened")

    files: list[Path] = []
    others: Counter[str] = Counter()
    for parent, folders, names in os.walk(os.fspath(folder), onerror=warn):
        for name in names:
            if name.startswith(_RESOURCES):
                continue
            if _is_recording(Path(parent, name)):
                files.append(Path(parent, name))
            else:
                others[Path(name).suffix.lower()] += 1
        for name in folders:
            if Path(name).suffix.lower() in SUFFIXES:
                notice(f"{Path(parent, name)}: it is a folder, not a file", "folders with a name like a file's")
    return join_frames(file for file in files if file.is_file()), others


def is_foreign(suffix: str) -> bool:
    """Whether files with an ending are of a kind that is not read."""
    return BY_SUFFIX.get(suffix) in FOREIGN


def count_endings(counts: Mapping[str, int]) -> str:
    """How many files have each ending, in words: ``2 .fbx, 1 without an ending``."""
    return ", ".join(f"{count} {suffix or 'without an ending'}" for suffix, count in sorted(counts.items()))


def find_videos(folder: str | os.PathLike) -> list[Path]:
    """Paths of the videos in a folder and its subfolders, sorted."""
    found = (path for path in Path(folder).rglob("*") if is_video(path) and not path.name.startswith(_RESOURCES))
    return sorted(path for path in found if path.is_file())


def read_skeleton(path: str | os.PathLike, reading: Reading | None = None, **fields: Any) -> SkeletonSequence:
    """Read one recording.

    Args:
        path: An NTU RGB+D ``.skeleton`` file; a UAV-Human or PKU-MMD ``.txt`` file; a NumPy array in ``.npy`` or
            ``.npz`` (the only array in it, or the one called ``keypoints``); a pose estimator's ``.json`` (see
            `read_pose_json`; also plain lists of numbers, and ``NAME_*_keypoints.json`` for OpenPose's frames); or a
            ``.csv`` (see `read_csv`). Motion capture: ``.bvh``, ``.amc`` with its ``.asf`` beside it, ``.c3d``,
            ``.trc``, ``.mvnx``, and ``.npz`` of AMASS. ``.pose`` with the extra ``pose``.
        reading: What the file does not say.
        **fields: Fields of `Reading`, such as ``layout="coco17"``, in place of those of `reading`.

    Returns:
        The sequence, named after the file, in metres where it is 3D. An NTU file name gives label and subject; bodies
        are ordered by motion energy, most energetic first, as the release orders them.

    Raises:
        SkeletonFormatError: If the file is missing, unreadable, malformed, or holds several sequences; the message
            names the file and the line or array.
        ValueError: If a field is out of range.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import read_skeleton
        >>> np.save("walk.npy", np.random.rand(90, 17, 2))
        >>> read_skeleton("walk.npy", layout="coco17", fps=25).num_frames
        90
    """
    path = Path(path)
    sequences = iter_skeletons(path, replace(reading or Reading(), **fields))
    first = next(sequences)
    if next(sequences, None) is not None:
        raise SkeletonFormatError(f"{path}: it holds several sequences: read them with iter_skeletons")
    return first


def iter_skeletons(
    path: str | os.PathLike, reading: Reading = Reading(), *, on_error: OnError = None
) -> Iterator[SkeletonSequence]:
    """Yield every recording in a file: one, or all of a data set (``.npz`` or pyskl ``.pkl``).

    Args:
        path: See `read_skeleton`.
        reading: What the file does not say.
        on_error: Called with the error of a sequence of a data set, which is then left out; None raises it.

    Yields:
        The recordings, in the order of the file.

    Raises:
        SkeletonFormatError: See `read_skeleton`.
    """
    path = Path(path)

    def named(error: SkeletonFormatError) -> SkeletonFormatError:
        """The error with the whole path: a sequence knows its own name only."""
        text = str(error.args[0]) if error.args else str(error)
        return error if str(path) in text else type(error)(f"{path}: {text}")

    try:
        reader = _read_json if is_series(path) else _reader_of(path)
        for sequence in reader(path, reading, on_error and (lambda error: on_error(named(error)))):
            note_implausible(sequence, str(path))
            # Not by `replace`, which would check all its numbers again.
            object.__setattr__(sequence, "judged", True)
            yield sequence
    except SkeletonFormatError as error:
        raise named(error) from None
    except OSError as error:
        raise SkeletonFormatError(f"{path}: it cannot be read: {error.strerror or type(error).__name__}") from None


def choose_recording(path: Path, names: Sequence[str], name: str | None = None) -> int:
    """Index of the recording of a file with a name or number; of the only one where neither is given.

    Raises:
        SkeletonFormatError: If there are several and none is named, or none has the name.
    """
    if name is None:
        if len(names) == 1:
            return 0
        raise SkeletonFormatError(f"{path}: it holds {len(names)} recordings: choose one by name, such as {names[0]}")
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise SkeletonFormatError(f"{path}: none of its {len(names)} recordings is called '{name}', such as {names[0]}")


def _reader_of(path: Path) -> Reader:
    """The reader of a file that is there.

    Raises:
        SkeletonFormatError: If there is no such file, or no reader of its kind.
    """
    if path.is_dir():
        raise SkeletonFormatError(f"{path}: it is a folder: name a file in it")
    if not path.is_file():
        raise SkeletonFormatError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise SkeletonFormatError(f"{path}: the file is empty")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise SkeletonFormatError(
            f"{path}: it is a video: read_video estimates the poses of the people in it (extra 'video')"
        )
    kind = kind_of(path)
    if kind in FOREIGN:
        raise SkeletonFormatError(f"{path}: {FOREIGN[kind]}")
    if kind not in READERS:
        raise SkeletonFormatError(f"{path}: unknown kind of file, expected one of {', '.join(SUFFIXES)}")
    return READERS[kind]


def _read_npz(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    if amass.is_amass(path):
        yield from amass.read(path, reading, on_error)
        return
    if gcn_arrays.is_ctr_gcn(array_names(path)):
        yield from gcn_arrays.read_ctr_gcn(path, reading, on_error)
        return
    arrays = load_npz(path)
    if "offsets" in arrays:
        if reading.missing == "interpolate" and arrays.get("data", np.zeros(0)).dtype.kind == "f":
            arrays["data"] = without_nan(arrays["data"])
        data = SkeletonDataset.from_arrays(arrays, str(path), reading.layout)
        yield from (reading.complete(sequence, data.units) for sequence in data.iterate(on_error))
        return
    key = next((name for name in ("keypoints", "reconstruction", "positions_3d") if name in arrays), "")
    if not key and len(arrays) == 1:
        [key] = arrays
    if not key:
        if "imgname" in arrays:
            raise SkeletonFormatError(f"{path}: {FOREIGN['pictures']}")
        if not {"poses", "thetas", "smpl_thetas", "body_pose"}.isdisjoint(arrays):
            raise SkeletonFormatError(f"{path}: {FOREIGN['smpl']}")
        raise SkeletonFormatError(
            f"{path}: which of the arrays {', '.join(arrays)} is the skeleton? Call it 'keypoints', or add "
            "'offsets' for a data set"
        )
    if key in ("reconstruction", "positions_3d") and reading.layout is None and arrays[key].shape[-2:] == (17, 3):
        # VideoPose3D's, with Human3.6M's joints.
        found = replace(reading, layout="h36m17").sequence(arrays[key], str(path))
        up = reading.up or find_up(path, found.keypoints, get_layout("h36m17"), "z")
        yield replace(found, name=path.stem, up=up)
        return
    yield from _read_arrays(arrays[key], path, reading, on_error)


def _read_npy(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    yield from _read_arrays(load_npy(path), path, reading, on_error)


def _read_arrays(array: np.ndarray, path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    if gcn_arrays.is_agcn(array, reading):
        yield from gcn_arrays.read_agcn(path, array, reading, on_error)
        return
    # Errors name the whole path, the sequence only the file.
    found = mediapipe.read_array(array, str(path), reading)
    if found is None:
        array = _unflattened(array, path, reading)
        found = reading.guessed(array.shape, str(path)).sequence(array, str(path))
    yield put_upright(replace(found, name=path.stem), str(path))


def _unflattened(array: np.ndarray, path: Path, reading: Reading) -> np.ndarray:
    """An array; one with all numbers of a frame in a row becomes ``(T, V, C)``, or ``(T, 2, V, 3)`` of NTU RGB+D's."""
    if array.ndim != 2:
        return array
    width = array.shape[1]
    if width == 263:
        raise SkeletonFormatError(f"{path}: {FOREIGN['humanml3d']}")
    layout = get_layout(reading.layout or reading.default_layout)
    for persons in (1, 2):
        each, rest = divmod(width, persons * layout.num_joints)
        if rest == 0 and (each == 3 or (each == 2 and not layout.is_3d)):
            people = (persons,) if persons > 1 else ()
            return array.reshape(len(array), *people, layout.num_joints, each)
    fitting = [name for name, other in LAYOUTS.items() if width == 3 * other.num_joints]
    if fitting:
        raise SkeletonFormatError(
            f"{path}: shape {array.shape} may be {width // 3} joints x 3 numbers in a row: name the layout, such as "
            f"{', '.join(fitting[:6])}"
        )
    return array


def _read_bodies(path: Path, reading: Reading, _: OnError) -> Iterator[SkeletonSequence]:
    yield read_body_text(path, UAV if is_uav(path) else NTU, reading)


def _read_pkl(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    yield from read_pyskl(path, reading, on_error)[0]


def _read_json(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    for sequence in iter_pose_json(path, reading, on_error):
        yield put_upright(sequence, str(path))


def _read_csv(path: Path, reading: Reading, _: OnError) -> Iterator[SkeletonSequence]:
    yield put_upright(read_csv(path, reading), str(path))


def _read_numbers(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    for sequence in number_text.read(path, reading, on_error):
        yield put_upright(sequence, str(path))


# The reader of each kind of file, by what `kind_of` calls it. A reader yields sequences that `Reading.complete` has
# completed.
READERS: dict[str, Reader] = {
    "body text": _read_bodies,
    "npy": _read_npy,
    "npz": _read_npz,
    "pickle": _read_pkl,
    "json": _read_json,
    "table": _read_csv,
    "numbers": _read_numbers,
    "bvh": bvh.read,
    "amc": amc.read,
    "c3d": c3d.read,
    "trc": trc.read,
    "mvnx": mvnx.read,
    "pose-format": pose_files.read,
}
# Endings of files that are recordings where they lie in a folder. Any text may end in .txt: there its content decides.
SUFFIXES = (
    *(".skeleton", ".npy", ".npz", ".pkl", ".json", ".jsonl", ".csv", ".tsv"),
    *(".bvh", ".amc", ".c3d", ".trc", ".mvnx", ".pose"),
)


def _is_recording(file: Path) -> bool:
    """Whether a file in a folder is a recording: by its ending, or by its content where it is text."""
    if file.name.endswith("_label.pkl"):
        # The names and labels of an array beside it are read with it.
        start = file.name.removesuffix("label.pkl")
        return not any(name.startswith(start) and name.endswith(".npy") for name in os.listdir(file.parent))
    if file.suffix.lower() != ".txt":
        return file.suffix.lower() in SUFFIXES
    try:
        return is_recording_text(file)
    except OSError:
        return False
