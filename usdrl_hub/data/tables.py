"""Keypoints in a column of any table: nested lists, arrays of `datasets`, or a frame per row, as of LeRobot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from ..errors import notice, one_sentence, printable
from ..files import check_memory
from ..layouts import LayoutLike, get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .huggingface import PLAIN, from_huggingface
from .parquet import ParquetFile, class_names_in, features_in
from .sequence_list import SkeletonList

# The recording of a row that is one frame, and its time in seconds.
_EPISODE, _TIME = "episode_index", "timestamp"
# Rows decoded at once.
_ROWS = 64


def list_from_tables(
    parts: Sequence[tuple[str, ParquetFile]],
    where: str,
    *,
    keypoints: str = "keypoints",
    label: str = "label",
    layout: LayoutLike | None = None,
    fps: float | None = None,
) -> SkeletonList:
    """Read Parquet files with a column of keypoints into memory.

    Keypoints of a row are nested lists ``(frames, persons, joints, coordinates)``, ``(frames, joints, coordinates)``
    or ``(frames, joints * coordinates)``. Where they are ``(joints * coordinates,)``, a row is a frame, and the rows
    with the same `episode_index` are a recording.

    Args:
        parts: Split and file.
        where: What they are, for errors.
        keypoints: Column of the keypoints.
        label: Column of the classes: numbers, or names.
        layout: Joint layout of data without a column `layout`.
        fps: Frame rate of data without a column `fps`.

    Raises:
        SkeletonFormatError: If a file has no such column, or a row is no sequence.
    """
    sides = {side for side, _ in parts}
    if layout is not None:
        try:
            layout = get_layout(layout)
        except ValueError as error:
            raise SkeletonFormatError(f"{where}: {one_sentence(error)}") from None
    if "validation" in sides and "train" in sides:
        notice(f"{where}: the split validation is taken as training clips: name a split to leave it out", "validation")
    sequences: list[SkeletonSequence] = []
    texts: list[str | None] = []
    names: list[str] = []
    for side, file in parts:
        parquet = file.parquet()
        columns = parquet.schema_arrow.names
        if keypoints not in columns:
            raise SkeletonFormatError(
                f"{where}: there is no column '{printable(keypoints)}', but {printable(', '.join(columns))}: name "
                "that of the keypoints (--keypoints COLUMN, or ?keypoints=COLUMN in the address)"
            )
        if label != "label" and label not in columns:
            raise SkeletonFormatError(f"{where}: there is no column '{printable(label)}', but {', '.join(columns)}")
        _check_size(parquet, keypoints, where)
        names = names or class_names_in(features_in(parquet.schema_arrow), label)
        for number, row in enumerate(_recordings(parquet, keypoints, file.name)):
            row["keypoints"] = _shaped(row.pop(keypoints), layout or row.get("layout"), f"{where}: row {number}")
            texts.append(value if isinstance(value := row.get(label), str) else None)
            fields = _fields(row, label, f"{side}/{number}")
            if len(sides) > 1:
                fields.setdefault("split", "test" if side == "test" else "train")
            fields.setdefault("fps", fps)
            try:
                sequences += from_huggingface([fields], layout)
            except SkeletonFormatError as error:
                raise SkeletonFormatError(f"{where}: {error}") from None
    if any(text is not None for text in texts):
        names = sorted({text for text in texts if text is not None})
        known = {text: number for number, text in enumerate(names)}
        labels = [None if text is None else known[text] for text in texts]
        sequences = [replace(one, label=found) for one, found in zip(sequences, labels, strict=True)]
    return SkeletonList(sequences, names if any(one.label is not None for one in sequences) else ())


def _check_size(parquet: Any, keypoints: str, where: str) -> None:
    """Refuse more than fits in memory, before it is read."""
    groups = (parquet.metadata.row_group(number) for number in range(parquet.metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    held = sum(
        column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] == keypoints
    )
    check_memory(2 * held, f"{where}, whose keypoints have no known lengths", "name one split, or a part of its files")


def _recordings(parquet: Any, keypoints: str, where: str) -> Iterator[dict[str, Any]]:
    """Rows of recordings, with keypoints as arrays; rows that are frames are joined."""
    rows = _rows(parquet, keypoints, where)
    first = next(rows, None)
    if first is None:
        return
    if first[keypoints].ndim > 1:
        yield first
        yield from rows
        return
    if _EPISODE not in first:
        raise SkeletonFormatError(
            f"{where}: a row of '{keypoints}' is one frame, and no column '{_EPISODE}' says which frames are one "
            "recording"
        )
    for episode, found in groupby(_with(first, rows), key=lambda row: row[_EPISODE]):
        frames = list(found)
        if len({frame[keypoints].shape for frame in frames}) > 1:
            raise SkeletonFormatError(f"{where}: the frames of episode {episode} differ in size")
        row = {**frames[0], keypoints: np.stack([frame[keypoints] for frame in frames])}
        row.setdefault("name", f"episode {episode}")
        times = np.array([frame.get(_TIME, np.nan) for frame in frames], dtype=np.float64)
        if len(times) > 1 and row.get("fps") is None and (step := float(np.median(np.diff(times)))) > 0:
            row["fps"] = round(1 / step, 3)
        yield row


def _with(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest


def _rows(parquet: Any, keypoints: str, where: str) -> Iterator[dict[str, Any]]:
    number = 0
    columns = [name for name in parquet.schema_arrow.names if name in {*PLAIN, "layout", _EPISODE, _TIME, "events"}]
    columns += [name for name in parquet.schema_arrow.names if name not in columns and _is_plain(parquet, name)]
    for batch in parquet.iter_batches(_ROWS, columns=list(dict.fromkeys([*columns, keypoints]))):
        cells = batch.column(batch.schema.get_field_index(keypoints))
        cells = getattr(cells, "storage", cells)
        others = batch.drop_columns([keypoints]).to_pylist()
        for cell, other in zip(cells, others, strict=True):
            yield {**other, keypoints: _array(cell, f"{where}: row {number}: column '{keypoints}'")}
            number += 1


def _is_plain(parquet: Any, name: str) -> bool:
    """Whether a column holds numbers or text, such as that of the classes."""
    kind = str(parquet.schema_arrow.field(name).type)
    return kind in ("string", "large_string", "bool") or kind.startswith(("int", "uint"))


def _array(cell: Any, where: str) -> np.ndarray:
    """The numbers of nested lists, all of one length on each axis."""
    values = getattr(cell, "values", None)
    if values is None:
        raise SkeletonFormatError(f"{where} is {'null' if cell.as_py() is None else 'no list'}, not lists of numbers")
    shape = [len(values)]
    while hasattr(values, "value_lengths") or hasattr(values, "flatten") and "list" in str(values.type):
        lengths = np.asarray(values.value_lengths())
        if values.null_count or len(set(lengths.tolist())) != 1:
            raise SkeletonFormatError(f"{where}: its lists are not of one length")
        shape.append(int(lengths[0]))
        values = values.flatten()
    numbers = values.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind not in "iuf" or values.null_count or not numbers.size:
        raise SkeletonFormatError(f"{where}: it has no numbers, or some are null")
    return numbers.astype(np.float32).reshape(shape)


def _shaped(keypoints: np.ndarray, layout: Any, where: str) -> np.ndarray:
    """Keypoints ``(T, V * C)`` by joints of the layout; others as they are."""
    if keypoints.ndim in (3, 4):
        return keypoints
    if keypoints.ndim != 2:
        raise SkeletonFormatError(f"{where}: keypoints have {keypoints.ndim} axes, not 2 to 4")
    if layout is None:
        raise SkeletonFormatError(f"{where}: nothing says which joints these are: name the layout (--layout)")
    joints, width = get_layout(layout).num_joints, keypoints.shape[1]
    if width not in (2 * joints, 3 * joints):
        raise SkeletonFormatError(
            f"{where}: a frame has {width} numbers, but layout {get_layout(layout).name} has {joints} joints: they "
            f"would be {2 * joints} or {3 * joints}"
        )
    return keypoints.reshape(len(keypoints), joints, -1)


def _fields(row: dict[str, Any], label: str, name: str) -> dict[str, Any]:
    """The columns that are fields of a sequence, where they have their type: those of other data may have any."""
    fields = {key: row[key] for key in (*PLAIN, "keypoints", "layout", "image_shape") if row.get(key) is not None}
    fields["name"] = str(fields.get("name", name))
    fields.pop("label", None)
    value = row.get(label)
    if isinstance(value, int) and not isinstance(value, bool):
        fields["label"] = value
    for key in ("camera", "setup"):
        if not isinstance(fields.get(key, 0), int):
            del fields[key]
    if fields.get("split") not in ("train", "test"):
        fields.pop("split", None)
    return fields
