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
from scipy.optimize import minimize
from torch import Tensor

from ehrmeta.nn.batch import padded_index

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
    tasks = _Padded.of(x, z, y, starts, offset, binary=binary)
    shared = np.arange(z.shape[1]) if shared is None else np.unique(shared, return_inverse=True)[1]
    n_sds, group = int(shared.max()) + 1, torch.from_numpy(shared)
    shrunk = np.full(x.shape[1], -1) if shrunk is None else shrunk
    learned, prior = torch.from_numpy(shrunk >= 0), torch.from_numpy(np.maximum(shrunk, 0))
    n_priors = int(shrunk.max(initial=-1)) + 1
    is_positive = torch.from_numpy(np.zeros(z.shape[1], bool) if positive is None else positive)
    prior_rate = torch.from_numpy(np.zeros(z.shape[1]) if rate is None else rate)

    def parts(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prior sds of the effects (effect,) and of beta (feature,), and noise variance ()."""
        weak = torch.full_like(learned, beta_sd, dtype=theta.dtype)
        of_beta = weak
        if n_priors:
            of_beta = torch.where(learned, torch.exp(theta[n_sds:-1])[prior], weak)
        return torch.exp(theta[:n_sds])[group], of_beta, torch.exp(2.0 * theta[-1])

    def objective(values: Array) -> tuple[float, Array]:
        theta = torch.from_numpy(values).requires_grad_()
        sd, of_beta, noise_var = parts(theta)
        unit = _LOGISTIC_SD if binary else torch.sqrt(noise_var.detach())
        prior = torch.log(sd[is_positive]).sum() - (prior_rate * sd / unit).sum()
        loss = -tasks.log_likelihood(sd, of_beta, noise_var) - prior
        (gradient,) = torch.autograd.grad(loss, theta)
        return float(loss.detach()), gradient.numpy()

    noise = 0.0 if binary else 0.5 * np.log(max(float(np.var(y)), 1e-12))
    first = np.concatenate([np.full(n_sds + n_priors, np.log(_FIRST_SD)), [noise]])
    limits = [tuple(np.log(_SD_RANGE))] * (n_sds + n_priors) + [(None, None)]
    best = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=limits, options=_SEARCH)
    sd, of_beta, noise_var = parts(torch.from_numpy(best.x))
    log_likelihood = float(tasks.log_likelihood(sd, of_beta, noise_var))
    beta, _, given = tasks.posterior(sd, of_beta, noise_var)
    return GeneralisedMixedModel(
        beta=beta.numpy(),
        beta_cov=torch.cholesky_inverse(given.of_beta).numpy(),
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
    tasks = _Padded.of(x[:, :0], z, y, starts, fixed, binary=binary)
    sd = torch.from_numpy(model.sd)
    noise_var = torch.tensor(1.0 if binary else model.noise_var, dtype=torch.float64)
    _, u, given = tasks.posterior(sd, sd[:0], noise_var)
    covariance = torch.cholesky_inverse(given.of_effects)
    return (sd * u).numpy(), (sd[:, None] * covariance * sd).numpy()


@dataclass(frozen=True, eq=False)
class _Curvature:
    """Factors of the negative Hessian of the joint log density of beta and u, given the sites.

    A is Z times the sds, and W holds the precisions of the sites.
    """

    of_effects: Tensor  # (task, effect, effect) root of I + A'WA
    explained: Tensor  # (task, effect, feature) (I + A'WA)^-1 A'WX
    of_beta: Tensor  # (feature, feature) root of the Schur complement that eliminates u


@dataclass(eq=False)
class _Padded:
    """Rows of all tasks, (task, row, ...), 0 where padded, and current sites for two classes."""

    x: Tensor
    z: Tensor
    y: Tensor
    offset: Tensor
    mask: Tensor  # 1 or 0
    binary: bool
    n_rows: int
    sites: Sites

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

        real, outcome, known = mask.double(), padded(y), padded(offset)
        p = torch.sigmoid(known)
        precision = p * (1.0 - p) * real
        curved = Sites(precision, (outcome - p) * real + precision * known, 0.0 * real)
        return cls(padded(x), padded(z), outcome, known, real, binary, n_rows, curved)

    def log_likelihood(self, sd: Tensor, beta_sd: Tensor, noise_var: Tensor) -> Tensor:
        """Marginal log-likelihood over beta and the effects of all tasks, ().

        Its derivative with respect to sites and mode is 0, so they are treated as constants.
        """
        with torch.no_grad():
            beta, u, _ = self.posterior(sd, beta_sd, noise_var, _WHILE_SEARCHING)
        sites = self._sites(noise_var)
        eta = self._eta(beta, u, sd)
        given = (sites.log_scale + sites.pull * eta - 0.5 * sites.precision * eta.square()).sum()
        prior = -0.5 * (u.square().sum() + (beta / beta_sd).square().sum())
        factors = self._curvature(sites, sd, beta_sd)
        volume = _log_det(factors.of_effects) + _log_det(factors.of_beta) + torch.log(beta_sd).sum()
        return given + prior - volume

    def posterior(
        self, sd: Tensor, beta_sd: Tensor, noise_var: Tensor, converged: float = _CONVERGED
    ) -> tuple[Tensor, Tensor, _Curvature]:
        """Mean of beta (feature,) and u (task, effect), and the factors of their precision.

        For two classes, the sites are matched until convergence, starting from the current ones.
        """
        sites = self._sites(noise_var)
        beta, u, factors = self._solve(sites, sd, beta_sd)
        eta = self._eta(beta, u, sd)
        for _ in range(_MAX_SWEEPS if self.binary else 0):
            variance = self._variance(factors, sd)
            matched = matched_sites(self.y, self.mask, eta, variance, sites)
            sites = Sites(*(part * self.mask for part in matched))
            beta, u, factors = self._solve(sites, sd, beta_sd)
            before, eta = eta, self._eta(beta, u, sd)
            if float(torch.abs((eta - before) * self.mask).sum()) < converged * self.n_rows:
                break
        self.sites = sites
        return beta, u, factors

    def _sites(self, noise_var: Tensor) -> Sites:
        """Sites of all rows: the current ones for two classes, exact ones for a normal outcome."""
        if self.binary:
            return self.sites
        precision = self.mask / noise_var
        squares = -0.5 * self.y.square() / noise_var
        scale = squares - 0.5 * self.n_rows / self.y.numel() * torch.log(2.0 * torch.pi * noise_var)
        return Sites(precision, precision * self.y, scale)

    def _eta(self, beta: Tensor, u: Tensor, sd: Tensor) -> Tensor:
        """Linear predictor (task, row)."""
        return self.offset + self.x @ beta + (self.z @ (sd * u)[..., None])[..., 0]

    def _curvature(self, sites: Sites, sd: Tensor, beta_sd: Tensor) -> _Curvature:
        a = self.z * sd
        weighted = (a * sites.precision[..., None]).mT
        identity = torch.eye(a.shape[-1], dtype=a.dtype)
        of_effects = torch.linalg.cholesky(weighted @ a + identity)
        cross = weighted @ self.x
        explained = torch.cholesky_solve(cross, of_effects)
        gram = torch.einsum("tni,tn,tnj->ij", self.x, sites.precision, self.x)
        schur = torch.diag(beta_sd**-2) + gram - torch.einsum("tqi,tqj->ij", cross, explained)
        return _Curvature(of_effects, explained, torch.linalg.cholesky(schur))

    def _solve(
        self, sites: Sites, sd: Tensor, beta_sd: Tensor
    ) -> tuple[Tensor, Tensor, _Curvature]:
        """Mean of beta and u given the sites, and the factors."""
        factors = self._curvature(sites, sd, beta_sd)
        pull = sites.pull - sites.precision * self.offset
        of_u = sd * (self.z.mT @ pull[..., None])[..., 0]
        of_beta = torch.einsum("tni,tn->i", self.x, pull)
        of_beta = of_beta - torch.einsum("tqi,tq->i", factors.explained, of_u)
        beta = torch.cholesky_solve(of_beta[:, None], factors.of_beta)[:, 0]
        u = torch.cholesky_solve(of_u[..., None], factors.of_effects)[..., 0]
        return beta, u - factors.explained @ beta, factors

    def _variance(self, factors: _Curvature, sd: Tensor) -> Tensor:
        """Variance of the linear predictor, (task, row)."""
        a = self.z * sd
        effects = torch.linalg.solve_triangular(factors.of_effects, a.mT, upper=False)
        residual = (self.x - a @ factors.explained).flatten(0, 1)
        common = torch.linalg.solve_triangular(factors.of_beta, residual.mT, upper=False)
        variance: Tensor = effects.square().sum(1) + common.square().sum(0).reshape(self.mask.shape)
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
