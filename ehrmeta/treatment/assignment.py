"""Propensities of a task: the population's, with log-odds shifted by the task's own rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from ehrmeta.treatment.cases import Cases

__all__ = ["LogitShifts", "clip_propensity", "fit_logit_shifts"]

Array = npt.NDArray[np.float64]

_NEWTON_STEPS = 25
_SMALLEST = 1e-6  # of a probability before its logarithm
_SD_RANGE = (1e-3, 10.0)


@dataclass(frozen=True)
class LogitShifts:
    r"""``e_task(x) = softmax(log e(x) + c)`` with ``c ~ N(0, sd^2 I)`` for every task.

    Parameters
    ----------
    sd : float
        Estimated over the training tasks; 0 leaves the propensities as they are.
    """

    sd: float

    def adapt(self, e: Array, cases: Cases) -> tuple[Array, Array]:
        """Mode (task, arm) and curvature (task, arm, arm) of every task's shift."""
        mode, curvature, _ = _laplace(np.log(np.maximum(e, _SMALLEST)), cases, self.sd)
        return mode, curvature

    def without_own_row(self, e: Array, cases: Cases, mode: Array, curvature: Array) -> Array:
        """Propensities (row, arm) at the shift that the task's other rows give, to one step."""
        logits = np.log(np.maximum(e, _SMALLEST))
        p = softmax(logits + mode[cases.task], axis=1)
        own = np.eye(p.shape[1])[cases.arm] - p
        less = curvature[cases.task] - _information(p)
        shift = mode[cases.task] - np.linalg.solve(less, own[..., None])[..., 0]
        return np.asarray(softmax(logits + shift, axis=1))

    def shifted(self, e: Array, shift: Array) -> Array:
        """Propensities (row, arm) of rows whose task has this shift, (row, arm)."""
        return np.asarray(softmax(np.log(np.maximum(e, _SMALLEST)) + shift, axis=1))


def fit_logit_shifts(e: Array, cases: Cases) -> LogitShifts:
    """Estimate the spread of the shifts by Laplace's approximation of their likelihood."""
    logits = np.log(np.maximum(e, _SMALLEST))
    low, high = np.log(_SD_RANGE)
    found = minimize_scalar(
        lambda log_sd: -_laplace(logits, cases, float(np.exp(log_sd)))[2],
        bounds=(low, high),
        method="bounded",
        options={"xatol": 0.05},
    )
    return LogitShifts(float(np.exp(found.x)))


def clip_propensity(e: Array, clip: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Propensities kept at `clip` or more, and which rows had a smaller one, (row,)."""
    return np.maximum(e, clip), np.asarray((e < clip).any(axis=1))


def _laplace(logits: Array, cases: Cases, sd: float) -> tuple[Array, Array, float]:
    """Mode and curvature of every task's shift, and the marginal log-likelihood of all."""
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
        c += step / np.maximum(size, 1.0)  # at most 1 on the log-odds scale
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


def _totals(values: Array, cases: Cases) -> Array:
    """Sums over the rows of every task, (task, ...)."""
    flat = values.reshape(len(values), -1)
    sums = np.zeros((cases.n_tasks, flat.shape[1]))
    np.add.at(sums, cases.task, flat)
    return sums.reshape(cases.n_tasks, *values.shape[1:])
