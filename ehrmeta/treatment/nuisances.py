"""Outcome and propensity models: cross-fitted over tasks, then adapted to each task.

Nothing a row is scored with has seen the row: the models are trained on other tasks (other rows
where there is one task), and the task's own levels come from its other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV

from ehrmeta.errors import DataError
from ehrmeta.treatment.assignment import LogitShifts, clip_propensity, fit_logit_shifts
from ehrmeta.treatment.baseline import ArmLevels, fit_arm_levels, task_levels
from ehrmeta.treatment.cases import Cases
from ehrmeta.treatment.stacking import Stack, cross_fit

__all__ = [
    "Nuisances",
    "TaskNuisances",
    "default_classifiers",
    "default_regressors",
    "fit_nuisances",
]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TaskNuisances:
    """What is expected of rows, in their tasks.

    Parameters
    ----------
    mu : (row, arm)
        Outcome in each arm, at levels that the row itself had no part in.
    population_mu : (row, arm)
        Outcome in each arm at the population's level.
    e : (row, arm)
        Propensity of each arm, at the shift that the task's other rows give, and clipped.
    clipped : (row,)
        Whether a propensity was below the clip.
    """

    mu: Array
    population_mu: Array
    e: Array
    clipped: npt.NDArray[np.bool_]

    def treatment(self, cases: Cases) -> Array:
        """Which arm was given, without the control, (row, arm - 1)."""
        return np.asarray(np.eye(self.e.shape[1])[cases.arm][:, 1:])

    def given(self, cases: Cases) -> Array:
        """The same, but 0 in tasks of one arm, which say nothing of their own effect."""
        several = (cases.counts(self.e.shape[1]) > 0).sum(1) > 1
        return np.asarray(self.treatment(cases) * several[cases.task, None])

    def away(self, cases: Cases) -> Array:
        """Which arm was given less its propensity, without the control, (row, arm - 1)."""
        return np.asarray(self.treatment(cases) - self.e[:, 1:])

    @property
    def residual_offset(self) -> Array:
        """Mean outcome over the arms at the population's level, (row,): the R-learner's m."""
        return np.asarray(np.sum(self.e * self.population_mu, axis=1))


@dataclass(frozen=True, eq=False)
class Nuisances:
    """Fitted outcome and propensity models.

    Parameters
    ----------
    outcome : tuple of Stack
        One an arm; a single one whose features end in the arms for the S-learner.
    propensity : Stack or (arm,)
        Randomisation probabilities are one a arm.
    levels : ArmLevels, optional
        None where there was one task only.
    shifts : LogitShifts, optional
        None where there was one task only, or propensities are known.
    noise : (arm,)
        Variance of the outcome around what is expected.
    mean_propensity : (arm,)
        Share of the training rows in each arm.
    n_arms : int
    clip : float
    bounded : bool
        Whether outcomes are 0 or 1.
    """

    outcome: tuple[Stack, ...]
    propensity: Stack | Array | None
    levels: ArmLevels | None
    shifts: LogitShifts | None
    noise: Array
    mean_propensity: Array
    n_arms: int
    clip: float
    bounded: bool

    def predict(self, x: Array) -> Array:
        """Outcome in each arm for the population, (row, arm)."""
        return np.asarray(self.by_fold(x).mean(0))

    def by_fold(self, x: Array) -> Array:
        """What each fold's outcome models say, (fold, row, arm)."""
        if len(self.outcome) == self.n_arms:
            return np.stack([stack.by_fold(x) for stack in self.outcome], axis=-1)
        joint = self.outcome[0]
        arms = range(self.n_arms)
        return np.stack([joint.by_fold(_with_arm(x, a, self.n_arms)) for a in arms], axis=-1)

    def population_propensity(self, cases: Cases) -> Array:
        """Propensities before any adaptation, (row, arm)."""
        if cases.known is not None:
            return cases.known
        if self.propensity is None:
            raise DataError(
                "the model was fitted with randomisation probabilities for its own rows only. "
                "Pass propensity= for these rows too."
            )
        return self.propensities(cases.x)

    def propensities(self, x: Array) -> Array:
        """Propensities at x, (row, arm); the arms' shares where they were known by row."""
        if isinstance(self.propensity, Stack):
            return _all_arms(self.propensity.predict(x))
        shares = self.mean_propensity if self.propensity is None else self.propensity
        return np.tile(shares, (len(x), 1))

    def reference(self, x: Array) -> tuple[Array, Array]:
        """Mean outcome over the arms at their shares, (row,), and the shares, (row, arm - 1)."""
        shares = self.mean_propensity
        return self.predict(x) @ shares, np.tile(shares[1:], (len(x), 1))

    def adapt(self, cases: Cases) -> TaskNuisances:
        """Expectations for the rows of tasks that the models have not seen."""
        e = self.population_propensity(cases)
        shifts = None if cases.known is not None else self.shifts
        return _in_tasks(self, shifts, self.predict(cases.x), e, cases)

    def with_outcomes(self, mu: Array, e: Array, cases: Cases) -> TaskNuisances:
        """Expectations by these outcomes (row, arm) of the population and adapted propensities."""
        return _in_tasks(self, None, mu, e, cases)


