"""Laplace and expectation-propagation approximations for non-Gaussian likelihoods.

A process or mixed model is conditioned, round by round, on normal pseudo-observations that stand
for the outcomes: `pseudo_observations` match slope and curvature, `matched_observations` moments.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ehrmeta.nn.backbone import Params
from ehrmeta.nn.likelihoods import (
    ClassLikelihood,
    Distribution,
    Likelihood,
    StudentT,
    degrees_of_freedom,
)

N_SWEEPS = 6  # of matching moments, from the mode

_LARGEST_MOVE = 4.0  # of a log-odds in one Newton step: keeps the first steps from overshooting
_LEAST_CURVATURE = 1e-4
_LARGEST_CURVATURE = 0.25
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_LEAST_VARIANCE = 1e-8  # of a cavity: where nothing varies, the site is the curvature
_LEAST_PRECISION = 1e-10
_LEAST_SHARE = 1e-6  # of a row's precision that the others must give


def n_rounds(likelihood: Likelihood) -> int:
    """Rounds of conditioning; one is exact for normal noise."""
    return 8 if isinstance(likelihood, ClassLikelihood | StudentT) else 1


def noise_variance(likelihood: Likelihood, params: Params) -> Tensor:
    """Squared scale of the noise; 0 for classes, whose noise is the drawing of the class."""
    if isinstance(likelihood, ClassLikelihood):
        return params["log_between"].new_zeros(()).double()
    return torch.exp(2.0 * params["log_within"]).double()


def pseudo_observations(
    likelihood: Likelihood,
    params: Params,
    y: Tensor,
    mean: Tensor,
    noise: Tensor,
    posterior: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Normal pseudo-observations: targets for the process and noise variances, (point,) each.

    They have the slope and curvature of the likelihood at the posterior mean: for two classes a
    Newton step towards the mode (Laplace's approximation), for Student's t the residual with a
    noise that grows with it (expectation maximisation over the scale mixture).

    Parameters
    ----------
    y, mean, noise : (point,)
        Outcome, mean and squared scale of the noise.
    posterior : tuple of Tensor, or None
        Posterior mean and variance of the process after the last round.
    """
    if isinstance(likelihood, ClassLikelihood):
        latent = torch.zeros_like(mean) if posterior is None else posterior[0]
        p = torch.sigmoid(mean + latent)
        curvature = (p * (1.0 - p)).clamp(min=_LEAST_CURVATURE)
        return latent + (y - p) / curvature, 1.0 / curvature
    target = y - mean
    if isinstance(likelihood, StudentT) and posterior is not None:
        latent, variance = posterior
        dof = degrees_of_freedom(params).double()
        noise = noise * (dof + ((target - latent).square() + variance) / noise) / (dof + 1.0)
    return target, noise


def damped_posterior(
    likelihood: Likelihood, before: tuple[Tensor, Tensor] | None, after: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Posterior that the next round starts from: for classes, after a bounded Newton step.

    The step is shortened as a whole. Shortening it point by point would shift the mode of rare
    classes.
    """
    if not isinstance(likelihood, ClassLikelihood):
        return after
    mean, variance = after
    start = torch.zeros_like(mean) if before is None else before[0]
    step = mean - start
    largest = torch.cat([step.abs(), step.new_full((1,), _LARGEST_MOVE)]).amax()
    return start + step * (_LARGEST_MOVE / largest), variance


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


def predictive_distribution(
    likelihood: Likelihood,
    params: Params,
    loc: Tensor,
    variance: Tensor,
    noise: Tensor,
    factor: Tensor,
    dtype: torch.dtype,
) -> Distribution:
    """Predictive distribution given the process's posterior mean and variance, (point,) each.

    What is added to Student's t noise is normal: the variance is that of the sum, and the tails
    thin out by the noise's share of it. `factor` multiplies the scale.
    """
    if isinstance(likelihood, ClassLikelihood):
        return {"logits": likelihood.logits(loc[:, None], variance[:, None]).to(dtype)}
    if not isinstance(likelihood, StudentT):
        return {"loc": loc.to(dtype), "scale": (torch.sqrt(variance + noise) * factor).to(dtype)}
    beyond = degrees_of_freedom(params).double() - 2.0
    spread = noise * (beyond + 2.0) / beyond  # variance of the noise
    total = variance + spread
    dof = 2.0 + beyond * (total / spread).square()
    scale = torch.sqrt(total * (dof - 2.0) / dof)
    return {"loc": loc.to(dtype), "scale": (scale * factor).to(dtype), "dof": dof.to(dtype)}


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
