"""Simulated patients, and batches of tasks for timing meta-gradients."""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.suite.arrays import Index
from ehrmeta.data import index_tasks, load_dataset
from ehrmeta.errors import DataWarning
from ehrmeta.nn import MLP, TaskRows, TaskSet
from ehrmeta.nn.batch import visible_width
from ehrmeta.training import EpisodeSampler

RATE = 0.05


class Patients(NamedTuple):
    """Rows of patients with linear outcomes, and random intercepts and slopes."""

    X: npt.NDArray[np.float32]  # (row, feature)
    y: npt.NDArray[np.float32]  # (row,)
    groups: Index  # (row,)


class Case(NamedTuple):
    """The size of a problem: a perceptron of two hidden layers on equal tasks."""

    n_features: int
    width: int
    shots: int
    queries: int
    n_tasks: int
    steps: int


CASES = (
    Case(1, 40, 10, 10, 256, 1),
    Case(20, 64, 5, 10, 256, 3),
    Case(20, 128, 5, 10, 256, 3),
    Case(20, 256, 5, 10, 128, 3),
    Case(50, 256, 10, 10, 256, 5),
)


@dataclass(frozen=True)
class Problem:
    """Initial weights of a perceptron, and the supports and queries of a batch of tasks.

    The meta-gradient is that of second-order MAML: of the mean over tasks of half the mean squared
    error on the query, after `steps` gradient steps at a fixed rate on half the mean squared error
    on the support. Points are weighted by ``TaskSet.weight``, 0 where padded.

    Parameters
    ----------
    name : str
    params : dict of Tensor
        ``"0.weight"`` (o, i), ``"0.bias"`` (o,), ... with ReLU between the layers.
    support, query : TaskSet
        With a leading task axis.
    steps : int
    rate : float
    """

    name: str
    params: dict[str, Tensor]
    support: TaskSet
    query: TaskSet
    steps: int
    rate: float = RATE

    @property
    def widths(self) -> tuple[int, ...]:
        """Features, hidden units and outputs."""
        weights = [value for name, value in self.params.items() if name.endswith("weight")]
        return (weights[0].shape[1], *(weight.shape[0] for weight in weights))

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.support.y)

    @property
    def shots(self) -> int:
        """Support rows of the largest task."""
        return self.support.y.shape[1]

    @property
    def queries(self) -> int:
        """Query rows of the largest task."""
        return self.query.y.shape[1]

    @property
    def padding(self) -> float:
        """Share of padded points."""
        masks = (self.support.mask, self.query.mask)
        return 1.0 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)

    @property
    def network(self) -> MLP:
        """The perceptron's hyper-parameters."""
        return MLP(self.widths[1:-1], "relu")


def simulate_patients(sizes: Index, n_features: int = 10, seed: int = 0) -> Patients:
    """Simulate patients with `sizes` rows and ``y = a + (b + b0) . x + noise``.

    Examples
    --------
    >>> simulate_patients(np.array([2, 3])).groups
    array([0, 0, 1, 1, 1])
    """
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    X = random.standard_normal((len(groups), n_features), dtype=np.float32)
    population = random.standard_normal(n_features, dtype=np.float32)
    y = X @ population + 0.5 * random.standard_normal(len(groups), dtype=np.float32)
    y += random.standard_normal(len(sizes), dtype=np.float32)[groups]
    for feature in range(n_features):
        slope = 0.3 * random.standard_normal(len(sizes), dtype=np.float32)
        y += slope[groups] * X[:, feature]
    return Patients(X, y, groups)


def draw_problem(case: Case, seed: int = 0, device: str = "cpu") -> Problem:
    """Tasks of equal size with random numbers: the cost does not depend on the values."""
    generator = torch.Generator().manual_seed(seed)
    support, query = (
        _full_set(
            torch.randn(case.n_tasks, n, case.n_features, generator=generator),
            torch.randn(case.n_tasks, n, generator=generator),
        )
        for n in (case.shots, case.queries)
    )
    params = _start(case.n_features, case.width, generator)
    return _to(Problem(str(tuple(case)), params, support, query, case.steps), device)


def ragged_problem(
    n_tasks: int = 256, width: int = 64, steps: int = 3, seed: int = 0, device: str = "cpu"
) -> Problem:
    """Batch of the trainer from nafld-hdl: 0 to 10 first visits, and up to 10 later ones."""
    rows, time_unit = standard_rows()
    generator = torch.Generator().manual_seed(seed)
    sampler = EpisodeSampler(rows, shots=(0, 10), max_queries=10, time_unit=time_unit)
    tasks = torch.randperm(rows.n_tasks, generator=generator)[:n_tasks]
    support, query = sampler.draw(tasks, generator)
    params = _start(visible_width(rows), width, generator)
    name = f"nafld-hdl, ragged ({visible_width(rows)}, {width}, 0-10, 1-10, {n_tasks}, {steps})"
    return _to(Problem(name, params, support, query, steps), device)


def standard_rows(name: str = "nafld-hdl") -> tuple[TaskRows, float]:
    """Standardised rows of a bundled numeric data set, and the median time between visits."""
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        table = load_dataset(name)
    tasks = index_tasks(table.groups, table.time)
    y, x = table.y, table.X.to_numpy(np.float64)
    time = np.zeros(len(y)) if table.time is None else table.time
    gaps = np.diff(time[tasks.order])[np.diff(tasks.codes[tasks.order]) == 0]
    rows = TaskRows.from_codes(
        torch.from_numpy(tasks.codes),
        tasks.n_tasks,
        timed=table.time is not None,
        x=torch.from_numpy((x - x.mean(0)) / x.std(0)).float(),
        measured=torch.empty(len(y), 0),
        time=torch.from_numpy(time),
        y=torch.from_numpy((y - y.mean()) / y.std()).float(),
        origin=torch.arange(len(y)),
    )
    return rows, float(np.median(gaps[gaps > 0]))


def _start(n_features: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
    return MLP((width, width), "relu").network(n_features, 1).init(generator)


def _full_set(x: Tensor, y: Tensor) -> TaskSet:
    """Task sets without padding, time or offset."""
    zero, one = torch.zeros_like(y), torch.ones_like(y)
    return TaskSet(x, y, time=zero, mask=one.bool(), weight=one, offset=zero)


def _to(problem: Problem, device: str) -> Problem:
    support, query = (
        TaskSet(*(tensor.to(device) for tensor in which))
        for which in (problem.support, problem.query)
    )
    params = {name: value.to(device) for name, value in problem.params.items()}
    return Problem(problem.name, params, support, query, problem.steps, problem.rate)
