"""Findings on a table, and checks for what is odd about columns that can be used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.schema import Feature, Outcome, Schema
from ehrmeta.data.tasks import index_tasks
from ehrmeta.data.units import ANALYTES, analyte_named, convert_units, is_unit, plausible_units
from ehrmeta.errors import DataError, Remedy

Columns = dict[str, NDArray[Any]]
_MOSTLY_MISSING = 0.5
_COPY = 0.999  # rank correlation from which a feature counts as a copy of the outcome
_FEWEST = 20  # rows from which shares mean something
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
    error : DataError, optional
        What `Table.from_frame` raises, where the finding keeps the table from being used.
    """

    what: str
    column: str
    count: int
    remedy: str | Remedy
    error: DataError | None = field(default=None, repr=False, compare=False)

    @property
    def is_error(self) -> bool:
        """Whether it keeps the table from being used."""
        return self.error is not None

    def __str__(self) -> str:
        what = _PLURAL.sub(r"\1", self.what, count=1) if self.count == 1 else self.what
        return f"column '{self.column}': {self.count:,} {what}. {self.remedy}".rstrip()


class Findings(tuple[Finding, ...]):
    """Findings of a check, errors first; prints as a list."""

    @property
    def errors(self) -> Findings:
        """Those that keep the table from being used."""
        return Findings(finding for finding in self if finding.is_error)

    def to_frame(self) -> pd.DataFrame:
        """One row per finding: column, level, count, what, remedy."""
        rows = [
            {
                "column": finding.column,
                "level": "error" if finding.is_error else "warning",
                "count": finding.count,
                "what": finding.what,
                "remedy": str(finding.remedy),
            }
            for finding in self
        ]
        return pd.DataFrame(rows, columns=["column", "level", "count", "what", "remedy"])

    def __repr__(self) -> str:
        lines = [f"{'error  ' if f.is_error else 'warning'}  {f}" for f in self]
        return "\n".join(lines) or "nothing found"


def written_dates(name: str, unit: str, n_rows: int) -> Finding:
    """The finding that numbers are dates in another writing."""
    what = f"values that look like dates (YYYYMMDD), but count as numbers in {unit}"
    words = f"Convert them first: pd.to_datetime(frame['{name}'].astype(str), format='%Y%m%d')."
    return Finding(what, name, n_rows, Remedy("write-dates", words))


def odd_keys(columns: Columns, schema: Schema) -> Iterator[Finding]:
    """Task ids in two writings, a single task, times out of order, repeats that are allowed."""
    if schema.task not in columns:
        return
    tasks = index_tasks(columns[schema.task])
    if tasks.labels.dtype == object:
        plain = pd.Series(tasks.labels).str.casefold().str.replace(r"\s+", "", regex=True)
        alike = int(plain.duplicated().sum())
        if alike:
            what = "ids that differ from another by capitals or spaces only"
            yield Finding(what, schema.task, alike, "Write every task's id in one way.")
    if tasks.n_tasks == 1:
        yield Finding("task only: nothing to learn across", schema.task, 1, "Check the column.")
    if schema.time is None or schema.time.name not in columns:
        return
    clock, time = schema.time.name, columns[schema.time.name]
    same = np.diff(tasks.codes[tasks.order]) == 0
    unsorted = int((same & (np.diff(time[tasks.order]) < 0)).sum())
    if unsorted:
        what = "rows earlier than the row before in their task"
        remedy = "They are put in order of time; check that the column is what you mean."
        yield Finding(what, clock, unsorted, remedy)
    if schema.task_kind == "patient" and schema.on_duplicate == "allow":
        repeats = int(pd.DataFrame({"task": tasks.codes, "time": time}).duplicated().sum())
        if repeats:
            what = f"rows repeating a ({schema.task}, {clock}) pair"
            yield Finding(what, schema.task, repeats, "Check that they are separate measurements.")


def odd_column(columns: Columns, column: Feature | Outcome, schema: Schema) -> Iterator[Finding]:
    """Unit, implausible and missing values, constants, identifiers and copies of the outcome."""
    values = columns[column.name]
    if isinstance(column, Feature) and column.kind == "categorical":
        yield from _numbers_as_text(values, column.name)
    elif not isinstance(column, Feature) or column.kind == "numeric":
        yield from _odd_unit(values.astype(np.float64), column)
    if isinstance(column, Feature):
        yield from _gaps(values, column.name)
        yield from _identifier(values, column, columns, schema)
        if column.role != "measured" and schema.outcome and schema.outcome.name in columns:
            yield from _copy(values, column, columns[schema.outcome.name], schema.outcome.name)


def _numbers_as_text(values: NDArray[Any], name: str) -> Iterator[Finding]:
    """One '<5' among numbers turns a whole lab into a category."""
    if values.dtype != object:
        return
    present = pd.Series(values).dropna()
    odd = int(pd.to_numeric(present, errors="coerce").isna().sum())
    if odd < 0.5 * len(present):
        what = f"of {len(present):,} cells not numeric, so that all count as categories"
        remedy = "Replace them, for example '<5' by 5, to use the column as a number."
        yield Finding(what, name, odd, remedy)


def _odd_unit(numbers: NDArray[np.float64], column: Feature | Outcome) -> Iterator[Finding]:
    """A unit that is none, or that does not fit the values of the analyte that the name says."""
    if column.unit and not is_unit(column.unit):
        what = f"unit, {column.unit!r}, is no UCUM code known here"
        yield Finding(what, column.name, 1, "Units are then taken as they stand.")
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


def _gaps(values: NDArray[Any], name: str) -> Iterator[Finding]:
    """Mostly missing, or constant."""
    missing = pd.isna(values)
    count, n_rows = int(missing.sum()), len(values)
    if count > _MOSTLY_MISSING * n_rows:
        yield Finding(f"values missing of {n_rows:,}", name, count, "Is the column worth keeping?")
    present = values[~missing]
    if len(present) and (present == present[0]).all():
        what = "distinct value in the column: it never varies"
        yield Finding(what, name, 1, "It says nothing: drop it.")


def _identifier(
    values: NDArray[Any], feature: Feature, columns: Columns, schema: Schema
) -> Iterator[Finding]:
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


def _copy(
    values: NDArray[Any], feature: Feature, outcome: NDArray[np.float64], name: str
) -> Iterator[Finding]:
    """Features that are the outcome in another form."""
    if values.dtype.kind not in "biuf":
        return
    numbers = values.astype(np.float64)
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
