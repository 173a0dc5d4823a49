"""`USDRLPreTrainer`: self-supervised pretraining that can be stopped and resumed, and detects collapse."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._dynamo.exc import TorchDynamoException
from torch.utils.checkpoint import get_device_states, set_device_states
from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from ..errors import PretrainingCollapseError
from ..modeling_usdrl import USDRLForPreTraining, USDRLTokenStream
from ..ragged import RaggedFrames
from ..resume import STAGING, StopOnSignal, find_checkpoint, move_checkpoint
from ..training import PublishingTrainer
from .arguments import PretrainingArguments
from .data import BlockSampler, PretrainingDataset
from .gather import gather_clips
from .losses import MultiGrainedFeatureDecorrelation, autocovariance, similarity, variance
from .views import ViewAugmentation

# A feature with a smaller standard deviation over views and clips is dead.
_DEAD = 1e-4


def compile_streams(model: torch.nn.Module) -> None:
    """Compile both streams of a model's encoder at their first call."""
    # Both count together, each with and without gradients, for every modality and a smaller last part of a batch.
    # By its older name, which every torch knows.
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
    for stream in _streams(model):
        # torch's own random numbers, which are kept in checkpoints and drawn again for cached gradients.
        stream.compile(dynamic=False, options={"fallback_random": True})


@contextmanager
def compiled_streams(model: torch.nn.Module) -> Iterator[None]:
    """Run a block with both streams compiled; afterwards the model takes batches of any size without compiling.

    Raises:
        ValueError: If the encoder cannot be compiled here.
    """
    compile_streams(model)
    try:
        yield
    except TorchDynamoException as error:
        # Advice to developers of torch follows after an empty line.
        reason = " ".join(str(error).partition("\n\n")[0].split())
        raise ValueError(
            f"the encoder cannot be compiled here: {reason}: do not compile it, or install what is missing"
        ) from error
    finally:
        for stream in _streams(model):
            stream._compiled_call_impl = None


def _streams(model: torch.nn.Module) -> list[USDRLTokenStream]:
    return [module for module in model.modules() if isinstance(module, USDRLTokenStream)]


