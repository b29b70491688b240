r"""Mixed model with a linear predictor: normal or Bernoulli outcomes, independent random effects.

.. math:: \eta_i = o_i + X_i \beta + Z_i D u_i, \qquad u_i \sim N(0, I), \quad D = diag(sd)

For tasks of many rows and few effects: everything is a Cholesky factorisation of the number of
effects. Rows are flat and stand in task order; ``starts`` (task + 1,) are the offsets of the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(frozen=True, eq=False)
class GeneralisedMixedModel:
    """Estimates of a generalised linear mixed model.

    Attributes
    ----------
    beta : (feature,)
        Fixed effects.
    sd : (effect,)
        Prior standard deviations of the random effects.
    noise_var : float, or None
        Variance of a normal outcome given the effects; None for two classes.
    log_likelihood : float
        Laplace's approximation at the estimates; exact for a normal outcome.
    """

    beta: Array
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
    beta_sd: Array | float = 2.5,
) -> GeneralisedMixedModel:
    r"""Joint maximum of Laplace's marginal likelihood over beta, the sds and the noise.

    .. math:: \sum_i \log p(y_i | \hat u_i) - \tfrac12 \hat u_i'\hat u_i
              - \tfrac12 \log|I + D Z_i' W_i Z_i D|

    with the mode u and the weights W there. Its gradient is exact: the mode's own dependence on
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
    beta_sd : float or (feature,)
        Sd of a normal prior of beta, which keeps separated classes finite; infinite for none.

    References
    ----------
    Breslow, Clayton (1993), doi:10.1080/01621459.1993.10594284. Prior: Gelman et al. (2008),
    doi:10.1214/08-AOAS191.

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
    n_fixed, n_sds = x.shape[1], int(shared.max()) + 1
    group = torch.from_numpy(shared)
    precision = torch.as_tensor(np.broadcast_to(1.0 / np.square(beta_sd), n_fixed).copy())

    def parts(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_sd = theta[n_fixed : n_fixed + n_sds]
        return theta[:n_fixed], torch.exp(log_sd)[group], torch.exp(2.0 * theta[-1])

    def objective(values: Array) -> tuple[float, Array]:
        theta = torch.from_numpy(values).requires_grad_()
        beta, sd, noise_var = parts(theta)
        loss = 0.5 * (precision * beta.square()).sum() - tasks.log_likelihood(beta, sd, noise_var)
        (gradient,) = torch.autograd.grad(loss, theta)
        return float(loss.detach()), gradient.numpy()

    noise = 0.0 if binary else 0.5 * np.log(max(float(np.var(y)), 1e-12))
    first = np.concatenate([np.zeros(n_fixed), np.full(n_sds, np.log(_FIRST_SD)), [noise]])
    if not binary:
        first[:n_fixed] = np.linalg.lstsq(x, y if offset is None else y - offset, rcond=None)[0]
    limits = [(None, None)] * n_fixed + [tuple(np.log(_SD_RANGE))] * n_sds + [(None, None)]
    found = minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 300}
    )
    beta, sd, noise_var = parts(torch.from_numpy(found.x))
    return GeneralisedMixedModel(
        beta=beta.numpy(),
        sd=sd.numpy(),
        noise_var=None if binary else float(noise_var),
        log_likelihood=float(tasks.log_likelihood(beta, sd, noise_var)),
    )


def posterior_effects(
    model: GeneralisedMixedModel,
    x: Array,
    z: Array,
    y: Array,
    starts: Index,
    offset: Array | None = None,
) -> tuple[Array, Array]:
    """Mode (task, effect) and covariance (task, effect, effect) of the random effects ``D u``.

    A task without a row has the prior.
    """
    binary = model.noise_var is None
    tasks = _Padded.of(x, z, y, starts, offset, binary=binary)
    beta, sd = torch.from_numpy(model.beta), torch.from_numpy(model.sd)
    noise_var = torch.tensor(1.0 if binary else model.noise_var, dtype=torch.float64)
    a, fixed = tasks.z * sd, tasks.offset + tasks.x @ beta
    u = tasks.mode(a, fixed, noise_var)
    left = torch.cholesky_inverse(tasks.factor(a, tasks.eta(a, fixed, u), noise_var))
    return (sd * u).numpy(), (sd[:, None] * left * sd).numpy()


