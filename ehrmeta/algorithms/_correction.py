"""What the support says beyond the process: a linear correction in closed form, and a network.

Both move the prediction by a multiple of the posterior sd, so that they vanish as a task's own
rows come in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Episodes, Params, Spec, part
from ehrmeta.algorithms._mixed_start import FEW_TASKS
from ehrmeta.nn.backbone import Network
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.mlp import MLP

__all__ = ["correction", "correction_params", "fit_linear_correction", "summary"]

_NETWORK = MLP((32, 32))
_N_OWN = 10  # mean, posterior mean and sd of the query; `summary`
_EMPTY = 1  # place in `summary`
# Which of the own inputs are multiplied. An outlying level, few rows and a restless support each
# change how far the posterior mean is to be trusted.
_MEAN, _SHIFT, _LEFT, _COUNT, _LATEST, _LEVEL, _SPREAD = 0, 1, 2, 3, 5, 6, 7
_ONE = (_MEAN, _SHIFT, _SHIFT, _SHIFT, _SHIFT, _LEFT, _LEFT)
_TWO = (_MEAN, _SHIFT, _LEFT, _COUNT, _SPREAD, _LATEST, _LEVEL)
_CLIP = 5.0  # standard deviations
_LEAST_SCALE = 0.1  # of the outcome's sd: what hardly varies at the start may do so after training
_PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # of the mean diagonal
_N_FOLDS = 10


def _n_inputs(spec: Spec) -> int:
    return spec.n_features + _N_OWN


def _network(spec: Spec) -> Network:
    """Two outputs: shift of the mean in posterior sds, and log factor of the scale."""
    return _NETWORK.network(_n_inputs(spec), 2)


def correction_params(spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
    """No correction yet."""
    n = _n_inputs(spec)
    network = _network(spec).init(generator)
    return {
        **{f"correction.{name}": value for name, value in network.items()},
        "correction_gain": torch.zeros(2),
        "correction_linear": torch.zeros(_n_terms(spec)),
        "correction_center": torch.zeros(n),
        "correction_scale": torch.ones(n),
    }


def summary(residual: Tensor, support: TaskSet) -> Tensor:
    """What is kept of the support, (7,): how many, and the last, mean and spread of its rows."""
    weight, y = support.weight.double(), support.y.double() - support.offset.double()
    total = weight.sum()
    last = weight * (support.time >= 0.0)

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / weight.sum().clamp(min=1e-12)

    def spread(values: Tensor) -> Tensor:
        center = mean(values, weight)
        return torch.sqrt(mean((values - center).square(), weight) + 1e-6)

    return torch.stack(
        [
            torch.log1p(total),
            torch.where(total > 0, 0.0, 1.0),
            mean(residual, last),
            mean(residual, weight),
            spread(residual),
            mean(y, last),
            spread(y),
        ]
    )


def correction(
    spec: Spec,
    params: Params,
    support_summary: Tensor,
    query: TaskSet,
    mean: Tensor,
    shift: Tensor,
    left: Tensor,
) -> tuple[Tensor, Tensor]:
    """Shift of the mean and factor of the scale, (point,) each.

    Parameters
    ----------
    mean, shift, left : (point,)
        Population mean, posterior mean and posterior sd.
    """
    inputs = _inputs(support_summary, query, mean, shift, left)
    inputs = _standard(inputs, params["correction_center"], params["correction_scale"])
    linear = _terms(inputs, support_summary) @ params["correction_linear"].double()
    found = _network(spec).forward(part(params, "correction"), {}, inputs.to(query.x.dtype))
    found = (found * params["correction_gain"]).double()
    return left * (linear + found[:, 0]), torch.exp(found[:, 1])


def _inputs(
    support_summary: Tensor, query: TaskSet, mean: Tensor, shift: Tensor, left: Tensor
) -> Tensor:
    """Features, then what the process and the support say, free of the offset: (point, input)."""
    own = torch.stack([mean - query.offset, shift, left], -1)
    return torch.cat([query.x.double(), own, support_summary.expand(len(own), -1)], -1)


def _standard(inputs: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """Clipped, so that no gross error is squared."""
    return ((inputs - center.detach()) / scale.detach()).clamp(-_CLIP, _CLIP)


def _terms(inputs: Tensor, support_summary: Tensor) -> Tensor:
    """1, inputs, products of the process's and the support's, features without support."""
    x, own = inputs[..., :-_N_OWN], inputs[..., -_N_OWN:]
    empty = support_summary[..., _EMPTY, None, None]
    ones = torch.ones_like(own[..., :1])
    return torch.cat([ones, inputs, own[..., _ONE] * own[..., _TWO], empty * x], -1)


def _n_terms(spec: Spec) -> int:
    return 1 + _n_inputs(spec) + len(_ONE) + spec.n_features


def fit_linear_correction(
    parts: Callable[[TaskSet, TaskSet], tuple[Tensor, Tensor, Tensor, Tensor]],
    episodes: Episodes,
    n_tasks: int,
) -> dict[str, Tensor]:
    """Ridge regression of what the process leaves unexplained, every task counting the same.

    The penalty is the best over folds of tasks. With fewer than 50 tasks there is no correction
    unless it gains more than a standard error over the folds.

    Parameters
    ----------
    parts : callable
        Summary, mean, posterior mean and posterior sd of one task's query.
    episodes : iterable
        Of the training tasks.
    n_tasks : int
        Number of training tasks.
    """

    def one_task(support: TaskSet, query: TaskSet) -> tuple[Tensor, ...]:
        support_summary, mean, shift, left = parts(support, query)
        inputs = _inputs(support_summary, query, mean, shift, left)
        residual = query.y.double() - mean - shift
        return inputs, left, residual, query.weight.double(), support_summary.expand(len(left), -1)

    found = []
    with torch.no_grad():
        for tasks, support, query in episodes:
            columns = vmap(one_task)(support, query)
            task = tasks[:, None].expand(query.mask.shape)
            found.append([column[query.mask] for column in (*columns, task)])
    inputs, left, residual, weight, own, task = (torch.cat(c) for c in zip(*found, strict=True))
    weight = weight / torch.bincount(task, weight, minlength=n_tasks)[task]
    center = (weight[:, None] * inputs).sum(0) / weight.sum()
    scale = torch.sqrt((weight[:, None] * (inputs - center).square()).sum(0) / weight.sum())
    scale = torch.where(scale > 1e-6 * (1.0 + center.abs()), scale, 1.0)
    scale[-_N_OWN:].clamp_(min=_LEAST_SCALE)
    design = left[:, None] * _terms(_standard(inputs, center, scale)[:, None], own)[:, 0]
    both = torch.cat([design, residual[:, None]], 1) * weight.sqrt()[:, None]
    folds = [both[task % _N_FOLDS == i] for i in range(min(_N_FOLDS, n_tasks))]
    grams = torch.stack([fold.mT @ fold for fold in folds])
    linear = _ridge(grams, float((weight * left.square()).sum()), n_tasks < FEW_TASKS)
    return {
        "correction_linear": linear,
        "correction_center": center,
        "correction_scale": scale,
    }


def _ridge(grams: Tensor, unit: float, few: bool) -> Tensor:
    """Coefficients from the cross-products (fold, column, column) of design and outcome."""
    total = grams.sum(0)
    size = total.shape[0] - 1
    eye = torch.eye(size, dtype=total.dtype)

    def solve(gram: Tensor, penalty: float) -> Tensor:
        found: Tensor = torch.linalg.solve(gram[:size, :size] + penalty * eye, gram[:size, size])
        return found

    penalties = [share * unit for share in _PENALTIES]
    losses = torch.stack(
        [torch.stack([_loss(gram, solve(total - gram, p)) for gram in grams]) for p in penalties]
    )
    best = int(losses.sum(1).argmin())
    gain = grams[:, size, size] - losses[best]
    asked = float(gain.std()) / len(grams) ** 0.5 if few else 0.0
    if float(gain.mean()) <= asked:
        return torch.zeros(size, dtype=total.dtype)
    return solve(total, penalties[best])


def _loss(gram: Tensor, solution: Tensor) -> Tensor:
    size = len(solution)
    cross = gram[:size, size] @ solution
    return gram[size, size] - 2.0 * cross + solution @ gram[:size, :size] @ solution
