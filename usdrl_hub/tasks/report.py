"""What is said of a recogniser after training: scores, predictions, and a page to show."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.clips import ClipDataset
from ..data.dataset import SkeletonData
from ..data.splits import Parts, groups_of, titled
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_file
from ..finite import check_finite
from ..inference.embedding import embed_part
from ..layouts import get_layout
from ..metrics.classification import accuracy, classification_report
from ..modeling_usdrl import USDRLForActionRecognition
from ..visualize.report import Report, ScoredClip

# Clips of a forward pass, and of a block of distances.
_BATCH, _BLOCK = 128, 2048
# Skeletons in a page, and training clips of a class among which its example is chosen.
_SHOWN, _CANDIDATES = 24, 20
# Test clips of a class below which its figures say little.
_FEW = 5


@torch.inference_mode()
def class_probabilities(
    classifier: USDRLForActionRecognition, extractor: USDRLFeatureExtractor, data: SkeletonData
) -> np.ndarray:
    """Probabilities ``(N, K)`` of the classes of clips, in float32.

    Raises:
        NonFiniteError: If one is NaN or infinite.
    """
    was_training = classifier.training
    classifier.eval()
    rows = []
    for batch in torch.utils.data.DataLoader(ClipDataset(data, extractor), _BATCH):
        logits = classifier(keypoints=batch["keypoints"].to(classifier.device)).logits
        rows.append(logits.float().softmax(-1).cpu())
    classifier.train(was_training)
    probabilities = torch.cat(rows).numpy()
    check_finite(probabilities, "the probabilities of the classes")
    return probabilities


def joint_neighbours(train: SkeletonData, test: SkeletonData, extractor: USDRLFeatureExtractor) -> np.ndarray:
    """Class ``(N,)`` of the training clip nearest to each test clip, by normalised joints without any model.

    Args:
        train: Training clips with labels.
        test: N test clips.
        extractor: Normalises and resizes clips; distances are Euclidean.
    """
    labels = np.asarray(train.column("labels"))
    tested = _clips(test, extractor, 0, len(test))
    best = torch.full((len(test),), torch.inf)
    nearest = torch.zeros(len(test), dtype=torch.long)
    for start in range(0, len(train), _BLOCK):
        distances = torch.cdist(tested, _clips(train, extractor, start, start + _BLOCK))
        values, rows = distances.min(1)
        nearest = torch.where(values < best, rows + start, nearest)
        best = torch.minimum(values, best)
    return labels[nearest.numpy()]


def _clips(data: SkeletonData, extractor: USDRLFeatureExtractor, start: int, end: int) -> torch.Tensor:
    return extractor(list(data[start:end]), return_tensors="pt")["keypoints"].flatten(1)


@dataclass(frozen=True)
class Tested:
    """What models and baselines answer for tested clips.

    Attributes:
        data: N tested clips with labels.
        probabilities: ``(N, K)``.
        baselines: Answers ``(N,)`` of simpler methods, by name.
    """

    data: SkeletonData
    probabilities: np.ndarray
    baselines: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, classifier: USDRLForActionRecognition, extractor: USDRLFeatureExtractor, parts: Parts) -> Tested:
        """The answers of a model that was trained on a part, and of baselines, for the test part."""
        majority = np.bincount(np.asarray(parts.train.column("labels"))).argmax()
        baselines = {
            "nearest neighbour on normalised joints": joint_neighbours(parts.train, parts.test, extractor),
            "majority class": np.full(len(parts.test), majority),
        }
        return cls(parts.test, class_probabilities(classifier, extractor, parts.test), baselines)

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
        return cls(dataset.select(mask), probabilities, baselines)

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
        tested = Tested.of(classifier, extractor, parts) if tested is None else tested
        self.train, self.test = parts.train, tested.data
        self.probabilities = tested.probabilities
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
        name, value = max(self.baselines.items(), key=lambda entry: entry[1])
        accuracy = self.scores["accuracy"]
        if accuracy <= value:
            found.append(
                f"The model ({100 * accuracy:.1f} %) is not better than the {name} ({100 * value:.1f} %), "
                "which needs no training."
            )
        if self.parts.shared:
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
            found.append(f"No test clip has the class {_listed(untested)}: nothing is known of it.")
        rare = [name for name, count in zip(self.class_names, trained, strict=True) if 0 < count < _FEW]
        if rare:
            found.append(f"Fewer than {_FEW} clips train the class {_listed(rare)}.")
        return found

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
            found.append(f"Fewer than {_FEW} clips test the class {_listed(few)}: one clip moves its figures far.")
        layout = get_layout(self.extractor.layout)
        found.append(
            f"Tested on recordings of the same kind as those that trained it ({layout.name}): another sensor, camera "
            "angle or pose estimator may do worse."
        )
        found.append("The model answers with one of its classes, also for a movement that is none of them.")
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
            new_file(folder / "predictions.csv") as partial,
            open(partial, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
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
        hardest = np.argsort(np.where(wrong, -sure, 1 + sure), kind="stable")[:_SHOWN]
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


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
