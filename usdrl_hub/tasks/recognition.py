"""Recognition: train a recogniser, fully or as a linear probe, and score it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from ..configuration_usdrl import USDRLConfig
from ..data.dataset import SkeletonData, open_data, record_of, source_name
from ..data.protocols import check_classes, draw_exemplars, with_clips
from ..data.splits import Parts, fold_parts, split_data, titled
from ..facts.checkpoints import ENCODER, FLAT_ENCODER, encoder_for
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_folder
from ..hub.card_source import base_model
from ..hub.evaluations import write_record
from ..hub.licenses import data_license, model_licenses
from ..layouts import get_layout
from ..loading import load_config, load_feature_extractor, load_model, pinned_name
from ..lookup import revision_of
from ..modeling_usdrl import USDRLForActionRecognition
from ..records import run_record, sha256
from ..sequence import SkeletonSequence
from ..visualize.page import shown_name
from .baselines import nearest_neighbour_baselines
from .choice import FULL, SCRATCH, TITLES, Chosen, Training, estimated_seconds
from .console import Console, duration, say_classes
from .fit import FitRecipe, Progress
from .heads import with_head
from .refusal import fit_min_similarity
from .report import Tested, TrainingReport, class_probabilities, listed
from .state import RunState, data_digest, kept_state

# Numbers of clips of each class in a learning curve, and random draws of each with a linear probe, which is quick.
_CURVE, _CURVE_DRAWS = (1, 2, 5, 10, 20, 50, 100, 200, 500), 3


@dataclass(frozen=True)
class Evaluation:
    """How a recogniser is tested.

    Attributes:
        group_by: What is never on both sides of the split: "subject", "folder" or a column, see `split_data`; people
            where None and they are known.
        baseline: Also score nearest neighbours on the joints as they are in the file, and with each recording's mean
            position subtracted.
        folds: A number of folds, or what is left out in turn, such as "subject": every clip is tested once, by a model
            that was not trained on its group, and the model that is written is trained on all clips. None for one
            split.
        learning_curve: Also train on 1, 2, 5, 10 and so on clips of each class, and test on the same clips.
    """

    group_by: str | None = None
    baseline: bool = False
    folds: str | None = None
    learning_curve: bool = False


class Finetuned(dict[str, Any]):
    """The record of a fine-tuning, as in ``metrics.json``, with what was trained.

    Attributes:
        model: The recogniser.
        extractor: Its feature extractor.
    """

    def __init__(self, record: Mapping[str, Any], model: USDRLForActionRecognition, extractor: USDRLFeatureExtractor):
        """Wrap a record."""
        super().__init__(record)
        self.model, self.extractor = model, extractor


def finetune(
    data: str | os.PathLike | SkeletonData | Iterable[SkeletonSequence],
    output_dir: str | os.PathLike,
    model: str | os.PathLike | None = ENCODER,
    *,
    recipe: FitRecipe | None = None,
    method: str | None = None,
    config: Mapping[str, Any] | None = None,
    evaluation: Evaluation = Evaluation(),
    console: Console = Console(),
    seed: int = 0,
) -> Finetuned:
    """Train a recogniser on a labelled data set, score it on the data set's test part, and write its folder.

    The recogniser also learns what is none of its classes, see `fit_min_similarity`; not with folds, where all clips
    train the model.

    By default a validation part of the training people chooses between a linear probe and full fine-tuning; a handful
    of clips get a linear probe. The clips of full fine-tuning are augmented, see `ClipAugmentation`, and a new head on
    a pretrained encoder starts from the logistic regression on the encoder's features.

    Args:
        data: A data set in the ``.npz`` form of `SkeletonDataset`, with labels and `split_test` or `subjects`; or the
            folder of a `SkeletonStore`; one of them that is open; or labelled sequences, see `SkeletonList`. Sequences
            without a label and classes without a sequence are left out, with a warning.
        output_dir: Folder to make: weights, configuration, feature extractor, ``metrics.json``, ``predictions.csv`` of
            the tested clips, and ``report.html``.
        model: Checkpoint to start from, for 2D keypoints `usdrl/mocap-2d` instead of `usdrl/mocap-tiny`; its head is
            kept if the class names are the same. None starts from random weights.
        recipe: How all weights are trained; `choice.FULL`, or `choice.SCRATCH` from random weights, where None.
            `linear_start` is set by whether the head is new.
        method: "linear", a logistic regression on the frozen encoder's features; "full"; or "auto" to choose. None is
            "full" where a recipe is given, else "auto".
        config: Fields of `USDRLConfig` for a model from random weights, and the `normalization` of its feature
            extractor.
        evaluation: How the model is tested.
        console: What is shown.
        seed: Random seed of weights, order and augmentation.

    Returns:
        The record that was written to ``metrics.json``, with the trained `model` and its `extractor`.

    Raises:
        SkeletonFormatError: If the data cannot be read or split, or train a single class.
        CheckpointLoadError: If the model cannot be loaded.
        TrainingDivergedError: If a loss, gradient or weight comes to NaN or infinity; no folder is left then.
        ValueError: If the output folder is not empty, or an argument is impossible.
    """
    started = time.monotonic()
    if evaluation.folds is not None and (evaluation.baseline or evaluation.learning_curve):
        raise ValueError("baseline and learning_curve are of one split: leave them out with folds")
    console.check(Path(output_dir).name)
    with new_folder(output_dir) as folder:
        where = str(data) if isinstance(data, str | os.PathLike) else source_name(data)
        dataset = open_data(data).drop_empty()
        if (encoder := encoder_for(model, dataset.layout.is_3d)) != model:
            model = encoder
            console.say(f"2D keypoints: training starts from {model}")
        model = None if model is None else pinned_name(model)
        known = None if model is None else load_config(model).class_names
        dataset = with_clips(dataset, known, where)
        method = method or ("auto" if recipe is None else "full")
        recipe = recipe or (SCRATCH if model is None else FULL)
        name = Path(output_dir).name
        session = _Session(name, dataset, where, model, config or {}, recipe, method, seed, console)
        settings = session.settings(evaluation)
        with kept_state(output_dir, settings, console.resume, console.say) as state:
            outcome = session.run(evaluation, state)
            refusal = _refusal(outcome, evaluation)
            outcome.classifier.save_pretrained(folder)
            outcome.extractor.save_pretrained(folder)
            record = _write(folder, session, outcome, evaluation)
            record |= {"seed": seed, **refusal, **run_record(started)}
            record["checkpoint_sha256"] = sha256(folder / "model.safetensors")
            write_record(folder, record)
    return Finetuned(record, outcome.classifier, outcome.extractor)


@dataclass(frozen=True)
class _Outcome:
    """A trained model, and what tests it."""

    classifier: USDRLForActionRecognition
    extractor: USDRLFeatureExtractor
    chosen: Chosen
    parts: Parts
    groups: dict[str, Any]
    tested: Tested
    folds: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True)
class _Session:
    """The trainings of one call of `finetune`."""

    name: str
    dataset: SkeletonData
    where: str
    model: str | os.PathLike | None
    config: Mapping[str, Any]
    recipe: FitRecipe
    method: str
    seed: int
    console: Console

    def settings(self, evaluation: Evaluation) -> dict[str, Any]:
        """What has to be the same for a run to go on."""
        return {
            "data": data_digest(self.dataset),
            "model": None if self.model is None else str(self.model),
            "config": {name: str(value) for name, value in self.config.items()},
            "recipe": self.recipe.to_dict(),
            "method": self.method,
            "seed": self.seed,
            "split": [evaluation.group_by, evaluation.folds],
        }

    def run(self, evaluation: Evaluation, state: RunState | None) -> _Outcome:
        """Train and test on one split, or on folds."""
        say = self.console.say
        if evaluation.folds is not None:
            return self._folds(evaluation, state)
        parts = split_data(self.dataset, evaluation.group_by, seed=self.seed)
        check_classes(parts.train, parts.test)
        say(f"split: {parts.rule}")
        say_classes(say, parts.train, parts.test, balance=self.recipe.balance)
        begun = time.monotonic()
        classifier, extractor, chosen, tried, stopped = self._train(parts, state, "main")
        took = time.monotonic() - begun
        parts = replace(parts, rule=tried.rule)
        tested = Tested.of_parts(classifier, extractor, parts)
        curve = (
            self._curve(parts, chosen.method, tested.accuracy(), took)
            if evaluation.learning_curve and not stopped
            else []
        )
        return _Outcome(classifier, extractor, chosen, parts, tried.to_dict(), tested, curve=curve, stopped=stopped)

    def _curve(self, parts: Parts, method: str, accuracy: float, whole: float) -> list[dict[str, float]]:
        """Accuracy by the number of training clips of each class, by the method chosen for all, in `whole` seconds."""
        labels = np.asarray(parts.train.column("labels"))
        counts = np.bincount(labels)
        typical = int(np.median(counts[counts > 0]))
        draws = _CURVE_DRAWS if method == "linear" else 1
        runs = [(count, draw) for count in _CURVE if count < typical for draw in range(draws)]
        found: dict[int, list[float]] = {}
        quiet = replace(self, method=method, console=Console(bar=False))
        sizes = [count for count, _ in runs]
        self.console.say(
            f"learning curve: {len(runs)} trainings, at most about {duration(whole * sum(sizes) / typical)}"
        )
        begun = time.monotonic()
        for number, (count, draw) in enumerate(runs, start=1):
            some = replace(parts, train=parts.train.select(draw_exemplars(labels, count, self.seed + draw)))
            classifier, extractor, *_ = quiet._train(some, None, "curve")
            hits = class_probabilities(classifier, extractor, parts.test).argmax(1) == parts.test.column("labels")
            found.setdefault(count, []).append(float(hits.mean()))
            # A training takes about as long as it has clips.
            left = (time.monotonic() - begun) * sum(sizes[number:]) / sum(sizes[:number])
            clips = f"{count} clips" if count > 1 else "1 clip"
            text = f"learning curve, {clips} of each class: {100 * hits.mean():.1f} %"
            self.console.say(f"{text}; about {duration(left)} left")
        rows = [
            {"clips": count, "accuracy": float(np.mean(values))}
            | ({"low": min(values), "high": max(values)} if len(values) > 1 else {})
            for count, values in found.items()
        ]
        return [*rows, {"clips": typical, "accuracy": accuracy}]

    def _folds(self, evaluation: Evaluation, state: RunState | None) -> _Outcome:
        """Test each fold by a model of the others; the model is trained on all clips."""
        say, begun = self.console.say, time.monotonic()
        folds = fold_parts(self.dataset, str(evaluation.folds), evaluation.group_by, seed=self.seed)
        say(f"split: {len(folds)} folds, then a model of all clips")
        say_classes(say, self.dataset, balance=self.recipe.balance)
        if state is None or state.load("fold-0") is None:
            classifier, extractor, _ = _model(self.model, self.config, self.dataset)
            _check_dimensions(self.where, self.model, self.dataset, extractor)
            most = estimated_seconds(classifier, extractor, folds[0].train, self.recipe, self.method)
            say(f"{len(folds) + 1} trainings: at most about {duration(most * (len(folds) + 1))}")
        tests, rows, fresh = [], [], 0
        for number, parts in enumerate(folds):
            check_classes(parts.train, parts.test)
            done = None if state is None else state.load(f"fold-{number}")
            if done is not None:
                row, tensors = done
                names = row.pop("baselines")
                answers = {name: tensors[f"baseline.{place}"].numpy() for place, name in enumerate(names)}
                tested = Tested(parts.test, tensors["probabilities"].numpy(), answers, tensors["images"].numpy())
            else:
                classifier, extractor, chosen, _, stopped = self._train(parts, state, f"fold-{number}")
                if stopped:
                    # The folds that are done are kept, and the command goes on with the others.
                    raise KeyboardInterrupt
                tested = Tested.of_parts(classifier, extractor, parts)
                row = {"fold": parts.rule.partition(";")[0], "n": len(parts.test), "accuracy": tested.accuracy()}
                row["method"] = chosen.method
                fresh += 1
                if state is not None:
                    tensors = {
                        f"baseline.{place}": torch.from_numpy(np.ascontiguousarray(values))
                        for place, values in enumerate(tested.baselines.values())
                    }
                    tensors["probabilities"] = torch.from_numpy(tested.probabilities)
                    tensors["images"] = torch.from_numpy(tested.images)
                    state.save(f"fold-{number}", {**row, "baselines": list(tested.baselines)}, tensors)
            tests.append(tested)
            rows.append(row)
            left = (time.monotonic() - begun) / max(fresh, 1) * (len(folds) - number)
            say(f"{row['fold']}: {100 * row['accuracy']:.1f} % of {row['n']} clips; about {duration(left)} left")
        members = [parts.tested for parts in folds if parts.tested is not None]
        pooled = Tested.pooled(self.dataset, tests, members)
        tail = folds[0].rule.partition("; ")[2] or f"each {titled(folds[0].by)} is left out in turn"
        whole = Parts(self.dataset, None, pooled.data, f"{len(folds)} folds; {tail}", folds[0].by)
        classifier, extractor, chosen, _, stopped = self._train(whole, state, "all")
        groups, warnings = folds[0].to_dict(), _untrained(folds)
        return _Outcome(classifier, extractor, chosen, whole, groups, pooled, rows, warnings=warnings, stopped=stopped)

    def _train(
        self, parts: Parts, state: RunState | None, key: str
    ) -> tuple[USDRLForActionRecognition, USDRLFeatureExtractor, Chosen, Parts, bool]:
        """A model of a training part."""
        set_seed(self.seed)
        classifier, extractor, has_head = _model(self.model, self.config, self.dataset)
        _check_dimensions(self.where, self.model, self.dataset, extractor)
        if key in ("main", "fold-0"):
            # Refuse sequences that cannot be read before the training, not after it.
            for sequence in (*parts.train, *parts.test):
                extractor.prepare(sequence)
        recipe = replace(self.recipe, linear_start=self.model is not None and not has_head)
        progress = Progress(self.console.bar, self.console.report_to, run=self.name)
        training = Training(classifier, extractor, parts, recipe, self.seed, progress, self.console.say, state, key)
        classifier, chosen, tried = training.run(self.method, self.model is not None)
        return classifier, extractor, chosen, tried, progress.stopped


def _untrained(folds: Sequence[Parts]) -> list[str]:
    """A warning of classes that a fold tests and does not train."""
    count, names = 0, set()
    for parts in folds:
        labels = np.asarray(parts.test.column("labels"))
        unknown = np.setdiff1d(labels, np.asarray(parts.train.column("labels")))
        count += int(np.isin(labels, unknown).sum())
        names |= {parts.test.class_names[int(label)] for label in unknown}
    if not count:
        return []
    text = f"All clips of the class {listed(sorted(names))} test in one fold, which no clip of it trains"
    return [f"{text}: {count} test clips count as wrong."]


def _write(folder: Path, session: _Session, outcome: _Outcome, evaluation: Evaluation) -> dict[str, Any]:
    """Write the report and the predictions; returns the record."""
    chosen, parts, source = outcome.chosen, outcome.parts, source_name(session.dataset)
    task = f"{'linear' if chosen.method == 'linear' or session.recipe.freeze_encoder else 'fine-tuned'} recognition"
    about = {
        "Task": task,
        "Starts from": "random weights" if session.model is None else shown_name(session.model),
        "Data": f"{source}: {len(parts.train)} clips train, {len(outcome.tested.data)} test",
        "Split": parts.rule,
        "Method": f"{TITLES[chosen.method]}: {chosen.reason}",
    }
    if chosen.recipe is not None:
        about["Recipe"] = ", ".join(f"{key} {value}" for key, value in chosen.recipe.to_dict().items())
    extra: dict[str, Any] = {}
    if outcome.folds:
        accuracies = [row["accuracy"] for row in outcome.folds]
        extra = {
            "folds": outcome.folds,
            "accuracy_of_folds": {"mean": float(np.mean(accuracies)), "std": float(np.std(accuracies))},
        }
        about["Folds"] = (
            f"accuracy {100 * np.mean(accuracies):.1f} % on average, with a standard deviation of "
            f"{100 * np.std(accuracies):.1f}, from {100 * min(accuracies):.1f} to {100 * max(accuracies):.1f}: "
            + ", ".join(f"{row['fold'].removesuffix(' tests')} {100 * row['accuracy']:.1f}" for row in outcome.folds)
        )
    if outcome.curve:
        extra["learning_curve"] = outcome.curve
    report = TrainingReport(
        outcome.classifier,
        outcome.extractor,
        parts,
        about=about,
        history=chosen.history,
        tested=outcome.tested,
        curve=outcome.curve,
    )
    report.warnings += outcome.warnings
    if outcome.stopped:
        report.warnings.insert(0, f"The training was stopped by Ctrl-C: {chosen.reason.rpartition('; ')[2]}.")
    report.write(folder, f"{session.name}: {source}")
    for sentence in report.warnings:
        session.console.warn(f"{session.name}: {sentence}")
    metrics = report.summary()
    if evaluation.baseline:
        metrics |= nearest_neighbour_baselines(parts.train, parts.test, outcome.extractor.num_frames)
    return {
        "task": task,
        **record_of(session.dataset),
        "base_model": base_model(session.model),
        "base_revision": revision_of(session.model),
        "licenses": {**model_licenses(session.model), source: data_license(session.dataset)},
        "split": parts.rule,
        "groups": outcome.groups,
        "n": {"train": len(parts.train), "test": len(outcome.tested.data)},
        "choice": chosen.to_dict(),
        "stopped": outcome.stopped,
        **extra,
        "metrics": metrics,
        **report.metrics(),
    }


def _refusal(outcome: _Outcome, evaluation: Evaluation) -> dict[str, Any]:
    """Let the model refuse what is none of its classes, as far as clips that did not train it say; for the record."""
    if evaluation.folds is not None:
        # All clips trained the model.
        outcome.classifier.set_class_centers(None, None)
        return {}
    parts = outcome.parts
    found = fit_min_similarity(outcome.classifier, outcome.extractor, parts.train, parts.test)
    return {"refusal": found} if found else {}


def _check_dimensions(
    where: str, model: str | os.PathLike | None, dataset: SkeletonData, extractor: USDRLFeatureExtractor
) -> None:
    """Refuse 2D keypoints for a model of 3D ones, and the reverse."""
    flat = [not get_layout(layout).is_3d for layout in (dataset.layout, extractor.layout)]
    if model is not None and flat[0] != flat[1]:
        kinds = ["2D" if is_flat else "3D" for is_flat in flat]
        other = f"start from {FLAT_ENCODER if flat[0] else ENCODER} with --model"
        raise ValueError(
            f"{where}: the keypoints are {kinds[0]}, but '{model}' reads {kinds[1]}: {other}, or train from random "
            "weights with --from-scratch (model=None)"
        )


def _model(
    name: str | os.PathLike | None,
    fields: Mapping[str, Any],
    dataset: SkeletonData,
) -> tuple[USDRLForActionRecognition, USDRLFeatureExtractor, bool]:
    """The model to train, its feature extractor, and whether its head already has the data set's classes."""
    id2label = dict(enumerate(dataset.class_names))
    if name is None:
        normalization = fields.get("normalization")
        fields = {key: value for key, value in fields.items() if key != "normalization"}
        layout = fields.get("layout", dataset.layout.to_config())
        given = {"num_persons": dataset.max_persons, "num_joints": dataset.layout.num_joints} | dict(fields)
        config = USDRLConfig(**(given | {"layout": layout, "id2label": id2label}))
        extractor = USDRLFeatureExtractor.from_model_config(config, max_frames=None, normalization=normalization)
        return USDRLForActionRecognition(config), extractor, False
    if fields:
        raise ValueError(f"'{next(iter(fields))}' is for a model from random weights; '{name}' has its own")
    loaded, extractor = load_model(name, dtype=torch.float32), load_feature_extractor(name)
    config = loaded.config
    one_class = config.problem_type in (None, "single_label_classification")
    if isinstance(loaded, USDRLForActionRecognition) and one_class and config.id2label == id2label:
        return loaded, extractor, True
    return with_head(loaded, USDRLForActionRecognition, dataset.class_names), extractor, False
