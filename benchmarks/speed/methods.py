"""One meta-gradient by the trainer's methods, and by other packages.

Each function prepares a problem and returns a function without arguments that computes the
gradient of every parameter; only the latter is timed. All use an MLP of two hidden layers, ReLU,
half the mean squared error, a fixed rate and second-order gradients.
"""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import linear

from benchmarks.speed.problem import Problem
from benchmarks.suite.peers import require
from ehrmeta.algorithms import MAML, Algorithm, MetaSGD, Spec
from ehrmeta.nn import Network, Normal
from ehrmeta.nn.backbone import Params
from ehrmeta.training import EpisodeLoss

Run = Callable[[], Mapping[str, Any]]
Method = Callable[[Problem], Run]
Weights = dict[str, Tensor]

LOW_RANK, MATERIALISED = "ehrmeta, low rank", "ehrmeta, materialised"
COMPILED = "ehrmeta, compiled"
REFERENCE = "torch.func vmap"


def meta_sgd(problem: Problem) -> Run:
    """Meta-SGD: gradients of the initial weights and of a rate for every weight, here all equal."""
    algorithm = MetaSGD(problem.rate, problem.steps, max_inner_norm=None, pseudo_count=0.0)
    return _trained_as(algorithm, problem, _network(problem))


def prefers_low_rank(problem: Problem) -> bool:
    """Whether MAML uses the low-rank form for this problem by default."""
    network = _network(problem)
    return network.low_rank(problem.params, problem.shots, problem.steps)


