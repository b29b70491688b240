"""The meta-gradient in this package's own ways, as the trainer calls them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.speed.problem import Problem
from ehrmeta.algorithms import MAML, Algorithm, MetaSGD, Spec
from ehrmeta.nn import Normal
from ehrmeta.nn.backbone import Network, Params
from ehrmeta.training import EpisodeLoss

__all__ = ["compiled", "low_rank", "materialised", "meta_sgd", "prefers_low_rank"]

Run = Callable[[], dict[str, Tensor]]


def low_rank(problem: Problem) -> Run:
    """MAML with each task's change of the weights held as keys and values."""
    return _maml(problem, low_rank=True)


def compiled(problem: Problem) -> Run:
    """The form that MAML takes by itself, through ``torch.compile``."""
    return _maml(problem, low_rank=prefers_low_rank(problem), compiled=True)


def materialised(problem: Problem) -> Run:
    """MAML with each task's change of the weights held as matrices."""
    return _maml(problem, low_rank=False)


def meta_sgd(problem: Problem) -> Run:
    """Meta-SGD: the gradient of the start and of a rate for every weight, all equal here."""
    algorithm = MetaSGD(problem.rate, problem.steps, max_inner_norm=None, pseudo_count=0.0)
    return _trained_as(algorithm, problem, _network(problem))


def prefers_low_rank(problem: Problem) -> bool:
    """Which form MAML takes by itself."""
    network = _network(problem)
    return network.low_rank(problem.params, problem.shots, problem.steps)


def _trained_as(
    algorithm: Algorithm, problem: Problem, network: Network, *, compiled: bool = False
) -> Run:
    """The gradient of the mean query loss over the batch, at the problem's start.

    The likelihood is a Normal of standard deviation 1, so that its negative logarithm is half the
    squared error and a constant.
    """
    spec = Spec(network, Normal(), problem.widths[0])
    params = algorithm.init(spec, torch.Generator())
    params |= {f"network.{name}": value for name, value in problem.params.items()}
    params |= {"likelihood.log_within": torch.tensor(0.0)}
    params |= {"likelihood.log_between": torch.tensor(-math.inf)}
    device = problem.support.y.device
    params = {name: value.detach().clone().to(device) for name, value in params.items()}
    loss = EpisodeLoss(algorithm, spec, compiled=compiled, plain_calls=0)

    def run() -> dict[str, Tensor]:
        _, gradient = loss.gradient(params, problem.support, problem.query, 1.0)
        return {name: gradient[f"network.{name}"] for name in problem.params}

    return run


def _maml(problem: Problem, *, low_rank: bool, compiled: bool = False) -> Run:
    algorithm = MAML(
        problem.rate,
        problem.steps,
        learn_inner_lr=False,
        max_inner_norm=None,
        pseudo_count=0.0,
    )
    network = cast(Network, _OneForm(_network(problem), low_rank))
    return _trained_as(algorithm, problem, network, compiled=compiled)


def _network(problem: Problem) -> Network:
    return problem.network.network(problem.widths[0], 1)


class _OneForm:
    """A network that holds its fast weights in one form, whatever that costs."""

    def __init__(self, network: Network, low_rank: bool) -> None:
        self.network = network
        self.form = low_rank

    def low_rank(self, params: Params, n_points: int, n_steps: int) -> bool:
        """The form given."""
        return self.form

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)
