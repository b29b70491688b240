"""Methods of the cohorts benchmark, and the predictions of one method on one fold of sites.

All methods run with default settings; the schemas of cohorts choose the learner.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV

from benchmarks.cohorts.data import COHORT_DATA, CohortData, load_cohorts
from benchmarks.cohorts.warfarin_equations import DosingEquation, WithEquation
from benchmarks.suite.arrays import Array, Index, Mask
from benchmarks.suite.cells import Fitted
from benchmarks.suite.fitting import Plan
from benchmarks.suite.task_scores import Scores, joined
from ehrmeta.algorithms import DeepMixedEffects
from ehrmeta.baselines import (
    MixedEffectsLogistic,
    TaskLogistic,
    UpdatedClassifier as Updated,
    UpdatedRegressor,
)
from ehrmeta.errors import AtypicalWarning, DataWarning
from ehrmeta.estimators import MetaClassifier, MetaRegressor

OURS = "deep mixed effects"
BAYES_RULE = "Bayes rule, truth known"

_QUIET: dict[str, Any] = {"verbose": False, "device": "cpu", "random_state": 0}
_TREES: dict[str, Any] = {"learning_rate": 0.05, "max_leaf_nodes": 8, "random_state": 0}


def _classifier(population: Any = None) -> MetaClassifier:
    return MetaClassifier(population=population, **_QUIET)


def _regressor(population: Any = None) -> MetaRegressor:
    return MetaRegressor(population=population, outcome_transform="sqrt", **_QUIET)


def _with_intercept(pooled: Any = None) -> UpdatedRegressor:
    return UpdatedRegressor(pooled, outcome_transform="sqrt")


def _updated(name: str, pooled: Any) -> dict[str, Updated]:
    return {
        f"pooled {name}": Updated(pooled, update="none"),
        f"{name} + intercept": Updated(pooled, update="intercept"),
        f"{name}, recalibrated": Updated(pooled, update="recalibration"),
        f"{name}, closed test": Updated(pooled, update="closed_test"),
    }


_LOGISTIC = LogisticRegression(max_iter=1000)
_BOOSTING = HistGradientBoostingClassifier(**_TREES)


_RISK: dict[str, Any] = {
    OURS: _classifier(),
    f"{OURS} on boosting": _classifier(_BOOSTING),
    **_updated("logistic", _LOGISTIC),
    "ridge to pooled": Updated(_LOGISTIC, update="revision"),
    **_updated("boosting", _BOOSTING),
    "per-site logistic": TaskLogistic(),
    "mixed-effects logistic": MixedEffectsLogistic(),
}

_DOSE: dict[str, Any] = {
    OURS: _regressor(),
    f"{OURS} on boosting": _regressor(HistGradientBoostingRegressor(**_TREES)),
    f"{OURS} + IWPC genetic": WithEquation(_regressor(), "genetic"),
    "linear + intercept": _with_intercept(),
    "ridge + intercept": _with_intercept(RidgeCV(np.logspace(-2, 4, 13))),
    "boosting + intercept": _with_intercept(HistGradientBoostingRegressor(**_TREES)),
    "IWPC genetic": DosingEquation("genetic", site_intercept=False),
    "IWPC genetic + intercept": DosingEquation("genetic"),
    "IWPC clinical + intercept": DosingEquation("clinical"),
    "fixed 35 mg": DosingEquation("fixed", site_intercept=False),
}

# Tasks that are patients with few rows have random intercepts only, no random slopes.
_VISITS: dict[str, Any] = {
    **_RISK,
    OURS: MetaClassifier(DeepMixedEffects(), **_QUIET),
    f"{OURS} on boosting": MetaClassifier(DeepMixedEffects(), population=_BOOSTING, **_QUIET),
}

COHORT_METHODS = {"risk": _RISK, "visits": _VISITS, "dose": _DOSE}

UPDATES = tuple(name for name, model in _RISK.items() if isinstance(model, Updated))


@dataclass(frozen=True)
class CohortPlan(Plan):
    """Size of a run: folds of sites, and the maximum number of supports drawn per site."""

    max_draws: int = 5


FULL = CohortPlan()
QUICK = CohortPlan(folds_run=1, max_draws=1)


def methods_of(data_set: str) -> dict[str, Any]:
    """Models by name for a data set; None is the Bayes rule."""
    kind = {"warfarin": "dose", "respiratory": "visits"}.get(data_set, "risk")
    methods = dict(COHORT_METHODS[kind])
    if data_set.startswith("make_cohorts"):
        methods[BAYES_RULE] = None
    return methods


def folds_of(data_set: str, plan: CohortPlan) -> int:
    """Number of folds to run on a data set."""
    return min(plan.folds_run, plan.n_folds, int(load_cohorts(data_set).groups.max()) + 1)


def supports(data: CohortData, sites: Index, k: int, draw: int, seed: int) -> tuple[Mask, Mask]:
    """Masks of support and query in sites of more than k rows: first rows, or random ones."""
    support, query = np.zeros(len(data.y), dtype=bool), np.zeros(len(data.y), dtype=bool)
    for site in sites:
        rows = np.flatnonzero(data.groups == site)
        if not data.ordered:
            rows = np.random.default_rng((seed, int(site), draw)).permutation(rows)
        if len(rows) > k:
            support[rows[:k]], query[rows[k:]] = True, True
    return support, query


def measure_sites(data_set: str, method: str, fold: int, plan: CohortPlan) -> Fitted:
    """Predictions of the query rows, by k: ``row``, ``site``, ``y`` and ``predicted``."""
    data, source = load_cohorts(data_set), COHORT_DATA[data_set]
    n_sites = int(data.groups.max()) + 1
    order = np.random.default_rng(plan.seed).permutation(n_sites)
    held_out = order[fold :: min(plan.n_folds, n_sites)]
    train = ~np.isin(data.groups, held_out)
    started = time.perf_counter()
    model = methods_of(data_set)[method]
    with warnings.catch_warnings():  # among many sites some are atypical by chance
        warnings.simplefilter("ignore", AtypicalWarning)
        warnings.simplefilter("ignore", DataWarning)
        if model is not None:
            model = clone(model).fit(data.X[train], data.y[train], groups=data.groups[train])
        seconds = time.perf_counter() - started
        draws = min(source.n_draws, plan.max_draws)
        by_k = {
            k: list(_predictions(model, data, held_out, k, draws if k else 1, plan.seed))
            for k in source.shots
        }
    return Fitted({k: joined(parts) for k, parts in by_k.items() if parts}, seconds)


def _predictions(
    model: Any, data: CohortData, sites: Index, k: int, draws: int, seed: int
) -> Iterator[Scores]:
    for draw in range(draws):
        support, query = supports(data, sites, k, draw, seed)
        if query.any():
            yield {
                "row": np.flatnonzero(query).astype(np.float64),
                "site": data.groups[query].astype(np.float64),
                "y": data.y[query].astype(np.float64),
                "predicted": _predicted(model, data, support, query),
            }


def _predicted(model: Any, data: CohortData, support: Mask, query: Mask) -> Array:
    """Risk of the event, or the median of a real-valued outcome, (query row,)."""
    if model is None and data.bayes_rule is not None:
        return data.bayes_rule(support, query)
    X, groups = data.X[query], {}
    if support.any():
        groups = {"groups": data.groups[query]}
        adapted = model.adapt(data.X[support], data.y[support], groups=data.groups[support])
    else:
        adapted = model.unadapted()
    if data.binary:
        return np.asarray(adapted.predict_proba(X, **groups)[:, 1])
    return np.asarray(adapted.predict_quantiles(X, [0.5], **groups)[:, 0])
