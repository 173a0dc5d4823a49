"""Evaluate a pretrained model on a benchmark: train the task's head, score it, and record how to repeat it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.dataset import SkeletonData, open_data, record_of, source_name
from ..data.parquet import ParquetStore
from ..data.protocols import (
    check_classes,
    default_split,
    parts_of,
    split_by_name,
    with_clips,
)
from ..data.samples import load_samples
from ..data.store import SkeletonStore
from ..errors import notice
from ..facts.benchmarks import Benchmark, get_benchmark, missing_data
from ..files import new_folder
from ..hub.evaluations import write_record
from ..loading import load_config, load_feature_extractor, load_model
from ..records import check_results, run_record, sha256
from ..sequence import SkeletonFormatError, SkeletonSequence
from .benchmark_tasks import OPTIONS, TASKS, Context
from .fit import FitRecipe
from .tiny import tiny_recordings

# The data of a trial on clips that ship with the package.
TINY = "tiny"
# Stands in a record for data that no file holds.
_IN_MEMORY = "(data in memory)"


def evaluate(
    model: str | os.PathLike,
    benchmark: str | Benchmark,
    data: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence] | None = None,
    *,
    output_dir: str | os.PathLike | None = None,
    seed: int = 0,
    fold: int = 0,
    with_leak: bool = False,
    changes: Mapping[str, Any] | None = None,
    train_head: bool = True,
) -> dict[str, Any]:
    """Evaluate a pretrained model on a benchmark.

    Args:
        model: Checkpoint whose encoder is taken.
        benchmark: A benchmark, or its id.
        data: Its data: a store or an ``.npz`` file, one that is open, or sequences, see `SkeletonList`; or "tiny", for
            a trial with few steps on clips that ship with the package.
        output_dir: Folder to make for ``metrics.json`` and the trained model, if the task trains one; nothing is
            written where None.
        seed: Random seed of heads, orders and draws.
        fold: Number of the split, for data with several.
        with_leak: Also test on the clips that the data mark as copies of training clips, as papers do.
        changes: Other values for entries of the recipe.
        train_head: Train the task's head; otherwise the model's own head is scored as it is.

    Returns:
        The record that ``metrics.json`` holds; it is enough to repeat the run with `repeat`, unless the data were in
        memory.

    Raises:
        SkeletonFormatError: If the data cannot be read or split.
        CheckpointLoadError: If the model cannot be loaded.
        TrainingDivergedError: If the training of a head gives NaN or infinity; nothing is written then.
        NonFiniteError: If a prediction of the model, or a score, is NaN or infinite.
        ValueError: If the benchmark is unknown, its data are not given, or a change is not an entry of its recipe.
    """
    started = time.monotonic()
    chosen = get_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    task, changes = TASKS[chosen.task], dict(changes or {})
    if data is None:
        raise ValueError(missing_data(chosen))
    tiny = isinstance(data, str) and data == TINY
    recipe = {**chosen.recipe, **(task.tiny if tiny else {}), **changes}
    unknown = sorted(set(changes) - set(chosen.recipe) - set(FitRecipe().to_dict()) - OPTIONS)
    if unknown:
        raise ValueError(f"the recipe of {chosen.id} has no entry '{unknown[0]}'")
    with new_folder(output_dir) if output_dir is not None else nullcontext() as folder:
        given = None if train_head else load_config(model).class_names
        if tiny:
            train, test, rule, names = _tiny_parts(task.is_untrimmed)
        else:
            train, test, rule, names = _parts(chosen, data, fold, with_leak, given)
        extractor = load_feature_extractor(model)
        encoder = load_model(model, dtype=torch.float32)
        if torch.cuda.is_available():
            encoder = encoder.to("cuda")  # type: ignore[arg-type]
        context = Context(encoder, extractor, train, test, names, recipe, seed, folder, train_head)
        for sequence in (train[0], test[0]):
            extractor.prepare(sequence)
        metrics, trained = task.run(context)
        check_results(metrics, chosen.id)
        record = {
            "benchmark": chosen.id,
            "task": chosen.task,
            **({"dataset": TINY} if tiny else {**record_of(test), "dataset": source_name(data)}),
            "split": rule,
            "n": {"train": len(train), "test": len(test)},
            "metric": chosen.metric,
            "metrics": metrics,
            "seed": seed,
            "recipe": recipe,
            "repeat": {
                "model": str(model),
                "benchmark": chosen.id,
                "data": _repeatable(data),
                "seed": seed,
                "fold": fold,
                "with_leak": with_leak,
                "changes": changes,
                "train_head": train_head,
            },
            **run_record(started),
        }
        if folder is not None:
            if trained is not None and train_head:
                trained.save_pretrained(folder)
                extractor.save_pretrained(folder)
                record["checkpoint_sha256"] = sha256(folder / "model.safetensors")
            write_record(folder, record)
    return record


def repeat(metrics_file: str | os.PathLike, output_dir: str | os.PathLike | None = None) -> dict[str, Any]:
    """Run an evaluation again.

    Args:
        metrics_file: The ``metrics.json`` that it wrote.
        output_dir: See `evaluate`.

    Raises:
        ValueError: If the file is not one that `evaluate` wrote; else as `evaluate`.
    """
    try:
        arguments = json.loads(Path(metrics_file).read_text("utf-8"))["repeat"]
        if arguments["data"] == _IN_MEMORY:
            raise ValueError(f"{metrics_file}: its data were in memory, so the run cannot be repeated from the file")
        if arguments.pop("tiny", False):  # As it was written until 0.1.0.
            arguments["data"] = TINY
        return evaluate(**arguments, output_dir=output_dir)
    except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"{metrics_file}: it is not a metrics.json of 'usdrl evaluate'") from None


def _repeatable(data: Any) -> str | None:
    """Path of the data, for a later run."""
    if isinstance(data, SkeletonStore) and not isinstance(data, ParquetStore):
        return str(data.path) if len(data) == len(data.index["shard"]) else _IN_MEMORY
    return None if data is None else str(data) if isinstance(data, str | os.PathLike) else _IN_MEMORY


def _tiny_parts(untrimmed: bool) -> tuple[SkeletonData, SkeletonData, str, list[str]]:
    """Training and test part, the rule that parts them, and the classes of the clips that ship."""
    dataset = tiny_recordings() if untrimmed else load_samples()
    tests = np.isin(np.asarray(dataset.column("subjects")), [8, 10])
    return dataset.select(~tests), dataset.select(tests), "the last two of five people test", dataset.class_names


def _parts(
    benchmark: Benchmark, data: Any, fold: int, with_leak: bool, given: list[str] | None
) -> tuple[SkeletonData, SkeletonData, str, list[str]]:
    """Training and test part, the rule that parts them, and the classes, those of `given` where they are the same."""
    dataset = open_data(data).drop_empty()
    if benchmark.labels != "labels":
        dataset = _relabelled(dataset, benchmark)
    untrimmed = TASKS[benchmark.task].is_untrimmed
    if not untrimmed:
        dataset = with_clips(dataset, given, source_name(data))
    trains = _by_name(benchmark, dataset)
    if trains is not None:
        rule = f"{benchmark.dataset} {benchmark.protocol}"
        train, test = parts_of(dataset, trains, ~trains, rule)
    else:
        train, test, rule = default_split(dataset, fold, with_leak)
    if not untrimmed:
        # One-shot recognition compares test clips with each other.
        alone = benchmark.task == "one-shot"
        check_classes(test if alone else train, None if alone else test, not alone and benchmark.task != "retrieval")
    return train, test, rule, dataset.class_names


def _relabelled(dataset: SkeletonData, benchmark: Benchmark) -> SkeletonData:
    """The data with the classes of another of their columns."""
    labels = dataset.column(benchmark.labels)
    if labels is None:
        raise SkeletonFormatError(f"{benchmark.id} needs data with the column '{benchmark.labels}'")
    return dataset.relabelled(labels.astype(np.int64), benchmark.class_names)


def _by_name(benchmark: Benchmark, dataset: SkeletonData) -> np.ndarray | None:
    """Mask of the sequences that train, by their names; None where the data's own split is used.

    Raises:
        SkeletonFormatError: If neither the names nor the data have the split of this protocol.
    """
    base, protocol = benchmark.dataset.removesuffix("-2d"), benchmark.protocol
    if protocol == "own":
        return None
    own = dataset.column("split_test")
    is_pku = base.startswith("pkummd")
    names = [name[:6] if is_pku and "_" in name else name for name in dataset.names]
    try:
        trains = split_by_name(names, *(("pku1", "xview") if is_pku else (base, protocol)))
    except SkeletonFormatError:
        if own is None:
            raise
        notice(
            f"the names of the sequences do not give the split {base} {protocol}, so the data's own split is used",
            "the data's own split",
        )
        return None
    same = own is not None and own.ndim == 1 and bool((own.astype(bool) == ~trains).all())
    if is_pku and protocol == "xsub":
        # Names of videos give the view only; the split by subject is in a file that the data were prepared with.
        if own is None or same:
            raise SkeletonFormatError(
                f"{benchmark.id}: the data {'have no split' if own is None else 'are split by xview'}: "
                "prepare them with --protocol xsub --split-file FILE"
            )
        return None
    if own is not None and not same:
        notice(
            f"the data's own split is not {base} {protocol}: the split by the sequences' names is used",
            "the data's own split",
        )
    return trains
