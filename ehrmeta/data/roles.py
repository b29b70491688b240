"""Roles of columns: static, known ahead of time, or measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.columns import Column, Mask
from ehrmeta.errors import DataWarning, Remedy, warn

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
_MOST_MISSING = 0.1  # of a constant's cells; above, what is missing changes with the visit
_LEAST_R2 = 0.99  # of a function of time
_ROUNDED = 0.99  # share of rows within one rounding step of the line
_FEWEST = 10  # degrees of freedom, or rows that agree, for a function of time
_MOST_NAMED = 12  # columns in a warning


@dataclass(frozen=True)
class Measured:
    """Columns inferred to be known only once measured.

    Attributes
    ----------
    n_varying : dict of str to int
        Of every such column, the number of tasks in which it varies.
    timed : tuple of str
        Columns that also vary within tasks, but are functions of time and so known ahead.
    n_tasks : int
        Number of tasks.
    """

    n_varying: dict[str, int]
    timed: tuple[str, ...]
    n_tasks: int

    def warn(self) -> None:
        """Warn of the columns read as measured, if any."""
        if not self.n_varying:
            return
        counts = [f"'{name}' (in {n:,})" for name, n in self.n_varying.items()]
        if len(counts) > _MOST_NAMED:
            counts[_MOST_NAMED:] = [f"and {len(counts) - _MOST_NAMED:,} more"]
        message = (
            f"{len(self.n_varying):,} column(s) vary within tasks ({self.n_tasks:,} tasks): "
            f"{', '.join(counts)}. They count as measured: a prediction reads their last value "
            "before it, not that of its own row."
        )
        if self.timed:
            message += f" Known ahead as functions of time: {list(self.timed)}."
        remedy = Remedy(
            "declare-known",
            "Name those that are known ahead, such as planned doses, in known=[...]; known=[] "
            "confirms that there are none.",
        )
        warn(DataWarning(message, remedy))


def find_measured(
    columns: Mapping[str, Column], names: Iterable[str], groups: Column, time: Floats | None
) -> Measured:
    """Find the columns that vary within tasks and are not functions of time.

    A function of time has one slope in time within all tasks (R² above 0.99, and 99 % of the rows
    within one rounding step of the line: age, number of the visit), or the same value at the same
    time in all tasks (calendar).

    Parameters
    ----------
    columns : mapping of str to ndarray, (row,)
        As `read_columns` returns them.
    names : iterable of str
        The columns in question.
    groups : ndarray, (row,)
        Task ids.
    time : ndarray, (row,), or None
        Of the rows; without it no column is a function of time.

    Examples
    --------
    >>> groups, day = np.repeat(np.arange(30), 3), np.tile([0.0, 90.0, 400.0], 30)
    >>> lab = np.random.default_rng(0).normal(size=90)
    >>> columns = {"age": 40.0 + groups + day / 365.25, "sex": groups % 2, "lab": lab}
    >>> find_measured(columns, columns, groups, day)
    Measured(n_varying={'lab': 30}, timed=('age',), n_tasks=30)
    """
    codes = pd.factorize(groups)[0]
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]  # without rows that name no task
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    n_varying, timed = {}, []
    for name in names:
        values = _numbers(columns[name])[order]
        varying = _varying(values, starts)
        if not varying.any():
            continue
        numeric = columns[name].dtype.kind in "iuf"
        if time is not None and (
            (numeric and _has_one_slope(values, time[order], codes, len(starts)))
            or _is_calendar(values, time[order], codes)
        ):
            timed.append(name)
        else:
            n_varying[name] = int(varying.sum())
    return Measured(n_varying, tuple(timed), len(starts))


def is_static(values: Column, groups: Column) -> bool:
    """Whether a column is constant within every task, of which one has at least two rows."""
    codes = pd.factorize(groups)[0]
    n_tasks = int(codes.max()) + 1
    if n_tasks == len(codes) or n_tasks == 1:
        return False
    first = np.zeros(n_tasks, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    reference = values[first[codes]]
    same = values == reference
    if values.dtype.kind == "f":
        same |= np.isnan(values) & np.isnan(reference)
    return bool(np.all(same))


def _numbers(values: Column) -> Floats:
    """A column as numbers, NaN where missing; levels of text as their codes."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    codes = pd.factorize(values)[0].astype(np.float64)
    return np.where(codes < 0, np.nan, codes)


def _varying(values: Floats, starts: Codes) -> Mask:
    """Whether a column varies in each task, (task,).

    A missing cell counts as a different value, unless few cells of the column are missing.
    """
    low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    varying = high > low
    present = ~np.isnan(values)
    n_present = np.add.reduceat(present.astype(np.int64), starts)
    sizes = np.diff(starts, append=len(values))
    some = n_present > 0
    n_missing = int((sizes - n_present)[some].sum())
    if n_missing > _MOST_MISSING * int(sizes[some].sum()):
        varying |= some & (n_present < sizes)
    return varying


def _has_one_slope(values: Floats, time: Floats, codes: Codes, n_tasks: int) -> bool:
    """Whether a column is linear in time within tasks, with one slope, up to rounding."""
    present = ~np.isnan(values)
    values, time, codes = values[present], time[present], codes[present]
    sizes = np.bincount(codes, minlength=n_tasks)
    if len(values) - np.count_nonzero(sizes) <= _FEWEST:
        return False
    distinct = np.unique(values)
    gaps = np.diff(distinct)
    y, t = (
        part - (np.bincount(codes, part, minlength=n_tasks) / np.maximum(sizes, 1))[codes]
        for part in (values, time)
    )
    if not t.any():
        return False
    residual = y - (y @ t) / (t @ t) * t
    if residual @ residual >= (1 - _LEAST_R2) * (y @ y):
        return False
    step = max(gaps.min(), 0.01 * float(np.sqrt(np.mean(y**2))))
    return bool(np.mean(np.abs(residual) <= step) >= _ROUNDED)


def _is_calendar(values: Floats, time: Floats, codes: Codes) -> bool:
    """Whether a column has the same value at the same time in all tasks.

    At least half of the rows must share their time with a row of another task, and so must half of
    the rows that differ from the most frequent value. Otherwise rare values could agree by chance.
    """
    order = np.lexsort((codes, time))
    values, time, codes = values[order], time[order], codes[order]
    starts = np.flatnonzero(np.diff(time, prepend=-np.inf) > 0)
    sizes = np.diff(starts, append=len(time))
    if _varying(values, starts).any():
        return False
    shared = codes[starts] < codes[starts + sizes - 1]
    rows = np.repeat(shared, sizes)
    levels, level = np.unique(values, return_inverse=True)
    rare = level != np.bincount(level).argmax()
    n_agreeing = int((rare & rows).sum()) - len(np.unique(time[rare & rows]))
    return bool(
        len(levels) > 1
        and rows.mean() >= 0.5
        and rows[rare].mean() >= 0.5
        and n_agreeing >= _FEWEST
    )
