"""Methods of the treatment benchmark: ours with default settings, and published meta-learners."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.suite.arrays import Array, Index
from benchmarks.suite.peers import require
from ehrmeta.errors import DataWarning
from ehrmeta.treatment import TreatmentResponse

OURS = "ehrmeta"
TUNED = ("X tuned boosting", "R tuned boosting")
_CLIP = 0.01
_LEAVES = {"max_leaf_nodes": [4, 12, 31]}


class EffectModel(Protocol):
    """Estimator of the effect of an arm over the control."""

    def fit(self, X: Array, y: Array, t: Index) -> Any:
        """Fit; `t` (row,) is 1 in the arm, 0 in the control."""

    def effect(self, X: Array) -> Array:
        """Effect at the rows' features, (row,)."""


@dataclass(frozen=True)
class Base:
    """Regressor and classifier of a meta-learner."""

    regressor: Any
    classifier: Any


def _linear(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


_BOOSTING = HistGradientBoostingRegressor(early_stopping=False, random_state=0)
_BOOSTED_CLASSES = HistGradientBoostingClassifier(early_stopping=False, random_state=0)

BASES = {
    "ridge": Base(
        _linear(RidgeCV(np.logspace(-2, 4, 13))), _linear(LogisticRegression(max_iter=2000))
    ),
    "boosting": Base(_BOOSTING, _BOOSTED_CLASSES),
    "tuned boosting": Base(
        GridSearchCV(_BOOSTING, _LEAVES, scoring="neg_mean_squared_error", cv=3),
        GridSearchCV(_BOOSTED_CLASSES, _LEAVES, scoring="neg_log_loss", cv=3),
    ),
}


@dataclass
class MetaLearner:
    """S-, T-, X-, DR- or R-learner, a constant effect (AIPW), or zero.

    Parameters
    ----------
    kind : {"zero", "constant", "S", "T", "X", "DR", "R"}
    base : Base

    References
    ----------
    Kuenzel et al. (2019), doi:10.1073/pnas.1804597116; Nie and Wager (2021),
    doi:10.1093/biomet/asaa076; Kennedy (2023), doi:10.1214/23-EJS2157.
    """

    kind: str
    base: Base

    def fit(self, X: Array, y: Array, t: Index) -> Self:
        """Learn."""
        if self.kind == "S":
            self._models = [self._regress(np.column_stack([X, t]), y)]
        elif self.kind in ("T", "X"):
            self._models = [self._regress(X[t == arm], y[t == arm]) for arm in (0, 1)]
        if self.kind == "X":
            zero, one = self._models
            self._propensity = clone(self.base.classifier).fit(X, t)
            self._models = [
                self._regress(X[t == 0], one.predict(X[t == 0]) - y[t == 0]),
                self._regress(X[t == 1], y[t == 1] - zero.predict(X[t == 1])),
            ]
        elif self.kind in ("constant", "DR", "R"):
            self._fit_pseudo(X, y, t)
        return self

    def effect(self, X: Array) -> Array:
        """Effect at the rows' features, (row,)."""
        if self.kind == "zero":
            return np.zeros(len(X))
        if self.kind == "constant":
            return np.full(len(X), self._constant)
        if self.kind == "S":
            one, zero = (np.column_stack([X, np.full(len(X), arm)]) for arm in (1, 0))
            return np.asarray(self._models[0].predict(one) - self._models[0].predict(zero))
        if self.kind == "T":
            return np.asarray(self._models[1].predict(X) - self._models[0].predict(X))
        if self.kind == "X":
            e = self._propensity.predict_proba(X)[:, 1]
            return np.asarray(e * self._models[0].predict(X) + (1 - e) * self._models[1].predict(X))
        return np.asarray(self._models[0].predict(X))

    def _fit_pseudo(self, X: Array, y: Array, t: Index) -> None:
        folds = KFold(5, shuffle=True, random_state=0)
        e = cross_val_predict(self.base.classifier, X, t, cv=folds, method="predict_proba")[:, 1]
        e = np.clip(e, _CLIP, 1 - _CLIP)
        if self.kind == "R":
            m = cross_val_predict(self.base.regressor, X, y, cv=folds)
            self._models = [self._regress(X, (y - m) / (t - e), (t - e) ** 2)]
            return
        mu = np.empty((2, len(y)))
        for seen, held_out in folds.split(X):
            for arm in (0, 1):
                rows = seen[t[seen] == arm]
                mu[arm, held_out] = self._regress(X[rows], y[rows]).predict(X[held_out])
        psi = mu[1] - mu[0] + t * (y - mu[1]) / e - (1 - t) * (y - mu[0]) / (1 - e)
        self._constant = float(psi.mean())
        if self.kind == "DR":
            self._models = [self._regress(X, psi)]

    def _regress(self, X: Array, y: Array, weight: Array | None = None) -> Any:
        model = clone(self.base.regressor)
        if weight is None:
            return model.fit(X, y)
        name = "ridgecv__sample_weight" if hasattr(model, "steps") else "sample_weight"
        return model.fit(X, y, **{name: weight})


class CausalForest:
    """EconML's CausalForestDML with boosted nuisances and otherwise its defaults."""

    def fit(self, X: Array, y: Array, t: Index) -> Self:
        """Learn."""
        forest = require("econml.dml").CausalForestDML
        self._model = forest(
            model_y=_BOOSTING,
            model_t=_BOOSTED_CLASSES,
            discrete_treatment=True,
            cv=5,
            random_state=0,
        )
        self._model.fit(y, t, X=X)
        return self

    def effect(self, X: Array) -> Array:
        """Effect at the rows' features, (row,)."""
        return np.asarray(self._model.effect(X))


@dataclass(frozen=True)
class Method:
    """A learner of effects: a function that makes an `EffectModel`, None for ours; its package."""

    make: Callable[[], EffectModel] | None
    package: str = ""


def _peer(kind: str, base: str) -> Method:
    return Method(lambda: MetaLearner(kind, BASES[base]))


METHODS: dict[str, Method] = {
    OURS: Method(None),
    "zero": _peer("zero", "ridge"),
    "constant (AIPW)": _peer("constant", "boosting"),
    **{
        f"{kind} {base}": _peer(kind, base)
        for base in ("ridge", "boosting")
        for kind in ("S", "T", "X", "DR", "R")
    },
    **{name: _peer(name[0], "tuned boosting") for name in TUNED},
    "causal forest": Method(CausalForest, "econml"),
}


def fit_ours(X: Array, y: Array, t: Any, **settings: Any) -> TreatmentResponse:
    """Our model with default settings; `probability` is its propensity, others are for `fit`."""
    model = TreatmentResponse(propensity=settings.pop("probability", None), random_state=0)
    with warnings.catch_warnings(action="ignore", category=DataWarning):  # of clipped rows
        return model.fit(X, y, treatment=t, **settings)
