r"""Generalised linear mixed model: normal or Bernoulli outcomes, independent random effects.

.. math:: \eta_i = o_i + X_i \beta + Z_i D u_i, \qquad u_i \sim N(0, I), \quad D = diag(sd)

This is for tasks with many rows and few effects, because the cost is cubic in the number of
effects. Rows are in task order; ``starts`` (task + 1,) are the offsets of the tasks. Bernoulli
outcomes are approximated by expectation propagation: moment-matched normal pseudo-observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ehrmeta.nn.batch import padded_index
from ehrmeta.nn.device import lbfgs

N_SWEEPS = 6  # sweeps of moment matching, starting at the mode
_MAX_CURVATURE = 0.25
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_MIN_VARIANCE = 1e-8  # of a cavity (the posterior without one site), which is a divisor
_MIN_PRECISION = 1e-10
_MIN_SHARE = 1e-6  # smallest share of the precision at a row that comes from other rows
Array = NDArray[np.float64]
Index = NDArray[np.int64]
_MAX_SWEEPS = 50
_WHILE_SEARCHING, _CONVERGED = 1e-4, 1e-9  # change of log-odds between two sweeps
_SD_RANGE = (1e-3, 20.0)
_FIRST_SD = 0.3
_LOGISTIC_SD = np.pi / np.sqrt(3.0)
_SEARCH = {"maxiter": 200, "ftol": 1e-8}  # ftol is relative to the objective


def matched_observations(
    y: Tensor,
    weight: Tensor,
    mean: Tensor,
    observed: tuple[Tensor, Tensor],
    posterior: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Targets and noise variances of moment-matched pseudo-observations, (point,) each.

    Parameters
    ----------
    y, weight, mean : (point,)
        Class, weight of its log-likelihood, and mean of the log-odds.
    observed : tuple of Tensor
        Current targets and noise variances.
    posterior : tuple of Tensor
        Posterior mean and variance of the process, given those.
    """
    target, noise = observed
    current = Sites(1.0 / noise, (mean + target) / noise, torch.zeros_like(mean))
    sites = matched_sites(y, weight, mean + posterior[0], posterior[1], current)
    return sites.pull / sites.precision - mean, 1.0 / sites.precision


class Sites(NamedTuple):
    """Normal pseudo-observations of the linear predictor, (row,) each."""

    precision: Tensor
    pull: Tensor  # precision times the observed value
    log_scale: Tensor


def matched_sites(y: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, sites: Sites) -> Sites:
    r"""One sweep of expectation propagation: moment-matched sites of Bernoulli rows.

    A row's likelihood :math:`\sigma(\pm\eta)` is replaced by a site
    :math:`s\, e^{\nu \eta - \tau \eta^2 / 2}` with the same posterior mean and variance, given all
    other rows. A row of weight w counts as w copies; for w below 1 the likelihood is raised to that
    power. With small supports and large variance between tasks, the posterior's mean and mode
    differ much, and Laplace's approximation is overconfident.

    Parameters
    ----------
    y, weight : (row,)
        Class, 0 or 1, and weight of the row.
    mean, variance : (row,)
        Moments of the linear predictor, given the current sites.
    sites : Sites
        Current sites.

    References
    ----------
    Minka (2001), arXiv:1301.2294. Nickisch, Rasmussen (2008), JMLR 9:2035-2078.
    """
    copies, power = weight.clamp(min=1.0), weight.clamp(max=1.0)
    without = (1.0 - sites.precision / copies * variance).clamp(min=_MIN_SHARE)
    center = (mean - variance * sites.pull / copies) / without
    spread = (variance / without).clamp(min=_MIN_VARIANCE)
    nodes, log_weights = (
        torch.as_tensor(a, dtype=mean.dtype, device=mean.device)
        for a in (_NODES, np.log(_WEIGHTS / _WEIGHTS.sum()))
    )
    eta = center[..., None] + spread.sqrt()[..., None] * nodes  # (row, node)
    sign = 2.0 * y[..., None] - 1.0
    log_terms = power[..., None] * torch.nn.functional.logsigmoid(sign * eta) + log_weights
    log_total = torch.logsumexp(log_terms, -1)
    share = torch.exp(log_terms - log_total[..., None])
    shift = (share * nodes).sum(-1)  # of the mean, in standard deviations
    ratio = (share * (nodes - shift[..., None]).square()).sum(-1)  # of the variances
    # The largest curvature is an exact bound of the precision; quadrature may exceed it.
    bound = (_MAX_CURVATURE * power).clamp(min=_MIN_PRECISION)
    precision = torch.minimum(((1.0 / ratio - 1.0) / spread).clamp(min=_MIN_PRECISION), bound)
    pull = (center + spread.sqrt() * shift) * (precision + 1.0 / spread) - center / spread
    known = 1.0 + precision * spread
    exponent = 0.5 * ((center / spread + pull).square() * spread / known - center.square() / spread)
    log_scale = log_total + 0.5 * torch.log(known) - exponent
    return Sites(copies * precision, copies * pull, copies * log_scale)