def fit_nuisances(
    cases: Cases,
    n_arms: int,
    fold: Index,
    *,
    outcome: Sequence[Any],
    propensity: Sequence[Any] | Array,
    clip: float,
    joint: bool = False,
    random_state: int = 0,
) -> tuple[Nuisances, TaskNuisances]:
    """Cross-fit the models, estimate how tasks differ, and adapt to the training tasks.

    Parameters
    ----------
    outcome : sequence of regressors or classifiers
        Stacked.
    propensity : sequence of classifiers, or (arm,)
        Randomisation probabilities where an array; those of `cases` come first.
    clip : float
        Smallest propensity used.
    joint : bool
        One outcome model with the arms among its features, in place of one an arm.
    """
    _check_folds(cases, n_arms, fold)
    several = cases.n_tasks > 1
    numbers = not is_classifier(outcome[0])
    target = cases.y - task_levels(cases, n_arms) if several and numbers else cases.y
    centre = cases.task if several else None
    if joint:
        x = np.column_stack([cases.x, np.eye(n_arms)[cases.arm][:, 1:]])
        stack, _ = cross_fit(outcome, x, target, fold, centre=centre, random_state=random_state)
        stacks: tuple[Stack, ...] = (stack,)
        mu = np.column_stack(
            [_own_fold(stack, _with_arm(cases.x, a, n_arms), fold) for a in range(n_arms)]
        )
    else:
        fits = [
            cross_fit(
                outcome,
                cases.x,
                target,
                fold,
                train=cases.arm == a,
                centre=centre,
                random_state=random_state,
            )
            for a in range(n_arms)
        ]
        stacks = tuple(stack for stack, _ in fits)
        mu = np.column_stack([found for _, found in fits])

    model: Stack | Array | None
    if cases.known is not None:
        model, e = None, cases.known
    elif isinstance(propensity, np.ndarray):
        model, e = propensity, np.tile(propensity, (cases.n_rows, 1))
    else:
        model, found = cross_fit(propensity, cases.x, cases.arm, fold, random_state=random_state)
        e = _all_arms(found)
    learned = isinstance(model, Stack)
    nuisances = Nuisances(
        outcome=stacks,
        propensity=model,
        levels=fit_arm_levels(mu, cases) if several else None,
        shifts=fit_logit_shifts(e, cases) if several and learned else None,
        noise=np.ones(n_arms),
        mean_propensity=np.bincount(cases.arm, minlength=n_arms) / cases.n_rows,
        n_arms=n_arms,
        clip=clip,
        bounded=set(np.unique(cases.y)) <= {0.0, 1.0},
    )
    adapted = _in_tasks(nuisances, nuisances.shifts, mu, e, cases)
    residual = cases.y - adapted.mu[np.arange(cases.n_rows), cases.arm]
    counts = np.bincount(cases.arm, minlength=n_arms)
    noise = np.bincount(cases.arm, residual**2, minlength=n_arms) / counts
    floor = 1e-12 * max(float(np.mean(cases.y**2)), np.finfo(float).tiny)
    return replace(nuisances, noise=np.maximum(noise, floor)), adapted


def default_regressors() -> list[Any]:
    """What outcomes are learned with: a ridge regression and boosting, stacked."""
    return [
        RidgeCV(np.logspace(-2, 4, 13)),
        HistGradientBoostingRegressor(
            learning_rate=0.05, max_iter=150, max_leaf_nodes=12, early_stopping=False
        ),
    ]


def default_classifiers() -> list[Any]:
    """What propensities and outcomes of 0 and 1 are learned with."""
    return [
        LogisticRegression(max_iter=1000),
        HistGradientBoostingClassifier(
            learning_rate=0.05, max_iter=100, max_leaf_nodes=8, early_stopping=False
        ),
    ]


def _in_tasks(
    nuisances: Nuisances, shifts: LogitShifts | None, mu: Array, e: Array, cases: Cases
) -> TaskNuisances:
    """Expectations at the levels that the rows' tasks have without them."""
    population_mu = mu
    if nuisances.levels is not None:
        level, cov = nuisances.levels.adapt(mu, cases)
        mu = nuisances.levels.without_own_row(mu, cases, level, cov)
    if shifts is not None:
        assignment, curvature = shifts.adapt(e, cases)
        e = shifts.without_own_row(e, cases, assignment, curvature)
    if nuisances.bounded:
        mu = np.clip(mu, 0.0, 1.0)
    e, clipped = clip_propensity(e, nuisances.clip)
    return TaskNuisances(mu, population_mu, e, clipped)


def _check_folds(cases: Cases, n_arms: int, fold: Index) -> None:
    """Every fold's complement must hold every arm."""
    n_folds = int(fold.max()) + 1
    inside = np.bincount(fold * n_arms + cases.arm, minlength=n_folds * n_arms)
    outside = np.bincount(cases.arm, minlength=n_arms) - inside.reshape(n_folds, n_arms)
    lacking = np.flatnonzero((outside < 2).any(0))
    if len(lacking):
        where = "tasks" if cases.n_tasks > 1 else "rows"
        raise DataError(
            f"arm {lacking[0]} of {n_arms} (0 is the control) has fewer than 2 rows outside one of "
            f"the {n_folds} folds of {where}: it cannot be learned from other {where}. Add rows of "
            "that arm from other tasks, or leave the arm out."
        )


def _own_fold(stack: Stack, x: Array, fold: Index) -> Array:
    return np.asarray(stack.by_fold(x)[fold, np.arange(len(x))])


def _with_arm(x: Array, arm: int, n_arms: int) -> Array:
    return np.column_stack([x, np.tile(np.eye(n_arms)[arm, 1:], (len(x), 1))])


def _all_arms(found: Array) -> Array:
    """(row, arm) from the probability of the second of two, or of all."""
    return np.column_stack([1 - found, found]) if found.ndim == 1 else found
