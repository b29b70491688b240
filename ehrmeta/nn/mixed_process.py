"""Linear mixed model with an Ornstein-Uhlenbeck process in time, fitted by REML.

Two functions condition the process on the support of one task, in float64 and with masks.
`condition` works in function space: its cost is cubic in the number of support rows.
`condition_effects` works in weight space, for kernels ``E E'``: its cost is cubic in the number of
effects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ehrmeta.nn.backbone import Params
from ehrmeta.nn.batch import padded_index
from ehrmeta.nn.mixed_model import MixedModel, orthonormal

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_MAX_ROWS = 64  # per task, because the cost of a factorisation is cubic
_N_BUCKETS = 8  # groups of tasks of similar size, to limit padding
_LOG_RANGE = 6.0  # largest change of a log standard deviation from its start value
_LOG_TAU = (-6.0, 4.0)
_RIDGE = 1e-10  # added to the information per row, for columns that are 0 in the rows used
_LEAST_NOISE = 1e-8  # relative to the variance of effects and process
_NOISE_FLOOR = 1e-6  # relative to the mean prior variance, to keep matrices positive definite


@dataclass(frozen=True, eq=False)
class MixedProcess:
    """Estimates of ``y = X beta + Z b + u(s) + e``, where u is an Ornstein-Uhlenbeck process.

    Attributes
    ----------
    beta : (feature,)
        Fixed effects.
    G : (effect, effect)
        Covariance of the random effects b.
    process_var, tau : float
        ``cov(u(s), u(s')) = process_var exp(-|s - s'| / tau)``.
    noise_var : float
        Variance of e.
    log_likelihood : float
        Restricted log-likelihood at the estimates.
    """

    beta: Array
    G: Array
    process_var: float
    tau: float
    noise_var: float
    log_likelihood: float

    @classmethod
    def without(cls, model: MixedModel) -> MixedProcess:
        """Convert a mixed model: the process has variance 0."""
        return cls(
            beta=model.beta,
            G=model.G,
            process_var=0.0,
            tau=1.0,
            noise_var=_at_least(model.noise_var, model.G),
            log_likelihood=model.log_likelihood,
        )


def fit_mixed_process(
    x: Array,
    z: Array,
    s: Array,
    y: Array,
    starts: Index,
    start: MixedModel,
    *,
    noise_factor: Array | None = None,
) -> MixedProcess:
    r"""Fit by restricted maximum likelihood, starting from the mixed model without a process.

    Generalised least squares profiles out beta. The profiled deviance is a smooth function of
    :math:`G = LL'`, :math:`\sigma_u`, :math:`\tau` and :math:`\sigma`, and L-BFGS minimises it.
    Only the first 64 rows of each task are used.

    Parameters
    ----------
    x, z : (row, feature), (row, effect)
        Fixed and random designs, rows in task order.
    s : (row,)
        Time, in a unit in which tau lies between exp(-6) and exp(4).
    y : (row,)
        Outcome.
    starts : (task + 1,)
        Offsets of the tasks.
    start : MixedModel
        From `fit_mixed_model`. Process and noise each start at half of its noise variance.
    noise_factor : (row,), optional
        Multiplies the noise variance of each row.

    References
    ----------
    Diggle (1988), doi:10.2307/2531727. Jones, Boadi-Boateng (1991), doi:10.2307/2532504.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.nn.mixed_model import fit_mixed_model
    >>> rng = np.random.default_rng(0)
    >>> s, starts = np.tile(np.arange(12.0), 300), np.arange(0, 3601, 12)
    >>> cov = 4 + 2 * np.exp(-abs(s[:12, None] - s[:12]) / 3) + 0.5 * np.eye(12)
    >>> y = rng.multivariate_normal(np.zeros(12), cov, 300).ravel()
    >>> one = np.ones((3600, 1))
    >>> model = fit_mixed_process(one, one, s, y, starts, fit_mixed_model(one, one, y, starts))
    >>> bool(abs(model.tau - 3) < 1), bool(abs(model.noise_var - 0.5) < 0.1)
    (True, True)
    """
    unit, back, logdet = orthonormal(x)
    q = z.shape[1]
    factor = np.ones(len(y)) if noise_factor is None else noise_factor
    buckets = list(_buckets(np.column_stack([unit, y]), z, s, factor, starts))
    n = int(sum(bucket.mask.sum() for bucket in buckets))
    p = unit.shape[1]
    half_noise = 0.5 * np.log(0.5 * max(start.noise_var, 1e-300))
    floor = 1e-6 * max(start.noise_var, 1e-300) * np.eye(q) / np.maximum(np.mean(z * z, 0), 1e-12)
    begin = np.concatenate(
        [np.linalg.cholesky(start.G + floor)[np.tril_indices(q)], [half_noise, 0.0, half_noise]]
    )

    def deviance(theta: Tensor) -> tuple[Tensor, Tensor]:
        gram, log_v = _whitened(buckets, *_covariance(theta, q))
        information = gram[:p, :p] + _RIDGE * n * torch.eye(p, dtype=gram.dtype)
        root = torch.linalg.cholesky(information)
        beta = torch.cholesky_solve(gram[:p, p:], root)[:, 0]
        log_information = 2.0 * torch.log(torch.diagonal(root)).sum()
        return log_v + gram[p, p] - gram[:p, p] @ beta + log_information, beta

    def profile(theta: Array) -> tuple[float, Array]:
        leaf = torch.tensor(theta, requires_grad=True)
        value = deviance(leaf)[0] / n
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach()), np.asarray(leaf.grad)

    log_sd = (half_noise - _LOG_RANGE, half_noise + _LOG_RANGE)
    best = minimize(
        profile,
        begin,
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] * (len(begin) - 3) + [log_sd, _LOG_TAU, log_sd],
        options={"maxiter": 100},
    )
    value, beta = deviance(torch.tensor(best.x))
    root, process_var, rate, noise_var = _covariance(torch.tensor(best.x), q)
    G = (root @ root.mT).numpy()
    return MixedProcess(
        beta=back @ beta.numpy(),
        G=G,
        process_var=float(process_var),
        tau=float(1.0 / rate),
        noise_var=_at_least(float(noise_var), G, float(process_var)),
        log_likelihood=-0.5 * (float(value) + (n - p) * np.log(2.0 * np.pi) + logdet),
    )


def _at_least(noise_var: float, G: Array, process_var: float = 0.0) -> float:
    """Noise variance with a lower bound, so that covariances can be factorised without noise."""
    return max(noise_var, _LEAST_NOISE * (float(np.trace(G)) + process_var))


def held_out_log_likelihood(
    model: MixedProcess, x: Array, z: Array, s: Array, y: Array, starts: Index
) -> float:
    """Log-likelihood of the first 64 rows of each held-out task."""
    residual = (y - x @ model.beta)[:, None]
    buckets = list(_buckets(residual, z, s, np.ones(len(y)), starts))
    root = np.linalg.cholesky(model.G + 1e-12 * np.eye(len(model.G)))
    variances = torch.tensor(
        [model.process_var, 1.0 / model.tau, model.noise_var], dtype=torch.float64
    )
    gram, log_v = _whitened(buckets, torch.from_numpy(root), *variances)
    n = int(sum(bucket.mask.sum() for bucket in buckets))
    return float(-0.5 * (log_v + gram[0, 0] + n * np.log(2.0 * np.pi)))


@dataclass(frozen=True)
class _Bucket:
    """Padded rows of tasks of similar size."""

    columns: Tensor  # (task, row, column) fixed design and outcome
    z: Tensor  # (task, row, effect)
    s: Tensor  # (task, row)
    factor: Tensor  # (task, row)
    mask: Tensor  # (task, row)


def _buckets(columns: Array, z: Array, s: Array, factor: Array, starts: Index) -> Iterator[_Bucket]:
    sizes = np.minimum(np.diff(starts), _MAX_ROWS)
    order = np.argsort(sizes, kind="stable")
    order = order[sizes[order] > 0]
    for part in np.array_split(order, min(_N_BUCKETS, len(order))):
        begins, lengths = torch.from_numpy(starts[:-1][part]), torch.from_numpy(sizes[part])
        index, mask = padded_index(begins, lengths)
        seen = mask[..., None].double()
        yield _Bucket(
            columns=torch.from_numpy(columns)[index] * seen,
            z=torch.from_numpy(z)[index] * seen,
            s=torch.from_numpy(s)[index],
            factor=torch.from_numpy(factor)[index],
            mask=mask,
        )


def _covariance(theta: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Root of G, variance of the process, 1 / tau, and variance of the noise."""
    root = theta.new_zeros(q, q)
    row, column = torch.tril_indices(q, q)
    root = root.index_put((row, column), theta[:-3])
    return root, torch.exp(2.0 * theta[-3]), torch.exp(-theta[-2]), torch.exp(2.0 * theta[-1])


def _whitened(
    buckets: list[_Bucket], root: Tensor, process: Tensor, rate: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over tasks: ``sum_i C_i' V_i^-1 C_i`` (column, column) and ``sum_i log |V_i|``."""
    gram: Any = 0.0
    log_v: Any = 0.0
    for bucket in buckets:
        effects = bucket.z @ root
        seen = bucket.mask.double()
        gap = (bucket.s[:, :, None] - bucket.s[:, None, :]).abs()
        memory = process * torch.exp(-gap * rate) * seen[:, :, None] * seen[:, None, :]
        prior = effects.square().sum(2) + process * seen
        floor = 0.01 * _LEAST_NOISE * prior.detach().max()
        diagonal = torch.where(bucket.mask, torch.maximum(noise * bucket.factor, floor), 1.0)
        factor = torch.linalg.cholesky(effects @ effects.mT + memory + torch.diag_embed(diagonal))
        white = torch.linalg.solve_triangular(factor, bucket.columns, upper=False).flatten(0, 1)
        gram = gram + white.mT @ white
        log_v = log_v + 2.0 * torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum()
    return gram, log_v


def condition(kernel: Tensor, residual: Tensor, noise: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Condition a zero-mean process on residuals observed with noise.

    Parameters
    ----------
    kernel : (point, point) float64
        Prior covariance of the support.
    residual : (point,)
        Outcome minus mean.
    noise : (point,)
        Noise variance of each point.
    mask : (point,)
        False for padding, which is ignored.

    Returns
    -------
    dict
        ``factor`` (point, point), ``alpha`` (point,) and ``seen`` (point,), for `posterior`.
    """
    seen = mask.to(kernel.dtype)
    kernel = kernel * seen[:, None] * seen
    diagonal = torch.diagonal(kernel)
    floor = _NOISE_FLOOR * diagonal.sum() / seen.sum().clamp(min=1.0)
    noise = torch.where(mask, torch.maximum(noise, floor), 1.0)
    factor, _ = torch.linalg.cholesky_ex(kernel + torch.diag(noise))
    alpha = torch.cholesky_solve((residual * seen)[:, None], factor)[:, 0]
    return {"factor": factor, "alpha": alpha, "seen": seen}


def posterior(state: Params, cross: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and variance of the process, (query,) each.

    Parameters
    ----------
    state
        Result of `condition`.
    cross : (query, point)
        Prior covariance between query and support.
    prior : (query,)
        Prior variance at the query.
    """
    cross = cross * state["seen"]
    mean = cross @ state["alpha"]
    explained = torch.linalg.solve_triangular(state["factor"], cross.mT, upper=False)
    return mean, (prior - explained.square().sum(0)).clamp(min=0.0)


def condition_effects(
    effects: Tensor, residual: Tensor, noise: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """Condition ``f = E b``, ``b ~ N(0, I)``, on residuals observed with noise.

    The result is that of `condition` with the kernel ``E E'``, but the matrix to factorise is
    ``I + E' N^-1 E``, where N is the diagonal matrix of the noise variances.

    Parameters
    ----------
    effects : (point, effect) float64
        E, a root of the prior covariance.
    residual, noise, mask : (point,)
        As in `condition`.

    Returns
    -------
    dict
        ``root`` (effect, effect) and ``b`` (effect,), for `posterior_effects`.
    """
    seen = mask.to(effects.dtype)
    effects = effects * seen[:, None]
    floor = _NOISE_FLOOR * effects.square().sum() / seen.sum().clamp(min=1.0)
    precision = torch.where(mask, 1.0 / torch.maximum(noise, floor), 0.0)
    identity = torch.eye(effects.shape[1], dtype=effects.dtype, device=effects.device)
    root, _ = torch.linalg.cholesky_ex(identity + (effects * precision[:, None]).mT @ effects)
    pull = effects.mT @ (precision * torch.where(mask, residual, 0.0))
    return {"root": root, "b": torch.cholesky_solve(pull[:, None], root)[:, 0]}


def posterior_effects(state: Params, effects: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean and variance of the process, (query,) each.

    Parameters
    ----------
    state
        Result of `condition_effects`.
    effects : (query, effect)
        Root of the prior covariance at the query.
    """
    white = torch.linalg.solve_triangular(state["root"], effects.mT, upper=False)
    return effects @ state["b"], white.square().sum(0)
