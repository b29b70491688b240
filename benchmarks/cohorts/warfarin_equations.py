"""Published equations of the weekly warfarin dose, with random intercepts of sites.

Coefficients: The International Warfarin Pharmacogenetics Consortium (2009),
doi:10.1056/NEJMoa0809329, supplementary appendix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone

from benchmarks.suite.arrays import Array, Index
from ehrmeta.data import Feature, Schema
from ehrmeta.nn.mixed_model import MixedModel, fit_mixed_model, posterior

_VKORC1 = {"A/G": -0.8677, "A/A": -1.6974, "G/G": 0.0}
_VKORC1_UNKNOWN = -0.4854
_CYP2C9 = {
    "*1/*1": 0.0,
    "*1/*2": -0.5211,
    "*1/*3": -0.9357,
    "*2/*2": -1.0616,
    "*2/*3": -1.9206,
    "*3/*3": -2.3312,
}
_CYP2C9_UNKNOWN = -0.2188
_LINKED = {  # column: implied genotype at -1639, and whether this is valid for every race
    "vkorc1_2255": ({"C/C": "G/G", "T/T": "A/A", "C/T": "A/G"}, False),
    "vkorc1_1173": ({"C/C": "G/G", "T/T": "A/A", "C/T": "A/G"}, True),
    "vkorc1_1542": ({"G/G": "G/G", "C/C": "A/A", "C/G": "A/G"}, False),
}


def with_linked_genotypes(X: pd.DataFrame) -> pd.DataFrame:
    """Impute genotypes at VKORC1 -1639 from linked variants, as the consortium did; drop these."""
    genotype, race = X["vkorc1_1639"].astype(object), X["race"].astype(object)
    for name, (implied, every_race) in _LINKED.items():
        linked = X[name].astype(object).map(implied)
        if not every_race:
            linked = linked.where(race.isin(["White", "Asian"]))
        genotype = genotype.where(genotype.notna(), linked)
    others = [name for name in X if name.startswith("vkorc1_")]
    return X.drop(columns=others).assign(vkorc1_1639=genotype)


def genetic_dose(X: pd.DataFrame) -> Array:
    """Square root of the weekly dose in mg by the pharmacogenetic equation, (row,)."""
    body = _body(X, age=-0.2614, height=0.0087, weight=0.0128)
    race = _race(X, asian=-0.1092, black=-0.2760, other=-0.1032)
    drugs = 1.1816 * _taken(X, "enzyme_inducer") - 0.5503 * _taken(X, "amiodarone")
    vkorc1 = _genotype(X["vkorc1_1639"], _VKORC1, _VKORC1_UNKNOWN)
    cyp2c9 = _genotype(X["cyp2c9"], _CYP2C9, _CYP2C9_UNKNOWN)
    return np.asarray(5.6044 + body + race + drugs + vkorc1 + cyp2c9)


def clinical_dose(X: pd.DataFrame) -> Array:
    """Square root of the weekly dose in mg by the clinical equation, (row,)."""
    body = _body(X, age=-0.2546, height=0.0118, weight=0.0134)
    race = _race(X, asian=-0.6752, black=0.4060, other=0.0443)
    drugs = 1.2799 * _taken(X, "enzyme_inducer") - 0.5695 * _taken(X, "amiodarone")
    return np.asarray(4.0376 + body + race + drugs)


def _fixed_dose(X: pd.DataFrame) -> Array:
    return np.full(len(X), np.sqrt(35.0))


_EQUATIONS = {"genetic": genetic_dose, "clinical": clinical_dose, "fixed": _fixed_dose}
_Residuals = tuple[Array, Array, Array, Index]


@dataclass(eq=False, repr=False)
class DosingEquation(BaseEstimator):
    """A dosing equation, without or with random intercepts of sites (BLUP).

    Parameters
    ----------
    equation : {"genetic", "clinical", "fixed"}
        "fixed" is 35 mg a week.
    site_intercept : bool
        Add random intercepts, with REML estimates from the residuals of the training sites.
    """

    equation: str = "genetic"
    site_intercept: bool = True

    def fit(self, X: pd.DataFrame, y: Array, *, groups: Index) -> Self:
        """Estimate mean and variance components of the intercept."""
        self.model_: MixedModel = fit_mixed_model(*self._residuals(X, y, groups))
        return self

    def unadapted(self) -> _AdaptedEquation:
        """The equation with the mean intercept."""
        return _AdaptedEquation(self, np.zeros(1))

    def adapt(self, X: pd.DataFrame, y: Array, *, groups: Index) -> _AdaptedEquation:
        """The equation with the intercepts of new sites."""
        effects, _ = posterior(self.model_, *self._residuals(X, y, groups))
        return _AdaptedEquation(self, effects[:, 0], np.unique(groups))

    def _residuals(self, X: pd.DataFrame, y: Array, groups: Index) -> _Residuals:
        """Design matrices, residuals of the square root in order of sites, first row of each."""
        order, one = np.argsort(groups, kind="stable"), np.ones((len(y), 1))
        sizes = np.unique(groups, return_counts=True)[1]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return one, one, (np.sqrt(y) - self._root(X))[order], starts

    def _root(self, X: pd.DataFrame) -> Array:
        return _EQUATIONS[self.equation](X)


@dataclass(frozen=True, eq=False)
class _AdaptedEquation:
    model: DosingEquation
    effects: Array
    labels: Index | None = None

    def predict_quantiles(
        self, X: pd.DataFrame, levels: Sequence[float], *, groups: Any = None
    ) -> Array:
        """The dose, (row, 1); an equation has no predictive distribution."""
        root = self.model._root(X)
        if self.model.site_intercept:
            at = 0 if self.labels is None else np.searchsorted(self.labels, groups)
            root = root + self.model.model_.beta[0] + self.effects[at]
        return np.square(root)[:, None]


@dataclass(eq=False, repr=False)
class WithEquation(BaseEstimator):
    """A learner with the dose of an equation as an additional feature."""

    model: Any
    equation: str = "genetic"

    def fit(self, X: pd.DataFrame, y: Array, *, groups: Index) -> Self:
        """Fit the learner."""
        self.model_ = clone(self.model).fit(self._with_equation(X), y, groups=groups)
        return self

    def unadapted(self) -> _AdaptedWithEquation:
        """The learner's population model."""
        return _AdaptedWithEquation(self, self.model_.unadapted())

    def adapt(self, X: pd.DataFrame, y: Array, *, groups: Index) -> _AdaptedWithEquation:
        """The learner, adapted."""
        adapted = self.model_.adapt(self._with_equation(X), y, groups=groups)
        return _AdaptedWithEquation(self, adapted)

    def _with_equation(self, X: pd.DataFrame) -> pd.DataFrame:
        frame = X.assign(equation=_EQUATIONS[self.equation](X))
        schema = Schema.from_dict(X.attrs["ehrmeta_schema"])
        schema = replace(schema, features=(*schema.features, Feature("equation")))
        frame.attrs["ehrmeta_schema"] = schema.to_dict()
        return frame


