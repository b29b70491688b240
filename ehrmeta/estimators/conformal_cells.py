"""The kinds of rows that are calibrated each by itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import DataWarning, SchemaError, did_you_mean
from ehrmeta.estimators.conformal_limits import Limits

__all__ = ["ANY", "Cell", "by_cell", "coarser", "finest", "levels_of", "warn_of_coarse"]

Cell: TypeAlias = tuple[int | None, str | None]  # support size, kind of row; None is all of them

Found = TypeVar("Found")

ANY: Cell = (None, None)
_FEWEST_TASKS = 10  # of a kind that is named
_MOST_VALUES = 20  # of a column that is not cut


def coarser(cell: Cell) -> tuple[Cell, ...]:
    """The cell itself, then those that hold it, nearest first.

    Examples
    --------
    >>> coarser((3, "male 1"))
    ((3, 'male 1'), (3, None), (None, None))
    """
    return cell, (cell[0], None), ANY


def finest(limits: Mapping[Cell, Limits], cell: Cell, needed: int) -> Cell:
    """The finest cell that holds this one and has enough tasks, or else all rows."""
    for wider in coarser(cell):
        if wider in limits and limits[wider].n_tasks >= needed:
            return wider
    return ANY


def by_cell(rows: pd.DataFrame, of: Callable[[pd.DataFrame], Found]) -> dict[Cell, Found]:
    """What `of` gives for all rows, for those of each k, and for every kind of row at each k.

    Kinds of fewer than ten tasks are left out: what is kept of the others names no rare patient.

    Parameters
    ----------
    rows : DataFrame
        Columns shots, level, task and others.
    of : callable
    """
    found = {ANY: of(rows)}
    for k, part in rows.groupby("shots"):
        found[(int(k), None)] = of(part)
    for (k, level), part in rows.groupby(["shots", "level"]):
        if part["task"].nunique() >= _FEWEST_TASKS:
            found[(int(k), str(level))] = of(part)
    return found


def warn_of_coarse(
    rows: Mapping[Cell, int],
    tasks: Mapping[Cell, int],
    by: Mapping[str, Sequence[float]],
    confidence_level: float,
    needed: int,
) -> None:
    """Say how many rows of which cells have the limits of others too, and why."""
    first = next(iter(rows))
    kinds = f", by {', '.join(by)}" if by else ""
    warnings.warn(
        f"{_counted(sum(rows.values()), 'row')} of {_counted(len(rows), 'kind')} (first: after "
        f"{_counted(first[0] or 0, 'shot')}{kinds}) had fewer calibration patients than a level of "
        f"{100 * confidence_level:g} % needs: {needed:,}, here {tasks[first]:,}. The limits are "
        "those of rows of more kinds, which hold on average over these only. Calibrate those shots "
        "and kinds on more patients.",
        DataWarning,
        stacklevel=4,
    )


def levels_of(
    columns: Mapping[str, npt.NDArray[Any]], by: Mapping[str, Sequence[float]]
) -> npt.NDArray[np.object_]:
    """The kind of every row in words, (row,): its values in some columns, numbers cut into classes.

    Parameters
    ----------
    columns : mapping of str to (row,)
    by : mapping of str to sequence of float
        Columns to look at, and where each is cut; nowhere for values that are classes themselves.

    Raises
    ------
    SchemaError
        A column is missing, is cut but holds text, or has too many values to be classes.

    Examples
    --------
    >>> levels_of({"age": np.array([30.0, 60.0, 61.0])}, {"age": (45, 60)})
    array(['age up to 45', 'age 45-60', 'age over 60'], dtype=object)
    """
    n_rows = len(next(iter(columns.values())))
    words: npt.NDArray[np.object_] = np.full(n_rows, "", dtype=object)
    for name, cuts in by.items():
        if name not in columns:
            raise SchemaError(
                f"by names the column '{name}', which X does not have. "
                f"{did_you_mean(name, columns)}"
            )
        level = _cut(columns[name], cuts, name) if len(cuts) else _own(columns[name], name)
        words = np.asarray(words + np.where(words == "", "", ", ").astype(object) + level)
    return words


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _own(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.object_]:
    codes, distinct = pd.factorize(values)
    if len(distinct) > _MOST_VALUES:
        raise SchemaError(
            f"column '{name}' of by has {len(distinct):,} different values, too many to calibrate "
            f"each by itself. Say where to cut it: by={{'{name}': (low, high)}}."
        )
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in distinct]
    named = np.array([f"{name} {word}" for word in [*words, "missing"]], dtype=object)
    return np.asarray(named[codes])


def _cut(values: npt.NDArray[Any], cuts: Sequence[float], name: str) -> npt.NDArray[np.object_]:
    edges = np.asarray(cuts, dtype=np.float64)
    if values.dtype.kind not in "biuf" or np.any(np.diff(edges) <= 0):
        raise SchemaError(
            f"column '{name}' of by can be cut where it holds numbers, at increasing values; it "
            f"holds {values.dtype}, and the cuts are {tuple(cuts)}."
        )
    between = [f"{low:g}-{high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    words = [f"up to {edges[0]:g}", *between, f"over {edges[-1]:g}", "missing"]
    codes = np.where(np.isnan(values.astype(np.float64)), -1, np.searchsorted(edges, values))
    named: npt.NDArray[np.object_] = np.array([f"{name} {w}" for w in words], dtype=object)[codes]
    return named
