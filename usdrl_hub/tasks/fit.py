"""How the head of every task is trained: a recipe, and one call of the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from ..files import scratch_folder
from ..training import USDRLTrainer


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
        mirror: Also train on mirror images; not for classes that tell left from right.
        pose_errors: Probability that a clip is augmented by what pose estimators do, see `PoseErrors`, in [0, 1]; for
            recognisers that are to read films.
        freeze_encoder: Train the head only, with the encoder in eval mode.
        linear_start: Start a recogniser's head from the logistic regression on its encoder's features, see
            `recognition.train_recogniser`. With few clips, the gradients of a random head spoil a pretrained encoder.
            Other heads ignore it.
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

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FitRecipe:
        """A recipe of the values that it has fields for; others belong to the task."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def to_dict(self) -> dict[str, Any]:
        """The values, as JSON holds them."""
        return {**asdict(self), "drop_epochs": list(self.drop_epochs)}


class _FitTrainer(USDRLTrainer):
    """Adds the release's optimizer and schedule, where a recipe has them."""

    def __init__(self, *args: Any, recipe: FitRecipe, **kwargs: Any):
        self.recipe = recipe
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """SGD with momentum where the recipe has it, else transformers'."""
        if self.recipe.optimizer == "sgd" and self.optimizer is None:
            every = (model or self.model).parameters()  # type: ignore[union-attr]
            trained = [parameter for parameter in every if parameter.requires_grad]
            self.optimizer = torch.optim.SGD(
                trained, self.recipe.learning_rate, momentum=0.9, weight_decay=self.recipe.weight_decay
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


def fit(
    model: torch.nn.Module,
    dataset: Dataset,
    recipe: FitRecipe,
    *,
    seed: int = 0,
    collate: Callable | None = None,
    test: Dataset | None = None,
    progress: bool = False,
    history: list[dict[str, float]] | None = None,
) -> dict[str, float]:
    """Train a model on a data set, and score it on another.

    Args:
        model: An encoder with a head; trained in place, in eval mode afterwards.
        dataset: Items to train on.
        recipe: Optimizer, schedule and regularisation.
        seed: Random seed of order and augmentation.
        collate: Makes batches of items; transformers' where None.
        test: Items to score, see `training.default_scores`.
        progress: Show a progress bar.
        history: Receives the mean loss of each tenth of the training, as {"epoch": 4.0, "loss": 0.9}.

    Returns:
        The test scores; empty where `test` is None.

    Raises:
        TrainingDivergedError: At the first step whose loss or gradient is NaN or infinite.
    """
    steps = -(-len(dataset) // recipe.batch_size) * recipe.epochs  # type: ignore[arg-type]
    with scratch_folder() as scratch:
        trainer = _FitTrainer(
            model,
            TrainingArguments(
                output_dir=str(scratch),
                num_train_epochs=recipe.epochs,
                per_device_train_batch_size=recipe.batch_size,
                per_device_eval_batch_size=max(recipe.batch_size, 128),
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                label_smoothing_factor=recipe.label_smoothing,
                max_grad_norm=recipe.max_grad_norm,
                lr_scheduler_type="cosine",
                warmup_steps=int(recipe.warmup * steps),
                save_strategy="no",
                report_to="none",
                logging_steps=max(int(steps) // 10, 1),
                disable_tqdm=not progress,
                remove_unused_columns=False,
                dataloader_pin_memory=torch.cuda.is_available(),
                seed=seed,
            ),
            train_dataset=dataset,
            eval_dataset=test,
            data_collator=collate,
            linear_probe=recipe.freeze_encoder,
            recipe=recipe,
        )
        trainer.train()
        if history is not None:
            history += [
                {key: entry[key] for key in ("epoch", "loss")}
                for entry in trainer.state.log_history
                if "loss" in entry
            ]
        scores = trainer.evaluate(metric_key_prefix="test") if test is not None else {}
    model.eval()
    return {name.removeprefix("test_"): value for name, value in scores.items()}
