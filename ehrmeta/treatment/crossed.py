r"""The X-learner's two regressions: each arm's imputed effects, weighted by who has few rows.

.. math:: \tau(x) = e(x)\, \tau_0(x) + (1 - e(x))\, \tau_1(x)

with :math:`\tau_1` the regression of :math:`y - \mu_0(x)` over the treated and :math:`\tau_0` that
of :math:`\mu_1(x) - y` over the others: where few are treated, the effects imputed for them, which
rest on many controls, count most.

References
----------
Kuenzel et al. (2019), doi:10.1073/pnas.1804597116.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.treatment.cases import Cases
from ehrmeta.treatment.learners import pseudo_outcomes
from ehrmeta.treatment.nuisances import Nuisances, TaskNuisances
from ehrmeta.treatment.stacking import Stack, fit_model, model_outputs

__all__ = ["CrossedEffect", "fit_crossed"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CrossedEffect:
    """Both regressions of one arm's effect over the control, as a `Stack` predicts.

    Parameters
    ----------
    zero, one : Stack
        Of the effects imputed for the control's rows, and for the arm's.
    nuisances : Nuisances
        With the propensities that weigh them.
    arm : int
    """

    zero: Stack
    one: Stack
    nuisances: Nuisances
    arm: int

    def predict(self, x: Array) -> Array:
        """Mean over the folds' models, (row,)."""
        return np.asarray(self.by_fold(x).mean(0))

    def by_fold(self, x: Array) -> Array:
        """What each fold's models say, (fold, row)."""
        p = _share(self.nuisances.propensities(x), self.arm)
        return np.asarray(p * self.zero.by_fold(x) + (1 - p) * self.one.by_fold(x))


def fit_crossed(
    model: Any,
    cases: Cases,
    nuisances: Nuisances,
    adapted: TaskNuisances,
    arm: int,
    fold: npt.NDArray[np.int64],
    *,
    random_state: int = 0,
) -> tuple[CrossedEffect, Array]:
    """Cross-fit both regressions; the effect and its values at all rows, (row,).

    A fold's values rest on no outcome of its rows: neither the regressions nor the outcome models
    that impute have seen them. No imputed effect rests on its own row either, as an arm's outcome
    model learns from the rows of that arm.
    """
    zero: list[tuple[Any]] = []
    one: list[tuple[Any]] = []
    values = np.empty(cases.n_rows)
    for k, mu in enumerate(nuisances.by_fold(cases.x)):
        imputed = nuisances.with_outcomes(mu, adapted.e, cases)
        rows, psi, _ = pseudo_outcomes("x", cases, imputed, nuisances.noise, (0, arm))
        for side, models in ((0, zero), (arm, one)):
            own = (fold[rows] != k) & (cases.arm[rows] == side)
            x, target = cases.x[rows[own]], psi[own]
            models.append((fit_model(model, x, target, np.ones(len(x)), random_state),))
        inside = fold == k
        at_zero, at_one = (model_outputs(models[-1][0], cases.x[inside]) for models in (zero, one))
        p = _share(adapted.e[inside], arm)
        values[inside] = p * at_zero + (1 - p) * at_one
    weight = np.ones(1)
    effect = CrossedEffect(Stack(tuple(zero), weight), Stack(tuple(one), weight), nuisances, arm)
    return effect, values


def _share(e: Array, arm: int) -> Array:
    """Propensity of the arm among it and the control, (row,)."""
    return np.asarray(e[:, arm] / (e[:, 0] + e[:, arm]))
