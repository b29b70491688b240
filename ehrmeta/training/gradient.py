"""Losses and meta-gradients of a batch of episodes: vectorised, chunked and traced."""

import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Algorithm, Params, Spec
from ehrmeta.nn.batch import TaskSet
from ehrmeta.nn.device import Chunks, matrix_products
from ehrmeta.nn.recorded import Recorded

Gradient = dict[str, Tensor]
Stage = tuple[type[Algorithm], dict[str, Any]]
LossAndGradient = Callable[[Params, TaskSet, TaskSet, Tensor], tuple[Tensor, Gradient]]


@dataclass(eq=False, repr=False)
class EpisodeLoss:
    """Loss of episodes under an algorithm, and its meta-gradient.

    Parameters
    ----------
    algorithm : Algorithm
    spec : Spec
    chunk_size : int, optional
        Tasks per chunk; bounds memory and changes results only by rounding.
    precision : str
        Precision of matrix products; see `matrix_products`.
    compiled, plain_calls
        How the gradient is computed; see `Recorded`.
    """

    algorithm: Algorithm
    spec: Spec
    _: KW_ONLY
    chunk_size: int | None = None
    precision: str = "float32"
    compiled: bool = False
    plain_calls: int = 20

    def __post_init__(self) -> None:
        self._chunks = Chunks(self.chunk_size or sys.maxsize)
        self._recorded: list[tuple[Stage, Recorded[tuple[Tensor, Gradient]]]] = []
        self._evaluation = Recorded(self._batched(self.algorithm))

    def losses(self, params: Params, support: TaskSet, query: TaskSet) -> Tensor:
        """Loss (task,) of each episode for ``progress`` 1; 0 for tasks without query rows."""
        end = torch.ones((), device=query.y.device)

        def of_part(part: slice) -> Tensor:
            return self._evaluation(dict(params), support.tasks(part), query.tasks(part), end)

        with torch.no_grad(), matrix_products(self.precision, query.y.device):
            return torch.cat(list(self._chunks.map(of_part, len(query.y))))

    def gradient(
        self, params: Params, support: TaskSet, query: TaskSet, progress: float
    ) -> tuple[Tensor, Gradient]:
        """Losses (task,), and the gradient of their mean with respect to the parameters used."""
        compute = self._at(self.algorithm.at(progress))
        now = torch.tensor(progress, device=query.y.device)

        def of_part(part: slice) -> tuple[Tensor, Gradient]:
            with matrix_products(self.precision, query.y.device):
                return compute(dict(params), support.tasks(part), query.tasks(part), now)

        losses: list[Tensor] = []
        total: Gradient = {}
        for losses_of_part, gradient in self._chunks.map(of_part, len(query.y)):
            losses.append(losses_of_part)
            total = {name: total[name] + g if total else g for name, g in gradient.items()}
        return torch.cat(losses), {name: g / len(query.y) for name, g in total.items()}

    def _at(self, algorithm: Algorithm) -> LossAndGradient:
        """Gradient function of the algorithm at one stage of training, recorded once per stage."""
        stage = type(algorithm), dict(vars(algorithm))
        for known, recorded in self._recorded:
            if known == stage:
                return recorded
        losses_of = self._batched(algorithm)

        def loss_and_gradient(
            params: Params, support: TaskSet, query: TaskSet, progress: Tensor
        ) -> tuple[Tensor, Gradient]:
            with torch.enable_grad():
                leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
                losses = losses_of(leaves, support, query, progress)
                grads = torch.autograd.grad(losses.sum(), tuple(leaves.values()), allow_unused=True)
            used = zip(leaves, grads, strict=True)
            return losses.detach(), {name: g for name, g in used if g is not None}

        recorded = Recorded(loss_and_gradient, compiled=self.compiled, plain_calls=self.plain_calls)
        self._recorded.append((stage, recorded))
        return recorded

    def _batched(self, algorithm: Algorithm) -> Callable[..., Tensor]:
        def losses(params: Params, support: TaskSet, query: TaskSet, progress: Tensor) -> Tensor:
            def one_task(support: TaskSet, query: TaskSet) -> Tensor:
                return algorithm.loss(self.spec, params, support, query, progress)

            batched: Tensor = vmap(one_task)(support, query)
            return batched * query.mask.any(1)

        return losses
