"""Areas under curves of ranked risks, for many weightings of the same rows at once.

They equal scikit-learn's `roc_auc_score` and `average_precision_score`, which take one weighting a
call: a bootstrap over fifty hospitals asks for ten thousand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["auprc", "auroc"]

Array = NDArray[np.float64]


def auroc(y: Array, p: Array, weight: Array) -> Array:
    """Probability that an event has a higher risk than a non-event; ties count one half.

    Parameters
    ----------
    y, p : (row,)
        Outcomes, 0 or 1, and risks.
    weight : (sample, row)
        For example how often a bootstrap sample holds each row.

    Returns
    -------
    (sample,)
        NaN where a sample holds one class only.

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

    Parameters and shapes are those of `auroc`; NaN where a sample holds no event. A model that
    knows nothing gets the prevalence.

    Examples
    --------
    >>> auprc(np.array([0, 1, 1]), np.array([0.5, 0.2, 0.9]), np.ones((1, 3)))  # (1 + 2/3) / 2
    array([0.83333333])
    """
    events, others = (counts[:, ::-1] for counts in _per_risk(y, p, weight))
    found, shown = np.cumsum(events, axis=1), np.cumsum(events + others, axis=1)
    precision = np.divide(found, shown, out=np.zeros_like(shown), where=shown > 0)
    with np.errstate(invalid="ignore"):
        area: Array = (events * precision).sum(1) / found[:, -1]
    return area


def _per_risk(y: Array, p: Array, weight: Array) -> tuple[Array, Array]:
    """Weight of the events and of the others at each distinct risk, rising, (sample, risk)."""
    order = np.argsort(p)
    starts = np.flatnonzero(np.diff(p[order], prepend=-np.inf))
    events: Array = np.add.reduceat((weight * y)[:, order], starts, axis=1)
    others: Array = np.add.reduceat((weight * (1 - y))[:, order], starts, axis=1)
    return events, others
