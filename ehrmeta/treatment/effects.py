r"""Effects of arms or of a dose: estimated over tasks, adapted to tasks, and predicted.

The population's effects are regressions of pseudo-outcomes on features, one per arm:

.. math:: \hat\beta_a = (D_a' W_a D_a)^{-1} D_a' W_a \psi_a

The weights W are the inverse variances of the pseudo-outcomes. The design D is a constant; a
constant and the features; or a constant and the cross-fitted predictions of any regressor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ehrmeta.errors import DataError
from ehrmeta.nn.mixed_model import cross_products, orthonormal
from ehrmeta.ranges import check_level
from ehrmeta.treatment.arms import Array
from ehrmeta.treatment.cross_fitting import CrossFitted
from ehrmeta.treatment.deviations import Deviations, TaskDeviations, fit_deviations
from ehrmeta.treatment.learners import EffectForm, PseudoOutcomes
from ehrmeta.treatment.nuisances import Nuisances, TaskDoseNuisances, TaskNuisances
from ehrmeta.treatment.treated_rows import TreatedRows

AnyTaskNuisances = TaskNuisances | TaskDoseNuisances
# mean and variance of each row; the variance is None without a posterior
Moments = tuple[Array, Array | None]


@dataclass(frozen=True, eq=False)
class OutcomeContrast(CrossFitted):
    """Outcome model of an arm minus that of the control."""

    nuisances: Nuisances
    arm: int

    def by_fold(self, x: Array) -> Array:
        """Predictions of each fold's models, (fold, row)."""
        outcomes = self.nuisances.by_fold(x)
        return outcomes[:, :, self.arm] - outcomes[:, :, 0]


@dataclass(frozen=True, eq=False)
class ArmEffect:
    """Form and coefficients of one arm's effect over the control."""

    form: str  # "constant", "linear", or the name of the model in `stack`
    beta: Array  # (column,)
    stack: CrossFitted | None = None  # None for constant and linear forms

    def design(self, x: Array, f: Array | None = None) -> Array:
        """Columns of D, (row, column); `f` replaces the stack's predictions."""
        one = np.ones((len(x), 1))
        if self.stack is not None:
            return np.column_stack([one, self.stack.predict(x) if f is None else f])
        return np.column_stack([one, x]) if self.form == "linear" else one


@dataclass(frozen=True, eq=False)
class Population:
    """Effects of all arms over the control."""

    arms: tuple[ArmEffect, ...]  # the non-control arms
    cov: Array  # (coefficient, coefficient): of `beta`

    @property
    def beta(self) -> Array:
        """Concatenated coefficients of all arms, (coefficient,)."""
        return np.concatenate([arm.beta for arm in self.arms])

    def predict(self, x: Array) -> Array:
        """Effect of every arm over the control, (row, arm - 1)."""
        return np.column_stack([arm.design(x) @ arm.beta for arm in self.arms])

    def contrast(self, x: Array, signs: Array) -> tuple[Array, Array]:
        """Design of a contrast, (row, coefficient), and the stacks' jackknife variance, (row,).

        `signs` are the factors of the arms in the contrast, (n_arms - 1,) or (row, n_arms - 1); the
        jackknife is over the folds of the stacks.
        """
        columns = np.broadcast_to(signs, (len(x), len(self.arms))).T
        signed_arms = list(zip(columns, self.arms, strict=True))
        design = np.column_stack([s[:, None] * arm.design(x) for s, arm in signed_arms])
        by_fold = [
            s * arm.beta[1] * arm.stack.by_fold(x)
            for s, arm in signed_arms
            if arm.stack is not None
        ]
        if not by_fold:
            return design, np.zeros(len(x))
        total = np.sum(by_fold, axis=0)
        return design, np.asarray((len(total) - 1) * total.var(0))


def outcome_population(nuisances: Nuisances, cases: TreatedRows) -> tuple[Population, Array]:
    """Population effects of the S- and T-learners: differences between outcome models.

    Returns the same kinds of values as `fit_population`.
    """
    arms = tuple(
        ArmEffect("outcomes", np.array([0.0, 1.0]), OutcomeContrast(nuisances, arm))
        for arm in range(1, nuisances.n_arms)
    )
    pull = np.zeros((cases.n_tasks, 2 * len(arms), len(arms), 1 + cases.x.shape[1]))
    return Population(arms, np.zeros((2 * len(arms), 2 * len(arms)))), pull


