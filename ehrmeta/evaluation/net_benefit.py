"""Whether deciding by a risk is better than treating everyone or no one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import DataError
from ehrmeta.evaluation.binary import read_binary
from ehrmeta.evaluation.metrics import finite

__all__ = ["DecisionCurve", "decision_curve", "net_benefit"]

Array = NDArray[np.float64]


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
    r"""True positives per patient, less the false ones at the exchange rate of the threshold.

    .. math:: \mathrm{NB}(t) = \frac{TP}{n} - \frac{FP}{n} \frac{t}{1 - t}

    where those with a risk of at least t count as positive: whoever treats at a risk of t holds
    one event found to be worth (1 - t) / t treatments in vain.

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
    found: Array = benefit / weight.sum()
    return found


def decision_curve(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    threshold: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> DecisionCurve:
    """Net benefit of a model beside that of treating all and none.

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
