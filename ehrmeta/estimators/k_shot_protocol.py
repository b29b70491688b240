"""The k-shot protocol: adapt every task from k of its rows, score it on the other rows."""

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
    """Yield k and the masks of support and query rows, for every k with query rows.

    The support is the first k rows of a task with time, and k random ones without. Tasks without a
    query row are in neither mask.

    Parameters
    ----------
    inputs : Inputs
        The rows of test tasks, from `RowReader.read`.
    shots : sequence of int
        Support sizes.
    outcome_time : (row,), optional
        Time at which each outcome became known: no query row is earlier.
    """
    tasks = inputs.tasks()
    for k in shots:
        if inputs.time is None:
            support, query = random_k(tasks, k, random_state=0)
        else:
            support, query = first_k(tasks, k, time=inputs.time, outcome_time=outcome_time)
        if query.any():
            yield k, drop_unscored_tasks(tasks, support, query), query


def drop_unscored_tasks(tasks: TaskIndex, support: Mask, query: Mask) -> Mask:
    """Support rows of the tasks that have a query row, (row,)."""
    has_query = np.bincount(tasks.codes[query], minlength=tasks.n_tasks) > 0
    return np.asarray(support & has_query[tasks.codes])


def adapt_to_rows(
    model: Any, X: Any, inputs: Inputs, support: Mask, query: Mask
) -> tuple[Any, dict[str, Any]]:
    """Adapt a model to support rows; return the tasks and the arguments to predict the query rows.

    Parameters
    ----------
    model : estimator
        Anything with ``adapt(X, y, groups=, time=)``. Without support rows, ``model.unadapted()``
        predicts, or the model if it has no such method.
    X : frame or array, (row, feature)
    inputs : Inputs
        X, outcome, groups and time as read.
    support, query : (row,)
        Masks.
    """

    def arguments(rows: Mask, *names: str) -> dict[str, Any]:
        arrays = {name: getattr(inputs, name) for name in names}
        return {name: array[rows] for name, array in arrays.items() if array is not None}

    if not support.any():
        adapted = model.unadapted() if hasattr(model, "unadapted") else model
        return adapted, {"X": take_rows(X, query), **arguments(query, "time")}
    with warnings.catch_warnings():  # among many test tasks some are atypical by chance
        warnings.simplefilter("ignore", AtypicalWarning)
        known = arguments(support, "groups", "time")
        adapted = model.adapt(take_rows(X, support), inputs.outcome()[support], **known)
    return adapted, {"X": take_rows(X, query), **arguments(query, "groups", "time")}
