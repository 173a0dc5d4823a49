"""How a model of a number is trained: ridge regression on frozen features or full fine-tuning, by validation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..data.clips import ClipDataset
from ..data.dataset import SkeletonData
from ..data.splits import Parts
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.embedding import embed_part
from ..modeling_usdrl import USDRLForActionRecognition
from .choice import FULL, TITLES
from .console import Console
from .fit import FitRecipe, Progress, fit
from .state import RunState

# Crops and shears of clips would change the number that is to be found.
VALUES = replace(FULL, label_smoothing=0.0, augment=False)
# Penalties of the linear probe, of which the validation part chooses; the middle one without a validation part.
_PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)


class ValueDataset(ClipDataset):
    """Clips with a number each."""

    def __init__(self, sequences: SkeletonData, feature_extractor: USDRLFeatureExtractor, values: np.ndarray):
        """Wrap labelled sequences and their numbers ``(N,)``."""
        super().__init__(sequences, feature_extractor)
        self.values = values.astype(np.float32)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Several clips at once; `labels` are the numbers."""
        items: list[dict[str, Any]] = [dict(item) for item in super().__getitems__(indices)]
        for item, index in zip(items, indices, strict=True):
            item["labels"] = float(self.values[index])
        return items


def fit_ridge(features: torch.Tensor, values: np.ndarray, penalty: float) -> tuple[torch.Tensor, float]:
    """The weights ``(D,)`` and the bias of a ridge regression on standardised features.

    Args:
        features: ``(N, D)``.
        values: ``(N,)``.
        penalty: Factor of the squared norm of the weights, added to the summed squared error.
    """
    rows, targets = features.double().cpu(), torch.as_tensor(values, dtype=torch.float64)
    mean, deviation = rows.mean(0), rows.std(0, unbiased=False)
    deviation = torch.where(deviation < 1e-9, 1.0, deviation)
    standard, center = (rows - mean) / deviation, targets.mean()
    gram = standard.T @ standard + penalty * torch.eye(standard.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, standard.T @ (targets - center)) / deviation
    return weight, float(center - weight @ mean)


