r"""Mixed model with a linear predictor: normal or Bernoulli outcomes, independent random effects.

.. math:: \eta_i = o_i + X_i \beta + Z_i D u_i, \qquad u_i \sim N(0, I), \quad D = diag(sd)

For tasks of many rows and few effects: everything is a Cholesky factorisation of the number of
effects. Rows are flat and stand in task order; ``starts`` (task + 1,) are the offsets of the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ehrmeta.nn.batch import padded_index

__all__ = ["GeneralisedMixedModel", "fit_generalised_mixed_model", "posterior_effects"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_LARGEST_MOVE = 4.0  # of a log-odds in one Newton step: keeps the first steps from overshooting
_MAX_NEWTON = 50
_CONVERGED = 1e-9
_SD_RANGE = (1e-3, 20.0)
_FIRST_SD = 0.3
_SEARCH = {"maxiter": 200, "ftol": 1e-8}  # relative: a tenth of a thousandth in log-likelihood


@dataclass(frozen=True, eq=False)
class GeneralisedMixedModel:
    """Estimates of a generalised linear mixed model.

    Attributes
    ----------
    beta : (feature,)
        Fixed effects.
    beta_cov : (feature, feature)
        Covariance of `beta`.
    sd : (effect,)
        Prior standard deviations of the random effects.
    noise_var : float, or None
        Variance of a normal outcome given the effects; None for two classes.
    log_likelihood : float
        Laplace's approximation, beta integrated out, at the estimates; exact for a normal outcome.
    """

    beta: Array
    beta_cov: Array
    sd: Array
    noise_var: float | None
    log_likelihood: float


def fit_generalised_mixed_model(
    x: Array,
    z: Array,
    y: Array,
    starts: Index,
    *,
    binary: bool,
    offset: Array | None = None,
    shared: Index | None = None,
    shrunk: Index | None = None,
    beta_sd: float = 10.0,
    positive: NDArray[np.bool_] | None = None,
) -> GeneralisedMixedModel:
    r"""Sds, noise and beta by the marginal likelihood over beta and all effects.

    .. math:: \log p(y | \hat\beta, \hat u) - \tfrac12 \hat u'\hat u
              - \tfrac12 \hat\beta'P\hat\beta - \tfrac12 \log|H| + \tfrac12 \log|P|

    at the joint mode of beta and u, H the negative Hessian there: Laplace's approximation, for a
    normal outcome the restricted likelihood. Its gradient is exact: the mode's own dependence on
    the parameters is carried by one Newton step from the mode.

    Parameters
    ----------
    x : (row, feature)
        Fixed-effect design, the intercept included.
    z : (row, effect)
        Random-effect design.
    y : (row,)
        Outcome; 0 or 1 where `binary`.
    starts : (task + 1,)
        Offsets: task i owns the rows ``starts[i]:starts[i + 1]``.
    binary : bool
        Bernoulli with logit link, else normal.
    offset : (row,), optional
        Added to the linear predictor.
    shared : (effect,), optional
        Effects of one number share one sd; each has its own without it.
    shrunk : (feature,), optional
        Fixed effects of one number, 0 or more, have a common normal prior whose sd is learned: with
        few tasks, features that differ between tasks more than within them are hardly known.
    beta_sd : float
        Prior sd of the other fixed effects, which keeps separated classes finite.
    positive : (effect,) bool, optional
        Effects whose sd is pulled away from 0, where few tasks often put it, by the prior density
        proportional to the sd.

    References
    ----------
    Chung et al. (2013), doi:10.1007/s11336-013-9328-2 (`positive`).
    Breslow, Clayton (1993), doi:10.1080/01621459.1993.10594284. Wood (2011),
    doi:10.1111/j.1467-9868.2010.00749.x.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> starts, one = np.arange(0, 20001, 100), np.ones((20000, 1))
    >>> y = np.repeat(rng.normal(0, 1, 200), 100) > rng.logistic(size=20000)
    >>> model = fit_generalised_mixed_model(one, one, y, starts, binary=True)
    >>> bool(abs(model.sd[0] - 1) < 0.1)
    True
    """
    tasks = _Padded.of(x, z, y, starts, offset, binary=binary)
    shared = np.arange(z.shape[1]) if shared is None else np.unique(shared, return_inverse=True)[1]
    n_sds, group = int(shared.max()) + 1, torch.from_numpy(shared)
    shrunk = np.full(x.shape[1], -1) if shrunk is None else shrunk
    learned, prior = torch.from_numpy(shrunk >= 0), torch.from_numpy(np.maximum(shrunk, 0))
    n_priors = int(shrunk.max(initial=-1)) + 1

    pulled = torch.zeros(z.shape[1], dtype=torch.bool)
    if positive is not None:
        pulled = torch.from_numpy(positive)

    def parts(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sds of effects (effect,) and beta (feature,), and variance of the noise ()."""
        weak = torch.full_like(learned, beta_sd, dtype=theta.dtype)
        of_beta = weak
        if n_priors:
            of_beta = torch.where(learned, torch.exp(theta[n_sds:-1])[prior], weak)
        return torch.exp(theta[:n_sds])[group], of_beta, torch.exp(2.0 * theta[-1])

    def objective(values: Array) -> tuple[float, Array]:
        theta = torch.from_numpy(values).requires_grad_()
        sd, of_beta, noise_var = parts(theta)
        loss = -tasks.log_likelihood(sd, of_beta, noise_var) - torch.log(sd[pulled]).sum()
        (gradient,) = torch.autograd.grad(loss, theta)
        return float(loss.detach()), gradient.numpy()

    noise = 0.0 if binary else 0.5 * np.log(max(float(np.var(y)), 1e-12))
    first = np.concatenate([np.full(n_sds + n_priors, np.log(_FIRST_SD)), [noise]])
    limits = [tuple(np.log(_SD_RANGE))] * (n_sds + n_priors) + [(None, None)]
    found = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=limits, options=_SEARCH)
    sd, of_beta, noise_var = parts(torch.from_numpy(found.x))
    log_likelihood = float(tasks.log_likelihood(sd, of_beta, noise_var))
    beta, u = tasks.mode
    root = tasks.curvature(beta, u, sd, of_beta, noise_var).of_beta
    return GeneralisedMixedModel(
        beta=beta.numpy(),
        beta_cov=torch.cholesky_inverse(root).numpy(),
        sd=sd.numpy(),
        noise_var=None if binary else float(noise_var),
        log_likelihood=log_likelihood,
    )


