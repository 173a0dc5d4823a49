"""Metrics of classification and regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..finite import check_finite


def accuracy(logits: Any, labels: Any) -> dict[str, float]:
    """Top-1 and, with more than five classes, top-5 accuracy in [0, 1].

    Args:
        logits: Array or tensor ``(..., K)``. A tie with the true class counts as wrong.
        labels: Classes ``(...)``; items labelled -100 are ignored.

    Raises:
        NonFiniteError: If a logit is NaN or infinite.
        ValueError: If no label is left.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    counted = labels != -100
    logits, labels = logits[counted], labels[counted]
    if not len(labels):
        raise ValueError("there is no label to score against: all of them are -100, or there are none")
    check_finite(logits, "the logits")
    # Number of classes that score at least as high as the true one.
    rank = (logits >= np.take_along_axis(logits, labels[:, None], axis=1)).sum(axis=1)
    scores = {"accuracy": float((rank <= 1).mean())}
    if logits.shape[-1] > 5:
        scores["top5_accuracy"] = float((rank <= 5).mean())
    return scores


def agreement(predicted: Any, labels: Any) -> float:
    """Share of N items whose predicted class is the true one, in [0, 1].

    Args:
        predicted: Classes ``(N,)``.
        labels: True classes ``(N,)``.

    Raises:
        ValueError: If N is 0.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if not len(labels):
        raise ValueError("there is no label to score against")
    return float((predicted == labels).mean())


def early_accuracy(predicted: Mapping[float, Any], labels: Any) -> dict[str, float]:
    """Accuracy of early action prediction.

    Args:
        predicted: Class of each clip ``(N,)`` by observation ratio; -1 for a clip without a prediction.
        labels: True classes ``(N,)``.

    Returns:
        `accuracy@r` in [0, 1] for each ratio r in percent, and their mean `mean_accuracy`.

    Raises:
        ValueError: If there are no clips.
    """
    scores = {f"accuracy@{round(100 * ratio)}": agreement(classes, labels) for ratio, classes in predicted.items()}
    return {**scores, "mean_accuracy": float(np.mean(list(scores.values())))}


def regression_metrics(predicted: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Mean squared error `mse` and mean absolute error `mae` of N numbers."""
    off = (predicted.reshape(-1) - values.reshape(-1)).astype(np.float64)
    return {"mse": float(np.square(off).mean()), "mae": float(np.abs(off).mean())}


def multilabel_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Metrics of multi-label classification, with a threshold of one half.

    Args:
        logits: ``(N, K)``.
        labels: ``(N, K)``, 1 for each class of a clip, else 0.

    Returns:
        `exact_match`, the share of clips with all classes right, and the micro-averaged `f1`, both in [0, 1].
    """
    found, truth = logits > 0, labels > 0.5
    total = int(found.sum() + truth.sum())
    f1 = 2 * int((found & truth).sum()) / total if total else 1.0
    return {"exact_match": float((found == truth).all(axis=-1).mean()), "f1": f1}


def confusion_matrix(labels: Any, predicted: Any, num_classes: int) -> np.ndarray:
    """Confusion matrix ``(K, K)`` int64: number of clips by true class (row) and predicted class (column).

    Args:
        labels: True classes ``(N,)``.
        predicted: Predicted classes ``(N,)``.
        num_classes: K.

    Raises:
        ValueError: If lengths differ, or a class is not a whole number in [0, K).
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or any(
        values.size and values.dtype.kind not in "iu" for values in (labels, predicted)
    ):
        raise ValueError("true and predicted classes must be equally many whole numbers")
    labels, predicted = labels.astype(np.int64), predicted.astype(np.int64)
    if len(labels) and not (
        0 <= min(labels.min(), predicted.min()) <= max(labels.max(), predicted.max()) < num_classes
    ):
        raise ValueError(f"classes must be in [0, {num_classes})")
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and support of each class, from confusion matrices.

    Args:
        confusion: ``(..., K, K)``, see `confusion_matrix`.

    Returns:
        `precision`, `recall` and `f1` in [0, 1] and `support`, each ``(..., K)``. Undefined scores are NaN: the
        recall of a class without clips, the precision of a class that is never predicted, the F1 of a class with
        neither.
    """
    confusion = np.asarray(confusion, np.float64)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {"precision": right / predicted, "recall": right / support, "f1": 2 * right / (support + predicted)}
    return {**scores, "support": support}


def _summary(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy, balanced accuracy and macro F1 of confusion matrices ``(..., K, K)``, each ``(...)``."""
    scores = class_scores(confusion)
    right = np.diagonal(confusion, axis1=-2, axis2=-1).sum(-1)
    return {
        "accuracy": right / confusion.sum((-2, -1)),
        "balanced_accuracy": np.nanmean(scores["recall"], axis=-1),
        "macro_f1": np.nanmean(scores["f1"], axis=-1),
    }


def calibration_error(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., ICML 2017), in [0, 1]: mean gap between confidence and accuracy.

    Args:
        probabilities: ``(N, K)``.
        labels: True classes ``(N,)``.
        bins: Number of confidence bins of equal width.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    # A bin includes its upper end, as in the paper.
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(number, confidence - right, bins)
    return float(np.abs(gaps).sum() / len(labels))


