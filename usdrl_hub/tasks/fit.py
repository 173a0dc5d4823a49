"""How the head of every task is trained: a recipe, and one call of the Trainer."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, EvalPrediction, PrinterCallback, ProgressCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback

from ..files import scratch_folder
from ..resume import StopOnSignal, find_checkpoint, write_manifest
from ..training import USDRLTrainer, default_scores

# Evaluations in a run with a validation part, and how many without an improvement end it.
_EVALUATIONS, _PATIENCE = 20, 8


@dataclass(frozen=True)
class FitRecipe:
    """How a head is trained, alone or with the encoder.

    Attributes:
        epochs: Passes over the training part.
        batch_size: Items per step.
        learning_rate: Largest learning rate.
        optimizer: "adamw", or "sgd" with momentum 0.9, as the release.
        weight_decay: Weight decay.
        schedule: "cosine" after a warm-up, or "constant" with drops to a tenth.
        warmup: Share of the steps in which the learning rate of a cosine schedule rises, in [0, 1).
        drop_epochs: Finished epochs after which the learning rate of a constant schedule drops to a tenth.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        max_grad_norm: Gradients are clipped at this norm; 0 disables clipping.
        augment: Augment clips, see `ClipAugmentation`.
        mirror: Also train on mirror images, as where some people are left-handed; not for classes that tell left from
            right.
        pose_errors: Probability that a clip is augmented by what pose estimators do, see `PoseErrors`, in [0, 1]; for
            recognisers that are to read films.
        freeze_encoder: Train the head only, with the encoder in eval mode.
        linear_start: Start a recogniser's head from the logistic regression on its encoder's features, see
            `recognition.train_recogniser`. With few clips, the gradients of a random head spoil a pretrained encoder.
            Other heads ignore it.
        min_steps: Least number of steps: with few items, there are more epochs.
        encoder_rate: Learning rate of the encoder as a share of that of the head, in (0, 1].
        balance: Weight classes by the inverse of their number of items, so that rare ones count as much as others.
    """

    epochs: float = 40
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup: float = 0.1
    drop_epochs: tuple[int, ...] = ()
    label_smoothing: float = 0.0
    max_grad_norm: float = 1.0
    augment: bool = True
    mirror: bool = False
    pose_errors: float = 0.0
    freeze_encoder: bool = False
    linear_start: bool = False
    min_steps: int = 0
    encoder_rate: float = 1.0
    balance: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        object.__setattr__(self, "drop_epochs", tuple(self.drop_epochs))
        if not (0 < self.epochs < 1e6 and 0 < self.learning_rate < 1e6 and self.batch_size >= 1):
            raise ValueError("epochs, learning_rate and batch_size must be positive numbers")
        if self.optimizer not in ("adamw", "sgd") or self.schedule not in ("cosine", "constant"):
            raise ValueError("optimizer must be adamw or sgd, and schedule cosine or constant")
        if not 0 <= self.pose_errors <= 1:
            raise ValueError(f"pose_errors must be a probability in [0, 1], got {self.pose_errors}")
        if self.pose_errors and not self.augment:
            raise ValueError("pose_errors augment clips, so augment must be true")
        if not 0 < self.encoder_rate <= 1 or (self.encoder_rate < 1 and self.optimizer == "sgd"):
            raise ValueError("encoder_rate must be above 0 and at most 1, and 1 with sgd")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FitRecipe:
        """A recipe of the values that it has fields for; others belong to the task."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def epochs_for(self, items: int) -> float:
        """Passes over a number of items, at least `min_steps` steps."""
        return max(self.epochs, self.min_steps / -(-items // self.batch_size))

    def to_dict(self) -> dict[str, Any]:
        """The values, as JSON holds them."""
        return {**asdict(self), "drop_epochs": list(self.drop_epochs)}


def class_weights(labels: np.ndarray, num_classes: int) -> torch.Tensor:
    """Weights ``(K,)`` of classes: the inverse of their number of items, 1 on average over the items; 0 for none."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (np.count_nonzero(counts) * counts.clip(1))
    return torch.tensor(np.where(counts > 0, weights, 0.0), dtype=torch.float32)


@dataclass
class Progress:
    """How a training goes: what it shows, and what became of it.

    Attributes:
        bar: Show a progress bar.
        report_to: Where transformers logs: "none", "tensorboard", "trackio" or "wandb".
        history: A row for each tenth of the training, {"epoch": 4.0, "loss": 0.9}, and for each evaluation,
            {"epoch": 4.0, "validation_loss": 1.1, "validation_accuracy": 0.8}.
        best: Scores of the weights that were kept; empty without a validation part.
        epochs: Epochs trained.
        folder: Where checkpoints are kept, so that a run that was killed goes on; None for none.
        run: Name of the training in logs, such as "my-model/fold-2/trial"; transformers' choice where empty.
        stopped: Whether Ctrl-C ended the training; then the best weights so far are kept.
    """

    bar: bool = False
    report_to: str = "none"
    folder: Path | None = None
    run: str = ""
    stopped: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    epochs: float = 0.0

    def read(self, log: list[dict[str, float]]) -> None:
        """Take over the log of a trainer."""
        for entry in log:
            names = {"loss": "loss", "eval_loss": "validation_loss", "eval_accuracy": "validation_accuracy"}
            row = {name: entry[key] for key, name in names.items() if key in entry}
            if row:
                self.history.append({"epoch": entry["epoch"], **row})
            self.epochs = max(self.epochs, entry.get("epoch", 0.0))


class _Bar(ProgressCallback):
    """A progress bar with the last loss and validation accuracy, in place of lines of numbers."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        names = {"loss": "loss", "eval_accuracy": "validation accuracy", "eval_mae": "validation error"}
        shown = {name: f"{float(logs[key]):.3g}" for key, name in names.items() if key in (logs or {})}
        if self.training_bar is not None and shown:
            self.training_bar.set_postfix(shown)

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
        """Show no bar of its own."""


class _FitTrainer(USDRLTrainer):
    """Adds the release's optimizer and schedule, rates of encoder and head, and weights of classes."""

    def __init__(self, *args: Any, recipe: FitRecipe, weights: torch.Tensor | None = None, **kwargs: Any):
        self.recipe, self.weights = recipe, weights
        super().__init__(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Cross-entropy weighted by class where there are weights, else that of `USDRLTrainer`."""
        if self.weights is None:
            return super().compute_loss(model, inputs, *args, **kwargs)
        outputs = model(keypoints=inputs["keypoints"])
        smoothing = self.recipe.label_smoothing if model.training else 0.0
        weights = self.weights.to(outputs.logits.device)
        loss = torch.nn.functional.cross_entropy(
            outputs.logits.float(), inputs["labels"], weights, label_smoothing=smoothing
        )
        outputs.loss = loss
        return (loss, outputs) if kwargs.get("return_outputs", args[:1] == (True,)) else loss

    def last_checkpoint(self) -> str | None:
        """None: checkpoints of a run that fails are deleted."""
        return None

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        if not self.args.save_only_model:
            write_manifest(Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}")

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """SGD with momentum where the recipe has it; else transformers', with a rate of its own for the encoder."""
        if self.optimizer is None and self.recipe.optimizer == "sgd":
            every = (model or self.model).parameters()  # type: ignore[union-attr]
            trained = [parameter for parameter in every if parameter.requires_grad]
            self.optimizer = torch.optim.SGD(
                trained, self.recipe.learning_rate, momentum=0.9, weight_decay=self.recipe.weight_decay
            )
        elif self.optimizer is None and self.recipe.encoder_rate < 1:
            whole: Any = model or self.model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, whole)
            decayed = set(self.get_decay_parameter_names(whole))
            encoder = {id(parameter) for parameter in whole.base_model.parameters()}
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in whole.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault((id(parameter) in encoder, name in decayed), []).append(parameter)
            rate, decay = self.recipe.learning_rate, self.recipe.weight_decay
            self.optimizer = kind(
                [
                    {
                        "params": parameters,
                        "lr": rate * (self.recipe.encoder_rate if is_encoder else 1),
                        "weight_decay": decay if is_decayed else 0.0,
                    }
                    for (is_encoder, is_decayed), parameters in groups.items()
                ],
                **options,
            )
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Drops to a tenth where the recipe has a constant schedule, else transformers'."""
        if self.recipe.schedule == "constant" and self.lr_scheduler is None:
            epoch = num_training_steps / self.recipe.epochs
            drops = [round(epoch * number) for number in self.recipe.drop_epochs]
            self.lr_scheduler = torch.optim.lr_scheduler.MultiStepLR(  # type: ignore[assignment]
                optimizer or self.optimizer,  # type: ignore[arg-type]
                drops,
                gamma=0.1,
            )
        return super().create_scheduler(num_training_steps, optimizer)


def _validation_scores(prediction: EvalPrediction, balance: bool) -> dict[str, float]:
    """`default_scores`, and `choice`, by which the best weights are kept."""
    scores = default_scores(prediction)
    if "accuracy" not in scores:
        return {**scores, "choice": -scores["mae"]}
    found, labels = prediction.predictions, np.asarray(prediction.label_ids)
    logits = torch.as_tensor(found[0] if isinstance(found, tuple) else found).double()
    return {**scores, "choice": choice_score(logits.softmax(-1).numpy(), labels, balance)}


def choice_score(probabilities: np.ndarray, labels: np.ndarray, balance: bool = False) -> float:
    """By what recipes and checkpoints are chosen: accuracy; among equal ones, the mean probability of the true class.

    Args:
        probabilities: ``(N, K)``.
        labels: True classes ``(N,)``.
        balance: Count every class alike, whatever its number of clips.
    """
    weights = clip_weights(labels, balance)
    right = probabilities.argmax(1) == labels
    # Less than a clip's worth.
    values = right + 1e-3 * probabilities[np.arange(len(labels)), labels]
    return float((values * weights).sum() / weights.sum())


def clip_weights(labels: np.ndarray, balance: bool) -> np.ndarray:
    """Weights ``(N,)`` of clips in a score: all alike, or with which every class counts alike."""
    return 1 / np.bincount(labels)[labels] if balance else np.ones(len(labels))


def fit(
    model: torch.nn.Module,
    dataset: Dataset,
    recipe: FitRecipe,
    *,
    seed: int = 0,
    collate: Callable | None = None,
    validation: Dataset | None = None,
    labels: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Progress:
    """Train a model on a data set.

    Args:
        model: An encoder with a head; trained in place, in eval mode afterwards.
        dataset: Items to train on.
        recipe: Optimizer, schedule and regularisation.
        seed: Random seed of order and augmentation.
        collate: Makes batches of items; transformers' where None.
        validation: Items that are scored twenty times during the training, see `training.default_scores`: the weights
            with the best scores are kept, and eight evaluations without an improvement end the training.
        labels: Classes of the items, for a recipe that balances them.
        progress: How it is shown; it also receives what became of the training.

    Returns:
        The progress.

    Raises:
        TrainingDivergedError: At the first step whose loss or gradient is NaN or infinite.
    """
    progress = Progress() if progress is None else progress
    epochs = recipe.epochs_for(len(dataset))  # type: ignore[arg-type]
    weights = None
    if labels is not None and recipe.balance:
        weights = class_weights(labels, int(model.config.num_labels))  # type: ignore[union-attr, arg-type]
    steps = -(-len(dataset) // recipe.batch_size) * epochs  # type: ignore[arg-type]
    interrupt = StopOnSignal([signal.SIGINT])
    with scratch_folder() if progress.folder is None else nullcontext(progress.folder) as folder:
        checkpoint = None if progress.folder is None else _newest(folder)
        trainer = _FitTrainer(
            model,
            TrainingArguments(
                output_dir=str(folder),
                num_train_epochs=epochs,
                per_device_train_batch_size=recipe.batch_size,
                per_device_eval_batch_size=max(recipe.batch_size, 128),
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                label_smoothing_factor=recipe.label_smoothing,
                max_grad_norm=recipe.max_grad_norm,
                lr_scheduler_type="cosine",
                warmup_steps=int(recipe.warmup * steps),
                report_to=progress.report_to,
                run_name=progress.run or None,
                logging_steps=max(int(steps) // 10, 1),
                disable_tqdm=not progress.bar,
                remove_unused_columns=False,
                dataloader_pin_memory=torch.cuda.is_available(),
                seed=seed,
                **_saving(validation is not None, progress.folder is not None, int(steps)),
            ),
            train_dataset=dataset,
            eval_dataset=validation,
            data_collator=collate,
            compute_metrics=partial(_validation_scores, balance=recipe.balance),
            linear_probe=recipe.freeze_encoder,
            recipe=recipe,
            weights=weights,
            callbacks=[interrupt, *([] if validation is None else [EarlyStoppingCallback(_PATIENCE)])],
        )
        for shown in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(shown)
        if progress.bar:
            trainer.add_callback(_Bar())
        for callback in trainer.callback_handler.callbacks:
            # Curves of two trainings in one folder would be drawn as one.
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir and progress.run:
                callback.logging_dir = str(Path(callback.logging_dir, *Path(progress.run).parts[1:]))
        # Without a folder to go on from, an interrupt ends the training as it ends anything.
        with interrupt.listening() if progress.folder is not None else nullcontext():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        progress.stopped = interrupt.received is not None
        progress.read(trainer.state.log_history)
        if validation is not None:
            best = [
                entry for entry in trainer.state.log_history if entry.get("step") == trainer.state.best_global_step
            ]
            progress.best = {key.removeprefix("eval_"): value for entry in best for key, value in entry.items()}
    model.eval()
    return progress


def _newest(folder: Path) -> Path | None:
    """The newest complete checkpoint of an earlier run; later ones, which are not complete, are deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    found = find_checkpoint(folder)
    for path in folder.glob("checkpoint-*"):
        if found is None or int(path.name.rpartition("-")[2]) > int(found.name.rpartition("-")[2]):
            shutil.rmtree(path, ignore_errors=True)
    return found


def _saving(validates: bool, keeps: bool, steps: int) -> dict[str, Any]:
    """Arguments of a trainer that keeps the best weights, or that can go on, or that keeps no checkpoint."""
    every = max(steps // _EVALUATIONS, 1)
    saving = {"save_strategy": "steps", "save_steps": every, "save_total_limit": 2, "save_only_model": not keeps}
    if not validates:
        return saving if keeps else {"save_strategy": "no"}
    return {
        **saving,
        "eval_strategy": "steps",
        "eval_steps": every,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_choice",
        "greater_is_better": True,
    }
