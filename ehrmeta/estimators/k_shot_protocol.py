"""The k-shot protocol: adapt every task from k of its rows, score it on the other rows."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.data import TaskIndex, first_k, random_k
from ehrmeta.data.columns import take_rows
from ehrmeta.errors import AtypicalWarning, DataError, DataWarning, Remedy, warn
from ehrmeta.estimators.files import data_digest
from ehrmeta.estimators.inputs import Inputs

Mask = npt.NDArray[np.bool_]


@contextmanager
def scoring_checks(
    models: Iterable[Any], X: Any, inputs: Inputs, *, allow_training_table: bool
) -> Iterator[None]:
    """Context for scoring models on test rows: check the rows, and give each warning once.

    Every model first reads all rows. Within the context, later adaptations do not repeat the
    warnings about these rows.

    Parameters
    ----------
    models : iterable of estimators
        Those without ``fitted_model()`` are not checked.
    X, inputs
        The rows, and the rows as read.
    allow_training_table : bool
        Whether a model may be scored on the table that it was trained on.

    Raises
    ------
    DataError
        A model was trained on these rows.
    """
    shown = set()
    rows = {"groups": inputs.groups, "time": inputs.time}
    for model in (getattr(model, "model", model) for model in models):  # under calibrated ones
        if not hasattr(model, "fitted_model"):
            continue
        fitted = model.fitted_model()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _, encoded = fitted.read_support(X, inputs.outcome(), **rows)
        if not allow_training_table and fitted.data_digest == data_digest(encoded):
            raise DataError(
                f"the {fitted.name} was trained on this very table: scores on it are too "
                "optimistic.",
                Remedy(
                    "training-table",
                    "Pass other patients, for instance those that Table.split holds out, or "
                    "allow_training_table=True.",
                ),
            )
        for one in caught:
            if str(one.message) not in shown:
                shown.add(str(one.message))
                warn(one.message, one.category)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        yield


def shots_to_score(
    tasks: TaskIndex, given: Sequence[int] | None, usual: Sequence[int]
) -> tuple[int, ...]:
    """Support sizes to score: those given, or the usual ones that half of the tasks exceed.

    Parameters
    ----------
    tasks : TaskIndex
    given : sequence of int, optional
    usual : sequence of int
        Defaults. A warning names those left out because fewer than half of the tasks exceed them.

    Raises
    ------
    DataError
        No task has a row after one of the given sizes.

    Examples
    --------
    >>> from ehrmeta.data import index_tasks
    >>> shots_to_score(index_tasks([1, 1, 1, 2, 2, 2, 3]), None, (0, 1, 2))
    (0, 1, 2)
    """
    sizes = tasks.sizes
    longest = sizes.max(initial=0)
    if given is None:
        chosen = tuple(k for k in usual if 2 * np.sum(sizes > k) >= len(sizes)) or (0,)
        left_out = [k for k in usual if k not in chosen]
        if left_out:
            what = (
                f"shots {left_out} are not scored: fewer than half of {len(sizes):,} tasks have a "
                f"row after that many (the longest has {longest:,})."
            )
            remedy = Remedy("name-shots", "Pass shots= to score them.")
            warn(DataWarning(what, remedy))
        return chosen
    too_many = [k for k in given if k >= longest]
    if too_many:
        raise DataError(
            f"none of {len(sizes):,} tasks has a row after the first {too_many[0]}: the longest "
            f"has {longest:,} rows.",
            Remedy("fewer-shots", "Lower shots."),
        )
    return tuple(given)


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
