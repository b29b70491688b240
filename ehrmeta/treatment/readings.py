"""Reading effects and outcomes of adapted tasks for a user's rows."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import DataError, DataWarning, GroupError
from ehrmeta.treatment.cross_fitting import Stack
from ehrmeta.treatment.effects import AnyTaskNuisances
from ehrmeta.treatment.treated_rows import Cases

if TYPE_CHECKING:
    from ehrmeta.treatment.response import TreatmentResponse

__all__ = ["AdaptedTasks", "NewGroups", "known_variance"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
NewGroups = Literal["error", "population", "nan"]


class AdaptedTasks:
    """Tasks with their rows, nuisances and the state of their effects.

    `AdaptedResponse` is what a user sees of them.
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
        self._trained = trained
        self._state = model.effects_.adapt(support, nuisances, trained=trained)

    @property
    def n_tasks(self) -> int:
        """Number of adapted tasks."""
        return self._support.n_tasks

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
        rest = self.model.effects_.contrast(query.in_one_task(), other._state, zero, one)
        return _filled(found, known, rest, new_groups)

    def _outcomes(
        self, query: Cases, known: Mask, given: Array, new_groups: NewGroups
    ) -> tuple[Array, Array | None]:
        reference = self.model.nuisances_.reference(query.x)
        found = self.model.effects_.outcomes(query, self._state, given, reference)
        if known.all():
            return found
        other = self.model.unadapted()
        rest = self.model.effects_.outcomes(query.in_one_task(), other._state, given, reference)
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


def known_variance(variance: Any) -> Any:
    """The variance, where a learner has one."""
    if variance is None:
        raise DataError(
            "effects of an estimator= come without a posterior, so without intervals. Leave "
            "estimator=None for the mixed model."
        )
    return variance
