"""Tasks of a table: numbering and sorting of rows, splits by task, and support masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.model_selection import BaseCrossValidator

from ehrmeta.data.columns import Mask, read_column, read_columns, refuse_rows
from ehrmeta.errors import DataError, DataWarning, GroupError, SchemaError, did_you_mean, warn

RandomState = int | np.random.Generator | None
_LARGEST_ID = 2.0**53  # above, neighbouring whole numbers are the same float
_FILL_IN = "Fill it in or drop those rows."


@dataclass(frozen=True)
class TaskIndex:
    """Assignment of rows to tasks.

    Attributes
    ----------
    order : ndarray of int64, (row,)
        Permutation that sorts the rows by task, then time, then position.
    starts : ndarray of int64, (task + 1,)
        Task `i` has the rows ``order[starts[i]:starts[i + 1]]``.
    labels : ndarray, (task,)
        Task ids, sorted.
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
        Sorts the rows of a task; ties keep their order.

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
        raise GroupError("task ids cannot be read:", *error.args) from error
    if ids.dtype.kind == "f" and bool((np.abs(ids) > _LARGEST_ID).any()):
        raise GroupError(
            "task ids above 2^53 were read as floating-point numbers, which are not exact. Pass "
            "them as text."
        )
    unsorted, uniques = pd.factorize(ids, use_na_sentinel=True)
    refuse_rows(unsorted < 0, "the task id is missing", _FILL_IN, GroupError)
    labels = np.asarray(uniques)
    sorting = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    rank[sorting] = np.arange(len(labels))
    codes = rank[unsorted]
    starts = np.zeros(len(labels) + 1, dtype=np.int64)
    np.cumsum(np.bincount(codes, minlength=len(labels)), out=starts[1:])
    order = _sort_rows(codes, None if time is None else _finite_column(time, len(codes), "time"))
    return TaskIndex(order, starts, labels[sorting], codes)


