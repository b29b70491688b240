"""Conditioning a Gaussian process on one task's support, in float64 under masks.

In function space, at the cube of the support's size; or, where the kernel is ``E E'`` of few
effects, in weight space, at the cube of their number.
"""

import torch
from torch import Tensor

from ehrmeta.nn.backbone import Params

_NOISE_FLOOR = 1e-6  # of the mean prior variance: keeps the factorisation positive definite


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
        False where padded: such points carry no information.

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
        From `condition`.
    cross : (query, point)
        Prior covariance of query and support.
    prior : (query,)
        Prior variance of the query.
    """
    cross = cross * state["seen"]
    mean = cross @ state["alpha"]
    explained = torch.linalg.solve_triangular(state["factor"], cross.mT, upper=False)
    return mean, (prior - explained.square().sum(0)).clamp(min=0.0)


def condition_effects(
    effects: Tensor, residual: Tensor, noise: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """Condition ``f = E b``, ``b ~ N(0, I)``, on residuals observed with noise.

    The same as `condition` with the kernel ``E E'``, by ``(I + E' N^-1 E)^-1``.

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
        From `condition_effects`.
    effects : (query, effect)
        Root of the prior covariance at the query.
    """
    white = torch.linalg.solve_triangular(state["root"], effects.mT, upper=False)
    return effects @ state["b"], white.square().sum(0)
