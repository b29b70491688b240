"""Levels of the tasks: how far a task's outcome in each arm lies from what the population says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ehrmeta.nn.mixed_model import MixedModel, fit_mixed_model, posterior
from ehrmeta.treatment.cases import Cases

__all__ = ["ArmLevels", "fit_arm_levels", "task_levels"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ArmLevels:
    r"""Prior of the arms' levels in a task: ``residual = beta_a + b_a + e``, ``b ~ N(0, G)``.

    G holds how strongly the levels of two arms go together over tasks: what a task that was seen
    in one arm only still says about the other.

    Parameters
    ----------
    model : MixedModel
        Of the residuals of the population's outcome models.
    """

    model: MixedModel

    def adapt(self, mu: Array, cases: Cases) -> tuple[Array, Array]:
        """Posterior of every task's levels: mean (task, arm), covariance (task, arm, arm)."""
        n_arms = mu.shape[1]
        order = np.argsort(cases.task, kind="stable")
        hot = np.eye(n_arms)[cases.arm[order]]
        residual = (cases.y - _given(mu, cases))[order]
        starts = np.concatenate([[0], np.cumsum(np.bincount(cases.task, minlength=cases.n_tasks))])
        mean, cov = posterior(self.model, hot, hot, residual, starts)
        return mean + self.model.beta, cov

    def without_own_row(self, mu: Array, cases: Cases, mean: Array, cov: Array) -> Array:
        r"""Outcomes (row, arm) at the levels that the task's *other* rows give.

        .. math:: b_{-i} = b - C z_i \frac{r_i - z_i'b}{\sigma^2 - z_i' C z_i}
        """
        own = np.arange(cases.n_rows), cases.arm
        to_arms = cov[cases.task, :, cases.arm]  # (row, arm)
        residual = cases.y - _given(mu, cases) - mean[cases.task, cases.arm]
        left = self.model.noise_var - to_arms[own]
        shift = mean[cases.task] - to_arms * (residual / left)[:, None]
        return np.asarray(mu + shift)


def fit_arm_levels(mu: Array, cases: Cases) -> ArmLevels:
    """Estimate the prior from cross-fitted outcomes `mu` (row, arm) of the training tasks."""
    order = np.argsort(cases.task, kind="stable")
    hot = np.eye(mu.shape[1])[cases.arm[order]]
    starts = np.concatenate([[0], np.cumsum(np.bincount(cases.task, minlength=cases.n_tasks))])
    residual = (cases.y - _given(mu, cases))[order]
    return ArmLevels(fit_mixed_model(hot, hot, residual, starts))


def task_levels(cases: Cases, n_arms: int) -> Array:
    """How much the level of each row's task lies above the others', (row,), at equal x and arm.

    Outcome models are trained on what is left, so that tasks which treat more and also fare better
    do not pass for an effect.
    """
    order = np.argsort(cases.task, kind="stable")
    arms = np.eye(n_arms)[cases.arm]
    design = np.column_stack([arms, cases.x])[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(cases.task, minlength=cases.n_tasks))])
    one = np.ones((cases.n_rows, 1))
    model = fit_mixed_model(design, one, cases.y[order], starts)
    mean, _ = posterior(model, design, one, cases.y[order], starts)
    return np.asarray(mean[cases.task, 0])


def _given(mu: Array, cases: Cases) -> Array:
    """What is expected in the arm that was given, (row,)."""
    return np.asarray(mu[np.arange(cases.n_rows), cases.arm])
