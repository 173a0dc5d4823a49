"""Writer of recordings in forms that `read_skeleton` reads back equal: ``.npz``, ``.json``, ``.csv`` and ``.npy``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError
from ..files import new_file
from ..layouts import Layout, LayoutLike, get_layout, seen_joints
from ..sequence import METRES, MOST_PERSONS, SkeletonFormatError, SkeletonSequence
from .checks import check_sides, kind_of
from .npz import SHARED_FIELDS
from .reading import Reading

WRITABLE = (".npz", ".json", ".csv", ".npy")
# Arrays of a data set by the fields of its sequences; -1 is unknown.
_MARKS = {"labels": "label", "cameras": "camera", "setups": "setup"}


def write_skeleton(
    recording: SkeletonSequence | Sequence[SkeletonSequence], path: str | os.PathLike, *, overwrite: bool = False
) -> Reading:
    """Write a recording, or several into one ``.npz`` file.

    ``.npz`` (the form of `SkeletonDataset`) and ``.json`` hold everything that a `SkeletonSequence` has. ``.csv`` (a
    row per frame and person; an empty cell is an unseen joint) holds joints by name and people, ``.npy`` only the
    numbers: in these, 3D keypoints are in metres and not mirrored, and the `Reading` that is returned supplies the
    rest.

    Args:
        recording: The recording; several of one layout, unit and kind of coordinates.
        path: File to write, by its ending.
        overwrite: Replace a file that exists.

    Returns:
        What the file does not say: ``read_skeleton(path, reading)`` equals the recording.

    Raises:
        OutputError: If the file exists and is not to be replaced, or cannot be written.
        SkeletonFormatError: If the form cannot hold the recording, or several differ; the message names another form.
        ValueError: If the ending is another.

    Example:
        >>> import numpy as np
        >>> from usdrl_hub import SkeletonSequence, read_skeleton, write_skeleton
        >>> walk = SkeletonSequence(np.random.rand(90, 1, 17, 2), "coco17", fps=25)
        >>> read_skeleton("walk.csv", write_skeleton(walk, "walk.csv", overwrite=True)).fps
        25
    """
    path = Path(path)
    check_output(path, overwrite)
    sequences = [recording] if isinstance(recording, SkeletonSequence) else list(recording)
    if not sequences:
        raise SkeletonFormatError(f"{path}: there is no recording to write")
    if path.suffix.lower() != ".npz" and len(sequences) > 1:
        raise SkeletonFormatError(
            f"{path}: {len(sequences)} recordings fit into one .npz file only: name it so, or choose one by name"
        )
    if path.suffix.lower() == ".npz":
        return _write_npz(sequences, path)
    write = {".json": _write_json, ".csv": _write_csv, ".npy": _write_npy}[path.suffix.lower()]
    return write(sequences[0], path)


def check_output(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuse a file that `write_skeleton` would, before anything is read.

    Raises:
        OutputError: If it exists and is not to be replaced.
        ValueError: If its ending is none of `WRITABLE`.
    """
    if Path(path).suffix.lower() not in WRITABLE:
        raise ValueError(f"{path}: a recording is written as {', '.join(WRITABLE)}, so name the file accordingly")
    if not overwrite and os.path.lexists(path):
        raise OutputError(f"{path}: it exists already: name another file, or allow to overwrite it (--overwrite)")


def in_layout(sequence: SkeletonSequence, target: LayoutLike) -> SkeletonSequence:
    """A recording in another layout, upright and in metres where it is 3D; unseen joints stay unseen.

    Raises:
        SkeletonFormatError: If the layouts cannot be converted, or one is of 2D and the other of 3D keypoints.
    """
    target = get_layout(target)
    if sequence.is_3d != target.is_3d:
        has, wanted = ("3D", "2D") if sequence.is_3d else ("2D", "3D")
        why = (
            "a camera, which no file has, would say where its joints lie in an image"
            if sequence.is_3d
            else ("keypoints in an image have no depth")
        )
        raise SkeletonFormatError(
            f"{sequence.name}: it is {has}, but layout '{target.name}' is of {wanted} keypoints: {why}; name a layout "
            f"of {has} keypoints"
        )
    try:
        return sequence.to_layout(target)
    except ValueError as error:
        raise SkeletonFormatError(f"{sequence.name}: {error}") from None


