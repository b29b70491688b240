"""The methods of the cohorts benchmark. Ours run at their defaults, and so do the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV

from benchmarks.cohorts.warfarin_equations import DosingEquation, WithEquation
from ehrmeta.algorithms import DeepMixedEffects
from ehrmeta.baselines import (
    MixedEffectsLogistic,
    TaskLogistic,
    UpdatedClassifier,
    UpdatedRegressor,
)
from ehrmeta.estimators import MetaClassifier, MetaRegressor

__all__ = ["BAYES_RULE", "COHORT_METHODS", "OURS", "UPDATES"]

OURS = "deep mixed effects"
BAYES_RULE = "Bayes rule, truth known"

_DEEP = DeepMixedEffects(feature_slopes=True)
_QUIET: dict[str, Any] = {"verbose": False, "device": "cpu", "random_state": 0}
_TREES: dict[str, Any] = {"learning_rate": 0.05, "max_leaf_nodes": 8, "random_state": 0}


def _classifier(population: Any = None) -> MetaClassifier:
    return MetaClassifier(_DEEP, population=population, **_QUIET)


def _regressor(population: Any = None) -> MetaRegressor:
    return MetaRegressor(_DEEP, population=population, outcome_transform="sqrt", **_QUIET)


def _with_intercept(below: Any = None) -> UpdatedRegressor:
    return UpdatedRegressor(below, outcome_transform="sqrt")


def _updated(below: Any) -> dict[str, UpdatedClassifier]:
    name = "boosting" if isinstance(below, HistGradientBoostingClassifier) else "logistic"
    found = {
        f"pooled {name}": UpdatedClassifier(below, update="none"),
        f"{name} + intercept": UpdatedClassifier(below, update="intercept"),
        f"{name}, recalibrated": UpdatedClassifier(below, update="recalibration"),
        f"{name}, closed test": UpdatedClassifier(below, update="closed_test"),
    }
    if name == "logistic":
        found["ridge to pooled"] = UpdatedClassifier(below, update="revision")
    return found


_RISK: dict[str, Any] = {
    OURS: _classifier(),
    f"{OURS} on boosting": _classifier(HistGradientBoostingClassifier(**_TREES)),
    **_updated(LogisticRegression(max_iter=1000)),
    **_updated(HistGradientBoostingClassifier(**_TREES)),
    "per-site logistic": TaskLogistic(),
    "mixed-effects logistic": MixedEffectsLogistic(),
}

_DOSE: dict[str, Any] = {
    OURS: _regressor(),
    f"{OURS} on boosting": _regressor(HistGradientBoostingRegressor(**_TREES)),
    f"{OURS}, told the IWPC genetic": WithEquation(_regressor(), "genetic"),
    "linear + intercept": _with_intercept(),
    "ridge + intercept": _with_intercept(RidgeCV(np.logspace(-2, 4, 13))),
    "boosting + intercept": _with_intercept(HistGradientBoostingRegressor(**_TREES)),
    "IWPC genetic": DosingEquation("genetic", site_intercept=False),
    "IWPC genetic + intercept": DosingEquation("genetic"),
    "IWPC clinical + intercept": DosingEquation("clinical"),
    "fixed 35 mg": DosingEquation("fixed", site_intercept=False),
}

_OF_BOOSTING = HistGradientBoostingClassifier(**_TREES)
# Patients of a few rows in order are no cohorts: each has a level of its own, and no slopes.
_VISITS: dict[str, Any] = {
    **_RISK,
    OURS: MetaClassifier(DeepMixedEffects(), **_QUIET),
    f"{OURS} on boosting": MetaClassifier(DeepMixedEffects(), population=_OF_BOOSTING, **_QUIET),
}

COHORT_METHODS = {"risk": _RISK, "visits": _VISITS, "dose": _DOSE}

UPDATES = tuple(name for name, model in _RISK.items() if isinstance(model, UpdatedClassifier))
