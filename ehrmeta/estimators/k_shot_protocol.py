"""The k-shot protocol: adapt every task from k of its rows, judge it on its later rows."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.data import TaskIndex, first_k, random_k
from ehrmeta.data.columns import take_rows
from ehrmeta.errors import AtypicalWarning
from ehrmeta.estimators.inputs import Inputs

Mask = npt.NDArray[np.bool_]


def k_shot_splits(
    inputs: Inputs, shots: Sequence[int], *, outcome_time: Any = None
) -> Iterator[tuple[int, Mask, Mask]]:
    """Support and query rows for every support size k that leaves a row to predict.

    Parameters
    ----------
    inputs : Inputs
        The rows of test tasks, from `RowReader.read`.
    shots : sequence of int
        Support sizes: the first k rows of a task with time, k random ones without.
    outcome_time : (row,), optional
        When each outcome became known: no query row is earlier.

    Yields
    ------
    k, support, query : int, (row,), (row,)
        Masks; tasks without a query row are in neither.
    """
    tasks = inputs.tasks()
    for k in shots:
        if inputs.time is None:
            support, query = random_k(tasks, k, random_state=0)
        else:
            support, query = first_k(tasks, k, time=inputs.time, outcome_time=outcome_time)
        if query.any():
            yield k, keep_judged_tasks(tasks, support, query), query


def keep_judged_tasks(tasks: TaskIndex, support: Mask, query: Mask) -> Mask:
    """Support rows of the tasks that have a query row, (row,)."""
    judged_tasks = np.bincount(tasks.codes[query], minlength=tasks.n_tasks) > 0
    mask: Mask = support & judged_tasks[tasks.codes]
    return mask


def adapt_to_rows(
    model: Any, X: Any, inputs: Inputs, support: Mask, query: Mask
) -> tuple[Any, dict[str, Any]]:
    """Adapt a model to support rows.

    Parameters
    ----------
    model : estimator
        Anything with ``adapt(X, y, groups=, time=)``; without support rows its `unadapted` tasks
        predict, or itself where it has none.
    X : frame or array, (row, feature)
    inputs : Inputs
        What was read of X, the outcome, groups and time.
    support, query : (row,)
        Masks.

    Returns
    -------
    adapted, keywords
        The adapted tasks, and the arguments by which they predict the query rows.
    """

    def of(rows: Mask, *names: str) -> dict[str, Any]:
        arrays = {name: getattr(inputs, name) for name in names}
        return {name: array[rows] for name, array in arrays.items() if array is not None}

    if not support.any():
        adapted = model.unadapted() if hasattr(model, "unadapted") else model
        return adapted, {"X": take_rows(X, query), **of(query, "time")}
    with warnings.catch_warnings():  # among many test tasks some are atypical by chance
        warnings.simplefilter("ignore", AtypicalWarning)
        rows = take_rows(X, support)
        adapted = model.adapt(rows, inputs.outcome()[support], **of(support, "groups", "time"))
    return adapted, {"X": take_rows(X, query), **of(query, "groups", "time")}