def _write_npz(sequences: Sequence[SkeletonSequence], path: Path) -> Reading:
    """Write a data set, see `SkeletonDataset`."""
    first = sequences[0]
    for other in sequences[1:]:
        if kind_of(other) != kind_of(first):
            raise SkeletonFormatError(
                f"{path}: recordings '{first.name}' and '{other.name}' differ in layout, axes or kind of coordinates: "
                "convert them to one layout"
            )
    people = max(sequence.num_persons for sequence in sequences)
    padded = [
        np.pad(sequence.keypoints, ((0, 0), (0, people - sequence.num_persons), (0, 0), (0, 0)))
        for sequence in sequences
    ]
    lengths = [len(frames) for frames in padded]
    arrays: dict[str, Any] = {"data": np.concatenate(padded), "offsets": np.cumsum([0, *lengths])}
    arrays["layout"] = np.array(_layout_text(get_layout(first.layout)))
    arrays["names"] = np.array([sequence.name for sequence in sequences])
    for key in SHARED_FIELDS:
        if getattr(first, key) is not None:
            arrays[key] = np.array(getattr(first, key))
    for key, name in _MARKS.items():
        values = [getattr(sequence, name) for sequence in sequences]
        if any(value is not None for value in values):
            arrays[key] = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    arrays |= _optional_arrays(sequences, path)
    with new_file(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)
    return Reading()


def _optional_arrays(sequences: Sequence[SkeletonSequence], path: Path) -> dict[str, np.ndarray]:
    """Arrays of what only some recordings say: rate, image, subject, split and events."""
    arrays: dict[str, np.ndarray] = {}
    if any(sequence.fps is not None for sequence in sequences):
        arrays["fps"] = np.array([math.nan if one.fps is None else one.fps for one in sequences])
        arrays["fps"] = arrays["fps"][0] if len(sequences) == 1 else arrays["fps"]
    if any(sequence.image_shape is not None for sequence in sequences):
        shapes = [one.image_shape or (math.nan, math.nan) for one in sequences]
        arrays["image_shape"] = np.array(shapes if len(sequences) > 1 else shapes[0])
    people = [sequence.subject for sequence in sequences]
    if any(person is not None for person in people):
        numbered = all(person is None or isinstance(person, int | np.integer) for person in people)
        unknown = -1 if numbered else ""
        arrays["subjects"] = np.array([unknown if person is None else person for person in people])
        if not numbered:
            arrays["subjects"] = arrays["subjects"].astype(str)
    sides = [None if sequence.split is None else sequence.split == "test" for sequence in sequences]
    check_sides(sides, str(path))
    if None not in sides:
        arrays["split_test"] = np.array(sides)
    if any(sequence.events is not None for sequence in sequences):
        rows = [
            (number, start, end, label)
            for number, sequence in enumerate(sequences)
            for label, start, end in ([] if sequence.events is None else sequence.events.tolist())
        ]
        arrays["events"] = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return arrays


def _layout_text(layout: Layout) -> str:
    """The name of a layout, or its description as JSON."""
    config = layout.to_config()
    return config if isinstance(config, str) else json.dumps(config)


def _write_json(sequence: SkeletonSequence, path: Path) -> Reading:
    """Write ``{"keypoints": [frames][people][joints][coordinates], "layout": ..., "fps": ...}``."""
    content: dict[str, Any] = {"layout": get_layout(sequence.layout).to_config(), "axes": "TMVC"}
    fields = ("name", "fps", "up", "units", "coordinates", "mirrored", "label", "subject", "camera", "setup", "split")
    for name in fields:
        value = getattr(sequence, name)
        if value not in (None, False, ""):
            content[name] = value.item() if isinstance(value, np.generic) else value
    if sequence.image_shape is not None:
        content["image_shape"] = [float(length) for length in sequence.image_shape]
    if sequence.events is not None:
        content["events"] = sequence.events.tolist()
    content["keypoints"] = _short(sequence.keypoints).tolist()
    with new_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file)
    return Reading()


