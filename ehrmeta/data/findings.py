"""Findings of table checks, and checks for suspicious values in the columns of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.clock import FAR, distance_from_others
from ehrmeta.data.columns import Columns
from ehrmeta.data.groups import MORE_TASKS, TOO_FEW, few_repeated, respelled, wide_remedy
from ehrmeta.data.leaks import missing_codes
from ehrmeta.data.schema import Feature, Outcome, Schema
from ehrmeta.data.tasks import index_tasks
from ehrmeta.data.units import (
    ANALYTES,
    analyte_named,
    convert_units,
    is_unit,
    mixed_units,
    plausible_units,
)
from ehrmeta.errors import DataError, Remedy

_MOSTLY_MISSING = 0.5  # share of missing values above which they are reported
CONSTANT = "distinct value in the column: it is constant"
_COPY = 0.999  # rank correlation above which a feature counts as a copy of the outcome
_FEWEST = 20  # values that a check of shares needs
_PLURAL = re.compile(
    r"\b(level|outcome|row|task|value)s\b"
)  # nouns made singular if the count is 1


@dataclass(frozen=True)
class Finding:
    """Result of a check of a table: a problem, how often it occurs, and its remedy.

    Attributes
    ----------
    what : str
        The problem, and any change made to the data.
    column : str
    count : int
        Number of values or rows, as named in `what`.
    remedy : str or Remedy
        How to solve or avoid it.
    error : DataError, optional
        The error that `Table.from_frame` raises, for findings that are errors.
    """

    what: str
    column: str
    count: int
    remedy: str | Remedy
    error: DataError | None = field(default=None, repr=False, compare=False)

    @property
    def level(self) -> str:
        """``"error"`` or ``"warning"``."""
        return "error" if self.is_error else "warning"

    @property
    def is_error(self) -> bool:
        """Whether `Table.from_frame` raises an error for this finding."""
        return self.error is not None

    def __str__(self) -> str:
        what = _PLURAL.sub(r"\1", self.what, count=1) if self.count == 1 else self.what
        return f"column '{self.column}': {self.count:,} {what}. {self.remedy}".rstrip()


class Findings(tuple[Finding, ...]):
    """Findings of a check, errors first, printed as a list."""

    @property
    def errors(self) -> Findings:
        """The findings for which `Table.from_frame` raises an error."""
        return Findings(finding for finding in self if finding.is_error)

    def to_frame(self) -> pd.DataFrame:
        """One row per finding: column, level, count, what, remedy."""
        rows = [(f.column, f.level, f.count, f.what, str(f.remedy)) for f in self]
        return pd.DataFrame(rows, columns=["column", "level", "count", "what", "remedy"])

    def __repr__(self) -> str:
        return "\n".join(f"{f.level:<7}  {f}" for f in self) or "nothing found"


def numeric_dates(name: str, unit: str, n_rows: int) -> Finding:
    """Finding for times that are dates written as numbers."""
    what = f"values that look like dates (YYYYMMDD), but count as numbers in {unit}"
    advice = f"Convert them first: pd.to_datetime(frame['{name}'].astype(str), format='%Y%m%d')."
    return Finding(what, name, n_rows, Remedy("write-dates", advice))


def odd_codes(columns: Columns, names: Iterable[str]) -> Iterator[Finding]:
    """Check for codes that mean "missing" among numbers, and for values in several units."""
    for name in names:
        for code, count in missing_codes(columns[name]).items():
            what = f"values of {code}, far from all others: probably a code for 'missing'"
            remedy = "Replace them by NaN, or write categories as text."
            yield Finding(what, name, count, remedy)
        units = mixed_units(columns[name])
        if units:
            what = f"units ({', '.join(units)}) in a column: values beside it may be in several"
            remedy = "Convert them to one with convert_units, and drop the column."
            yield Finding(what, name, len(units), remedy)


def odd_keys(columns: Columns, schema: Schema) -> Iterator[Finding]:
    """Check keys: near-identical task ids, a single task, unsorted times and repeated keys."""
    if schema.task not in columns:
        return
    tasks = index_tasks(columns[schema.task])
    similar = respelled(tasks.labels)
    if similar:
        what = "ids that differ from another by leading zeros, capitals or spaces only"
        yield Finding(what, schema.task, similar, "Use one spelling for every task.")
    if tasks.n_tasks == 1:
        yield Finding("task only: meta-learning needs many", schema.task, 1, "Check the column.")
    elif (tasks.sizes < 2).all():
        what = "tasks, none of which has two rows"
        advice = "Name the column of the patient, not of the visit; see pd.wide_to_long."
        remedy = wide_remedy(columns, schema.task)
        if remedy is None:
            remedy = Remedy("rows-per-patient", advice)
        else:
            what += f"; {remedy.values['columns']} look like visits side by side"
        yield Finding(what, schema.task, tasks.n_tasks, remedy)
    elif few := few_repeated(tasks):
        what = f"tasks with two rows or more: {TOO_FEW.removesuffix('.')}"
        yield Finding(what, schema.task, few, MORE_TASKS)
    if schema.time is None or schema.time.name not in columns:
        return
    clock, time = schema.time.name, columns[schema.time.name]
    same = np.diff(tasks.codes[tasks.order]) == 0
    unsorted = int((same & (np.diff(time[tasks.order]) < 0)).sum())
    if unsorted:
        what = "rows earlier than the previous row of their task"
        yield Finding(what, clock, unsorted, "Rows are sorted by time; check the column.")
    far = int((distance_from_others(time) > FAR).sum())
    if far:
        what = "rows with a time far from all others"
        yield Finding(what, clock, far, "Check for placeholders: correct these rows or drop them.")
    if schema.task_kind == "patient" and schema.on_duplicate == "allow":
        repeats = int(pd.DataFrame({"task": tasks.codes, "time": time}).duplicated().sum())
        if repeats:
            what = f"rows repeating a ({schema.task}, {clock}) pair"
            yield Finding(what, schema.task, repeats, "Check that they are separate measurements.")


def odd_column(columns: Columns, column: Feature | Outcome, schema: Schema) -> Iterator[Finding]:
    """Check a column: unit, plausibility, missing values, constants, identifiers and copies."""
    values = columns[column.name]
    if isinstance(column, Feature) and column.kind == "categorical":
        yield from _numbers_as_text(values, column.name)
        yield from _respelled_levels(values, column.name)
    elif not isinstance(column, Feature) or column.kind == "numeric":
        yield from _odd_unit(values.astype(np.float64), column)
    if isinstance(column, Feature):
        yield from _uninformative(values, column.name)
        yield from _identifier(values, column, columns, schema)
        if column.role != "measured" and schema.outcome and schema.outcome.name in columns:
            yield from _copy(values, column, columns[schema.outcome.name], schema.outcome.name)


def _numbers_as_text(values: NDArray[Any], name: str) -> Iterator[Finding]:
    """Check for numbers with a few text cells, which make a column categorical."""
    if values.dtype != object:
        return
    present = pd.Series(values).dropna()
    n_text = int(pd.to_numeric(present, errors="coerce").isna().sum())
    if n_text < 0.5 * len(present):
        what = f"of {len(present):,} cells not numeric, so the column is categorical"
        yield Finding(what, name, n_text, "Correct them to use numbers.")


def _respelled_levels(values: NDArray[Any], name: str) -> Iterator[Finding]:
    """Check for levels that differ from another in their spelling only."""
    count = respelled(values[~pd.isna(values)].astype(str).astype(object))
    if count:
        what = "levels that differ from another by leading zeros, capitals or spaces only"
        yield Finding(what, name, count, "Use one spelling for every level.")


def _odd_unit(numbers: NDArray[np.float64], column: Feature | Outcome) -> Iterator[Finding]:
    """Check for an unknown unit, and for values implausible for the analyte the name stands for."""
    if column.unit and not is_unit(column.unit):
        what = f"unit, {column.unit!r}, is not a known UCUM code"
        yield Finding(what, column.name, 1, "It is not checked or converted.")
    name = analyte_named(column.name)
    finite = numbers[~np.isnan(numbers)]
    if name is None or column.unit not in ANALYTES[name].units or len(finite) < _FEWEST:
        return
    units = plausible_units(finite, name)
    if column.unit not in units:
        likely = f"They look like {' or '.join(units)}: " if units else ""
        advice = f"{likely}convert them with convert_units, or correct the unit."
        yield Finding(
            f"values, mostly implausible for {name} in {column.unit}",
            column.name,
            len(finite),
            Remedy("convert-units", advice, {"likely": likely}),
        )
    elif column.low is None and column.high is None:
        analyte = ANALYTES[name]
        first = convert_units(finite, name, source=column.unit, target=next(iter(analyte.units)))
        count = int(((first < analyte.low) | (first > analyte.high)).sum())
        if count:
            remedy = "Declare a plausible range (low, high) to mask features and drop outcomes."
            what = f"values implausible for {name} in {column.unit}"
            yield Finding(what, column.name, count, remedy)


def _uninformative(values: NDArray[Any], name: str) -> Iterator[Finding]:
    """Check for a mostly missing or constant column."""
    missing = pd.isna(values)
    count, n_rows = int(missing.sum()), len(values)
    if count > _MOSTLY_MISSING * n_rows:
        yield Finding(f"values missing of {n_rows:,}", name, count, "Consider dropping it.")
    present = values[~missing]
    if len(present) and (present == present[0]).all():
        yield Finding(CONSTANT, name, 1, "Drop it.")


def _identifier(
    values: NDArray[Any], feature: Feature, columns: Columns, schema: Schema
) -> Iterator[Finding]:
    """Check for identifiers of rows or tasks: text or whole numbers, nearly all distinct."""
    present = values[~pd.isna(values)]
    if len(present) < _FEWEST or feature.kind == "binary":
        return
    text = values.dtype == object
    if not text and not (np.mod(present.astype(np.float64), 1) == 0).all():
        return
    distinct = len(pd.unique(present))
    names_rows = distinct > (0.9 if text else 0.99) * len(present)  # rows may be repeated
    names_tasks = False
    if feature.role == "static" and schema.task in columns:
        n_tasks = len(pd.unique(columns[str(schema.task)]))
        names_tasks = n_tasks >= _FEWEST and distinct > 0.95 * n_tasks
    if names_rows or names_tasks:
        unit = "row" if names_rows else "task"
        remedy = f"Drop the column: an identifier of {unit}s would enter the model."
        yield Finding(f"distinct values, nearly one per {unit}", feature.name, distinct, remedy)


def _copy(
    values: NDArray[Any], feature: Feature, outcome: NDArray[np.float64], name: str
) -> Iterator[Finding]:
    """Check for copies of the outcome, by rank correlation."""
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
            "Drop it, or declare it measured if it is known only with the outcome.",
        )
