"""What is wrong, or odd, about the cells of one column: each check yields findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.checks import Columns, Finding, outside
from ehrmeta.data.roles import Feature, Outcome
from ehrmeta.data.schema import Schema
from ehrmeta.data.units import ANALYTES, analyte_named, convert_units, is_unit, plausible_units

__all__ = ["check_column", "copies_of", "gaps_in", "identifiers", "numbers_in"]

Found = Iterator[Finding]

_MOSTLY_MISSING = 0.5
_COPY = 0.999  # rank correlation from which a feature counts as a copy of the outcome
_FEWEST = 20  # rows from which shares mean something


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
        yield Finding(
            f"values, mostly implausible for {name} in {column.unit}",
            column.name,
            len(finite),
            f"{likely}convert them with convert_units, or correct the unit.",
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
        yield Finding("missing outcomes", name, count, remedy, True)
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