def _short(values: np.ndarray) -> np.ndarray:
    """Float32 numbers as the float64 numbers with the fewest decimals that are the same in float32."""
    return values.astype(str).astype(np.float64)


def _write_csv(sequence: SkeletonSequence, path: Path) -> Reading:
    """Write a row per frame and person, one person after the other, who must be seen in a frame."""
    sequence = _plain(sequence)
    layout = _registered(sequence, path, "a table")
    axes = {"3d": "xyz", "2d": "xy", "2d+score": ("x", "y", "score")}[str(sequence.coordinates)]
    people = np.flatnonzero(seen_joints(sequence.keypoints).any((0, 2)))
    if len(people) > MOST_PERSONS:
        raise SkeletonFormatError(
            f"{path}: of {len(people)} people a table is read back with {MOST_PERSONS}: write .npz or .json"
        )
    with new_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        names = [f"{joint}_{axis}" for joint in layout.joint_names for axis in axes]
        file.write(",".join(["frame", "person", *names]) + "\n")
        for number, person in enumerate(people):
            file.writelines(_csv_rows(sequence.keypoints[:, person], number))
    return _rest(sequence, Reading(layout=layout.name))


def _csv_rows(keypoints: np.ndarray, person: int) -> Iterator[str]:
    """Rows of one person ``(T, V, C)``."""
    cells = np.where(seen_joints(keypoints)[..., None], keypoints.astype(str), "").reshape(len(keypoints), -1)
    for frame, row in enumerate(cells.tolist()):
        yield f"{frame},{person},{','.join(row)}\n"


def _write_npy(sequence: SkeletonSequence, path: Path) -> Reading:
    sequence = _plain(sequence)
    layout = _registered(sequence, path, "an array")
    expected = "2d" if sequence.keypoints.shape[-1] == 2 else "3d" if layout.is_3d else "2d+score"
    if sequence.coordinates != expected:
        raise SkeletonFormatError(
            f"{path}: an array does not say that its keypoints are {sequence.coordinates}, as they usually are not in "
            f"layout '{layout.name}': write .npz, .json or .csv"
        )
    array = sequence.keypoints[:, 0] if sequence.num_persons == 1 else sequence.keypoints
    with new_file(path) as partial, open(partial, "wb") as file:
        np.save(file, array)
    return _rest(sequence, Reading(layout=layout.name, axes=None if sequence.num_persons == 1 else "TMVC"))


def _registered(sequence: SkeletonSequence, path: Path, form: str) -> Layout:
    """The layout of a recording whose file does not describe it."""
    layout = get_layout(sequence.layout)
    if layout.to_config() != layout.name:
        raise SkeletonFormatError(
            f"{path}: layout '{layout.name}' is of this recording only, and {form} does not describe it: write .npz "
            "or .json, or convert to a layout with a name (--to-layout)"
        )
    return layout


def _plain(sequence: SkeletonSequence) -> SkeletonSequence:
    """A recording with 3D keypoints in metres and not mirrored."""
    if not sequence.is_3d or (sequence.units == "m" and not sequence.mirrored):
        return sequence
    keypoints = sequence.keypoints * np.float32(METRES[sequence.units])
    keypoints[..., 0] *= -1 if sequence.mirrored else 1
    return replace(sequence, keypoints=keypoints, units="m", mirrored=False)


def _rest(sequence: SkeletonSequence, reading: Reading) -> Reading:
    """What a form without a place for it does not say of a recording."""
    return replace(reading, fps=sequence.fps, up=sequence.up, image_shape=sequence.image_shape)
