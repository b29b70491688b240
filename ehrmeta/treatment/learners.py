r"""Pseudo-outcomes: numbers whose regression on x is the effect of one arm over another.

With outcome models :math:`\mu_a(x)`, propensities :math:`e_a(x)` and the arm given, t:

DR: :math:`\psi = \Gamma_1 - \Gamma_0` with :math:`\Gamma_a = \mu_a + 1\{t=a\}(y-\mu_a)/e_a`, of
variance :math:`\sigma_1^2/e_1 + \sigma_0^2/e_0`.
R: :math:`\psi = (y - m) / (1\{t=1\} - e)` with :math:`m = e\mu_1 + (1-e)\mu_0`, of variance
:math:`\sigma_t^2 / (1\{t=1\} - e)^2`.
X: :math:`\psi = y - \mu_0` where treated and :math:`\mu_1 - y` where not, with the weights
:math:`1 - e` and :math:`e`.

R and X take the rows of the two arms only, with :math:`e = e_1 / (e_0 + e_1)`. The S- and the
T-learner have none: their effect is :math:`\mu_1 - \mu_0` itself.

References
----------
Kuenzel et al. (2019), doi:10.1073/pnas.1804597116 (S, T, X); Nie and Wager (2021),
doi:10.1093/biomet/asaa076 (R); Kennedy (2023), doi:10.1214/23-EJS2157 (DR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ehrmeta.treatment.cases import Cases
from ehrmeta.treatment.dose_nuisances import TaskDoseNuisances, rows_of_varied_dose
from ehrmeta.treatment.nuisances import TaskNuisances

__all__ = [
    "LEARNERS",
    "PSEUDO_LEARNERS",
    "PseudoOutcomes",
    "Scoring",
    "arm_scores",
    "dose_pseudo_outcomes",
    "pseudo_outcomes",
    "usable_rows",
]

Array = npt.NDArray[np.float64]

_SMALLEST_RESIDUAL = 1e-3  # of a dose, in its standard deviations: smaller ones have no weight

PSEUDO_LEARNERS = ("dr", "r", "x")
LEARNERS = ("s", "t", *PSEUDO_LEARNERS)


class PseudoOutcomes(NamedTuple):
    """Pseudo-outcomes of some rows.

    Parameters
    ----------
    rows : (n,)
        Which rows they belong to.
    psi : (n,)
    variance : (n,)
        Given x (for R and X also the arm): its inverse is the row's weight.
    """

    rows: npt.NDArray[np.int64]
    psi: Array
    variance: Array


@dataclass(frozen=True, eq=False)
class Scoring:
    """How rows become pseudo-outcomes, one set an arm without the control.

    Parameters
    ----------
    learner : {"dr", "r", "x"}
    noise : (arm,), or (1,) for a dose
        Variance of the outcome.
    """

    learner: str
    noise: Array

    def __call__(
        self, cases: Cases, nuisances: TaskNuisances | TaskDoseNuisances
    ) -> list[PseudoOutcomes]:
        """Pseudo-outcomes of every arm over the control, or of a unit of the dose."""
        if isinstance(nuisances, TaskDoseNuisances):
            return [dose_pseudo_outcomes(cases, nuisances, self.noise)]
        return [self.pair(cases, nuisances, (0, arm)) for arm in range(1, len(self.noise))]

    def pair(self, cases: Cases, nuisances: TaskNuisances, pair: tuple[int, int]) -> PseudoOutcomes:
        """Pseudo-outcomes of the second arm of a pair over the first."""
        return pseudo_outcomes(self.learner, cases, nuisances, self.noise, pair)


def arm_scores(cases: Cases, nuisances: TaskNuisances) -> Array:
    """Doubly robust scores of every arm, (row, arm): their mean is the arm's mean outcome."""
    given = np.arange(cases.n_rows), cases.arm
    scores = nuisances.mu.copy()
    scores[given] += (cases.y - nuisances.mu[given]) / nuisances.e[given]
    return scores


def pseudo_outcomes(
    learner: str,
    cases: Cases,
    nuisances: TaskNuisances,
    noise: Array,
    pair: tuple[int, int],
) -> PseudoOutcomes:
    """Pseudo-outcomes of a learner for the effect of ``pair[1]`` over ``pair[0]``.

    Tasks that were seen in one of the two arms only have none.

    Parameters
    ----------
    learner : {"dr", "r", "x"}
    noise : (arm,)
        Variance of the outcome in each arm.
    """
    zero, one = pair
    e, usable = nuisances.e, usable_rows(cases, pair, len(noise))
    if learner == "dr":
        scores = arm_scores(cases, nuisances)
        rows = np.flatnonzero(usable)
        variance = noise[one] / e[:, one] + noise[zero] / e[:, zero]
        return PseudoOutcomes(rows, (scores[:, one] - scores[:, zero])[rows], variance[rows])
    rows = np.flatnonzero(usable & ((cases.arm == zero) | (cases.arm == one)))
    y, treated = cases.y[rows], cases.arm[rows] == one
    mu0, mu1 = nuisances.mu[rows, zero], nuisances.mu[rows, one]
    p = e[rows, one] / (e[rows, zero] + e[rows, one])
    own_noise = np.where(treated, noise[one], noise[zero])
    if learner == "x":
        psi = np.where(treated, y - mu0, mu1 - y)
        return PseudoOutcomes(rows, psi, own_noise / np.where(treated, 1 - p, p))
    away = treated - p
    psi = (y - p * mu1 - (1 - p) * mu0) / away
    return PseudoOutcomes(rows, psi, own_noise / away**2)


def usable_rows(cases: Cases, pair: tuple[int, int], n_arms: int) -> npt.NDArray[np.bool_]:
    """Rows of tasks that were seen in both arms: the others say nothing of the effect there."""
    both = np.asarray((cases.counts(n_arms)[:, list(pair)] > 0).all(axis=1))
    usable: npt.NDArray[np.bool_] = both[cases.task]
    return usable


def dose_pseudo_outcomes(
    cases: Cases, nuisances: TaskDoseNuisances, noise: Array
) -> PseudoOutcomes:
    """The R-learner's for the effect of one unit of the dose."""
    away = cases.arm - nuisances.dose
    large = np.abs(away) > _SMALLEST_RESIDUAL * np.std(cases.arm)
    rows = np.flatnonzero(large & rows_of_varied_dose(cases))
    away = away[rows]
    return PseudoOutcomes(rows, (cases.y - nuisances.m)[rows] / away, noise[0] / away**2)
