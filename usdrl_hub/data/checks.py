"""Checks that all data sets make: of files, of stores and of lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..layouts import get_layout
from ..sequence import SkeletonFormatError, SkeletonSequence
from .store_files import MOST_CLASSES, NONE


def check_frames(start: int, end: int, frames: int) -> None:
    """Refuse a range of frames that is empty or exceeds its sequence.

    Raises:
        IndexError: If it does.
    """
    if not 0 <= start < end <= frames:
        raise IndexError(f"frames {start} to {end} are not part of a sequence of {frames} frames")


def check_label(sequence: SkeletonSequence) -> None:
    """Refuse a sequence whose label, or the class of one of its events, is not a class index.

    Raises:
        SkeletonFormatError: If it is negative, or beyond `MOST_CLASSES`.
    """
    label = [] if sequence.label is None else [sequence.label]
    classes = [] if sequence.events is None else sequence.events[:, 0].tolist()
    for number in (*label, *classes):
        if isinstance(number, int | np.integer) and not NONE <= number < MOST_CLASSES:
            raise SkeletonFormatError(
                f"{sequence.name}: class {number} is not from 0 to {MOST_CLASSES - 1}: number the classes from 0"
            )


def check_sides(sides: Sequence[Any], where: str) -> None:
    """Refuse a split that some sequences are not part of (None).

    Raises:
        SkeletonFormatError: If there is one.
    """
    unknown = sum(side is None for side in sides)
    if 0 < unknown < len(sides):
        raise SkeletonFormatError(
            f"{where}: {unknown} of {len(sides)} sequences are on no side of the split: say of all or of none whether "
            "they train or test"
        )


def kind_of(sequence: SkeletonSequence) -> str:
    """The properties that all sequences of a store or a list share, as JSON."""
    layout = get_layout(sequence.layout)
    return json.dumps(
        {
            "layout": layout.to_config(),
            "joints": layout.num_joints,
            "channels": sequence.keypoints.shape[-1],
            "coordinates": sequence.coordinates,
            "units": sequence.units,
            "up": sequence.up or layout.up,
            "mirrored": sequence.mirrored,
        },
        sort_keys=True,
    )


def difference(sequence: SkeletonSequence, held: str) -> str:
    """In which property of `kind_of` a sequence differs from others, whose kind is `held`, and what to do.

    Where they are of one layout and still differ, every differing property is named.
    """
    mine, others = json.loads(kind_of(sequence)), json.loads(held)
    if (mine["layout"], mine["coordinates"]) != (others["layout"], others["coordinates"]):
        names = [
            f"layout '{kind['layout'] if isinstance(kind['layout'], str) else kind['layout'].get('name', 'custom')}' "
            f"({kind['joints']} joints, {kind['coordinates']})"
            for kind in (mine, others)
        ]
        return f"its {names[0]} is not that of the others, {names[1]}: convert all to one layout with --to-layout"
    differing = [
        f"its {key} is {mine[key]}, that of the others {others[key]}" for key in mine if mine[key] != others[key]
    ]
    return f"{'; '.join(differing)}: --to-layout turns all y up and to metres"
