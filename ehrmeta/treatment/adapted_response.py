"""Tasks that a treatment-response model was adapted to: effects and recommended arms."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from torch import Tensor

from ehrmeta.data.columns import level_names
from ehrmeta.errors import BundleError, DataError, DataWarning, warn_renamed
from ehrmeta.estimators.files import Json, Saved, State, label_type
from ehrmeta.estimators.prediction_frame import FrameType, check_frame, prediction_frame
from ehrmeta.treatment.arms import Arms, Array, Dose
from ehrmeta.treatment.cross_fitting import Stack
from ehrmeta.treatment.effect_model import EffectModel, TaskEffects
from ehrmeta.treatment.effects import Moments
from ehrmeta.treatment.policy import best_arms
from ehrmeta.treatment.row_scores import RowScores
from ehrmeta.treatment.treated_rows import NewGroups, Query, TreatedRows, described

Predict = Callable[[TreatedRows, TaskEffects], Moments]


class AdaptedResponse(RowScores, Saved):
    """Tasks that a `TreatmentResponse` was adapted to. It holds rows, so it is patient data.

    Made by ``TreatmentResponse.adapt``.

    Parameters
    ----------
    model : EffectModel
    support : TreatedRows
        Rows of the tasks.
    state : TaskEffects, optional
        Cross-fitted state of the training tasks; by default the model is adapted to the rows.

    Attributes
    ----------
    labels_ : ndarray, (task,), or None
        Groups of the support, sorted; None if `adapt` was called without groups.
    n_shots_ : ndarray, (task,)
        Support rows of every task.
    one_arm_ : ndarray of bool, (task,)
        Tasks whose rows are all of one arm: they have the population's effect and interval, as
        tasks without rows.
    n_clipped_ : int
        Rows with a propensity below the model's `clip`.
    propensity_source_ : {"supplied", "learned"}
        Whether propensities were given or come from the model, adapted to the tasks.
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
        """Mean effect of arm `T1` over arm `T0` at the rows' features in their tasks.

        Parameters
        ----------
        X : frame or array, (row, feature)
        T0, T1 : labels of arms, optional
            By default the control and, of two arms, the other one.
        groups : array, (row,)
            Task of every row; not needed if `adapt` was called without groups.
        new_groups : {"error", "population", "nan"}
            Whether rows of tasks that were not adapted are an error, get the population's effect,
            or NaN.

        Returns
        -------
        ndarray, (row,)
            In the unit of the outcome; a difference of probabilities for outcomes of 0 and 1.
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

        It is not an interval of an individual's Y1 - Y0: nobody is observed in both arms, so the
        variation of individual effects at equal features is not identified. For a task without rows
        of both arms, the interval includes the variance of effects over tasks.

        Parameters
        ----------
        confidence_level : float, default 0.95
        X, T0, T1, groups, new_groups
            As in `effect`.

        Raises
        ------
        DataError
            Effects have no posterior, as with `estimator=`.
        """
        mean, variance = self._effects(X, groups, T0, T1, new_groups)
        return self.model.effects.interval(mean, variance, confidence_level)

    def arm_effects(self, X: Any, *, groups: Any = None, new_groups: NewGroups = "error") -> Array:
        """Mean effect of every arm over the control, (row, arm - 1).

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

        Of a dose, (row,), in units of the outcome per unit of the dose: a central difference over
        1 % of the range of the training doses. Of arms, (row, arm - 1): per indicator of an arm,
        which is `arm_effects` whatever `T` is.

        Parameters
        ----------
        T : dose or label of an arm, or one for every row
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
            Of `effect_interval`.
        as_ : {"pandas", "polars"}

        Returns
        -------
        DataFrame
            `task`, where given, `effect`, `lower` and `upper`, NaN without a posterior; for
            several arms `effect_ARM`, `lower_ARM` and `upper_ARM`.
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
        """Mean outcome under every arm, (row, arm), or under arm or dose `T`, (row,).

        Outcomes under two arms differ by `effect`.
        """
        treatment, query = self.model.treatment, self._query(X, groups, new_groups)
        vectors = treatment.vectors if T is None else [treatment.vector(T)]
        if isinstance(treatment, Dose) and T is not None:
            treatment.warn_if_outside(np.asarray(T, np.float64))
        outcomes = (partial(self.model.outcomes, given=given) for given in vectors)
        columns = [self._predicted(query, outcome)[0] for outcome in outcomes]
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
        """Interval of `ate` with the rows' joint covariance, (2,); 95 % by default."""
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
            `row` (of X), `support_row` (among the support rows with pseudo-outcomes of the
            contrast, in order; -1 is the population) and `weight`; largest first.
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
        """Arm with the best mean outcome at each row, abstaining where the margin is uncertain.

        Parameters
        ----------
        higher_is_better : bool
            Whether larger outcomes are better.
        costs : mapping of arm to float, optional
            Cost of an arm, in the unit of the outcome.
        confidence_level : float, default 0.95
            Of the interval of the margin; the recommendation abstains where that contains 0.

        Returns
        -------
        DataFrame
            `action`, `margin` (gain over the second-best arm, net of costs), its `low` and `high`,
            and `abstain`.
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

    def warn_of_gaps(self, stacklevel: int = 3) -> None:
        """Warn of tasks of one arm and of clipped propensities."""
        if self.one_arm_.any():
            warnings.warn(
                f"{int(self.one_arm_.sum()):,} of {self.n_tasks:,} tasks (first: task "
                f"{int(np.flatnonzero(self.one_arm_)[0])}) have rows of one arm only. Their rows "
                "inform the level of the outcome only; their effect is that of the population.",
                DataWarning,
                stacklevel=stacklevel,
            )
        if self.n_clipped_:
            clip = getattr(self.model.nuisances, "clip", None)
            warnings.warn(
                f"{self.n_clipped_:,} of {self.support.n_rows:,} rows have an arm with a "
                f"propensity below clip={clip} and were clipped: the arms hardly overlap there. "
                "See diagnostics().",
                DataWarning,
                stacklevel=stacklevel,
            )

    def to_state(self) -> State:
        """The model, with the encoded rows and labels of the tasks, which are patient data.

        Raises
        ------
        BundleError
            These are the training tasks.
        """
        if self.is_training:
            raise BundleError(
                "the training tasks cannot be saved: their scores come from models of other folds, "
                "which a file does not hold. Save the model, or adapt it to the rows."
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
        return f"AdaptedResponse({tasks}, propensity {self.propensity_source_})"

    def _effects(self, X: Any, groups: Any, T0: Any, T1: Any, new_groups: NewGroups) -> Moments:
        """Mean and variance of the effect of every row."""
        query = self._query(X, groups, new_groups)
        return self._contrast(query, *self.model.treatment.pair(T0, T1))

    def _unit_effects(
        self, X: Any, groups: Any, new_groups: NewGroups, treatment: Arms | Dose
    ) -> Array:
        """Effect of every arm, or of one unit of the dose, (row, arm - 1)."""
        query = self._query(X, groups, new_groups)
        control, *others = treatment.vectors
        return np.column_stack([self._contrast(query, control, one)[0] for one in others])

    def _contrast(self, query: Query, zero: Array, one: Array) -> Moments:
        return self._predicted(query, partial(self.model.contrast, zero=zero, one=one))

    def _predicted(self, query: Query, predict: Predict) -> Moments:
        """Predictions in the rows' tasks; for unknown tasks the population's, or NaN."""
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
