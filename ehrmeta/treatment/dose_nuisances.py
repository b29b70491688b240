"""Nuisances of a continuous dose: mean outcome and mean dose at x, adapted to each task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ehrmeta.treatment.arms import Array, Index, Mask
from ehrmeta.treatment.cross_fitting import Stack, cross_fit
from ehrmeta.treatment.nuisances import ArmLevels, fit_arm_levels
from ehrmeta.treatment.treated_rows import TreatedRows


@dataclass(frozen=True, eq=False)
class TaskDoseNuisances:
    """Cross-fitted mean outcome and mean dose of every row, given its task."""

    # m, dose (row,): mean outcome and mean dose, with levels from the task's other rows
    m: Array
    dose: Array
    population_m: Array  # (row,): mean outcome at the population's level

    @property
    def clipped(self) -> Mask:
        """All False: a dose has no propensity to clip."""
        return np.zeros(len(self.m), bool)

    def treatment(self, cases: TreatedRows) -> Array:
        """The dose, (row, 1)."""
        return np.asarray(cases.arm[:, None], np.float64)

    def given(self, cases: TreatedRows) -> Array:
        """The dose, (row, 1); 0 in tasks with a single dose, which do not inform the effect."""
        return np.asarray((cases.arm * rows_of_varied_dose(cases))[:, None])

    def residual(self, cases: TreatedRows) -> Array:
        """The dose minus its mean, (row, 1)."""
        return np.asarray((cases.arm - self.dose)[:, None])

    @property
    def residual_offset(self) -> Array:
        """Mean outcome at the population's level, (row,)."""
        return self.population_m


@dataclass(frozen=True, eq=False)
class DoseNuisances:
    """Fitted outcome and dose models."""

    outcome: Stack
    dose: Stack
    # outcome_levels, dose_levels: variation over tasks; None with one training task
    outcome_levels: ArmLevels | None
    dose_levels: ArmLevels | None
    noise: Array  # (1,): residual variance of the outcome

    def reference(self, x: Array) -> tuple[Array, Array]:
        """Mean outcome at the mean dose, (row,), and that dose, (row, 1)."""
        return self.outcome.predict(x), self.dose.predict(x)[:, None]

    def adapt(self, cases: TreatedRows) -> TaskDoseNuisances:
        """Nuisances of new tasks' rows."""
        return self.in_tasks(self.outcome.predict(cases.x), self.dose.predict(cases.x), cases)

    def in_tasks(self, m: Array, dose: Array, cases: TreatedRows) -> TaskDoseNuisances:
        """Adapt the population's mean outcomes and doses, (row,) each, to the tasks."""

        def in_task(levels: ArmLevels | None, expected: Array, values: Array) -> Array:
            if levels is None:
                return expected
            return levels.without_own_row(expected[:, None], _one_arm(cases, values))[:, 0]

        outcome = in_task(self.outcome_levels, m, cases.y)
        return TaskDoseNuisances(outcome, in_task(self.dose_levels, dose, cases.arm), m)


def fit_dose_nuisances(
    cases: TreatedRows,
    fold: Index,
    *,
    outcome: Sequence[Any],
    dose: Sequence[Any],
    random_state: int = 0,
) -> tuple[DoseNuisances, TaskDoseNuisances]:
    """Cross-fit the models, estimate the variation over tasks, and adapt to the training tasks."""
    several = cases.n_tasks > 1
    centre = cases.task if several else None
    learn = partial(cross_fit, x=cases.x, fold=fold, centre=centre, random_state=random_state)
    y_stack, m = learn(outcome, target=cases.y)
    t_stack, t = learn(dose, target=cases.arm)
    nuisances = DoseNuisances(
        y_stack,
        t_stack,
        fit_arm_levels(m[:, None], _one_arm(cases, cases.y)) if several else None,
        fit_arm_levels(t[:, None], _one_arm(cases, cases.arm)) if several else None,
        np.ones(1),
    )
    adapted = nuisances.in_tasks(m, t, cases)
    noise = np.array([np.mean((cases.y - adapted.m) ** 2)])
    return replace(nuisances, noise=noise), adapted


def rows_of_varied_dose(cases: TreatedRows) -> Mask:
    """Rows of tasks with more than one dose."""
    low, high = np.full(cases.n_tasks, np.inf), np.full(cases.n_tasks, -np.inf)
    np.minimum.at(low, cases.task, cases.arm)
    np.maximum.at(high, cases.task, cases.arm)
    varied: Mask = (high > low)[cases.task]
    return varied


def _one_arm(cases: TreatedRows, y: Array) -> TreatedRows:
    return replace(cases, y=y, arm=np.zeros(cases.n_rows, np.int64))
