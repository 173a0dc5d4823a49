"""What a fine-tuning has done so far, kept beside its output folder until that is complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..data.dataset import SkeletonData
from ..files import new_file

# Clips whose keypoints tell whether a run's data are the same.
_SAMPLED = 16


def data_digest(dataset: SkeletonData, *more: np.ndarray) -> str:
    """A hash of a data set's names, classes, columns and lengths, of some clips' keypoints, and of further arrays."""
    digest = hashlib.sha256()
    digest.update(json.dumps([dataset.names, dataset.class_names, dataset.layout.name]).encode())
    for key in ("labels", "subjects", "split_test", "folds", "cameras", "setups", *sorted(dataset.extra_columns)):
        values = dataset.column(key)
        digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    # Data that were prepared anew, in another unit or layout, differ in every clip.
    some = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), _SAMPLED)).round().astype(int))
    for array in (dataset.lengths, *more, *(dataset[int(number)].keypoints for number in some)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class RunState:
    """The finished parts and the checkpoints of an unfinished run."""

    def __init__(self, folder: Path):
        """Wrap a folder."""
        self.path = folder

    def folder(self, key: str) -> Path:
        """The folder for the checkpoints of a part of the run, such as "fold-2/trial"."""
        return self.path / key

    def save(self, key: str, values: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> None:
        """Keep the result of a part: JSON values, and tensors. Its checkpoints are deleted."""
        path = self.path / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if tensors is not None:
            with new_file(path.with_suffix(".safetensors")) as partial:
                save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, partial)
        with new_file(path) as partial:
            partial.write_text(json.dumps(values), "utf-8")
        shutil.rmtree(self.path / key, ignore_errors=True)

    def load(self, key: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """The result of a part that is finished; None of another."""
        path = self.path / f"{key}.json"
        try:
            values = json.loads(path.read_text("utf-8"))
            tensors = path.with_suffix(".safetensors")
            return values, load_file(tensors) if tensors.is_file() else {}
        except (OSError, ValueError):
            return None


@contextmanager
def kept_state(
    output_dir: str | os.PathLike, settings: dict[str, Any], resume: bool, say: Callable[[str], None]
) -> Iterator[RunState | None]:
    """The state of a run, in a hidden folder beside its output; the caller holds the lock of the output.

    It is deleted when the block ends or fails, and kept when the process is killed or interrupted.

    Args:
        output_dir: The output folder.
        settings: What has to be the same to go on, as JSON values.
        resume: Go on with an earlier run of the same settings; otherwise its state is deleted.
        say: Receives what is done with an earlier run.

    Yields:
        The state; None where no folder can be made.
    """
    output = Path(output_dir).resolve()
    path = output.parent / f".{output.name[:100]}.training"
    stamp = path / "run.json"
    settings = json.loads(json.dumps(settings))
    try:
        before = json.loads(stamp.read_text("utf-8"))
    except (OSError, ValueError):
        before = None
    if path.is_dir() and (before != settings or not resume):
        changed = [] if before is None else [key for key in settings if before.get(key) != settings[key]]
        if before is not None:
            say(f"an unfinished run of {output.name} is discarded" + (f": another {changed[0]}" if changed else ""))
        shutil.rmtree(path, ignore_errors=True)
        before = None
    try:
        path.mkdir(exist_ok=True)
        with new_file(stamp) as partial:
            partial.write_text(json.dumps(settings), "utf-8")
    except OSError:
        yield None
        return
    if before is not None:
        say(f"an unfinished run of {output.name} goes on")
    try:
        yield RunState(path)
    except Exception:
        shutil.rmtree(path, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
