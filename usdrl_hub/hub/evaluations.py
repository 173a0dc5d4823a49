"""Benchmarks and results as the Hugging Face Hub has them: ``eval.yaml`` of a data set, ``.eval_results`` of a model.

The formats are those of https://huggingface.co/docs/hub/eval-results. A data set that `usdrl push --dataset` published
with a labelled test split is such a benchmark; a model scored on that split has results on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

from ..data.interface import SkeletonData
from ..data.remote import HubAddress
from ..files import new_file
from ..records import write_metrics
from ..sequence import SkeletonFormatError
from .upload import PublishError

BENCHMARK = "eval.yaml"
RESULTS = ".eval_results"
# A leaderboard each, by the names in ``metrics.json``.
TASKS = {
    "accuracy": "share of the clips whose class is recognised",
    "balanced_accuracy": "mean recall of the classes",
    "macro_f1": "mean F1 of the classes",
}
# Records of these tasks of ``metrics.json`` score a recogniser of all classes.
_RECOGNITION = {"linear recognition", "fine-tuned recognition", "linear", "finetuned", "semi", "transfer"}
_REPORT = "report of a recogniser"
# The rules of a split in records, see `data.protocols.default_split` and `tasks.report.report_model`.
_OWN, _ALL = "the file's split_test", "all clips test"


def benchmark_of(data: SkeletonData, repo_id: str) -> str | None:
    """Content of a data set's ``eval.yaml``; None where it has no test split with classes.

    The hub asks for the name of an evaluation framework from a list of its own, which has none for skeletons; it shows
    an error for one that is not in it, and none where there is no name.

    Args:
        data: The data set.
        repo_id: Its repository.
    """
    labels, tests = data.column("labels"), data.column("split_test")
    if labels is None or tests is None or tests.ndim != 1:
        return None
    known = np.asarray(labels)[tests.astype(bool)]
    known = known[known >= 0]
    if not len(known):
        return None
    name = repo_id.partition("/")[2]
    record = {
        "name": name,
        "description": f"Recognition of {len(data.class_names)} classes of movement in recordings of people as joints "
        f"(skeletons), {len(known)} clips test: " + ", ".join(f"{task}, {text}" for task, text in TASKS.items()) + ".",
        "tasks": [{"id": task, "config": "default", "split": "test"} for task in TASKS],
    }
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def address_of(record: Mapping[str, Any]) -> HubAddress | None:
    """Address, with the commit, of the data of a ``metrics.json``; None where they are not of the hub."""
    try:
        return HubAddress.parse(str(record["address"]))
    except (KeyError, SkeletonFormatError):
        return None


def results_of(record: Mapping[str, Any], source_url: str | None = None) -> dict[str, str]:
    """The results of a model on the benchmark that its record names: name of the file -> content.

    Args:
        record: Content of ``metrics.json``. Nothing follows where the model was scored on anything but the whole test
            split of a data set of the hub, such as folds, or a split by people.
        source_url: Where the record lies on the hub.
    """
    found, task, values = address_of(record), record.get("task"), record.get("metrics")
    rule = str(record.get("split", "")).partition(";")[0]
    if found is None or not isinstance(values, Mapping) or task not in {*_RECOGNITION, _REPORT} or "folds" in record:
        return {}
    if not (rule == _OWN and found.split is None or rule == _ALL and found.split == "test"):
        return {}
    trained = task != _REPORT and dict(record.get("repeat") or {}).get("train_head", True)
    entries = [
        EvalResultEntry(
            dataset_id=found.repo_id,
            task_id=metric,
            value=round(100 * float(values[metric]), 2),
            dataset_revision=found.revision,
            source_url=source_url,
            source_name=None if source_url is None else "metrics.json",
            notes=f"{task}, trained on the train split" if trained else None,
        )
        for metric in TASKS
        if isinstance(values.get(metric), int | float) and 0 <= values[metric] <= 1
    ]
    name = f"{found.repo_id.partition('/')[2]}.yaml"
    return {name: yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)} if entries else {}


def write_record(folder: str | os.PathLike, record: dict[str, Any]) -> None:
    """Write ``metrics.json``, see `records.write_metrics`, and the results of the record, see `results_of`."""
    write_metrics(folder, record)
    for name, text in results_of(record).items():
        with new_file(Path(folder) / RESULTS / name) as partial:
            partial.write_text(text, "utf-8")


def check_results_file(path: Path) -> None:
    """Refuse a file that the hub would not read as results.

    Raises:
        PublishError: If it is none.
    """
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(entries, list) or not parse_eval_result_entries(entries):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, OSError, yaml.YAMLError, RecursionError):
        raise PublishError(
            f"{path}: it is no list of results as the hub reads them (docs/hub/eval-results): repair or delete it"
        ) from None
