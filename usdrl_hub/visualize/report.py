"""The report of a trained model as one page: scores, confusions or errors, hardest clips as skeletons, limits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..sequence import SkeletonSequence
from .page import check_output, packed_scene, write_page
from .panel import CLASS_COLORS, PERSON_COLORS
from .scene import Scene, frames_to_draw

# Frames of a skeleton and their highest rate, so that a page of thirty clips has only a few MB.
_MAX_FRAMES, _MAX_FPS = 90, 15.0
_SCORES = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro F1"}


@dataclass(frozen=True)
class ScoredClip:
    """A test clip with its prediction.

    Attributes:
        name: Name of the recording.
        truth: True class.
        probabilities: Predicted probabilities ``(K,)``.
        group: Group of the clip, such as the person, or None if unknown.
    """

    name: str
    truth: int
    probabilities: np.ndarray
    group: str | None = None

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probabilities))


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        title: Heading.
        class_names: Names of the K classes.
        scores: The result of `metrics.classification.classification_report`.
        clips: The test clips.
        recordings: Recordings of clips to show as skeletons, by index of the clip.
        examples: A typical training clip of each class, by index of the class.
        baselines: Accuracy of simpler methods, by name.
        about: Model, data and training, as pairs of a term and a text.
        facts: Short facts below the heading.
        history: A row per epoch, such as {"epoch": 1, "loss": 0.9, "accuracy": 0.5}.
        curve: Accuracy by clips per class, such as {"clips": 5, "accuracy": 0.7, "low": 0.6, "high": 0.8}.
        warnings: Warnings at the top of the page.
        limits: Limits of the figures.
        group: Name of a group of clips, such as "person".
    """

    title: str
    class_names: Sequence[str]
    scores: Mapping[str, Any]
    clips: Sequence[ScoredClip]
    recordings: Mapping[int, SkeletonSequence] = field(default_factory=dict)
    examples: Mapping[int, SkeletonSequence] = field(default_factory=dict)
    baselines: Mapping[str, float] = field(default_factory=dict)
    about: Sequence[tuple[str, str]] = ()
    facts: Sequence[str] = ()
    history: Sequence[Mapping[str, float]] = ()
    curve: Sequence[Mapping[str, float]] = ()
    warnings: Sequence[str] = ()
    limits: Sequence[str] = ()
    group: str = "person"

    def write(self, path: str | os.PathLike) -> None:
        """Write a self-contained page.

        Args:
            path: A file with the suffix ``.html``.

        Raises:
            OutputError: If the file cannot be written.
            ValueError: If the file has another suffix.
        """
        check_output(path, (".html",), "a report is written")
        write_page("report_template.html", self.title, self._content(), Path(path))

    def _content(self) -> dict[str, Any]:
        scenes: list[dict[str, Any]] = []
        shown = _add_scenes(scenes, self.recordings)
        examples = _add_scenes(scenes, self.examples)
        rows: list[dict[str, Any]] = [
            {
                "name": clip.name,
                "group": clip.group,
                "truth": clip.truth,
                "predicted": clip.predicted,
                "probability": float(clip.probabilities[clip.predicted]),
                "true_probability": float(clip.probabilities[clip.truth]),
                "scene": shown.get(place),
            }
            for place, clip in enumerate(self.clips)
        ]
        # Wrong predictions by falling probability, then right ones by rising probability.
        rows.sort(key=lambda row: row["probability"] if row["truth"] == row["predicted"] else -row["probability"])
        unit = self.group if self.scores["interval_unit"] == "group" else "clip"
        return {
            "kind": "classes",
            "title": self.title,
            "facts": list(self.facts),
            "warnings": list(self.warnings),
            "limits": list(self.limits),
            "about": [list(pair) for pair in self.about],
            "unit": _intervals(unit),
            "group": self.group,
            "scores": self._scores(),
            "classes": [
                {"name": name, **row} for name, row in zip(self.class_names, self.scores["classes"], strict=True)
            ],
            "confusion": self.scores["confusion"],
            "clips": rows,
            "scenes": scenes,
            "examples": [examples.get(label) for label in range(len(self.class_names))],
            "history": _history_charts(self.history),
            "curve": self._curve(),
            "colors": list(PERSON_COLORS),
        }

    def _scores(self) -> list[dict[str, Any]]:
        rows = []
        for key, name in _SCORES.items():
            low, high = self.scores["intervals"][key]
            beside = [{"name": other, "value": value} for other, value in self.baselines.items()]
            row = {"name": name, "value": self.scores[key], "low": low, "high": high}
            rows.append({**row, "beside": beside if key == "accuracy" else []})
        error = {"name": "Calibration error (0 is best)", "value": self.scores["calibration_error"]}
        return [*rows, {**error, "low": None, "high": None, "beside": []}]

    def _curve(self) -> list[dict[str, Any]]:
        if not self.curve:
            return []
        points = [
            [row["clips"], row["accuracy"], *(row[end] for end in ("low", "high") if end in row)] for row in self.curve
        ]
        line = {"name": "accuracy on the tested clips", "color": CLASS_COLORS[0], "points": points}
        label = "labelled clips per class"
        return [{"label": label, "lines": [line], "most": 1.0, "percentages": True, "logarithmic": True}]


