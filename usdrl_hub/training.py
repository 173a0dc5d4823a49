"""`USDRLTrainer`: supervised training of USDRL heads, full fine-tuning or linear probe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from huggingface_hub import HfApi
from transformers import EvalPrediction, Trainer, TrainerCallback
from transformers.trainer_utils import sort_checkpoints

from .errors import CheckpointLoadError, TrainingDivergedError, notice
from .feature_extraction_usdrl import USDRLFeatureExtractor
from .finite import check_finite
from .loading import extractor_of
from .metrics.classification import accuracy, multilabel_metrics, regression_metrics
from .modeling_usdrl import USDRLClassificationModel, USDRLPreTrainedModel
from .speedups import in_training
from .weights import share

# Scaling of losses in float16 halves at each gradient that is not finite; below this it will find none that is.
_SMALLEST_SCALE = 2.0**-14


def default_scores(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics of a head's predictions, by the type of its labels.

    Args:
        prediction: Logits and labels. Integer labels ``(...)`` are classes. Floating labels ``(N,)`` or ``(N, 1)``
            with logits ``(N, 1)`` are a regression's, and ``(N, K)`` those of several classes per clip.

    Returns:
        `metrics.classification.accuracy` of classes, `regression_metrics` of a regression, `multilabel_metrics` of
        several classes per clip.

    Raises:
        NonFiniteError: If a logit is NaN or infinite.
        ValueError: If there is nothing to score.
    """
    found, labels = prediction.predictions, np.asarray(prediction.label_ids)
    logits = np.asarray(found[0] if isinstance(found, tuple) else found)
    if not np.issubdtype(labels.dtype, np.floating):
        return accuracy(logits, labels)
    if not len(labels):
        raise ValueError("there is no label to score against")
    check_finite(logits, "the logits that are scored")
    return regression_metrics(logits, labels) if logits.shape[-1] == 1 else multilabel_metrics(logits, labels)


