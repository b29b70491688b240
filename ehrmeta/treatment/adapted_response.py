"""Tasks that a treatment-response model was adapted to: their effects, and what to do."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from torch import Tensor

from ehrmeta.errors import BundleError, DataError, DataWarning
from ehrmeta.estimators.files import Json, Saved, State, label_type
from ehrmeta.treatment.arms import Dose
from ehrmeta.treatment.arrays import Array
from ehrmeta.treatment.cross_fitting import Stack
from ehrmeta.treatment.diagnostics import Diagnostics, diagnose
from ehrmeta.treatment.effect_model import EffectModel, TaskEffects
from ehrmeta.treatment.effects import Moments
from ehrmeta.treatment.learners import PseudoOutcomes, Scoring, arm_scores, usable_rows
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.policy import (
    PolicyTree,
    PolicyValue,
    Ranking,
    best_arms,
    effects_by_rank,
    fit_policy_tree,
    policy_value,
    rate,
)
from ehrmeta.treatment.pooling import PooledEffect, mean_by_task, pool_effects
from ehrmeta.treatment.treated_rows import NewGroups, Query, TreatedRows

Predict = Callable[[TreatedRows, TaskEffects], Moments]


class AdaptedResponse(Saved):
    """Made by ``TreatmentResponse.adapt``, never by hand. It holds rows, so it is patient data.

    Parameters
    ----------
    model : EffectModel
    support : TreatedRows
        Rows of the tasks.
    state : TaskEffects, optional
        Of the training tasks, as the fit left it; else the model is adapted to the rows.

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

    file_kind: ClassVar[str] = "adapted effects"

    def __init__(
        self, model: EffectModel, support: TreatedRows, state: TaskEffects | None = None
    ) -> None:
        self.model = model
        self.support = support
        self.state = model.adapt(support) if state is None else state
        self.is_training = state is not None
        self.labels_ = support.labels
        self.n_shots_ = np.bincount(support.task, minlength=support.n_tasks)
        informs = np.zeros(support.n_tasks, bool)
        informs[support.task[(self.state.nuisances.given(support) != 0).any(1)]] = True
        self.one_arm_ = (self.n_shots_ > 0) & ~informs
        self.n_clipped_ = int(self.state.nuisances.clipped.sum())
        is_learned = support.known is None and isinstance(
            getattr(model.nuisances, "propensity", None), Stack
        )
        self.propensity_source_ = "learned" if is_learned else "supplied"

    @property
    def n_tasks(self) -> int:
        """Number of adapted tasks."""
        return self.support.n_tasks

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
        return self._effects(X, groups, T0, T1, new_groups)[0]

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
        wide = self.model.half_width(variance, confidence_level)
        return np.column_stack([mean - wide, mean + wide])

    def marginal_effect(
        self, X: Any, *, groups: Any = None, new_groups: NewGroups = "error"
    ) -> Array:
        """Mean effect of every arm over the control, or of a unit of the dose, (row, arm - 1)."""
        query = self._query(X, groups, new_groups)
        none, *others = self.model.treatment.vectors
        return np.column_stack([self._contrast(query, none, one)[0] for one in others])

    def potential_outcomes(
        self, X: Any, T: Any = None, *, groups: Any = None, new_groups: NewGroups = "error"
    ) -> Array:
        """Mean outcome under every arm, (row, arm), or under arm or dose `T`, (row,).

        Outcomes differ by `effect`; their level is the task's own.
        """
        treatment, query = self.model.treatment, self._query(X, groups, new_groups)
        vectors = treatment.vectors if T is None else [treatment.vector(T)]
        if isinstance(treatment, Dose) and T is not None:
            treatment.warn_of_outside(np.asarray(T, np.float64), stacklevel=3)
        columns = [
            self._predicted(query, partial(self.model.outcomes, given=given))[0]
            for given in vectors
        ]
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
        query = self._query(X, groups).rows
        pair = self.model.treatment.pair(T0, T1)
        mean, variance = self.model.average(query, self.state, *pair)
        wide = self.model.half_width(variance, confidence_level)
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
        query = self._query(X, groups).rows
        pair = self.model.treatment.pair(T0, T1)
        return self.model.effects.support_weights(query, self.state.effects, *pair)

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
        arms = self.model.arms
        others = self.marginal_effect(X, groups=groups, new_groups=new_groups)
        gain = np.column_stack([np.zeros(len(others)), others])
        advice = best_arms((gain if higher_is_better else -gain) - arms.costs(costs))
        zero, one = arms.vectors[advice.second], arms.vectors[advice.best]
        _, variance = self._contrast(self._query(X, groups, new_groups), zero, one)
        wide = np.full(len(gain), np.nan)
        if variance is not None:
            wide = self.model.half_width(variance, confidence_level)
        margin = advice.margin
        columns = {"action": arms.labels[advice.best], "margin": margin, "low": margin - wide}
        return pd.DataFrame(columns | {"high": margin + wide, "abstain": ~(margin > wide)})

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
        zero, one = self.model.arms.codes_of(T0, T1)
        scores = self.arm_scores()
        usable = usable_rows(self.support, (zero, one), scores.shape[1])
        gain = (scores[:, one] - scores[:, zero])[usable]
        return mean_by_task(gain, self.support.task[usable], self.labels_, confidence_level)

    def pooled_effect(
        self, *, T0: Any = None, T1: Any = None, confidence_level: float = 0.95
    ) -> PooledEffect:
        """Random-effects mean of `task_effects`, and the prediction interval of a new task's."""
        by_task = self.task_effects(T0=T0, T1=T1)
        if by_task.empty:
            raise DataError("no task has 3 rows and both arms, so there is no effect to pool.")
        return pool_effects(by_task.effect, by_task.se, confidence_level=confidence_level)

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
        scores, nuisances, support = self.arm_scores(), self._arm_nuisances(), self.support
        labels = np.full(support.n_rows, policy) if np.ndim(policy) == 0 else policy
        codes = self.model.arms.codes(labels)
        if len(codes) != support.n_rows:
            raise DataError(f"policy has {len(codes):,} rows, the support has {support.n_rows:,}.")
        rows = scores, support.y, support.arm, nuisances.e, nuisances.clipped, codes
        return policy_value(*rows, method=method, confidence_level=confidence_level)

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
        scores, arms = self.arm_scores(), self.model.arms
        gain = (scores if higher_is_better else -scores) - arms.costs(costs)
        names = self.model.encoder.features.fixed_names
        return fit_policy_tree(
            self.support.x, gain, arms.labels, names, max_depth=max_depth, min_rows=min_rows
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
        ranked = self._ranked(T0, T1) | {"kind": kind, "n_bootstrap": n_bootstrap}
        return rate(**ranked, confidence_level=confidence_level)

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
        ranked = self._ranked(T0, T1)
        return effects_by_rank(**ranked, n_groups=n_groups, confidence_level=confidence_level)

    def diagnostics(self, *, T0: Any = None, T1: Any = None) -> Diagnostics:
        """Overlap, balance, and how much confounding would explain the effect away."""
        nuisances, arms = self._arm_nuisances(), self.model.arms
        zero, one = arms.codes_of(T0, T1)
        return diagnose(
            self.support,
            nuisances,
            (zero, one),
            names=self.model.encoder.features.fixed_names,
            labels=(arms.labels[zero], arms.labels[one]),
        )

    def arm_scores(self) -> Array:
        """Doubly robust scores, (row, arm): what a row says of the outcome in every arm.

        No row scores itself: what is expected of it rests on other tasks and on the other rows of
        its own.
        """
        return arm_scores(self.support, self._arm_nuisances())

    def pseudo_outcomes(self, learner: str, zero: int, one: int) -> PseudoOutcomes:
        """Pseudo-outcomes of the rows for the effect of an arm over another, by their numbers."""
        nuisances = self._arm_nuisances()
        scoring = Scoring(learner, self.model.nuisances.noise)
        return scoring.pair(self.support, nuisances, (zero, one))

    def warn_of_gaps(self, stacklevel: int = 3) -> None:
        """Warn of tasks of one arm and of clipped propensities."""
        if self.one_arm_.any():
            warnings.warn(
                f"{int(self.one_arm_.sum()):,} of {self.n_tasks:,} tasks (first: task "
                f"{int(np.flatnonzero(self.one_arm_)[0])}) have rows of one arm only: these inform "
                "the outcome, and nothing of the task's own effect, which is the population's.",
                DataWarning,
                stacklevel=stacklevel,
            )
        if self.n_clipped_:
            clip = getattr(self.model.nuisances, "clip", None)
            warnings.warn(
                f"{self.n_clipped_:,} of {self.support.n_rows:,} rows have an arm with a "
                f"propensity below clip={clip}, which is used in its place: there the arms hardly "
                "overlap. See diagnostics().",
                DataWarning,
                stacklevel=stacklevel,
            )

    def to_state(self) -> State:
        """The model, and the encoded rows and labels of the tasks: patient data.

        Raises
        ------
        BundleError
            They are the training tasks.
        """
        if self.is_training:
            raise BundleError(
                "the training tasks cannot be saved: what was expected of their rows rests on "
                "models that were fitted without them. Save the model, or adapt it to the rows."
            )
        tensors, metadata = self.model.to_state()
        labels = None if self.labels_ is None else label_type(self.labels_)
        metadata |= {"kind": self.file_kind, "class": "AdaptedResponse", "labels": labels}
        metadata |= {"contains_patient_data": True, "n_tasks": self.n_tasks}
        return tensors | self.support.to_tensors(), metadata

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> Self:
        """The inverse of `to_state`."""
        model = EffectModel.from_state(tensors, metadata, device)
        support = TreatedRows.from_tensors(
            tensors, model.encoder.no_rows(), metadata["n_tasks"], metadata["labels"]
        )
        return cls(model, support)

    def __repr__(self) -> str:
        shots = self.n_shots_
        span = f"{shots.min()}-{shots.max()}" if shots.min() < shots.max() else f"{shots.min()}"
        tasks = "1 task" if self.n_tasks == 1 else f"{self.n_tasks:,} tasks"
        source = f"propensity {self.propensity_source_}"
        return f"AdaptedResponse({tasks}, {span} rows each, {source})"

    def _effects(self, X: Any, groups: Any, T0: Any, T1: Any, new_groups: NewGroups) -> Moments:
        """Mean and variance of the effect of every row."""
        query = self._query(X, groups, new_groups)
        return self._contrast(query, *self.model.treatment.pair(T0, T1))

    def _contrast(self, query: Query, zero: Array, one: Array) -> Moments:
        return self._predicted(query, partial(self.model.contrast, zero=zero, one=one))

    def _predicted(self, query: Query, predict: Predict) -> Moments:
        """Predictions in the rows' tasks; without a task the population's, or NaN."""
        mean, variance = predict(query.rows, self.state)
        if query.is_known.all():
            return mean, variance
        other, other_variance = predict(query.rows.in_one_task(), self.model.population)
        if query.new_groups == "nan":
            other = np.full_like(other, np.nan)
        if variance is not None and other_variance is not None:
            variance = np.where(query.is_known, variance, other_variance)
        return np.where(query.is_known, mean, other), variance

    def _query(self, X: Any, groups: Any, new_groups: NewGroups = "error") -> Query:
        return self.model.encoder.query(X, groups, self.support, new_groups)

    def _ranked(self, T0: Any, T1: Any) -> dict[str, Any]:
        """Effect of every row by the population's model, and by its score."""
        scores, arms = self.arm_scores(), self.model.arms
        if self.is_training:
            raise DataError(
                "the effect has seen these rows, so its ranking of them is flattered. Adapt to "
                "rows of other tasks and rate those."
            )
        zero, one = arms.codes_of(T0, T1)
        rows, vectors = self.support.in_one_task(), arms.vectors
        effect, _ = self.model.contrast(rows, self.model.population, vectors[zero], vectors[one])
        gain = scores[:, one] - scores[:, zero]
        return {"effect": effect, "scores": gain, "task": self.support.task}

    def _arm_nuisances(self) -> TaskNuisances:
        """What is expected of the rows in every arm; refused of a dose and without rows."""
        nuisances = self.state.nuisances
        if not isinstance(nuisances, TaskNuisances):
            raise DataError("this compares arms: a dose has none. Cut it into arms first.")
        if self.support.n_rows == 0:
            raise DataError("there are no rows to score: adapt to some.")
        return nuisances