@dataclass(frozen=True)
class ValueReport:
    """The content of a report of a model of numbers, such as quality scores.

    Attributes:
        title: Heading.
        target: What the numbers are.
        scores: The result of `metrics.regression.regression_report`.
        names: Names of the N tested clips.
        groups: Group of each clip, such as the person, empty where unknown.
        values: True numbers ``(N,)``.
        predicted: Predicted numbers ``(N,)``.
        recordings: Recordings of clips to show as skeletons, by index of the clip.
        about: Model, data and training, as pairs of a term and a text.
        facts: Short facts below the heading.
        history: A row per epoch, see `Report`.
        warnings: Warnings at the top of the page.
        limits: Limits of the figures.
        group: Name of a group of clips, and of several, such as "person" and "people".
    """

    title: str
    target: str
    scores: Mapping[str, Any]
    names: Sequence[str]
    groups: Sequence[str]
    values: np.ndarray
    predicted: np.ndarray
    recordings: Mapping[int, SkeletonSequence] = field(default_factory=dict)
    about: Sequence[tuple[str, str]] = ()
    facts: Sequence[str] = ()
    history: Sequence[Mapping[str, float]] = ()
    warnings: Sequence[str] = ()
    limits: Sequence[str] = ()
    group: tuple[str, str] = ("person", "people")

    def write(self, path: str | os.PathLike) -> None:
        """Write a self-contained page; see `Report.write`."""
        check_output(path, (".html",), "a report is written")
        write_page("report_template.html", self.title, self._content(), Path(path))

    def _content(self) -> dict[str, Any]:
        scenes: list[dict[str, Any]] = []
        shown = _add_scenes(scenes, self.recordings)
        rows = [
            {
                "name": str(self.names[number]),
                "group": str(self.groups[number]) or None,
                "truth": float(self.values[number]),
                "predicted": float(self.predicted[number]),
                "scene": shown.get(number),
            }
            for number in np.argsort(-np.abs(self.predicted - self.values), kind="stable").tolist()
        ]
        grouped = len(self.scores["groups"]) > 1 and all(self.groups)
        return {
            "kind": "values",
            "title": self.title,
            "target": self.target,
            "facts": list(self.facts),
            "warnings": list(self.warnings),
            "limits": list(self.limits),
            "about": [list(pair) for pair in self.about],
            "unit": _intervals(self.group[0] if grouped else "clip"),
            "group": self.group[0],
            "heading": f"Errors of {self.group[1]}",
            "scores": self._scores(),
            "classes": [dict(row) for row in self.scores["groups"]],
            "clips": rows,
            "scenes": scenes,
            "history": _history_charts(self.history),
            "curve": [],
            "colors": list(PERSON_COLORS),
        }

    def _scores(self) -> list[dict[str, Any]]:
        low, high = self.scores["intervals"]["mae"]
        beside = [{"name": "mean of the training clips", "value": self.scores["mae_of_mean"]}]
        none: dict[str, Any] = {"low": None, "high": None, "beside": []}
        return [
            {"name": "Mean absolute error", "value": self.scores["mae"], "low": low, "high": high, "beside": beside},
            {"name": "Root mean square error", "value": self.scores["rmse"], **none},
            {"name": "Correlation", "value": self.scores["correlation"], **none},
        ]


def _add_scenes(scenes: list[dict[str, Any]], sequences: Mapping[int, SkeletonSequence]) -> dict[int, int]:
    """Append recordings, as the page draws them; returns their places."""
    places = {}
    for key, sequence in sequences.items():
        scene = Scene.of(sequence)
        frames, rate = frames_to_draw(scene.num_frames, scene.rate, _MAX_FRAMES, _MAX_FPS)
        places[key] = len(scenes)
        scenes.append(packed_scene(scene.subsampled(frames, rate), np.arange(len(frames)), 1))
    return places


def _intervals(unit: str) -> str:
    return f"Ranges are 95 % intervals over {'people' if unit == 'person' else unit + 's'}."


def _history_charts(history: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """A chart of losses and one of accuracies, over epochs."""
    charts = []
    for kind in ("loss", "accuracy"):
        names = [name for name in dict.fromkeys(key for row in history for key in row) if kind in name]
        lines: list[dict[str, Any]] = [
            {
                "name": name.replace("_", " "),
                "color": CLASS_COLORS[place % len(CLASS_COLORS)],
                "points": [[row["epoch"], row[name]] for row in history if name in row],
            }
            for place, name in enumerate(names)
        ]
        if lines:
            top = max(point[1] for line in lines for point in line["points"])
            most = 1.0 if kind == "accuracy" else max(top, 1e-9)
            charts.append({"label": "epoch", "lines": lines, "most": most, "percentages": kind == "accuracy"})
    return charts
