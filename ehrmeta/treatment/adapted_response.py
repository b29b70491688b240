"""Tasks that a treatment-response model was adapted to: effects and recommended arms."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from torch import Tensor

from ehrmeta.data.columns import level_names
from ehrmeta.errors import BundleError, DataError, DataWarning, warn, warn_renamed
from ehrmeta.estimators.files import Json, Saved, State, label_type
from ehrmeta.estimators.predictions import FrameType, check_frame, prediction_frame
from ehrmeta.treatment.arms import Arms, Array, Dose
from ehrmeta.treatment.cross_fitting import Stack
from ehrmeta.treatment.effect_model import EffectModel, TaskEffects
from ehrmeta.treatment.effects import Moments
from ehrmeta.treatment.policy import best_arms
from ehrmeta.treatment.row_scores import RowScores
from ehrmeta.treatment.treated_rows import NewGroups, Query, TreatedRows, described

Predict = Callable[[TreatedRows, TaskEffects], Moments]


class AdaptedResponse(RowScores, Saved):
    """Effects in the tasks that a `TreatmentResponse` was adapted to.

    Returned by ``TreatmentResponse.adapt``. Contains the tasks' rows, so it is patient data.

    Parameters
    ----------
    model : EffectModel
    support : TreatedRows
        Support rows of the tasks.
    state : TaskEffects, optional
        Cross-fitted state of the training tasks. By default the model is adapted to `support`.

    Attributes
    ----------
    labels_ : ndarray, (task,), or None
        Groups of the support, sorted; None if `adapt` was called without groups.
    n_shots_ : ndarray, (task,)
        Support rows of every task.
    one_arm_ : ndarray of bool, (task,)
        Tasks with rows in only one arm (or at only one dose). They have the population's effect
        and interval, like a task without rows.
    n_clipped_ : int
        Rows with a propensity below the model's `clip`.
    propensity_source_ : {"supplied", "learned"}
        Whether propensities were supplied, or predicted by the model adapted to the tasks.
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
        has_contrast = np.zeros(support.n_tasks, bool)
        has_contrast[support.task[(self.state.nuisances.given(support) != 0).any(1)]] = True
        self.one_arm_ = (self.n_shots_ > 0) & ~has_contrast
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
        """Mean effect of arm `T1` relative to arm `T0`, at each row's features in its task.

        Parameters
        ----------
        X : frame or array, (row, feature)
        T0, T1 : arm labels or doses, optional
            By default the control and the only other arm; with more than two arms, `T1` is
            required. For a dose, 0 and 1 by default.
        groups : array, (row,)
            Task of every row; not needed if `adapt` was called without groups.
        new_groups : {"error", "population", "nan"}
            For rows of tasks that were not adapted: raise an error, return the population's
            effect, or return NaN.

        Returns
        -------
        ndarray, (row,)
            In the unit of the outcome; for a binary outcome, a difference of probabilities.
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
        """Interval for the *mean* effect at each row's features in its task, (row, 2).

        This is not an interval for an individual's Y1 - Y0: nobody is observed in both arms, so the
        variation of effects among individuals with the same features is not identified. For a task
        without rows of both arms, the interval includes the variance of effects over tasks.

        Parameters
        ----------
        confidence_level : float, default 0.95
        X, T0, T1, groups, new_groups
            As in `effect`.

        Raises
        ------
        DataError
            The effects have no posterior, as with `estimator=`.
        """
        mean, variance = self._effects(X, groups, T0, T1, new_groups)
        return self.model.effects.interval(mean, variance, confidence_level)

    def arm_effects(self, X: Any, *, groups: Any = None, new_groups: NewGroups = "error") -> Array:
        """Mean effect of each non-control arm relative to the control, (row, arm - 1).

        Raises
        ------
        DataError
            The treatment is a dose.
        """
        return self._unit_effects(X, groups, new_groups, self.model.arms)

    def marginal_effect(
        self, T: Any = None, X: Any = None, *, groups: Any = None, new_groups: NewGroups = "error"
    ) -> Array:
        """Derivative of the mean outcome with respect to the treatment at `T`, as in EconML.

        For a dose: (row,), in units of the outcome per unit of dose, by a central difference over
        1 % of the training dose range. For arms: (row, arm - 1), the same as `arm_effects` for
        every `T`.

        Parameters
        ----------
        T : dose or arm label, or one per row
        X, groups, new_groups
            As in `effect`.
        """
        treatment = self.model.treatment
        if T is None or X is None:
            warn_renamed(
                "marginal_effect(X) without T", "call arm_effects(X), or effect(X) for a dose"
            )
            return self._unit_effects(T if X is None else X, groups, new_groups, treatment)
        query, at = self._query(X, groups, new_groups), treatment.codes(np.atleast_1d(T))
        if len(at) not in (1, query.rows.n_rows):
            raise DataError(f"T has {len(at):,} rows, X has {query.rows.n_rows:,}.")
        if isinstance(treatment, Arms):
            return self._unit_effects(X, groups, new_groups, treatment)
        step = 0.005 * (treatment.high - treatment.low)
        ends = treatment.vector(at - step), treatment.vector(at + step)
        return self._contrast(query, *ends)[0] / (2.0 * step)

    def predict_frame(
        self,
        X: Any,
        *,
        T0: Any = None,
        T1: Any = None,
        groups: Any = None,
        confidence_level: float = 0.95,
        new_groups: NewGroups = "error",
        as_: FrameType = "pandas",
    ) -> Any:
        """Effects as a data frame, one row per row of X.

        Parameters
        ----------
        X, T0, T1, groups, new_groups
            As in `effect`; by default every arm is compared with the control.
        confidence_level : float, default 0.95
            Level of the intervals.
        as_ : {"pandas", "polars"}

        Returns
        -------
        DataFrame
            `task` (if given), `effect`, `lower` and `upper`; the limits are NaN if the effects have
            no posterior. When several arms are compared with the control: `effect_ARM`,
            `lower_ARM` and `upper_ARM` for each.
        """
        level = check_frame(confidence_level, as_)
        treatment = self.model.treatment
        columns: dict[str, Array] = {}
        arms, suffixes = [T1], [""]
        if T1 is None and isinstance(treatment, Arms) and treatment.n_arms > 2:
            arms = treatment.labels[1:].tolist()
            suffixes = [f"_{name}" for name in level_names(treatment.labels[1:])]
        for arm, suffix in zip(arms, suffixes, strict=True):
            mean, variance = self._effects(X, groups, T0, arm, new_groups)
            limits = np.full((len(mean), 2), np.nan)
            if variance is not None:
                limits = self.model.effects.interval(mean, variance, level)
            values = {"effect": mean, "lower": limits[:, 0], "upper": limits[:, 1]}
            columns |= {f"{name}{suffix}": column for name, column in values.items()}
        inputs = self.model.encoder.read(X, groups=groups).inputs
        return prediction_frame(X, inputs, columns, as_=as_)

    def potential_outcomes(
        self, X: Any, T: Any = None, *, groups: Any = None, new_groups: NewGroups = "error"
    ) -> Array:
        """Mean outcome under each arm, (row, arm), or under the arm or dose `T`, (row,).

        The difference between two arms' outcomes is their `effect`.
        """
        treatment, query = self.model.treatment, self._query(X, groups, new_groups)
        vectors = treatment.vectors if T is None else [treatment.vector(T)]
        if isinstance(treatment, Dose) and T is not None:
            treatment.warn_if_outside(np.asarray(T, np.float64))
        outcomes = (partial(self.model.outcomes, given=given) for given in vectors)
        columns = [self._predicted(query, outcome)[0] for outcome in outcomes]
        return columns[0] if T is not None else np.column_stack(columns)

    def ate(self, X: Any, *, T0: Any = None, T1: Any = None, groups: Any = None) -> float:
        """Average of `effect` over the rows of X."""
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
        """Interval for `ate`, (2,), with the covariance between rows; 95 % by default."""
        query = self._query(X, groups).rows
        pair = self.model.treatment.pair(T0, T1)
        mean, variance = self.model.average(query, self.state, *pair)
        return self.model.effects.interval(mean, variance, confidence_level)

    def similar_patients(
        self, X: Any, *, T0: Any = None, T1: Any = None, groups: Any = None
    ) -> pd.DataFrame:
        """Attention weights of the support rows for the effect at each row.

        For ``estimator=MetaRegressor(MatchingNet())``.

        Returns
        -------
        DataFrame
            `row` (of X), `support_row` and `weight`, largest first. `support_row` numbers the
            support rows that have a pseudo-outcome for the contrast; -1 is the population.
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
        """Arm with the best mean outcome at each row; abstains if the margin is uncertain.

        Parameters
        ----------
        higher_is_better : bool
            Whether larger outcomes are better.
        costs : mapping of arm to float, optional
            Cost of an arm, in the unit of the outcome.
        confidence_level : float, default 0.95
            Level of the margin's interval. The recommendation abstains if the interval contains 0,
            or if there is no interval.

        Returns
        -------
        DataFrame
            `action`, `margin` (gain over the second-best arm, net of costs), the limits `low` and
            `high` of its interval, and `abstain`.
        """
        arms = self.model.arms
        others = self.arm_effects(X, groups=groups, new_groups=new_groups)
        gain = np.column_stack([np.zeros(len(others)), others])
        best, second, margin = best_arms((gain if higher_is_better else -gain) - arms.costs(costs))
        query = self._query(X, groups, new_groups)
        _, variance = self._contrast(query, arms.vectors[second], arms.vectors[best])
        low = high = np.full(len(gain), np.nan)
        if variance is not None:
            low, high = self.model.effects.interval(margin, variance, confidence_level).T
        columns = {"action": arms.labels[best], "margin": margin, "low": low, "high": high}
        return pd.DataFrame(columns | {"abstain": ~(low > 0)})

    def warn_of_gaps(self) -> None:
        """Warn of tasks with rows in only one arm, and of clipped propensities."""
        if self.one_arm_.any():
            warn(
                f"{int(self.one_arm_.sum()):,} of {self.n_tasks:,} tasks (first: task "
                f"{int(np.flatnonzero(self.one_arm_)[0])}) have rows of one arm only. Such rows "
                "inform the task's outcome level but not its effect, which stays the population's.",
                DataWarning,
            )
        if self.n_clipped_:
            clip = getattr(self.model.nuisances, "clip", None)
            warn(
                f"{self.n_clipped_:,} of {self.support.n_rows:,} rows have an arm with a "
                f"propensity below clip={clip}, which was raised to {clip}: overlap is poor there. "
                "See diagnostics().",
                DataWarning,
            )

    def to_state(self) -> State:
        """The model and the tasks' encoded rows and labels, which are patient data.

        Raises
        ------
        BundleError
            The tasks are the training tasks.
        """
        if self.is_training:
            raise BundleError(
                "the training tasks cannot be saved: their scores are cross-fitted, and a file "
                "does not contain the folds. Save the model instead, or adapt it to these rows "
                "and save the result."
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
        tasks = described(self.n_shots_, "task")
        treatment = self.model.treatment
        control = f"control {treatment.labels[0]!s}, " if isinstance(treatment, Arms) else ""
        return f"AdaptedResponse({tasks}, {control}propensity {self.propensity_source_})"

    def _effects(self, X: Any, groups: Any, T0: Any, T1: Any, new_groups: NewGroups) -> Moments:
        """Mean and variance of the effect of every row."""
        query = self._query(X, groups, new_groups)
        return self._contrast(query, *self.model.treatment.pair(T0, T1))

    def _unit_effects(
        self, X: Any, groups: Any, new_groups: NewGroups, treatment: Arms | Dose
    ) -> Array:
        """Effect of each non-control arm, (row, arm - 1), or of one unit of dose, (row, 1)."""
        query = self._query(X, groups, new_groups)
        control, *others = treatment.vectors
        return np.column_stack([self._contrast(query, control, one)[0] for one in others])

    def _contrast(self, query: Query, zero: Array, one: Array) -> Moments:
        return self._predicted(query, partial(self.model.contrast, zero=zero, one=one))

    def _predicted(self, query: Query, predict: Predict) -> Moments:
        """Prediction for each row in its task; for unknown tasks, the population's or NaN."""
        mean, variance = predict(query.rows, self.state)
        if query.is_known.all():
            return mean, variance
        new, new_variance = predict(query.rows.in_one_task(), self.model.population)
        if query.new_groups == "nan":
            new = np.full_like(new, np.nan)
        if variance is not None and new_variance is not None:
            variance = np.where(query.is_known, variance, new_variance)
        return np.where(query.is_known, mean, new), variance

    def _query(self, X: Any, groups: Any, new_groups: NewGroups = "error") -> Query:
        return self.model.encoder.query(X, groups, self.support, new_groups)
