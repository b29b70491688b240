"""Scores of predicted risks in the words of clinical prediction: all of them, or one by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.evaluation.binary import BinaryRisk, read_binary
from ehrmeta.evaluation.calibration import calibration_index
from ehrmeta.evaluation.discrimination import auprc, auroc
from ehrmeta.evaluation.recalibration import recalibrate

__all__ = ["RISK_METRICS", "risk_score", "risk_scores"]

Array = NDArray[np.float64]


def _log_loss(y: Array, p: Array, weight: Array) -> Array:
    tiny = np.finfo(np.float64).eps  # as in scikit-learn: a certain miss is dear, not infinite
    p = np.clip(p, tiny, 1 - tiny)
    return _mean(-np.log(np.where(y == 1, p, 1 - p)), weight)


def _brier(y: Array, p: Array, weight: Array) -> Array:
    return _mean((p - y) ** 2, weight)


def _scaled_brier(y: Array, p: Array, weight: Array) -> Array:
    prevalence = _mean(y, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = 1 - _brier(y, p, weight) / (prevalence * (1 - prevalence))
    return np.where(prevalence * (1 - prevalence) > 0, found, np.nan)


def _slope(y: Array, p: Array, weight: Array) -> Array:
    return recalibrate(y, p, weight, with_slope=True)[:, 1]


def _in_the_large(y: Array, p: Array, weight: Array) -> Array:
    return recalibrate(y, p, weight, with_slope=False)[:, 0]


def _expected_observed(y: Array, p: Array, weight: Array) -> Array:
    observed = weight @ y
    undefined = np.full(len(weight), np.nan)
    found: Array = np.divide(weight @ p, observed, out=undefined, where=observed > 0)
    return found


def _mean(loss: Array, weight: Array) -> Array:
    found: Array = weight @ loss / weight.sum(1)
    return found


#: Each takes outcomes (row,), risks (row,) and weights (sample, row) and gives (sample,); NaN where
#: a sample does not define it.
RISK_METRICS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "auroc": auroc,
    "auprc": auprc,
    "log_loss": _log_loss,
    "brier": _brier,
    "scaled_brier": _scaled_brier,
    "calibration_slope": _slope,
    "calibration_in_the_large": _in_the_large,
    "e_o_ratio": _expected_observed,
    "ici": calibration_index,
}
_NEED_LOGIT = ("calibration_slope", "calibration_in_the_large")


def risk_score(
    metric: str, y_true: ArrayLike, y_prob: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    r"""One score of predicted risks.

    Parameters
    ----------
    metric : str
        - ``"auroc"``, ``"auprc"`` (average precision): as in scikit-learn.
        - ``"log_loss"``, ``"brier"``: as in scikit-learn.
        - ``"scaled_brier"``: :math:`1 - B / (\bar y (1 - \bar y))`; 1 is perfect, 0 the prevalence.
        - ``"calibration_slope"``: b of the regression
          :math:`\mathrm{logit} P(y) = a + b\,\mathrm{logit}(p)`; below 1 risks are too extreme.
        - ``"calibration_in_the_large"``: a of the same with b = 1; above 0 risks are too low.
        - ``"e_o_ratio"``: expected over observed events; above 1 risks are too high.
        - ``"ici"``: mean distance of the risks from `smooth_calibration_curve` (lowess).
    y_true, y_prob : (row,)
        Outcomes, 0 or 1, and the predicted probability of 1.
    sample_weight : (row,), optional

    Raises
    ------
    DataError
        Impossible values, or rows that do not define the score (one class, risks of exactly 0 or
        1 for the slope); the message says which.

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
    if metric not in RISK_METRICS:
        raise DataError(f"unknown metric {metric!r}. {did_you_mean(metric, RISK_METRICS)}")
    data = read_binary(y_true, y_prob, sample_weight)
    found = float(RISK_METRICS[metric](data.y, data.p, data.weight[None])[0])
    if np.isnan(found):
        raise DataError(f"{metric} is not defined: {why_undefined(metric, data)}.")
    return found


def risk_scores(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    metrics: Sequence[str] = tuple(RISK_METRICS),
) -> dict[str, float]:
    """Several scores by name, as `risk_score` gives them.

    Examples
    --------
    >>> scores = risk_scores([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], metrics=("auroc", "brier"))
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'auroc': 0.75, 'brier': 0.158}
    """
    return {name: risk_score(name, y_true, y_prob, sample_weight=sample_weight) for name in metrics}


def why_undefined(metric: str, data: BinaryRisk) -> str:
    """Reason for which a metric is NaN on these rows."""
    if not data.has_both_classes:
        events = int(np.count_nonzero(data.y[data.weight > 0]))
        return f"one class only, {events} events in {np.count_nonzero(data.weight > 0)} rows"
    certain = int(np.count_nonzero((data.p == 0) | (data.p == 1)))
    if metric in _NEED_LOGIT and certain:
        return f"risks of exactly 0 or 1 in {certain} rows, whose logit is infinite"
    if np.ptp(data.p[data.weight > 0]) == 0:
        return "all rows have one risk"
    return "the risks separate events from non-events, so no estimate is finite"
