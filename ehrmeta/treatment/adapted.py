"""Tasks that a treatment-response model was adapted to: their effects, and what to do."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import DataError, DataWarning, GroupError
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.cases import Cases
from ehrmeta.treatment.effects import AnyTaskNuisances
from ehrmeta.treatment.stacking import Stack

if TYPE_CHECKING:
    from ehrmeta.treatment.response import TreatmentResponse

__all__ = ["AdaptedResponse"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
NewGroups = Literal["error", "population", "nan"]


class AdaptedResponse:
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

    def __init__(
        self,
        model: TreatmentResponse,
        labels: npt.NDArray[Any] | None,
        support: Cases,
        nuisances: AnyTaskNuisances,
        *,
        trained: bool = False,
    ) -> None:
        self.model = model
        self.labels_ = labels
        self.n_shots_ = np.bincount(support.task, minlength=support.n_tasks)
        informs = np.zeros(support.n_tasks, bool)
        informs[support.task[(nuisances.given(support) != 0).any(1)]] = True
        self.one_arm_ = (self.n_shots_ > 0) & ~informs
        self.n_clipped_ = int(nuisances.clipped.sum())
        learned = support.known is None and isinstance(
            getattr(model.nuisances_, "propensity", None), Stack
        )
        self.propensity_source_ = "learned" if learned else "supplied"
        self._support = support
        self._nuisances = nuisances
        self._state = model.effects_.adapt(support, nuisances, trained=trained)

    @property
    def n_tasks(self) -> int:
        """Number of adapted tasks."""
        return self._support.n_tasks

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
        wide = self._quantile(confidence_level) * np.sqrt(_known(variance))
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
        wide = self._quantile(confidence_level) * np.sqrt(_known(variance))
        return np.array([mean - wide, mean + wide])

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
        cost = np.zeros(arms.n_arms)
        for arm, value in (costs or {}).items():
            cost[arms.code(arm)] = value
        gain = np.column_stack(
            [np.zeros(_n_rows(X)), self.marginal_effect(X, groups=groups, new_groups=new_groups)]
        )
        gain = (gain if higher_is_better else -gain) - cost
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

    def _quantile(self, confidence_level: float) -> float:
        if not 0.0 < confidence_level < 1.0:
            raise DataError(
                f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
            )
        return self.model.effects_.quantile(0.5 + 0.5 * confidence_level)

    def _effects(
        self, X: Any, groups: Any, T0: Any, T1: Any, new_groups: NewGroups
    ) -> tuple[Array, Array | None]:
        """Mean and variance of the effect of every row."""
        query, known = self._read(X, groups, new_groups)
        zero, one = self.model.treatment_.pair(T0, T1)
        return self._contrast(query, known, zero, one, new_groups)

    def _contrast(
        self, query: Cases, known: Mask, zero: Array, one: Array, new_groups: NewGroups
    ) -> tuple[Array, Array | None]:
        found = self.model.effects_.contrast(query, self._state, zero, one)
        if known.all():
            return found
        other = self.model.unadapted()
        rest = self.model.effects_.contrast(_alone(query), other._state, zero, one)
        return _filled(found, known, rest, new_groups)

    def _outcomes(
        self, query: Cases, known: Mask, given: Array, new_groups: NewGroups
    ) -> tuple[Array, Array | None]:
        reference = self.model.nuisances_.reference(query.x)
        found = self.model.effects_.outcomes(query, self._state, given, reference)
        if known.all():
            return found
        other = self.model.unadapted()
        rest = self.model.effects_.outcomes(_alone(query), other._state, given, reference)
        return _filled(found, known, rest, new_groups)

    def _read(self, X: Any, groups: Any, new_groups: NewGroups) -> tuple[Cases, Mask]:
        """Query rows in the numbering of the adapted tasks, and which have one."""
        if new_groups not in ("error", "population", "nan"):
            raise DataError(
                f"new_groups must be 'error', 'population' or 'nan', got {new_groups!r}."
            )
        inputs, _ = self.model._read(X, None, groups, None, None, None, self.model.schema_)
        x = self.model._encode(inputs)
        if self.labels_ is None:
            task = np.zeros(inputs.n_rows, np.int64)
        elif inputs.groups is None:
            raise GroupError(
                f"groups is missing: the model was adapted to {self.n_tasks:,} named tasks, so "
                "pass groups= with the task of every row."
            )
        else:
            task = pd.Index(self.labels_).get_indexer(inputs.groups).astype(np.int64)
        known = task >= 0
        if new_groups == "error" and not known.all():
            raise GroupError(
                f"{int(np.sum(~known)):,} of {len(known):,} rows (first: row "
                f"{int(np.flatnonzero(~known)[0])}) belong to tasks that were not adapted. Adapt "
                "them first, or pass new_groups='population' or 'nan'."
            )
        nothing = np.full(inputs.n_rows, np.nan), np.zeros(inputs.n_rows, np.int64)
        return Cases(x, *nothing, np.where(known, task, 0), self.n_tasks), known

    def warn_of_gaps(self, stacklevel: int = 3) -> None:
        """Say what the rows could not teach."""
        if self.one_arm_.any():
            warnings.warn(
                f"{int(self.one_arm_.sum()):,} of {self.n_tasks:,} tasks (first: task "
                f"{int(np.flatnonzero(self.one_arm_)[0])}) have rows of one arm only: these inform "
                "the outcome, and nothing of the task's own effect, which is the population's.",
                DataWarning,
                stacklevel=stacklevel,
            )
        if self.n_clipped_:
            n_rows, clip = self._support.n_rows, self.model.clip
            warnings.warn(
                f"{self.n_clipped_:,} of {n_rows:,} rows have an arm with a propensity below "
                f"clip={clip}, which is used in its place: there the arms hardly overlap. See "
                "diagnostics().",
                DataWarning,
                stacklevel=stacklevel,
            )


def _alone(query: Cases) -> Cases:
    """Rows as those of a task that nothing is known of."""
    return replace(query, task=np.zeros(query.n_rows, np.int64), n_tasks=1)


def _filled(
    found: tuple[Array, Array | None],
    known: Mask,
    rest: tuple[Array, Array | None],
    new_groups: NewGroups,
) -> tuple[Array, Array | None]:
    """Rows of tasks that were not adapted get the population's, or NaN."""
    (mean, variance), (other, other_variance) = found, rest
    if new_groups == "nan":
        other = np.full_like(other, np.nan)
    if variance is not None and other_variance is not None:
        variance = np.where(known, variance, other_variance)
    return np.where(known, mean, other), variance


def _known(variance: Any) -> Any:
    if variance is None:
        raise DataError(
            "effects of an estimator= come without a posterior, so without intervals. Leave "
            "estimator=None for the mixed model."
        )
    return variance


def _n_rows(X: Any) -> int:
    return len(X)
