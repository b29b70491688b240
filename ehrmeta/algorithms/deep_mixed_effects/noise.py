r"""Noise of a process: how a likelihood is met by conditioning on normal pseudo-observations.

An outcome that is not normal given the process is replaced, round by round, by a normal one with
the same slope and curvature: for Student's t the residual with a noise that grows with it
(expectation maximisation over the scale mixture), for two classes Newton's step towards the mode
(Laplace's approximation), from where the moments may be matched (expectation propagation). One
round is exact for normal noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ehrmeta.algorithms._base import Params
from ehrmeta.nn.generalised_mixed_model import Sites, matched_sites
from ehrmeta.nn.likelihoods import (
    ClassLikelihood,
    Distribution,
    Likelihood,
    StudentT,
    degrees_of_freedom,
)

__all__ = [
    "N_SWEEPS",
    "matched_observations",
    "moved",
    "n_rounds",
    "noise_variance",
    "predictive",
    "pseudo_observations",
]

N_SWEEPS = 6  # of matching moments, from the mode

_LARGEST_MOVE = 4.0  # of a log-odds in one Newton step: keeps the first steps from overshooting
_LEAST_CURVATURE = 1e-4


def n_rounds(likelihood: Likelihood) -> int:
    """Rounds of conditioning."""
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
    found: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Targets for the process, and their noise variances, (point,) each.

    Parameters
    ----------
    y, mean, noise : (point,)
        Outcome, mean and squared scale of the noise.
    found : tuple of Tensor, or None
        Posterior mean and variance of the process after the last round.
    """
    if isinstance(likelihood, ClassLikelihood):
        latent = torch.zeros_like(mean) if found is None else found[0]
        p = torch.sigmoid(mean + latent)
        curvature = (p * (1.0 - p)).clamp(min=_LEAST_CURVATURE)
        return latent + (y - p) / curvature, 1.0 / curvature
    target = y - mean
    if isinstance(likelihood, StudentT) and found is not None:
        latent, variance = found
        dof = degrees_of_freedom(params).double()
        noise = noise * (dof + ((target - latent).square() + variance) / noise) / (dof + 1.0)
    return target, noise


def moved(
    likelihood: Likelihood, before: tuple[Tensor, Tensor] | None, after: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Where the next round starts: for classes a bounded part of the way from the last start.

    The whole step is shortened, never a point's own, which would move the mode of rare classes.
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
    found: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Pseudo-observations of two classes whose moments match: targets and noise, (point,) each.

    Parameters
    ----------
    y, weight, mean : (point,)
        Class, what multiplies its log-likelihood, and mean of the log-odds.
    observed : tuple of Tensor
        The present targets and noise variances.
    found : tuple of Tensor
        Posterior mean and variance of the process, given those.
    """
    target, spread = observed
    present = Sites(1.0 / spread, (mean + target) / spread, torch.zeros_like(mean))
    sites = matched_sites(y, weight, mean + found[0], found[1], present)
    return sites.pull / sites.precision - mean, 1.0 / sites.precision


def predictive(
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
