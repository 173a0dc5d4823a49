"""Skeleton sequences as rows of Hugging Face `datasets`, and back; needs the extra ``usdrl-hub[datasets]``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..layouts import Layout, LayoutLike, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .interface import SkeletonData
from .sequence_list import SkeletonList

# Columns that are fields of a sequence, unchanged.
PLAIN = ("name", "label", "subject", "camera", "setup", "split", "fps", "units", "up", "coordinates", "mirrored")

# All columns that belong to the fields of a sequence.
_OWN = {*PLAIN, "keypoints", "image_shape", "events", "layout"}


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise ImportError("this needs Hugging Face datasets: pip install 'usdrl-hub[datasets]'") from None
    return datasets


def to_huggingface(data: SkeletonData, streaming: bool = False) -> Any:
    """Convert a data set or store to a Hugging Face data set with a row per sequence.

    Args:
        data: The data set; only one sequence at a time is in memory.
        streaming: Make an `IterableDataset`, which reads while it is iterated and writes nothing.

    Returns:
        A `datasets.Dataset` or `IterableDataset` with the columns `keypoints` ``(frames, persons, joints,
        coordinates)`` float32, zero for absent people; `label` (a `ClassLabel`; null where unknown); `name`,
        `subject`, `camera`, `setup`, `split`, `fps`, `units`, `up`, `coordinates`, `image_shape` (height and width),
        `events` (rows of class, start, end), and `layout` (JSON of its name, or of its joints and bones); also the
        data's further columns, such as `folds`.

    Raises:
        ImportError: If `datasets` is not installed.
    """
    datasets = _datasets()
    make = datasets.IterableDataset.from_generator if streaming else datasets.Dataset.from_generator
    features = features_of(data, data.max_persons)
    return make(_padded_rows, features=features, gen_kwargs={"data": data, "persons": data.max_persons})


def features_of(data: SkeletonData, persons: int, further: Mapping[str, str] | None = None) -> Any:
    """Types of the columns of a data set, as `datasets.Features`.

    Args:
        data: The data set.
        persons: People of every row, absent ones included.
        further: Types of further columns by name.

    Raises:
        ImportError: If `datasets` is not installed.
    """
    datasets = _datasets()
    layout = data.layout
    channels = 2 if layout.coordinates == "2d" else 3
    subjects = data.column("subjects")
    named = subjects is not None and subjects.dtype.kind not in "iuf"
    return datasets.Features(
        {
            "keypoints": datasets.Array4D((None, persons, layout.num_joints, channels), "float32"),
            "label": datasets.ClassLabel(names=data.class_names or ["unknown"]),
            **{key: datasets.Value("string") for key in ("name", "split", "units", "up", "coordinates", "layout")},
            "subject": datasets.Value("string" if named else "int64"),
            **{key: datasets.Value("int64") for key in ("camera", "setup")},
            "fps": datasets.Value("float64"),
            "mirrored": datasets.Value("bool"),
            "image_shape": datasets.List(datasets.Value("float64")),
            "events": datasets.List(datasets.List(datasets.Value("int64"))),
            **{key: datasets.Value(kind) for key, kind in (further or {}).items()},
            **{key: _feature(datasets, values) for key, values in data.extra_columns.items()},
        }
    )


def _feature(datasets: Any, values: np.ndarray) -> Any:
    """The type of an extra column; a row of one with two axes is a list."""
    value = datasets.Value({"b": "bool", "f": "float64"}.get(values.dtype.kind, "int64"))
    return value if values.ndim == 1 else datasets.List(value)


def rows_of(data: SkeletonData) -> Iterator[dict[str, Any]]:
    """A row for each sequence, whose keypoints have no absent people."""
    columns = {key: values.tolist() for key, values in data.extra_columns.items()}
    for number, sequence in enumerate(data):
        layout = get_layout(sequence.layout)
        yield {
            **{key: getattr(sequence, key) for key in PLAIN},
            "up": sequence.up or layout.up,
            "keypoints": sequence.keypoints,
            "layout": json.dumps(layout.to_config()),
            "image_shape": None if sequence.image_shape is None else list(sequence.image_shape),
            "events": None if sequence.events is None else sequence.events.tolist(),
            **{key: values[number] for key, values in columns.items()},
        }


def padded(keypoints: np.ndarray, persons: int) -> np.ndarray:
    """Keypoints ``(T, M, V, C)`` with absent people, zero, up to a number of persons."""
    return np.pad(keypoints, ((0, 0), (0, persons - keypoints.shape[1]), (0, 0), (0, 0)))


def _padded_rows(data: SkeletonData, persons: int) -> Iterator[dict[str, Any]]:
    for row in rows_of(data):
        yield row | {"keypoints": padded(row["keypoints"], persons)}


def from_huggingface(
    rows: Iterable[Mapping[str, Any]], layout: LayoutLike | None = None
) -> Iterator[SkeletonSequence]:
    """Yield the sequences of a Hugging Face data set, streaming or not; `write_store` makes a store of them.

    Args:
        rows: Rows with `keypoints` ``(frames, persons, joints, coordinates)``, or ``(frames, joints, coordinates)`` of
            one person, and any of the columns of `to_huggingface`; others are ignored.
        layout: Joint layout of rows without a column `layout`.

    Raises:
        SkeletonFormatError: If a row has no keypoints, or they are not those of its layout.
    """
    for number, row in enumerate(rows):
        where = str(row.get("name") or f"row {number}")
        if row.get("keypoints") is None:
            raise SkeletonFormatError(f"{where}: it has no column 'keypoints' but {', '.join(row)}")
        own = row.get("layout")
        if own is None and layout is None:
            raise SkeletonFormatError(f"{where}: no column 'layout' says which joints these are: name the layout")
        try:
            yield _sequence_of(row, where, get_layout(_layout(own) if own is not None else layout))  # type: ignore[arg-type]
        except SkeletonFormatError:
            raise
        except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            # Columns of other people's data have any type.
            raise SkeletonFormatError(f"{where}: its columns are not those of a sequence: {error}") from None


def _sequence_of(row: Mapping[str, Any], where: str, layout: Layout) -> SkeletonSequence:
    fields = {key: row[key] for key in PLAIN if row.get(key) is not None and key != "name"}
    # Many data sets mark an unknown class by -1.
    if fields.get("label", 0) < 0:
        del fields["label"]
    if row.get("image_shape") is not None:
        fields["image_shape"] = tuple(float(side) for side in row["image_shape"])
    if row.get("events") is not None:
        fields["events"] = np.asarray(row["events"], dtype=np.int64).reshape(-1, 3)
    keypoints = np.asarray(row["keypoints"], dtype=np.float32)
    axes = {3: "TVC", 4: "TMVC"}.get(keypoints.ndim)
    return _without_absent(SkeletonSequence.from_array(keypoints, layout, axes, name=where, **fields))


def list_from_huggingface(rows: Any, layout: LayoutLike | None = None) -> SkeletonList:
    """The sequences of a Hugging Face data set in memory, with its class names and its numeric extra columns.

    Args:
        rows: See `from_huggingface`.
        layout: Joint layout of rows without a column `layout`.

    Raises:
        SkeletonFormatError: See `from_huggingface`.
    """
    sequences: list[SkeletonSequence] = []
    columns: dict[str, list[Any]] = {}
    for row in rows:
        sequences += from_huggingface([row], layout)
        for key, value in row.items():
            if key not in _OWN and isinstance(value, int | float | list):
                columns.setdefault(key, []).append(value)
    label = (getattr(rows, "features", None) or {}).get("label")
    names = [] if all(sequence.label is None for sequence in sequences) else getattr(label, "names", [])
    whole = {key: values for key, values in columns.items() if len(values) == len(sequences)}
    return SkeletonList(sequences, names, whole)


def _layout(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _without_absent(sequence: SkeletonSequence) -> SkeletonSequence:
    """The sequence without the people after the last one that is seen."""
    seen = np.flatnonzero(sequence.keypoints.any((0, 2, 3)))
    keypoints = sequence.keypoints[:, : seen[-1] + 1]
    return SkeletonSequence(**{**vars(sequence), "keypoints": keypoints})
