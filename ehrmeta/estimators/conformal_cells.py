"""The kinds of rows that are calibrated each by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import SchemaError, did_you_mean

__all__ = ["ANY", "Cell", "coarser", "levels_of"]

Cell: TypeAlias = tuple[int | None, str | None]  # support size, kind of row; None is all of them

ANY: Cell = (None, None)
_MOST_VALUES = 20  # of a column that is not cut


def coarser(cell: Cell) -> tuple[Cell, ...]:
    """The cell itself, then those that hold it, nearest first.

    Examples
    --------
    >>> coarser((3, "male 1"))
    ((3, 'male 1'), (3, None), (None, None))
    """
    return cell, (cell[0], None), ANY


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
