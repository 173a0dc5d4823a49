"""Metrics of predicted numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..finite import check_finite


def regression_report(
    predicted: np.ndarray,
    values: np.ndarray,
    groups: np.ndarray | None = None,
    center: float | np.ndarray = 0.0,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Errors of predicted numbers over all clips and per group, beside a constant.

    Args:
        predicted: ``(N,)``.
        values: True numbers ``(N,)``.
        groups: Group of each clip ``(N,)`` as text, such as the person, empty where unknown; None for no groups.
        center: The constant, such as the mean of the training clips; or one of each clip ``(N,)``, where the clips
            were tested in folds.
        resamples: Number of bootstrap samples.
        seed: Random seed of the bootstrap.

    Returns:
        `mae`, `rmse`, `correlation` (Pearson's; None if a side is constant), `mae_of_mean`, that of the constant;
        `intervals` with the 95 % bootstrap interval of `mae`, over clips or, if all are known and that is wider, over
        groups; and
        `groups`, a row of `name`, `n`, `mae`, `mae_of_mean` and `correlation` each.

    Raises:
        NonFiniteError: If a number is NaN or infinite.
        ValueError: If there are no clips, or lengths differ.
    """
    predicted, values = np.asarray(predicted, np.float64), np.asarray(values, np.float64)
    if predicted.shape != values.shape or predicted.ndim != 1 or not len(values):
        raise ValueError(f"predicted and true numbers (N,) do not fit: {predicted.shape}, {values.shape}")
    check_finite(predicted, "the predicted numbers")
    check_finite(values, "the true numbers")
    center = np.broadcast_to(np.asarray(center, np.float64), values.shape)
    names = np.full(len(values), "") if groups is None else np.asarray(groups)
    errors = np.abs(predicted - values)
    units = [np.arange(len(values))]
    if (names != "").all() and len(np.unique(names)) > 1:
        units.append(np.unique(names, return_inverse=True)[1])
    ends = np.array([_interval(errors, unit, resamples, seed) for unit in units])
    interval = [float(ends[:, 0].min()), float(ends[:, 1].max())]
    rows = []
    for name in sorted(np.unique(names[names != ""]), key=_in_order):
        mine = names == name
        row = _errors(predicted[mine], values[mine], center[mine])
        rows.append({"name": str(name), "n": int(mine.sum()), **row})
    return {
        **_errors(predicted, values, center),
        "rmse": float(np.sqrt(np.square(predicted - values).mean())),
        "intervals": {"mae": interval},
        "groups": rows,
    }


def _interval(errors: np.ndarray, units: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Ends of the 95 % interval of the mean error, resampling units ``(N,)``."""
    count = int(units.max()) + 1
    sums, sizes = np.bincount(units, errors, count), np.bincount(units, minlength=count)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.quantile((draws @ sums) / (draws @ sizes), [0.025, 0.975])


def _in_order(name: str) -> tuple[int, int, str]:
    """Numbers in their order, then other names."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _errors(predicted: np.ndarray, values: np.ndarray, center: np.ndarray) -> dict[str, Any]:
    is_constant = len(values) < 2 or np.ptp(predicted) == 0 or np.ptp(values) == 0
    return {
        "mae": float(np.abs(predicted - values).mean()),
        "mae_of_mean": float(np.abs(center - values).mean()),
        "correlation": None if is_constant else float(np.corrcoef(predicted, values)[0, 1]),
    }
