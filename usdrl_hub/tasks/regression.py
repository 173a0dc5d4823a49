"""Regression: a number of each clip, such as a quality score or an angle, in place of a class."""

from __future__ import annotations

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

from ..data.dataset import SkeletonData, open_data, record_of, source_name
from ..data.splits import Parts, fold_parts, groups_of, split_data, titled, with_validation
from ..errors import SkeletonFormatError, notice
from ..facts.checkpoints import ENCODER, encoder_for
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_file, new_folder
from ..hub.card_source import base_model
from ..hub.licenses import data_license, model_licenses
from ..loading import load_feature_extractor, load_model, pinned_name
from ..lookup import revision_of
from ..metrics.regression import regression_report
from ..modeling_usdrl import USDRLForActionRecognition
from ..records import run_record, sha256, write_metrics
from ..visualize.page import shown_name
from ..visualize.report import ValueReport
from .choice import METHODS, TITLES, estimated_seconds
from .console import Console, duration
from .fit import FitRecipe
from .heads import with_head
from .recognition import Evaluation, Finetuned
from .report import SHOWN
from .state import RunState, data_digest, kept_state
from .value_training import VALUES, ValueTraining


def finetune_values(
    data: str | os.PathLike | SkeletonData,
    output_dir: str | os.PathLike,
    target: str,
    model: str | os.PathLike = ENCODER,
    *,
    method: str = "auto",
    recipe: FitRecipe = VALUES,
    evaluation: Evaluation = Evaluation(),
    console: Console = Console(),
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
        model: Checkpoint to start from, for 2D keypoints `usdrl/mocap-2d` instead of `usdrl/mocap-tiny`.
        method: "linear", "full" or "auto".
        recipe: Of full fine-tuning.
        evaluation: How the model is tested: its `group_by` and `folds`.
        console: What is shown.
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
    if evaluation.baseline or evaluation.learning_curve:
        raise ValueError("baseline and learning_curve are for classes: leave them out with target")
    started = time.monotonic()
    console.check(Path(output_dir).name)
    with new_folder(output_dir) as folder:
        dataset, values = _with_values(open_data(data).drop_empty(), target)
        model = encoder_for(model, dataset.layout.is_3d)
        name = Path(output_dir).name
        session = _Session(name, dataset, target, pinned_name(model), recipe, method, seed, console)
        settings = session.settings(values, evaluation)
        with kept_state(output_dir, settings, console.resume, console.say) as state:
            outcome = session.run(evaluation, state)
            for sentence in outcome.tested.warnings:
                console.warn(f"{name}: {sentence}")
            outcome.head.save_pretrained(folder)
            outcome.extractor.save_pretrained(folder)
            record = _write(folder, session, outcome)
            record |= {"seed": seed, **run_record(started)}
            record["checkpoint_sha256"] = sha256(folder / "model.safetensors")
            write_metrics(folder, record)
    return Finetuned(record, outcome.head, outcome.extractor)


@dataclass(frozen=True)
class _Trained:
    """A trained model, and how it was trained."""

    head: USDRLForActionRecognition
    extractor: USDRLFeatureExtractor
    training: ValueTraining
    method: str
    reason: str
    tried: Parts


@dataclass(frozen=True)
class _Outcome(_Trained):
    """What tests it, too."""

    tested: _Tested
    groups: dict[str, Any]
    folds: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Session:
    """The trainings of one call of `finetune_values`."""

    name: str
    dataset: SkeletonData
    target: str
    model: str | os.PathLike
    recipe: FitRecipe
    method: str
    seed: int
    console: Console

    def settings(self, values: np.ndarray, evaluation: Evaluation) -> dict[str, Any]:
        """What has to be the same for a run to go on."""
        return {
            "data": data_digest(self.dataset, values),
            "target": self.target,
            "model": str(self.model),
            "recipe": self.recipe.to_dict(),
            "method": self.method,
            "seed": self.seed,
            "split": [evaluation.group_by, evaluation.folds],
        }

    def run(self, evaluation: Evaluation, state: RunState | None) -> _Outcome:
        """Train and test on one split, or on folds."""
        if evaluation.folds is not None:
            return self._folds(evaluation, state)
        parts = split_data(self.dataset, evaluation.group_by, seed=self.seed)
        # The classes by which the parts are balanced.
        parts = replace(parts, rule=parts.rule.replace("of each class", "of each quarter of the numbers"))
        trained = self._train(parts, state, "main")
        predicted = trained.training.predict(trained.head, parts.test)
        center = np.full(len(parts.test), self.values(parts.train).mean())
        tested = _Tested(parts, self.target, self.values(parts.train), self.values(parts.test), predicted, center)
        return _Outcome(**vars(trained), tested=tested, groups=trained.tried.to_dict())

    def values(self, part: SkeletonData) -> np.ndarray:
        """The number ``(n,)`` of each clip of a part."""
        return np.asarray(part.column(self.target), dtype=np.float64)

    def _folds(self, evaluation: Evaluation, state: RunState | None) -> _Outcome:
        """Test each fold by a model of the others; the model is trained on all clips."""
        say, begun = self.console.say, time.monotonic()
        folds = fold_parts(self.dataset, str(evaluation.folds), evaluation.group_by, seed=self.seed)
        say(f"split: {len(folds)} folds, then a model of all clips")
        if state is None or state.load("fold-0") is None:
            most = estimated_seconds(*self._model(), folds[0].train, self.recipe, self.method) * (len(folds) + 1)
            say(f"{len(folds) + 1} trainings: at most about {duration(most)}")
        predicted, center = np.zeros(len(self.dataset)), np.zeros(len(self.dataset))
        tests, rows, fresh = np.zeros(len(self.dataset), dtype=bool), [], 0
        for number, parts in enumerate(folds):
            done = None if state is None else state.load(f"fold-{number}")
            if done is None:
                trained = self._train(parts, state, f"fold-{number}")
                if trained.training.stopped:
                    # The folds that are done are kept, and the command goes on with the others.
                    raise KeyboardInterrupt
                found, fresh = trained.training.predict(trained.head, parts.test), fresh + 1
                error = float(np.abs(found - self.values(parts.test)).mean())
                row = {"fold": parts.rule.partition(";")[0], "n": len(parts.test), "mae": error}
                row["method"] = trained.method
                if state is not None:
                    state.save(f"fold-{number}", row, {"predicted": torch.from_numpy(np.ascontiguousarray(found))})
            else:
                row, found = done[0], done[1]["predicted"].numpy()
            predicted[parts.tested], center[parts.tested] = found, self.values(parts.train).mean()
            tests[parts.tested] = True
            rows.append(row)
            left = duration((time.monotonic() - begun) / max(fresh, 1) * (len(folds) - number))
            say(f"{row['fold']}: mean absolute error {row['mae']:.4g} of {row['n']} clips; about {left} left")
        tail = folds[0].rule.partition("; ")[2] or f"each {titled(folds[0].by)} is left out in turn"
        rule = f"{len(folds)} folds; {tail}"
        whole = Parts(self.dataset, None, self.dataset.select(tests), rule, folds[0].by)
        values = self.values(self.dataset)
        tested = _Tested(whole, self.target, values, values[tests], predicted[tests], center[tests])
        trained = self._train(whole, state, "all")
        trained = replace(trained, tried=replace(trained.tried, rule=rule))
        return _Outcome(**vars(trained), tested=tested, groups=folds[0].to_dict(), folds=rows)

    def _model(self) -> tuple[USDRLForActionRecognition, USDRLFeatureExtractor]:
        set_seed(self.seed)
        loaded = load_model(self.model, dtype=torch.float32)
        head = with_head(loaded, USDRLForActionRecognition, [self.target], problem_type="regression")
        if torch.cuda.is_available():
            head.to("cuda")  # type: ignore[arg-type]
        return head, load_feature_extractor(self.model)

    def _train(self, parts: Parts, state: RunState | None, key: str) -> _Trained:
        """A model of a training part."""
        tried = with_validation(parts, self.seed)
        if key == "main":
            self.console.say(f"split: {tried.rule}")
        named = {"train": parts.train, "tried": tried.train, "validation": tried.validation}
        targets = {name: self.values(part) for name, part in named.items() if part is not None}
        if np.ptp(targets["train"]) == 0:
            raise SkeletonFormatError(
                f"column '{self.target}' is {targets['train'][0]:g} in all training clips; split: {parts.rule}"
            )
        head, extractor = self._model()
        if key in ("main", "fold-0"):
            # Refuse sequences that cannot be read before the training, not after it.
            for sequence in (*parts.train, *parts.test):
                extractor.prepare(sequence)
        training = ValueTraining(head, extractor, self.recipe, self.seed, self.console, state, key, self.name)
        method, reason = training.run(parts, tried, targets, self.method)
        return _Trained(head, extractor, training, method, reason, tried)


def _write(folder: Path, session: _Session, outcome: _Outcome) -> dict[str, Any]:
    """Write the report and the predictions; returns the record."""
    tested, source = outcome.tested, source_name(session.dataset)
    parts = tested.parts
    about = {
        "Task": f"numbers: {session.target}",
        "Starts from": shown_name(session.model),
        "Data": f"{source}: {len(parts.train)} clips train, {len(parts.test)} test",
        "Split": parts.rule,
        "Method": f"{TITLES[outcome.method]}: {outcome.reason}",
    }
    extra: dict[str, Any] = {}
    if outcome.folds:
        errors = [row["mae"] for row in outcome.folds]
        mean, deviation = float(np.mean(errors)), float(np.std(errors))
        extra = {"folds": outcome.folds, "mae_of_folds": {"mean": mean, "std": deviation}}
        about["Folds"] = (
            f"mean absolute error {mean:.4g} on average, with a standard deviation of {deviation:.4g}: "
            + ", ".join(f"{row['fold'].removesuffix(' tests')} {row['mae']:.4g}" for row in outcome.folds)
        )
    tested.write(folder, f"{session.name}: {session.target} of {source}", outcome.training.history, about)
    return {
        "task": "linear regression" if outcome.method == "linear" else "fine-tuned regression",
        **record_of(session.dataset),
        "target": session.target,
        "base_model": base_model(session.model),
        "base_revision": revision_of(session.model),
        "licenses": {**model_licenses(session.model), source: data_license(session.dataset)},
        "split": outcome.tried.rule,
        "groups": outcome.groups,
        "n": {"train": len(parts.train), "test": len(parts.test)},
        "choice": {"method": outcome.method, "reason": outcome.reason, "validation": outcome.training.validation},
        "stopped": outcome.training.stopped,
        **extra,
        **tested.metrics(),
    }


class _Tested:
    """Numbers that models find for tested clips, beside the mean of the clips that trained them."""

    def __init__(
        self,
        parts: Parts,
        target: str,
        trained: np.ndarray,
        values: np.ndarray,
        predicted: np.ndarray,
        center: np.ndarray,
    ):
        self.parts, self.target, self.predicted = parts, target, predicted
        self.values, self.groups = values, groups_of(parts.test, parts.by)
        self.scores = regression_report(predicted, values, self.groups, center)
        self.low, self.high = float(trained.min()), float(trained.max())
        self.warnings = _warnings(self.scores, parts)

    def metrics(self) -> dict[str, Any]:
        """What goes into ``metrics.json``."""
        names = ("mae", "rmse", "correlation")
        return {
            "metrics": {name: self.scores[name] for name in names if self.scores[name] is not None},
            "baselines": {"mean of the training clips": self.scores["mae_of_mean"]},
            "scores": self.scores,
            "warnings": self.warnings,
        }

    def write(
        self, folder: Path, title: str, history: Sequence[Mapping[str, float]], about: Mapping[str, str]
    ) -> None:
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
            about=list(about.items()),
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


def _with_values(dataset: SkeletonData, target: str) -> tuple[SkeletonData, np.ndarray]:
    """The clips with a number, labelled by the quarter that it lies in, by which the parts are balanced."""
    values = dataset.column(target)
    columns = [key for key, found in dataset.extra_columns.items() if found.ndim == 1 and found.dtype.kind in "iuf"]
    known = f": its columns are {', '.join(columns)}" if columns else ""
    if values is None:
        raise SkeletonFormatError(f"the data have no column '{target}' of numbers{known}")
    if values.ndim != 1:
        raise SkeletonFormatError(
            f"column '{target}' has several numbers for each clip: several targets or labels of a clip are not "
            "trained here, but by USDRLTrainer with problem_type='multi_label_classification'"
        )
    if values.dtype.kind not in "iuf":
        kind = "text" if values.dtype.kind in "US" else str(values.dtype)
        raise SkeletonFormatError(f"column '{target}' holds {kind} instead of numbers{known}")
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
    if parts.shared and len(np.unique(groups_of(parts.train, parts.by))) == 1:
        found.append(f"All clips are of one {titled(parts.by)}: nothing is known of any other.")
    elif parts.shared:
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
