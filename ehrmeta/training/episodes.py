"""Episodes: random supports and queries of a batch of training tasks, their loss and gradient."""

import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Algorithm, Params, Spec
from ehrmeta.nn.batch import TaskRows, TaskSet, padded_index, padded_set
from ehrmeta.nn.device import Chunks, matrix_products
from ehrmeta.nn.recorded import Recorded

Gradient = dict[str, Tensor]
Stage = tuple[type[Algorithm], dict[str, Any]]
LossAndGradient = Callable[[Params, TaskSet, TaskSet, Tensor], tuple[Tensor, Gradient]]


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws a support size per task, then its support and query rows.

    With time, the support is a task's first k rows and the query is drawn from strictly later rows;
    without time, both are random rows.

    Parameters
    ----------
    rows : TaskRows
        Training tasks.
    shots : tuple of int
        Smallest and largest support size, inclusive; at least one row remains for the query.
    max_queries : int
        Largest number of query rows per task.
    time_unit : float
        A typical time between visits.
    """

    rows: TaskRows
    shots: tuple[int, int]
    max_queries: int
    time_unit: float

    def draw(self, tasks: Tensor, generator: torch.Generator) -> tuple[TaskSet, TaskSet]:
        """Support and query of each task in the batch `tasks` (task,)."""
        device = self.rows.y.device
        sizes = self.rows.sizes[tasks]
        index, mask = padded_index(self.rows.starts[:-1][tasks], sizes)
        keys = torch.rand(2, *mask.shape, generator=generator).to(device)
        low, high = self.shots
        top = torch.minimum(sizes - 1, torch.full_like(sizes, high))
        low_k = torch.minimum(top, torch.full_like(sizes, low))
        uniform = torch.rand(len(tasks), generator=generator).to(device)
        shots = (low_k + (uniform * (top - low_k + 1)).long()).clamp(max=top)  # (task,)

        if not self.rows.timed:
            order = torch.where(mask, keys[0], 2.0).argsort(1)
            index = index.gather(1, order)
        position = torch.arange(index.shape[1], device=device)
        width = min(high, index.shape[1])  # not this batch's maximum: constant shapes are faster
        in_support = position < shots[:, None]
        support_index, support_mask = index[:, :width], in_support[:, :width]

        eligible = mask & ~in_support
        if self.rows.timed:
            time = self.rows.time[index]
            last = torch.where(in_support, time, -torch.inf).amax(1, keepdim=True)
            eligible &= time > last
        n_queries = min(self.max_queries, index.shape[1])
        chosen = torch.where(eligible, keys[1], 2.0).topk(n_queries, dim=1, largest=False).indices
        query_index, query_mask = index.gather(1, chosen), eligible.gather(1, chosen)

        source = {
            "source": self.rows,
            "source_index": support_index,
            "source_mask": support_mask,
            "time_unit": self.time_unit,
        }
        support = padded_set(self.rows, support_index, support_mask, **source)  # type: ignore[arg-type]
        query = padded_set(self.rows, query_index, query_mask, **source)  # type: ignore[arg-type]
        return support, query


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
        """Gradient function of the algorithm at its current stage, traced once per stage."""
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