def fit_population(
    cases: TreatedRows, forms: Sequence[EffectForm], pseudo: Sequence[PseudoOutcomes]
) -> tuple[Population, Array]:
    """Weighted least squares of every arm, with a heteroscedasticity-robust covariance.

    Parameters
    ----------
    forms, pseudo : sequence of EffectForm, of PseudoOutcomes
        One per non-control arm.

    Returns
    -------
    population : Population
        Its covariance ignores variation over tasks.
    pull : (task, coefficient, arm - 1, effect)
        Derivative of the coefficients with respect to each task's deviations, whose design is
        ``[1, x]``.
    """
    arms, scores, pulls = [], [], []
    n_effects = len(forms)
    for at, (form, scored) in enumerate(zip(forms, pseudo, strict=True)):
        rows = cases.take(scored.rows)
        shape = ArmEffect(form.name, np.empty(0), form.stack)
        d = shape.design(rows.x, None if form.values is None else form.values[scored.rows])
        root = 1.0 / np.sqrt(scored.variance)
        unit, back, _ = orthonormal(root[:, None] * d)
        n, p = unit.shape
        if n <= p:
            raise DataError(
                f"{n} rows are too few for an effect with {p} coefficients. Pass more rows or "
                "fewer features, or set final='constant'."
            )
        beta = unit.T @ (root * scored.psi) / n
        residual = root * scored.psi - unit @ beta
        score = np.zeros((cases.n_rows, d.shape[1]))
        score[scored.rows] = (unit * residual[:, None]) @ back.T / n * np.sqrt(n / (n - p))
        influence = (unit * root[:, None]) @ back.T / n  # (row, column): d beta / d psi
        z = np.column_stack([np.ones(n), rows.x])
        pull = np.zeros((cases.n_tasks, d.shape[1], n_effects, z.shape[1]))
        order, starts = rows.by_task
        pull[:, :, at] = cross_products(influence[order], z[order], starts)
        arms.append(ArmEffect(form.name, back @ beta, form.stack))
        scores.append(score)
        pulls.append(pull)
    together = np.column_stack(scores)
    return Population(tuple(arms), together.T @ together), np.concatenate(pulls, axis=1)


class Effects(ABC):
    """Effects of arms or of a dose, given the features and the task."""

    @abstractmethod
    def adapt(self, cases: TreatedRows, nuisances: AnyTaskNuisances) -> Any:
        """State of the tasks' effects given their rows; without rows, the prior."""

    @abstractmethod
    def contrast(self, cases: TreatedRows, state: Any, zero: Array, one: Array) -> Moments:
        """Mean and variance of the effect of `one` over `zero` for each row in its task.

        Both treatments are indicators of the non-control arms, (n_arms - 1,), or a dose, (1,) or
        (row, 1). The variance is None for learners without a posterior.
        """

    @abstractmethod
    def average(
        self, cases: TreatedRows, state: Any, zero: Array, one: Array
    ) -> tuple[float, float | None]:
        """Mean and variance of the effect averaged over the rows."""

    @abstractmethod
    def outcomes(
        self, cases: TreatedRows, state: Any, given: Array, reference: tuple[Array, Array]
    ) -> Moments:
        """Mean and variance of the mean outcome under a treatment, (row,) each.

        `reference` is the mean outcome of the nuisance models, and the arms' shares (or the dose)
        at which it is the mean.
        """

    def support_weights(
        self, cases: TreatedRows, state: Any, zero: Array, one: Array
    ) -> pd.DataFrame:
        """Attention weights of an effect: `row`, `support_row` and `weight`."""
        raise DataError(
            "this model has no attention weights. Fit it with "
            "estimator=MetaRegressor(MatchingNet())."
        )

    def interval(self, mean: Any, variance: Any, confidence_level: float) -> Array:
        """Interval for effects: mean ± quantile x sd, (..., 2).

        Raises
        ------
        DataError
            The effects have no posterior, or the level is invalid.
        """
        level = 0.5 + 0.5 * check_level(confidence_level)
        if variance is None:
            raise DataError(
                "effects fitted with estimator= have no posterior, so intervals are not "
                "available. Use estimator=None, which fits the mixed model."
            )
        half_width = self.quantile(level) * np.sqrt(variance)
        return np.stack([mean - half_width, mean + half_width], axis=-1)

    def quantile(self, level: float) -> float:
        """Quantile of (estimate - effect) / sd."""
        return float(stats.norm.ppf(level))


