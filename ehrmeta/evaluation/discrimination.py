"""Discrimination of risks: AUROC, average precision and net benefit.

The areas equal scikit-learn's `roc_auc_score` and `average_precision_score`, but are computed for
many weightings per call, as in a bootstrap.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ehrmeta.errors import DataError
from ehrmeta.evaluation.metrics import Array, finite, refuse


class BinaryRisk(NamedTuple):
    """Checked outcomes and risks, each (row,)."""

    y: Array  # 0 or 1
    p: Array  # from 0 to 1
    weight: Array

    @property
    def has_both_classes(self) -> bool:
        """Whether the rows of positive weight include events and non-events."""
        return len(np.unique(self.y[self.weight > 0])) == 2


def read_binary(
    y_true: ArrayLike, y_prob: ArrayLike, sample_weight: ArrayLike | None = None
) -> BinaryRisk:
    """Check outcomes, risks and weights, one row per patient.

    Parameters
    ----------
    y_true : (row,)
        False or True, or 0 or 1, where 1 is the event.
    y_prob : (row,)
        Predicted probability of the event.
    sample_weight : (row,), optional
        1 by default; rows of weight 0 are ignored.

    Raises
    ------
    DataError
        There are no rows, different lengths, NaN, an outcome other than 0 and 1, a probability
        outside 0 to 1, a negative weight, or only weights of 0.
    """
    y, p = finite("y_true", y_true), finite("y_prob", y_prob)
    if y.ndim != 1 or y.shape != p.shape or len(y) == 0:
        raise DataError(
            f"y_true {y.shape} and y_prob {p.shape} must have one value for each of the same rows. "
            "Pass the event's column of predict_proba as y_prob."
        )
    refuse((y != 0) & (y != 1), "y_true is neither 0 nor 1", "Code the event as 1, all else as 0.")
    outside = (p < 0) | (p > 1)
    refuse(outside, "y_prob lies outside 0 to 1", "Pass probabilities, not logits or percentages.")
    weight = np.ones_like(y) if sample_weight is None else finite("sample_weight", sample_weight)
    if weight.shape != y.shape:
        raise DataError(f"sample_weight has shape {weight.shape}, but y_true has {y.shape}.")
    refuse(weight < 0, "sample_weight is negative")
    if not np.any(weight > 0):
        raise DataError(f"sample_weight is 0 in all {len(y)} rows. Pass positive weights.")
    return BinaryRisk(y, p, weight)


def auroc(y: Array, p: Array, weight: Array) -> Array:
    """AUROC: probability that an event has a higher risk than a non-event; ties count one half.

    Parameters
    ----------
    y, p : (row,)
        Outcomes, 0 or 1, and risks.
    weight : (sample, row)
        For example, how often a bootstrap sample contains each row.

    Returns
    -------
    (sample,)
        NaN for a sample with only one class.

    Examples
    --------
    >>> auroc(np.array([0, 1, 1]), np.array([0.2, 0.2, 0.9]), np.ones((1, 3)))
    array([0.75])
    """
    events, others = _per_risk(y, p, weight)
    lower = np.cumsum(others, axis=1) - 0.5 * others
    with np.errstate(invalid="ignore"):
        area: Array = (events * lower).sum(1) / (events.sum(1) * others.sum(1))
    return area


def auprc(y: Array, p: Array, weight: Array) -> Array:
    """Average precision: the precision at each event, averaged over the events.

    Parameters and shapes are those of `auroc`; NaN for a sample without events. Random risks score
    about the prevalence.

    Examples
    --------
    >>> auprc(np.array([0, 1, 1]), np.array([0.5, 0.2, 0.9]), np.ones((1, 3)))  # (1 + 2/3) / 2
    array([0.83333333])
    """
    events, others = (counts[:, ::-1] for counts in _per_risk(y, p, weight))
    hits, rows = np.cumsum(events, axis=1), np.cumsum(events + others, axis=1)
    precision = np.divide(hits, rows, out=np.zeros_like(rows), where=rows > 0)
    with np.errstate(invalid="ignore"):
        area: Array = (events * precision).sum(1) / hits[:, -1]
    return area


def _per_risk(y: Array, p: Array, weight: Array) -> tuple[Array, Array]:
    """Weight of events and of non-events at each distinct risk, increasing, (sample, risk)."""
    order = np.argsort(p)
    starts = np.flatnonzero(np.diff(p[order], prepend=-np.inf))
    events: Array = np.add.reduceat((weight * y)[:, order], starts, axis=1)
    others: Array = np.add.reduceat((weight * (1 - y))[:, order], starts, axis=1)
    return events, others


class DecisionCurve(NamedTuple):
    """Net benefit per patient at each threshold, (threshold,)."""

    threshold: Array
    model: Array
    treat_all: Array
    treat_none: Array


def net_benefit(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    threshold: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> Array:
    r"""Net benefit: true positives per patient minus weighted false positives.

    .. math:: \mathrm{NB}(t) = \frac{TP}{n} - \frac{FP}{n} \frac{t}{1 - t}

    where risks of t or more count as positive. The threshold t implies that treating one patient
    with the event is worth (1 - t) / t unnecessary treatments.

    Parameters
    ----------
    y_true, y_prob : (row,)
        Outcomes, 0 or 1, and risks.
    threshold : (threshold,)
        From 0 to below 1.
    sample_weight : (row,), optional

    Returns
    -------
    (threshold,)
        At most the prevalence.

    References
    ----------
    Vickers, Elkin (2006), doi:10.1177/0272989X06295361.

    Examples
    --------
    >>> net_benefit([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], threshold=[0.2])  # 2/4 - 1/4 * 1/4
    array([0.4375])
    """
    y, p, weight = read_binary(y_true, y_prob, sample_weight)
    at = np.atleast_1d(finite("threshold", threshold))
    wrong = int(np.count_nonzero((at < 0) | (at >= 1)))
    if wrong:
        raise DataError(f"{wrong} of {len(at)} thresholds lie outside 0 <= threshold < 1.")
    positive = p >= at[:, None]  # (threshold, row)
    benefit = positive @ (weight * y) - positive @ (weight * (1 - y)) * at / (1 - at)
    return np.asarray(benefit / weight.sum(), np.float64)


def decision_curve(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    threshold: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> DecisionCurve:
    """Net benefit of a model, of treating all patients, and of treating none.

    Parameters
    ----------
    threshold : (threshold,), optional
        0.01, 0.02, ..., 0.99 by default.

    Other parameters are those of `net_benefit`.

    Examples
    --------
    >>> curve = decision_curve([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], threshold=[0.2, 0.5])
    >>> curve.treat_all
    array([0.375, 0.   ])
    """
    at = np.arange(1, 100) / 100 if threshold is None else threshold
    model = net_benefit(y_true, y_prob, threshold=at, sample_weight=sample_weight)
    everyone = np.ones(len(np.asarray(y_true)))
    treat_all = net_benefit(y_true, everyone, threshold=at, sample_weight=sample_weight)
    shown = np.atleast_1d(np.asarray(at, np.float64))
    return DecisionCurve(shown, model, treat_all, np.zeros_like(model))
