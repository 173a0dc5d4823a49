"""One pretraining run: data sets and a recipe to a folder with checkpoints and the pretrained model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import TrainerState, TrainingArguments, set_seed

from ..data.dataset import SkeletonData, open_data, source_name
from ..data.protocols import default_split
from ..facts.recipes import Recipe
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import is_new, locked, naming, new_file, remove_leftovers
from ..layouts import get_layout
from ..modeling_usdrl import USDRLForPreTraining
from ..records import run_record, sha256, write_metrics
from ..sequence import SkeletonSequence
from .build import build_recipe, load_recipe
from .data import PretrainingDataset
from .probe import NeighbourProbe
from .trainer import STAGING, USDRLPreTrainer, find_checkpoint

_RUN = "run.json"
_FINISHING = ".model.partial"


def pretrain(
    data: Sequence[str | os.PathLike | SkeletonData | SkeletonSequence],
    output_dir: str | os.PathLike,
    recipe: Recipe | str | os.PathLike = "laptop",
    seed: int = 0,
    split: str = "all",
    micro_batch_size: int | None = None,
    activation_checkpointing: bool = False,
    in_memory: bool = True,
    workers: int = 0,
    probe: str | os.PathLike | SkeletonData | Sequence[SkeletonSequence] | None = None,
    probe_epochs: int = 1,
    max_steps: int | None = None,
    progress: bool = False,
    compile_encoder: bool = False,
) -> dict[str, Any] | None:
    """Pretrain a model without labels, or go on with a run that was stopped.

    Args:
        data: Data sets (``.npz`` files, stores, or what `open_data` gives) of 3D motion, or of 2D for a 2D
            recipe; or sequences, which are one data set.
        output_dir: Folder of the run: checkpoints while it runs, the model, its feature extractor and ``metrics.json``
            at the end. A run that was begun there with the same arguments goes on from its newest whole checkpoint.
        recipe: A recipe, or the name of one.
        seed: Seeds weights, order and views.
        split: "all" motion, or the "train" part of each data set's own protocol.
        micro_batch_size: See `USDRLPreTrainer`.
        activation_checkpointing: Compute activations again in the backward pass: less memory, more time.
        in_memory: See `PretrainingDataset`.
        workers: Processes that read, where the motion is not in memory.
        probe: A labelled data set, given like one of `data`; 1-NN accuracy on its test part is logged every
            `probe_epochs` epochs.
        probe_epochs: See `probe`.
        max_steps: Stop after this many steps; the recipe's epochs where None.
        progress: Show bars.
        compile_encoder: See `USDRLPreTrainer`.

    Returns:
        The record written to ``metrics.json``; None if a signal stopped the run, which then can go on.

    Raises:
        FolderInUseError: If another process is pretraining there.
        SkeletonFormatError: If there is nothing to train on.
        PretrainingCollapseError: See `USDRLPreTrainer`.
        OSError: If the folder cannot be written.
        ValueError: If an argument is impossible, or another run lies in the folder.
    """
    arguments = {**locals()}
    # The first of several processes holds the folder for all.
    with locked(output_dir) if _is_first() else nullcontext():
        return _pretrain(**arguments)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _pretrain(
    data: Sequence[str | os.PathLike],
    output_dir: str | os.PathLike,
    recipe: Recipe | str | os.PathLike,
    seed: int,
    split: str,
    micro_batch_size: int | None,
    activation_checkpointing: bool,
    in_memory: bool,
    workers: int,
    probe: str | os.PathLike | None,
    probe_epochs: int,
    max_steps: int | None,
    progress: bool,
    compile_encoder: bool,
) -> dict[str, Any] | None:
    """See `pretrain`, whose folder nobody else writes meanwhile."""
    started = time.monotonic()
    if isinstance(recipe, str | os.PathLike):
        recipe = load_recipe(recipe)
    if split not in ("all", "train"):
        raise ValueError(f"split must be 'all' or 'train', got {split!r}")
    training = recipe.training
    folder = Path(output_dir)
    config, extractor, loss, views = build_recipe(recipe)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if training.batch_size % world:
        raise ValueError(f"a batch of {training.batch_size} does not divide among {world} processes")
    given: list[Any] = [data] if any(isinstance(item, SkeletonSequence) for item in data) else list(data)
    given = [item if isinstance(item, str | os.PathLike) else open_data(item) for item in given]
    settings = {"recipe": asdict(recipe), "data": [_identity(item) for item in given], "seed": seed}
    settings |= {"split": split, "max_steps": max_steps, "in_memory": in_memory, "compile_encoder": compile_encoder}
    settings = json.loads(json.dumps(settings))
    with _begun(folder, settings) as resumed:
        sources = [open_data(item) for item in given]
        if split == "train":
            sources = [default_split(source)[0] for source in sources]
        dataset = PretrainingDataset(sources, extractor, recipe.window, in_memory, progress, recipe.pairs, seed)
        prober = None
        if probe is not None:
            train, test, _ = default_split(open_data(probe))
            prober = NeighbourProbe(train.drop_empty(), test.drop_empty(), extractor)
        set_seed(seed)
        model = USDRLForPreTraining(config)
        steps = max(len(dataset) // training.batch_size, 1)
        half = _half_precision(training.precision)
        schedule = training.schedule
        if schedule == "constant" and training.warmup:
            schedule = "constant_with_warmup"
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=training.epochs,
            max_steps=max_steps or -1,
            per_device_train_batch_size=training.batch_size // world,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            lr_scheduler_type=schedule,
            warmup_steps=int(training.warmup * (max_steps or steps * training.epochs)),
            bf16=half == "bf16",
            fp16=half == "fp16",
            activation_checkpointing=activation_checkpointing,
            # Without it several processes without accelerators would not know of each other.
            use_cpu=not torch.accelerator.is_available(),
            ddp_find_unused_parameters=False if world > 1 else None,
            save_strategy="steps",
            save_steps=max(int(steps * training.save_epochs), 1),
            save_total_limit=2,
            logging_steps=max(min(steps, 50), 1),
            report_to="none",
            disable_tqdm=not progress,
            dataloader_num_workers=workers,
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=seed,
        )
        if world != arguments.world_size:
            raise ValueError(
                f"{world} processes were started, but training sees {arguments.world_size}: start them with torchrun "
                "or accelerate launch"
            )
        trainer = USDRLPreTrainer(
            model,
            arguments,
            dataset,
            loss=loss,
            views=views,
            micro_batch_size=micro_batch_size,
            drop_epochs=training.drop_epochs or None,
            adam=training.optimizer == "adam",
            probe=prober,
            probe_epochs=probe_epochs,
            compile_encoder=compile_encoder,
        )
        if trainer.is_world_process_zero():
            with new_file(folder / _RUN) as partial:
                partial.write_text(json.dumps(settings, indent=2), "utf-8")
    trainer.accelerator.wait_for_everyone()
    state = TrainerState.load_from_json(str(resumed / "trainer_state.json")) if resumed else None
    if resumed and state and state.global_step >= state.max_steps:
        # Killed after its last step: there is nothing left to train.
        model.load_state_dict(load_file(resumed / "model.safetensors"))
        trainer.state = state
    else:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if trainer.stopped_by is not None:
        return None
    record = {
        "task": "pretraining",
        "dataset": [source_name(item) for item in given],
        "n": {"train": len(dataset)},
        "steps": trainer.state.global_step,
        "recipe": asdict(recipe),
        "seed": seed,
        "compiled": compile_encoder,
        "log": [entry for entry in trainer.state.log_history if "loss" in entry or "probe_1nn_accuracy" in entry],
        **run_record(started),
    }
    if trainer.is_world_process_zero():
        _finish(folder, model, extractor, record)
    trainer.accelerator.wait_for_everyone()
    return record


def _identity(data: str | os.PathLike | SkeletonData) -> str:
    """What a run that goes on has to be given again: the place of a file, the content of what is in memory."""
    if isinstance(data, str | os.PathLike):
        return str(Path(data).resolve())
    digest = hashlib.sha256()
    for sequence in data:
        digest.update(f"{sequence.name} {sequence.keypoints.shape} {get_layout(sequence.layout).name}".encode())
        digest.update(np.ascontiguousarray(sequence.keypoints).tobytes())
    return f"sha256 {digest.hexdigest()}"


def _half_precision(precision: str) -> str | None:
    """The half precision to train in, or None."""
    if precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("fp16 needs a GPU: use bf16 or float32")
    if precision != "mixed":
        return None if precision == "float32" else precision
    if not torch.cuda.is_available():
        return None
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


@contextmanager
def _begun(folder: Path, settings: dict[str, Any]) -> Iterator[Path | None]:
    """The folder of a run, made or with the checkpoint to go on from; away again where nothing comes of it."""
    stamp = folder / _RUN
    made: list[Path] = []
    resumed = None
    if _is_first():
        remove_leftovers(stamp)
        for name in (STAGING, _FINISHING) if stamp.is_file() else ():
            shutil.rmtree(folder / name, ignore_errors=True)
    if stamp.is_file():
        before = {"compile_encoder": False} | json.loads(stamp.read_text("utf-8"))
        begun = (folder / "model.safetensors").is_file() or any(folder.glob("checkpoint-*"))
        other = next((key for key in settings if before.get(key) != settings[key]), None)
        if other is not None and begun:
            raise ValueError(
                f"{folder}: a run with another {other} lies there: name a new folder, or repeat that run's command"
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


def _finish(
    folder: Path, model: USDRLForPreTraining, extractor: USDRLFeatureExtractor, record: dict[str, Any]
) -> None:
    """Put the model beside its checkpoints; the weights come last, because they say that the run is finished."""
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
