"""A trained algorithm at work on many tasks: padding, chunks, devices and ``vmap``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State
from ehrmeta.errors import DataError
from ehrmeta.nn.batch import TaskRows, TaskSet, empty_set, padded_index, padded_set
from ehrmeta.nn.device import Chunks, check_precision, in_threads, on_one_core
from ehrmeta.nn.likelihoods import Distribution

_TASKS_AT_ONCE = 256  # measured: what a core keeps in its cache
_TASKS_AT_ONCE_ON_GPU = 8192  # not measured: enough to keep one busy
_POINTS_EACH = 64  # padded, of a chunk on average: one long record must not pad hundreds
_POINTS_AT_ONCE = 64  # a task's queries are cut into runs of at most this many
_POINTS_OF_ONE_TASK = 4096  # where no other task waits
_FEW_POINTS = 1024  # less than what is worth a second thread

Out = TypeVar("Out")
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class AdaptedChunk:
    """The states of some tasks of similar support size."""

    tasks: Tensor  # (task,) task numbers
    index: Tensor  # (task, point) their support rows
    mask: Tensor  # (task, point)
    state: State  # a leading task axis on every tensor


@dataclass(frozen=True)
class _Run:
    """Query rows of some tasks of a chunk, padded."""

    chunk: AdaptedChunk
    at: Tensor  # (run,) places in the chunk
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
        """Trained parameters where and as an estimator's settings want them used.

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
                starts, sizes = support.starts[:-1][tasks], support.sizes[tasks]
                index, mask = padded_index(starts, sizes)
                batch = self._set(support, index, mask, support, index, mask)
                return AdaptedChunk(tasks, index, mask, adapt(batch))

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
        """How much every query row rests on its task's own support, (row,)."""
        of_batch = self._over_tasks(self.algorithm.own_weight, "own_weight")
        outputs = self._collect(support, chunks, query, of_batch)
        return outputs.get("own_weight", torch.empty(0))

    def support_weights(
        self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attention as triples: origin of the query row and of the support row, and weight.

        The origin -1 is the population.
        """
        pad, attention = (
            torch.nn.functional.pad,
            self._over_tasks(self.algorithm.attention, "weight"),
        )

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
        """Predictive distribution of rows at the population: adapted to nothing."""
        none = rows.starts.new_zeros((1, 0))
        nobody = AdaptedChunk(rows.starts.new_zeros(1), none, none.bool(), self._unadapted)
        query = replace(rows, starts=rows.starts.new_tensor([0, rows.n_rows]))
        return self.predict(rows, [nobody], query)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is computed at use."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _collect(
        self,
        support: TaskRows,
        chunks: list[AdaptedChunk],
        query: TaskRows,
        of_batch: Callable[[State, TaskSet], Outputs],
    ) -> Outputs:
        """What a function of states and padded queries gives for every query row."""

        def real_points(run: _Run, state: State, batch: TaskSet) -> tuple[Tensor, Outputs]:
            outputs = of_batch(state, batch)
            return run.index[run.mask], {
                name: value.cpu()[run.mask] for name, value in outputs.items()
            }

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
        """What `work` gives for padded queries of all chunks, with their states."""

        def work_on(run: _Run) -> Out:
            with torch.inference_mode():
                chunk, at = run.chunk, run.at
                batch = self._set(
                    query, run.index, run.mask, support, chunk.index[at], chunk.mask[at]
                )
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
        """What `work` gives for all pieces, in one list; a GPU has threads of its own."""
        if self.device.type != "cpu":
            lists = [work(piece) for piece in pieces]
        elif n_points <= _FEW_POINTS:
            lists = on_one_core(lambda: [work(piece) for piece in pieces])
        else:
            lists = in_threads(work, pieces)
        return [piece for pieces in lists for piece in pieces]

    @cached_property
    def _chunks(self) -> Chunks:
        on_gpu = self.device.type != "cpu"
        usual = _TASKS_AT_ONCE_ON_GPU if on_gpu else _TASKS_AT_ONCE
        return Chunks(self.chunk_size or usual)

    @cached_property
    def _unadapted(self) -> State:
        """The state of one task with an empty support."""
        like = next(iter(self.params.values()))
        nothing = empty_set(1, self.spec.n_features, like)
        with torch.inference_mode():
            return self._over_tasks(self.algorithm.adapt)(nothing)

    def _over_tasks(self, one_task: Callable[..., Any], name: str | None = None) -> _OverTasks:
        return _OverTasks(partial(one_task, self.spec, self.params), name)

    def _set(
        self,
        rows: TaskRows,
        index: Tensor,
        mask: Tensor,
        source: TaskRows,
        source_index: Tensor,
        source_mask: Tensor,
    ) -> TaskSet:
        padded = padded_set(
            rows,
            index,
            mask,
            source=source,
            source_index=source_index,
            source_mask=source_mask,
            time_unit=self.time_unit,
        )
        tensors = (  # masks stay masks, and time stays float64
            tensor.to(self.device, self.dtype if tensor.dtype == torch.float32 else None)
            for tensor in padded
        )
        return TaskSet(*tensors)


class _OverTasks:
    """A function of one task over a batch: ``vmap``, or the function itself for a single task.

    Neither is recorded: replaying a single patient takes longer than computing it, and a chunk of
    small tasks is hardly faster for it.
    """

    def __init__(self, one_task: Callable[..., Any], name: str | None = None) -> None:
        self.one_task = one_task
        if name is not None:  # of the only output
            self.one_task = lambda *batches: {name: one_task(*batches)}

    def __call__(self, *batches: State | TaskSet) -> Outputs:
        """Outputs with a leading task axis; the last batch is a set."""
        batch = batches[-1]
        if isinstance(batch, TaskSet) and len(batch.mask) == 1:
            alone = self.one_task(*map(_first_task, batches))
            return {name: value[None] for name, value in alone.items()}
        outputs: Outputs = vmap(self.one_task)(*batches)
        return outputs


def _first_task(batch: State | TaskSet) -> State | TaskSet:
    if isinstance(batch, TaskSet):
        return TaskSet(*(tensor[0] for tensor in batch))
    return {name: value[0] for name, value in batch.items()}


def _by_size(order: Tensor, sizes: Tensor, n_at_once: int) -> Iterator[Tensor]:
    """Runs of tasks, sorted by size, of bounded number and bounded padded size."""
    at, n_tasks = 0, len(order)
    ordered = sizes[order].tolist()
    while at < n_tasks:
        count = min(n_at_once, n_tasks - at)
        while count > 1 and count * ordered[at + count - 1] > n_at_once * _POINTS_EACH:
            count //= 2
        yield order[at : at + count]
        at += count


def pick_device(name: str) -> torch.device:
    """``"auto"`` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(name)):
        raise DataError(f"device must be 'auto', 'cpu' or 'cuda', got {name!r}.")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DataError("device='cuda', but PyTorch finds no GPU here: use device='auto'.")
    return device


def _runs(chunk: AdaptedChunk, query: TaskRows, n_at_once: int) -> Iterator[_Run]:
    """The chunk's queries as padded runs of similar length."""
    sizes = query.sizes[chunk.tasks]
    if len(chunk.tasks) == 1:
        starts = torch.arange(int(sizes[0]))[::_POINTS_OF_ONE_TASK] + query.starts[chunk.tasks]
        for start in starts:
            length = (query.starts[chunk.tasks + 1] - start).clamp(max=_POINTS_OF_ONE_TASK)
            index, mask = padded_index(start[None], length)
            yield _Run(chunk, torch.zeros(1, dtype=torch.int64), index, mask)
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