@dataclass(frozen=True, eq=False)
class GeneralisedMixedModel:
    """Estimates of a generalised linear mixed model.

    Attributes
    ----------
    beta : (feature,)
        Posterior mean of the fixed effects.
    beta_cov : (feature, feature)
        Covariance of `beta`.
    sd : (effect,)
        Prior standard deviations of the random effects.
    noise_var : float, or None
        Variance of a normal outcome given the effects; None for two classes.
    log_likelihood : float
        Marginal log-likelihood at the estimates, integrated over beta and all effects. For two
        classes, its approximation by expectation propagation.
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
    rate: Array | None = None,
) -> GeneralisedMixedModel:
    r"""Maximise the marginal likelihood, integrated over fixed and random effects.

    For a normal outcome this is the restricted likelihood. For two classes it is approximated by
    expectation propagation. Unlike Laplace's approximation, this is accurate for few rows per task
    and large variance between tasks.

    Parameters
    ----------
    x : (row, feature)
        Fixed-effect design, the intercept included.
    z : (row, effect)
        Random-effect design.
    y : (row,)
        Outcome; 0 or 1 if `binary`.
    starts : (task + 1,)
        Offsets: task i has the rows ``starts[i]:starts[i + 1]``.
    binary : bool
        Bernoulli with logit link, else normal.
    offset : (row,), optional
        Added to the linear predictor.
    shared : (effect,), optional
        Effects with the same number share one sd. By default each has its own.
    shrunk : (feature,), optional
        Fixed effects with the same number, 0 or more, share a normal prior with learned sd; -1 for
        no shared prior. Useful for few tasks with features that vary little within tasks.
    beta_sd : float
        Prior sd of the other fixed effects; keeps estimates finite if classes are separated.
    positive : (effect,) bool, optional
        Effects whose sd has a prior density proportional to the sd, which prevents estimates of 0
        with few tasks.
    rate : (effect,), optional
        Rate of an exponential prior on each effect's sd, which shrinks sds that few tasks cannot
        determine. The sd is divided by the sd of the noise (:math:`\pi / \sqrt 3` for log-odds).
        None for no prior.

    References
    ----------
    Breslow, Clayton (1993), doi:10.1080/01621459.1993.10594284. Minka (2001), arXiv:1301.2294.
    Chung et al. (2013), doi:10.1007/s11336-013-9328-2 (`positive`). Simpson et al. (2017),
    doi:10.1214/16-STS576 (`rate`).

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
    tasks = _Tasks(x, z, y, starts, offset, binary=binary)
    shared = np.arange(z.shape[1]) if shared is None else np.unique(shared, return_inverse=True)[1]
    n_sds, group = int(shared.max()) + 1, torch.from_numpy(shared)
    shrunk = np.full(x.shape[1], -1) if shrunk is None else shrunk
    learned, prior = torch.from_numpy(shrunk >= 0), torch.from_numpy(np.maximum(shrunk, 0))
    n_priors = int(shrunk.max(initial=-1)) + 1
    is_positive = torch.from_numpy(np.zeros(z.shape[1], bool) if positive is None else positive)
    prior_rate = torch.from_numpy(np.zeros(z.shape[1]) if rate is None else rate)

    def parts(values: Array) -> tuple[Tensor, Tensor, Tensor]:
        """Prior sds of the effects (effect,) and of beta (feature,), and noise variance ()."""
        theta = torch.from_numpy(values)
        of_beta = torch.full_like(learned, beta_sd, dtype=theta.dtype)
        if n_priors:
            of_beta = torch.where(learned, torch.exp(theta[n_sds:-1])[prior], of_beta)
        return torch.exp(theta[:n_sds])[group], of_beta, torch.exp(2.0 * theta[-1])

    def objective(values: Array) -> tuple[float, Array]:
        sd, of_beta, noise_var = parts(values)
        value, of_sd, of_beta_sd, of_noise = tasks.log_likelihood(sd, of_beta, noise_var)
        cost = prior_rate * sd / (_LOGISTIC_SD if binary else torch.sqrt(noise_var))
        value += float(torch.log(sd[is_positive]).sum() - cost.sum())
        of_sd = torch.zeros(n_sds).double().index_add(0, group, of_sd + is_positive.double() - cost)
        if not binary:  # whose cost is relative to the noise
            of_noise = of_noise + cost.sum()
        of_prior = torch.zeros(n_priors).double()
        of_prior = of_prior.index_add(0, prior[learned], of_beta_sd[learned])
        return -value, -torch.cat([of_sd, of_prior, of_noise[None]]).numpy()

    noise = 0.0 if binary else 0.5 * np.log(max(float(np.var(y)), 1e-12))
    first = np.concatenate([np.full(n_sds + n_priors, np.log(_FIRST_SD)), [noise]])
    limits = [tuple(np.log(_SD_RANGE))] * (n_sds + n_priors) + [(None, None)]
    best = lbfgs(objective, first, bounds=limits, options=_SEARCH)
    sd, of_beta, noise_var = parts(best.x)
    log_likelihood, *_ = tasks.log_likelihood(sd, of_beta, noise_var)
    found = tasks.posterior(sd, of_beta, noise_var)
    return GeneralisedMixedModel(
        beta=found.beta.numpy(),
        beta_cov=found.beta_cov.numpy(),
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
    """Mean (task, effect) and covariance (task, effect, effect) of the effects ``D u``, given beta.

    A task without rows gets the prior.
    """
    binary = model.noise_var is None
    fixed = x @ model.beta + (0.0 if offset is None else offset)
    tasks = _Tasks(x[:, :0], z, y, starts, fixed, binary=binary)
    sd = torch.from_numpy(model.sd)
    noise_var = torch.tensor(1.0 if binary else model.noise_var, dtype=torch.float64)
    found = tasks.posterior(sd, sd[:0], noise_var)
    order = np.argsort(np.concatenate(tasks.order), kind="stable")
    mean = torch.cat(found.u)[order]
    covariance = torch.cat([torch.cholesky_inverse(one.root) for one in found.factors])[order]
    return (sd * mean).numpy(), (sd[:, None] * covariance * sd).numpy()


@dataclass(frozen=True, eq=False)
class _Bucket:
    """Tasks of similar size: rows (task, row, ...), 0 where padded."""

    x: Tensor
    z: Tensor
    y: Tensor
    offset: Tensor
    mask: Tensor  # 1 or 0


class _Factors(NamedTuple):
    """Factors of the negative Hessian of the log density of beta and u, given the sites.

    A is Z times the sds, and W holds the precisions of the sites.
    """

    a: Tensor  # (task, row, effect)
    root: Tensor  # (task, effect, effect) root of I + A'WA
    explained: Tensor  # (task, effect, feature) (I + A'WA)^-1 A'WX


class _Posterior(NamedTuple):
    """Mean of beta and u, given the sites, and the factors of their precision."""

    beta: Tensor  # (feature,)
    u: list[Tensor]  # (task, effect) of each bucket
    eta: list[Tensor]  # (task, row) linear predictor
    factors: list[_Factors]
    of_beta: Tensor  # (feature, feature) root of the Schur complement that eliminates u

    @property
    def beta_cov(self) -> Tensor:
        """Covariance of beta, (feature, feature)."""
        return torch.cholesky_inverse(self.of_beta)


class _Tasks:
    """Rows of all tasks in buckets, so that a large one pads few others, and current sites.

    Sizes differ by less than a factor of 2 within a bucket. ``order`` are the buckets' tasks.
    """

    def __init__(
        self, x: Array, z: Array, y: Array, starts: Index, offset: Array | None, *, binary: bool
    ) -> None:
        self.binary, self.n_rows = binary, len(y)
        offset = np.zeros(len(y)) if offset is None else offset
        if not binary:
            x, z, y, starts = _compressed(x, z, y - offset, starts)
            offset = np.zeros(len(y))
        sizes = np.diff(starts)
        doublings = np.frexp(sizes)[1]
        sizes_alike = [np.flatnonzero(doublings == one) for one in np.unique(doublings)]
        self.order = sizes_alike or [np.flatnonzero(doublings)]
        columns = [torch.from_numpy(np.asarray(one, np.float64)) for one in (x, z, y, offset)]
        first, n = (torch.from_numpy(np.asarray(one, np.int64)) for one in (starts[:-1], sizes))
        self.buckets, self.sites = [], []
        for tasks in self.order:
            index, mask = padded_index(first[tasks], n[tasks])
            real = mask.double()
            wide = real[..., None]
            padded_x, padded_z = (one[index] * wide for one in columns[:2])
            outcome, known = (one[index] * real for one in columns[2:])
            self.buckets.append(_Bucket(padded_x, padded_z, outcome, known, real))
            p = torch.sigmoid(known)
            precision = p * (1.0 - p) * real
            pull = (outcome - p) * real + precision * known
            self.sites.append(Sites(precision, pull, 0.0 * real))

    def log_likelihood(
        self, sd: Tensor, beta_sd: Tensor, noise_var: Tensor
    ) -> tuple[float, Tensor, Tensor, Tensor]:
        """Marginal log-likelihood over beta and the effects of all tasks, and its derivatives.

        They are by the logarithms of `sd` (effect,), of `beta_sd` (feature,) and of the noise's sd
        (): posterior minus prior moments, because the derivative by sites and mode is 0.
        """
        found = self.posterior(sd, beta_sd, noise_var, _WHILE_SEARCHING)
        covariance, beta = found.beta_cov, found.beta
        value = -0.5 * (beta / beta_sd).square().sum() - torch.log(beta_sd).sum()
        value = value - _log_det(found.of_beta)
        of_sd, of_noise = torch.zeros_like(sd), torch.zeros(()).double()
        parts = zip(self.buckets, self.sites, found.u, found.eta, found.factors, strict=True)
        for rows, sites, u, eta, factors in parts:
            precision, pull, log_scale = sites
            value = value + (log_scale + pull * eta - 0.5 * precision * eta.square()).sum()
            value = value - 0.5 * u.square().sum() - _log_det(factors.root)
            inverse = torch.diagonal(torch.cholesky_inverse(factors.root), dim1=-2, dim2=-1)
            from_beta = ((factors.explained @ covariance) * factors.explained).sum(-1)
            of_sd = of_sd + (u.square() + inverse + from_beta - 1.0).sum(0)
            if not self.binary:
                value = value - 0.5 * (precision * rows.y.square()).sum()
                spread = (rows.y - eta).square() + _variance(rows, factors, found.of_beta)
                of_noise = of_noise + (precision * spread).sum()
        if not self.binary:
            value = value - 0.5 * self.n_rows * torch.log(2.0 * torch.pi * noise_var)
        of_beta_sd = (beta.square() + torch.diagonal(covariance)) / beta_sd.square() - 1.0
        return float(value), of_sd, of_beta_sd, of_noise - (0.0 if self.binary else self.n_rows)

    def posterior(
        self, sd: Tensor, beta_sd: Tensor, noise_var: Tensor, converged: float = _CONVERGED
    ) -> _Posterior:
        """Posterior of beta and u.

        For two classes, the sites are matched until convergence, starting from the current ones.
        """
        if not self.binary:
            precisions = [rows.mask / noise_var for rows in self.buckets]
            self.sites = [
                Sites(precision, precision * rows.y, torch.zeros_like(precision))
                for rows, precision in zip(self.buckets, precisions, strict=True)
            ]
        found = self._solve(sd, beta_sd)
        for _ in range(_MAX_SWEEPS if self.binary else 0):
            before = found.eta
            for i, rows in enumerate(self.buckets):
                variance = _variance(rows, found.factors[i], found.of_beta)
                matched = matched_sites(rows.y, rows.mask, before[i], variance, self.sites[i])
                self.sites[i] = Sites(*(part * rows.mask for part in matched))
            found = self._solve(sd, beta_sd)
            changes = (
                (torch.abs(now - then) * rows.mask).sum()
                for now, then, rows in zip(found.eta, before, self.buckets, strict=True)
            )
            if float(sum(changes)) < converged * self.n_rows:
                break
        return found

    def _solve(self, sd: Tensor, beta_sd: Tensor) -> _Posterior:
        """Posterior of beta and u, given the sites."""
        schur, of_beta = torch.diag(beta_sd**-2), torch.zeros_like(beta_sd)
        factors, pulled = [], []
        identity = torch.eye(len(sd), dtype=sd.dtype)
        for rows, sites in zip(self.buckets, self.sites, strict=True):
            a, weighted_x = rows.z * sd, rows.x * sites.precision[..., None]
            root = torch.linalg.cholesky((a * sites.precision[..., None]).mT @ a + identity)
            cross = a.mT @ weighted_x
            explained = torch.cholesky_solve(cross, root)
            pull = sites.pull - sites.precision * rows.offset
            of_u = (a.mT @ pull[..., None])[..., 0]
            gram = rows.x.flatten(0, 1).mT @ weighted_x.flatten(0, 1)
            schur = schur + gram - cross.flatten(0, 1).mT @ explained.flatten(0, 1)
            of_beta = of_beta + torch.einsum("tni,tn->i", rows.x, pull)
            of_beta = of_beta - torch.einsum("tqi,tq->i", explained, of_u)
            factors.append(_Factors(a, root, explained))
            pulled.append(of_u)
        root = torch.linalg.cholesky(schur)
        beta = torch.cholesky_solve(of_beta[:, None], root)[:, 0]
        u = [
            torch.cholesky_solve(of_u[..., None], one.root)[..., 0] - one.explained @ beta
            for one, of_u in zip(factors, pulled, strict=True)
        ]
        eta = [
            rows.offset + rows.x @ beta + (one.a @ effects[..., None])[..., 0]
            for rows, one, effects in zip(self.buckets, factors, u, strict=True)
        ]
        return _Posterior(beta, u, eta, factors, root)


def _variance(rows: _Bucket, factors: _Factors, of_beta: Tensor) -> Tensor:
    """Variance of the linear predictor, (task, row)."""
    effects = torch.linalg.solve_triangular(factors.root, factors.a.mT, upper=False)
    residual = (rows.x - factors.a @ factors.explained).flatten(0, 1)
    common = torch.linalg.solve_triangular(of_beta, residual.mT, upper=False)
    variance: Tensor = effects.square().sum(1) + common.square().sum(0).reshape(rows.mask.shape)
    return variance


def _compressed(x: Array, z: Array, y: Array, starts: Index) -> tuple[Array, Array, Array, Index]:
    """Replace the rows of each task by fewer rows with the same cross-products.

    A normal outcome needs only the cross-products.
    """
    columns = np.column_stack([x, z, y])
    bounds = zip(starts[:-1], starts[1:], strict=True)
    parts = [np.linalg.qr(columns[a:b], mode="r") for a, b in bounds]
    rows = np.concatenate(parts) if parts else columns
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return rows[:, : x.shape[1]], rows[:, x.shape[1] : -1], rows[:, -1], starts


def _log_det(root: Tensor) -> Tensor:
    """Sum of the logarithms of the diagonals of Cholesky factors."""
    return torch.log(torch.diagonal(root, dim1=-2, dim2=-1)).sum()
