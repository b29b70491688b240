r"""One-compartment kinetics: concentrations of one patient, and the population model.

With clearance CL, volume V, :math:`k = CL / V` and absorption rate :math:`k_a`, a dose D adds

.. math:: \frac{D k_a}{V (k_a - k)} (e^{-kt} - e^{-k_a t}) \text{ (oral)}, \qquad
          \frac{D}{V} e^{-kt} \text{ (intravenous)}

after time t. Log parameters are ordered :math:`\theta = \log (CL, V, k_a)`, without :math:`k_a` for
the intravenous route. Parameters vary over patients, and measurements have an error:

.. math:: \theta_i \sim N(A_i \beta, \Omega), \qquad
          y = c(\theta_i) + e, \quad \mathrm{var}(e) = (\sigma_p c)^2 + \sigma_a^2

The likelihood of a patient is an integral over :math:`\theta_i`. It is estimated by importance
sampling from a mixture of the population distribution and a normal approximation of the patient's
posterior, so the model is not linearised.

References
----------
Kuhn, Lavielle (2005), doi:10.1016/j.csda.2004.07.002; Lavielle (2014), doi:10.1201/b17203.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm, qmc
from torch import Tensor

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Array
from ehrmeta.treatment.dosing.dosed_rows import DosedRows

_MIN_RATE_GAP = 1e-4  # smallest relative difference of k and k_a; the formula is 0 / 0 at k = k_a
_N_ROUNDS, _N_STEPS = 8, 20  # rounds of importance sampling, optimiser steps in each
_N_DRAWS = 512  # per training patient; a power of 2
_WIDER = 1.3  # factor on the population's sd in the proposal
_SMALLEST_SD = 0.02  # of a log parameter over patients


@dataclass(frozen=True, eq=False)
class Course:
    """Concentrations of one patient, and the doses before each."""

    # y, time (row,): concentration, and the time of its measurement
    y: Array
    time: Array
    # dose, last (row,): amount of each dose since the previous row, and time of the last dose
    dose: Array
    last: Array
    count: Array  # (row,): number of doses since the previous row, one interval apart
    interval: float

    def concentration(self, theta: Array) -> Array:
        """Concentration at every row under log parameters (draw, parameter), (row, draw)."""
        elapsed = self.time[:, None] - self.last  # (row, dosing level)
        amount = np.where(elapsed >= 0, self.dose, 0.0)

        def remaining(rate: Array) -> Array:
            step = -rate * self.interval
            repeats = np.expm1(step * self.count[:, None]) / np.expm1(step)  # (level, draw)
            decay = np.exp(-np.maximum(elapsed, 0)[..., None] * rate)
            return np.asarray(np.sum(amount[..., None] * decay * repeats, axis=1))

        return _concentration(theta, remaining)


def steady(theta: Array, since: Array, interval: float) -> Array:
    """Steady-state concentration per unit of dose, (row, draw), `since` (row,) after a dose."""
    return _concentration(
        theta, lambda rate: np.exp(-since[:, None] * rate) / -np.expm1(-rate * interval)
    )


def courses(rows: DosedRows, since: Array, interval: float) -> list[Course]:
    """Split rows into one `Course` per patient.

    Times count from the patient's first dose; `since` (row,) is the time since the last dose.
    """
    if (rows.dose < 0).any():
        raise DataError(
            f"dose is negative in {int((rows.dose < 0).sum()):,} of {len(rows.dose):,} rows. Pass "
            "amounts, or 0 if no dose was given."
        )
    last = rows.time - since
    by_patient: list[Course] = []
    for first, end in pairwise(rows.starts):
        at = slice(first, end)
        count = np.round(np.diff(last[at], prepend=-interval) / interval)
        count[:1] = np.floor(last[at][:1] / interval + 1e-6) + 1
        if (since[at] < 0).any() or (count < 0).any() or (count[:1] < 1).any():
            raise DataError(
                f"patient {len(by_patient)} of {len(rows.starts) - 1}: times do not agree with "
                "doses. Count time from the patient's first dose. The time since the last dose "
                "must lie between 0 and the time since the first."
            )
        by_patient.append(
            Course(rows.y[at], rows.time[at], rows.dose[at], last[at], count, interval)
        )
    return by_patient


def _concentration(theta: Array, remaining: Callable[[Array], Array]) -> Array:
    """Concentrations (row, draw), from a function for the amount remaining at a rate (draw,)."""
    clearance, volume, *absorption = np.exp(theta.T)
    rate = clearance / volume
    if not absorption:
        return np.asarray(remaining(rate) / volume)
    k_a = absorption[0]
    gap = k_a - rate
    gap = np.where(np.abs(gap) < _MIN_RATE_GAP * rate, _MIN_RATE_GAP * rate, gap)
    return np.asarray(k_a / (volume * gap) * (remaining(rate) - remaining(rate + gap)))


@dataclass(frozen=True, eq=False)
class Kinetics:
    """Population distribution of the log parameters."""

    beta: Array  # (parameter, coefficient): of the log parameters on ``[1, x]``
    sd: Array  # (parameter,): over patients with the same x
    # proportional, additive: standard deviations of the measurement error
    proportional: float
    additive: float

    def draws(self, x: Array, course: Course | None, n_draws: int) -> tuple[Array, Array]:
        """Weighted draws of a patient's log parameters: (draw, parameter), and weights (draw,).

        Parameters
        ----------
        x : (feature,)
        course : Course, optional
            Without it, draws are from the population.
        n_draws : int
            A power of 2.
        """
        centre = self.beta @ np.append(1.0, x)
        noise = _noise(1, n_draws, len(self.sd))[0]
        theta, weight = centre + self.sd * noise, np.full(n_draws, 1.0 / n_draws)
        if course is None or not len(course.y):
            return theta, weight
        proposal = None
        for _ in range(3):
            theta, log_q = _proposed(centre, self.sd, proposal, noise)
            log_weight = norm.logpdf(theta, centre, self.sd).sum(-1) - log_q
            log_weight += self.log_likelihood(course, theta)
            weight = np.exp(log_weight - logsumexp(log_weight))
            proposal = _moments(theta, weight)
        return theta, weight

    def log_likelihood(self, course: Course, theta: Array) -> Array:
        """Log-likelihood of all rows of a patient, (draw,)."""
        mean = course.concentration(theta)
        sd = np.hypot(self.proportional * mean, self.additive)
        return np.asarray(norm.logpdf(course.y[:, None], mean, sd).sum(0))


def fit_kinetics(courses: Sequence[Course], x: Array, *, oral: bool) -> Kinetics:
    """Fit the population by maximum likelihood.

    Parameters
    ----------
    courses : sequence of Course
    x : (patient, feature)
        Features that affect clearance and volume, not absorption.
    oral : bool
    """
    kinetics = _start(courses, x.shape[1], oral)
    a = np.column_stack([np.ones(len(x)), x])
    noise = _noise(len(courses), _N_DRAWS, len(kinetics.sd))
    widest = max(len(course.y) for course in courses)
    y, mask = np.zeros((2, len(courses), widest))
    for patient, course in enumerate(courses):
        y[patient, : len(course.y)], mask[patient, : len(course.y)] = course.y, 1.0
    proposals: list[tuple[Array, Array] | None] = [None] * len(courses)
    for _ in range(_N_ROUNDS):
        theta, log_q = np.empty_like(noise), np.empty(noise.shape[:2])
        mean = np.ones((len(courses), widest, _N_DRAWS))
        for patient, course in enumerate(courses):
            theta[patient], log_q[patient] = _proposed(
                kinetics.beta @ a[patient], kinetics.sd, proposals[patient], noise[patient]
            )
            mean[patient, : len(course.y)] = course.concentration(theta[patient])
        kinetics, weight = _improved(kinetics, a, theta, log_q, mean, y, mask)
        proposals = [_moments(*draws) for draws in zip(theta, weight, strict=True)]
    return kinetics


def _improved(
    start: Kinetics, a: Array, theta: Array, log_q: Array, mean: Array, y: Array, mask: Array
) -> tuple[Kinetics, Array]:
    """Parameters that increase the likelihood under fixed draws, and the draws' weights."""
    A, T, Q, M, Y, K = (torch.as_tensor(part) for part in (a, theta, log_q, mean, y, mask))
    n_parameters, n_coefficients = start.beta.shape
    free = torch.ones(start.beta.shape, dtype=torch.bool)
    free[2:, 1:] = False
    cuts = [n_parameters * n_coefficients, n_parameters, 1, 1]

    def log_weights(v: Tensor) -> Tensor:
        beta, log_sd, proportional, additive = torch.split(v, cuts)
        beta = beta.reshape(n_parameters, n_coefficients) * free
        deviation = (T - (A @ beta.T)[:, None]) / torch.exp(log_sd)
        prior = -0.5 * (deviation**2).sum(-1) - log_sd.sum()
        variance = torch.exp(2 * proportional) * M**2 + torch.exp(2 * additive)
        fit = -0.5 * ((Y[..., None] - M) ** 2 / variance + torch.log(variance))
        return prior + (K[..., None] * fit).sum(1) - Q

    def objective(v: Array) -> tuple[float, Array]:
        at = torch.tensor(v, requires_grad=True)
        slopes = at[: cuts[0]].reshape(n_parameters, n_coefficients)[:, 1:]
        value = 0.5 * (slopes**2).sum() - torch.logsumexp(log_weights(at), 1).sum()
        (gradient,) = torch.autograd.grad(value, at)
        return float(value.detach()), gradient.numpy()

    errors = np.log([start.proportional, start.additive])
    begin = np.concatenate([start.beta.ravel(), np.log(start.sd), errors])
    low = np.full(len(begin), -np.inf)
    low[cuts[0] : cuts[0] + n_parameters] = np.log(_SMALLEST_SD)
    low[-2:] = errors - 3.0
    best = minimize(
        objective,
        begin,
        jac=True,
        method="L-BFGS-B",
        bounds=[(bound, None) for bound in low],
        options={"maxiter": _N_STEPS},
    ).x
    beta, log_sd, errors = np.split(best, [cuts[0], cuts[0] + n_parameters])
    weight = torch.softmax(log_weights(torch.as_tensor(best)), dim=1).numpy()
    beta = beta.reshape(n_parameters, n_coefficients) * free.numpy()
    proportional, additive = np.exp(errors)
    return Kinetics(beta, np.exp(log_sd), float(proportional), float(additive)), weight


