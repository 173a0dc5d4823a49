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
