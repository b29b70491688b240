"""The mixed model of repeated responses, and the posterior of one patient's coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.linalg import block_diag, cho_factor, cho_solve

from ehrmeta.nn.mixed_model import fit_mixed_model, orthonormal
from ehrmeta.nn.mixed_process import MixedProcess, fit_mixed_process

__all__ = ["DoseModel", "fit_dose_model", "mixed"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_GAIN = 3.0  # of the log likelihood, that a process must bring: the 5 % level for two parameters


@dataclass(frozen=True, eq=False)
class DoseModel:
    r"""``y = w (beta, b) + u(s) + e`` with u an Ornstein-Uhlenbeck process.

    Parameters
    ----------
    mean, prior : (coefficient,), (coefficient, coefficient)
        Of a new patient's (beta, b): beta with the uncertainty of its estimate, b around 0.
    process_var, tau, noise_var : float
        Of u and e.
    log_likelihood : float
        Restricted, and blind to the units of the design.
    """

    mean: Array
    prior: Array
    process_var: float
    tau: float
    noise_var: float
    log_likelihood: float

    def posterior(self, w: Array, s: Array, y: Array) -> tuple[Array, Array]:
        """Mean and covariance of one patient's (beta, b) given rows; the prior without any."""
        if len(y) == 0:
            return self.mean, self.prior
        cross = w @ self.prior
        root = cho_factor(cross @ w.T + self.within(s))
        gain = cho_solve(root, cross).T  # (coefficient, row)
        return self.mean + gain @ (y - w @ self.mean), self.prior - gain @ cross

    def within(self, s: Array) -> Array:
        """Covariance of process and noise of one patient's rows, (row, row)."""
        memory = self.process_var * np.exp(-np.abs(s[:, None] - s) / self.tau)
        return np.asarray(memory + self.noise_var * np.eye(len(s)))


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
    if process:
        tried = fit_mixed_process(x, z, s, y, starts, plain)
        found = tried if tried.log_likelihood > plain.log_likelihood + _GAIN else found
    model = DoseModel(
        mean=np.concatenate([found.beta, np.zeros(z.shape[1])]),
        prior=np.zeros((0, 0)),
        process_var=found.process_var,
        tau=found.tau,
        noise_var=found.noise_var,
        log_likelihood=found.log_likelihood + 0.5 * orthonormal(x)[2],
    )
    information = np.zeros((x.shape[1], x.shape[1]))
    for first, end in pairwise(starts):
        rows = slice(first, end)
        within = z[rows] @ found.G @ z[rows].T + model.within(s[rows])
        information += x[rows].T @ np.linalg.solve(within, x[rows])
    beta_cov = np.linalg.pinv(information, hermitian=True)
    return DoseModel(**{**vars(model), "prior": block_diag(beta_cov, found.G)})
