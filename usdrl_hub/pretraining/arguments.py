"""Arguments of pretraining: those of the trainer, and how a run computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_greater_or_equal


@dataclass(frozen=True)
class ComputeOptions:
    """How a pretraining run computes, for the memory and the processors at hand.

    Attributes:
        micro_batch_size: See `PretrainingArguments`.
        activation_checkpointing: Compute activations again in the backward pass: less memory, more time.
        compile_encoder: See `PretrainingArguments`.
        in_memory: See `PretrainingDataset`.
        workers: Processes that read sequences, without `in_memory`.
        stream: Read data while training, those of the hub over the network, without a copy on disk or in memory; the
            order is drawn by blocks, see `PretrainingDataset`, also that of local data.
        progress: Show bars.
    """

    micro_batch_size: int | None = None
    activation_checkpointing: bool = False
    compile_encoder: bool = False
    in_memory: bool = True
    workers: int = 0
    progress: bool = False
    stream: bool = False


@dataclass
class PretrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with those of `USDRLPreTrainer`.

    `remove_unused_columns` is always False, and `dataloader_drop_last` True.

    Attributes:
        micro_batch_size: Clips encoded at once; the whole batch where None. Gradients are those of the whole batch.
        compile_encoder: Compile both streams with `torch.compile` during `train`: the first step takes a minute
            longer, each later one a third less on a GPU. Results differ by rounding; random numbers are the same.
        adam: Use Adam with plain weight decay, as the release does, in place of `optim`.
        drop_epochs: Finished epochs after which the learning rate is a tenth of what it was; `lr_scheduler_type` where
            None.
        consistency: Weight of the consistency between the fused and each single modality, for models of several.
        probe_epochs: Epochs between probes.
        collapse_loss: A loss above this is a collapse.

    Raises:
        ValueError: If gradients are to be accumulated, several devices are visible to one process, a number is
            impossible, or batches are encoded in parts by an encoder that a torch below 2.13 compiles.
    """

    micro_batch_size: int | None = None
    compile_encoder: bool = False
    adam: bool = False
    drop_epochs: list[int] | None = None
    consistency: float = 1.0
    probe_epochs: int = 1
    collapse_loss: float = 1e4

    def __post_init__(self) -> None:
        """Refuse what changes the loss, which is a statistic of the whole batch."""
        super().__post_init__()
        self.remove_unused_columns, self.dataloader_drop_last = False, True
        if self.gradient_accumulation_steps > 1:
            raise ValueError(
                "gradient_accumulation_steps changes this loss, which is a statistic of the whole batch: leave it at "
                "1 and give micro_batch_size to encode a batch in parts"
            )
        if self.n_gpu > 1:
            raise ValueError(
                f"{self.n_gpu} devices are visible to one process, which would split the batch: start one process per "
                f"device with 'torchrun --nproc-per-node {self.n_gpu} -m usdrl_hub.cli pretrain ...', or hide all but "
                "one with CUDA_VISIBLE_DEVICES"
            )
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise ValueError(f"micro_batch_size must be at least 1, got {self.micro_batch_size}")
        if self.compile_encoder and self.micro_batch_size is not None and not is_torch_greater_or_equal("2.13"):
            raise ValueError(
                f"torch {torch.__version__} draws other random numbers where a compiled encoder computes a part of a "
                "batch again: leave one of compile_encoder and micro_batch_size out, or install torch 2.13"
            )

    @property
    def global_batch_size(self) -> int:
        """Clips of a step, over all processes."""
        return self.per_device_train_batch_size * max(self.world_size, 1)