@dataclass
class ValueTraining:
    """The training of a model of one number.

    Attributes:
        model: A recogniser with one output; it is trained in place.
        extractor: Its feature extractor.
        recipe: Of full fine-tuning.
        seed: Random seed of the order.
        console: What is shown.
        state: Keeps what is done, so that a run that was killed goes on; None for none.
        key: Name of this training in the state.
        name: Of the model, in logs.
        validation: Mean absolute errors on the validation part by method, with the number of its clips as `n`.
        history: See `Progress`.
        stopped: Whether Ctrl-C ended the training.
    """

    model: USDRLForActionRecognition
    extractor: USDRLFeatureExtractor
    recipe: FitRecipe
    seed: int
    console: Console
    state: RunState | None = None
    key: str = "main"
    name: str = ""
    validation: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    stopped: bool = False

    def run(self, parts: Parts, tried: Parts, targets: dict[str, np.ndarray], method: str) -> tuple[str, str]:
        """Train on the training part, by the method that validates better; returns the method and the reason."""
        penalty, reason, epochs = _PENALTIES[2], "as asked for", self.recipe.epochs_for(len(parts.train))
        if tried.validation is None:
            method, reason = ("linear", "no clip can be spared to validate") if method == "auto" else (method, reason)
        else:
            truth = targets["validation"]
            errors = {}
            for value in _PENALTIES:
                self._probe(self.model, tried.train, targets["tried"], value)
                errors[value] = self._error(self.model, tried.validation, truth)
            penalty = min(errors, key=lambda value: errors[value])
            self.validation |= {"n": float(len(truth)), TITLES["linear"]: errors[penalty]}
            if method == "auto":
                model, done = self._trial(tried, targets, penalty)
                self.validation[TITLES["full"]] = self._error(model, tried.validation, truth)
                method = min(("linear", "full"), key=lambda name: self.validation[TITLES[name]])
                reason = f"mean absolute error on {len(truth)} validation clips: " + ", ".join(
                    f"{TITLES[name]} {self.validation[TITLES[name]]:.4g}" for name in ("linear", "full")
                )
                whole = self.recipe.epochs_for(len(tried.train))
                epochs *= done / whole
                if self.stopped:
                    reason += f"; stopped by Ctrl-C at epoch {done:.1f} of {whole:g}, the best so far is kept"
                if self.stopped and method == "full":
                    self.model.load_state_dict(model.state_dict())
                    self.model.eval()
                    return method, reason
        self.console.say(f"{TITLES[method]}: {reason}")
        if method == "linear":
            self._probe(self.model, parts.train, targets["train"], penalty)
            return method, reason
        progress = self._full("final", self.model, parts.train, targets["train"], penalty, epochs=epochs)
        # The curves of a trial have a validation part.
        self.history = self.history or progress.history
        if progress.stopped:
            self.stopped = True
            reason += f"; stopped by Ctrl-C at epoch {progress.epochs:.1f} of {epochs:g}, the last weights are kept"
        return method, reason

    def _trial(
        self, tried: Parts, targets: dict[str, np.ndarray], penalty: float
    ) -> tuple[USDRLForActionRecognition, float]:
        """The full model that validates best, trained without the validation part, and its epochs."""
        model = copy.deepcopy(self.model)
        done = None if self.state is None else self.state.load(f"{self.key}/trial")
        if done is not None:
            values, tensors = done
            model.load_state_dict(tensors)
            self.history = values["history"]
            return model.eval(), values["epochs"]
        assert tried.validation is not None
        tested = tried.validation, targets["validation"]
        progress = self._full("trial", model, tried.train, targets["tried"], penalty, validation=tested)
        self.history, self.stopped = progress.history, progress.stopped
        if self.state is not None and not progress.stopped:
            values = {"history": progress.history, "epochs": progress.epochs}
            self.state.save(f"{self.key}/trial", values, dict(model.state_dict()))
        return model, progress.epochs

    def predict(self, model: USDRLForActionRecognition, data: SkeletonData) -> np.ndarray:
        """The number ``(N,)`` of each clip."""
        features, _ = embed_part(model, self.extractor, data, pooled=True)
        with torch.inference_mode():
            return model.classifier(features.to(model.device))[:, 0].float().cpu().numpy()

    def _error(self, model: USDRLForActionRecognition, data: SkeletonData, values: np.ndarray) -> float:
        return float(np.abs(self.predict(model, data) - values).mean())

    def _probe(self, model: USDRLForActionRecognition, data: SkeletonData, values: np.ndarray, penalty: float) -> None:
        features, _ = embed_part(model, self.extractor, data, pooled=True)
        weight, bias = fit_ridge(features, values, penalty)
        with torch.no_grad():
            model.classifier.weight.copy_(weight[None])
            model.classifier.bias.fill_(bias)
        model.eval()

    def _full(
        self,
        key: str,
        model: USDRLForActionRecognition,
        data: SkeletonData,
        values: np.ndarray,
        penalty: float,
        *,
        validation: tuple[SkeletonData, np.ndarray] | None = None,
        epochs: float | None = None,
    ) -> Progress:
        """Train all weights on standardised numbers, from the linear probe."""
        # Without the clips that validate, all numbers may be the same.
        center, scale = float(values.mean()), float(values.std()) or 1.0
        folder = None if self.state is None else self.state.folder(f"{self.key}/{key}")
        self._probe(model, data, (values - center) / scale, penalty)
        recipe = self.recipe if epochs is None else replace(self.recipe, epochs=epochs, min_steps=0)
        tested = None
        if validation is not None:
            tested = ValueDataset(validation[0], self.extractor, (validation[1] - center) / scale)
        progress = fit(
            model,
            ValueDataset(data, self.extractor, (values - center) / scale),
            recipe,
            seed=self.seed,
            validation=tested,
            progress=Progress(self.console.bar, self.console.report_to, folder, f"{self.name}/{self.key}/{key}"),
        )
        with torch.no_grad():
            model.classifier.weight.mul_(scale)
            model.classifier.bias.mul_(scale).add_(center)
        return progress
