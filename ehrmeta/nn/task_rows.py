"""The rows of many tasks as flat tensors: what every learner is handed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

__all__ = ["TaskRows"]


@dataclass(frozen=True)
class TaskRows:
    """Encoded rows of many tasks, sorted by task and, within a task, by time.

    Parameters
    ----------
    x : Tensor, (row, feature)
        Features known at the time of the row.
    measured : Tensor, (row, measured feature)
        Values measured *at* the row, NaN where missing. A prediction sees them only through
        earlier rows of the support.
    time : Tensor, (row,), float64
        In the schema's unit; zeros for tables without time.
    y : Tensor, (row,)
        Outcome on the learner's scale.
    origin : Tensor, (row,), int64
        Row number in the user's table.
    starts : Tensor, (task + 1,), int64
        Task ``i`` owns the rows ``starts[i]:starts[i + 1]``.
    timed : bool
        Whether `time` carries information.
    offset : Tensor, (row,), optional
        What a population model says already, on the scale of y; 0 by default.
    """

    x: Tensor
    measured: Tensor
    time: Tensor
    y: Tensor
    origin: Tensor
    starts: Tensor
    timed: bool
    offset: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        if not len(self.offset):
            object.__setattr__(self, "offset", torch.zeros_like(self.y))

    @classmethod
    def from_codes(cls, codes: Tensor, n_tasks: int, *, timed: bool, **columns: Tensor) -> TaskRows:
        """Sort unordered rows by task and time; `codes` (row,) holds each row's task number."""
        order = torch.argsort(columns["time"], stable=True)
        if n_tasks == 1:
            starts = torch.tensor([0, len(codes)], device=codes.device)
        else:
            order = order[torch.argsort(codes[order], stable=True)]
            sizes = torch.bincount(codes, minlength=n_tasks)
            starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        columns = {name: column[order] for name, column in columns.items()}
        return cls(starts=starts, timed=timed, **columns)

    @property
    def n_tasks(self) -> int:
        """Number of tasks, empty ones included."""
        return len(self.starts) - 1

    @property
    def n_rows(self) -> int:
        """Number of rows over all tasks."""
        return len(self.y)

    @property
    def sizes(self) -> Tensor:
        """Rows per task, (task,)."""
        return self.starts.diff()

    @property
    def codes(self) -> Tensor:
        """Task number of every row, (row,)."""
        tasks = torch.arange(self.n_tasks, device=self.starts.device)
        return torch.repeat_interleave(tasks, self.sizes)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.y.device

    def select(self, tasks: Tensor) -> TaskRows:
        """The rows of some tasks, in the order given."""
        sizes = self.sizes[tasks]
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        shift = torch.repeat_interleave(self.starts[:-1][tasks] - starts[:-1], sizes)
        index = torch.arange(len(shift), device=shift.device) + shift
        return replace(
            self,
            starts=starts,
            **{name: getattr(self, name)[index] for name in _ROW_COLUMNS},
        )

    def merge(self, codes: Tensor, n_tasks: int, other: TaskRows, other_codes: Tensor) -> TaskRows:
        """Rows of both under new task numbers, (row,) each: how another visit joins a support."""
        return TaskRows.from_codes(
            torch.cat([codes, other_codes]),
            n_tasks,
            timed=self.timed,
            **{
                name: torch.cat([getattr(self, name), getattr(other, name)])
                for name in _ROW_COLUMNS
            },
        )

    def to(self, device: torch.device) -> TaskRows:
        """The same rows on another device."""
        tensors = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "timed"
        }
        return replace(self, **tensors)


_ROW_COLUMNS = ("x", "measured", "time", "y", "origin", "offset")
