"""Linear mixed model with an Ornstein-Uhlenbeck process in time, fitted by REML.

Two functions condition the process on the support of one task, in float64 and with masks.
`condition` works in function space: its cost is cubic in the number of support rows.
`condition_effects` works in weight space, for kernels ``E E'``: its cost is cubic in the number of
effects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ehrmeta.nn.backbone import Params
from ehrmeta.nn.batch import padded_index
from ehrmeta.nn.device import lbfgs
from ehrmeta.nn.mixed_model import MixedModel, orthonormal

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Lower = tuple[Index, Index]
_MAX_ROWS = 64  # per task, because the cost of a factorisation is cubic
_MOST_TASKS = 5_000  # that variances are estimated from
_N_BUCKETS, _BUCKET_SIZE = 8, 32  # most groups of tasks of similar size, and tasks in each
_MOST_AT_ONCE = 2_000  # tasks of a group
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
    :math:`G = LL'`, :math:`\sigma_u`, :math:`\tau` and :math:`\sigma`, and L-BFGS minimises it with
    the gradient :math:`\sum_i tr(M_i\, dV_i)`, where
    :math:`M = V^{-1} - uu' - V^{-1}X (X'V^{-1}X)^{-1} X'V^{-1}` and
    :math:`u = V^{-1}(y - X\beta)`. Only the first 64 rows of each task are used. Of more than 5,000
    tasks, a random sample gives the variances, and all give beta.

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
    lower = np.tril_indices(q)
    factor = np.ones(len(y)) if noise_factor is None else noise_factor
    columns = np.column_stack([unit, y])
    p = unit.shape[1]
    half_noise = 0.5 * np.log(0.5 * max(start.noise_var, 1e-300))
    floor = 1e-6 * max(start.noise_var, 1e-300) * np.eye(q) / np.maximum(np.mean(z * z, 0), 1e-12)
    begin = np.concatenate(
        [np.linalg.cholesky(start.G + floor)[lower], [half_noise, 0.0, half_noise]]
    )

    def fixed_effects(gram: Array, log_v: float, n: int) -> tuple[float, Array, Array]:
        """Deviance of n rows without constants, beta, and the inverse root of its information."""
        root = np.linalg.cholesky(gram[:p, :p] + _RIDGE * n * np.eye(p))
        inverse = np.linalg.inv(root)
        beta = inverse.T @ (inverse @ gram[:p, p])
        log_information = 2.0 * float(np.log(np.diag(root)).sum())
        return log_v + float(gram[p, p] - gram[:p, p] @ beta) + log_information, beta, inverse

    def rows_of(tasks: Index) -> Iterator[_Bucket]:
        return _buckets(columns, z, s, factor, starts, tasks)

    every_task = np.arange(len(starts) - 1)
    drawn = np.random.default_rng(0).permutation(every_task)[:_MOST_TASKS]
    some = list(rows_of(np.sort(drawn)))
    n_some = sum(int(bucket.mask.sum()) for bucket in some)

    def deviance_and_gradient(theta: Array) -> tuple[float, Array]:
        """Per row of the sample."""
        parts = _covariance(theta, lower)
        whitened = [_Whitened.of(bucket, *parts) for bucket in some]
        gram = np.sum([part.gram for part in whitened], axis=0)
        deviance, beta, inverse = fixed_effects(gram, sum(part.log_v for part in whitened), n_some)
        explained = np.zeros((p + 1, p + 1))
        explained[:p, :p], explained[:p, p], explained[p, p] = inverse.T, -beta, 1.0
        gradient = np.sum([part.gradient(explained, lower) for part in whitened], axis=0)
        return deviance / n_some, gradient / n_some

    log_sd = (half_noise - _LOG_RANGE, half_noise + _LOG_RANGE)
    best = lbfgs(
        deviance_and_gradient,
        begin,
        bounds=[(None, None)] * (len(begin) - 3) + [log_sd, _LOG_TAU, log_sd],
        options={"maxiter": 100},
    )
    parts = _covariance(best.x, lower)
    gram, log_v, n = np.zeros((p + 1, p + 1)), 0.0, 0
    for bucket in some if len(drawn) == len(every_task) else rows_of(every_task):
        whitened = _Whitened.of(bucket, *parts)
        gram, log_v, n = gram + whitened.gram, log_v + whitened.log_v, n + int(bucket.mask.sum())
    deviance, beta, _ = fixed_effects(gram, log_v, n)
    root, process_var, rate, noise_var = parts
    G = root @ root.T
    return MixedProcess(
        beta=back @ beta,
        G=G,
        process_var=process_var,
        tau=1.0 / rate,
        noise_var=_at_least(noise_var, G, process_var),
        log_likelihood=-0.5 * (deviance + (n - p) * np.log(2.0 * np.pi) + logdet),
    )


def _at_least(noise_var: float, G: Array, process_var: float = 0.0) -> float:
    """Noise variance with a lower bound, so that covariances can be factorised without noise."""
    return max(noise_var, _LEAST_NOISE * (float(np.trace(G)) + process_var))


def held_out_log_likelihood(
    model: MixedProcess, x: Array, z: Array, s: Array, y: Array, starts: Index
) -> float:
    """Log-likelihood of the first 64 rows of each held-out task."""
    residual = (y - x @ model.beta)[:, None]
    buckets = list(_buckets(residual, z, s, np.ones(len(y)), starts, np.arange(len(starts) - 1)))
    parameters = _parameters(model)
    whitened = [_Whitened.of(bucket, *parameters) for bucket in buckets]
    n = sum(int(bucket.mask.sum()) for bucket in buckets)
    deviance = sum(float(part.gram[0, 0]) + part.log_v for part in whitened)
    return -0.5 * (deviance + n * float(np.log(2.0 * np.pi)))


def held_out_errors(
    model: MixedProcess, x: Array, z: Array, s: Array, y: Array, starts: Index, shots: Sequence[int]
) -> Array:
    """Mean squared errors (task, shot) after the first rows of held-out tasks, NaN without others.

    Tasks are sorted by their number of rows, of which the first 64 are used.
    """
    residual = (y - x @ model.beta)[:, None]
    parameters = _parameters(model)
    errors = []
    for bucket in _buckets(residual, z, s, np.ones(len(y)), starts, np.arange(len(starts) - 1)):
        parts = _Whitened.of(bucket, *parameters)
        v = parts.effects @ parts.effects.swapaxes(1, 2) + parts.memory
        noisy = v + model.noise_var * np.eye(v.shape[1])
        r = bucket.columns
        of_bucket = np.full((len(r), len(shots)), np.nan)
        for at, k in enumerate(shots):
            left = r - v[:, :, :k] @ np.linalg.solve(noisy[:, :k, :k], r[:, :k])
            asked = bucket.mask & (np.arange(v.shape[1]) >= k)
            some = asked.any(1)
            total = (left[..., 0] ** 2 * asked).sum(1)
            of_bucket[some, at] = total[some] / asked.sum(1)[some]
        errors.append(of_bucket)
    return np.concatenate(errors)


def _parameters(model: MixedProcess) -> tuple[Array, float, float, float]:
    """Root of G, variance of the process, 1 / tau, and variance of the noise."""
    floor = 1e-12 * (1.0 + float(np.trace(model.G)))  # for a singular G
    root = np.linalg.cholesky(model.G + floor * np.eye(len(model.G)))
    return np.asarray(root, np.float64), model.process_var, 1.0 / model.tau, model.noise_var


@dataclass(frozen=True, eq=False)
class _Bucket:
    """Padded rows of tasks of similar size."""

    columns: Array  # (task, row, column) fixed design and outcome
    z: Array  # (task, row, effect)
    s: Array  # (task, row)
    factor: Array  # (task, row)
    mask: NDArray[np.bool_]  # (task, row)


def _buckets(
    columns: Array, z: Array, s: Array, factor: Array, starts: Index, tasks: Index
) -> Iterator[_Bucket]:
    sizes = np.minimum(np.diff(starts), _MAX_ROWS)
    order = tasks[np.argsort(sizes[tasks], kind="stable")]
    order = order[sizes[order] > 0]
    n_buckets = max(min(_N_BUCKETS, 1 + len(order) // _BUCKET_SIZE), len(order) // _MOST_AT_ONCE)
    for part in np.array_split(order, n_buckets):
        begins, lengths = torch.from_numpy(starts[:-1][part]), torch.from_numpy(sizes[part])
        index, mask = (padded.numpy() for padded in padded_index(begins, lengths))
        seen = mask[..., None]
        yield _Bucket(columns[index] * seen, z[index] * seen, s[index], factor[index], mask)


def _covariance(theta: Array, lower: Lower) -> tuple[Array, float, float, float]:
    """Root of G, variance of the process, 1 / tau, and variance of the noise."""
    q = lower[0][-1] + 1
    root = np.zeros((q, q))
    root[lower] = theta[:-3]
    process_var, rate, noise_var = np.exp(theta[-3:] * [2.0, -1.0, 2.0]).tolist()
    return root, process_var, rate, noise_var


@dataclass(frozen=True, eq=False)
class _Whitened:
    """A bucket's columns C multiplied by ``R^-1``, where ``V = R R'`` is the covariance of rows."""

    columns: Array  # (task, row, column)
    inverse: Array  # R^-1, (task, row, row)
    z: Array  # (task, row, effect)
    effects: Array  # z times the root of G
    memory: Array  # covariance of the process, (task, row, row)
    distance: Array  # in time, in units of tau, (task, row, row)
    noise: Array  # variance, 0 where padded or at its floor, (task, row)
    log_v: float  # sum of log |V|

    @classmethod
    def of(
        cls, bucket: _Bucket, root: Array, process_var: float, rate: float, noise_var: float
    ) -> _Whitened:
        """Whiten a bucket."""
        effects, seen = bucket.z @ root, bucket.mask
        distance = rate * np.abs(bucket.s[:, :, None] - bucket.s[:, None, :])
        memory = process_var * np.exp(-distance) * (seen[:, :, None] & seen[:, None, :])
        noise = noise_var * bucket.factor * seen
        floor = 0.01 * _LEAST_NOISE * float(((effects**2).sum(2) + process_var * seen).max())
        v = effects @ effects.swapaxes(1, 2) + memory
        diagonal = np.arange(seen.shape[1])
        v[:, diagonal, diagonal] += np.where(seen, np.maximum(noise, floor), 1.0)
        v_root = np.linalg.cholesky(v)
        inverse = np.linalg.inv(v_root)
        return cls(
            columns=inverse @ bucket.columns,
            inverse=inverse,
            z=bucket.z,
            effects=effects,
            memory=memory,
            distance=distance,
            noise=np.where(noise > floor, noise, 0.0),
            log_v=2.0 * float(np.log(v_root[:, diagonal, diagonal]).sum()),
        )

    @property
    def gram(self) -> Array:
        """``sum_i C_i' V_i^-1 C_i``, (column, column)."""
        columns = self.columns.reshape(-1, self.columns.shape[-1])
        return columns.T @ columns

    def gradient(self, explained: Array, lower: Lower) -> Array:
        """Gradient of the deviance with respect to the parameters of `_covariance`.

        Parameters
        ----------
        explained : (column, column)
            K with ``M = V^-1 - V^-1 C K K' C' V^-1``.
        lower
            Indices of the root's entries among the parameters.
        """
        back = self.inverse.swapaxes(1, 2)
        reduced = back @ (self.columns @ explained)
        m = back @ self.inverse - reduced @ reduced.swapaxes(1, 2)
        by_root = 2.0 * np.tensordot(self.z, m @ self.effects, ((0, 1), (0, 1)))
        of_process = m * self.memory
        by_tau = (of_process * self.distance).sum()
        by_noise = 2.0 * (np.diagonal(m, axis1=1, axis2=2) * self.noise).sum()
        return np.array([*by_root[lower], 2.0 * of_process.sum(), by_tau, by_noise])


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
        ``factor`` (point, point), ``alpha`` (point,) and ``seen`` (point,), for `posterior`, and
        ``distance`` (): ``r' V^-1 r`` of the residuals r with prior covariance V.
    """
    seen = mask.to(kernel.dtype)
    kernel = kernel * seen[:, None] * seen
    diagonal = torch.diagonal(kernel)
    floor = _NOISE_FLOOR * diagonal.sum() / seen.sum().clamp(min=1.0)
    noise = torch.where(mask, torch.maximum(noise, floor), 1.0)
    factor, _ = torch.linalg.cholesky_ex(kernel + torch.diag(noise))
    residual = residual * seen
    alpha = torch.cholesky_solve(residual[:, None], factor)[:, 0]
    return {"factor": factor, "alpha": alpha, "seen": seen, "distance": residual @ alpha}


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
        ``root`` (effect, effect) and ``b`` (effect,), for `posterior_effects`, and ``distance`` ()
        as in `condition`.
    """
    seen = mask.to(effects.dtype)
    effects = effects * seen[:, None]
    floor = _NOISE_FLOOR * effects.square().sum() / seen.sum().clamp(min=1.0)
    precision = torch.where(mask, 1.0 / torch.maximum(noise, floor), 0.0)
    identity = torch.eye(effects.shape[1], dtype=effects.dtype, device=effects.device)
    root, _ = torch.linalg.cholesky_ex(identity + (effects * precision[:, None]).mT @ effects)
    residual = torch.where(mask, residual, 0.0)
    pull = effects.mT @ (precision * residual)
    b = torch.cholesky_solve(pull[:, None], root)[:, 0]
    return {"root": root, "b": b, "distance": precision @ residual.square() - pull @ b}


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
