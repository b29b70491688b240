"""Outcome, propensity and dose models: cross-fitted over tasks, then adapted to each task.

A row's nuisances do not depend on the row itself: the models are trained on other tasks (with a
single task, on other rows), and the task's levels are estimated from its other rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV

from ehrmeta.errors import DataError
from ehrmeta.nn.mixed_model import MixedModel, fit_mixed_model, posterior
from ehrmeta.treatment.arms import Array, Index, Mask
from ehrmeta.treatment.cross_fitting import Stack, cross_fit
from ehrmeta.treatment.treated_rows import TreatedRows

_NEWTON_STEPS = 25
_SMALLEST = 1e-6  # lower bound of a probability before taking its logarithm
_SD_RANGE = (1e-3, 10.0)


@dataclass(frozen=True, eq=False)
class ArmLevels:
    r"""Prior of the arms' levels in a task: ``residual = beta_a + b_a + e``, ``b ~ N(0, G)``.

    G includes the correlation of the arms' levels over tasks, so that the rows of one arm also
    inform the level of another.
    """

    model: MixedModel  # of the residuals of the population's outcome models

    def adapt(self, mu: Array, cases: TreatedRows) -> tuple[Array, Array]:
        """Posterior of every task's levels: mean (task, arm), covariance (task, arm, arm)."""
        mean, cov = posterior(self.model, *_residuals_by_task(mu, cases))
        return mean + self.model.beta, cov

    def without_own_row(self, mu: Array, cases: TreatedRows) -> Array:
        r"""Outcomes (row, arm) at levels estimated from the task's *other* rows.

        .. math:: b_{-i} = b - C z_i \frac{r_i - z_i'b}{\sigma^2 - z_i' C z_i}
        """
        mean, cov = self.adapt(mu, cases)
        arm_cov = cov[cases.task, :, cases.arm]  # (row, arm)
        residual = cases.y - cases.of_arm(mu) - mean[cases.task, cases.arm]
        variance = self.model.noise_var - cases.of_arm(arm_cov)
        shift = mean[cases.task] - arm_cov * (residual / variance)[:, None]
        return np.asarray(mu + shift)


def fit_arm_levels(mu: Array, cases: TreatedRows) -> ArmLevels:
    """Estimate the prior from cross-fitted outcomes `mu` (row, arm) of the training tasks."""
    return ArmLevels(fit_mixed_model(*_residuals_by_task(mu, cases)))


def _residuals_by_task(mu: Array, cases: TreatedRows) -> tuple[Array, Array, Array, Index]:
    """Fixed and random designs (indicators of the arms), residuals, and offsets of the tasks."""
    order, starts = cases.by_task
    hot = np.eye(mu.shape[1])[cases.arm[order]]
    return hot, hot, (cases.y - cases.of_arm(mu))[order], starts


def _task_levels(cases: TreatedRows, n_arms: int) -> Array:
    """Random intercept of each row's task, (row,), adjusted for x and arm.

    Outcome models are trained on the outcome minus this intercept, so that differences between
    tasks that treat often and tasks that treat rarely are not mistaken for an effect.
    """
    order, starts = cases.by_task
    design = np.column_stack([np.eye(n_arms)[cases.arm], cases.x])[order]
    one = np.ones((cases.n_rows, 1))
    model = fit_mixed_model(design, one, cases.y[order], starts)
    mean, _ = posterior(model, design, one, cases.y[order], starts)
    return np.asarray(mean[cases.task, 0])


@dataclass(frozen=True)
class LogitShifts:
    r"""Random shifts c of each task's propensities on the logit scale.

    ``e_task(x) = softmax(log e(x) + c)`` with ``c ~ N(0, sd^2 I)``.
    """

    sd: float  # estimated from the training tasks

    def adapt(self, e: Array, cases: TreatedRows) -> tuple[Array, Array]:
        """Mode (task, arm) and curvature (task, arm, arm) of every task's shift."""
        mode, curvature, _ = _laplace(np.log(np.maximum(e, _SMALLEST)), cases, self.sd)
        return mode, curvature

    def without_own_row(self, e: Array, cases: TreatedRows) -> Array:
        """Propensities (row, arm), with shifts from the task's other rows by one Newton step."""
        mode, curvature = self.adapt(e, cases)
        logits = np.log(np.maximum(e, _SMALLEST))
        p = softmax(logits + mode[cases.task], axis=1)
        gradient = np.eye(p.shape[1])[cases.arm] - p
        others = curvature[cases.task] - _information(p)
        shift = mode[cases.task] - np.linalg.solve(others, gradient[..., None])[..., 0]
        return np.asarray(softmax(logits + shift, axis=1))


