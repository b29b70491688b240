"""What adapted tasks refuse, and what they warn of."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import AtypicalWarning, DataError, DataWarning, GroupError, Remedy
from ehrmeta.nn.batch import TaskRows

__all__ = [
    "last_times",
    "refuse_new",
    "refuse_other_ids",
    "refuse_repeats",
    "warn_of_atypical_tasks",
    "warn_of_looking_back",
]

Array = npt.NDArray[np.float64]
_ATYPICAL = 0.001


def refuse_other_ids(groups: npt.NDArray[Any], labels: npt.NDArray[Any] | None) -> None:
    """Ids must be numbers where they were numbers, and text where they were text."""
    if labels is not None and (groups.dtype == object) != (labels.dtype == object):
        given, made = ("text", "numbers") if groups.dtype == object else ("numbers", "text")
        raise GroupError(
            f"groups holds {given}, but the model was adapted to ids that are {made}: convert "
            "them to one type."
        )


def refuse_new(codes: npt.NDArray[np.int64]) -> None:
    """Every row must be of an adapted task; `codes` (row,) is negative where it is not."""
    new = codes < 0
    if new.any():
        raise GroupError(
            f"{int(new.sum()):,} of {len(new):,} rows (first: row "
            f"{int(np.flatnonzero(new)[0])}) belong to tasks that were not adapted.",
            Remedy("new-groups", "Adapt them first, or pass new_groups='population' or 'nan'."),
        )


def refuse_repeats(support: TaskRows) -> None:
    """A patient has one row at a time."""
    same = (support.time.diff() == 0) & (support.codes.diff() == 0)
    if bool(same.any()):
        raise DataError(
            f"{int(same.sum()):,} rows of the update repeat the time of a row that their task "
            f"already has (first in task {int(support.codes[1:][same][0])} of "
            f"{support.n_tasks}). Pass only new visits."
        )


def last_times(support: TaskRows) -> Array:
    """Time of every task's last support row, (task,), and last -inf for tasks not adapted."""
    ends, adapted = support.starts[1:].numpy(), support.sizes.numpy() > 0
    last = np.full(support.n_tasks + 1, -np.inf)
    last[:-1][adapted] = support.time.numpy()[ends[adapted] - 1]
    return last


def warn_of_looking_back(
    time: Array | None, codes: npt.NDArray[np.int64], last_time: Array
) -> None:
    """Rows, (row,), should be later than the last support row of their task, (task,)."""
    if time is None:
        return
    back = np.flatnonzero(time <= last_time[codes])
    if len(back):
        warnings.warn(
            f"{len(back):,} of {len(time):,} rows (first: row {back[0]}, of task "
            f"{codes[back[0]]} of {len(last_time) - 1:,}) are not later than the last row that "
            "their task was adapted to: they are predicted knowing outcomes of their own time or "
            "later, which no forecast does. Adapt to earlier rows only.",
            DataWarning,
            stacklevel=6,
        )


def warn_of_atypical_tasks(p: Array) -> None:
    """Tasks whose supports have small prior-predictive p-values, (task,)."""
    p = np.nan_to_num(p, nan=1.0)
    odd = np.flatnonzero(p < _ATYPICAL / len(p))  # Bonferroni: many tasks, more chance
    if len(odd):
        warnings.warn(
            f"{len(odd):,} of {len(p):,} adapted tasks (first: task {odd[0]}) have supports "
            f"unlike the training tasks (prior-predictive p < {_ATYPICAL} / number of tasks); see "
            "atypical_. Check units and values before relying on predictions.",
            AtypicalWarning,
            stacklevel=5,
        )