def _start(courses: Sequence[Course], n_features: int, oral: bool) -> Kinetics:
    """Start values: the mean steady-state concentration is dose / (CL * interval)."""
    interval = courses[0].interval
    y, dose = (np.concatenate([getattr(c, name) for c in courses]) for name in ("y", "dose"))
    level = max(float(np.median(y)), 1e-12)
    clearance = float(np.median(dose)) / (interval * level)
    typical = np.log([clearance, clearance * interval, 6.0 / interval][: 3 if oral else 2])
    beta = np.column_stack([typical, np.zeros((len(typical), n_features))])
    return Kinetics(beta, np.ones(len(typical)), 0.3, 0.1 * level)


def _noise(n_patients: int, n_draws: int, n_parameters: int) -> Array:
    """Quasi-random standard normal points (Sobol), (patient, draw, parameter)."""
    n = n_patients * n_draws
    points = qmc.Sobol(n_parameters, seed=0).random_base2(int(np.ceil(np.log2(n))))[:n]
    return np.asarray(norm.ppf(points).reshape(n_patients, n_draws, n_parameters))


def _proposed(
    centre: Array, sd: Array, posterior: tuple[Array, Array] | None, noise: Array
) -> tuple[Array, Array]:
    """Draws from the proposal distribution, (draw, parameter), and their log densities.

    Without a posterior, all are from the population distribution. With one, given as mean and
    Cholesky root, the second half of the draws is from the posterior.
    """
    wide = _WIDER * sd
    theta = centre + wide * noise
    log_p = norm.logpdf(theta, centre, wide).sum(-1)
    if posterior is None:
        return theta, log_p
    mean, root = posterior
    half = len(noise) // 2  # contiguous: every other Sobol point would cover half of the space
    theta[half:] = mean + noise[half:] @ root.T
    log_p = norm.logpdf(theta, centre, wide).sum(-1)
    white = np.linalg.solve(root, (theta - mean).T).T
    log_posterior = norm.logpdf(white).sum(-1) - np.log(np.abs(np.diag(root))).sum()
    return theta, np.logaddexp(log_p, log_posterior) - np.log(2.0)


def _moments(theta: Array, weight: Array) -> tuple[Array, Array]:
    """Mean of weighted draws, and the Cholesky root of 1.5 times their covariance."""
    mean = weight @ theta
    centred = theta - mean
    cov = 1.5 * (weight[:, None] * centred).T @ centred + 1e-6 * np.eye(theta.shape[1])
    return mean, np.asarray(np.linalg.cholesky(cov))
