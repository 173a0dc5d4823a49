"""Regression: a number of each clip, such as a quality score or an angle, in place of a class."""

from __future__ import annotations

import copy
import csv
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from ..data.clips import ClipDataset
from ..data.dataset import SkeletonData, open_data, source_name
from ..data.splits import Parts, groups_of, split_data, titled, with_validation
from ..errors import SkeletonFormatError, notice
from ..facts.checkpoints import ENCODER
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_file, new_folder
from ..inference.embedding import embed_part
from ..loading import load_feature_extractor, load_model
from ..metrics.regression import regression_report
from ..modeling_usdrl import USDRLForActionRecognition
from ..records import run_record, sha256, write_metrics
from .choice import FULL, METHODS, TITLES
from .fit import FitRecipe, Progress, fit
from .heads import with_head
from .recognition import Console

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
class _Regression:
    """The training of a model of one number."""

    model: USDRLForActionRecognition
    extractor: USDRLFeatureExtractor
    recipe: FitRecipe
    seed: int
    console: Console
    validation: dict[str, float] = field(default_factory=dict)

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
                model = copy.deepcopy(self.model)
                tested = tried.validation, truth
                progress = self._full(model, tried.train, targets["tried"], penalty, tested, epochs=None)
                self.validation[TITLES["full"]] = self._error(model, tried.validation, truth)
                method = min(("linear", "full"), key=lambda name: self.validation[TITLES[name]])
                reason = f"mean absolute error on {len(truth)} validation clips: " + ", ".join(
                    f"{TITLES[name]} {self.validation[TITLES[name]]:.4g}" for name in ("linear", "full")
                )
                epochs *= progress.epochs / self.recipe.epochs_for(len(tried.train))
        self.console.say(f"{TITLES[method]}: {reason}")
        if method == "linear":
            self._probe(self.model, parts.train, targets["train"], penalty)
        else:
            self._full(self.model, parts.train, targets["train"], penalty, None, epochs)
        return method, reason

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
        model: USDRLForActionRecognition,
        data: SkeletonData,
        values: np.ndarray,
        penalty: float,
        validation: tuple[SkeletonData, np.ndarray] | None,
        epochs: float | None,
    ) -> Progress:
        """Train all weights on standardised numbers, from the linear probe."""
        center, scale = float(values.mean()), float(values.std())
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
            progress=Progress(self.console.bar, self.console.report_to),
        )
        with torch.no_grad():
            model.classifier.weight.mul_(scale)
            model.classifier.bias.mul_(scale).add_(center)
        return progress


