"""What the rows of adapted tasks say by themselves: average effects, policies, rankings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.diagnostics import Diagnostics, diagnose
from ehrmeta.treatment.learners import arm_scores, usable_rows
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.policy import (
    PolicyTree,
    PolicyValue,
    Ranking,
    effects_by_rank,
    fit_policy_tree,
    policy_value,
    rate,
)
from ehrmeta.treatment.pooling import PooledEffect, pool_effects
from ehrmeta.treatment.readings import AdaptedTasks

__all__ = ["ScoredTasks"]

Array = npt.NDArray[np.float64]


class ScoredTasks(AdaptedTasks):
    """Readings of the support rows' doubly robust scores, in which no row scores itself."""

    def task_effects(
        self, *, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> pd.DataFrame:
        """Average effect in every task by its own rows only (AIPW), nothing shrunk.

        Returns
        -------
        DataFrame
            By task: `n` rows, `effect`, `se`, `low` and `high`. Tasks that were not seen in both
            arms, or have fewer than 3 rows, are left out.
        """
        arms, nuisances = self._arms()
        zero, one = arms.codes_of(T0, T1)
        scores = arm_scores(self._support, nuisances)
        usable = usable_rows(self._support, (zero, one), arms.n_arms)
        psi, task = (scores[:, one] - scores[:, zero])[usable], self._support.task[usable]
        n = np.bincount(task, minlength=self.n_tasks)
        rows = np.flatnonzero(n > 2)
        mean = np.bincount(task, psi, minlength=self.n_tasks)[rows] / n[rows]
        square = np.bincount(task, psi**2, minlength=self.n_tasks)[rows] / n[rows]
        se = np.sqrt((square - mean**2) / (n[rows] - 1))
        wide = stats.t.ppf(0.5 + 0.5 * confidence_level, n[rows] - 1) * se
        columns = {"n": n[rows], "effect": mean, "se": se, "low": mean - wide, "high": mean + wide}
        index = rows if self.labels_ is None else self.labels_[rows]
        return pd.DataFrame(columns, index=pd.Index(index, name="task"))

    def pooled_effect(
        self, *, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> PooledEffect:
        """Random-effects mean of `task_effects`, and the prediction interval of a new task's."""
        found = self.task_effects(T0=T0, T1=T1)
        if found.empty:
            raise DataError("no task has 3 rows and both arms, so there is no effect to pool.")
        return pool_effects(found.effect, found.se, confidence_level=confidence_level)

    def policy_value(
        self, policy: Any, *, method: str = "dr", confidence_level: float = 0.95
    ) -> PolicyValue:
        """Mean outcome of the support rows if all were given what a policy says.

        Parameters
        ----------
        policy : array, (row,), or label
            Arm of every support row, or one for all. Take it from a model that has not seen these
            rows: a policy is flattered by the rows that it was learned from.
        method : {"dr", "ipw"}
        """
        arms, nuisances = self._arms()
        labels = np.full(self._support.n_rows, policy) if np.ndim(policy) == 0 else policy
        codes = arms.codes(labels)
        if len(codes) != self._support.n_rows:
            raise DataError(
                f"policy has {len(codes):,} rows, the support has {self._support.n_rows:,}."
            )
        return policy_value(
            arm_scores(self._support, nuisances),
            self._support.y,
            self._support.arm,
            nuisances.e,
            nuisances.clipped,
            codes,
            method=method,
            confidence_level=confidence_level,
        )

    def policy_tree(
        self,
        *,
        higher_is_better: bool,
        costs: Mapping[Any, float] | None = None,
        max_depth: int = 2,
        min_rows: int = 20,
    ) -> PolicyTree:
        """A small tree of features that says which arm is best, from the doubly robust scores.

        Parameters
        ----------
        higher_is_better : bool
        costs : mapping of arm to float, optional
            In the unit of the outcome.
        max_depth, min_rows : int
            Of the tree, and of its leaves.
        """
        arms, nuisances = self._arms()
        scores = arm_scores(self._support, nuisances)
        gain = (scores if higher_is_better else -scores) - arms.costs(costs)
        names = self.model.encoder_.fixed_names
        return fit_policy_tree(
            self._support.x, gain, arms.labels, names, max_depth=max_depth, min_rows=min_rows
        )

    def rate(
        self,
        *,
        kind: str = "autoc",
        T0: Any = None,
        T1: Any = None,
        confidence_level: float = 0.95,
        n_bootstrap: int = 200,
    ) -> Ranking:
        """How well the population's effect ranks these rows by their gain (AUTOC or Qini).

        Raises
        ------
        DataError
            They are the rows of the fit, which the effect has seen.
        """
        effect, gain = self._ranked(T0, T1)
        return rate(
            effect,
            gain,
            kind=kind,
            task=self._support.task,
            confidence_level=confidence_level,
            n_bootstrap=n_bootstrap,
        )

    def effects_by_rank(
        self, *, n_groups: int = 5, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> pd.DataFrame:
        """Average effects by these rows' own scores, in groups of rising effect by the population.

        Where the model tells who gains, they rise as the predicted ones do.

        Returns
        -------
        DataFrame
            By group, 1 being the least: `n` rows, `predicted` and own `effect`, `se` (of tasks,
            where there are ten or more), `low` and `high`. There are fewer groups where effects
            are tied.

        Raises
        ------
        DataError
            They are the rows of the fit, which the effect has seen.

        References
        ----------
        Chernozhukov, Demirer, Duflo, Fernandez-Val (2018), arXiv:1712.04802.
        """
        effect, gain = self._ranked(T0, T1)
        return effects_by_rank(
            effect,
            gain,
            task=self._support.task,
            n_groups=n_groups,
            confidence_level=confidence_level,
        )

    def diagnostics(self, *, T0: Any = None, T1: Any = None) -> Diagnostics:
        """Overlap, balance, and how much confounding would explain the effect away."""
        arms, nuisances = self._arms()
        zero, one = arms.codes_of(T0, T1)
        return diagnose(
            self._support,
            nuisances,
            (zero, one),
            names=self.model.encoder_.fixed_names,
            labels=(arms.labels[zero], arms.labels[one]),
        )

    def arm_scores(self) -> Array:
        """Doubly robust scores, (row, arm): what a row says of the outcome in every arm."""
        _, nuisances = self._arms()
        return arm_scores(self._support, nuisances)

    def _ranked(self, T0: Any, T1: Any) -> tuple[Array, Array]:
        """Effect of every row by the population's model, and by its own score."""
        arms, nuisances = self._arms()
        if self._trained:
            raise DataError(
                "the effect has seen these rows, so its ranking of them is flattered. Adapt to "
                "rows of other tasks and rate those."
            )
        zero, one = arms.codes_of(T0, T1)
        scores = arm_scores(self._support, nuisances)
        vectors = arms.vectors
        state = self.model.unadapted()._state
        effect, _ = self.model.effects_.contrast(
            self._support.in_one_task(), state, vectors[zero], vectors[one]
        )
        return effect, scores[:, one] - scores[:, zero]

    def _arms(self) -> tuple[Arms, TaskNuisances]:
        kind, nuisances = self.model.treatment_, self._nuisances
        if not isinstance(kind, Arms) or not isinstance(nuisances, TaskNuisances):
            raise DataError("this compares arms: a dose has none. Cut it into arms first.")
        if self._support.n_rows == 0:
            raise DataError("there are no rows to score: adapt to some.")
        return kind, nuisances