def _fit_logit_shifts(e: Array, cases: TreatedRows) -> LogitShifts:
    """Estimate the sd of the shifts by maximising the Laplace approximation of the likelihood."""
    logits = np.log(np.maximum(e, _SMALLEST))
    low, high = np.log(_SD_RANGE)
    optimum = minimize_scalar(
        lambda log_sd: -_laplace(logits, cases, float(np.exp(log_sd)))[2],
        bounds=(low, high),
        method="bounded",
        options={"xatol": 0.05},
    )
    return LogitShifts(float(np.exp(optimum.x)))


def _laplace(logits: Array, cases: TreatedRows, sd: float) -> tuple[Array, Array, float]:
    """Mode and curvature of each task's shift, and the total marginal log-likelihood."""
    n_tasks, n_arms = cases.n_tasks, logits.shape[1]
    precision = np.eye(n_arms) / sd**2
    hot = np.eye(n_arms)[cases.arm]
    c = np.zeros((n_tasks, n_arms))
    for _ in range(_NEWTON_STEPS):
        p = softmax(logits + c[cases.task], axis=1)
        gradient = _totals(hot - p, cases) - c @ precision
        curvature = _totals(_information(p), cases) + precision
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        size = np.abs(step).max(1, keepdims=True)
        c += step / np.maximum(size, 1.0)  # a step of at most 1 on the log-odds scale
        if size.max() < 1e-8:
            break
    p = softmax(logits + c[cases.task], axis=1)
    curvature = _totals(_information(p), cases) + precision
    fit = np.log(p[np.arange(len(p)), cases.arm]).sum() - 0.5 * np.sum(c * c) / sd**2
    volume = n_tasks * n_arms * np.log(sd) + 0.5 * np.linalg.slogdet(curvature)[1].sum()
    return c, curvature, float(fit - volume)


def _information(p: Array) -> Array:
    """``diag(p) - p p'`` of every row, (row, arm, arm)."""
    return np.asarray(p[:, :, None] * (np.eye(p.shape[1]) - p[:, None, :]))


def _totals(values: Array, cases: TreatedRows) -> Array:
    """Sums over the rows of every task, (task, ...)."""
    flat = values.reshape(len(values), -1)
    sums = np.zeros((cases.n_tasks, flat.shape[1]))
    np.add.at(sums, cases.task, flat)
    return sums.reshape(cases.n_tasks, *values.shape[1:])


@dataclass(frozen=True, eq=False)
class TaskNuisances:
    """Cross-fitted outcomes and propensities of rows in their tasks."""

    mu: Array  # (row, arm): outcome in each arm, with levels from the task's other rows
    population_mu: Array  # (row, arm): outcome in each arm at the population's level
    e: Array  # (row, arm): clipped propensities, with shifts from the task's other rows
    clipped: Mask  # (row,): whether a propensity was below the clip

    def treatment(self, cases: TreatedRows) -> Array:
        """Indicators of the non-control arms given, (row, arm - 1)."""
        return np.asarray(np.eye(self.e.shape[1])[cases.arm][:, 1:])

    def given(self, cases: TreatedRows) -> Array:
        """`treatment`, but 0 in tasks with a single arm, which do not inform the effect."""
        several = (cases.counts(self.e.shape[1]) > 0).sum(1) > 1
        return np.asarray(self.treatment(cases) * several[cases.task, None])

    def residual(self, cases: TreatedRows) -> Array:
        """Treatment residual T - e(X) for each non-control arm, (row, arm - 1)."""
        return np.asarray(self.treatment(cases) - self.e[:, 1:])

    @property
    def residual_offset(self) -> Array:
        """The R-learner's m: mean outcome over the arms at the population's level, (row,)."""
        return np.asarray(np.sum(self.e * self.population_mu, axis=1))


