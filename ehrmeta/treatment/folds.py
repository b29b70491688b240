"""Folds for cross-fitting: whole tasks, or rows where there is one task only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError

__all__ = ["cross_fit_folds"]


def cross_fit_folds(
    task: npt.NDArray[np.int64],
    n_tasks: int,
    n_folds: int,
    *,
    strata: npt.NDArray[Any] | None = None,
    random_state: int = 0,
) -> npt.NDArray[np.int64]:
    """Number of the fold of every row, (row,).

    Tasks are dealt to the folds at random; with fewer than two tasks the rows are, those of one
    stratum evenly.

    Parameters
    ----------
    task : (row,)
    n_tasks, n_folds : int
    strata : (row,), optional
        Arms.
    random_state : int

    Examples
    --------
    >>> folds = cross_fit_folds(np.array([0, 0, 1, 1, 2]), 3, 3)
    >>> bool(folds[0] == folds[1]), sorted(set(folds.tolist()))
    (True, [0, 1, 2])
    """
    if n_folds < 2:
        raise DataError(f"n_folds must be 2 or more, got {n_folds}: no row may score itself.")
    random = np.random.default_rng(random_state)
    if n_tasks > 1:
        fold: npt.NDArray[np.int64] = random.permutation(np.arange(n_tasks) % n_folds)[task]
        return fold
    order = random.permutation(len(task))
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(len(task), np.int64)
    fold[order] = np.arange(len(task)) % n_folds
    return fold
