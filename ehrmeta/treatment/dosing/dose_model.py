"""The mixed model of repeated responses, and the posterior of one patient's coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import block_diag, cho_factor, cho_solve, solve_triangular

from ehrmeta.nn.mixed_model import fit_mixed_model, orthonormal
from ehrmeta.nn.mixed_process import MixedProcess, fit_mixed_process
from ehrmeta.treatment.arrays import Array, Index

_GAIN = 3.0  # of the log likelihood, that a process must bring: the 5 % level for two parameters
_LEAST_NOISE = 1e-8  # of the outcome's variance: below it responses follow the design exactly


@dataclass(frozen=True, eq=False)
class DoseModel:
    r"""``y = w (beta, b) + u(s) + e`` with u an Ornstein-Uhlenbeck process."""

    # mean, prior (coefficient,), (coefficient, coefficient): of a new patient's (beta, b): beta
    # with the uncertainty of its estimate, b around 0
    mean: Array
    prior: Array
    G: Array  # (random effect, random effect): covariance of b
    # process_var, tau, noise_var: of u and e
    process_var: float
    tau: float
    noise_var: float
    log_likelihood: float  # restricted, and blind to the units of the design

    def posterior(self, w: Array, s: Array, y: Array) -> tuple[Array, Array]:
        """Mean and covariance of one patient's (beta, b) given rows; the prior without any."""
        if len(y) == 0:
            return self.mean, self.prior
        cross = w @ self.prior
        own = _within(s, self.process_var, self.tau, self.noise_var)
        root = cho_factor(cross @ w.T + own)
        gain = cho_solve(root, cross).T  # (coefficient, row)
        return self.mean + gain @ (y - w @ self.mean), self.prior - gain @ cross


def mixed(found: Sequence[tuple[Array, Array]], weights: Sequence[float]) -> tuple[Array, Array]:
    """Mean and covariance of a mixture of normals, from those of its parts and their weights."""
    means, covs = (np.stack(part) for part in zip(*found, strict=True))
    mean = np.average(means, axis=0, weights=weights)
    apart = means - mean
    between = np.einsum("k,ki,kj->ij", weights, apart, apart)
    return mean, np.average(covs, axis=0, weights=weights) + between


def fit_dose_model(
    x: Array, z: Array, s: Array, y: Array, starts: Index, *, process: bool
) -> DoseModel:
    """Restricted maximum likelihood; the process stays if the likelihood gains by it.

    Parameters
    ----------
    x, z : (row, fixed effect), (row, random effect)
    s : (row,)
        Time, in a unit in which a patient's rows are about 1 apart.
    y : (row,)
    starts : (task + 1,)
        Offsets of the patients, whose rows are in time.
    process : bool
        Whether to try one.
    """
    plain = fit_mixed_model(x, z, y, starts)
    found = MixedProcess.without(plain)
    if process and plain.noise_var > _LEAST_NOISE * float(np.var(y)):
        tried = fit_mixed_process(x, z, s, y, starts, plain)
        found = tried if tried.log_likelihood > plain.log_likelihood + _GAIN else found
    return dose_model_at(
        x,
        z,
        s,
        y,
        starts,
        G=found.G,
        process_var=found.process_var,
        tau=found.tau,
        noise_var=max(found.noise_var, _LEAST_NOISE * float(np.var(y)), np.finfo(float).tiny),
    )


def dose_model_at(
    x: Array,
    z: Array,
    s: Array,
    y: Array,
    starts: Index,
    *,
    G: Array,
    process_var: float,
    tau: float,
    noise_var: float,
) -> DoseModel:
    """The model of given variances: beta by generalised least squares, and the likelihood."""
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
    lost = log_v + gram[-1, -1] - gram[:-1, -1] @ beta + np.linalg.slogdet(information)[1]
    return DoseModel(
        mean=np.concatenate([back @ beta, np.zeros(z.shape[1])]),
        prior=block_diag(back @ beta_cov @ back.T, G),
        G=G,
        process_var=process_var,
        tau=tau,
        noise_var=noise_var,
        log_likelihood=-0.5 * float(lost + (len(y) - len(beta)) * np.log(2 * np.pi)),
    )


def _within(s: Array, process_var: float, tau: float, noise_var: float) -> Array:
    """Covariance of process and noise of one patient's rows, (row, row)."""
    memory = process_var * np.exp(-np.abs(s[:, None] - s) / tau)
    return np.asarray(memory + noise_var * np.eye(len(s)))