@dataclass(frozen=True, eq=False)
class Nuisances:
    """Fitted outcome and propensity models."""

    outcome: tuple[Stack, ...]  # one per arm; for the S-learner one with the arms as last features
    propensity: Stack | Array | None  # model, or (arm,) probabilities; None if known for each row
    levels: ArmLevels | None  # None with one training task
    shifts: LogitShifts | None  # None with one training task or known propensities
    noise: Array  # (arm,): residual variance of the outcome
    mean_propensity: Array  # (arm,): share of the training rows in each arm
    n_rows: int  # training rows
    n_arms: int
    clip: float
    bounded: bool  # whether outcomes are 0 or 1

    def predict(self, x: Array) -> Array:
        """Population outcome in each arm, (row, arm)."""
        return np.asarray(self.by_fold(x).mean(0))

    def by_fold(self, x: Array) -> Array:
        """Predictions of each fold's outcome models, (fold, row, arm)."""
        if len(self.outcome) == self.n_arms:
            return np.stack([stack.by_fold(x) for stack in self.outcome], axis=-1)
        joint = self.outcome[0]
        arms = range(self.n_arms)
        return np.stack([joint.by_fold(_with_arm(x, a, self.n_arms)) for a in arms], axis=-1)

    def propensities(self, x: Array) -> Array:
        """Propensities at x, (row, arm).

        If they were known for each training row, the arms' shares of the training rows.
        """
        if isinstance(self.propensity, Stack):
            return _all_arms(self.propensity.predict(x))
        shares = self.mean_propensity if self.propensity is None else self.propensity
        return np.tile(shares, (len(x), 1))

    def reference(self, x: Array) -> tuple[Array, Array]:
        """Mean outcome weighted by the arms' shares, (row,), and the shares, (row, arm - 1)."""
        shares = self.mean_propensity
        return self.predict(x) @ shares, np.tile(shares[1:], (len(x), 1))

    def adapt(self, cases: TreatedRows) -> TaskNuisances:
        """Nuisances of new tasks' rows."""
        if cases.known is not None:
            return self.in_tasks(self.predict(cases.x), cases.known, cases)
        if self.propensity is None:
            raise DataError(
                "the model was fitted with known propensities and has no propensity model. Pass "
                "propensity= for these rows too."
            )
        e = self.propensities(cases.x)
        if self.shifts is not None:
            e = self.shifts.without_own_row(e, cases)
        return self.in_tasks(self.predict(cases.x), e, cases)

    def in_tasks(self, mu: Array, e: Array, cases: TreatedRows) -> TaskNuisances:
        """Nuisances from population outcomes and task propensities, (row, arm) each."""
        in_task = mu if self.levels is None else self.levels.without_own_row(mu, cases)
        if self.bounded:
            in_task = np.clip(in_task, 0.0, 1.0)
        clipped = np.asarray((e < self.clip).any(axis=1))
        return TaskNuisances(in_task, mu, np.maximum(e, self.clip), clipped)


