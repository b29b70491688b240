"""Rows of many tasks, and padded, masked sets of points of one task or a batch of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

_ROW_COLUMNS = ("x", "measured", "time", "y", "origin", "offset")


class TaskSet(NamedTuple):
    """Support or query of one task; under ``vmap`` each field gains a leading task axis.

    Attributes
    ----------
    x : (point, feature)
        Encoded features.
    y : (point,)
        Outcome on the learner's scale (mean 0, sd 1 over the training rows), or a class number.
    time : (point,), float64
        Time since the last support row, in the table's unit; 0 or negative in the support.
    mask : (point,), bool
        False where padded.
    weight : (point,)
        Factor of the point's likelihood term; 0 where padded.
    offset : (point,)
        Added to the linear predictor: the prediction of a `population` model.
    """

    x: Tensor
    y: Tensor
    time: Tensor
    mask: Tensor
    weight: Tensor
    offset: Tensor

    @property
    def n(self) -> Tensor:
        """Effective number of points: the sum of the weights."""
        return self.weight.sum(-1)

    def tasks(self, chosen: slice | Tensor) -> TaskSet:
        """Select tasks of a batch."""
        return TaskSet(*(column[chosen] for column in self))


def padded_index(starts: Tensor, sizes: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Row numbers and mask, (task, point), of consecutive rows ``starts : starts + sizes``.

    The number of points is the largest size, or `width`.
    """
    if width is None:
        width = int(sizes.max()) if len(sizes) else 0
    step = torch.arange(width, device=starts.device)
    mask = step < sizes[:, None]
    return torch.where(mask, starts[:, None] + step, 0), mask


def visible_width(rows: TaskRows) -> int:
    """Number of features of padded sets of these rows."""
    return rows.x.shape[1] + (1 if rows.timed else 0) + 3 * rows.measured.shape[1]


def padded_set(
    rows: TaskRows,
    index: Tensor,
    mask: Tensor,
    *,
    source: TaskRows,
    source_index: Tensor,
    source_mask: Tensor,
    time_unit: float,
) -> TaskSet:
    """Gather rows into a padded set, with the features that are known at each point.

    ``x = [row features, elapsed, last measured values, their ages, missing]``. *elapsed* is the
    time since the support's last row (0 for an empty support). The last measured values are those
    of support rows strictly before the point; *missing* is 1 where there is none. Times and ages
    are transformed by ``asinh(t / time_unit)``. Support rows follow the same rule, so that support
    and query have the same features.

    Parameters
    ----------
    rows, index, mask
        The points: row numbers (task, point) into `rows`, and a mask of padding.
    source, source_index, source_mask
        The support rows of the same tasks, in time order.
    time_unit : float
        Typical time between visits.
    """
    columns = [rows.x[index]]
    time = rows.time[index]
    if rows.timed:
        support_time = torch.where(source_mask, source.time[source_index], torch.inf)
        if support_time.shape[1]:
            last = torch.where(source_mask, support_time, -torch.inf).amax(1, keepdim=True)
            time = torch.where(last.isfinite(), time - last, 0.0)
        else:
            time = torch.zeros_like(time)
        columns.append(_compress(time, time_unit)[..., None])
        if rows.measured.shape[1]:
            columns.extend(
                _last_measured(rows.time[index], source, source_index, support_time, time_unit)
            )
    x = torch.cat(columns, -1)
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    weight = mask.to(x.dtype)
    return TaskSet(
        x=torch.where(mask[..., None], x, zero),
        y=torch.where(mask, rows.y[index], zero),
        time=torch.where(mask, time, 0.0),
        mask=mask,
        weight=weight,
        offset=torch.where(mask, rows.offset[index], zero),
    )


def empty_set(n_tasks: int, n_features: int, like: Tensor) -> TaskSet:
    """Supports without points."""
    flat = like.new_zeros((n_tasks, 0))
    return TaskSet(
        x=like.new_zeros((n_tasks, 0, n_features)),
        y=flat,
        time=flat.double(),
        mask=flat.bool(),
        weight=flat,
        offset=flat,
    )