@dataclass(frozen=True, eq=False)
class _Padded:
    """Rows of all tasks, (task, row, ...); padding has neither design nor weight."""

    x: Tensor
    z: Tensor
    y: Tensor
    offset: Tensor
    mask: Tensor
    binary: bool
    last_mode: list[Tensor] = field(default_factory=list)  # where the next search starts

    @classmethod
    def of(
        cls, x: Array, z: Array, y: Array, starts: Index, offset: Array | None, *, binary: bool
    ) -> _Padded:
        first = torch.from_numpy(np.asarray(starts, np.int64))
        index, mask = padded_index(first[:-1], first.diff())

        def padded(column: Array) -> Tensor:
            rows = torch.from_numpy(np.asarray(column, np.float64))
            if not len(rows):
                return rows.new_zeros((*mask.shape, *rows.shape[1:]))
            return rows[index] * mask.reshape(*mask.shape, *[1] * (rows.ndim - 1))

        offset = np.zeros(len(y)) if offset is None else offset
        return cls(padded(x), padded(z), padded(y), padded(offset), mask, binary)

    def eta(self, a: Tensor, fixed: Tensor, u: Tensor) -> Tensor:
        return fixed + (a @ u[..., None])[..., 0]

    def slope(self, eta: Tensor, noise_var: Tensor) -> Tensor:
        """Derivative of the log-likelihood."""
        error = self.y - torch.sigmoid(eta) if self.binary else (self.y - eta) / noise_var
        return error * self.mask

    def factor(self, a: Tensor, eta: Tensor, noise_var: Tensor) -> Tensor:
        """Root of ``I + A'WA``."""
        p = torch.sigmoid(eta)
        weight = p * (1.0 - p) if self.binary else (1.0 / noise_var).expand(eta.shape)
        gram = (a * weight[..., None]).mT @ a
        root: Tensor = torch.linalg.cholesky(
            gram + torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        )
        return root

    def newton(self, a: Tensor, fixed: Tensor, u: Tensor, noise_var: Tensor) -> Tensor:
        """Newton's step of u."""
        eta = self.eta(a, fixed, u)
        gradient = (a.mT @ self.slope(eta, noise_var)[..., None])[..., 0] - u
        root = self.factor(a, eta, noise_var).detach()
        return torch.cholesky_solve(gradient[..., None], root)[..., 0]

    def mode(self, a: Tensor, fixed: Tensor, noise_var: Tensor) -> Tensor:
        """Posterior mode of u, (task, effect)."""
        with torch.no_grad():
            u = self.last_mode[0] if self.last_mode else a.new_zeros(len(a), a.shape[-1])
            for _ in range(_MAX_NEWTON):
                step = self.newton(a, fixed, u, noise_var)
                if self.binary:
                    moved = (a @ step[..., None])[..., 0].abs()
                    largest = moved.amax(1, keepdim=True) if moved.shape[1] else moved.sum(1, True)
                    step = step * (_LARGEST_MOVE / largest.clamp(min=_LARGEST_MOVE))
                u = u + step
                if not self.binary or float(step.abs().max()) < _CONVERGED:
                    break
            self.last_mode[:] = [u]
            return u

    def log_likelihood(self, beta: Tensor, sd: Tensor, noise_var: Tensor) -> Tensor:
        """Laplace's marginal log-likelihood over all tasks, ()."""
        a, fixed = self.z * sd, self.offset + self.x @ beta
        u = self.mode(a, fixed, noise_var)
        u = u + self.newton(a, fixed, u, noise_var)  # 0, with the mode's derivative
        eta = self.eta(a, fixed, u)
        if self.binary:
            given = -torch.nn.functional.binary_cross_entropy_with_logits(
                eta, self.y, weight=self.mask.to(eta.dtype), reduction="sum"
            )
        else:
            terms = torch.log(2.0 * torch.pi * noise_var) + (self.y - eta).square() / noise_var
            given = -0.5 * (terms * self.mask).sum()
        root = self.factor(a, eta, noise_var)
        log_det = torch.log(torch.diagonal(root, dim1=-2, dim2=-1)).sum()
        return given - 0.5 * u.square().sum() - log_det
