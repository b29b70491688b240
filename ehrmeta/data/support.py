"""Tasks to support and query: by count, by time or at random, never with look-ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.tasks import RandomState, TaskIndex, finite_column, sort_rows
from ehrmeta.errors import DataError

__all__ = ["before", "first_k", "random_k"]

Mask = NDArray[np.bool_]


def first_k(
    tasks: TaskIndex, k: int, *, time: Any = None, outcome_time: Any = None
) -> tuple[Mask, Mask]:
    """Take the first `k` rows of every task as support; later rows are the query.

    The query lies strictly after the support's last time and, with `outcome_time`, not before the
    latest outcome of the support is known. Tasks with `k` or fewer rows are in neither mask;
    at ``k = 0`` every row is a query. Without `time` the rows count in their order.

    Parameters
    ----------
    tasks : TaskIndex
    k : int
    time : array-like of float, (row,), optional
    outcome_time : array-like of float, (row,), optional
        When the row's outcome became known, on the clock of `time`.

    Returns
    -------
    support, query : ndarray of bool, (row,)
        In the order of the original rows.

    Examples
    --------
    >>> from ehrmeta.data import index_tasks
    >>> time = [0, 1, 1, 2]
    >>> support, query = first_k(index_tasks([7, 7, 7, 7], time), 2, time=time)
    >>> support, query  # the tied row is in neither
    (array([ True,  True, False, False]), array([False, False, False,  True]))
    """
    k = _shots(k)
    n_rows = len(tasks.codes)
    if k == 0:
        return np.zeros(n_rows, dtype=bool), np.ones(n_rows, dtype=bool)
    times = None if time is None else finite_column(time, n_rows, "time")
    order = tasks.order if times is None else _time_order(tasks, times)
    position = np.arange(n_rows) - np.repeat(tasks.starts[:-1], tasks.sizes)
    enough = np.repeat(tasks.sizes > k, tasks.sizes)
    in_support = enough & (position < k)
    support, query = np.zeros(n_rows, dtype=bool), np.zeros(n_rows, dtype=bool)
    support[order] = in_support
    query[order] = enough & ~in_support
    if times is not None:
        query &= times > _latest(tasks, times, support)[tasks.codes]
        if outcome_time is not None:
            known = finite_column(outcome_time, n_rows, "outcome_time")
            query &= times >= _latest(tasks, known, support)[tasks.codes]
    elif outcome_time is not None:
        raise DataError("outcome_time needs time. Pass time=...")
    return support, query


def before(
    tasks: TaskIndex, time: Any, cutoff: ArrayLike, *, outcome_time: Any = None
) -> tuple[Mask, Mask]:
    """Take the rows up to a prediction time as support; later rows are the query.

    Parameters
    ----------
    tasks : TaskIndex
    time : array-like of float, (row,)
    cutoff : float or array-like, (task,)
        Prediction time, one for all tasks or one per task in the order of ``tasks.labels``; a task
        whose cutoff is NaN is in neither mask.
    outcome_time : array-like of float, (row,), optional
        Rows whose outcome is known only after the cutoff stay out of the support.

    Returns
    -------
    support, query : ndarray of bool, (row,)

    Examples
    --------
    >>> from ehrmeta.data import index_tasks
    >>> before(index_tasks([7, 7, 8]), [0, 5, 1], 2)
    (array([ True, False,  True]), array([False,  True, False]))
    """
    n_rows = len(tasks.codes)
    times = finite_column(time, n_rows, "time")
    cutoffs = np.asarray(cutoff, dtype=np.float64)
    if cutoffs.ndim and cutoffs.shape != (tasks.n_tasks,):
        raise DataError(
            f"cutoff has shape {cutoffs.shape}, but there are {tasks.n_tasks} tasks. Pass one "
            "number, or one per task in the order of tasks.labels."
        )
    limit = np.broadcast_to(cutoffs, (tasks.n_tasks,))[tasks.codes]
    support, query = times <= limit, times > limit
    if outcome_time is not None:
        support &= finite_column(outcome_time, n_rows, "outcome_time") <= limit
    return support, query


def random_k(tasks: TaskIndex, k: int, random_state: RandomState = None) -> tuple[Mask, Mask]:
    """Draw `k` random rows of every task as support; its other rows are the query.

    For tasks without time only: with time this would look ahead. Tasks with `k` or fewer rows are
    in neither mask.

    Examples
    --------
    >>> from ehrmeta.data import index_tasks
    >>> support, query = random_k(index_tasks([7, 7, 7, 8]), 2, random_state=0)
    >>> int(support.sum()), int(query.sum())
    (2, 1)
    """
    draws = np.random.default_rng(random_state).random(len(tasks.codes))
    shuffled = TaskIndex(sort_rows(tasks.codes, draws), tasks.starts, tasks.labels, tasks.codes)
    return first_k(shuffled, k)


def _time_order(tasks: TaskIndex, time: NDArray[np.float64]) -> NDArray[np.int64]:
    """Row order by task and time; sorts only when the index was made without this time."""
    steps = np.diff(time[tasks.order])
    steps[tasks.starts[1:-1] - 1] = 0  # from one task to the next
    return tasks.order if (steps >= 0).all() else sort_rows(tasks.codes, time)


def _latest(tasks: TaskIndex, time: NDArray[np.float64], rows: Mask) -> NDArray[np.float64]:
    """Latest time among the chosen rows, -inf where a task has none, (task,)."""
    latest = np.full(tasks.n_tasks, -np.inf)
    np.maximum.at(latest, tasks.codes[rows], time[rows])
    return latest


def _shots(k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0:
        raise DataError(f"shots must be a whole number of rows, 0 or more, got {k!r}.")
    return int(k)
