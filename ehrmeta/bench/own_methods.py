"""The meta-gradient in this package's own ways, as the trainer calls them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms import MAML, Algorithm, MetaSGD, Spec
from ehrmeta.bench.problem import Problem
from ehrmeta.nn import Normal
from ehrmeta.nn.backbone import Network, Params

__all__ = ["low_rank", "materialised", "meta_sgd", "prefers_low_rank", "trained_as"]

Run = Callable[[], dict[str, Tensor]]


def low_rank(problem: Problem) -> Run:
    """MAML with each task's change of the weights held as keys and values."""
    return _maml(problem, low_rank=True)


def materialised(problem: Problem) -> Run:
    """MAML with each task's change of the weights held as matrices."""
    return _maml(problem, low_rank=False)


def meta_sgd(problem: Problem) -> Run:
    """Meta-SGD: the gradient of the start and of a rate for every weight, all equal here."""
    algorithm = MetaSGD(problem.rate, problem.steps, max_inner_norm=None, pseudo_count=0.0)
    return trained_as(algorithm, problem, _network(problem))


def prefers_low_rank(problem: Problem) -> bool:
    """Which form MAML takes by itself."""
    network = _network(problem)
    return network.low_rank(problem.params, problem.shots, problem.steps)


def trained_as(algorithm: Algorithm, problem: Problem, network: Network) -> Run:
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
    learned = [f"network.{name}" for name in problem.params]
    if isinstance(algorithm, MetaSGD):
        learned += [name for name in params if name.startswith("rate.")]
    leaves = [params[name].requires_grad_() for name in learned]

    def run() -> dict[str, Tensor]:
        def one_task(support: Any, query: Any) -> Tensor:
            return algorithm.loss(spec, params, support, query, 1.0)

        loss = vmap(one_task)(problem.support, problem.query).mean()
        gradients = torch.autograd.grad(loss, leaves)
        return dict(zip(problem.params, gradients, strict=False))

    return run


def _maml(problem: Problem, *, low_rank: bool) -> Run:
    algorithm = MAML(
        problem.rate,
        problem.steps,
        learn_inner_lr=False,
        max_inner_norm=None,
        pseudo_count=0.0,
    )
    network = cast(Network, _OneForm(_network(problem), low_rank))
    return trained_as(algorithm, problem, network)


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