def classification_report(
    probabilities: Any,
    labels: Any,
    *,
    groups: Any = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of a recogniser over all clips and per class, with bootstrap confidence intervals.

    Args:
        probabilities: ``(N, K)``, of K exclusive classes; ties go to the first class.
        labels: True classes ``(N,)``.
        groups: Group of each clip ``(N,)``, such as the person; all numbers or all names. Clips of a group are not
            independent, so the bootstrap resamples whole groups. A few groups may be alike by chance, so an interval
            is at least as wide as that of resampled clips. Clips alone are resampled if None or if there is a single
            group.
        level: Confidence level of the intervals, in (0, 1).
        resamples: Number of bootstrap samples.
        seed: Random seed of the bootstrap.

    Returns:
        `accuracy`, `balanced_accuracy` (mean recall over classes with clips), `macro_f1` (mean F1 over classes with
        clips or predictions) and `calibration_error`; `intervals`, [low, high] for each of the first three, and
        `interval_unit`, "group" or "clip". Where all answers are right, or wrong, a bootstrap has no width, and the
        interval is the exact binomial one of as many units; where all of each class are, the interval of a mean over
        classes reaches as far as that of the accuracy. `confusion`, see `confusion_matrix`; `classes`, a list of
        `precision`, `recall` and `f1` (None if undefined) and `support`.

    Raises:
        NonFiniteError: If a probability is NaN or infinite.
        ValueError: If there are no clips, lengths differ, labels are not classes, or rows are not probabilities.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or not len(labels):
        raise ValueError(f"probabilities (N, K) and labels (N,) do not fit: {probabilities.shape}, {labels.shape}")
    check_finite(probabilities, "the probabilities")
    if probabilities.min() < 0 or np.abs(probabilities.sum(1) - 1).max() > 1e-2:
        raise ValueError("each row of probabilities must be at least 0 and sum to 1: these may be logits")
    if groups is not None and np.shape(groups) != labels.shape:
        raise ValueError(f"there are {len(labels)} clips, but groups of {len(groups)}")
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predicted, classes)
    labels = labels.astype(np.int64)
    units = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    by_group = units.max() > 0 and groups is not None
    summary = _summary(confusion)
    per_class = class_scores(confusion)
    rows = [
        {name: None if np.isnan(values[number]) else float(values[number]) for name, values in per_class.items()}
        for number in range(classes)
    ]
    return {
        **{name: float(value) for name, value in summary.items()},
        "calibration_error": calibration_error(probabilities, labels),
        "intervals": _intervals(labels, predicted, units if by_group else None, classes, level, resamples, seed),
        "interval_unit": "group" if by_group else "clip",
        "confusion": confusion.tolist(),
        "classes": [{**row, "support": int(row["support"] or 0)} for row in rows],
    }


def paired_difference(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """The accuracy of one model minus that of another on the same clips, and the standard error of it.

    The standard error is McNemar's, of two models that are equally good: clips on which both are right, or both are
    wrong, have no share in it. Clips count as independent; those of one person are less than that.

    Args:
        first: Which clips the one model has right, ``(N,)``.
        second: Those of the other.
        weights: Weights of the clips ``(N,)``, not negative; all alike where None.

    Returns:
        Difference and standard error, in shares of the clips.
    """
    weights = np.ones(len(first)) if weights is None else weights
    gains = weights * (first.astype(float) - second.astype(float))
    return float(gains.sum() / weights.sum()), float(np.sqrt(np.square(gains).sum()) / weights.sum())


def _intervals(
    labels: np.ndarray,
    predicted: np.ndarray,
    units: np.ndarray | None,
    classes: int,
    level: float,
    resamples: int,
    seed: int,
) -> dict[str, list[float]]:
    """Intervals of the scores of `_summary`, see `classification_report`; `units` are groups, None for clips."""
    # Only non-empty cells: a large confusion matrix is sparse.
    used, cells = np.unique(labels * classes + predicted, return_inverse=True)
    random, sizes = np.random.default_rng(seed), np.bincount(cells)
    samples: list[np.ndarray] = [random.multinomial(len(labels), sizes / len(labels), size=resamples)]
    count = len(labels)
    if units is not None:
        count = int(units.max()) + 1
        per_unit = np.zeros((count, len(used)))
        np.add.at(per_unit, (units, cells), 1)
        samples.append(random.multinomial(count, np.full(count, 1 / count), size=resamples) @ per_unit)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    ends = [_quantiles(sample, used, classes, tails) for sample in samples]
    found = {name: [min(end[name][0] for end in ends), max(end[name][1] for end in ends)] for name in ends[0]}
    # A bootstrap of answers that are all right, or all wrong, has no width.
    bound, right = float(tails[0] ** (1 / count)), (labels == predicted).mean()
    if right == 1:
        return {name: [bound, 1.0] for name in found}
    if right == 0:
        return {name: [0.0, 1 - bound] for name in found}
    # So has that of a mean over classes each of which is all right, or all wrong: it reaches as far as the accuracy's.
    below, above = right - found["accuracy"][0], found["accuracy"][1] - right
    return {
        name: [max(low - below, 0.0), min(high + above, 1.0)] if np.isclose(low, high) else [low, high]
        for name, (low, high) in found.items()
    }


def _quantiles(sample: np.ndarray, used: np.ndarray, classes: int, tails: np.ndarray) -> dict[str, list[float]]:
    """Quantiles of the scores of drawn clips ``(R, cells)``, given the non-empty cells of the confusion matrix."""
    found: dict[str, list[np.ndarray]] = {}
    for some in np.array_split(sample, max(1, len(sample) * classes**2 // 20_000_000)):
        confusion = np.zeros((len(some), classes**2))
        confusion[:, used] = some
        for name, values in _summary(confusion.reshape(-1, classes, classes)).items():
            found.setdefault(name, []).append(values)
    return {name: np.nanquantile(np.concatenate(parts), tails).tolist() for name, parts in found.items()}
