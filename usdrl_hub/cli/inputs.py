"""Early refusal of inputs that cannot be read, before torch and transformers are imported."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..data.readers import is_video, iter_skeletons
from ..data.reading import Reading
from ..data.remote import is_address
from ..errors import CheckpointLoadError
from ..facts.checkpoints import checkpoint_path

# Size in bytes of a file at most that is read twice: here and for the model.
_LARGEST = 1 << 26


def refuse_unreadable(files: Sequence[Path], model: str, reading: Reading) -> None:
    """Read the first recording of a single file as a model would.

    Nothing is done for several files, of which unreadable ones are skipped later, and for large files.

    Args:
        files: Input files.
        model: Checkpoint; nothing is done for one that is not on this machine.
        reading: What the files do not say; the model's choice where a field is unset.

    Raises:
        SkeletonFormatError: If there is no such file, or it cannot be read.
    """
    if len(files) != 1 or files[0].is_dir() or is_video(files[0]) or is_address(files[0]):
        return
    name = model.split(",")[0]
    try:
        folder = Path(name) if Path(name).is_dir() else checkpoint_path(name)
        declared = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    except (CheckpointLoadError, OSError, ValueError):
        return
    if files[0].exists() and files[0].stat().st_size > _LARGEST:
        return
    with warnings.catch_warnings():
        # Warnings are issued when the file is read for the model.
        warnings.simplefilter("ignore")
        expected = declared.get("source_layout") or declared.get("layout") or "ntu25"
        reading = reading.with_defaults(expected, declared.get("missing", "refuse"))
        next(iter_skeletons(files[0], reading), None)