def _compress(time: Tensor, unit: float) -> Tensor:
    return torch.asinh(time / unit).float()


def _last_measured(
    time: Tensor, source: TaskRows, index: Tensor, support_time: Tensor, unit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Last value, age and missingness of every measured feature, (task, point, feature)."""
    n_support, n_features = index.shape[1], source.measured.shape[1]
    if n_support == 0:
        zeros = source.measured.new_zeros((*time.shape, n_features))
        return zeros, zeros, zeros + 1.0
    values = source.measured[index]  # (task, support, feature)
    position = torch.arange(n_support, device=index.device)[:, None]
    latest = torch.where(values.isnan(), -1, position).cummax(1).values
    earlier = (support_time[:, None, :] < time[:, :, None]).sum(2) - 1  # (task, point)
    last = _take(latest, earlier.clamp(min=0))  # (task, point, feature)
    missing = (last < 0) | (earlier[..., None] < 0)
    last = last.clamp(min=0)
    value = torch.where(missing, 0.0, torch.gather(values, 1, last))
    age = time[..., None] - torch.gather(
        support_time[..., None].expand(-1, -1, n_features), 1, last
    )
    age = torch.where(missing, 0.0, age)
    return value, _compress(age, unit), missing.float()


def _take(table: Tensor, row: Tensor) -> Tensor:
    """``table[task, row[task, point], :]``."""
    return torch.gather(table, 1, row[..., None].expand(-1, -1, table.shape[-1]))


@dataclass(frozen=True)
class TaskRows:
    """Encoded rows of many tasks, sorted by task and, within a task, by time.

    Parameters
    ----------
    x : Tensor, (row, feature)
        Features known at the time of the row.
    measured : Tensor, (row, measured feature)
        Values measured *at* the row, NaN where missing. Predictions use only the values of earlier
        support rows.
    time : Tensor, (row,), float64
        Time in the schema's unit; zeros for tables without time.
    y : Tensor, (row,)
        Outcome on the learner's scale.
    origin : Tensor, (row,), int64
        Row number in the user's table.
    starts : Tensor, (task + 1,), int64
        Task ``i`` has the rows ``starts[i]:starts[i + 1]``.
    timed : bool
        Whether tasks have time.
    offset : Tensor, (row,), optional
        Prediction of a population model, on the scale of y; 0 by default.
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
        time, step = columns["time"], codes.diff()
        sizes = torch.bincount(codes, minlength=n_tasks)
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        if not ((step > 0) | ((step == 0) & (time.diff() >= 0))).all():
            order = torch.argsort(time, stable=True)
            order = order[torch.argsort(codes[order], stable=True)]
            columns = {name: column[order] for name, column in columns.items()}
        return cls(starts=starts, timed=timed, **columns)

    @property
    def n_tasks(self) -> int:
        """Number of tasks, including empty ones."""
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
        """Device of the tensors."""
        return self.y.device

    def select(self, tasks: Tensor) -> TaskRows:
        """Rows of the given tasks, in that order."""
        sizes = self.sizes[tasks]
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        shift = torch.repeat_interleave(self.starts[:-1][tasks] - starts[:-1], sizes)
        index = torch.arange(len(shift), device=shift.device) + shift
        return replace(
            self, starts=starts, **{name: getattr(self, name)[index] for name in _ROW_COLUMNS}
        )

    def take(
        self, index: Tensor, codes: Tensor | None = None, n_tasks: int | None = None
    ) -> TaskRows:
        """Rows at an index, which may repeat; `codes` are their task numbers, by default as now."""
        columns = {name: getattr(self, name)[index] for name in _ROW_COLUMNS}
        codes = self.codes[index] if codes is None else codes
        n_tasks = self.n_tasks if n_tasks is None else n_tasks
        return TaskRows.from_codes(codes, n_tasks, timed=self.timed, **columns)

    def merge(self, codes: Tensor, n_tasks: int, other: TaskRows, other_codes: Tensor) -> TaskRows:
        """Concatenate with the rows of `other`, to add visits to a support.

        `codes` and `other_codes`, (row,) each, are the new task numbers.
        """
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
