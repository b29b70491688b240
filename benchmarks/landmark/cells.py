"""Methods of the landmark benchmark, and the risks of one method on one fold of a cohort.

All use the same static features. They differ in the summary of the values before the landmark (last
value, BLUP of a mixed model, posterior of the adapted forecaster; number of values and age of the
last one) and in the risk model.
"""

import time
import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.landmark.cox import CauseSpecificCox
from benchmarks.landmark.data import DAYS, HORIZONS, Cohort, fold_of_sets, load_cohort, visits
from benchmarks.suite.arrays import Array, Mask
from benchmarks.suite.cells import Fitted
from benchmarks.suite.fitting import Plan, prepared, subsample
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.data import Table
from ehrmeta.errors import AtypicalWarning, DataError
from ehrmeta.estimators import DiscreteTimeHazard, MetaRegressor, landmark_posterior
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.evaluation import aalen_johansen, labels_at


class WeightedLogistic(BaseEstimator):
    """Logistic regression for each horizon, weighted for censoring."""

    def fit(self, X: Array, y: Any) -> Self:
        """Store the patients, as the horizons are not known yet."""
        self.X_, self.y_ = X, y
        return self

    def predict_cumulative_incidence(self, X: Array, times: ArrayLike) -> Array:
        """Probability of the first cause's event by each time, (row, time)."""
        risks = []
        for horizon in np.atleast_1d(times):
            label, weight = labels_at(self.y_, horizon=horizon)
            known = weight > 0
            model = LogisticRegression(max_iter=1000)
            model.fit(self.X_[known], label[known], sample_weight=weight[known])
            risks.append(model.predict_proba(X)[:, 1])
        return np.column_stack(risks)


class NoFeatures(BaseEstimator):
    """Cumulative incidence of all patients as the risk of everyone."""

    def fit(self, X: Array, y: Any) -> Self:
        """Store the outcome."""
        self.y_ = y
        return self

    def predict_cumulative_incidence(self, X: Array, times: ArrayLike) -> Array:
        """Aalen-Johansen's estimate, (row, time)."""
        return np.tile(aalen_johansen(self.y_, times=times), (len(X), 1))


@dataclass(frozen=True)
class Forecaster:
    """Summary of the values before the landmark: a model, and columns that are used.

    Columns are those of `landmark_posterior` and `visits`.
    """

    model: TaskRegressor
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """One of `FORECASTERS` ("" for none), and a model of the risk.

    The latter has ``fit(X, y)`` and ``predict_cumulative_incidence(X, times)``.
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


FULL = Plan()
QUICK = Plan(folds_run=1, max_tasks=400, max_steps=60)


def held_out_rows(cohort: Cohort, event: str, fold: int, plan: Plan) -> Mask:
    """Mask of the fold's test patients in the labels of an event."""
    folds = fold_of_sets(cohort.matched_set, plan.n_folds, plan.seed)
    mask: Mask = folds[cohort.labels[event].index] == fold
    return mask


def measure_risks(name: str, method_name: str, fold: int, plan: Plan) -> Fitted:
    """Risks of the fold's test patients by one method.

    The scores of a horizon (in years) hold, by event, the risks of the rows of `held_out_rows`.
    """
    return fold_risks(load_cohort(name), METHODS[method_name], fold, plan)


def fold_risks(cohort: Cohort, method: Method, fold: int, plan: Plan) -> Fitted:
    """`measure_risks` for a given cohort."""
    started = time.perf_counter()
    features = cohort.static
    if method.forecaster:
        test = fold_of_sets(cohort.matched_set, plan.n_folds, plan.seed) == fold
        values = _values(FORECASTERS[method.forecaster], cohort, test, plan)
        features = pd.concat([features, values], axis=1)
    risks: dict[int, dict[str, Array]] = {years: {} for years in HORIZONS}
    for event, labels in cohort.labels.items():
        tested = held_out_rows(cohort, event, fold, plan)
        imputer = SimpleImputer(strategy="median", add_indicator=True)
        prepare = make_pipeline(imputer, VarianceThreshold(), StandardScaler())
        X, outcome = features.loc[labels.index].to_numpy(), cohort.outcome(event)
        model = clone(method.risk).fit(prepare.fit_transform(X[~tested]), outcome[~tested])
        incidence = model.predict_cumulative_incidence(prepare.transform(X[tested]), HORIZONS)
        if not np.isfinite(incidence).all():
            raise DataError(f"a risk model of {event} returns NaN: fix it or exclude it.")
        for years, risk in zip(HORIZONS, incidence.T, strict=True):
            risks[years][event] = risk
    return Fitted(risks, time.perf_counter() - started)


def _values(forecaster: Forecaster, cohort: Cohort, test: Mask, plan: Plan) -> pd.DataFrame:
    """Summary of every patient's values by a forecaster trained without the test patients."""
    subjects, at = cohort.times["subject_id"], cohort.times["prediction_time"].to_numpy()
    now = _at_landmark(next(iter(cohort.labs.values())), cohort.times)
    columns = []
    for lab, table in cohort.labs.items():
        train = table.take(~np.isin(table.groups, subjects[test]))
        train = subsample(train, plan.max_tasks, plan.seed)
        model = prepared(forecaster.model, plan.seed, plan.max_steps)
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
        known = table.take(_up_to(table, cohort.times))
        with warnings.catch_warnings(action="ignore", category=AtypicalWarning):
            adapted = model.adapt(known.X, known.y, groups=known.groups, time=known.time)
            posterior = landmark_posterior(
                adapted, now.reindex(columns=table.X.columns), groups=subjects, time=at, step=DAYS
            )
        summary = pd.concat([posterior, visits(table, cohort.times)], axis=1)
        columns.append(summary[list(forecaster.columns)].add_prefix(f"{lab} "))
    return pd.concat(columns, axis=1)


def _up_to(table: Table, times: pd.DataFrame) -> Mask:
    """Mask of the rows up to the landmark of their patient, (row,)."""
    landmark = pd.Series(table.groups).map(times.set_index("subject_id")["prediction_time"])
    mask: Mask = np.asarray(table.time) <= landmark.to_numpy()
    return mask


def _at_landmark(table: Table, times: pd.DataFrame) -> pd.DataFrame:
    """Features at the last visit before the landmark, with the age at the landmark."""
    known = table.take(_up_to(table, times))
    last = known.tasks.order[known.tasks.starts[1:] - 1]
    place = pd.Index(known.tasks.labels).get_indexer(times["subject_id"])
    rows = known.X.iloc[last[place]].reset_index(drop=True)
    waited = times["prediction_time"].to_numpy() - np.asarray(known.time)[last[place]]
    return rows.assign(age=rows["age"] + waited / DAYS)
