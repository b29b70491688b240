"""Batched adaptation and prediction with a trained algorithm: padding, chunks and ``vmap``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State
from ehrmeta.errors import DataError
from ehrmeta.nn.batch import TaskRows, TaskSet, empty_set, padded_index, padded_set
from ehrmeta.nn.device import FEW_POINTS, Chunks, check_precision, for_points, in_threads
from ehrmeta.nn.likelihoods import Distribution

_TASKS_AT_ONCE = 256  # measured: fits into the cache of a core
_TASKS_AT_ONCE_ON_GPU = 8192  # not measured: enough to use a GPU fully
_POINTS_EACH = 64  # mean padded points per task of a chunk: a long record must not pad hundreds
_POINTS_AT_ONCE = 64  # queries of a task are split into runs of at most this many
_POINTS_OF_ONE_TASK = 4096  # the same for a single task

Out = TypeVar("Out")
Outputs = dict[str, Tensor]
Points = tuple[TaskRows, Tensor, Tensor]  # rows, and (task, point) index and mask into them


@dataclass(frozen=True)
class AdaptedChunk:
    """Adapted states of tasks with similar support sizes."""

    tasks: Tensor  # (task,) task numbers
    index: Tensor  # (task, point) row numbers of their supports
    mask: Tensor  # (task, point)
    state: State  # a leading task axis on every tensor


@dataclass(frozen=True)
class _Run:
    """Padded query rows of tasks of a chunk."""

    chunk: AdaptedChunk
    at: Tensor  # (run,) positions in the chunk
    index: Tensor  # (run, point) row numbers
    mask: Tensor  # (run, point)

    def part(self, part: slice) -> _Run:
        return _Run(self.chunk, self.at[part], self.index[part], self.mask[part])


@dataclass(frozen=True)
class Learner:
    """Algorithm, spec and trained parameters; adapts and predicts tasks in batches."""

    algorithm: Algorithm
    spec: Spec
    params: Params
    time_unit: float
    device: torch.device
    dtype: torch.dtype = torch.float32
    chunk_size: int | None = None

    @classmethod
    def on_device(
        cls,
        algorithm: Algorithm,
        spec: Spec,
        params: Params,
        time_unit: float,
        settings: Mapping[str, Any],
    ) -> Learner:
        """Move trained parameters to the device and precision of an estimator's settings.

        Parameters
        ----------
        settings : mapping
            ``device``, ``precision`` and ``chunk_size`` of `MetaRegressor`.
        """
        device = pick_device(settings["device"])
        dtype = check_precision(settings["precision"], device)
        params = {name: value.to(device, dtype) for name, value in params.items()}
        return cls(algorithm, spec, params, time_unit, device, dtype, settings["chunk_size"])

    def adapt(self, support: TaskRows) -> list[AdaptedChunk]:
        """Adapt every task of `support`."""
        adapt = self._over_tasks(self.algorithm.adapt)
        order = torch.argsort(support.sizes, stable=True)
        planned = list(_by_size(order, support.sizes, self._chunks.size))

        def adapt_chunk(tasks: Tensor) -> AdaptedChunk:
            with torch.inference_mode():
                index, mask = padded_index(support.starts[:-1][tasks], support.sizes[tasks])
                points = support, index, mask
                return AdaptedChunk(tasks, index, mask, adapt(self._set(points, points)))

        def adapt_parts(tasks: Tensor) -> list[AdaptedChunk]:
            return list(self._chunks.map(lambda part: adapt_chunk(tasks[part]), len(tasks)))

        return self._flat(adapt_parts, planned, support.n_rows)

    def predict(
        self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows
    ) -> Distribution:
        """Predictive distribution of every query row, (row, ...), in the order of `query`."""
        of_batch = self._over_tasks(self.algorithm.predict)
        return self._collect(support, chunks, query, of_batch)

    def own_weight(self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows) -> Tensor:
        """1 - posterior / prior variance of every query row, (row,)."""
        of_batch = self._over_tasks(self.algorithm.own_weight, "own_weight")
        outputs = self._collect(support, chunks, query, of_batch)
        return outputs.get("own_weight", torch.empty(0))

    def support_weights(
        self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attention weights as triples: query row, support row (-1: population), weight."""
        pad = torch.nn.functional.pad
        attention = self._over_tasks(self.algorithm.attention, "weight")

        def triples(run: _Run, state: State, batch: TaskSet) -> tuple[Tensor, Tensor, Tensor]:
            weight = attention(state, batch)["weight"].cpu()
            origin = torch.where(run.chunk.mask, support.origin[run.chunk.index], 0)
            origin = pad(origin, (0, 1), value=-1)[run.at]
            real = pad(run.chunk.mask, (0, 1), value=True)[run.at]
            real = run.mask[:, :, None] & real[:, None, :]  # (run, point, support + 1)
            row = query.origin[run.index][:, :, None].expand_as(real)
            return row[real], origin[:, None, :].expand_as(real)[real], weight[real]

        parts = self._each_run(support, chunks, query, triples)
        if not parts:
            return query.origin[:0], query.origin[:0], query.y[:0]
        row, origin, weight = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return row, origin, weight

    def population(self, rows: TaskRows) -> Distribution:
        """Population predictive distribution of rows: adapted to an empty support."""
        empty = rows.starts.new_zeros((1, 0))
        chunk = AdaptedChunk(rows.starts.new_zeros(1), empty, empty.bool(), self._unadapted)
        query = replace(rows, starts=rows.starts.new_tensor([0, rows.n_rows]))
        return self.predict(rows, [chunk], query)

    def __getstate__(self) -> dict[str, Any]:
        """The fields, without cached properties."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _collect(
        self,
        support: TaskRows,
        chunks: list[AdaptedChunk],
        query: TaskRows,
        of_batch: Callable[[State, TaskSet], Outputs],
    ) -> Outputs:
        """Outputs of a function of states and padded queries, for every query row."""

        def real_points(run: _Run, state: State, batch: TaskSet) -> tuple[Tensor, Outputs]:
            outputs = {
                name: value.cpu()[run.mask] for name, value in of_batch(state, batch).items()
            }
            return run.index[run.mask], outputs

        collected: Outputs = {}
        for rows, outputs in self._each_run(support, chunks, query, real_points):
            for name, value in outputs.items():
                if name not in collected:
                    collected[name] = value.new_empty((query.n_rows, *value.shape[1:]))
                collected[name][rows] = value
        return collected

    def _each_run(
        self,
        support: TaskRows,
        chunks: list[AdaptedChunk],
        query: TaskRows,
        work: Callable[[_Run, State, TaskSet], Out],
    ) -> list[Out]:
        """Results of `work` for every padded batch of queries and its adapted states."""

        def work_on(run: _Run) -> Out:
            with torch.inference_mode():
                chunk, at = run.chunk, run.at
                points = query, run.index, run.mask
                batch = self._set(points, (support, chunk.index[at], chunk.mask[at]))
                state = chunk.state
                if not torch.equal(at, torch.arange(len(chunk.tasks))):
                    state = {name: value[at] for name, value in state.items()}
                return work(run, state, batch)

        def work_on_parts(run: _Run) -> list[Out]:
            return list(self._chunks.map(lambda part: work_on(run.part(part)), len(run.at)))

        planned = [run for chunk in chunks for run in _runs(chunk, query, self._chunks.size)]
        return self._flat(work_on_parts, planned, query.n_rows)

    def _flat(
        self, work: Callable[[Any], list[Out]], pieces: list[Any], n_points: int
    ) -> list[Out]:
        """Results of `work` for all pieces in one list, in threads if there are many points."""
        if self.device.type != "cpu" or n_points <= FEW_POINTS:
            lists = for_points(n_points, lambda: [work(piece) for piece in pieces], self.device)
        else:
            lists = in_threads(work, pieces)
        return [piece for pieces in lists for piece in pieces]

    @cached_property
    def _chunks(self) -> Chunks:
        default = _TASKS_AT_ONCE if self.device.type == "cpu" else _TASKS_AT_ONCE_ON_GPU
        return Chunks(self.chunk_size or default)

    @cached_property
    def _unadapted(self) -> State:
        """The state of one task with an empty support."""
        support = empty_set(1, self.spec.n_features, next(iter(self.params.values())))
        with torch.inference_mode():
            return self._over_tasks(self.algorithm.adapt)(support)

    def _over_tasks(
        self, method: Callable[..., Any], name: str | None = None
    ) -> Callable[..., Outputs]:
        """A method for one task over a batch: ``vmap``, or a plain call for a single task.

        `name` is that of a single output. Calls are not traced: replaying a trace is slower for
        one task, and hardly faster for a chunk of small tasks.
        """

        def one_task(*batches: State | TaskSet) -> Any:
            output = method(self.spec, self.params, *batches)
            return output if name is None else {name: output}

        def over_tasks(*batches: State | TaskSet) -> Outputs:
            batch = batches[-1]
            if isinstance(batch, TaskSet) and len(batch.mask) == 1:
                output = one_task(*map(_first_task, batches))
                return {name: value[None] for name, value in output.items()}
            outputs: Outputs = vmap(one_task)(*batches)
            return outputs

        return over_tasks

    def _set(self, points: Points, support: Points) -> TaskSet:
        """Padded set of the points, on the device."""
        rows, index, mask = support
        unit = self.time_unit
        padded = padded_set(
            *points, source=rows, source_index=index, source_mask=mask, time_unit=unit
        )
        tensors = (  # masks stay bool, and time float64
            tensor.to(self.device, self.dtype if tensor.dtype == torch.float32 else None)
            for tensor in padded
        )
        return TaskSet(*tensors)


def _first_task(batch: State | TaskSet) -> State | TaskSet:
    if isinstance(batch, TaskSet):
        return TaskSet(*(tensor[0] for tensor in batch))
    return {name: value[0] for name, value in batch.items()}


def _by_size(order: Tensor, sizes: Tensor, n_at_once: int) -> Iterator[Tensor]:
    """Chunks of tasks, sorted by size, of bounded number and padded size."""
    at, n_tasks = 0, len(order)
    ordered = sizes[order].tolist()
    while at < n_tasks:
        count = min(n_at_once, n_tasks - at)
        while count > 1 and count * ordered[at + count - 1] > n_at_once * _POINTS_EACH:
            count //= 2
        yield order[at : at + count]
        at += count


def pick_device(name: str) -> torch.device:
    """Device of a name; ``"auto"`` is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(name)):
        raise DataError(f"device must be 'auto', 'cpu' or 'cuda', got {name!r}.")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DataError("device='cuda', but PyTorch finds no GPU. Use device='auto'.")
    return device


