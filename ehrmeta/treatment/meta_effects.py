"""Effects learned by an estimator over tasks, such as MetaRegressor, instead of a mixed model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Array
from ehrmeta.treatment.effects import AnyTaskNuisances, Effects, Moments
from ehrmeta.treatment.learners import Scoring
from ehrmeta.treatment.treated_rows import TreatedRows


class _PointEffects(Effects):
    """Effects without a posterior."""

    @abstractmethod
    def _effect(self, cases: TreatedRows, state: Any, zero: Array, one: Array) -> Array:
        """Effect of every row, (row,)."""

    def contrast(self, cases: TreatedRows, state: Any, zero: Array, one: Array) -> Moments:
        """The effect, and no variance."""
        return self._effect(cases, state, zero, one), None

    def average(
        self, cases: TreatedRows, state: Any, zero: Array, one: Array
    ) -> tuple[float, float | None]:
        """Mean over the rows, and no variance."""
        return float(self._effect(cases, state, zero, one).mean()), None


@dataclass(frozen=True, eq=False)
class MetaEffects(_PointEffects):
    """One estimator per non-control arm, fitted to the arm's pseudo-outcomes."""

    scoring: Scoring
    models: tuple[Any, ...]

    @property
    def estimator(self) -> Any:
        """The first model; all have the same parameters."""
        return self.models[0]

    @classmethod
    def fit(
        cls, estimator: Any, scoring: Scoring, cases: TreatedRows, nuisances: AnyTaskNuisances
    ) -> MetaEffects:
        """Fit one clone per arm, with sample weights if the estimator accepts them."""
        models = []
        for pseudo in scoring(cases, nuisances):
            model, rows = _unfitted(estimator, cases.x), cases.take(pseudo.rows)
            weight = 1.0 / pseudo.variance
            takes = has_fit_parameter(model, "sample_weight")
            weights = {"sample_weight": weight / weight.mean()} if takes else {}
            models.append(model.fit(rows.x, pseudo.psi, **_tasks_of(rows), **weights))
        return cls(scoring, tuple(models))

    def adapt(self, cases: TreatedRows, nuisances: AnyTaskNuisances) -> list[Any]:
        """Adapt each arm's model to the tasks that have pseudo-outcomes."""
        return [
            _adapted(model, cases.x[pseudo.rows], pseudo.psi, cases.take(pseudo.rows))
            for model, pseudo in zip(self.models, self.scoring(cases, nuisances), strict=True)
        ]

    def support_weights(
        self, cases: TreatedRows, state: list[Any], zero: Array, one: Array
    ) -> pd.DataFrame:
        """Attention weights of one arm's effect over the control."""
        chosen = np.flatnonzero(one - zero)
        if len(chosen) != 1:
            raise DataError(
                "attention weights exist only for the effect of one arm over the control. Pass "
                "T1= and omit T0=."
            )
        adapted = state[int(chosen[0])]
        if adapted is None:
            raise DataError(
                "the adapted tasks have no rows with pseudo-outcomes. Adapt to rows of both arms."
            )
        weights: pd.DataFrame = adapted.support_weights(cases.x, groups=cases.task, **cases.timed)
        return weights

    def outcomes(
        self, cases: TreatedRows, state: Any, given: Array, reference: tuple[Array, Array]
    ) -> Moments:
        """Mean outcome of the nuisance models plus the effects."""
        m, share = reference
        return m + self._effect(cases, state, share, np.broadcast_to(given, share.shape)), None

    def _effect(self, cases: TreatedRows, state: list[Any], zero: Array, one: Array) -> Array:
        signs = np.broadcast_to(one - zero, (cases.n_rows, len(self.models)))
        parts = [
            signs[:, k] * _predicted(model, state[k], cases.x, cases)
            for k, model in enumerate(self.models)
        ]
        return np.asarray(np.sum(parts, axis=0))


@dataclass(frozen=True, eq=False)
class MetaOutcomes(_PointEffects):
    """S-learner: one outcome model over tasks, with the treatment as its last features."""

    model: Any

    @property
    def estimator(self) -> Any:
        """The model."""
        return self.model

    @classmethod
    def fit(cls, estimator: Any, cases: TreatedRows, nuisances: AnyTaskNuisances) -> MetaOutcomes:
        """Fit a clone on the outcome."""
        x = _with_treatment(cases.x, nuisances.treatment(cases))
        return cls(_unfitted(estimator, x).fit(x, cases.y, **_tasks_of(cases)))

    def adapt(self, cases: TreatedRows, nuisances: AnyTaskNuisances) -> Any:
        """The model adapted to the tasks."""
        x = _with_treatment(cases.x, nuisances.treatment(cases))
        return _adapted(self.model, x, cases.y, cases)

    def outcomes(
        self, cases: TreatedRows, state: Any, given: Array, reference: tuple[Array, Array]
    ) -> Moments:
        """Predictions of the adapted model."""
        return self.predict(cases, state, given), None

    def predict(self, cases: TreatedRows, state: Any, given: Array) -> Array:
        """Outcome of every row under a treatment, (row,)."""
        return _predicted(self.model, state, _with_treatment(cases.x, given), cases)

    def _effect(self, cases: TreatedRows, state: Any, zero: Array, one: Array) -> Array:
        return self.predict(cases, state, one) - self.predict(cases, state, zero)


def _unfitted(estimator: Any, x: Array) -> Any:
    """Unfitted clone of an estimator, with all columns declared as known ahead."""
    model = clone(estimator)
    if "known" in model.get_params(deep=False):
        model.set_params(known=tuple(f"x{i}" for i in range(x.shape[1])))
    return model


def _with_treatment(x: Array, given: Array) -> Array:
    return np.column_stack([x, np.broadcast_to(given, (len(x), np.shape(given)[-1]))])


def _tasks_of(cases: TreatedRows) -> dict[str, Any]:
    """Groups and time as keyword arguments of an estimator's fit."""
    return cases.timed | ({"groups": cases.task} if cases.n_tasks > 1 else {})


def _adapted(model: Any, x: Array, y: Array, cases: TreatedRows) -> Any:
    """The model adapted to the tasks that have rows; None without rows."""
    return model.adapt(x, y, groups=cases.task, **cases.timed) if len(y) else None


def _predicted(model: Any, adapted: Any, x: Array, cases: TreatedRows) -> Array:
    if adapted is None:
        return np.asarray(model.predict(x, **cases.timed), np.float64)
    predictions = adapted.predict(x, groups=cases.task, new_groups="population", **cases.timed)
    return np.asarray(predictions, np.float64)
