r"""Mixed model of repeated responses, and the posterior of one patient's coefficients.

With few patients, intervals that treat the estimated variances as known are too narrow. Therefore
the uncertainty of the variance parameters and of the half-life of carry-over is included. The
logarithms of the standard deviations, of the process's time scale and of the half-life, and the
correlations, are taken as normal around their estimates v; the covariance C is the inverse
curvature of the restricted log-likelihood. The :math:`2d` points
:math:`v \pm \sqrt{d}\, C^{1/2}_j`, equally weighted, represent this distribution.

References
----------
Arasaratnam, Haykin (2009), doi:10.1109/TAC.2009.2019800 (cubature points); Kackar, Harville (1984),
doi:10.2307/2288715 (effect of estimated variances).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from scipy.linalg import block_diag, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize_scalar

from ehrmeta.nn.mixed_model import fit_mixed_model, orthonormal
from ehrmeta.nn.mixed_process import MixedProcess, fit_mixed_process
from ehrmeta.treatment.arms import Array, Index

# x (row, fixed effect), z (row, random effect), s, y (row,), starts (patient + 1,): fixed and
# random design, time divided by the usual gap, response, and offsets of the patients; rows sorted
# by time
Designs = tuple[Array, Array, Array, Array, Index]
# Gains in log-likelihood for a process (two parameters) and for carry-over (one) to be included:
# the 5 % level
_PROCESS_GAIN, _CARRY_OVER_GAIN = 3.0, 2.0
_LEAST_NOISE = 1e-8  # smallest noise variance, as a share of the outcome's variance
_RANGE = (0.1, 10.0)  # of the half-life, in usual gaps between rows
_N_ROUNDS = 2  # of alternating between estimates of half-life and variances
_STEP = 0.1  # of a logarithm or a correlation, in finite differences of the likelihood
_LARGEST_SD = 0.25  # of a logarithm or a correlation that the rows do not identify
_JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class DoseModel:
    r"""``y = w (beta, b) + u(s) + e`` with u an Ornstein-Uhlenbeck process."""

    # mean, prior (coefficient,), (coefficient, coefficient): prior mean and covariance of a new
    # patient's (beta, b); beta has its sampling covariance, and b has mean 0
    mean: Array
    prior: Array
    G: Array  # (random effect, random effect): covariance of b
    # process_var, tau, noise_var: of u and e
    process_var: float
    tau: float
    noise_var: float
    log_likelihood: float  # restricted; does not depend on the units of the design

    @property
    def variances(self) -> dict[str, Any]:
        """Variance parameters, as `dose_model_at` takes them."""
        return {name: getattr(self, name) for name in ("G", "process_var", "tau", "noise_var")}

    def posterior(self, w: Array, s: Array, y: Array) -> tuple[Array, Array]:
        """Posterior mean and covariance of one patient's (beta, b); without rows, the prior."""
        if len(y) == 0:
            return self.mean, self.prior
        cross = w @ self.prior
        within = _within(s, self.process_var, self.tau, self.noise_var)
        root = cho_factor(cross @ w.T + within)
        gain = cho_solve(root, cross).T  # (coefficient, row)
        return self.mean + gain @ (y - w @ self.mean), self.prior - gain @ cross


def mix_normals(
    normals: Sequence[tuple[Array, Array]], weights: Sequence[float]
) -> tuple[Array, Array]:
    """Mean and covariance of a weighted mixture of normals."""
    means, covs = (np.stack(part) for part in zip(*normals, strict=True))
    mean = np.average(means, axis=0, weights=weights)
    centred = means - mean
    between = np.einsum("k,ki,kj->ij", weights, centred, centred)
    return mean, np.average(covs, axis=0, weights=weights) + between


def fit_dose_model(designs: Designs, *, process: bool) -> DoseModel:
    """Fit by restricted maximum likelihood.

    If `process`, an Ornstein-Uhlenbeck process is tried, and included if it improves the likelihood
    enough.
    """
    x, z, s, y, starts = designs
    best = MixedProcess.without(plain := fit_mixed_model(x, z, y, starts))
    if process and plain.noise_var > _LEAST_NOISE * float(np.var(y)):
        with_process = fit_mixed_process(x, z, s, y, starts, plain)
        if with_process.log_likelihood > plain.log_likelihood + _PROCESS_GAIN:
            best = with_process
    noise_var = max(best.noise_var, _LEAST_NOISE * float(np.var(y)), np.finfo(float).tiny)
    return dose_model_at(designs, best.G, best.process_var, best.tau, noise_var)


