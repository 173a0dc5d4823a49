"""Checkpoints: the ones that ship, the authors' own, and their cards."""

from .convert import CheckpointError, convert_checkpoint, save_original
from .registry import CheckpointInfo, CheckpointLoadError, checkpoint_path, list_checkpoints

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "CheckpointLoadError",
    "checkpoint_path",
    "convert_checkpoint",
    "list_checkpoints",
    "save_original",
]