def posterior_effects(
    model: GeneralisedMixedModel,
    x: Array,
    z: Array,
    y: Array,
    starts: Index,
    offset: Array | None = None,
) -> tuple[Array, Array]:
    """Mode (task, effect) and covariance (task, effect, effect) of the effects ``D u``, given beta.

    A task without a row has the prior.
    """
    binary = model.noise_var is None
    fixed = x @ model.beta + (0.0 if offset is None else offset)
    tasks = _Padded.of(x[:, :0], z, y, starts, fixed, binary=binary)
    sd = torch.from_numpy(model.sd)
    noise_var = torch.tensor(1.0 if binary else model.noise_var, dtype=torch.float64)
    none = sd[:0]
    _, u = tasks.find_mode(sd, none, noise_var)
    left = torch.cholesky_inverse(tasks.curvature(none, u, sd, none, noise_var).of_effects)
    return (sd * u).numpy(), (sd[:, None] * left * sd).numpy()


@dataclass(frozen=True, eq=False)
class _Curvature:
    """Factors of the negative Hessian of the joint log density of beta and u."""

    of_effects: Tensor  # (task, effect, effect) root of I + A'WA
    explained: Tensor  # (task, effect, feature) its inverse times A'WX
    of_beta: Tensor  # (feature, feature) root of the Schur complement of u


