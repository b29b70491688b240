"""Expectation propagation: moment-matched normal pseudo-observations for two classes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

N_SWEEPS = 6  # sweeps of moment matching, starting at the mode
_MAX_CURVATURE = 0.25
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_MIN_VARIANCE = 1e-8  # of a cavity (the posterior without one site), which is a divisor
_MIN_PRECISION = 1e-10
_MIN_SHARE = 1e-6  # smallest share of the precision at a row that comes from other rows


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
