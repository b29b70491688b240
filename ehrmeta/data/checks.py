"""What a table must satisfy, each check a function: it raises, or returns cleaned columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.schema import Feature, OnDuplicate, Outcome
from ehrmeta.data.tasks import TaskIndex, index_tasks
from ehrmeta.errors import DataError, GroupError, SchemaError, did_you_mean

__all__ = [
    "Finding",
    "check_binary",
    "check_complete",
    "check_outcome",
    "merge_duplicates",
    "outside",
    "require_columns",
    "task_index",
    "written_dates",
]

Columns = dict[str, NDArray[Any]]
Mask = NDArray[np.bool_]
_PLURAL = re.compile(r"\b(outcome|row|task|value)s\b")  # of what findings count


@dataclass(frozen=True)
class Finding:
    """Something a table did with its input, counted.

    Attributes
    ----------
    what : str
        What was found and what was done about it.
    column : str
    count : int
        Values or rows, as `what` says.
    remedy : str
        What to do if that is not wanted.
    is_error : bool
        Whether it keeps the table from being used.
    """

    what: str
    column: str
    count: int
    remedy: str
    is_error: bool = False

    def __str__(self) -> str:
        what = _PLURAL.sub(r"\1", self.what, count=1) if self.count == 1 else self.what
        return f"column '{self.column}': {self.count:,} {what}. {self.remedy}".rstrip()


def require_columns(columns: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raise when a column of the schema is not in the frame."""
    for name in names:
        if name not in columns:
            raise SchemaError(f"no column '{name}'. {did_you_mean(name, columns)}")


def task_index(columns: Columns, task: str, time: NDArray[np.float64] | None) -> TaskIndex:
    """Index the tasks; an error names the column."""
    try:
        return index_tasks(columns[task], time)
    except GroupError as error:
        raise GroupError(f"column '{task}': {error}") from error


def check_outcome(values: NDArray[Any], outcome: Outcome) -> NDArray[np.float64]:
    """Return the outcome as numbers, NaN where missing; text and dates raise."""
    if values.dtype.kind not in "biuf":
        found = "dates" if values.dtype.kind == "M" else "text"
        raise DataError(
            f"outcome '{outcome.name}' holds {found}. Convert it to numbers; code two classes as 0 "
            "and 1."
        )
    return values.astype(np.float64)


def check_complete(columns: Columns, names: tuple[str, ...]) -> None:
    """Raise when a column that must not have missing cells has some."""
    for name in names:
        missing = pd.isna(columns[name])
        if missing.any():
            rows = np.flatnonzero(missing)
            raise DataError(
                f"column '{name}' is missing in {len(rows)} of {len(missing)} rows (first: row "
                f"{rows[0]}). Fill it in or drop those rows."
            )


def check_binary(columns: Columns, features: tuple[Feature, ...]) -> None:
    """Raise when a binary feature holds anything but 0, 1 and missing."""
    for feature in features:
        values = columns[feature.name]
        if feature.kind != "binary" or values.dtype.kind not in "biuf":
            continue
        bad = int((~np.isin(values, (0, 1)) & ~np.isnan(values)).sum())
        if bad:
            raise DataError(
                f"column '{feature.name}' is declared binary, but {bad} of {len(values)} rows hold "
                "other values than 0 and 1. Recode it, or declare another kind."
            )


def written_dates(name: str, unit: str, n_rows: int) -> Finding:
    """The finding that numbers are dates in another writing."""
    what = f"values that look like dates (YYYYMMDD), but count as numbers in {unit}"
    remedy = f"Convert them first: pd.to_datetime(frame['{name}'].astype(str), format='%Y%m%d')."
    return Finding(what, name, n_rows, remedy)


def outside(values: NDArray[np.float64], column: Feature | Outcome) -> Mask:
    """Mark the values outside the plausible range; missing values are not outside."""
    mask = np.zeros(len(values), dtype=bool)
    if column.low is not None:
        mask |= values < column.low
    if column.high is not None:
        mask |= values > column.high
    return mask


def merge_duplicates(
    columns: Columns,
    tasks: TaskIndex,
    time: NDArray[np.float64],
    policy: OnDuplicate,
    average: tuple[str, ...],
    numbers: NDArray[np.int64],
) -> tuple[Columns, NDArray[np.int64]]:
    """Resolve repeated (task, time) pairs.

    Parameters
    ----------
    columns : dict of str to ndarray, (row,)
    tasks : TaskIndex
        Sorted by `time`.
    time : ndarray of float64, (row,)
    policy : {"error", "first", "last", "mean"}
        `mean` averages the columns in `average` over the repeats that are not missing, and takes
        the first row for the others.
    average : tuple of str
    numbers : ndarray of int64, (row,)
        What errors call the rows.

    Returns
    -------
    columns : dict of str to ndarray, (row,)
    keep : ndarray of int64, (kept row,)
        Positions of the rows to keep, in their order.
    """
    order = tasks.order
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = np.diff(time[order]) != 0
    is_new[tasks.starts[:-1]] = True
    first = order[is_new]  # the sort is stable: the earliest row of every pair
    if len(first) == len(order):
        return columns, np.arange(len(order))
    if policy == "error":
        at = int(np.flatnonzero(~is_new)[0])
        raise DataError(
            f"{len(order) - len(first)} of {len(order)} rows repeat a (task, time) pair (first: "
            f"task {tasks.codes[order[at]]} of {tasks.n_tasks}, rows {numbers[order[at - 1]]} and "
            f"{numbers[order[at]]}). Drop them, or pass on_duplicate='first', 'last', 'mean' or "
            "'allow'."
        )
    if policy == "last":
        return columns, np.sort(order[np.append(is_new[1:], True)])
    if policy == "mean":
        pair = np.empty(len(order), dtype=np.int64)
        pair[order] = np.cumsum(is_new) - 1
        columns = columns | {name: _means(columns[name], pair, first) for name in average}
    return columns, np.sort(first)


def _means(
    values: NDArray[Any], pair: NDArray[np.int64], first: NDArray[np.int64]
) -> NDArray[np.float64]:
    numbers = values.astype(np.float64)
    present = ~np.isnan(numbers)
    sums = np.bincount(pair[present], weights=numbers[present], minlength=len(first))
    counts = np.bincount(pair[present], minlength=len(first))
    numbers[first] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return numbers