@dataclass(eq=False)
class _Padded:
    """Rows of all tasks, (task, row, ...), 0 where padded, and where the mode was found last."""

    x: Tensor
    z: Tensor
    y: Tensor
    offset: Tensor
    mask: Tensor
    binary: bool
    n_rows: int
    mode: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls, x: Array, z: Array, y: Array, starts: Index, offset: Array | None, *, binary: bool
    ) -> _Padded:
        n_rows, offset = len(y), np.zeros(len(y)) if offset is None else offset
        if not binary:
            x, z, y, starts = _compressed(x, z, y - offset, starts)
            offset = np.zeros(len(y))
        first = torch.from_numpy(np.asarray(starts, np.int64))
        index, mask = padded_index(first[:-1], first.diff())

        def padded(column: Array) -> Tensor:
            rows = torch.from_numpy(np.asarray(column, np.float64))
            if not len(rows):
                return rows.new_zeros((*mask.shape, *rows.shape[1:]))
            return rows[index] * mask.reshape(*mask.shape, *[1] * (rows.ndim - 1))

        beta = torch.zeros(x.shape[1], dtype=torch.float64)
        u = torch.zeros(len(mask), z.shape[1], dtype=torch.float64)
        rows = (padded(x), padded(z), padded(y), padded(offset), mask)
        return cls(*rows, binary, n_rows, (beta, u))

    def eta(self, beta: Tensor, u: Tensor, sd: Tensor) -> Tensor:
        """Linear predictor (task, row)."""
        return self.offset + self.x @ beta + (self.z @ (sd * u)[..., None])[..., 0]

    def curvature(
        self, beta: Tensor, u: Tensor, sd: Tensor, beta_sd: Tensor, noise_var: Tensor
    ) -> _Curvature:
        """The Hessian's factors at beta and u."""
        p = torch.sigmoid(self.eta(beta, u, sd)) if self.binary else None
        weight = self.mask / noise_var if p is None else self.mask * p * (1.0 - p)
        a = self.z * sd
        weighted = (a * weight[..., None]).mT
        identity = torch.eye(a.shape[-1], dtype=a.dtype)
        of_effects = torch.linalg.cholesky(weighted @ a + identity)
        cross = weighted @ self.x
        explained = torch.cholesky_solve(cross, of_effects)
        own = torch.einsum("tni,tn,tnj->ij", self.x, weight, self.x)
        schur = torch.diag(beta_sd**-2) + own - torch.einsum("tqi,tqj->ij", cross, explained)
        return _Curvature(of_effects, explained, torch.linalg.cholesky(schur))

    def newton(
        self, beta: Tensor, u: Tensor, sd: Tensor, beta_sd: Tensor, noise_var: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Newton's step of beta and u; through it the mode depends on the parameters."""
        eta = self.eta(beta, u, sd)
        error = self.y - torch.sigmoid(eta) if self.binary else (self.y - eta) / noise_var
        error = error * self.mask
        of_u = sd * (self.z.mT @ error[..., None])[..., 0] - u
        of_beta = torch.einsum("tni,tn->i", self.x, error) - beta / beta_sd**2
        with torch.no_grad():
            bend = self.curvature(beta, u, sd, beta_sd, noise_var)
        of_beta = of_beta - torch.einsum("tqi,tq->i", bend.explained, of_u)
        move = torch.cholesky_solve(of_beta[:, None], bend.of_beta)[:, 0]
        solved = torch.cholesky_solve(of_u[..., None], bend.of_effects)[..., 0]
        return move, solved - bend.explained @ move

    def find_mode(self, sd: Tensor, beta_sd: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]:
        """Joint mode of beta (feature,) and u (task, effect), from the last one."""
        with torch.no_grad():
            beta, u = self.mode
            for _ in range(_MAX_NEWTON):
                move, step = self.newton(beta, u, sd, beta_sd, noise_var)
                moved = (self.eta(move, step, sd) - self.offset).abs()
                largest = max(float(moved.max()) if moved.numel() else 0.0, _LARGEST_MOVE)
                share = _LARGEST_MOVE / largest if self.binary else 1.0
                beta, u = beta + share * move, u + share * step
                if not self.binary or float(moved.sum()) < _CONVERGED * max(moved.numel(), 1):
                    break
            self.mode = beta, u
        return beta, u

    def log_likelihood(self, sd: Tensor, beta_sd: Tensor, noise_var: Tensor) -> Tensor:
        """Laplace's marginal log-likelihood over beta and the effects of all tasks, ()."""
        beta, u = self.find_mode(sd, beta_sd, noise_var)
        move, step = self.newton(beta, u, sd, beta_sd, noise_var)  # 0, with the mode's derivative
        beta, u = beta + move, u + step
        eta = self.eta(beta, u, sd)
        if self.binary:
            given = -torch.nn.functional.binary_cross_entropy_with_logits(
                eta, self.y, weight=self.mask.to(eta.dtype), reduction="sum"
            )
        else:
            squares = ((self.y - eta) * self.mask).square().sum() / noise_var
            given = -0.5 * (self.n_rows * torch.log(2.0 * torch.pi * noise_var) + squares)
        bend = self.curvature(beta, u, sd, beta_sd, noise_var)
        prior = -0.5 * (u.square().sum() + (beta / beta_sd).square().sum())
        volume = _log_det(bend.of_effects) + _log_det(bend.of_beta) + torch.log(beta_sd).sum()
        return given + prior - volume


def _compressed(x: Array, z: Array, y: Array, starts: Index) -> tuple[Array, Array, Array, Index]:
    """Fewer rows with the same cross-products, task by task: all that a normal outcome needs."""
    columns = np.column_stack([x, z, y])
    bounds = zip(starts[:-1], starts[1:], strict=True)
    parts = [np.linalg.qr(columns[a:b], mode="r") for a, b in bounds]
    rows = np.concatenate(parts) if parts else columns
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return rows[:, : x.shape[1]], rows[:, x.shape[1] : -1], rows[:, -1], starts


def _log_det(root: Tensor) -> Tensor:
    """Sum of the logarithms of the diagonals of Cholesky factors."""
    return torch.log(torch.diagonal(root, dim1=-2, dim2=-1)).sum()