def _sort_rows(
    codes: NDArray[np.int64], key: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Stable order by task, then key, as ``np.lexsort((key, codes))`` but faster."""
    n_rows = len(codes)
    step = np.diff(codes)
    in_order = step >= 0 if key is None else (step > 0) | ((step == 0) & (np.diff(key) >= 0))
    if in_order.all():
        return np.arange(n_rows)
    by_key = np.arange(n_rows) if key is None else np.argsort(key, kind="stable")
    keys = codes[by_key] * n_rows + np.arange(n_rows)  # distinct: any sort is stable
    keys.sort()
    order: NDArray[np.int64] = by_key[keys % n_rows]
    return order


def _finite_column(values: Any, n_rows: int, name: str) -> NDArray[np.float64]:
    """Values as numbers, (row,); raises if one is missing or infinite."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (n_rows,):
        raise DataError(
            f"{name} has shape {numbers.shape}, but groups has {n_rows} rows. Pass one per row."
        )
    refuse_rows(~np.isfinite(numbers), f"{name} is missing or infinite", _FILL_IN)
    return numbers


def split_tasks(
    labels: Any, test_fraction: float, random_state: RandomState = None
) -> tuple[Mask, Mask]:
    """Split task labels at random into training and test tasks, at least one of each.

    Parameters
    ----------
    labels : array-like, (task,)
    test_fraction : float in (0, 1)
    random_state : int, Generator or None

    Returns
    -------
    train, test : ndarray of bool, (task,)

    Examples
    --------
    >>> train, test = split_tasks(range(10), 0.2, random_state=0)
    >>> int(train.sum()), int(test.sum())
    (8, 2)
    """
    n_tasks = len(labels)
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction must lie between 0 and 1, got {test_fraction}.")
    if n_tasks < 2:
        raise GroupError(f"cannot split {n_tasks} task(s). Pass at least 2, and check the ids.")
    n_test = min(max(1, round(test_fraction * n_tasks)), n_tasks - 1)
    test = np.zeros(n_tasks, dtype=bool)
    test[np.random.default_rng(random_state).permutation(n_tasks)[:n_test]] = True
    return ~test, test


class PatientKFold(BaseCrossValidator):
    """K-fold cross-validation by task: no patient is in training and test at once.

    Unlike scikit-learn's ``GroupKFold`` it can read the task ids from a column of `X`, as pipelines
    need, and folds have equal numbers of tasks, not of rows.

    Parameters
    ----------
    n_splits : int
    task : str, optional
        Column of `X` with the task ids; otherwise `groups` is required.
    shuffle : bool
        Whether folds are random; otherwise they follow the sorted ids.
    random_state : int, Generator or None

    Examples
    --------
    >>> X, groups = np.zeros((6, 1)), [1, 1, 2, 2, 3, 3]
    >>> [test.tolist() for _, test in PatientKFold(3, shuffle=False).split(X, groups=groups)]
    [[0, 1], [2, 3], [4, 5]]
    """

    __metadata_request__split = {"groups": True}

    def __init__(
        self,
        n_splits: int = 5,
        *,
        task: str | None = None,
        shuffle: bool = True,
        random_state: RandomState = None,
    ) -> None:
        self.n_splits = n_splits
        self.task = task
        self.shuffle = shuffle
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Searches call it first. With `groups`, a `DataWarning` says that they reach the folds only,
        unless scikit-learn's metadata routing is enabled.
        """
        if groups is not None and not get_config()["enable_metadata_routing"]:
            warn(
                "groups= of a search reaches its folds, but not the fit of an estimator, because "
                "metadata routing is off. Name the column of tasks in the estimator and in "
                "PatientKFold by task=, or call "
                "sklearn.set_config(enable_metadata_routing=True) first.",
                DataWarning,
            )
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the row numbers of training and test, fold by fold."""
        if groups is None:
            if self.task is None:
                raise GroupError(
                    "no task ids. Pass groups=..., or the column: PatientKFold(task=...)."
                )
            columns = read_columns(X)
            if self.task not in columns:
                raise SchemaError(
                    f"no task column '{self.task}' in X ({len(columns)} columns); a transformer "
                    f"may have dropped it. Pass it through. {did_you_mean(self.task, columns)}"
                )
            groups = columns[self.task]
        tasks = index_tasks(groups)
        if self.n_splits < 2 or self.n_splits > tasks.n_tasks:
            raise GroupError(
                f"{tasks.n_tasks} tasks cannot be split into {self.n_splits} folds. Use at least 2 "
                "folds and at most one per task."
            )
        fold = np.arange(tasks.n_tasks) * self.n_splits // tasks.n_tasks
        if self.shuffle:
            fold = np.random.default_rng(self.random_state).permutation(fold)
        for i in range(self.n_splits):
            in_test = (fold == i)[tasks.codes]
            yield np.flatnonzero(~in_test), np.flatnonzero(in_test)


def first_k(
    tasks: TaskIndex, k: int, *, time: Any = None, outcome_time: Any = None
) -> tuple[Mask, Mask]:
    """Masks of the first `k` rows of every task (support) and of its later rows (query).

    Query rows are strictly later than the last support row and, with `outcome_time`, not earlier
    than the time at which all support outcomes are known. Tasks with `k` or fewer rows are in
    neither mask; with ``k = 0`` all rows are queries. Without `time`, rows are in table order.

    Parameters
    ----------
    tasks : TaskIndex
    k : int
    time : array-like of float, (row,), optional
    outcome_time : array-like of float, (row,), optional
        Time at which the outcome became known, in the unit of `time`.

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
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 0:
        raise DataError(f"shots must be a whole number of rows, 0 or more, got {k!r}.")
    n_rows = len(tasks.codes)
    if k == 0:
        return np.zeros(n_rows, dtype=bool), np.ones(n_rows, dtype=bool)
    times = None if time is None else _finite_column(time, n_rows, "time")
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
            known = _finite_column(outcome_time, n_rows, "outcome_time")
            query &= times >= _latest(tasks, known, support)[tasks.codes]
    elif outcome_time is not None:
        raise DataError("outcome_time needs time. Pass time=...")
    return support, query


def before(
    tasks: TaskIndex, time: Any, cutoff: ArrayLike, *, outcome_time: Any = None
) -> tuple[Mask, Mask]:
    """Masks of the rows up to a prediction time (support) and of later rows (query).

    Parameters
    ----------
    tasks : TaskIndex
    time : array-like of float, (row,)
    cutoff : float or array-like, (task,)
        Prediction time, one for all tasks or one per task in the order of ``tasks.labels``; a task
        whose cutoff is NaN is in neither mask.
    outcome_time : array-like of float, (row,), optional
        Rows whose outcome is known only after the cutoff are not in the support.

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
    times = _finite_column(time, n_rows, "time")
    cutoffs = np.asarray(cutoff, dtype=np.float64)
    if cutoffs.ndim and cutoffs.shape != (tasks.n_tasks,):
        raise DataError(
            f"cutoff has shape {cutoffs.shape}, but there are {tasks.n_tasks} tasks. Pass one "
            "number, or one per task in the order of tasks.labels."
        )
    limit = np.broadcast_to(cutoffs, (tasks.n_tasks,))[tasks.codes]
    support, query = times <= limit, times > limit
    if outcome_time is not None:
        support &= _finite_column(outcome_time, n_rows, "outcome_time") <= limit
    return support, query


def random_k(tasks: TaskIndex, k: int, random_state: RandomState = None) -> tuple[Mask, Mask]:
    """Masks of `k` random rows of every task (support) and of its other rows (query).

    For tasks without time: with time it would look ahead. Tasks with `k` or fewer rows are in
    neither mask.

    Examples
    --------
    >>> from ehrmeta.data import index_tasks
    >>> support, query = random_k(index_tasks([7, 7, 7, 8]), 2, random_state=0)
    >>> int(support.sum()), int(query.sum())
    (2, 1)
    """
    draws = np.random.default_rng(random_state).random(len(tasks.codes))
    shuffled = TaskIndex(_sort_rows(tasks.codes, draws), tasks.starts, tasks.labels, tasks.codes)
    return first_k(shuffled, k)


def _time_order(tasks: TaskIndex, time: NDArray[np.float64]) -> NDArray[np.int64]:
    """Row order by task and time; sorts only if the index is not sorted by this time."""
    steps = np.diff(time[tasks.order])
    steps[tasks.starts[1:-1] - 1] = 0  # from one task to the next
    return tasks.order if (steps >= 0).all() else _sort_rows(tasks.codes, time)


def _latest(tasks: TaskIndex, time: NDArray[np.float64], rows: Mask) -> NDArray[np.float64]:
    """Latest time of the masked rows of every task, (task,); -inf without such rows."""
    latest = np.full(tasks.n_tasks, -np.inf)
    np.maximum.at(latest, tasks.codes[rows], time[rows])
    return latest
