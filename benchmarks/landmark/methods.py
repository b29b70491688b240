"""The methods of the landmark benchmark: what is known of the values, and what turns it into risk.

All see the same static features. They differ in how the values before the landmark are summarised
(the last one, a mixed model's BLUP, the adapted forecaster's posterior; how many there are and how
old the last is) and in the risk model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks.landmark.cox import CauseSpecificCox
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.data import read_survival
from ehrmeta.estimators import DiscreteTimeHazard, MetaRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.evaluation import aalen_johansen, labels_at

__all__ = ["FORECASTERS", "METHODS", "OURS", "Forecaster", "Method"]

Array = NDArray[np.float64]


class WeightedLogistic(BaseEstimator):
    """A logistic regression for every horizon, weighted for censoring."""

    def fit(self, X: Array, y: Any) -> Self:
        """Keep the patients: which horizons are asked for is not known yet."""
        self.X_, self.y_ = X, y
        return self

    def predict_cumulative_incidence(self, X: Array, times: ArrayLike) -> Array:
        """Probability of the first cause's event by each time, (row, time)."""
        risks = []
        for time in np.atleast_1d(times):
            label, weight = labels_at(self.y_, horizon=time)
            known = weight > 0
            model = LogisticRegression(max_iter=1000)
            model.fit(self.X_[known], label[known], sample_weight=weight[known])
            risks.append(model.predict_proba(X)[:, 1])
        return np.column_stack(risks)


class NoFeatures(BaseEstimator):
    """Everybody's risk is the cumulative incidence of all."""

    def fit(self, X: Array, y: Any) -> Self:
        """Keep the outcome."""
        read_survival(y)
        self.y_ = y
        return self

    def predict_cumulative_incidence(self, X: Array, times: ArrayLike) -> Array:
        """Aalen-Johansen's estimate, (row, time)."""
        return np.tile(aalen_johansen(self.y_, times=times), (len(X), 1))


@dataclass(frozen=True)
class Forecaster:
    """What summarises the values before the landmark.

    Parameters
    ----------
    model : TaskRegressor
    columns : tuple of str
        Of `landmark_posterior` and `visits`, that are used.
    """

    model: TaskRegressor
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """Values, and the model of the risk.

    Parameters
    ----------
    forecaster : str
        One of `FORECASTERS`; "" without values.
    risk : estimator
        With ``fit(X, y)`` and ``predict_cumulative_incidence(X, times)``.
    """

    forecaster: str
    risk: BaseEstimator


_VISITS = ("count", "age")

FORECASTERS: dict[str, Forecaster] = {
    "last value": Forecaster(LastValue(), ("level",)),
    "last value and visits": Forecaster(LastValue(), ("level", *_VISITS)),
    "BLUP": Forecaster(MixedEffects(), ("level", "slope")),
    "BLUP and visits": Forecaster(MixedEffects(), ("level", "slope", *_VISITS)),
    "posterior": Forecaster(
        MetaRegressor(verbose=False, device="cpu"), ("level", "slope", "spread")
    ),
}

_BOOSTING = HistGradientBoostingClassifier(
    learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=200, random_state=0
)

OURS = "hazard, posterior"
METHODS: dict[str, Method] = {
    OURS: Method("posterior", DiscreteTimeHazard()),
    "hazard, BLUP": Method("BLUP", DiscreteTimeHazard()),
    "hazard, last value": Method("last value", DiscreteTimeHazard()),
    "hazard, BLUP and visits": Method("BLUP and visits", DiscreteTimeHazard()),
    "hazard, last value and visits": Method("last value and visits", DiscreteTimeHazard()),
    "hazard, no values": Method("", DiscreteTimeHazard()),
    "boosted hazard, last value": Method("last value", DiscreteTimeHazard(_BOOSTING, intervals=10)),
    "Cox, BLUP": Method("BLUP", CauseSpecificCox()),
    "Cox, last value": Method("last value", CauseSpecificCox()),
    "Cox, last value and visits": Method("last value and visits", CauseSpecificCox()),
    "logistic, BLUP": Method("BLUP", WeightedLogistic()),
    "logistic, last value": Method("last value", WeightedLogistic()),
    "no features": Method("", NoFeatures()),
}
