"""One pretraining run: data sets and a recipe to a folder with checkpoints and the pretrained model."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import TrainerState, set_seed

from ..data.dataset import SkeletonData, open_data, source_name
from ..data.protocols import default_split
from ..data.remote import commit_of, is_address
from ..facts.recipes import Recipe, Training
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import locked
from ..layouts import get_layout
from ..modeling_usdrl import USDRLForPreTraining
from ..ragged import RaggedFrames
from ..records import run_record
from ..resume import is_first_process, opened_run, write_model, write_settings
from ..sequence import SkeletonSequence
from .arguments import ComputeOptions, PretrainingArguments
from .build import build_recipe, load_recipe, motion_extractor
from .data import PretrainingDataset
from .probe import NeighbourProbe
from .readout import fit_readout, recipe_readout
from .trainer import USDRLPreTrainer
from .views import ViewAugmentation


def pretrain(
    data: Sequence[str | os.PathLike | SkeletonData | SkeletonSequence],
    output_dir: str | os.PathLike,
    recipe: Recipe | str | os.PathLike = "mocap-tiny",
    *,
    seed: int = 0,
    split: str = "all",
    max_steps: int | None = None,
    probe: str | os.PathLike | SkeletonData | Sequence[SkeletonSequence] | None = None,
    probe_epochs: int = 1,
    compute: ComputeOptions | None = None,
) -> dict[str, Any] | None:
    """Pretrain a model without labels, or resume a run that was stopped.

    Args:
        data: Data sets (``.npz`` files, stores, addresses of the hub, or what `open_data` gives) of 3D motion, or of
            2D for a 2D recipe without a camera; or sequences, which are one data set.
        output_dir: Folder of the run: checkpoints while it runs, the model, its feature extractor and ``metrics.json``
            at the end. A run that was begun there with the same arguments is resumed from its newest complete
            checkpoint.
        recipe: A recipe, or the name of one.
        seed: Random seed of weights, order and views.
        split: "all" motion, or the "train" part of each data set's own protocol.
        max_steps: Stop after this many steps; the recipe's epochs where None.
        probe: A labelled data set, given like one of `data`; 1-NN accuracy on its test part is logged every
            `probe_epochs` epochs.
        probe_epochs: Epochs between probes.
        compute: Memory, compilation and processes.

    Returns:
        The record written to ``metrics.json``; None if a signal stopped the run, which then can be resumed.

    Raises:
        FolderInUseError: If another process is pretraining there.
        SkeletonFormatError: If there is nothing to train on.
        PretrainingCollapseError: See `USDRLPreTrainer`.
        OSError: If the folder cannot be written.
        ValueError: If an argument is impossible, or another run lies in the folder.
    """
    started, folder, compute = time.monotonic(), Path(output_dir), compute or ComputeOptions()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if split not in ("all", "train"):
        raise ValueError(f"split must be 'all' or 'train', got {split!r}")
    given: list[Any] = [data] if any(isinstance(item, SkeletonSequence) for item in data) else list(data)
    given = [item if isinstance(item, str | os.PathLike) else open_data(item) for item in given]
    settings = {"recipe": asdict(recipe), "data": [_identity(item) for item in given], "seed": seed}
    settings |= {"split": split, "max_steps": max_steps, "in_memory": compute.in_memory}
    if compute.stream:
        settings |= {"stream": True, "in_memory": False}
    settings = json.loads(json.dumps(settings | {"compile_encoder": compute.compile_encoder}))
    # The first of several processes locks the folder for all.
    with locked(folder) if is_first_process() else nullcontext():
        with opened_run(folder, settings) as checkpoint:
            config, extractor, loss, views = build_recipe(recipe)
            dataset = _dataset(given, split, motion_extractor(recipe, extractor), recipe, seed, compute)
            prober = None if probe is None else _prober(probe, extractor)
            arguments = _arguments(folder, recipe.training, len(dataset), seed, max_steps, compute)
            arguments.probe_epochs = probe_epochs
            set_seed(seed)
            model = USDRLForPreTraining(config)
            trainer = USDRLPreTrainer(model, arguments, dataset, loss=loss, views=views, probe=prober)
            if trainer.is_world_process_zero():
                write_settings(folder, settings)
        trainer.accelerator.wait_for_everyone()
        resumed_at = _train(trainer, checkpoint)
        if trainer.stopped_by is not None:
            return None
        log = [entry for entry in trainer.state.log_history if "loss" in entry or "probe_1nn_accuracy" in entry]
        record = {
            "task": "pretraining",
            "dataset": [source_name(item) for item in given],
            "n": {"train": len(dataset)},
            "steps": trainer.state.global_step,
            "recipe": asdict(recipe),
            "seed": seed,
            "compiled": compute.compile_encoder,
            "log": log,
            **run_record(started),
            # The time above is that of the steps from here on.
            **({"resumed_at_step": resumed_at} if resumed_at else {}),
        }
        if trainer.is_world_process_zero():
            if recipe.readout:
                entries = recipe_readout(config, recipe.readout, len(dataset))
                fit_readout(model.usdrl, _whole_clips(dataset, views, seed), **entries)
            write_model(folder, model, extractor, record)
        trainer.accelerator.wait_for_everyone()
    return record


def _dataset(
    given: Sequence[Any],
    split: str,
    extractor: USDRLFeatureExtractor,
    recipe: Recipe,
    seed: int,
    compute: ComputeOptions,
) -> PretrainingDataset:
    """The motion to train on."""
    sources = [open_data(item, stream=compute.stream) for item in given]
    if split == "train":
        sources = [default_split(source)[0] for source in sources]
    return PretrainingDataset(
        sources,
        extractor,
        recipe.window,
        in_memory=compute.in_memory and not compute.stream,
        in_blocks=compute.stream,
        progress=compute.progress,
        synthetic_pairs=recipe.synthetic_pairs,
        seed=seed,
    )


def _whole_clips(dataset: PretrainingDataset, views: ViewAugmentation, seed: int) -> Iterator[torch.Tensor]:
    """Whole segments as clips: as they are or, for a model of 2D keypoints, as the recipe's cameras see them."""
    whole = views.whole()
    for batch in dataset.batches():
        yield whole(RaggedFrames(batch["frames"], batch["lengths"]), batch["clips"], seed)[0]


