"""Tasks that a treatment-response model was adapted to: their effects, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms, Dose
from ehrmeta.treatment.readings import NewGroups, known_variance
from ehrmeta.treatment.scored import ScoredTasks

__all__ = ["AdaptedResponse"]

Array = npt.NDArray[np.float64]


class AdaptedResponse(ScoredTasks):
    """Made by ``TreatmentResponse.adapt``, never by hand. It holds rows, so it is patient data.

    Attributes
    ----------
    labels_ : ndarray, (task,), or None
        The groups it was adapted to, sorted; None for one task without a name.
    n_shots_ : ndarray, (task,)
        Support rows of every task.
    one_arm_ : ndarray of bool, (task,)
        Tasks whose rows are all of one arm: they have the population's effect, with the width
        that tasks without any rows have.
    n_clipped_ : int
        Rows with a propensity below the model's `clip`.
    propensity_source_ : {"supplied", "learned"}
        Whether the rows' propensities were known or are the model's, adapted to the tasks.
    """

    def effect(
        self,
        X: Any,
        *,
        T0: Any = None,
        T1: Any = None,
        groups: Any = None,
        new_groups: NewGroups = "error",
    ) -> Array:
        """Mean effect of arm `T1` over arm `T0` at the rows' features in their tasks.

        Parameters
        ----------
        X : frame or array, (row, feature)
        T0, T1 : labels of arms, optional
            The control and, where there are two arms, the other one.
        groups : array, (row,)
            Task of every row; not needed for one task without a name.
        new_groups : {"error", "population", "nan"}
            What a row of a task that was not adapted gets.

        Returns
        -------
        ndarray, (row,)
            In the unit of the outcome; differences of probabilities where it is 0 or 1.
        """
        mean, _ = self._effects(X, groups, T0, T1, new_groups)
        return mean

    def effect_interval(
        self,
        X: Any,
        *,
        T0: Any = None,
        T1: Any = None,
        groups: Any = None,
        confidence_level: float = 0.95,
        new_groups: NewGroups = "error",
    ) -> Array:
        """Interval of the task's *mean* effect at the rows' features, (row, 2).

        It is no interval of a person's own Y1 - Y0: nobody is seen in both arms, so how far two
        people with the same features differ in it is not identified. In a task that was seen in
        one arm only, or not at all, it is as wide as effects differ over tasks.

        Parameters
        ----------
        confidence_level : float
            Between 0 and 1.
        X, T0, T1, groups, new_groups
            As in `effect`.

        Raises
        ------
        DataError
            The learner has no posterior of effects (`estimator=` was given).
        """
        mean, variance = self._effects(X, groups, T0, T1, new_groups)
        wide = self._quantile(confidence_level) * np.sqrt(known_variance(variance))
        return np.column_stack([mean - wide, mean + wide])

    def marginal_effect(
        self, X: Any, *, groups: Any = None, new_groups: NewGroups = "error"
    ) -> Array:
        """Mean effect of every arm over the control, or of a unit of the dose, (row, arm - 1)."""
        none, *others = self.model.treatment_.vectors
        query, known = self._read(X, groups, new_groups)
        return np.column_stack(
            [self._contrast(query, known, none, one, new_groups)[0] for one in others]
        )

    def potential_outcomes(
        self, X: Any, T: Any = None, *, groups: Any = None, new_groups: NewGroups = "error"
    ) -> Array:
        """Mean outcome under every arm, (row, arm), or under arm or dose `T`, (row,).

        Outcomes differ by `effect`; their level is the task's own.
        """
        kind = self.model.treatment_
        query, known = self._read(X, groups, new_groups)
        vectors = kind.vectors if T is None else [kind.vector(T)]
        if isinstance(kind, Dose) and T is not None:
            kind.warn_of_outside(np.asarray(T, np.float64), stacklevel=3)
        columns = [self._outcomes(query, known, given, new_groups)[0] for given in vectors]
        return columns[0] if T is not None else np.column_stack(columns)

    def ate(self, X: Any, *, T0: Any = None, T1: Any = None, groups: Any = None) -> float:
        """Average of `effect` over rows."""
        return float(self.effect(X, T0=T0, T1=T1, groups=groups).mean())

    def ate_interval(
        self,
        X: Any,
        *,
        T0: Any = None,
        T1: Any = None,
        groups: Any = None,
        confidence_level: float = 0.95,
    ) -> Array:
        """Interval of the average of `effect` over rows, whose errors go together, (2,)."""
        query, _ = self._read(X, groups, "error")
        zero, one = self.model.treatment_.pair(T0, T1)
        mean, variance = self.model.effects_.average(query, self._state, zero, one)
        wide = self._quantile(confidence_level) * np.sqrt(known_variance(variance))
        return np.array([mean - wide, mean + wide])

    def similar_patients(
        self, X: Any, *, T0: Any = None, T1: Any = None, groups: Any = None
    ) -> pd.DataFrame:
        """Whom the effect at each row rests on: the support rows by the estimator's attention.

        For ``estimator=MetaRegressor(MatchingNet())``.

        Returns
        -------
        DataFrame
            `row` (of X), `support_row` (of the rows adapted to that were scored for the contrast,
            in their order; -1 is the population) and `weight`; heaviest first.
        """
        query, _ = self._read(X, groups, "error")
        zero, one = self.model.treatment_.pair(T0, T1)
        return self.model.effects_.support_weights(query, self._state, zero, one)

    def recommend(
        self,
        X: Any,
        *,
        higher_is_better: bool,
        costs: Mapping[Any, float] | None = None,
        groups: Any = None,
        confidence_level: float = 0.95,
        new_groups: NewGroups = "error",
    ) -> pd.DataFrame:
        """The arm with the best mean outcome at each row, and whether that is certain enough.

        Parameters
        ----------
        higher_is_better : bool
            Whether larger outcomes are wanted.
        costs : mapping of arm to float, optional
            What an arm costs, in the unit of the outcome.
        confidence_level : float
            Where the interval of the margin holds 0, the recommendation abstains.

        Returns
        -------
        DataFrame
            `action`, `margin` (gain over the next best arm, costs deducted), its `low` and `high`,
            and `abstain`.
        """
        arms = self.model.treatment_
        if not isinstance(arms, Arms):
            raise DataError("recommend chooses between arms; a dose has no finite list of them.")
        gain = np.column_stack(
            [np.zeros(len(X)), self.marginal_effect(X, groups=groups, new_groups=new_groups)]
        )
        gain = (gain if higher_is_better else -gain) - arms.costs(costs)
        order = np.argsort(-gain, axis=1, kind="stable")
        best, second = order[:, 0], order[:, 1]
        rows = np.arange(len(gain))
        margin = gain[rows, best] - gain[rows, second]
        query, known = self._read(X, groups, new_groups)
        zero, one = arms.vectors[second], arms.vectors[best]
        _, variance = self._contrast(query, known, zero, one, new_groups)
        wide = np.full(len(gain), np.nan)
        if variance is not None:
            wide = self._quantile(confidence_level) * np.sqrt(variance)
        return pd.DataFrame(
            {
                "action": arms.labels[best],
                "margin": margin,
                "low": margin - wide,
                "high": margin + wide,
                "abstain": ~(margin > wide),
            }
        )

    def __repr__(self) -> str:
        shots = self.n_shots_
        span = f"{shots.min()}-{shots.max()}" if shots.min() < shots.max() else f"{shots.min()}"
        tasks = "1 task" if self.n_tasks == 1 else f"{self.n_tasks:,} tasks"
        source = f"propensity {self.propensity_source_}"
        return f"AdaptedResponse({tasks}, {span} rows each, {source})"
