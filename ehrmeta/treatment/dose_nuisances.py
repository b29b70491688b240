"""Nuisances of a continuous dose: the mean outcome and the mean dose at x, in tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ehrmeta.treatment.arrays import Array, Index, Mask
from ehrmeta.treatment.cross_fitting import Stack, cross_fit
from ehrmeta.treatment.nuisances import ArmLevels, fit_arm_levels
from ehrmeta.treatment.treated_rows import TreatedRows


@dataclass(frozen=True, eq=False)
class TaskDoseNuisances:
    """What is expected of rows, in their tasks; no row had a part in its own.

    Parameters
    ----------
    m, dose : (row,)
        Mean outcome and mean dose.
    population_m : (row,)
        Mean outcome at the population's level.
    """

    m: Array
    dose: Array
    population_m: Array

    @property
    def clipped(self) -> Mask:
        """A dose has no propensity to clip."""
        return np.zeros(len(self.m), bool)

    def treatment(self, cases: TreatedRows) -> Array:
        """The dose, (row, 1)."""
        return np.asarray(cases.arm[:, None], np.float64)

    def given(self, cases: TreatedRows) -> Array:
        """The dose, (row, 1); 0 in tasks with one dose only, which say nothing of its effect."""
        return np.asarray((cases.arm * rows_of_varied_dose(cases))[:, None])

    def residual(self, cases: TreatedRows) -> Array:
        """The dose less its mean, (row, 1)."""
        return np.asarray((cases.arm - self.dose)[:, None])

    @property
    def residual_offset(self) -> Array:
        """Mean outcome at the population's level, (row,)."""
        return self.population_m


@dataclass(frozen=True, eq=False)
class DoseNuisances:
    """Fitted models.

    Parameters
    ----------
    outcome, dose : Stack
    outcome_levels, dose_levels : ArmLevels, optional
        How tasks differ; None where there was one task only.
    noise : (1,)
        Variance of the outcome around its mean.
    """

    outcome: Stack
    dose: Stack
    outcome_levels: ArmLevels | None
    dose_levels: ArmLevels | None
    noise: Array

    def reference(self, x: Array) -> tuple[Array, Array]:
        """Mean outcome (row,), and the dose it is for, (row, 1)."""
        return self.outcome.predict(x), self.dose.predict(x)[:, None]

    def adapt(self, cases: TreatedRows) -> TaskDoseNuisances:
        """Expectations for the rows of tasks that the models have not seen."""
        return _in_tasks(self, self.outcome.predict(cases.x), self.dose.predict(cases.x), cases)


def fit_dose_nuisances(
    cases: TreatedRows,
    fold: Index,
    *,
    outcome: Sequence[Any],
    dose: Sequence[Any],
    random_state: int = 0,
) -> tuple[DoseNuisances, TaskDoseNuisances]:
    """Cross-fit the models, estimate how tasks differ, and adapt to the training tasks."""
    centre = cases.task if cases.n_tasks > 1 else None
    y_stack, m = cross_fit(
        outcome, cases.x, cases.y, fold, centre=centre, random_state=random_state
    )
    t_stack, t = cross_fit(dose, cases.x, cases.arm, fold, centre=centre, random_state=random_state)
    several = cases.n_tasks > 1
    nuisances = DoseNuisances(
        y_stack,
        t_stack,
        fit_arm_levels(m[:, None], _one_arm(cases, cases.y)) if several else None,
        fit_arm_levels(t[:, None], _one_arm(cases, cases.arm)) if several else None,
        np.ones(1),
    )
    adapted = _in_tasks(nuisances, m, t, cases)
    noise = np.array([np.mean((cases.y - adapted.m) ** 2)])
    return replace(nuisances, noise=noise), adapted


def rows_of_varied_dose(cases: TreatedRows) -> Mask:
    """Rows of tasks with more than one dose."""
    low, high = np.full(cases.n_tasks, np.inf), np.full(cases.n_tasks, -np.inf)
    np.minimum.at(low, cases.task, cases.arm)
    np.maximum.at(high, cases.task, cases.arm)
    several: Mask = (high > low)[cases.task]
    return several


def _in_tasks(
    nuisances: DoseNuisances, m: Array, t: Array, cases: TreatedRows
) -> TaskDoseNuisances:
    population_m = m
    if nuisances.outcome_levels is not None and nuisances.dose_levels is not None:
        m = _without_own_row(nuisances.outcome_levels, m, _one_arm(cases, cases.y))
        t = _without_own_row(nuisances.dose_levels, t, _one_arm(cases, cases.arm))
    return TaskDoseNuisances(m, t, population_m)


def _without_own_row(levels: ArmLevels, expected: Array, cases: TreatedRows) -> Array:
    column = expected[:, None]
    mean, cov = levels.adapt(column, cases)
    return levels.without_own_row(column, cases, mean, cov)[:, 0]


def _one_arm(cases: TreatedRows, y: Array) -> TreatedRows:
    return replace(cases, y=y, arm=np.zeros(cases.n_rows, np.int64))
