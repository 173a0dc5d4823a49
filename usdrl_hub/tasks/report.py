"""What is said of a recogniser after training: scores, predictions, and a page to show."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ..data.augmentation import mirror_image
from ..data.clips import ClipDataset
from ..data.dataset import SkeletonData, open_data, record_of, source_name
from ..data.protocols import with_clips
from ..data.splits import Parts, groups_of, split_data, titled
from ..errors import SkeletonFormatError
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_file, new_folder
from ..finite import check_finite
from ..hub.evaluations import write_record
from ..inference.embedding import embed_part
from ..layouts import get_layout
from ..loading import load_feature_extractor, load_model
from ..metrics.classification import accuracy, classification_report, paired_difference
from ..modeling_usdrl import USDRLForActionRecognition
from ..records import run_record
from ..visualize.page import shown_name
from ..visualize.report import Report, ScoredClip
from .baselines import joint_neighbours

# Clips of a forward pass.
_BATCH = 128
# Skeletons in a page, and training clips of a class among which its example is chosen.
SHOWN, _CANDIDATES = 24, 20
# Standard errors by which mirror images must be recognised better, before it is said that they are.
_CLEAR = 3
# Test clips of a class below which its figures say little.
_FEW = 5


@torch.inference_mode()
def class_probabilities(
    classifier: USDRLForActionRecognition,
    extractor: USDRLFeatureExtractor,
    data: SkeletonData,
    *,
    mirrored: bool = False,
) -> np.ndarray:
    """Probabilities ``(N, K)`` of the classes of clips, or of their mirror images, in float32.

    Raises:
        NonFiniteError: If one is NaN or infinite.
    """
    was_training = classifier.training
    classifier.eval()
    rows = []
    change = partial(mirror_image, mirrored=get_layout(extractor.layout).mirrored) if mirrored else None
    for batch in torch.utils.data.DataLoader(ClipDataset(data, extractor, change), _BATCH):
        logits = classifier(keypoints=batch["keypoints"].to(classifier.device)).logits
        rows.append(logits.float().softmax(-1).cpu())
    classifier.train(was_training)
    probabilities = torch.cat(rows).numpy()
    check_finite(probabilities, "the probabilities of the classes")
    return probabilities


@dataclass(frozen=True)
class Tested:
    """What models and baselines answer for tested clips.

    Attributes:
        data: N tested clips with labels.
        probabilities: ``(N, K)``.
        baselines: Answers ``(N,)`` of simpler methods, by name.
        images: Answers ``(N,)`` of the models for the clips' mirror images.
    """

    data: SkeletonData
    probabilities: np.ndarray
    baselines: Mapping[str, np.ndarray]
    images: np.ndarray

    @classmethod
    def of(
        cls,
        classifier: USDRLForActionRecognition,
        extractor: USDRLFeatureExtractor,
        data: SkeletonData,
        baselines: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> Tested:
        """The answers of a model."""
        probabilities = class_probabilities(classifier, extractor, data)
        images = class_probabilities(classifier, extractor, data, mirrored=True).argmax(1)
        return cls(data, probabilities, baselines, images)

    @classmethod
    def of_parts(cls, classifier: USDRLForActionRecognition, extractor: USDRLFeatureExtractor, parts: Parts) -> Tested:
        """The answers of a model that was trained on a part, and of baselines, for the test part."""
        majority = np.bincount(np.asarray(parts.train.column("labels"))).argmax()
        baselines = {
            "nearest neighbour on normalised joints": joint_neighbours(parts.train, parts.test, extractor),
            "majority class": np.full(len(parts.test), majority),
        }
        return cls.of(classifier, extractor, parts.test, baselines)

    @classmethod
    def pooled(cls, dataset: SkeletonData, folds: Sequence[Tested], members: Sequence[np.ndarray]) -> Tested:
        """The answers of several folds as one.

        Args:
            dataset: All clips.
            folds: What is known of each fold.
            members: Indices in the data set of the clips of each fold.
        """
        order = np.argsort(np.concatenate(members))
        mask = np.zeros(len(dataset), dtype=bool)
        mask[np.concatenate(members)] = True
        probabilities = np.concatenate([fold.probabilities for fold in folds])[order]
        baselines = {
            name: np.concatenate([fold.baselines[name] for fold in folds])[order] for name in folds[0].baselines
        }
        images = np.concatenate([fold.images for fold in folds])[order]
        return cls(dataset.select(mask), probabilities, baselines, images)

    def accuracy(self) -> float:
        """Share of the clips that are right."""
        return float((self.probabilities.argmax(1) == np.asarray(self.data.column("labels"))).mean())


class TrainingReport:
    """Scores of a recogniser on its test part, beside baselines.

    Attributes:
        scores: See `metrics.classification.classification_report`.
        baselines: Accuracy of the majority class of the training part, and of the nearest training clip by normalised
            joints.
        warnings: What a reader must know before the figures.
        limits: What the figures do not say.
    """

    def __init__(
        self,
        classifier: USDRLForActionRecognition,
        extractor: USDRLFeatureExtractor,
        parts: Parts,
        *,
        about: Mapping[str, str],
        history: Sequence[Mapping[str, float]] = (),
        tested: Tested | None = None,
        curve: Sequence[Mapping[str, float]] = (),
    ):
        """Score a recogniser.

        Args:
            classifier: The trained model.
            extractor: Its feature extractor.
            parts: What it was trained on and what tests it, with labels.
            about: What was trained on what, by term.
            history: A row per epoch, see `visualize.report.Report`.
            tested: The answers for the tested clips, if models of several folds gave them; the model's own where None.
            curve: Accuracy by clips per class, see `visualize.report.Report`.
        """
        self.classifier, self.extractor, self.parts = classifier, extractor, parts
        self.about, self.history, self.curve = dict(about), history, curve
        self.class_names = list(classifier.config.class_names)
        tested = Tested.of_parts(classifier, extractor, parts) if tested is None else tested
        self.train, self.test = parts.train, tested.data
        self.probabilities, self.images = tested.probabilities, tested.images
        self.labels = np.asarray(self.test.column("labels"))
        # Clips of unknown groups cannot be grouped, so then clips are resampled.
        groups = groups_of(self.test, parts.by)
        self.groups = groups if (groups != "").all() else None
        self.scores = classification_report(self.probabilities, self.labels, groups=self.groups)
        self.baselines = {name: float((answers == self.labels).mean()) for name, answers in tested.baselines.items()}
        trained = np.asarray(self.train.column("labels"))
        self.warnings = self._warnings(np.bincount(trained, minlength=len(self.class_names)))
        self.limits = self._limits()

    def _warnings(self, trained: np.ndarray) -> list[str]:
        found = []
        name, value = max(self.baselines.items(), key=lambda entry: entry[1], default=("", -1.0))
        accuracy = self.scores["accuracy"]
        if accuracy <= value:
            found.append(
                f"The model ({100 * accuracy:.1f} %) is not better than the {name} ({100 * value:.1f} %), "
                "which needs no training."
            )
        if self.parts.shared and len(np.unique(groups_of(self.train, self.parts.by))) == 1:
            found.append(f"All clips are of one {titled(self.parts.by)}: nothing is known of any other.")
        elif self.parts.shared:
            title = titled(self.parts.by, self.parts.shared)
            found.append(
                f"{self.parts.shared} {title} both train and test, as the data's own split has it: the accuracy for a "
                f"new {titled(self.parts.by)} is lower. --group-by {self.parts.by} keeps them apart."
            )
        elif self.groups is None:
            found.append(
                "The data do not say who moves in each test clip: the same people may train and test, and then the "
                "accuracy for a new person is lower."
            )
        untested = [
            name for name, row in zip(self.class_names, self.scores["classes"], strict=True) if not row["support"]
        ]
        if untested:
            found.append(f"No test clip has the class {listed(untested)}: nothing is known of it.")
        unknown = [
            name
            for name, row, count in zip(self.class_names, self.scores["classes"], trained, strict=True)
            if row["support"] and not count
        ]
        if unknown:
            found.append(f"No clip trains the class {listed(unknown)}: its test clips count as wrong.")
        rare = [name for name, count in zip(self.class_names, trained, strict=True) if 0 < count < _FEW]
        if rare:
            found.append(f"Fewer than {_FEW} clips train the class {listed(rare)}.")
        return found + self._mirrored()

    def _mirrored(self) -> list[str]:
        """A warning of people, or clips, that are recognised better as mirror images."""
        right, images = self.probabilities.argmax(1) == self.labels, self.images == self.labels
        groups = np.full(len(right), "") if self.groups is None else self.groups
        better = []
        for group in np.unique(groups):
            members = groups == group
            lead, error = paired_difference(images[members], right[members])
            if lead > _CLEAR * error and lead > 0:
                shares = f"{100 * images[members].mean():.1f} % as mirror images, {100 * right[members].mean():.1f} %"
                better.append((lead, f"{titled(self.parts.by)} '{group}': " * (self.groups is not None) + shares))
        if not better:
            return []
        first = max(better)[1]
        others = f" (and {len(better) - 1} more)" if len(better) > 1 else ""
        return [
            f"Clips are recognised better as mirror images: {first} as they are{others}. Read mirrored films with "
            "--mirrored and left-handed axes with --left-handed; where people use the other hand, train with --mirror."
        ]

    def _limits(self) -> list[str]:
        found = []
        if self.groups is not None:
            count = len(np.unique(self.groups))
            found.append(f"{count} {titled(self.parts.by, count)} {'tests' if count == 1 else 'test'} the model.")
        few = [
            name
            for name, row in zip(self.class_names, self.scores["classes"], strict=True)
            if 0 < row["support"] < _FEW
        ]
        if few:
            found.append(f"Fewer than {_FEW} clips test the class {listed(few)}: one clip moves its figures far.")
        layout = get_layout(self.extractor.layout)
        found.append(
            f"Tested on recordings of the same kind as those that trained it ({layout.name}): another sensor, camera "
            "angle or pose estimator may do worse."
        )
        if self.classifier.config.min_similarity is None:
            found.append("The model answers with one of its classes, also for a movement that is none of them.")
        else:
            found.append(
                "These figures name a class for every clip. In use, a clip unlike the training clips is 'none of "
                "these'; "
                "whether other movements are recognised as such was not tested."
            )
        return found

    def summary(self) -> dict[str, float]:
        """The main scores: accuracy, with more than five classes top-5 accuracy, balanced accuracy and macro F1."""
        top = accuracy(self.probabilities, self.labels)
        names = ("accuracy", "balanced_accuracy", "macro_f1")
        scores = {name: self.scores[name] for name in names}
        return scores | {name: value for name, value in top.items() if name != "accuracy"}

    def metrics(self) -> dict[str, Any]:
        """What goes into ``metrics.json``: `scores`, `baselines` and `warnings`."""
        names = [{"name": name, **row} for name, row in zip(self.class_names, self.scores["classes"], strict=True)]
        return {
            "scores": {**self.scores, "classes": names},
            "baselines": self.baselines,
            "warnings": self.warnings,
        }

    def write(self, folder: Path, title: str) -> None:
        """Write ``predictions.csv`` and ``report.html``.

        Args:
            folder: Where.
            title: Heading of the page.
        """
        clips = self._scored_clips()
        header = ["name", "group", "true_class", "predicted_class", *(f"p:{name}" for name in self.class_names)]
        with (
            new_file(folder / "predictions.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(header)
            for clip in clips:
                classes = self.class_names[clip.truth], self.class_names[clip.predicted]
                writer.writerow(
                    [clip.name, clip.group or "", *classes, *(f"{value:.6f}" for value in clip.probabilities)]
                )
        self._page(clips, title).write(folder / "report.html")

    def _scored_clips(self) -> list[ScoredClip]:
        names = self.test.names
        groups = [None] * len(names) if self.groups is None else [str(group) for group in self.groups]
        return [
            ScoredClip(str(name), int(label), row, group)
            for name, label, row, group in zip(names, self.labels, self.probabilities, groups, strict=True)
        ]

    def _page(self, clips: list[ScoredClip], title: str) -> Report:
        predicted = self.probabilities.argmax(1)
        sure = self.probabilities.max(1)
        wrong = predicted != self.labels
        # The surest wrong answers; where none is wrong, the least sure right ones.
        hardest = np.argsort(np.where(wrong, -sure, 1 + sure), kind="stable")[:SHOWN]
        hardest = hardest[wrong[hardest]] if wrong.any() else hardest
        count = 0 if self.groups is None else len(np.unique(self.groups))
        people = "" if not count else f"{count} {titled(self.parts.by, count)}"
        facts = [f"{len(clips)} tested clips", f"{len(self.class_names)} classes", people]
        return Report(
            title=title,
            class_names=self.class_names,
            scores=self.scores,
            clips=clips,
            recordings={int(number): self.test[int(number)] for number in hardest},
            examples=self._examples(),
            baselines=self.baselines,
            about=list(self.about.items()),
            facts=[fact for fact in facts if fact],
            history=self.history,
            curve=self.curve,
            warnings=self.warnings,
            limits=self.limits,
            group=titled(self.parts.by),
        )

    def _examples(self) -> dict[int, Any]:
        """A training clip of each class: the one whose embedding is nearest to the mean of its class."""
        labels = np.asarray(self.train.column("labels"))
        chosen = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            chosen[members[np.linspace(0, len(members) - 1, min(len(members), _CANDIDATES)).round().astype(int)]] = (
                True
            )
        part = self.train.select(chosen)
        features, kinds = embed_part(self.classifier, self.extractor, part)
        rows = features.float().cpu().numpy()
        examples = {}
        for label in np.unique(kinds):
            members = np.flatnonzero(kinds == label)
            distances = np.linalg.norm(rows[members] - rows[members].mean(0), axis=1)
            examples[int(label)] = part[int(members[distances.argmin()])]
        return examples


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names for a sentence, in quotation marks."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def report_model(
    model: str | os.PathLike,
    data: str | os.PathLike | SkeletonData,
    output_dir: str | os.PathLike,
    *,
    part: str = "test",
    group_by: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a recogniser on labelled data, and write ``metrics.json``, ``predictions.csv`` and ``report.html``.

    Args:
        model: Name or folder of a recogniser.
        data: A data set whose classes are some of the model's, by name.
        output_dir: Folder to make.
        part: "test" for the data's test part, beside baselines that its training part gives; "all" for all clips,
            which must not be those that trained the model.
        group_by: See `data.splits.split_data`.
        seed: Random seed of a split by groups.

    Returns:
        The record that was written to ``metrics.json``.

    Raises:
        CheckpointLoadError: If the model cannot be loaded.
        SkeletonFormatError: If the data cannot be read or split, or have classes that the model does not know.
        ValueError: If the model is no recogniser of exclusive classes, or an argument is impossible.
    """
    if part not in ("test", "all"):
        raise ValueError(f"part must be test or all, got '{part}'")
    started = time.monotonic()
    classifier = load_model(model, dtype=torch.float32)
    one_class = classifier.config.problem_type in (None, "single_label_classification")
    if not isinstance(classifier, USDRLForActionRecognition) or not one_class:
        raise ValueError(
            f"model '{model}' is a {type(classifier).__name__} without exclusive classes: nothing to report"
        )
    if torch.cuda.is_available():
        classifier.to("cuda")  # type: ignore[arg-type]
    extractor, name = load_feature_extractor(model), Path(model).name
    where = str(data) if isinstance(data, str | os.PathLike) else source_name(data)
    dataset = _in_classes_of(classifier, with_clips(open_data(data).drop_empty(), None, where), where)
    if part == "test":
        parts = split_data(dataset, group_by, seed=seed)
        tested = Tested.of_parts(classifier, extractor, parts)
    else:
        by = "subject" if (groups_of(dataset, "subject") != "").any() else None
        parts = Parts(
            dataset, None, dataset, "all clips test; none of them may have trained the model", group_by or by
        )
        tested = Tested.of(classifier, extractor, dataset)
    with new_folder(output_dir) as folder:
        about = {
            "Model": shown_name(model),
            "Data": f"{source_name(dataset)}: {len(parts.test)} clips test",
            "Split": parts.rule,
        }
        report = TrainingReport(classifier, extractor, parts, about=about, tested=tested)
        if may_have_trained := _trained_on(model, source_name(dataset), parts.rule):
            report.warnings.insert(0, may_have_trained)
        report.write(folder, f"{name}: {source_name(dataset)}")
        record = {
            "task": "report of a recogniser",
            "model": str(model),
            **record_of(dataset),
            "split": parts.rule,
            "groups": parts.to_dict(),
            "n": {"test": len(parts.test)},
            "metrics": report.summary(),
            **report.metrics(),
            **run_record(started),
        }
        write_record(folder, record)
    return record


def _trained_on(model: str | os.PathLike, dataset: str, rule: str) -> str | None:
    """A warning if a model was trained on data of the same name, but not by the same split."""
    try:
        record = json.loads((Path(model) / "metrics.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("dataset") != dataset:
        return None
    if str(record.get("split", "")).startswith(rule) and "folds" not in record:
        return None
    return (
        f"The model was trained on data of the same name, '{dataset}', by another split: clips that trained it may "
        "test it, and then the figures are too high."
    )


def _in_classes_of(classifier: USDRLForActionRecognition, dataset: SkeletonData, where: str) -> SkeletonData:
    """The data with the numbers of a model's classes, by their names."""
    known = {name: number for number, name in enumerate(classifier.config.class_names)}
    unknown = [name for name in dataset.class_names if name not in known]
    if unknown:
        raise SkeletonFormatError(
            f"{where}: the model does not know the class {listed(unknown)}: it knows {listed(list(known), 20)}"
        )
    numbers = np.array([known[name] for name in dataset.class_names])
    return dataset.relabelled(numbers[np.asarray(dataset.column("labels"))], list(known))
