"""One cell of the landmark benchmark: one method on one fold of one cohort, all events."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.landmark.data import (
    DAYS,
    HORIZONS,
    Cohort,
    fold_of_sets,
    load_cohort,
    visits,
)
from benchmarks.landmark.methods import FORECASTERS, METHODS, Forecaster, Method
from benchmarks.suite.score_files import Fitted, code_digest, kept
from ehrmeta.data import Table
from ehrmeta.errors import AtypicalWarning, DataError
from ehrmeta.estimators import landmark_posterior

__all__ = ["FULL", "QUICK", "Plan", "run_cell", "test_rows"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Parameters
    ----------
    n_folds, folds_run : int
        Folds of the split, and how many of them are run.
    max_tasks : int, optional
        People that a forecaster is trained on, drawn at random.
    max_steps : int, optional
        Of the forecaster's training; its default without it.
    seed : int
    """

    n_folds: int = 5
    folds_run: int = 5
    max_tasks: int | None = None
    max_steps: int | None = None
    seed: int = 0


FULL = Plan()
QUICK = Plan(folds_run=1, max_tasks=400, max_steps=60)


def run_cell(name: str, method: str, fold: int, plan: Plan, folder: Path | None) -> Fitted:
    """Risks of the fold's test patients by horizon and event, from the folder or measured now.

    What the folder has counts under these settings and this code.

    The scores of a horizon (in years) hold, by event, the risks of the rows of `test_rows`.
    """
    chosen = METHODS[method]
    known = repr(FORECASTERS[chosen.forecaster]) if chosen.forecaster else ""
    settings = [name, repr(chosen), known, fold, asdict(plan), HORIZONS, _code()]
    return kept(
        folder,
        f"landmark {name} {method} {fold}",
        settings,
        lambda: _measure(load_cohort(name), chosen, fold, plan),
    )


@cache
def _code() -> str:
    """As it is when the first cell is asked for."""
    return code_digest("landmark/[cdm]*.py")


def test_rows(cohort: Cohort, event: str, fold: int, plan: Plan) -> Mask:
    """Which rows of the event's labels are the fold's test patients."""
    folds = fold_of_sets(cohort.matched_set, plan.n_folds, plan.seed)
    mask: Mask = folds[cohort.labels[event].index] == fold
    return mask


def _measure(cohort: Cohort, method: Method, fold: int, plan: Plan) -> Fitted:
    started = time.perf_counter()
    features = cohort.static
    if method.forecaster:
        test = fold_of_sets(cohort.matched_set, plan.n_folds, plan.seed) == fold
        values = _values(FORECASTERS[method.forecaster], cohort, test, plan)
        features = pd.concat([features, values], axis=1)
    risks: dict[int, dict[str, Array]] = {years: {} for years in HORIZONS}
    for event, labels in cohort.labels.items():
        tested = test_rows(cohort, event, fold, plan)
        prepare = make_pipeline(
            SimpleImputer(strategy="median", add_indicator=True),
            VarianceThreshold(),
            StandardScaler(),
        )
        X = features.loc[labels.index].to_numpy()
        model = clone(method.risk).fit(
            prepare.fit_transform(X[~tested]), cohort.outcome(event)[~tested]
        )
        found = model.predict_cumulative_incidence(prepare.transform(X[tested]), HORIZONS)
        if not np.isfinite(found).all():
            raise DataError(f"a risk model of {event} gives NaN: repair it or leave it out.")
        for years, risk in zip(HORIZONS, found.T, strict=True):
            risks[years][event] = risk
    return Fitted(risks, time.perf_counter() - started)


def _values(forecaster: Forecaster, cohort: Cohort, test: Mask, plan: Plan) -> pd.DataFrame:
    """What a forecaster trained without the test patients says of every patient's values."""
    subjects, at = cohort.times["subject_id"], cohort.times["prediction_time"].to_numpy()
    now = _at_landmark(next(iter(cohort.labs.values())), cohort.times)
    columns = []
    for lab, table in cohort.labs.items():
        train = _some(table.take(~np.isin(table.groups, subjects[test])), plan.max_tasks, plan.seed)
        model = clone(forecaster.model)
        for name, value in (("max_steps", plan.max_steps), ("random_state", plan.seed)):
            if value is not None and name in model.get_params():
                model.set_params(**{name: value})
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
        known = table.take(_up_to(table, cohort.times))
        with warnings.catch_warnings():  # among many patients some are atypical by chance
            warnings.simplefilter("ignore", AtypicalWarning)
            adapted = model.adapt(known.X, known.y, groups=known.groups, time=known.time)
            found = landmark_posterior(
                adapted, now.reindex(columns=table.X.columns), groups=subjects, time=at, step=DAYS
            )
        found = pd.concat([found, visits(table, cohort.times)], axis=1)
        columns.append(found[list(forecaster.columns)].add_prefix(f"{lab} "))
    return pd.concat(columns, axis=1)


def _up_to(table: Table, times: pd.DataFrame) -> Mask:
    """Rows that are known at their patient's landmark, (row,); none of people without one."""
    landmark = pd.Series(table.groups).map(times.set_index("subject_id")["prediction_time"])
    mask: Mask = np.asarray(table.time) <= landmark.to_numpy()
    return mask


def _at_landmark(table: Table, times: pd.DataFrame) -> pd.DataFrame:
    """Features of every patient's last visit by the landmark, the age advanced to it."""
    known = table.take(_up_to(table, times))
    last = known.tasks.order[known.tasks.starts[1:] - 1]
    place = pd.Index(known.tasks.labels).get_indexer(times["subject_id"])
    rows = known.X.iloc[last[place]].reset_index(drop=True)
    waited = times["prediction_time"].to_numpy() - np.asarray(known.time)[last[place]]
    return rows.assign(age=rows["age"] + waited / DAYS)


def _some(table: Table, max_tasks: int | None, seed: int) -> Table:
    if max_tasks is None or table.n_tasks <= max_tasks:
        return table
    chosen = np.zeros(table.n_tasks, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(table.n_tasks)[:max_tasks]] = True
    return table.take(chosen[table.tasks.codes])
