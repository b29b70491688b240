"""Scores of predicted risks, with bootstrap intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.evaluation.calibration import calibration_index, recalibrate
from ehrmeta.evaluation.discrimination import BinaryRisk, auprc, auroc, read_binary
from ehrmeta.evaluation.metrics import Array, bootstrap_counts, percentile_limits

_NEED_LOGIT = ("calibration_slope", "calibration_in_the_large")
Scale = tuple[Callable[[Any], Any], Callable[[Any], Any]]
#: Transformations to a scale on which a score is nearly normal, and back. Other scores have none.
POOLING_SCALES: dict[str, Scale] = {
    "auroc": (special.logit, special.expit),
    "e_o_ratio": (np.log, np.exp),
}
_CELLS = 2_000_000  # (sample, row) cells computed at once


def _log_loss(y: Array, p: Array, weight: Array) -> Array:
    # as in scikit-learn, so that a wrong risk of 0 or 1 has a large but finite loss
    tiny = np.finfo(np.float64).eps
    p = np.clip(p, tiny, 1 - tiny)
    return _mean(-np.log(np.where(y == 1, p, 1 - p)), weight)


def _brier(y: Array, p: Array, weight: Array) -> Array:
    return _mean((p - y) ** 2, weight)


def _scaled_brier(y: Array, p: Array, weight: Array) -> Array:
    prevalence = _mean(y, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        score: Array = 1 - _brier(y, p, weight) / (prevalence * (1 - prevalence))
    return np.where(prevalence * (1 - prevalence) > 0, score, np.nan)


def _expected_observed(y: Array, p: Array, weight: Array) -> Array:
    observed = weight @ y
    ratio = np.full(len(weight), np.nan)
    np.divide(weight @ p, observed, out=ratio, where=observed > 0)
    return ratio


def _mean(loss: Array, weight: Array) -> Array:
    return np.asarray(weight @ loss / weight.sum(1), np.float64)


#: Functions from outcomes (row,), risks (row,) and weights (sample, row) to scores (sample,), which
#: are NaN for samples in which they are not defined.
RISK_METRICS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "auroc": auroc,
    "auprc": auprc,
    "log_loss": _log_loss,
    "brier": _brier,
    "scaled_brier": _scaled_brier,
    "calibration_slope": lambda y, p, w: recalibrate(y, p, w, with_slope=True)[:, 1],
    "calibration_in_the_large": lambda y, p, w: recalibrate(y, p, w, with_slope=False)[:, 0],
    "e_o_ratio": _expected_observed,
    "ici": calibration_index,
}


def risk_score(
    metric: str, y_true: ArrayLike, y_prob: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    r"""Score of predicted risks.

    Parameters
    ----------
    metric : str
        - ``"auroc"``, ``"auprc"`` (average precision): as in scikit-learn.
        - ``"log_loss"``, ``"brier"``: as in scikit-learn.
        - ``"scaled_brier"``: :math:`1 - B / (\bar y (1 - \bar y))`; 1 is perfect, 0 is the score of
          predicting the prevalence.
        - ``"calibration_slope"``: b of the regression
          :math:`\mathrm{logit} P(y) = a + b\,\mathrm{logit}(p)`; below 1, risks are too extreme.
        - ``"calibration_in_the_large"``: a of this regression with b = 1; above 0, risks are too
          low.
        - ``"e_o_ratio"``: expected over observed events; above 1, risks are too high.
        - ``"ici"``: mean distance of the risks from `smooth_calibration_curve` (lowess).
    y_true, y_prob : (row,)
        Outcomes, 0 or 1, and the predicted probability of 1.
    sample_weight : (row,), optional

    Raises
    ------
    DataError
        Values are impossible, or the score is not defined for these rows (only one class or, for
        the slope, risks of exactly 0 or 1).

    References
    ----------
    Van Calster et al. (2019), doi:10.1186/s12916-019-1466-7.

    Examples
    --------
    >>> y, p = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]
    >>> risk_score("auroc", y, p)
    0.75
    >>> round(risk_score("e_o_ratio", y, p), 3)  # 1.65 expected, 2 observed
    0.825
    """
    _check_metrics([metric])
    data = read_binary(y_true, y_prob, sample_weight)
    score = float(RISK_METRICS[metric](data.y, data.p, data.weight[None])[0])
    if np.isnan(score):
        raise DataError(f"{metric} is not defined: {_why_undefined(metric, data)}.")
    return score


def risk_scores(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    metrics: Sequence[str] = tuple(RISK_METRICS),
) -> dict[str, float]:
    """Several scores of predicted risks by name; see `risk_score`.

    Examples
    --------
    >>> scores = risk_scores([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], metrics=("auroc", "brier"))
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'auroc': 0.75, 'brier': 0.158}
    """
    return {name: risk_score(name, y_true, y_prob, sample_weight=sample_weight) for name in metrics}


def risk_intervals(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    metrics: Sequence[str] = ("auroc", "calibration_slope", "e_o_ratio"),
    sample_weight: ArrayLike | None = None,
    confidence_level: float = 0.9,
    n_bootstrap: int = 500,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Scores of one cohort, each with a percentile interval over resampled patients.

    Parameters
    ----------
    y_true, y_prob : (row,)
        Outcome, 0 or 1, and predicted risk, one row per patient.
    metrics : sequence of str
        Names in `RISK_METRICS`; see `risk_score`. The ICI takes about a second per cohort.
    sample_weight : (row,), optional
        For example the censoring weights of `labels_at`, which are not recomputed in resamples.
    confidence_level : float, default 0.9
    n_bootstrap : int
        Number of resamples; with 0, the limits are NaN.
    random_state : int or None

    Returns
    -------
    DataFrame
        A row per metric: metric, value, low, high, se (standard error on the scale on which
        `pool_sites` pools), n_undefined (number of resamples without a value; if more than half,
        limits and se are NaN), note (why the value is NaN).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=500)
    >>> scores = risk_intervals(rng.random(500) < p, p).set_index("metric")
    >>> print(scores[["value", "low", "high"]].round(2).to_string(index_names=False))
                       value   low  high
    auroc               0.84  0.82  0.87
    calibration_slope   1.02  0.87  1.21
    e_o_ratio           1.01  0.96  1.06
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
    """Rows of `risk_intervals`; all metrics use the same resamples."""
    _check_metrics(metrics)
    counts = data.weight > 0
    data = BinaryRisk(*(values[counts] for values in data))
    if not counts.any():
        return [_row(name, np.nan, "all weights are 0") for name in metrics]
    values = {name: float(RISK_METRICS[name](*data[:2], data.weight[None])[0]) for name in metrics}
    samples = _samples(data, [m for m in metrics if np.isfinite(values[m])], n_bootstrap, rng)
    rows = []
    for name, value in values.items():
        if np.isnan(value):
            rows.append(_row(name, value, _why_undefined(name, data)))
            continue
        defined = samples[name][np.isfinite(samples[name])]
        row = _row(name, value, "") | {"n_undefined": n_bootstrap - len(defined)}
        if len(defined) > max(1, n_bootstrap / 2):
            row["low"], row["high"] = percentile_limits(defined, confidence_level)
            row["se"] = _standard_error(name, defined)
        rows.append(row)
    return rows


def _check_metrics(metrics: Sequence[str]) -> None:
    for name in metrics:
        if name not in RISK_METRICS:
            raise DataError(f"unknown metric {name!r}. {did_you_mean(name, RISK_METRICS)}")


def _why_undefined(metric: str, data: BinaryRisk) -> str:
    """Why a metric is NaN on these rows."""
    if not data.has_both_classes:
        events = int(np.count_nonzero(data.y[data.weight > 0]))
        return f"only one class, {events} events in {np.count_nonzero(data.weight > 0)} rows"
    certain = int(np.count_nonzero((data.p == 0) | (data.p == 1)))
    if metric in _NEED_LOGIT and certain:
        return f"risks of exactly 0 or 1 in {certain} rows, whose logit is infinite"
    if np.ptp(data.p[data.weight > 0]) == 0:
        return "all rows have the same risk"
    return "the risks separate events from non-events, so the estimate is infinite"


def _standard_error(metric: str, samples: Array) -> float:
    """Standard deviation of the finite samples, on the scale on which the metric is pooled."""
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
    limits = dict.fromkeys(("low", "high", "se"), np.nan)
    return {"metric": metric, "value": value, **limits, "n_undefined": 0, "note": note}