def dose_model_at(
    designs: Designs, G: Array, process_var: float, tau: float, noise_var: float
) -> DoseModel:
    """The model at given variances: beta by generalised least squares, and its likelihood."""
    x, z, s, y, starts = designs
    unit, back, _ = orthonormal(x)
    uy = np.column_stack([unit, y])
    gram, log_v = np.zeros((uy.shape[1], uy.shape[1])), 0.0
    for first, end in pairwise(starts):
        rows = slice(first, end)
        cov = z[rows] @ G @ z[rows].T + _within(s[rows], process_var, tau, noise_var)
        root = np.linalg.cholesky(cov)
        white = solve_triangular(root, uy[rows], lower=True)
        gram += white.T @ white
        log_v += 2 * float(np.log(np.diag(root)).sum())
    information = gram[:-1, :-1]
    beta_cov = np.linalg.inv(information)
    beta = beta_cov @ gram[:-1, -1]
    deviance = log_v + gram[-1, -1] - gram[:-1, -1] @ beta + np.linalg.slogdet(information)[1]
    return DoseModel(
        mean=np.concatenate([back @ beta, np.zeros(z.shape[1])]),
        prior=block_diag(back @ beta_cov @ back.T, G),
        G=G,
        process_var=process_var,
        tau=tau,
        noise_var=noise_var,
        log_likelihood=-0.5 * float(deviance + (len(y) - len(beta)) * np.log(2 * np.pi)),
    )


def _within(s: Array, process_var: float, tau: float, noise_var: float) -> Array:
    """Covariance of process and noise of one patient's rows, (row, row)."""
    process = process_var * np.exp(-np.abs(s[:, None] - s) / tau)
    return np.asarray(process + noise_var * np.eye(len(s)))


@dataclass(frozen=True, eq=False)
class PlausibleModel:
    """A model, its half-life of carry-over, and its weight."""

    model: DoseModel
    half_life: float
    weight: float


def plausible_models(
    best: DoseModel, half_life: float, designs: Callable[[float], Designs], *, estimated: bool
) -> tuple[list[PlausibleModel], float]:
    """Models at the cubature points, and the standard error of the log half-life.

    Parameters
    ----------
    half_life : float
        Half-life of carry-over; 0 for none.
    designs : callable
        Maps a half-life to its `Designs`.
    estimated : bool
        Whether the half-life is estimated rather than known.
    """
    q = len(best.G)
    below = np.tril_indices(q, -1)
    sd, root = _sd_and_root(best.G)
    cuts = np.cumsum([q, len(below[0]), 1, 1, 1])
    is_free = np.ones(cuts[-1] + 1, bool)
    is_free[cuts[1] : cuts[3]] = best.process_var > 0
    is_free[-1] = estimated and half_life > 0
    best_designs = designs(half_life)

    def at(step: Array) -> tuple[DoseModel, float]:
        steps = np.zeros(len(is_free))
        steps[is_free] = step
        sds, correlations, process, tau, noise, log_half_life = np.split(steps, cuts)
        new_root = root.copy()
        new_root[below] += correlations
        new_root *= (sd * np.exp(sds) / np.sqrt((new_root**2).sum(1)))[:, None]
        new_half_life = half_life * float(np.exp(log_half_life[0]))
        model = dose_model_at(
            best_designs if new_half_life == half_life else designs(new_half_life),
            G=new_root @ new_root.T,
            process_var=best.process_var * float(np.exp(2 * process[0])),
            tau=best.tau * float(np.exp(tau[0])),
            noise_var=best.noise_var * float(np.exp(2 * noise[0])),
        )
        return model, new_half_life

    def likelihood(step: Array) -> float:
        return at(step)[0].log_likelihood

    d = int(is_free.sum())
    values, vectors = np.linalg.eigh(-_curvature(likelihood, d))
    spread = vectors / np.sqrt(np.maximum(values, 1.0 / _LARGEST_SD**2))
    points = np.sqrt(d) * np.concatenate([spread.T, -spread.T])
    models = [PlausibleModel(*at(point), 1.0 / len(points)) for point in points]
    return models, float(np.sqrt((spread[-1] ** 2).sum())) if is_free[-1] else 0.0


def _sd_and_root(G: Array) -> tuple[Array, Array]:
    """Standard deviations, and the Cholesky root of the correlations."""
    sd = np.sqrt(np.diag(G))
    scale = np.where(sd > 0, sd, 1.0)
    correlation = G / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0 + _JITTER)
    return sd, np.asarray(np.linalg.cholesky(correlation))


