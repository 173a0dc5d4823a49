"""Reader of pyskl's and MMAction2's pickles, which hold a whole data set with its splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..sequence import SkeletonFormatError, SkeletonSequence
from .detections import choose_layout
from .pickles import load_numpy_pickle
from .reading import Reading

# Characters of the longest name of a recording.
_LONGEST_NAME = 1000


def read_pyskl(
    path: str | os.PathLike,
    reading: Reading = Reading(),
    on_error: Callable[[SkeletonFormatError], None] | None = None,
) -> tuple[Iterator[SkeletonSequence], dict[str, list[str]]]:
    """Read a pyskl or MMAction2 pickle: 2D keypoints in pixels, or 3D ones, in metres and y up unless `reading` says.

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
    # Annotations may refer to the same array many times.
    if sum(array.nbytes for array in keypoints if isinstance(array, np.ndarray)) > 8 * path.stat().st_size + 1_000_000:
        raise SkeletonFormatError(f"{path}: it is refused: its annotations repeat the same keypoints")

    def sequences() -> Iterator[SkeletonSequence]:
        for number, entry in enumerate(content["annotations"]):
            try:
                yield reading.complete(_pyskl_sequence(path, number, entry, reading))
            except SkeletonFormatError as error:
                if on_error is None:
                    raise
                on_error(error)

    return sequences(), named


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
        raise SkeletonFormatError(f"{where}: 'label' is no number of a class")
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
