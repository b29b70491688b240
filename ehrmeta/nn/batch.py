"""Ragged tasks to padded, masked sets: what an algorithm sees of one task, or of a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ehrmeta.nn.task_rows import TaskRows

__all__ = ["TaskSet", "empty_set", "padded_index", "padded_set", "visible_width"]


class TaskSet(NamedTuple):
    """Support or query of one task; under ``vmap`` each field gains a leading task axis.

    Attributes
    ----------
    x : (point, feature)
        Encoded features.
    y : (point,)
        Outcome on the learner's scale (mean 0, sd 1 over the training rows), or a class number.
    time : (point,), float64
        Since the last support row, in the table's unit: 0 or less in the support.
    mask : (point,), bool
        False where padded.
    weight : (point,)
        Multiplies the likelihood term; 0 where padded.
    offset : (point,)
        Added to the linear predictor: what a `population` model predicts.
    """

    x: Tensor  # (point, feature)
    y: Tensor  # (point,)
    time: Tensor  # (point,) float64, since the last support row
    mask: Tensor  # (point,) False where padded
    weight: Tensor  # (point,) multiplies the likelihood term; 0 where padded
    offset: Tensor  # (point,) added to the linear predictor

    @property
    def n(self) -> Tensor:
        """Effective number of points: the sum of the weights."""
        return self.weight.sum(-1)


def padded_index(starts: Tensor, sizes: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Row numbers and mask, (task, point), of consecutive rows ``starts : starts + sizes``.

    They are as wide as the largest size, or as `width`.
    """
    if width is None:
        width = int(sizes.max()) if len(sizes) else 0
    step = torch.arange(width, device=starts.device)
    mask = step < sizes[:, None]
    return torch.where(mask, starts[:, None] + step, 0), mask


def visible_width(rows: TaskRows) -> int:
    """Number of features in the sets made from these rows."""
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
    """Gather rows into a padded set with the features that may be seen at each point.

    ``x = [row features, elapsed, last measured values, their ages, missing]``: *elapsed* is the
    time since the support's last row (0 for an empty support), and a measured feature is its last
    value in a support row strictly earlier than the point, with its age. Both times pass through
    ``asinh(t / time_unit)``. The support itself follows the same rule, so that what a learner
    adapts on looks like what it predicts from.

    Parameters
    ----------
    rows, index, mask
        The points: row numbers (task, point) into `rows`, and which of them are real.
    source, source_index, source_mask
        The support rows of the same tasks, in time order.
    time_unit : float
        A typical time between visits.
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
    """Supports without a single point."""
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
        nothing = source.measured.new_zeros((*time.shape, n_features))
        return nothing, nothing, nothing + 1.0
    values = source.measured[index]  # (task, support, feature)
    position = torch.arange(n_support, device=index.device)[:, None]
    seen = torch.where(values.isnan(), -1, position).cummax(1).values
    earlier = (support_time[:, None, :] < time[:, :, None]).sum(2) - 1  # (task, point)
    last = _take(seen, earlier.clamp(min=0))  # (task, point, feature)
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
