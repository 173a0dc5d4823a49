"""Licences of models that were made from others: they allow no more than those of the encoder and the data."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.parquet import ParquetStore
from ..facts.checkpoints import find_checkpoint
from ..facts.datasets import DATASETS
from ..loading import find_file
from ..lookup import ModelAddress, model_address
from ..visualize.page import shown_name

UNKNOWN = "unknown"
# The hub's word for what is in none of its lists: here, for research only.
RESEARCH = "other"
_FREE = re.compile(r"(apache|mit|bsd|cc0|pddl|cc-by-[0-9]|unlicense|isc|odc-by|cdla-permissive)")
_NOT_COMMERCIAL = re.compile(r"(^|-)(nc|research|noncommercial)(-|$)")


def data_license(dataset: Any) -> str:
    """Licence of a data set, by its card on the hub, its name, or that of its file; "unknown" where none is known."""
    if isinstance(dataset, ParquetStore) and dataset.license:
        return dataset.license
    facts = DATASETS.get(Path(str(dataset)).stem)
    return UNKNOWN if facts is None else facts.license


def model_licenses(model: str | os.PathLike | None) -> dict[str, str]:
    """Licences of what a model was made from, by name: its own, or those that its ``metrics.json`` names.

    Args:
        model: A checkpoint's name or folder; nothing comes of None, random weights.
    """
    if model is None:
        return {}
    folder, name = Path(model), shown_name(model)
    entry = find_checkpoint(name if model_address(model) else str(model))
    if entry is not None:
        return {entry.name: entry.license}
    try:
        record = json.loads((folder / "metrics.json").read_text("utf-8"))
    except (OSError, ValueError):
        record = {}
    if isinstance(record, dict) and isinstance(record.get("licenses"), dict):
        return {str(key): str(value) for key, value in record["licenses"].items()}
    head = _card(model).split("\n---", 1)[0]
    found = re.search(r"^license: *[\"']?([A-Za-z0-9.-]+)", head, re.MULTILINE)
    return {name: found[1].lower() if found else UNKNOWN}


def _card(model: str | os.PathLike) -> str:
    """The card of a model in a folder or on the hub; empty where there is none, or the hub is not reachable."""
    try:
        if Path(model).is_dir():
            return (Path(model) / "README.md").read_text("utf-8")
        address = model_address(model) or ModelAddress(str(model))
        return find_file(str(address._replace(file="README.md"))).read_text("utf-8")
    except (OSError, ValueError):
        return ""


def license_of(sources: Mapping[str, str], wanted: str | None = None) -> str:
    """The licence of a model.

    Args:
        sources: Licences of its encoder and data, in the hub's spelling, by name; "unknown" where one is not known.
        wanted: The licence that its owner names; what follows from the sources where None.

    Returns:
        A licence in the hub's spelling; "unknown" where it does not follow.

    Raises:
        ValueError: If the one named is no licence of the hub's spelling, or allows more than a source does.
    """
    if wanted is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", wanted):
        raise ValueError(f"'{wanted}' is no licence in the hub's spelling, such as apache-2.0 or cc-by-nc-4.0")
    bound = {name: value for name, value in sources.items() if value != UNKNOWN and not _FREE.match(value)}
    if wanted is not None:
        for name, value in bound.items():
            closed = value == RESEARCH or _NOT_COMMERCIAL.search(value) is not None
            also_closed = wanted == RESEARCH or _NOT_COMMERCIAL.search(wanted) is not None
            if wanted != value and not (closed and also_closed):
                raise ValueError(
                    f"the model was made from {name}, whose licence is "
                    f"{'for research only' if value == RESEARCH else value}: {wanted} would allow more than that"
                )
        return wanted
    kinds = set(bound.values())
    if len(kinds) == 1:
        return kinds.pop()
    if kinds:
        return RESEARCH
    if not sources or UNKNOWN in sources.values():
        return UNKNOWN
    return next(iter(sources.values()))