def _curvature(f: Callable[[Array], float], d: int) -> Array:
    """Second derivatives at 0, (d, d), by finite differences."""
    steps = _STEP * np.eye(d)
    centre = f(np.zeros(d))
    up, down = ([f(sign * step) for step in steps] for sign in (1.0, -1.0))
    hessian = np.diag([(up[i] - 2 * centre + down[i]) / _STEP**2 for i in range(d)])
    for i, j in combinations(range(d), 2):
        cross = f(steps[i] + steps[j]) - up[i] - up[j] + centre
        hessian[i, j] = hessian[j, i] = cross / _STEP**2
    return hessian


def exposure(dose: Array, time: Array, starts: Index, half_life: float, gap: float) -> Array:
    r"""Doses averaged over the past, with weights that halve every `half_life`.

    .. math:: E_j = c_j E_{j-1} + (1 - c_j) D_j, \quad c_j = 2^{-(t_j - t_{j-1}) / T}

    A row's dose is assumed to be given from the previous row to this one, with no dose before the
    first. The exposure under a constant dose converges to the dose.

    Parameters
    ----------
    dose, time, starts : (row,), (row,), (task + 1,)
        Rows sorted by task and time, and offsets of the tasks.
    half_life : float
        T, in the unit of time; 0 for no carry-over.
    gap : float
        Assumed duration of a task's first dose before its first row.

    Examples
    --------
    >>> days, starts = np.arange(1.0, 5.0), np.array([0, 4])
    >>> exposure(np.array([8.0, 8.0, 0.0, 0.0]), days, starts, half_life=1.0, gap=1.0)
    array([4. , 6. , 3. , 1.5])
    """
    if half_life == 0 or len(dose) == 0:
        return dose.astype(np.float64)
    since = np.diff(time, prepend=np.nan)
    filled = starts[:-1] < starts[1:]
    since[starts[:-1][filled]] = gap
    carried = 0.5 ** (since / half_life)
    exposed = np.empty(len(dose))
    sizes = np.diff(starts)
    for place in range(int(sizes.max())):  # the n-th rows of all tasks at once
        rows = starts[:-1][sizes > place] + place
        before = exposed[rows - 1] if place else 0.0
        exposed[rows] = carried[rows] * before + (1.0 - carried[rows]) * dose[rows]
    return exposed


def usual_gap(time: Array, starts: Index) -> float:
    """Median time between a task's rows; 1 if no task has two rows at different times."""
    inner = np.ones(len(time), bool)
    inner[starts[:-1][starts[:-1] < starts[1:]]] = False
    gaps = np.diff(time, prepend=0.0)[inner]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 1.0


def estimate_half_life(designs: Callable[[float], Designs], gap: float, *, process: bool) -> float:
    """Maximum-likelihood half-life of carry-over; 0 unless it improves the likelihood enough.

    The first search is without a process. The next ones use the variances of a fit with a process,
    so that persistence of the outcome is not mistaken for carry-over of doses.

    Parameters
    ----------
    designs : callable
        Maps a half-life to its `Designs`.
    gap : float
        Usual time between a patient's rows.
    process : bool
        Whether the model may include an Ornstein-Uhlenbeck process.
    """

    def fitted(half_life: float, process: bool) -> DoseModel:
        return fit_dose_model(designs(half_life), process=process)

    def is_worth_it(half_life: float, process: bool) -> bool:
        without = fitted(0.0, process).log_likelihood
        return fitted(half_life, process).log_likelihood >= without + _CARRY_OVER_GAIN

    half_life = _most_likely(lambda trial: fitted(trial, False), gap)
    if not is_worth_it(half_life, False):
        return 0.0
    for _ in range(_N_ROUNDS if process else 0):
        model = fitted(half_life, True)
        half_life = _most_likely(partial(_with_variances_of, model, designs), gap)
    return half_life if is_worth_it(half_life, process) else 0.0


def _with_variances_of(
    model: DoseModel, designs: Callable[[float], Designs], half_life: float
) -> DoseModel:
    return dose_model_at(designs(half_life), **model.variances)


def _most_likely(model: Callable[[float], DoseModel], gap: float) -> float:
    """The half-life with the highest likelihood of `model`."""
    optimum = minimize_scalar(
        lambda log_half_life: -model(float(np.exp(log_half_life))).log_likelihood,
        bounds=tuple(np.log(_RANGE) + np.log(gap)),
        method="bounded",
        options={"xatol": 0.02},
    )
    return float(np.exp(optimum.x))
