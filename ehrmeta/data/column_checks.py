"""What is wrong, or odd, about the cells of one column: each check yields findings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.schema import Feature, OnDuplicate, Outcome, Schema
from ehrmeta.data.tasks import TaskIndex, index_tasks
from ehrmeta.data.units import ANALYTES, analyte_named, convert_units, is_unit, plausible_units
from ehrmeta.errors import DataError, GroupError, Remedy, SchemaError, did_you_mean

__all__ = [
    "ON_DUPLICATE",
    "Finding",
    "check_binary",
    "check_column",
    "check_complete",
    "check_outcome",
    "copies_of",
    "gaps_in",
    "identifiers",
    "merge_duplicates",
    "numbers_in",
    "outside",
    "require_columns",
    "task_index",
    "written_dates",
]

_MOSTLY_MISSING = 0.5
_COPY = 0.999  # rank correlation from which a feature counts as a copy of the outcome
_FEWEST = 20  # rows from which shares mean something
ON_DUPLICATE = Remedy(
    "one-row-per-time",
    "Drop them, or choose on_duplicate='first', 'last', 'mean' or 'allow'.",
)
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
    remedy : str or Remedy
        What to do if that is not wanted.
    is_error : bool
        Whether it keeps the table from being used.
    """

    what: str
    column: str
    count: int
    remedy: str | Remedy
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
        raise GroupError(f"column '{task}':", *error.args) from error


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
    remedy = Remedy(
        "write-dates",
        f"Convert them first: pd.to_datetime(frame['{name}'].astype(str), format='%Y%m%d').",
    )
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
            f"{numbers[order[at]]}).",
            ON_DUPLICATE,
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


Found = Iterator[Finding]


def check_column(values: NDArray[Any], column: Feature | Outcome) -> Found:
    """Type, unit and range."""
    kind = column.kind if isinstance(column, Feature) else "numeric"
    if kind == "categorical":
        yield from _numbers_as_text(values, column.name)
        return
    numbers = numbers_in(values)
    if numbers is None:
        found = "dates" if values.dtype.kind == "M" else "text"
        count = int((~pd.isna(values)).sum())
        remedy = "Convert them to numbers, for example '<5' to 5, or declare it categorical."
        yield Finding(f"values of {found}, not numbers", column.name, count, remedy, True)
        return
    if kind == "binary":
        other = int((~np.isin(numbers, (0, 1)) & ~np.isnan(numbers)).sum())
        if other:
            remedy = "Recode them, or declare another kind."
            yield Finding("values other than 0 and 1", column.name, other, remedy, True)
        return
    if column.unit and not is_unit(column.unit):
        yield Finding(
            f"unit, {column.unit!r}, is no UCUM code known here",
            column.name,
            1,
            "Units are then taken as they stand.",
        )
    yield from _range(numbers, column)


def _numbers_as_text(values: NDArray[Any], name: str) -> Found:
    """One '<5' among numbers turns a whole lab into a category."""
    if values.dtype != object:
        return
    present = pd.Series(values).dropna()
    odd = int(pd.to_numeric(present, errors="coerce").isna().sum())
    if odd < 0.5 * len(present):
        what = f"of {len(present):,} cells not numeric, so that all count as categories"
        remedy = "Replace them, for example '<5' by 5, to use the column as a number."
        yield Finding(what, name, odd, remedy)


def _range(numbers: NDArray[np.float64], column: Feature | Outcome) -> Found:
    """Values outside the schema's range, or what the analyte's name says of its unit."""
    wrong = int(outside(numbers, column).sum())
    if wrong:
        yield Finding(
            "values outside the plausible range",
            column.name,
            wrong,
            "They will be set to missing, or their rows left out for an outcome. Check the unit.",
        )
    name = analyte_named(column.name)
    finite = numbers[~np.isnan(numbers)]
    if name is None or column.unit not in ANALYTES[name].units or len(finite) < _FEWEST:
        return
    units = plausible_units(finite, name)
    if column.unit not in units:
        likely = f"They look like {' or '.join(units)}: " if units else ""
        words = f"{likely}convert them with convert_units, or correct the unit."
        yield Finding(
            f"values, mostly implausible for {name} in {column.unit}",
            column.name,
            len(finite),
            Remedy("convert-units", words, {"likely": likely}),
        )
    elif column.low is None and column.high is None:
        analyte = ANALYTES[name]
        first = convert_units(finite, name, source=column.unit, target=next(iter(analyte.units)))
        odd = int(((first < analyte.low) | (first > analyte.high)).sum())
        if odd:
            yield Finding(
                f"values implausible for {name} in {column.unit}",
                column.name,
                odd,
                "Declare a plausible range (low, high): features outside it count as missing, "
                "rows whose outcome is outside it are left out.",
            )


def gaps_in(values: NDArray[Any], name: str, *, outcome: bool = False) -> Found:
    """Missing and constant columns."""
    missing = pd.isna(values)
    count, n = int(missing.sum()), len(values)
    if outcome and count:
        remedy = "Fill them in, or pass on_missing_outcome='drop' to leave the rows out."
        yield Finding("missing outcomes", name, count, Remedy("drop-missing", remedy), True)
    elif n and count > _MOSTLY_MISSING * n:
        yield Finding(f"values missing of {n:,}", name, count, "Is the column worth keeping?")
    seen = values[~missing]
    if len(seen) and (seen == seen[0]).all():
        remedy = "Check the column." if outcome else "It says nothing: drop it."
        yield Finding("distinct value in the column: it never varies", name, 1, remedy, outcome)


def identifiers(values: NDArray[Any], feature: Feature, columns: Columns, schema: Schema) -> Found:
    """Features that name rows or tasks: text or whole numbers, nearly all different."""
    seen = values[~pd.isna(values)]
    if len(seen) < _FEWEST or feature.kind == "binary":
        return
    text = values.dtype == object
    if not text and not (np.mod(seen.astype(np.float64), 1) == 0).all():
        return
    distinct = len(pd.unique(seen))
    names_rows = distinct > (0.9 if text else 0.99) * len(seen)  # a row may be there twice
    names_tasks = False
    if feature.role == "static" and schema.task in columns:
        n_tasks = len(pd.unique(columns[str(schema.task)]))
        names_tasks = n_tasks >= _FEWEST and distinct > 0.95 * n_tasks
    if names_rows or names_tasks:
        of = "rows" if names_rows else "tasks"
        remedy = f"An identifier of {of} is no feature and would enter the model: leave it out."
        yield Finding(
            f"distinct values, nearly one for each of the {of}", feature.name, distinct, remedy
        )


def copies_of(
    values: NDArray[Any], feature: Feature, outcome: NDArray[np.float64], name: str
) -> Found:
    """Features that are the outcome in another form."""
    numbers = numbers_in(values)
    if numbers is None:
        return
    both = np.isfinite(numbers) & np.isfinite(outcome)
    if both.sum() < _FEWEST or np.ptp(numbers[both]) == 0 or np.ptp(outcome[both]) == 0:
        return
    ranks = [pd.Series(column[both]).rank().to_numpy() for column in (numbers, outcome)]
    if abs(np.corrcoef(*ranks)[0, 1]) > _COPY:
        yield Finding(
            f"rows in which it follows the outcome '{name}' exactly",
            feature.name,
            int(both.sum()),
            "It gives the answer away: leave it out, or declare it measured if it is only known "
            "with the outcome.",
        )


def numbers_in(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """The column as numbers, or None for text and dates."""
    return values.astype(np.float64) if values.dtype.kind in "biuf" else None
