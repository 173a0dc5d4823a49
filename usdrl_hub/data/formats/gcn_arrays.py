"""Data sets of graph networks: 2s-AGCN's and ST-GCN's ``.npy`` with labels beside it, CTR-GCN's ``.npz``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EmptySequenceError
from ...layouts import Layout, get_layout
from ...sequence import MOST_PERSONS, SkeletonFormatError, SkeletonSequence
from ..arrays import load_npz
from ..pickles import load_numpy_pickle
from ..reading import OnError, Reading
from ..text import NTU
from .bodies import find_up
from .sniffing import array_names

# Layouts by their number of joints.
_LAYOUTS = {25: "ntu25", 18: "openpose18", 20: "kinect20", 17: "coco17"}
_CTR_PEOPLE, _CTR_JOINTS = 2, 25
# All is moved by a ten-thousandth of a millimetre: these arrays have a joint at the origin, where it would be unseen.
_OFF_ORIGIN = 1e-7
# Recordings that are looked at to find the axis that points up.
_FEW = 20


def is_agcn(array: np.ndarray, reading: Reading) -> bool:
    """Whether an array is a data set ``(N, C, T, V, M)``."""
    if array.ndim != 5 or array.dtype.kind not in "fiu":
        return False
    if array.shape[1] not in (2, 3) or not 0 < array.shape[4] <= MOST_PERSONS:
        return False
    return layout_of_joints(array.shape[3], reading) is not None


def layout_of_joints(joints: int, reading: Reading) -> Layout | None:
    """The layout of an array's joints; None where none has so many, or the one given has not."""
    chosen = reading.layout or _LAYOUTS.get(joints)
    layout = None if chosen is None else get_layout(chosen)
    return layout if layout is not None and layout.num_joints == joints else None