def _prober(probe: Any, extractor: USDRLFeatureExtractor) -> NeighbourProbe:
    train, test, _ = default_split(open_data(probe))
    return NeighbourProbe(train.drop_empty(), test.drop_empty(), extractor)


def _arguments(
    folder: Path, training: Training, num_clips: int, seed: int, max_steps: int | None, compute: ComputeOptions
) -> PretrainingArguments:
    """The trainer's arguments for a recipe's schedule.

    Raises:
        ValueError: If the batch does not divide among the processes, or these do not know of each other.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if training.batch_size % world:
        raise ValueError(f"a batch of {training.batch_size} does not divide among {world} processes")
    steps = max(num_clips // training.batch_size, 1)
    half = _half_precision(training.precision)
    schedule = training.schedule
    if schedule == "constant" and training.warmup:
        schedule = "constant_with_warmup"
    arguments = PretrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=max_steps or -1,
        per_device_train_batch_size=training.batch_size // world,
        micro_batch_size=compute.micro_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        adam=training.optimizer == "adam",
        lr_scheduler_type=schedule,
        drop_epochs=list(training.drop_epochs) or None,
        warmup_steps=int(training.warmup * (max_steps or steps * training.epochs)),
        bf16=half == "bf16",
        fp16=half == "fp16",
        activation_checkpointing=compute.activation_checkpointing,
        compile_encoder=compute.compile_encoder,
        # Without it several processes without accelerators would not know of each other.
        use_cpu=not torch.accelerator.is_available(),
        ddp_find_unused_parameters=False if world > 1 else None,
        save_strategy="steps",
        save_steps=max(int(steps * training.save_epochs), 1),
        save_total_limit=2,
        logging_steps=max(min(steps, 50), 1),
        report_to="none",
        disable_tqdm=not compute.progress,
        dataloader_num_workers=compute.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=seed,
    )
    if world != arguments.world_size:
        raise ValueError(
            f"{world} processes were started, but training sees {arguments.world_size}: start them with torchrun "
            "or accelerate launch"
        )
    return arguments


def _train(trainer: USDRLPreTrainer, checkpoint: Path | None) -> int:
    """Train from the start or a checkpoint, and return its step; a run killed after its last step is only loaded."""
    done = 0
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        done = state.global_step
        if done >= state.max_steps:
            trainer.model.load_state_dict(load_file(checkpoint / "model.safetensors"))  # type: ignore[union-attr]
            trainer.state = state
            return done
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return done


def _identity(data: str | os.PathLike | SkeletonData) -> str:
    """What has to be the same to resume a run: path of a file, commit of a repository, content of data in memory."""
    if is_address(data):
        return commit_of(data)
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
