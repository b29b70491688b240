"""Tasks to training and test: whole tasks only, so that no patient is on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator

from ehrmeta.data.columns import read_columns
from ehrmeta.data.tasks import RandomState, index_tasks
from ehrmeta.errors import DataError, GroupError, SchemaError, did_you_mean

__all__ = ["PatientKFold", "split_tasks"]

Mask = NDArray[np.bool_]


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
        raise GroupError(f"cannot split {n_tasks} task(s): at least 2 are needed. Check groups.")
    n_test = min(max(1, round(test_fraction * n_tasks)), n_tasks - 1)
    test = np.zeros(n_tasks, dtype=bool)
    test[np.random.default_rng(random_state).permutation(n_tasks)[:n_test]] = True
    return ~test, test


class PatientKFold(BaseCrossValidator):
    """K folds of whole tasks: no patient is in training and test at once.

    Unlike scikit-learn's ``GroupKFold`` it can take the task ids from a column of `X`, so that they
    travel through pipelines, and folds hold equal numbers of tasks, not of rows.

    Parameters
    ----------
    n_splits : int
    task : str, optional
        Column of `X` with the task ids; without it `groups` is required.
    shuffle : bool
        Draw the folds at random; otherwise they follow the sorted ids.
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
        """Return the number of folds."""
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the row numbers of training and test, fold by fold.

        Raises
        ------
        SchemaError
            The task column is not in `X`, for example after a transformer dropped it.
        GroupError
            No task ids, or fewer tasks than folds.
        """
        if groups is None:
            groups = self._task_column(X)
        tasks = index_tasks(groups)
        if self.n_splits < 2 or self.n_splits > tasks.n_tasks:
            raise GroupError(
                f"n_splits={self.n_splits} must lie between 2 and the number of tasks "
                f"({tasks.n_tasks})."
            )
        fold = np.arange(tasks.n_tasks) * self.n_splits // tasks.n_tasks
        if self.shuffle:
            fold = np.random.default_rng(self.random_state).permutation(fold)
        for i in range(self.n_splits):
            in_test = (fold == i)[tasks.codes]
            yield np.flatnonzero(~in_test), np.flatnonzero(in_test)

    def _task_column(self, X: Any) -> NDArray[Any]:
        if self.task is None:
            raise GroupError(
                "no task ids. Pass groups=..., or name the column: PatientKFold(task=...)."
            )
        columns = read_columns(X)
        if self.task not in columns:
            raise SchemaError(
                f"no task column '{self.task}' in X ({len(columns)} columns); a transformer may "
                f"have dropped it. Pass it through. {did_you_mean(self.task, columns)}"
            )
        return columns[self.task]