def read_agcn(path: Path, array: np.ndarray, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Yield the recordings of an array ``(N, C, T, V, M)``; frames of zeros at the end are padding.

    Names and labels are those of the pickle beside it: ``train_label.pkl`` of ``train_data_joint.npy``. Which axis
    points up is seen by the bodies, since 2s-AGCN turns the spine of NTU RGB+D onto z.

    Args:
        path: The file.
        array: What is in it.
        reading: What it does not say.
        on_error: Called with the error of a recording, which is then left out; None raises it.

    Raises:
        SkeletonFormatError: If the labels are not those of the array.
    """
    names, labels = _labels_of(path, len(array))
    side = re.match(r"(train|val|test)", path.stem, re.IGNORECASE)
    split = None if side is None else ("train" if side[1].lower() == "train" else "test")
    layout = layout_of_joints(array.shape[3], reading)
    if layout is None:
        raise SkeletonFormatError(f"{path}: no layout of such arrays has {array.shape[3]} joints: name the layout")
    recordings = (np.asarray(array[number]).transpose(1, 3, 2, 0) for number in range(len(array)))
    first = np.asarray(array[:_FEW]).transpose(0, 2, 4, 3, 1)
    fields = _fields(path, first, layout, reading, split)
    for number, keypoints in enumerate(recordings):
        name = names[number] if names is not None else f"{path.stem}_{number}"
        yield from _completed(
            keypoints, layout, name, None if labels is None else labels[number], fields, reading, on_error
        )


def _labels_of(path: Path, count: int) -> tuple[Sequence[str] | None, Sequence[int] | None]:
    """Names and labels of the recordings, where a pickle of them lies beside the array."""
    stem = re.sub(r"_(?:data|joint|bone).*$", "", path.stem)
    file = path.with_name(f"{stem}_label.pkl")
    if stem == path.stem or not file.is_file():
        return None, None
    content = load_numpy_pickle(file)
    names, labels = labels_in(content) or (None, None)
    if labels is None or len(labels) != count or (names is not None and len(names) != count):
        raise SkeletonFormatError(f"{file}: it is not names and labels of the {count} recordings of '{path.name}'")
    return names, labels


def labels_in(content: Any) -> tuple[Sequence[str], Sequence[int]] | None:
    """Names and labels in what a pickle of them holds; None where it holds something else."""
    if not isinstance(content, list | tuple) or len(content) < 2:
        return None
    names, labels = (part.tolist() if isinstance(part, np.ndarray) else part for part in content[:2])
    is_named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not is_named or not isinstance(labels, list | tuple) or len(names) != len(labels):
        return None
    whole = all(isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 1 << 31 for label in labels)
    return (names, labels) if whole else None


def is_ctr_gcn(names: Collection[str]) -> bool:
    """Whether the names of an archive's arrays are those of CTR-GCN."""
    return "x_train" in names or "x_test" in names


def read_ctr_gcn(path: Path, reading: Reading, on_error: OnError) -> Iterator[SkeletonSequence]:
    """Yield the recordings of ``x_train`` and ``x_test`` ``(N, T, 150)``: two people, one-hot classes in ``y_...``.

    Args:
        path: The file.
        reading: What it does not say.
        on_error: Called with the error of a recording, which is then left out; None raises it.

    Raises:
        SkeletonFormatError: If an array has another shape.
    """
    for side in ("train", "test"):
        if f"x_{side}" not in array_names(path):
            continue
        # One side at a time, for the sake of memory.
        arrays = load_npz(path, {f"x_{side}", f"y_{side}"})
        array, classes = arrays[f"x_{side}"], arrays.get(f"y_{side}")
        size = _CTR_PEOPLE * _CTR_JOINTS * 3
        if array.ndim != 3 or array.shape[2] != size or array.dtype.kind not in "fiu":
            raise SkeletonFormatError(f"{path}: 'x_{side}' is not numbers (recordings, frames, {size})")
        labels = None
        if classes is not None:
            fits = classes.ndim in (1, 2) and len(classes) == len(array) and 0 not in classes.shape
            if not fits or classes.dtype.kind not in "fiub":
                raise SkeletonFormatError(f"{path}: 'y_{side}' is not a class for each of {len(array)} recordings")
            labels = (classes.argmax(1) if classes.ndim == 2 else classes).tolist()
        bodies = array.reshape(*array.shape[:2], _CTR_PEOPLE, _CTR_JOINTS, 3)
        layout = get_layout("ntu25")
        fields = _fields(path, bodies[:_FEW], layout, reading, side)
        for number, keypoints in enumerate(bodies):
            label = None if labels is None else labels[number]
            yield from _completed(keypoints, layout, f"{side}_{number}", label, fields, reading, on_error)


def _fields(path: Path, first: np.ndarray, layout: Layout, reading: Reading, split: str | None) -> dict[str, Any]:
    """What the recordings of a side, of which `first` are the first few ``(N, T, M, V, C)``, have in common."""
    fields: dict[str, Any] = {"split": split}
    if layout.is_3d and first.shape[-1] == 3:
        # Numbers that are none are told with their recording.
        bodies = np.nan_to_num(first.reshape(-1, *first.shape[2:]), posinf=0, neginf=0)
        fields |= {"coordinates": "3d", "up": reading.up or find_up(path, bodies, layout, "y")}
    return fields


def _completed(
    keypoints: np.ndarray,
    layout: Layout,
    name: str,
    label: Any,
    fields: Mapping[str, Any],
    reading: Reading,
    on_error: OnError,
) -> Iterator[SkeletonSequence]:
    """Yield one recording ``(T, M, V, C)``; nothing where `on_error` is told of its error."""
    try:
        yield reading.complete(_one(keypoints, layout, name.removesuffix(".skeleton"), label, fields))
    except SkeletonFormatError as error:
        if on_error is None:
            raise
        on_error(error)


def _one(keypoints: np.ndarray, layout: Layout, name: str, label: Any, fields: Mapping[str, Any]) -> SkeletonSequence:
    """One recording without frames of zeros at its end and people of zeros."""
    seen: np.ndarray = (keypoints != 0).any((2, 3))
    if not seen.any():
        raise EmptySequenceError(f"{name}: every number is zero: no person is visible")
    length, people = int(np.flatnonzero(seen.any(1))[-1]) + 1, np.flatnonzero(seen.any(0))
    kept = np.array(keypoints[:length, people], dtype=np.float32)
    if "up" in fields:
        kept += np.float32(_OFF_ORIGIN) * seen[:length, people, None, None]
    match = NTU.name.search(name)
    found: dict[str, Any] = {key: int(value) for key, value in (match.groupdict() if match else {}).items()}
    action = found.pop("action", None)
    if label is None and action is not None:
        label = action - NTU.first_action
    is_class = isinstance(label, int | float) and 0 <= label < 1 << 31
    found |= {"name": name, "label": int(label) if is_class else None, **fields}
    return SkeletonSequence(kept, layout, **found)