class GuardedTrainer(Trainer):
    """A trainer that stops at the first step whose loss or gradient is NaN or infinite, before the weights change.

    transformers' own goes on: it leaves such losses out of its log (`logging_nan_inf_filter`) and saves broken
    weights. Overflowing gradients in float16 are no divergence: the step is skipped, and the loss scale lowered. All
    processes of a distributed run stop at the same step.
    """

    _error: type[TrainingDivergedError] = TrainingDivergedError
    _whose, _how = "training", "diverged"

    def __init__(self, *args: Any, **kwargs: Any):
        """Set the trainer up; see `transformers.Trainer`."""
        super().__init__(*args, **kwargs)
        # The filter hides such losses, and waits for the device in every step.
        self.args.logging_nan_inf_filter = False
        self._loss_is_bad: torch.Tensor | None = None
        self._norm: Any = None
        self.add_callback(_StopOnDivergence(self))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One step's gradients; `check_step` checks the loss before the weights change."""
        loss = super().training_step(*args, **kwargs)
        self._note_loss(loss)
        return loss

    def _note_loss(self, loss: torch.Tensor) -> None:
        bad = ~torch.isfinite(loss.detach()).all()
        self._loss_is_bad = bad if self._loss_is_bad is None else self._loss_is_bad | bad

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Keep the norm that transformers computes, for `check_step`."""
        self._norm = super()._get_grad_norm(*args, **kwargs)
        return self._norm

    def check_step(self) -> None:
        """Check the loss and the gradient of a step before the weights change.

        Raises:
            TrainingDivergedError: If one is NaN or infinite; the message names the step, the learning rate and the
                last checkpoint.
        """
        loss, norm = self._loss_is_bad, self._norm
        self._loss_is_bad = self._norm = None
        if norm is None:
            gradients = [values.grad for values in self.model.parameters() if values.grad is not None]  # type: ignore[union-attr]
            norm = torch.nn.utils.get_total_norm(gradients)
        # One transfer from the device for both.
        device = loss.device if loss is not None else self.args.device
        norm_is_bad = ~torch.isfinite(torch.as_tensor(norm, device=device)).all()
        flags = torch.stack([loss if loss is not None else torch.zeros_like(norm_is_bad), norm_is_bad])
        loss_is_bad, gradient_is_bad = self._of_all_processes(flags)
        if loss_is_bad:
            raise self.diverged("the loss is NaN or infinite")
        scaler = getattr(self.accelerator, "scaler", None)
        if gradient_is_bad and (scaler is None or scaler.get_scale() < _SMALLEST_SCALE):
            raise self.diverged("the gradient is NaN or infinite")

    def check_weights(self) -> None:
        """Check the weights after the last step, before they are saved or used.

        Raises:
            TrainingDivergedError: If one is NaN or infinite.
        """
        finite = [torch.isfinite(values.detach()).all() for values in self.model.parameters()]  # type: ignore[union-attr]
        if finite and self._of_all_processes(~torch.stack([part.to(finite[0].device) for part in finite]).all())[0]:
            raise self.diverged("weights are NaN or infinite after it", self.state.global_step)

    def _of_all_processes(self, flags: torch.Tensor) -> list[bool]:
        """Whether each flag is set in any process."""
        flags = flags.flatten().to(torch.int32)
        if self.args.world_size > 1 and dist.is_available() and dist.is_initialized():
            flags = flags.to(self.args.device)
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def diverged(self, what: str, step: int | None = None) -> TrainingDivergedError:
        """The error of a divergence.

        Args:
            what: The fault, as a clause.
            step: Number of the step; the next where None.
        """
        step = self.state.global_step + 1 if step is None else step
        rate = self.optimizer.param_groups[0]["lr"] if self.optimizer is not None else self.args.learning_rate
        last = self.last_checkpoint()
        return self._error(
            f"step {step}: {what}: at a learning rate of {float(rate):g} {self._whose} has {self._how}; {_kept(last)}"
            "; try a lower learning rate or a longer warm-up",
            step,
            float(rate),
            last,
        )

    def last_checkpoint(self) -> str | None:
        """The newest checkpoint that this run has written or resumed from; None where there is none."""
        folder = self.args.output_dir
        found = sort_checkpoints(folder) if folder and os.path.isdir(folder) else []
        steps = [(int(Path(path).name.rpartition("-")[2]), path) for path in found]
        return next((path for step, path in reversed(steps) if step <= self.state.global_step), None)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `transformers.Trainer`.

        Raises:
            TrainingDivergedError: If a loss, a gradient or a weight is NaN or infinite.
        """
        self._loss_is_bad = self._norm = None
        try:
            with in_training(self.model):  # type: ignore[arg-type]
                return super().train(*args, **kwargs)
        except TrainingDivergedError:
            # The error starts on a new line.
            for callback in self.callback_handler.callbacks:
                if (bar := getattr(callback, "training_bar", None)) is not None:
                    bar.close()
            raise

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.check_weights()
        super()._save_checkpoint(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Predict and score as `transformers.Trainer`.

        Raises:
            NonFiniteError: If a prediction or the loss is NaN or infinite.
        """
        output = super().evaluation_loop(*args, **kwargs)
        for values in _arrays(output.predictions):
            check_finite(values, "the model's predictions")
        for name, value in (output.metrics or {}).items():
            if name.endswith("_loss"):
                check_finite(value, name)
        return output


def _arrays(predictions: Any) -> Iterator[np.ndarray]:
    """The arrays in nested predictions."""
    if isinstance(predictions, np.ndarray):
        yield predictions
    elif isinstance(predictions, tuple | list):
        for part in predictions:
            yield from _arrays(part)


def _kept(checkpoint: str | None) -> str:
    return f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"


class _StopOnDivergence(TrainerCallback):
    """Checks each step before the weights change, and the weights after the last step."""

    def __init__(self, trainer: GuardedTrainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.check_step()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.check_weights()


class PublishingTrainer(GuardedTrainer):
    """A trainer whose `push_to_hub` publishes as `usdrl push` does: one complete commit, and no pickle.

    transformers' own uploads the pickle ``training_args.bin``, and a card without results.

    The feature extractor is saved with the model: `processing_class`, else that of the data set, else that of the
    checkpoint from which the model was loaded.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        """Set the trainer up; see `transformers.Trainer`."""
        super().__init__(*args, **kwargs)
        if self.processing_class is None:
            self.processing_class = self.callback_handler.processing_class = self._find_extractor()

    def _find_extractor(self) -> Any:
        for dataset in (self.train_dataset, self.eval_dataset):
            for name in ("feature_extractor", "extractor"):
                if isinstance(found := getattr(dataset, name, None), USDRLFeatureExtractor):
                    return found
        model: Any = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(model, USDRLPreTrainedModel):
            return None
        try:
            return extractor_of(model, guess=False)
        except CheckpointLoadError:
            return None

    def _save(self, *args: Any, **kwargs: Any) -> None:
        model: Any = self.accelerator.unwrap_model(self.model)
        for adapter in getattr(model, "peft_config", {}).values():
            # Else they would be loaded with whatever the base is by then.
            adapter.revision = adapter.revision or getattr(model.config, "_commit_hash", None)
        super()._save(*args, **kwargs)
        folder = Path((args[0] if args else kwargs.get("output_dir")) or self.args.output_dir or ".")
        if hasattr(model, "peft_config") and self.args.should_save:
            base = model.get_base_model()
            if isinstance(base, USDRLPreTrainedModel):
                # Adapters are saved without it, and their classes and head may differ from those of the base.
                base.config.save_pretrained(folder)
            for part in (folder, *(folder / name for name in model.peft_config)):
                share(part)
        if self.processing_class is None:
            notice(
                "the model is saved without a feature extractor, because none is known, and 'usdrl predict' refuses "
                "it then: give the trainer the one that made the clips as processing_class",
                "models saved without a feature extractor",
            )

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        create_pr: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Save the model and publish its folder; give the feature extractor to the trainer as `processing_class`.

        Args:
            commit_message: The commit's message.
            blocking: Wait for the upload; otherwise a future is returned.
            token: Access token; the trainer's, else that of ``hf auth login``, where None.
            revision: Branch; the trainer's where None.
            private: Whether a new repository is private; the trainer's choice where None.
            create_pr: Open a pull request instead of committing.
            **kwargs: Other arguments of `hub.publish.publish`, such as `include_optimizer`.

        Returns:
            See `hub.publish.publish`; None on other processes than the first.

        Raises:
            PublishError: See `hub.publish.publish`.
        """
        from .hub.publish import Commit, publish

        args = self.args
        self.callback_handler.on_push_begin(args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        folder = Path(args.output_dir or ".").absolute()
        name = args.hub_model_id or folder.name
        if "/" not in name:
            name = f"{HfApi(token=token or args.hub_token).whoami()['name']}/{name}"
        kwargs["commit"] = Commit(
            commit_message,
            revision or args.hub_revision,
            create_pr,
            args.hub_private_repo if private is None else private,
            token or args.hub_token,
        )
        if blocking:
            return publish(folder, name, **kwargs)
        return HfApi().run_as_future(publish, folder, name, **kwargs)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Do nothing: `push_to_hub` makes the repository."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Do nothing: checkpoints during a run hold pickles, and are not finished."""


class USDRLTrainer(PublishingTrainer):
    """`transformers.Trainer` for USDRL heads.

    Takes any data set that yields `keypoints` ``(T, M, V, C)`` and `labels`; `default_scores` are the metrics.

    Args:
        *args: Those of `transformers.Trainer`.
        linear_probe: Train the head only, with the encoder frozen and in eval mode.
        **kwargs: Those of `transformers.Trainer`.

    Raises:
        ValueError: If the model has no head for a `linear_probe`, or label smoothing would replace a loss that is no
            cross-entropy.
    """

    def __init__(self, *args: Any, linear_probe: bool = False, **kwargs: Any):
        """Set the trainer up; see the class."""
        kwargs.setdefault("compute_metrics", default_scores)
        self.linear_probe = linear_probe
        super().__init__(*args, **kwargs)
        if linear_probe and self.model is not None:
            self._freeze(self.model)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The head's loss, or transformers' smoothed cross-entropy where `label_smoothing_factor` asks for it."""
        if self.label_smoother is not None:
            labels = inputs.get("labels")
            head: Any = self.accelerator.unwrap_model(self.model)
            own = not getattr(head, "loss_is_cross_entropy", True)
            if own or (isinstance(labels, torch.Tensor) and labels.is_floating_point()):
                what = f"the loss of {type(head).__name__}" if own else "the loss of labels that are no classes"
                raise ValueError(f"label_smoothing_factor would replace {what}: leave it at 0")
        return super().compute_loss(model, inputs, *args, **kwargs)

    def call_model_init(self, trial: Any = None) -> torch.nn.Module:
        """Make a model with `model_init`, at each call of `train`; its encoder is frozen for a linear probe."""
        model = super().call_model_init(trial)
        if self.linear_probe:
            self._freeze(model)
        return model

    @staticmethod
    def _freeze(model: torch.nn.Module) -> None:
        if not isinstance(model, USDRLClassificationModel):
            raise ValueError(
                f"a linear probe trains a head, and {type(model).__name__} has none: use a model that has, such as "
                "USDRLForActionRecognition"
            )
        model.freeze_encoder()