def fit_nuisances(
    cases: TreatedRows,
    n_arms: int,
    fold: Index,
    *,
    outcome: Sequence[Any],
    propensity: Sequence[Any] | Array,
    clip: float,
    joint: bool = False,
    random_state: int = 0,
) -> tuple[Nuisances, TaskNuisances]:
    """Cross-fit the models, estimate the variation over tasks, and adapt to the training tasks.

    Parameters
    ----------
    outcome : sequence of regressors or classifiers
        Models to stack.
    propensity : sequence of classifiers, or (arm,)
        Models to stack, or randomisation probabilities; ignored if `cases` has known propensities.
    clip : float
        Lower bound of propensities.
    joint : bool
        Whether to fit one outcome model with the arms among its features, instead of one per arm.
    """
    _check_folds(cases, n_arms, fold)
    several = cases.n_tasks > 1
    centred = several and not is_classifier(outcome[0])
    target = cases.y - _task_levels(cases, n_arms) if centred else cases.y
    centre = cases.task if several else None
    learn = partial(
        cross_fit, outcome, target=target, fold=fold, centre=centre, random_state=random_state
    )
    if joint:
        stack, _ = learn(np.column_stack([cases.x, np.eye(n_arms)[cases.arm][:, 1:]]))
        stacks: tuple[Stack, ...] = (stack,)
        by_fold = [stack.by_fold(_with_arm(cases.x, a, n_arms)) for a in range(n_arms)]
        mu = np.column_stack([values[fold, np.arange(cases.n_rows)] for values in by_fold])
    else:
        fits = [learn(cases.x, train=cases.arm == a) for a in range(n_arms)]
        stacks = tuple(stack for stack, _ in fits)
        mu = np.column_stack([values for _, values in fits])
    model: Stack | Array | None
    if cases.known is not None:
        model, e = None, cases.known
    elif isinstance(propensity, np.ndarray):
        model, e = propensity, np.tile(propensity, (cases.n_rows, 1))
    else:
        model, e = cross_fit(propensity, cases.x, cases.arm, fold, random_state=random_state)
        e = _all_arms(e)
    counts = np.bincount(cases.arm, minlength=n_arms)
    nuisances = Nuisances(
        outcome=stacks,
        propensity=model,
        levels=fit_arm_levels(mu, cases) if several else None,
        shifts=_fit_logit_shifts(e, cases) if several and isinstance(model, Stack) else None,
        noise=np.ones(n_arms),
        mean_propensity=counts / cases.n_rows,
        n_rows=cases.n_rows,
        n_arms=n_arms,
        clip=clip,
        bounded=cases.is_binary,
    )
    if nuisances.shifts is not None:
        e = nuisances.shifts.without_own_row(e, cases)
    adapted = nuisances.in_tasks(mu, e, cases)
    residual = cases.y - cases.of_arm(adapted.mu)
    noise = np.bincount(cases.arm, residual**2, minlength=n_arms) / counts
    floor = 1e-12 * max(float(np.mean(cases.y**2)), np.finfo(float).tiny)
    return replace(nuisances, noise=np.maximum(noise, floor)), adapted


def default_regressors() -> list[Any]:
    """Default outcome models: ridge regression and boosting, to be stacked."""
    return [
        RidgeCV(np.logspace(-2, 4, 13)),
        HistGradientBoostingRegressor(
            learning_rate=0.05, max_iter=150, max_leaf_nodes=12, early_stopping=False
        ),
    ]


def default_classifiers() -> list[Any]:
    """Default models of propensities and of binary outcomes."""
    return [
        LogisticRegression(max_iter=1000),
        HistGradientBoostingClassifier(
            learning_rate=0.05, max_iter=100, max_leaf_nodes=8, early_stopping=False
        ),
    ]


def _check_folds(cases: TreatedRows, n_arms: int, fold: Index) -> None:
    """Raise `DataError` unless every arm has two rows outside each fold."""
    n_folds = int(fold.max()) + 1
    inside = np.bincount(fold * n_arms + cases.arm, minlength=n_folds * n_arms)
    outside = np.bincount(cases.arm, minlength=n_arms) - inside.reshape(n_folds, n_arms)
    rare = np.flatnonzero((outside < 2).any(0))
    if len(rare):
        where = "tasks" if cases.n_tasks > 1 else "rows"
        raise DataError(
            f"arm {rare[0]} of {n_arms} (0 is the control) has fewer than 2 rows outside one of "
            f"the {n_folds} folds of {where}, so it cannot be learned from other {where}. Add rows "
            "of that arm from other tasks, or remove the arm."
        )


def _with_arm(x: Array, arm: int, n_arms: int) -> Array:
    return np.column_stack([x, np.tile(np.eye(n_arms)[arm, 1:], (len(x), 1))])


def _all_arms(e: Array) -> Array:
    """Propensities of all arms, (row, arm), also from those of the non-control arm, (row,)."""
    return np.column_stack([1 - e, e]) if e.ndim == 1 else e


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
