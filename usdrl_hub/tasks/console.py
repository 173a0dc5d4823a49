"""What is shown during a training: sentences, progress bars, and where transformers logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from ..data.dataset import SkeletonData
from ..errors import notice

_LOGGERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True)
class Console:
    """What is shown during a training.

    Attributes:
        say: Receives sentences: the split, the clips of each class, what is decided.
        warn: Receives the warnings about the model.
        bar: Show progress bars.
        report_to: Where transformers logs: "none", "tensorboard", "trackio" or "wandb".
        resume: Go on with a run that was killed, if its settings are the same.
    """

    say: Callable[[str], None] = lambda text: None
    warn: Callable[[str], None] = lambda text: notice(text, "warnings about the model")
    bar: bool = True
    report_to: str = "none"
    resume: bool = True

    def check(self, name: str) -> None:
        """Refuse a logger that is not there; the logs of tensorboard go to ``runs/NAME`` where nothing else is set.

        Raises:
            ValueError: If it is unknown or not installed.
        """
        if self.report_to == "none":
            return
        if self.report_to not in _LOGGERS:
            raise ValueError(f"report_to must be one of {', '.join(_LOGGERS)} or none, got '{self.report_to}'")
        if find_spec(self.report_to) is None:
            raise ValueError(f"{self.report_to} is not installed: pip install {self.report_to}")
        if self.report_to == "tensorboard":
            os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"runs/{name}")


def duration(seconds: float) -> str:
    """A duration in words, rounded."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def say_classes(
    say: Callable[[str], None], train: SkeletonData, test: SkeletonData | None = None, *, balance: bool = False
) -> None:
    """Say how many clips each class has, and what to do where that looks wrong.

    Args:
        say: Receives the sentences.
        train: Training part.
        test: Test part; None with folds.
        balance: Whether classes are weighted alike.
    """
    names = train.class_names
    trained, *tested = (
        np.bincount(np.asarray(part.column("labels")), minlength=len(names))
        for part in (train, test)
        if part is not None
    )
    shown = [f"{name} {'/'.join(map(str, counts))}" for name, *counts in zip(names, trained, *tested, strict=True)]
    say(f"clips of each class{', training/test' if tested else ''}: {', '.join(shown)}")
    if _are_measurements(names):
        say("the classes are numbers: to find a number of each clip, name the column that holds it with --target")
    if not balance and trained.max() >= 10 * max(trained[trained > 0].min(), 1):
        say("the classes differ much in their number of clips: --balance weights them alike")


def _are_measurements(names: Sequence[str]) -> bool:
    """Whether all names are numbers, and not only whole ones."""
    try:
        return any(float(name) % 1 for name in names)
    except ValueError:
        return False
