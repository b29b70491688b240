"""Scores of risks with bootstrap intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.evaluation.binary import BinaryRisk, read_binary
from ehrmeta.evaluation.bootstrap import bootstrap_counts, percentile_limits
from ehrmeta.evaluation.risk import RISK_METRICS, why_undefined

__all__ = ["POOLING_SCALES", "interval_rows", "risk_intervals"]

Array = NDArray[np.float64]
Scale = tuple[Callable[[Any], Any], Callable[[Any], Any]]

#: Where a score is nearly normal, and the way back; the others are so as they are.
POOLING_SCALES: dict[str, Scale] = {
    "auroc": (special.logit, special.expit),
    "e_o_ratio": (np.log, np.exp),
}
_CELLS = 2_000_000  # (sample, row) cells at a time


def risk_intervals(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    metrics: Sequence[str] = ("auroc", "calibration_slope", "e_o_ratio"),
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.95,
    n_bootstrap: int = 500,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Scores of one cohort, each with a percentile interval over resampled patients.

    Parameters
    ----------
    y_true, y_prob : (row,)
        One row a patient: outcome, 0 or 1, and its risk.
    metrics : sequence of str
        Of `RISK_METRICS`; see `risk_score`. The ICI takes about a second per cohort.
    sample_weight : (row,), optional
        For example the censoring weights of `labels_at`, held fixed.
    confidence_level : float
    n_bootstrap : int
        0 leaves the limits NaN.
    random_state : int or None

    Returns
    -------
    DataFrame
        A row per metric: metric, value, low, high, se (standard error on the scale on which the
        metric is pooled, see `pool_sites`), n_undefined (resamples that do not define it and do
        not count; where they are more than half, limits and se are NaN), note (why the value is
        NaN).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=500)
    >>> scores = risk_intervals(rng.random(500) < p, p).set_index("metric")
    >>> print(scores[["value", "low", "high"]].round(2).to_string(index_names=False))
                       value   low  high
    auroc               0.84  0.81  0.87
    calibration_slope   1.02  0.84  1.24
    e_o_ratio           1.01  0.94  1.08
    """
    data = read_binary(y_true, y_prob, sample_weight)
    rng = np.random.default_rng(random_state)
    return pd.DataFrame(interval_rows(data, metrics, confidence_level, n_bootstrap, rng))


def interval_rows(
    data: BinaryRisk,
    metrics: Sequence[str],
    confidence_level: float,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Rows of `risk_intervals`; every metric sees the same resamples."""
    unknown = [name for name in metrics if name not in RISK_METRICS]
    if unknown:
        raise DataError(f"unknown metric {unknown[0]!r}. {did_you_mean(unknown[0], RISK_METRICS)}")
    rows = data.weight > 0
    data = BinaryRisk(data.y[rows], data.p[rows], data.weight[rows])
    if not rows.any():
        return [_row(name, np.nan, "no row counts") for name in metrics]
    values = {name: float(RISK_METRICS[name](*data[:2], data.weight[None])[0]) for name in metrics}
    samples = _samples(data, [m for m in metrics if np.isfinite(values[m])], n_bootstrap, rng)
    found = []
    for name, value in values.items():
        if np.isnan(value):
            found.append(_row(name, value, why_undefined(name, data)))
            continue
        defined = samples[name][np.isfinite(samples[name])]
        row = _row(name, value, "") | {"n_undefined": n_bootstrap - len(defined)}
        if len(defined) > max(1, n_bootstrap / 2):
            row["low"], row["high"] = percentile_limits(defined, confidence_level)
            row["se"] = _standard_error(name, defined)
        found.append(row)
    return found


def _standard_error(metric: str, samples: Array) -> float:
    """Standard deviation on the metric's scale of pooling, over samples that are finite there."""
    to_scale = POOLING_SCALES.get(metric, (np.asarray, np.asarray))[0]
    with np.errstate(divide="ignore"):
        scaled = to_scale(samples)
    scaled = scaled[np.isfinite(scaled)]
    return float(np.std(scaled, ddof=1)) if len(scaled) > 1 else np.nan


def _samples(
    data: BinaryRisk, metrics: Sequence[str], n_bootstrap: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Each metric of each resample, (sample,)."""
    n = len(data.y)
    at_once = max(1, _CELLS // n)
    parts: dict[str, list[Array]] = {name: [np.empty(0)] for name in metrics}
    for done in range(0, n_bootstrap, at_once):
        counts = bootstrap_counts(n, min(at_once, n_bootstrap - done), rng) * data.weight
        for name in metrics:
            parts[name].append(RISK_METRICS[name](data.y, data.p, counts))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _row(metric: str, value: float, note: str) -> dict[str, Any]:
    nothing = {"low": np.nan, "high": np.nan, "se": np.nan, "n_undefined": 0}
    return {"metric": metric, "value": value, **nothing, "note": note}
