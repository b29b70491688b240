"""Cause-specific Cox regression from statsmodels, with the cumulative incidence it implies."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from ehrmeta.bench.extras import require
from ehrmeta.data import read_survival
from ehrmeta.errors import DataError

__all__ = ["CauseSpecificCox"]

Array = NDArray[np.float64]


class CauseSpecificCox(BaseEstimator):
    """One proportional-hazards model per cause, Breslow's baselines, Efron's ties.

    The opponent of `DiscreteTimeHazard`, under the same calls.

    References
    ----------
    Cox (1972), doi:10.1111/j.2517-6161.1972.tb00899.x. Putter, Fiocco, Geskus (2007),
    doi:10.1002/sim.2712.
    """

    def fit(self, X: Array, y: Any) -> Self:
        """Fit every cause; the others censor it.

        Parameters
        ----------
        X : array, (row, feature)
            Complete numbers.
        y : structured array, (row,)
        """
        regression = require("statsmodels.duration.hazard_regression").PHReg
        event, time = read_survival(y)
        self.causes_ = np.unique(event[event > 0])
        self.coef_, self.baseline_ = {}, {}
        for cause in self.causes_.tolist():
            model = regression(time, X, status=event == cause, ties="efron")
            with warnings.catch_warnings():  # a rare cause may have no finite optimum
                warnings.simplefilter("ignore", UserWarning)
                fit = model.fit(method="newton", disp=False)
            self.coef_[cause] = fit.params
            self.baseline_[cause] = _breslow(time, event == cause, np.exp(X @ fit.params))
        return self

    def predict_cumulative_incidence(self, X: Array, times: ArrayLike, *, cause: int = 1) -> Array:
        """Probability that the event of a cause comes first and by each time, (row, time)."""
        if cause not in self.causes_:
            raise DataError(f"cause {cause} was not seen in training.")
        steps = np.unique(np.concatenate([when for when, _ in self.baseline_.values()]))
        total, own = np.zeros((len(X), len(steps))), np.empty(0)
        for each, (when, jump) in self.baseline_.items():
            baseline = np.zeros(len(steps))
            baseline[np.searchsorted(steps, when)] = jump
            hazard = np.exp(X @ self.coef_[each])[:, None] * baseline
            total += hazard
            own = hazard if each == cause else own
        before = np.exp(-np.cumsum(total, axis=1) + total)
        share = -np.expm1(-total) * own / np.maximum(total, 1e-300)  # of what the step takes away
        curve = np.column_stack([np.zeros(len(X)), np.cumsum(before * share, axis=1)])
        found: Array = curve[:, np.searchsorted(steps, np.atleast_1d(times), side="right")]
        return found


def _breslow(time: Array, event: NDArray[np.bool_], relative: Array) -> tuple[Array, Array]:
    """Event times and the jumps of the baseline's cumulative hazard."""
    order = np.argsort(time)
    at_risk = np.cumsum(relative[order][::-1])[::-1]
    when, counts = np.unique(time[event], return_counts=True)
    return when, counts / at_risk[np.searchsorted(time[order], when, side="left")]