def _runs(chunk: AdaptedChunk, query: TaskRows, n_at_once: int) -> Iterator[_Run]:
    """Split the queries of a chunk into padded runs of similar length."""
    sizes = query.sizes[chunk.tasks]
    is_long = chunk.index.shape[1] > _POINTS_EACH and int(sizes.max()) > _POINTS_AT_ONCE
    if len(chunk.tasks) == 1 or is_long:  # a copy of a large state must serve many queries
        for number, task in enumerate(chunk.tasks.tolist()):
            begin, end = query.starts[task : task + 2].tolist()
            for first in range(begin, end, _POINTS_OF_ONE_TASK):
                length = torch.tensor([min(end - first, _POINTS_OF_ONE_TASK)])
                index, mask = padded_index(torch.tensor([first]), length)
                yield _Run(chunk, torch.tensor([number]), index, mask)
        return
    counts = (sizes + _POINTS_AT_ONCE - 1) // _POINTS_AT_ONCE
    at = torch.repeat_interleave(torch.arange(len(counts)), counts)
    nth = torch.arange(len(at)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    starts = query.starts[:-1][chunk.tasks][at] + nth * _POINTS_AT_ONCE
    lengths = (sizes[at] - nth * _POINTS_AT_ONCE).clamp(max=_POINTS_AT_ONCE)
    by_length = torch.argsort(lengths, stable=True)
    for part in torch.split(by_length, n_at_once) if len(at) else ():
        index, mask = padded_index(starts[part], lengths[part])
        yield _Run(chunk, at[part], index, mask)
