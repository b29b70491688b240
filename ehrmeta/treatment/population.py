r"""The population's effects: pseudo-outcomes on features, one regression an arm.

.. math:: \hat\beta_a = (D_a' W_a D_a)^{-1} D_a' W_a \psi_a

with the inverse variances of the pseudo-outcomes as weights and designs D: a constant, the
features, or a constant and the cross-fitted predictions of any regressor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError
from ehrmeta.nn.mixed_model import cross_products, orthonormal
from ehrmeta.treatment.cases import Cases
from ehrmeta.treatment.crossed import CrossedEffect
from ehrmeta.treatment.forms import EffectForm
from ehrmeta.treatment.learners import PseudoOutcomes
from ehrmeta.treatment.nuisances import Nuisances
from ehrmeta.treatment.stacking import Stack

__all__ = ["ArmEffect", "OutcomeContrast", "Population", "fit_population", "outcome_population"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OutcomeContrast:
    """Difference of the outcome models of an arm and of the control, as a `Stack` predicts."""

    nuisances: Nuisances
    arm: int

    def predict(self, x: Array) -> Array:
        """Mean over the folds' models, (row,)."""
        return np.asarray(self.by_fold(x).mean(0))

    def by_fold(self, x: Array) -> Array:
        """What each fold's models say, (fold, row)."""
        outcomes = self.nuisances.by_fold(x)
        return outcomes[:, :, self.arm] - outcomes[:, :, 0]


@dataclass(frozen=True, eq=False)
class ArmEffect:
    """Form and coefficients of one arm's effect over the control.

    Parameters
    ----------
    form : str
        "constant", "linear", or what `stack` was made of.
    beta : (column,)
    stack : Stack, optional
        Models of a form that is neither constant nor linear.
    """

    form: str
    beta: Array
    stack: Stack | CrossedEffect | OutcomeContrast | None = None

    def design(self, x: Array, f: Array | None = None) -> Array:
        """Columns of D, (row, column); `f` in place of what the stack predicts."""
        one = np.ones((len(x), 1))
        if self.stack is not None:
            return np.column_stack([one, self.stack.predict(x) if f is None else f])
        return np.column_stack([one, x]) if self.form == "linear" else one


@dataclass(frozen=True, eq=False)
class Population:
    """Effects of all arms over the control.

    Parameters
    ----------
    arms : tuple of ArmEffect
        One an arm without the control.
    cov : (coefficient, coefficient)
        Of the coefficients of all arms in turn.
    """

    arms: tuple[ArmEffect, ...]
    cov: Array

    @property
    def beta(self) -> Array:
        """Coefficients of all arms in turn, (coefficient,)."""
        return np.concatenate([arm.beta for arm in self.arms])

    def predict(self, x: Array) -> Array:
        """Effect of every arm over the control, (row, arm - 1)."""
        return np.column_stack([arm.design(x) @ arm.beta for arm in self.arms])

    def contrast(self, x: Array, signs: Array) -> tuple[Array, Array]:
        """Coefficients' design of a contrast of arms, and what the models' folds disagree on.

        Parameters
        ----------
        signs : (arm - 1,) or (row, arm - 1)
            Of the arms in the contrast.

        Returns
        -------
        design : (row, coefficient)
        variance : (row,)
            Jackknife over the folds of the stacks.
        """
        columns = np.broadcast_to(signs, (len(x), len(self.arms))).T
        both = list(zip(columns, self.arms, strict=True))
        design = np.column_stack([s[:, None] * arm.design(x) for s, arm in both])
        by_fold = [
            s * arm.beta[1] * arm.stack.by_fold(x) for s, arm in both if arm.stack is not None
        ]
        if not by_fold:
            return design, np.zeros(len(x))
        total = np.sum(by_fold, axis=0)
        return design, np.asarray((len(total) - 1) * total.var(0))


def outcome_population(nuisances: Nuisances, cases: Cases) -> tuple[Population, Array]:
    """The S- and the T-learner: differences of the outcome models, as `fit_population`'s."""
    arms = tuple(
        ArmEffect("outcomes", np.array([0.0, 1.0]), OutcomeContrast(nuisances, arm))
        for arm in range(1, nuisances.n_arms)
    )
    pull = np.zeros((cases.n_tasks, 2 * len(arms), len(arms), 1 + cases.x.shape[1]))
    return Population(arms, np.zeros((2 * len(arms), 2 * len(arms)))), pull


def fit_population(
    cases: Cases, forms: Sequence[EffectForm], found: Sequence[PseudoOutcomes]
) -> tuple[Population, Array]:
    """Weighted least squares of every arm, with a covariance that assumes no variances.

    Parameters
    ----------
    forms : sequence of EffectForm
        One an arm without the control.
    found : sequence of PseudoOutcomes
        Likewise.

    Returns
    -------
    population : Population
        As if tasks did not differ.
    pull : (task, coefficient, arm - 1, effect)
        How the coefficients move with every task's deviation from the effects, ``[1, x]``.
    """
    arms, scores, pulls = [], [], []
    n_effects = len(forms)
    for at, (form, own) in enumerate(zip(forms, found, strict=True)):
        rows = cases.take(own.rows)
        shape = ArmEffect(form.name, np.empty(0), form.stack)
        d = shape.design(rows.x, None if form.values is None else form.values[own.rows])
        root = 1.0 / np.sqrt(own.variance)
        unit, back, _ = orthonormal(root[:, None] * d)
        n, p = unit.shape
        if n <= p:
            raise DataError(
                f"{n} rows cannot estimate {p} coefficients of an effect. Give more rows, fewer "
                "features, or final='constant'."
            )
        beta = unit.T @ (root * own.psi) / n
        residual = root * own.psi - unit @ beta
        score = np.zeros((cases.n_rows, d.shape[1]))
        score[own.rows] = (unit * residual[:, None]) @ back.T / n * np.sqrt(n / (n - p))
        moved = (unit * root[:, None]) @ back.T / n  # (row, column): d beta / d psi
        z = np.column_stack([np.ones(n), rows.x])
        pull = np.zeros((cases.n_tasks, d.shape[1], n_effects, z.shape[1]))
        order = np.argsort(rows.task, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows.task, minlength=cases.n_tasks))])
        pull[:, :, at] = cross_products(moved[order], z[order], starts)
        arms.append(ArmEffect(form.name, back @ beta, form.stack))
        scores.append(score)
        pulls.append(pull)
    together = np.column_stack(scores)
    return Population(tuple(arms), together.T @ together), np.concatenate(pulls, axis=1)