@dataclass(frozen=True, eq=False)
class MixedEffects(Effects):
    """Population effects from pseudo-outcomes, and a mixed model of the tasks' deviations."""

    population: Population
    deviations: Deviations
    dof: float  # of Student's t: number of tasks minus 1 if effects vary over tasks, else infinite

    @classmethod
    def fit(
        cls,
        population: Population,
        pull: Array,
        cases: TreatedRows,
        nuisances: AnyTaskNuisances,
        noise: Array,
        values: Sequence[Array | None],
    ) -> tuple[MixedEffects, TaskDeviations]:
        """Estimate the tasks' deviations from the population's effects, and adapt to the tasks.

        `values` are cross-fitted predictions of every arm's form at the training rows.
        """
        given = nuisances.given(cases)
        design = _residual_design(population, cases, nuisances, values)
        residual = cases.y - nuisances.residual_offset - design @ population.beta
        deviations = fit_deviations(cases, given, residual, noise)
        state = deviations.adapt(cases, given, residual, design)
        if deviations.variation == "none":
            return cls(population, deviations, np.inf), state
        pull = pull[..., : deviations.width].reshape(*pull.shape[:2], -1)
        between = np.einsum("gcq,qr,gdr->cd", pull, deviations.prior_cov, pull)
        population = replace(population, cov=population.cov + between)
        return cls(population, deviations, float(cases.n_tasks - 1)), state

    def adapt(self, cases: TreatedRows, nuisances: AnyTaskNuisances) -> TaskDeviations:
        """Posterior of the tasks' deviations."""
        no_values = [None] * len(self.population.arms)
        design = _residual_design(self.population, cases, nuisances, no_values)
        residual = cases.y - nuisances.residual_offset - design @ self.population.beta
        return self.deviations.adapt(cases, nuisances.given(cases), residual, design)

    def contrast(
        self, cases: TreatedRows, state: TaskDeviations, zero: Array, one: Array
    ) -> Moments:
        r"""Mean and variance of the effect in closed form.

        The variance is :math:`z'Cz + (d - A'z)' \mathrm{cov}(\hat\beta) (d - A'z)` with C the
        posterior covariance and A the gain of the task: the first term is the uncertainty of the
        task's deviations, the second that of the population's coefficients.
        """
        d, spread = self.population.contrast(cases.x, one - zero)
        return self._moments(d, self.deviations.design(cases.x, one - zero), spread, cases, state)

    def outcomes(
        self,
        cases: TreatedRows,
        state: TaskDeviations,
        given: Array,
        reference: tuple[Array, Array],
    ) -> Moments:
        """Outcomes from the task's level and effects, without the outcome models' variance."""
        m, share = reference
        d, spread = self.population.contrast(cases.x, given - share)
        z = self.deviations.design(cases.x, given, level=True)
        mean, variance = self._moments(d, z, spread, cases, state)
        return m + mean, variance

    def average(
        self, cases: TreatedRows, state: TaskDeviations, zero: Array, one: Array
    ) -> tuple[float, float | None]:
        """Mean and variance in closed form, with the covariance between rows of a task."""
        d, spread = self.population.contrast(cases.x, one - zero)
        z, n = self.deviations.design(cases.x, one - zero), cases.n_rows
        sums = np.zeros((len(state.mean), z.shape[1]))
        np.add.at(sums, cases.task, z)
        mean = d.mean(0) @ self.population.beta + np.sum(sums * state.mean) / n
        beta_design = d.mean(0) - np.einsum("gq,gqc->c", sums, state.gain) / n
        of_tasks = np.einsum("gq,gqr,gr->", sums, state.cov, sums) / n**2
        of_population = beta_design @ self.population.cov @ beta_design
        variance = of_tasks + of_population + np.sqrt(spread).mean() ** 2
        return float(mean), float(variance)

    def quantile(self, level: float) -> float:
        """Quantile of Student's t."""
        return float(stats.t.ppf(level, self.dof))

    def _moments(
        self, d: Array, z: Array, spread: Array, cases: TreatedRows, state: TaskDeviations
    ) -> tuple[Array, Array]:
        """Mean and variance of ``d'beta + z'b`` of every row."""
        mean = d @ self.population.beta + np.einsum("nq,nq->n", z, state.mean[cases.task])
        beta_design = d - np.einsum("nq,nqc->nc", z, state.gain[cases.task])
        of_tasks = np.einsum("nq,nqr,nr->n", z, state.cov[cases.task], z)
        of_population = np.einsum("nc,cd,nd->n", beta_design, self.population.cov, beta_design)
        return mean, of_tasks + of_population + spread


def _residual_design(
    population: Population,
    cases: TreatedRows,
    nuisances: AnyTaskNuisances,
    values: Sequence[Array | None],
) -> Array:
    """``(1{t=a} - e_a) D_a`` of all arms, (row, coefficient)."""
    residual = nuisances.residual(cases)
    return np.column_stack(
        [
            residual[:, [k]] * arm.design(cases.x, f)
            for k, (arm, f) in enumerate(zip(population.arms, values, strict=True))
        ]
    )
