"""Stopping a training run and resuming it: its folder, complete checkpoints, and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback
from transformers.trainer_utils import sort_checkpoints

from .errors import notice
from .files import is_new, naming, new_file, remove_leftovers
from .records import sha256, write_metrics

# In a run's folder: its arguments, the checkpoint that is being written, and the model that is.
_RUN = "run.json"
STAGING = ".saving"
_FINISHING = ".model.partial"
# In a checkpoint: its files and their SHA-256.
_MANIFEST = "files.json"


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the one of rank 0."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def opened_run(folder: Path, settings: dict[str, Any]) -> Iterator[Path | None]:
    """Make the folder of a run, or find the checkpoint to resume from.

    A folder that was made is removed again if an error leaves it empty.

    Args:
        folder: The run's folder.
        settings: The arguments that have to be the same to resume.

    Yields:
        The newest complete checkpoint; None where there is none.

    Raises:
        ValueError: If the folder holds another run, a finished one, or anything else, or cannot be made.
    """
    stamp = folder / _RUN
    made: list[Path] = []
    resumed = None
    if is_first_process():
        remove_leftovers(stamp)
        for name in (STAGING, _FINISHING) if stamp.is_file() else ():
            shutil.rmtree(folder / name, ignore_errors=True)
    if stamp.is_file():
        before = {"compile_encoder": False} | json.loads(stamp.read_text("utf-8"))
        begun = (folder / "model.safetensors").is_file() or any(folder.glob("checkpoint-*"))
        other = next((key for key in settings if before.get(key) != settings[key]), None)
        if other is not None and begun:
            raise ValueError(
                f"{folder}: the folder has a run with another {other}: name a new folder, or repeat that run's command"
            )
        if (folder / "model.safetensors").is_file():
            raise ValueError(f"{folder}: the run there is finished: name a new folder")
        resumed = find_checkpoint(folder)
    elif not is_new(folder, [_RUN]):
        raise ValueError(f"{folder}: it exists already and is not an empty folder: name a new one")
    else:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder}: the folder cannot be made: {error.strerror}") from None
    try:
        yield resumed
    except BaseException:
        for path in made:
            with suppress(OSError):  # It is not empty.
                path.rmdir()
        raise


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the arguments of a run into its folder, see `opened_run`."""
    with new_file(folder / _RUN) as partial:
        partial.write_text(json.dumps(settings, indent=2), "utf-8")


def write_model(folder: Path, model: Any, extractor: Any, record: dict[str, Any]) -> None:
    """Save the pretrained model and its record beside the checkpoints.

    The weights are moved there last, because they mark the run as finished.
    """
    staged = folder / _FINISHING
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with naming(folder, staged):
            model.save_pretrained(staged)
            extractor.save_pretrained(staged)
            write_metrics(staged, {**record, "checkpoint_sha256": sha256(staged / "model.safetensors")})
            for file in sorted(staged.iterdir(), key=lambda file: file.suffix == ".safetensors"):
                os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def find_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The newest complete checkpoint of a run; None where there is none.

    Damaged ones are skipped with a warning; the next checkpoint that is written replaces them.
    """
    if not Path(folder).is_dir():
        return None
    for path in map(Path, reversed(sort_checkpoints(str(folder)))):
        try:
            manifest = json.loads((path / _MANIFEST).read_text("utf-8"))
            if all(sha256(path / name) == digest for name, digest in manifest.items()):
                return path
        except (OSError, ValueError, AttributeError):
            pass
        notice(
            f"{path}: this checkpoint is damaged or cut, so an older one is used where there is one",
            "damaged checkpoints",
        )
    return None


def write_manifest(checkpoint: Path) -> None:
    """Mark a checkpoint as complete, with a list of its files, see `find_checkpoint`."""
    manifest = {file.name: sha256(file) for file in sorted(checkpoint.iterdir()) if file.is_file()}
    with new_file(checkpoint / _MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=2), "utf-8")


def move_checkpoint(run: Path, step: int) -> None:
    """Move the checkpoint of a step from its staging folder into the run's, with a list of its files.

    Checkpoints of later steps are removed: they are damaged, or will be written again.
    """
    name = f"checkpoint-{step}"
    staged = run / STAGING / name
    write_manifest(staged)
    if (run / name).exists():
        shutil.rmtree(run / name)
    os.replace(staged, run / name)
    for path in run.glob("checkpoint-*"):
        later = path.name.partition("-")[2]
        if later.isdecimal() and int(later) > step:
            shutil.rmtree(path, ignore_errors=True)


class StopOnSignal(TrainerCallback):
    """Save a checkpoint and stop after the step in which a signal comes; stop at once on a second one.

    Attributes:
        received: The signal, or None.
    """

    def __init__(self, numbers: Sequence[int] = (signal.SIGTERM, signal.SIGINT)) -> None:
        """No signal has come yet.

        Args:
            numbers: The signals.
        """
        self.numbers = tuple(numbers)
        self.received: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Receive signals in the block; the handlers before it are put back."""
        self.received = None
        is_main = threading.current_thread() is threading.main_thread()
        numbers = self.numbers if is_main else ()
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the trainer to save and stop."""
        if args.world_size > 1:
            # All processes stop after the same step, whichever received the signal.
            received = torch.tensor(self.received or 0, device=args.device)
            dist.all_reduce(received, op=dist.ReduceOp.MAX)
            self.received = int(received) or None
        if self.received is not None:
            control.should_save = control.should_training_stop = True
