"""How effects are learned over tasks, adapted to tasks, and read: for every pair of arms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ehrmeta.errors import DataError
from ehrmeta.treatment.cases import Cases
from ehrmeta.treatment.deviations import Deviations, TaskDeviations, fit_deviations
from ehrmeta.treatment.dose_nuisances import TaskDoseNuisances
from ehrmeta.treatment.forms import EffectForm
from ehrmeta.treatment.learners import PseudoOutcomes
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.population import Population, fit_population

__all__ = ["Effects", "MixedEffects"]

Array = npt.NDArray[np.float64]
AnyTaskNuisances = TaskNuisances | TaskDoseNuisances


class Effects(ABC):
    """Effects of arms over one another at x, in tasks."""

    @abstractmethod
    def adapt(self, cases: Cases, nuisances: AnyTaskNuisances, *, trained: bool = False) -> Any:
        """What the rows of tasks say about their effects; no rows say nothing.

        `trained` says that they are the rows of the fit, scored by models of other folds.
        """

    @abstractmethod
    def contrast(
        self, cases: Cases, state: Any, zero: Array, one: Array
    ) -> tuple[Array, Array | None]:
        """Mean and variance of the effect of `one` over `zero` at the rows' x in their tasks.

        Both treatments are indicators of the arms without the control, (arm - 1,), or a dose,
        (1,) or (row, 1). The variance is None for learners that have no posterior of it.
        """

    @abstractmethod
    def average(
        self, cases: Cases, state: Any, zero: Array, one: Array
    ) -> tuple[float, float | None]:
        """Mean and variance of the effect averaged over the rows."""

    @abstractmethod
    def outcomes(
        self, cases: Cases, state: Any, given: Array, reference: tuple[Array, Array]
    ) -> tuple[Array, Array | None]:
        """Mean and variance of the mean outcome under a treatment, (row,) both.

        `reference` is the nuisances' mean outcome and the shares of the arms (or dose) it is for.
        """

    def support_weights(self, cases: Cases, state: Any, zero: Array, one: Array) -> pd.DataFrame:
        """Which support rows an effect rests on: `row`, `support_row` and `weight`."""
        raise DataError(
            "this model does not predict by weighing the support's rows. Pass "
            "estimator=MetaRegressor(MatchingNet())."
        )

    def quantile(self, level: float) -> float:
        """Quantile of the standardised error."""
        return float(stats.norm.ppf(level))


@dataclass(frozen=True, eq=False)
class MixedEffects(Effects):
    """A population's effects by pseudo-outcomes, and a mixed model of the tasks' deviations.

    Parameters
    ----------
    population : Population
    deviations : Deviations
    dof : float
        Of Student's t: tasks less one where they differ, else infinite.
    values : sequence of (row,) or None
        Cross-fitted values of every arm's form at the training rows.
    """

    population: Population
    deviations: Deviations
    dof: float
    values: Sequence[Array | None]

    @classmethod
    def fit(
        cls,
        cases: Cases,
        nuisances: AnyTaskNuisances,
        noise: Array,
        forms: Sequence[EffectForm],
        found: Sequence[PseudoOutcomes],
    ) -> MixedEffects:
        """Learn from the training tasks' cross-fitted nuisances."""
        population, pull = fit_population(cases, forms, found)
        return cls.over(population, pull, cases, nuisances, noise, [f.values for f in forms])

    @classmethod
    def over(
        cls,
        population: Population,
        pull: Array,
        cases: Cases,
        nuisances: AnyTaskNuisances,
        noise: Array,
        values: Sequence[Array | None],
    ) -> MixedEffects:
        """Estimate how the tasks deviate from a population's effects."""
        given = nuisances.given(cases)
        moved = _moved(population, cases, nuisances, values)
        residual = cases.y - nuisances.residual_offset - moved @ population.beta
        deviations = fit_deviations(cases, given, residual, noise)
        if deviations.variation == "none":
            return cls(population, deviations, np.inf, values)
        pull = pull[..., : deviations.width].reshape(*pull.shape[:2], -1)
        between = np.einsum("gcq,qr,gdr->cd", pull, deviations.prior_cov, pull)
        population = replace(population, cov=population.cov + between)
        return cls(population, deviations, float(cases.n_tasks - 1), values)

    def adapt(
        self, cases: Cases, nuisances: AnyTaskNuisances, *, trained: bool = False
    ) -> TaskDeviations:
        """Posterior of the tasks' deviations."""
        values = self.values if trained else [None] * len(self.values)
        moved = _moved(self.population, cases, nuisances, values)
        residual = cases.y - nuisances.residual_offset - moved @ self.population.beta
        return self.deviations.adapt(cases, nuisances.given(cases), residual, moved)

    def contrast(
        self, cases: Cases, state: TaskDeviations, zero: Array, one: Array
    ) -> tuple[Array, Array | None]:
        r"""Closed form: :math:`z'Cz + (d - A'z)' \mathrm{cov}(\hat\beta) (d - A'z)`.

        With the posterior covariance C and the gain A of the task: what is not known of the task,
        and of the population.
        """
        d, spread = self.population.contrast(cases.x, one - zero)
        return self._read(d, self.deviations.design(cases.x, one - zero), spread, cases, state)

    def outcomes(
        self, cases: Cases, state: TaskDeviations, given: Array, reference: tuple[Array, Array]
    ) -> tuple[Array, Array | None]:
        """Level and effects of the task; the variance leaves out that of the outcome models."""
        m, share = reference
        d, spread = self.population.contrast(cases.x, given - share)
        z = self.deviations.design(cases.x, given, level=True)
        mean, variance = self._read(d, z, spread, cases, state)
        return m + mean, variance

    def average(
        self, cases: Cases, state: TaskDeviations, zero: Array, one: Array
    ) -> tuple[float, float | None]:
        """The same, with what rows of a task have in common."""
        d, spread = self.population.contrast(cases.x, one - zero)
        z, n = self.deviations.design(cases.x, one - zero), cases.n_rows
        sums = np.zeros((len(state.mean), z.shape[1]))
        np.add.at(sums, cases.task, z)
        mean = d.mean(0) @ self.population.beta + np.sum(sums * state.mean) / n
        away = d.mean(0) - np.einsum("gq,gqc->c", sums, state.gain) / n
        own = np.einsum("gq,gqr,gr->", sums, state.cov, sums) / n**2
        variance = own + away @ self.population.cov @ away + np.sqrt(spread).mean() ** 2
        return float(mean), float(variance)

    def quantile(self, level: float) -> float:
        """Of Student's t."""
        return float(stats.t.ppf(level, self.dof))

    def _read(
        self, d: Array, z: Array, spread: Array, cases: Cases, state: TaskDeviations
    ) -> tuple[Array, Array]:
        """Mean and variance of ``d'beta + z'b`` of every row."""
        mean = d @ self.population.beta + np.einsum("nq,nq->n", z, state.mean[cases.task])
        away = d - np.einsum("nq,nqc->nc", z, state.gain[cases.task])
        own = np.einsum("nq,nqr,nr->n", z, state.cov[cases.task], z)
        return mean, own + np.einsum("nc,cd,nd->n", away, self.population.cov, away) + spread


def _moved(
    population: Population,
    cases: Cases,
    nuisances: AnyTaskNuisances,
    values: Sequence[Array | None],
) -> Array:
    """``(1{t=a} - e_a) D_a`` of all arms, (row, coefficient)."""
    away = nuisances.away(cases)
    return np.column_stack(
        [
            away[:, [k]] * arm.design(cases.x, f)
            for k, (arm, f) in enumerate(zip(population.arms, values, strict=True))
        ]
    )