def _trained_as(
    algorithm: Algorithm, problem: Problem, network: Network, *, compiled: bool = False
) -> Run:
    """Gradient of the mean query loss over the batch at the problem's initial weights.

    The likelihood is normal with standard deviation 1, whose negative logarithm is half the squared
    error plus a constant.
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


def maml(problem: Problem, *, low_rank: bool | None = None, compiled: bool = False) -> Run:
    """MAML with the task-specific weight changes in low-rank form or as matrices.

    Without `low_rank` the form is chosen by MAML.
    """
    low_rank = prefers_low_rank(problem) if low_rank is None else low_rank
    algorithm = MAML(
        problem.rate, problem.steps, learn_inner_lr=False, max_inner_norm=None, pseudo_count=0.0
    )
    network = cast(Network, _OneForm(_network(problem), low_rank))
    return _trained_as(algorithm, problem, network, compiled=compiled)


def _network(problem: Problem) -> Network:
    return problem.network.network(problem.widths[0], 1)


class _OneForm:
    """A network with a fixed form of its fast weights."""

    def __init__(self, network: Network, low_rank: bool) -> None:
        self.network = network
        self.form = low_rank

    def low_rank(self, params: Params, n_points: int, n_steps: int) -> bool:
        """The fixed form."""
        return self.form

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


def torch_func(problem: Problem) -> Run:
    """``torch.func``: `grad` of `vmap` of `grad`."""

    def one_task(weights: Weights, support: Any, query: Any) -> Tensor:
        for _ in range(problem.steps):
            gradient = grad(_loss)(weights, *support)
            weights = {n: w - problem.rate * gradient[n] for n, w in weights.items()}
        return _loss(weights, *query)

    def loss(weights: Weights, support: Any, query: Any) -> Tensor:
        losses: Tensor = vmap(one_task, (None, 0, 0))(weights, support, query)
        return losses.mean()

    arrays = _arrays(problem)
    return lambda: grad(loss)(problem.params, *arrays)


def autograd_loop(problem: Problem) -> Run:
    """A Python loop over tasks with ``create_graph=True``, as in learn2learn; without padding."""
    weights = {name: value.clone().requires_grad_() for name, value in problem.params.items()}
    leaves = list(weights.values())
    tasks = _tasks(problem)

    def run() -> Weights:
        loss = torch.zeros((), device=leaves[0].device)
        for support, query in tasks:
            adapted = weights
            for _ in range(problem.steps if len(support[1]) else 0):
                inner = _loss(adapted, *support)
                gradient = torch.autograd.grad(inner, list(adapted.values()), create_graph=True)
                adapted = {
                    name: value - problem.rate * g
                    for (name, value), g in zip(adapted.items(), gradient, strict=True)
                }
            loss = loss + _loss(adapted, *query) / problem.n_tasks
        return dict(zip(weights, torch.autograd.grad(loss, leaves), strict=True))

    return run


def higher_loop(problem: Problem) -> Run:
    """``higher.innerloop_ctx`` for every task; without padding."""
    higher = require("higher")
    features, *hidden, outputs = problem.widths
    first, second = hidden
    module = torch.nn.Sequential(
        torch.nn.Linear(features, first),
        torch.nn.ReLU(),
        torch.nn.Linear(first, second),
        torch.nn.ReLU(),
        torch.nn.Linear(second, outputs),
    ).to(problem.support.y.device)
    leaves = list(module.parameters())
    with torch.no_grad():
        for leaf, value in zip(leaves, problem.params.values(), strict=True):
            leaf.copy_(value)
    optimiser = torch.optim.SGD(leaves, problem.rate)
    tasks = _tasks(problem)

    def half_mse(module: Any, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = 0.5 * (module(x)[:, 0] - y).square().mean()
        return loss

    def run() -> Weights:
        module.zero_grad()
        for support, query in tasks:
            with higher.innerloop_ctx(module, optimiser, copy_initial_weights=False) as (fast, sgd):
                for _ in range(problem.steps if len(support[1]) else 0):
                    sgd.step(half_mse(fast, *support[:2]))
                loss = half_mse(fast, *query[:2]) / problem.n_tasks
                loss.backward()  # type: ignore[no-untyped-call]
        return {
            name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            for name, leaf in zip(problem.params, leaves, strict=True)
        }

    return run


def jax_vmap(problem: Problem) -> Run:
    """Jitted JAX: `grad` of `vmap` of `grad`, on as many threads as torch."""
    os.environ.setdefault("NPROC", str(torch.get_num_threads()))
    jax = require("jax")
    nn, numpy = jax.nn, jax.numpy

    def loss(weights: Any, x: Any, y: Any, weight: Any) -> Any:
        h = nn.relu(x @ weights["0.weight"].T + weights["0.bias"])
        h = nn.relu(h @ weights["1.weight"].T + weights["1.bias"])
        output = (h @ weights["2.weight"].T + weights["2.bias"])[:, 0]
        return 0.5 * (weight * (output - y) ** 2).sum() / numpy.maximum(weight.sum(), 1.0)

    def one_task(weights: Any, support: Any, query: Any) -> Any:
        for _ in range(problem.steps):
            gradient = jax.grad(loss)(weights, *support)
            weights = {n: w - problem.rate * gradient[n] for n, w in weights.items()}
        return loss(weights, *query)

    def batch_loss(weights: Any, support: Any, query: Any) -> Any:
        return jax.vmap(one_task, (None, 0, 0))(weights, support, query).mean()

    def to_jax(tensor: Tensor) -> Any:
        return numpy.asarray(np.asarray(tensor.cpu()))

    weights = {name: to_jax(value) for name, value in problem.params.items()}
    support, query = (tuple(map(to_jax, arrays)) for arrays in _arrays(problem))
    gradient = jax.jit(jax.grad(batch_loss))

    def run() -> Mapping[str, Any]:
        gradients: Mapping[str, Any] = jax.block_until_ready(gradient(weights, support, query))
        return gradients

    return run


def _loss(weights: Weights, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Half the weighted mean squared error of one task."""
    h = torch.relu(linear(x, weights["0.weight"], weights["0.bias"]))
    h = torch.relu(linear(h, weights["1.weight"], weights["1.bias"]))
    output = linear(h, weights["2.weight"], weights["2.bias"])[:, 0]
    return 0.5 * (weight * (output - y).square()).sum() / weight.sum().clamp(min=1.0)


def _arrays(problem: Problem) -> tuple[tuple[Tensor, ...], ...]:
    """x, y and weight of support and query, with a task axis."""
    return tuple((which.x, which.y, which.weight) for which in (problem.support, problem.query))


def _tasks(problem: Problem) -> list[tuple[tuple[Tensor, ...], ...]]:
    """The same arrays for each task with a query, without padding."""
    return [
        tuple(
            tuple(tensor[i][which.mask[i]] for tensor in (which.x, which.y, which.weight))
            for which in (problem.support, problem.query)
        )
        for i in range(problem.n_tasks)
        if bool(problem.query.mask[i].any())
    ]


METHODS: dict[str, Method] = {
    LOW_RANK: partial(maml, low_rank=True),
    MATERIALISED: partial(maml, low_rank=False),
    COMPILED: partial(maml, compiled=True),
    "ehrmeta, Meta-SGD": meta_sgd,
    REFERENCE: torch_func,
    "JAX, jitted vmap": jax_vmap,
    "task loop, autograd": autograd_loop,
    "task loop, higher": higher_loop,
}
