"""Reader of pyskl's and MMAction2's pickles, which hold a whole data set with its splits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..sequence import SkeletonFormatError, SkeletonSequence
from .detections import choose_layout
from .formats.foreign import FOREIGN
from .formats.gcn_arrays import labels_in
from .pickles import load_numpy_pickle
from .reading import Reading

# Characters of the longest name of a recording.
_LONGEST_NAME = 1000
# What GLAMR, ROMP and others write of people, by name.
_SMPL = {"person_data", "smpl_pose", "smpl_thetas", "poses", "smpl_betas", "betas", "thetas", "body_pose", "pred_pose"}


def read_pyskl(
    path: str | os.PathLike,
    reading: Reading = Reading(),
    on_error: Callable[[SkeletonFormatError], None] | None = None,
) -> tuple[Iterator[SkeletonSequence], dict[str, list[str]]]:
    """Read a pyskl or MMAction2 pickle, of a data set or of its annotations alone.

    Keypoints are 2D, in pixels, or 3D, in metres and y up unless `reading` says.
    Keypoints ``(M, T, V, 3)`` without ``keypoint_score`` are 3D, as those of NTU RGB+D's sensor; others are 2D.

    Args:
        path: The file.
        reading: What the file does not say.
        on_error: Called with the error of an annotation, which is then left out; None raises it.

    Returns:
        The sequences, one by one, and the data set's splits: name -> names of sequences.

    Raises:
        SkeletonFormatError: If the file is not such a pickle, or an annotation is malformed; the message names file
            and annotation.
    """
    path = Path(path)
    content = load_numpy_pickle(path)
    if labels_in(content) is not None:
        raise SkeletonFormatError(f"{path}: {FOREIGN['labels']}")
    if isinstance(content, dict) and not {"annotations", "keypoint"} & set(content) and _SMPL & set(content):
        raise SkeletonFormatError(f"{path}: {FOREIGN['smpl']}")
    # MMAction2 0.x has a list of annotations; a pickle of one is a recording.
    if isinstance(content, dict) and "keypoint" in content:
        content = [content]
    if isinstance(content, list) and any(isinstance(entry, dict) and "keypoint" in entry for entry in content):
        content = {"annotations": content}
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise SkeletonFormatError(f"{path}: it has no list 'annotations', and no annotation with a 'keypoint'")
    splits = content.get("split", {})
    if not isinstance(splits, dict) or not all(isinstance(names, list | tuple) for names in splits.values()):
        raise SkeletonFormatError(f"{path}: 'split' is not lists of names")
    named = {
        _text(f"{path}, 'split'", split): [_text(f"{path}, 'split'", name) for name in names]
        for split, names in splits.items()
    }
    keypoints = [entry.get("keypoint") for entry in content["annotations"] if isinstance(entry, dict)]
    # Annotations may refer to the same array many times.
    if sum(array.nbytes for array in keypoints if isinstance(array, np.ndarray)) > 8 * path.stat().st_size + 1_000_000:
        raise SkeletonFormatError(f"{path}: it is refused: its annotations repeat the same keypoints")

    sides = _only_split(named)

    def sequences() -> Iterator[SkeletonSequence]:
        for number, entry in enumerate(content["annotations"]):
            try:
                found = reading.complete(_pyskl_sequence(path, number, entry, reading))
                yield replace(found, split=sides.get(found.name))
            except SkeletonFormatError as error:
                if on_error is None:
                    raise
                on_error(error)

    return sequences(), named


def _only_split(splits: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Side of each name, where a file has lists of one split alone."""
    if len(splits) != 2:
        return {}
    sides = {"train": "train", "val": "test", "test": "test"}
    of_list = {name: sides.get(re.split(r"[_\d]", name.lower().rstrip("0123456789"))[-1]) for name in splits}
    if sorted(side or "" for side in of_list.values()) != ["test", "train"]:
        return {}
    found: dict[str, str] = {}
    for name, side in of_list.items():
        for member in splits[name]:
            if found.setdefault(member, side or "") != side:
                return {}
    return found


def _text(where: str, name: Any) -> str:
    """A name, which a file may have as text or as a number."""
    if isinstance(name, int | float) or (isinstance(name, str) and len(name) <= _LONGEST_NAME):
        return str(name)
    raise SkeletonFormatError(f"{where}: a name is not a text of at most {_LONGEST_NAME} characters")


def _pyskl_sequence(path: Path, number: int, entry: Any, reading: Reading) -> SkeletonSequence:
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
    chosen = choose_layout(where, keypoint.shape[2], reading, is_3d)
    shape = entry.get("img_shape")
    shape = entry.get("original_shape") if shape is None else shape
    label = entry.get("label")
    try:
        # An array, a tuple or a list; a third number counts the colours.
        image_shape = None if is_3d or shape is None else (float(shape[0]), float(shape[1]))
        label = None if label is None else int(label)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise SkeletonFormatError(f"{where}: 'img_shape' or 'label' is not a number") from None
    if label is not None and label >= 1 << 31:
        raise SkeletonFormatError(f"{where}: 'label' is not a class number")
    name = entry.get("frame_dir")
    fields: dict[str, Any] = {"coordinates": "3d", "up": reading.up or "y"} if is_3d else {"image_shape": image_shape}
    return SkeletonSequence.from_array(
        # A copy, because the file's memory is read-only.
        np.array(keypoint),
        chosen,
        "MTVC",
        name=str(number) if name is None else _text(where, name),
        label=None if label is None or label < 0 else label,
        **fields,
    )
