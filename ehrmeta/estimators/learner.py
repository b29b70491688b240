"""A trained algorithm at work on many tasks: padding, chunks, devices and ``vmap``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.func import vmap

from ehrmeta.algorithms._base import Algorithm, Params, Spec, State
from ehrmeta.errors import DataError
from ehrmeta.nn.batch import TaskSet, empty_set, padded_index, padded_set
from ehrmeta.nn.likelihoods import Distribution
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["AdaptedChunk", "Learner", "pick_device"]

_TASKS_AT_ONCE = 512
_PADDED_POINTS = 32_768  # of a chunk of supports: one long record must not pad hundreds
_POINTS_AT_ONCE = 64  # a task's queries are cut into runs of at most this many


@dataclass(frozen=True)
class AdaptedChunk:
    """The states of some tasks of similar support size."""

    tasks: Tensor  # (task,) task numbers
    index: Tensor  # (task, point) their support rows
    mask: Tensor  # (task, point)
    state: State  # a leading task axis on every tensor


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

    def adapt(self, support: TaskRows) -> list[AdaptedChunk]:
        """Adapt every task of `support`."""
        order = torch.argsort(support.sizes, stable=True)
        chunks = []
        with torch.inference_mode():
            for tasks in _chunks(order, support.sizes, self.chunk_size or _TASKS_AT_ONCE):
                index, mask = padded_index(support.starts[:-1][tasks], support.sizes[tasks])
                batch = self._set(support, index, mask, support, index, mask)
                chunks.append(AdaptedChunk(tasks, index, mask, self._adapt(batch)))
        return chunks

    def predict(
        self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows
    ) -> Distribution:
        """Predictive distribution of every query row, (row, ...), in the order of `query`."""
        return self._collect(support, chunks, query, self._predict)

    def own_weight(self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows) -> Tensor:
        """How much every query row rests on its task's own support, (row,)."""
        found = self._collect(support, chunks, query, self._own_weight)
        return found.get("own_weight", torch.empty(0))

    def _collect(
        self,
        support: TaskRows,
        chunks: list[AdaptedChunk],
        query: TaskRows,
        of_batch: Callable[[State, TaskSet], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """What a function of states and padded queries gives for every query row."""
        collected: dict[str, Tensor] = {}
        with torch.inference_mode():
            for _, _, index, mask, state, batch in self._batches(support, chunks, query):
                for name, value in of_batch(state, batch).items():
                    if name not in collected:
                        shape = (query.n_rows, *value.shape[2:])
                        collected[name] = value.new_empty(shape, device="cpu")
                    collected[name][index[mask]] = value.cpu()[mask]
        return collected

    def support_weights(
        self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attention as triples: origin of the query row and of the support row, and weight.

        The origin -1 is the population.
        """

        def one_task(state: State, query: TaskSet) -> dict[str, Tensor]:
            return {"weight": self.algorithm.attention(self.spec, self.params, state, query)}

        found: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.inference_mode():
            for chunk, at, index, mask, state, batch in self._batches(support, chunks, query):
                weight = _over_tasks(one_task, state, batch)["weight"].cpu()
                origin = torch.where(chunk.mask, support.origin[chunk.index], 0)
                origin = torch.nn.functional.pad(origin, (0, 1), value=-1)[at]
                real = torch.nn.functional.pad(chunk.mask, (0, 1), value=True)[at]
                real = mask[:, :, None] & real[:, None, :]  # (task, point, support + 1)
                asked = query.origin[index][:, :, None].expand_as(real)
                origin = origin[:, None, :].expand_as(real)
                found.append((asked[real], origin[real], weight[real]))
        if not found:
            return query.origin[:0], query.origin[:0], query.y[:0]
        asked, origin, weight = (torch.cat(columns) for columns in zip(*found, strict=True))
        return asked, origin, weight

    def _batches(
        self, support: TaskRows, chunks: list[AdaptedChunk], query: TaskRows
    ) -> Iterator[tuple[AdaptedChunk, Tensor, Tensor, Tensor, State, TaskSet]]:
        """Padded queries with their states: chunk, places in it, row numbers, mask, state, set."""
        for chunk in chunks:
            for at, index, mask in _runs(chunk, query, self.chunk_size or _TASKS_AT_ONCE):
                batch = self._set(query, index, mask, support, chunk.index[at], chunk.mask[at])
                state = {name: value[at] for name, value in chunk.state.items()}
                yield chunk, at, index, mask, state, batch

    def population(self, rows: TaskRows) -> Distribution:
        """Predictive distribution of rows at the population: adapted to nothing."""
        none = rows.starts.new_zeros((1, 0))
        nobody = AdaptedChunk(rows.starts.new_zeros(1), none, none.bool(), self._unadapted)
        query = replace(rows, starts=rows.starts.new_tensor([0, rows.n_rows]))
        return self.predict(rows, [nobody], query)

    @cached_property
    def _unadapted(self) -> State:
        """The state of one task with an empty support."""
        like = next(iter(self.params.values()))
        nothing = empty_set(1, self.spec.n_features, like)
        with torch.inference_mode():
            return self._adapt(nothing)

    def _adapt(self, support: TaskSet) -> State:
        def one_task(support: TaskSet) -> State:
            return self.algorithm.adapt(self.spec, self.params, support)

        return _over_tasks(one_task, support)

    def _predict(self, state: State, query: TaskSet) -> Distribution:
        def one_task(state: State, query: TaskSet) -> Distribution:
            return self.algorithm.predict(self.spec, self.params, state, query)

        return _over_tasks(one_task, state, query)

    def _own_weight(self, state: State, query: TaskSet) -> dict[str, Tensor]:
        def one_task(state: State, query: TaskSet) -> dict[str, Tensor]:
            weight = self.algorithm.own_weight(self.spec, self.params, state, query)
            return {"own_weight": weight}

        return _over_tasks(one_task, state, query)

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
        moved = (  # masks stay masks, and time stays float64
            tensor.to(self.device, self.dtype if tensor.dtype == torch.float32 else None)
            for tensor in padded
        )
        return TaskSet(*moved)


def _chunks(order: Tensor, sizes: Tensor, n_at_once: int) -> Iterator[Tensor]:
    """Runs of tasks, sorted by size, of bounded number and bounded padded size."""
    at, n_tasks = 0, len(order)
    ordered = sizes[order].tolist()
    while at < n_tasks:
        count = min(n_at_once, n_tasks - at)
        while count > 1 and count * ordered[at + count - 1] > _PADDED_POINTS:
            count //= 2
        yield order[at : at + count]
        at += count


def _over_tasks(
    one_task: Callable[..., dict[str, Tensor]], *batches: State | TaskSet
) -> dict[str, Tensor]:
    """``vmap``, or a plain call where there is one task: much cheaper for a single patient."""
    batch = batches[-1]
    if isinstance(batch, TaskSet) and len(batch.mask) == 1:
        alone = one_task(*map(_first_task, batches))
        return {name: value[None] for name, value in alone.items()}
    found: dict[str, Tensor] = vmap(one_task)(*batches)
    return found


def _first_task(batch: State | TaskSet) -> State | TaskSet:
    if isinstance(batch, TaskSet):
        return TaskSet(*(tensor[0] for tensor in batch))
    return {name: value[0] for name, value in batch.items()}


def pick_device(name: str) -> torch.device:
    """``"auto"`` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DataError(f"device must be 'auto', 'cpu' or 'cuda', got {name!r}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DataError("device='cuda', but PyTorch finds no GPU here: use device='auto'.")
    return device


def _runs(
    chunk: AdaptedChunk, query: TaskRows, n_at_once: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The chunk's queries as padded runs: position in the chunk, row numbers and mask."""
    sizes = query.sizes[chunk.tasks]
    counts = (sizes + _POINTS_AT_ONCE - 1) // _POINTS_AT_ONCE
    at = torch.repeat_interleave(torch.arange(len(counts)), counts)
    nth = torch.arange(len(at)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    starts = query.starts[:-1][chunk.tasks][at] + nth * _POINTS_AT_ONCE
    lengths = (sizes[at] - nth * _POINTS_AT_ONCE).clamp(max=_POINTS_AT_ONCE)
    by_length = torch.argsort(lengths, stable=True)
    for part in torch.split(by_length, n_at_once) if len(at) else ():
        index, mask = padded_index(starts[part], lengths[part])
        yield at[part], index, mask
