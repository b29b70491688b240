"""Cause-specific Cox regression and cumulative incidence, by Newton's method.

statsmodels' PHReg divides by zero on tied days (its risk sets are differences of sums), and the
survival packages are not compatible with our pinned versions.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from benchmarks.suite.arrays import Array, Mask
from ehrmeta.data import read_survival
from ehrmeta.errors import DataError

_MOST_STEPS = 50


class CauseSpecificCox(BaseEstimator):
    """Proportional-hazards model of each cause, with Breslow's ties and baseline hazards.

    A comparator of `DiscreteTimeHazard` with the same interface.

    Parameters
    ----------
    penalty : float
        Ridge penalty, which keeps coefficients finite if a rare cause is separated.

    References
    ----------
    Cox (1972), doi:10.1111/j.2517-6161.1972.tb00899.x. Putter, Fiocco, Geskus (2007),
    doi:10.1002/sim.2712.
    """

    def __init__(self, penalty: float = 1.0) -> None:
        self.penalty = penalty

    def fit(self, X: Array, y: Any) -> Self:
        """Fit every cause, with other causes as censoring; X is standardised, without NaN."""
        event, time = read_survival(y)
        self.causes_ = np.unique(event[event > 0])
        self.coef_, self.baseline_ = {}, {}
        for cause in self.causes_.tolist():
            coef = _fit_cox(X, time, event == cause, self.penalty)
            self.coef_[cause] = coef
            self.baseline_[cause] = _breslow(time, event == cause, np.exp(X @ coef))
        return self

    def predict_cumulative_incidence(self, X: Array, times: ArrayLike, *, cause: int = 1) -> Array:
        """Probability that the event of a cause comes first and by each time, (row, time)."""
        if cause not in self.causes_:
            raise DataError(f"cause {cause} did not occur in training.")
        steps = np.unique(np.concatenate([when for when, _ in self.baseline_.values()]))
        total, of_cause = np.zeros((len(X), len(steps))), np.empty(0)
        for each, (when, jump) in self.baseline_.items():
            baseline = np.zeros(len(steps))
            baseline[np.searchsorted(steps, when)] = jump
            hazard = np.exp(X @ self.coef_[each])[:, None] * baseline
            total += hazard
            of_cause = hazard if each == cause else of_cause
        before = np.exp(-np.cumsum(total, axis=1) + total)
        share = -np.expm1(-total) * of_cause / np.maximum(total, 1e-300)  # of each step
        curve = np.column_stack([np.zeros(len(X)), np.cumsum(before * share, axis=1)])
        incidence: Array = curve[:, np.searchsorted(steps, np.atleast_1d(times), side="right")]
        return incidence


def _fit_cox(X: Array, time: Array, event: Mask, penalty: float) -> Array:
    """Maximum penalised partial likelihood estimate, (feature,)."""
    order = np.argsort(-time, kind="stable")  # in decreasing time, risk sets are nested
    x, e, t = X[order], event[order], time[order]
    at_risk = np.searchsorted(-t, -t[e], side="right") - 1  # last index of the risk set
    drawn, eye = x[e].sum(axis=0), penalty * np.eye(x.shape[1])

    def parts(coef: Array) -> tuple[float, Array, Array]:
        """Log likelihood, its gradient and its negative Hessian."""
        eta = x @ coef
        relative = np.exp(eta - eta.max())
        total = np.cumsum(relative)[at_risk]
        mean = np.cumsum(relative[:, None] * x, axis=0)[at_risk] / total[:, None]
        # weighted number of risk sets that contain each row
        share = np.bincount(at_risk, 1.0 / total, minlength=len(x))[::-1].cumsum()[::-1]
        second = (x * (relative * share)[:, None]).T @ x - mean.T @ mean
        value = eta[e].sum() - np.log(total).sum() - len(total) * eta.max()
        value -= 0.5 * penalty * coef @ coef
        return float(value), drawn - mean.sum(axis=0) - penalty * coef, second + eye

    coef = np.zeros(x.shape[1])
    value, gradient, information = parts(coef)
    for _ in range(_MOST_STEPS):
        step = np.linalg.solve(information, gradient)
        while True:
            after = parts(coef + step)
            if after[0] >= value - 1e-9 * abs(value):
                break
            step = 0.5 * step
        coef = coef + step
        value, gradient, information = after
        if np.abs(step).max() < 1e-8:
            break
    return coef


def _breslow(time: Array, event: Mask, relative: Array) -> tuple[Array, Array]:
    """Event times and increments of the cumulative baseline hazard."""
    order = np.argsort(time)
    at_risk = np.cumsum(relative[order][::-1])[::-1]
    when, counts = np.unique(time[event], return_counts=True)
    return when, counts / at_risk[np.searchsorted(time[order], when, side="left")]
