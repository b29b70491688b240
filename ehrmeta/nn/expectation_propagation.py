"""Expectation propagation: normal pseudo-observations of two classes whose moments match."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

N_SWEEPS = 6  # of matching moments, from the mode
_LARGEST_CURVATURE = 0.25
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_LEAST_VARIANCE = 1e-8  # of a cavity: where nothing varies, the site is the curvature
_LEAST_PRECISION = 1e-10
_LEAST_SHARE = 1e-6  # of a row's precision that the others must give


def matched_observations(
    y: Tensor,
    weight: Tensor,
    mean: Tensor,
    observed: tuple[Tensor, Tensor],
    posterior: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Pseudo-observations of two classes whose moments match: targets and noise, (point,) each.

    Parameters
    ----------
    y, weight, mean : (point,)
        Class, what multiplies its log-likelihood, and mean of the log-odds.
    observed : tuple of Tensor
        The present targets and noise variances.
    posterior : tuple of Tensor
        Posterior mean and variance of the process, given those.
    """
    target, spread = observed
    present = Sites(1.0 / spread, (mean + target) / spread, torch.zeros_like(mean))
    sites = matched_sites(y, weight, mean + posterior[0], posterior[1], present)
    return sites.pull / sites.precision - mean, 1.0 / sites.precision


class Sites(NamedTuple):
    """Normal pseudo-observations of the linear predictor, (row,) each."""

    precision: Tensor
    pull: Tensor  # precision times the observed value
    log_scale: Tensor


def matched_sites(y: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, sites: Sites) -> Sites:
    r"""One sweep of expectation propagation: sites of Bernoulli rows whose moments match.

    A row's likelihood :math:`\sigma(\pm\eta)` is replaced by a site
    :math:`s\, e^{\nu \eta - \tau \eta^2 / 2}` so that, given all other rows, the normal posterior
    has the mean and variance that the row itself would give. A row of weight w counts as w copies;
    of less than 1, by that power of its likelihood. Where supports are small and tasks differ much,
    mean and mode lie far apart, and the curvature at the mode overstates what is known.

    Parameters
    ----------
    y, weight : (row,)
        0 or 1, and how often the row counts.
    mean, variance : (row,)
        Of the linear predictor, given the present sites.
    sites : Sites
        The present ones.

    References
    ----------
    Minka (2001), arXiv:1301.2294. Nickisch, Rasmussen (2008), JMLR 9:2035-2078.
    """
    copies, power = weight.clamp(min=1.0), weight.clamp(max=1.0)
    without = (1.0 - sites.precision / copies * variance).clamp(min=_LEAST_SHARE)
    center = (mean - variance * sites.pull / copies) / without
    spread = (variance / without).clamp(min=_LEAST_VARIANCE)
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
    # few nodes of a wide cavity may give a precision above the largest curvature, its true bound
    most = (_LARGEST_CURVATURE * power).clamp(min=_LEAST_PRECISION)
    precision = torch.minimum(((1.0 / ratio - 1.0) / spread).clamp(min=_LEAST_PRECISION), most)
    pull = (center + spread.sqrt() * shift) * (precision + 1.0 / spread) - center / spread
    known = 1.0 + precision * spread
    exponent = 0.5 * ((center / spread + pull).square() * spread / known - center.square() / spread)
    log_scale = log_total + 0.5 * torch.log(known) - exponent
    return Sites(copies * precision, copies * pull, copies * log_scale)