def finetune_values(
    data: str | os.PathLike | SkeletonData,
    output_dir: str | os.PathLike,
    target: str,
    model: str | os.PathLike = ENCODER,
    *,
    method: str = "auto",
    recipe: FitRecipe = VALUES,
    group_by: str | None = None,
    console: Console | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Train a model that finds a number of each clip, test it, and write its folder.

    A ridge regression on the frozen encoder's features and full fine-tuning are compared on a validation part of the
    training people; the better one trains on all training clips.

    Args:
        data: A data set with a column of numbers, see `SkeletonStore.column`; clips without a number (NaN) are left
            out, with a warning.
        output_dir: Folder to make: weights, configuration, feature extractor, ``metrics.json``, ``predictions.csv``.
        target: Name of the column.
        model: Checkpoint to start from.
        method: "linear", "full" or "auto".
        recipe: Of full fine-tuning.
        group_by: What is never on both sides of the split, see `split_data`.
        console: What is shown; see `Console`.
        seed: Random seed of the order.

    Returns:
        The record that was written to ``metrics.json``: see `metrics.regression.regression_report`.

    Raises:
        SkeletonFormatError: If the data have no such column, or it does not hold a number of each clip.
        TrainingDivergedError: If a loss or a weight is NaN or infinite.
        ValueError: If an argument is impossible.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got '{method}'")
    started, console = time.monotonic(), Console() if console is None else console
    console.check(Path(output_dir).name)
    with new_folder(output_dir) as folder:
        dataset, values = _with_values(open_data(data).drop_empty(), target)
        parts = split_data(dataset, group_by, seed=seed)
        tried = with_validation(parts, seed)
        console.say(f"split: {tried.rule}")
        named = {"train": parts.train, "test": parts.test, "tried": tried.train, "validation": tried.validation}
        targets = {name: _values(part, target) for name, part in named.items() if part is not None}
        if np.ptp(targets["train"]) == 0:
            raise SkeletonFormatError(f"column '{target}' is {targets['train'][0]:g} in all training clips")
        set_seed(seed)
        loaded = load_model(model, dtype=torch.float32)
        head = with_head(loaded, USDRLForActionRecognition, [target], problem_type="regression")
        if torch.cuda.is_available():
            head.to("cuda")  # type: ignore[arg-type]
        training = _Regression(head, load_feature_extractor(model), recipe, seed, console)
        for sequence in (*parts.train, *parts.test):
            training.extractor.prepare(sequence)
        method, reason = training.run(parts, tried, targets, method)
        predicted = training.predict(head, parts.test)
        groups = groups_of(parts.test, parts.by)
        center = float(targets["train"].mean())
        report = regression_report(predicted, targets["test"], groups, center)
        warnings = _warnings(report, parts)
        for sentence in warnings:
            console.warn(f"{Path(output_dir).name}: {sentence}")
        head.save_pretrained(folder)
        training.extractor.save_pretrained(folder)
        _write_predictions(folder / "predictions.csv", parts.test, groups, targets["test"], predicted)
        record = {
            "task": "linear regression" if method == "linear" else "fine-tuned regression",
            "dataset": source_name(dataset),
            "target": target,
            "split": tried.rule,
            "groups": tried.to_dict(),
            "n": {"train": len(parts.train), "test": len(parts.test)},
            "choice": {"method": method, "reason": reason, "validation": training.validation},
            "metrics": {name: report[name] for name in ("mae", "rmse", "correlation") if report[name] is not None},
            "baselines": {"mean of the training clips": report["mae_of_mean"]},
            "scores": report,
            "warnings": warnings,
            "seed": seed,
            **run_record(started),
            "checkpoint_sha256": sha256(folder / "model.safetensors"),
        }
        write_metrics(folder, record)
    return record


def _values(part: SkeletonData, target: str) -> np.ndarray:
    return np.asarray(part.column(target), dtype=np.float64)


def _with_values(dataset: SkeletonData, target: str) -> tuple[SkeletonData, np.ndarray]:
    """The clips with a number, labelled by the quarter that it lies in, by which the parts are balanced."""
    values = dataset.column(target)
    if values is None:
        columns = [
            key for key, found in dataset.extra_columns.items() if found.ndim == 1 and found.dtype.kind in "iuf"
        ]
        known = f": its columns are {', '.join(columns)}" if columns else ""
        raise SkeletonFormatError(f"the data have no column '{target}' of numbers{known}")
    if values.ndim != 1:
        raise SkeletonFormatError(
            f"column '{target}' has several numbers for each clip: several targets or labels of a clip are not "
            "trained here, but by USDRLTrainer with problem_type='multi_label_classification'"
        )
    if values.dtype.kind not in "iuf":
        raise SkeletonFormatError(f"column '{target}' does not hold numbers, but {values.dtype}")
    values = values.astype(np.float64)
    known_values = np.isfinite(values)
    if known_values.sum() < 4:
        raise SkeletonFormatError(
            f"{int(known_values.sum())} clips have a number in column '{target}': give at least 4"
        )
    if not known_values.all():
        notice(
            f"{int((~known_values).sum())} of {len(values)} clips have no number in '{target}' and are left out",
            "clips without a number",
        )
        dataset, values = dataset.select(known_values), values[known_values]
    quarters = np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values)
    quarters = np.unique(quarters, return_inverse=True)[1]
    return dataset.relabelled(quarters, [f"quarter {number + 1}" for number in range(quarters.max() + 1)]), values


def _warnings(report: Mapping[str, Any], parts: Parts) -> list[str]:
    found = []
    if report["mae"] >= report["mae_of_mean"]:
        found.append(
            f"The model (mean absolute error {report['mae']:.4g}) is not better than the mean of the training clips "
            f"({report['mae_of_mean']:.4g})."
        )
    if parts.shared:
        title = titled(parts.by, parts.shared)
        found.append(f"{parts.shared} {title} both train and test: the error for a new {titled(parts.by)} is larger.")
    elif parts.by is None:
        found.append(
            "The data do not say who moves: the same people may train and test, and then the error is larger "
            "for a new person."
        )
    return found


def _write_predictions(
    path: Path, test: SkeletonData, groups: np.ndarray, values: np.ndarray, predicted: np.ndarray
) -> None:
    with (
        new_file(path) as partial,
        open(partial, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["name", "group", "true_value", "predicted_value"])
        for row in zip(test.names, groups, values, predicted, strict=True):
            writer.writerow([row[0], row[1], f"{row[2]:.9g}", f"{row[3]:.9g}"])