@dataclass(frozen=True, eq=False)
class _AdaptedWithEquation:
    model: WithEquation
    adapted: Any

    def predict_quantiles(self, X: pd.DataFrame, levels: Sequence[float], **rows: Any) -> Array:
        """The learner's quantiles, (row, level)."""
        frame = self.model._with_equation(X)
        return np.asarray(self.adapted.predict_quantiles(frame, levels, **rows))


def _body(X: pd.DataFrame, *, age: float, height: float, weight: float) -> Array:
    """Terms of age, height and weight; missing values are replaced by the mean of the sex."""
    columns = {"age_decade": age / 10.0, "height": height, "weight": weight}
    total = np.zeros(len(X))
    for name, slope in columns.items():
        values = X[name].astype(float)
        by_sex = values.groupby(X["sex"].astype(object).fillna("")).transform("mean")
        total += slope * values.fillna(by_sex).fillna(_TYPICAL[name]).to_numpy()
    return total


_TYPICAL = {"age_decade": 60.0, "height": 168.0, "weight": 78.0}


def _genotype(values: pd.Series[Any], effects: dict[str, float], unknown: float) -> Array:
    return np.asarray(values.astype(object).map(effects).fillna(unknown).to_numpy(np.float64))


def _race(X: pd.DataFrame, *, asian: float, black: float, other: float) -> Array:
    race = X["race"].astype(object)
    known = {"White": 0.0, "Asian": asian, "Black or African American": black}
    return np.asarray(race.map(known).fillna(other).to_numpy(np.float64))


def _taken(X: pd.DataFrame, name: str) -> Array:
    return np.asarray(X[name].astype(float).fillna(0.0).to_numpy())