class USDRLPreTrainer(PublishingTrainer):
    """`transformers.Trainer` for multi-grained feature decorrelation and multi-modal consistency.

    The loss is a statistic of the whole batch. Over several processes (``torchrun``, ``accelerate launch``) the
    embeddings are gathered, so that the loss is that of the global batch; batches larger than memory are encoded in
    parts of `micro_batch_size` whose gradients are cached, which gives the gradient of the whole batch.

    Checkpoints are written completely or not at all. Views are drawn from the seed, the step and each clip's number,
    so a run that was stopped and resumed ends with the same weights.

    Args:
        model: The model.
        args: Arguments.
        train_dataset: Motion.
        loss: The loss; that of the TPAMI release where None.
        views: How views are drawn; as the TPAMI release where None.
        probe: Called with the model every `args.probe_epochs` epochs; what it returns is logged, see `NeighbourProbe`.
        **kwargs: Further arguments of `transformers.Trainer`.

    Raises:
        ValueError: If a batch is larger than the data, views have another length than the model's clips, or an encoder
            is to be compiled whose activations are computed again.
    """

    _error = PretrainingCollapseError
    _whose, _how = "the model", "collapsed"
    args: PretrainingArguments

    def __init__(
        self,
        model: USDRLForPreTraining,
        args: PretrainingArguments,
        train_dataset: PretrainingDataset,
        *,
        loss: MultiGrainedFeatureDecorrelation | None = None,
        views: ViewAugmentation | None = None,
        probe: Callable[[USDRLForPreTraining], dict[str, float]] | None = None,
        **kwargs: Any,
    ):
        """Set the trainer up; see the class."""
        if not isinstance(args, PretrainingArguments):
            raise ValueError(f"args must be PretrainingArguments, got {type(args).__name__}")
        if args.compile_encoder and (args.activation_checkpointing or model.is_gradient_checkpointing):
            raise ValueError(
                "an encoder that is compiled draws other random numbers where activations are computed again: leave "
                "one of compile_encoder and activation_checkpointing out; micro_batch_size saves memory, too"
            )
        total = args.global_batch_size
        if total > len(train_dataset):
            raise ValueError(
                f"a batch of {total} clips is larger than the {len(train_dataset)} there are: lower the batch size"
            )
        if total < 2:
            raise ValueError("the loss compares clips, so a batch needs at least 2")
        self.decorrelation = loss or MultiGrainedFeatureDecorrelation()
        self.views = views or ViewAugmentation(num_frames=model.config.num_frames)
        if self.views.num_frames != model.config.num_frames:
            raise ValueError(f"views have {self.views.num_frames} frames, but the model {model.config.num_frames}")
        self.probe = probe
        self._parts: dict[str, list[float]] = {}
        # A few views of the last step, with which the weights are tried before they are saved.
        self._views: torch.Tensor | None = None
        self._saving = False
        self._signals = StopOnSignal()
        super().__init__(
            model=model, args=args, train_dataset=train_dataset, data_collator=PretrainingDataset.collate, **kwargs
        )
        self.add_callback(self._signals)
        self.add_callback(_Epochs(train_dataset))
        if probe is not None:
            self.add_callback(_Probing(self))

    # -- the loss

    def draw(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Views ``(n, B, T, M, V, C)`` of a ragged batch, on its device."""
        batch = RaggedFrames(inputs["frames"], inputs["lengths"])
        views = self.views(batch, inputs["clips"], self.args.seed, self.state.global_step)
        self._views = views[:, :2]
        return views

    def losses(self, fused: Any, single: Sequence[Any] = ()) -> dict[str, torch.Tensor]:
        """The loss and its parts.

        Args:
            fused: Projections of the views, see `USDRLForPreTrainingOutput`.
            single: Those of each modality alone.
        """
        names = ("temporal_projection", "spatial_projection", "instance_projection")
        parts = self.decorrelation(*(fused[name] for name in names))
        if single:
            weights = (self.decorrelation.temporal, self.decorrelation.spatial, self.decorrelation.instance)
            consistency = sum(
                weight * self._consistency(fused[name].float(), modality[name].float())
                for modality in single
                for name, weight in zip(names, weights, strict=True)
            ) / len(single)
            parts["consistency"] = consistency  # type: ignore[assignment]
            parts["loss"] = parts["loss"] + self.args.consistency * consistency
        return parts

    def _consistency(self, fused: torch.Tensor, single: torch.Tensor) -> torch.Tensor:
        """Similarity of the fused features of each view to those of one modality, which are decorrelated, too."""
        weights = self.decorrelation
        alike = sum(similarity(torch.stack(pair)) for pair in zip(fused, single, strict=True))
        return (
            weights.similarity * alike  # type: ignore[operator]
            + weights.variance * variance(single)
            + weights.autocovariance * autocovariance(single)
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch, from views drawn of it."""
        # One call for all modalities: distributed training counts each parameter once per call.
        gather = gather_clips if model.training else None
        fused = model(self.draw(inputs), modalities=self._single_modalities(), gather=gather)
        parts = self.losses(fused, list((fused.get("modalities") or {}).values()))
        self._note(parts, fused)
        return (parts["loss"], fused) if return_outputs else parts["loss"]

    def _single_modalities(self) -> list[str]:
        names: list[str] = self.model.config.modalities  # type: ignore
        return names if len(names) > 1 else []

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One step's gradients; in parts, with cached gradients, where the batch is larger than `micro_batch_size`."""
        size = self.args.micro_batch_size
        if size is None or size >= len(inputs["lengths"]):
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        views = self.draw(self._prepare_inputs(inputs))
        bare = self.accelerator.unwrap_model(model)
        parts = views.split(size, dim=1)
        inputs_of = [None, *self._single_modalities()]
        states: list[tuple] = []
        pooled: list[torch.Tensor] = []
        # First without gradients, keeping the random states from which stochastic depth is drawn.
        with torch.no_grad(), self.compute_loss_context_manager():
            for modality in inputs_of:
                encoded = []
                for part in parts:
                    states.append((torch.get_rng_state(), *get_device_states(part)))
                    encoded.append(bare.encode_views(part, modality=modality))
                pooled.append(torch.cat(encoded, dim=1))
        leaves = [features.detach().requires_grad_() for features in pooled]
        # Gradients are averaged over processes below, once all of them are computed.
        with model.no_sync() if hasattr(model, "no_sync") else nullcontext():
            with self.compute_loss_context_manager():
                projections = [bare.project(gather_clips(features)) for features in leaves]
                losses = self.losses(projections[0], projections[1:])
            self._note(losses, projections[0])
            self.accelerator.backward(losses["loss"])
            for modality, features in zip(inputs_of, leaves, strict=True):
                for part, gradient in zip(parts, features.grad.split(size, dim=1), strict=True):  # type: ignore[union-attr]
                    random, devices, device_states = states.pop(0)
                    with torch.random.fork_rng(devices=devices), self.compute_loss_context_manager():
                        torch.set_rng_state(random)
                        set_device_states(devices, device_states)
                        encoded = bare.encode_views(part, modality=modality)
                    encoded.backward(gradient)
        if self.args.world_size > 1:
            for parameter in bare.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.args.world_size
        self._note_loss(losses["loss"])
        return losses["loss"].detach()

    def _note(self, parts: dict[str, torch.Tensor], output: Any) -> None:
        """Keep the parts for the log, and stop if the model has collapsed."""
        features = output["pooler_output"].detach().flatten(0, 1).float()
        dead = (features.std(dim=0) < _DEAD).float().mean()
        names = [*parts, "dead_features"]
        # One transfer from the device for all.
        values = torch.stack([*(part.detach().float() for part in parts.values()), dead]).tolist()
        for name, value in zip(names, values, strict=True):
            if name != "loss":
                self._parts.setdefault(name, []).append(value)
        loss = values[names.index("loss")]
        if not loss < self.args.collapse_loss:
            limit = "is not a number" if loss != loss else f"is {loss:.4g}, above {self.args.collapse_loss:g}"
            raise self.diverged(f"the loss {limit}")
        if values[-1] > 0.9:
            raise self.diverged(f"{100 * values[-1]:.0f} % of the features are the same for all clips")

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if getattr(dataset, "blocks", None) is not None:
            return BlockSampler(dataset)  # type: ignore[arg-type]
        return super()._get_train_sampler(train_dataset)

    def last_checkpoint(self) -> str | None:
        """The newest whole checkpoint of the run; None where there is none."""
        last = find_checkpoint(self.args.output_dir)  # type: ignore[arg-type]
        return str(last) if last else None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the mean of each part of the loss since the last log."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._parts.items()}
            self._parts = {}
        super().log(logs, *args, **kwargs)

    # -- the schedule

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Adam over all parameters where the arguments have `adam`, else their `optim`."""
        arguments = self.args
        if arguments.adam and self.optimizer is None:
            self.optimizer = torch.optim.Adam(
                [parameter for parameter in (model or self.model).parameters() if parameter.requires_grad],  # type: ignore
                lr=arguments.learning_rate,
                betas=(arguments.adam_beta1, arguments.adam_beta2),
                eps=arguments.adam_epsilon,
                weight_decay=arguments.weight_decay,
                fused=arguments.device.type == "cuda",
            )
            return self.optimizer
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The drops of `drop_epochs`, else the arguments' `lr_scheduler_type`."""
        if self.args.drop_epochs is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        steps = len(self.train_dataset) // self.args.global_batch_size  # type: ignore[arg-type]
        drops = [steps * number for number in self.args.drop_epochs]
        warmup = self.args.get_warmup_steps(num_training_steps)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,  # type: ignore[arg-type]
            lambda step: min(1.0, (step + 1) / (warmup + 1)) * 0.1 ** sum(step >= drop for drop in drops),
        )
        return self.lr_scheduler

    # -- stopping and resuming

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `transformers.Trainer`; SIGTERM and Ctrl-C save a checkpoint and stop, a second one at once."""
        if self.args.should_save:
            shutil.rmtree(Path(self.args.output_dir) / STAGING, ignore_errors=True)  # type: ignore[arg-type]
        compiled = compiled_streams(self.model) if self.args.compile_encoder else nullcontext()  # type: ignore[arg-type]
        with self._signals.listening(), compiled:
            return super().train(*args, **kwargs)

    @property
    def stopped_by(self) -> int | None:
        """The signal that stopped the last training, or None."""
        return self._signals.received

    def _get_output_dir(self, trial: Any) -> str:
        run = super()._get_output_dir(trial)
        return os.path.join(run, STAGING) if self._saving else run

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint into a staging folder, and move it to the others when it is complete."""
        run = Path(super()._get_output_dir(trial))
        self.check_weights()
        self._refuse_collapsed()
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                move_checkpoint(run, self.state.global_step)
                rotate_checkpoints(output_dir=str(run), save_total_limit=self.args.save_total_limit)
            self.accelerator.wait_for_everyone()
        except Exception as error:
            # torch and safetensors have exceptions of their own for a disk that is full.
            last = find_checkpoint(run)
            kept = f"{last} is the last whole one" if last else "there is none yet"
            reason = " ".join(str(error).split())[:200]
            raise OSError(
                f"{run}: the checkpoint of step {self.state.global_step} cannot be written: {reason}; {kept}"
            ) from None
        finally:
            self._saving = False
            if self.args.should_save:
                shutil.rmtree(run / STAGING, ignore_errors=True)

    def _refuse_collapsed(self) -> None:
        """Refuse to save weights that the last step has broken: its loss was that of the weights before it."""
        if self._views is None:
            return
        bare = self.accelerator.unwrap_model(self.model)
        buffers = {name: buffer.clone() for name, buffer in bare.named_buffers()}
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        # Running statistics and random numbers stay as they were.
        with (
            torch.random.fork_rng(devices=devices),
            torch.no_grad(),
            self.compute_loss_context_manager(),
            torch.compiler.set_stance("force_eager"),
        ):
            loss = self.losses(bare.train()(self._views, gather=gather_clips))["loss"]
        for name, buffer in bare.named_buffers():
            buffer.copy_(buffers[name])
        if not torch.isfinite(loss):
            raise self.diverged("the loss would not be a number any more", self.state.global_step)


class _Epochs(TrainerCallback):
    """Tell the data set which epoch begins, also in a resumed run."""

    def __init__(self, dataset: PretrainingDataset):
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.dataset.set_epoch(int(state.epoch or 0))


class _Probing(TrainerCallback):
    """Log what the probe measures, every few epochs."""

    def __init__(self, trainer: USDRLPreTrainer):
        self.trainer = trainer

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if round(state.epoch) % trainer.args.probe_epochs or not state.is_world_process_zero:
            return
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.eval()
        # Not compiled: each size of its batches would be compiled anew.
        with torch.compiler.set_stance("force_eager"):
            trainer.log(trainer.probe(model))  # type: ignore[misc]
        model.train()
