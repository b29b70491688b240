"""Rows to tasks: numbered, their rows sorted, vectorised over rows, no loop over tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.columns import read_column
from ehrmeta.errors import DataError, GroupError

__all__ = ["RandomState", "TaskIndex", "finite_column", "index_tasks", "sort_rows"]

RandomState = int | np.random.Generator | None
_LARGEST_ID = 2.0**53  # above, neighbouring whole numbers are one float


@dataclass(frozen=True)
class TaskIndex:
    """Which rows belong to which task.

    Attributes
    ----------
    order : ndarray of int64, (row,)
        Permutation that sorts the rows by task, then time, then position.
    starts : ndarray of int64, (task + 1,)
        Rows ``order[starts[i]:starts[i + 1]]`` are those of task `i`.
    labels : ndarray, (task,)
        Task ids, sorted, so that they do not depend on the order of the rows.
    codes : ndarray of int64, (row,)
        Task number of every original row.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    labels: NDArray[Any]
    codes: NDArray[np.int64]

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.labels)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of every task, (task,)."""
        return np.diff(self.starts)

    def __repr__(self) -> str:
        return f"TaskIndex({self.n_tasks} tasks, {len(self.codes)} rows)"


def index_tasks(groups: Any, time: Any = None) -> TaskIndex:
    """Number the tasks and sort their rows.

    Parameters
    ----------
    groups : array-like, (row,)
        Task ids: numbers or text.
    time : array-like of float, (row,), optional
        Sorts the rows within a task; ties keep their order.

    Raises
    ------
    GroupError
        Task ids are missing.

    Examples
    --------
    >>> tasks = index_tasks(["b", "a", "b"], time=[2, 0, 1])
    >>> tasks.labels, tasks.order, tasks.starts
    (array(['a', 'b'], dtype=object), array([1, 2, 0]), array([0, 1, 3]))
    """
    try:
        ids = read_column(groups, "groups")
    except DataError as error:
        raise GroupError(f"task ids cannot be read: {error}") from error
    if ids.dtype.kind == "f" and bool((np.abs(ids) > _LARGEST_ID).any()):
        raise GroupError(
            "task ids above 2^53 were read as floating-point numbers, which cannot tell all of "
            "them apart. Pass them as text."
        )
    found, uniques = pd.factorize(ids, use_na_sentinel=True)
    missing = np.flatnonzero(found < 0)
    if len(missing):
        raise GroupError(
            f"the task id is missing in {len(missing)} of {len(found)} rows (first: row "
            f"{missing[0]}). Fill it in or drop those rows."
        )
    labels = np.asarray(uniques)
    sorting = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    rank[sorting] = np.arange(len(labels))
    codes = rank[found]
    starts = np.zeros(len(labels) + 1, dtype=np.int64)
    np.cumsum(np.bincount(codes, minlength=len(labels)), out=starts[1:])
    order = sort_rows(codes, None if time is None else finite_column(time, len(codes), "time"))
    return TaskIndex(order, starts, labels[sorting], codes)


def sort_rows(
    codes: NDArray[np.int64], key: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Stable order by task, then key: ``np.lexsort((key, codes))`` in less than half its time."""
    n_rows = len(codes)
    step = np.diff(codes)
    in_order = step >= 0 if key is None else (step > 0) | ((step == 0) & (np.diff(key) >= 0))
    if in_order.all():
        return np.arange(n_rows)
    by_key = np.arange(n_rows) if key is None else np.argsort(key, kind="stable")
    keys = codes[by_key] * n_rows + np.arange(n_rows)  # all different: any sort is stable
    keys.sort()
    order: NDArray[np.int64] = by_key[keys % n_rows]
    return order


def finite_column(values: Any, n_rows: int, name: str) -> NDArray[np.float64]:
    """Values as numbers, (row,); a missing or infinite one raises."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (n_rows,):
        raise DataError(
            f"{name} has shape {numbers.shape}, but groups has {n_rows} rows. Pass one per row."
        )
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise DataError(
            f"{name} is missing or infinite in {len(bad)} of {n_rows} rows (first: row {bad[0]}). "
            "Fill it in or drop those rows."
        )
    return numbers
