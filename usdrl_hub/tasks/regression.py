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
from ..hub.card_source import base_model
from ..hub.licenses import data_license, model_licenses
from ..inference.embedding import embed_part
from ..loading import load_feature_extractor, load_model
from ..metrics.regression import regression_report
from ..modeling_usdrl import USDRLForActionRecognition
from ..records import run_record, sha256, write_metrics
from ..visualize.page import shown_name
from ..visualize.report import ValueReport
from .choice import FULL, METHODS, TITLES
from .fit import FitRecipe, Progress, fit
from .heads import with_head
from .recognition import Console, Finetuned
from .report import SHOWN
from .state import RunState, data_digest, kept_state

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
    state: RunState | None = None
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
        done = None if self.state is None else self.state.load("trial")
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
            self.state.save("trial", values, dict(model.state_dict()))
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
            progress=Progress(
                self.console.bar, self.console.report_to, None if self.state is None else self.state.folder(key)
            ),
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
) -> Finetuned:
    """Train a model that finds a number of each clip, test it, and write its folder.

    A ridge regression on the frozen encoder's features and full fine-tuning are compared on a validation part of the
    training people; the better one trains on all training clips.

    Args:
        data: A data set with a column of numbers, see `SkeletonStore.column`; clips without a number (NaN) are left
            out, with a warning.
        output_dir: Folder to make: weights, configuration, feature extractor, ``metrics.json``, ``predictions.csv`` of
            the tested clips, and ``report.html``. A run that was killed goes on when it is repeated.
        target: Name of the column.
        model: Checkpoint to start from.
        method: "linear", "full" or "auto".
        recipe: Of full fine-tuning.
        group_by: What is never on both sides of the split, see `split_data`.
        console: What is shown; see `Console`.
        seed: Random seed of the order.

    Returns:
        The record that was written to ``metrics.json``, see `metrics.regression.regression_report`, with the trained
        `model` and its `extractor`.

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
        extractor = load_feature_extractor(model)
        for sequence in (*parts.train, *parts.test):
            extractor.prepare(sequence)
        settings = _settings(dataset, values, target, model, method, recipe, group_by, seed)
        with kept_state(output_dir, settings, console.resume, console.say) as state:
            training = _Regression(head, extractor, recipe, seed, console, state)
            method, reason = training.run(parts, tried, targets, method)
            tested = _Tested(
                parts,
                target,
                targets,
                training.predict(head, parts.test),
                shown_name(model),
                f"{TITLES[method]}: {reason}",
            )
            for sentence in tested.warnings:
                console.warn(f"{Path(output_dir).name}: {sentence}")
            head.save_pretrained(folder)
            extractor.save_pretrained(folder)
            tested.write(folder, f"{Path(output_dir).name}: {target} of {source_name(dataset)}", training.history)
            record = {
                "task": "linear regression" if method == "linear" else "fine-tuned regression",
                "dataset": source_name(dataset),
                "target": target,
                "base_model": base_model(model),
                "licenses": {**model_licenses(model), source_name(dataset): data_license(source_name(dataset))},
                "split": tried.rule,
                "groups": tried.to_dict(),
                "n": {"train": len(parts.train), "test": len(parts.test)},
                "choice": {"method": method, "reason": reason, "validation": training.validation},
                "stopped": training.stopped,
                **tested.metrics(),
                "seed": seed,
                **run_record(started),
                "checkpoint_sha256": sha256(folder / "model.safetensors"),
            }
            write_metrics(folder, record)
    return Finetuned(record, head, extractor)


def _settings(
    dataset: SkeletonData,
    values: np.ndarray,
    target: str,
    model: str | os.PathLike,
    method: str,
    recipe: FitRecipe,
    group_by: str | None,
    seed: int,
) -> dict[str, Any]:
    """What has to be the same for a run to go on."""
    return {
        "data": data_digest(dataset, values),
        "target": target,
        "model": str(model),
        "recipe": recipe.to_dict(),
        "method": method,
        "seed": seed,
        "split": group_by,
    }


class _Tested:
    """Numbers that a model finds for the test part, beside the mean of the training part."""

    def __init__(
        self,
        parts: Parts,
        target: str,
        targets: Mapping[str, np.ndarray],
        predicted: np.ndarray,
        model: str,
        method: str,
    ):
        self.parts, self.target, self.predicted = parts, target, predicted
        self.values, self.groups = targets["test"], groups_of(parts.test, parts.by)
        self.scores = regression_report(predicted, self.values, self.groups, float(targets["train"].mean()))
        self.low, self.high = float(targets["train"].min()), float(targets["train"].max())
        self.warnings = _warnings(self.scores, parts)
        self.about = [
            ("Task", f"numbers: {target}"),
            ("Starts from", model),
            ("Data", f"{source_name(parts.train)}: {len(parts.train)} clips train, {len(parts.test)} test"),
            ("Split", parts.rule),
            ("Method", method),
        ]

    def metrics(self) -> dict[str, Any]:
        """What goes into ``metrics.json``."""
        names = ("mae", "rmse", "correlation")
        return {
            "metrics": {name: self.scores[name] for name in names if self.scores[name] is not None},
            "baselines": {"mean of the training clips": self.scores["mae_of_mean"]},
            "scores": self.scores,
            "warnings": self.warnings,
        }

    def write(self, folder: Path, title: str, history: Sequence[Mapping[str, float]]) -> None:
        """Write ``predictions.csv`` and ``report.html``."""
        test = self.parts.test
        _write_predictions(folder / "predictions.csv", test, self.groups, self.values, self.predicted)
        hardest = np.argsort(-np.abs(self.predicted - self.values), kind="stable")[:SHOWN]
        known = sorted({str(group) for group in self.groups if group})
        people = [f"{len(known)} {titled(self.parts.by, len(known))}"] if known else []
        limits = [f"{people[0]} {'tests' if len(known) == 1 else 'test'} the model."] if known else []
        ValueReport(
            title=title,
            target=self.target,
            scores=self.scores,
            names=[str(name) for name in test.names],
            groups=[str(group) for group in self.groups],
            values=self.values,
            predicted=self.predicted,
            recordings={int(number): test[int(number)] for number in hardest},
            about=self.about,
            facts=[f"{len(test)} tested clips", *people],
            history=history,
            warnings=self.warnings,
            limits=[
                *limits,
                f"The training clips' values are from {self.low:.4g} to {self.high:.4g}: others are guesses.",
                "Tested on recordings of the same kind as those that trained it: another sensor, camera angle or pose "
                "estimator may do worse.",
            ],
            group=(titled(self.parts.by), titled(self.parts.by, 2)),
        ).write(folder / "report.html")


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
