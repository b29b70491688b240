"""Targets of classes: found in a table, and coded as numbers while the table is checked."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data import Schema, Table
from ehrmeta.errors import DataError

_MOST = 20  # text values of a target; more are no classes


def classes_of(target: pd.Series) -> NDArray[Any] | None:
    """The classes that a column holds: text values, or 0 and 1; None if it holds numbers.

    Numbers with a few cells of text, such as ``<5``, are no classes.

    Examples
    --------
    >>> classes_of(pd.Series(["yes", None, "no"])).tolist(), classes_of(pd.Series([True, False]))
    (['no', 'yes'], array([0, 1]))
    >>> classes_of(pd.Series([0.0, 1.0, 2.0])), classes_of(pd.Series(["48", "<5", "50"]))
    (None, None)
    """
    present = target.dropna()
    if present.map(lambda cell: isinstance(cell, bool | np.bool_)).all():
        present = present.astype(np.int64)
    if pd.api.types.is_numeric_dtype(present):
        return np.array([0, 1]) if set(present.unique()) == {0, 1} else None
    if pd.api.types.is_datetime64_any_dtype(present):
        return None
    text = present.astype("str")
    if 2 * int(pd.to_numeric(text, errors="coerce").notna().sum()) > len(text):
        return None
    classes = np.sort(text.unique().astype(object))
    return classes if 1 < len(classes) <= _MOST else None


def coded(frame: pd.DataFrame, schema: Schema, classes: NDArray[Any]) -> pd.DataFrame:
    """The frame with the number of its class in every cell of the outcome."""
    name = schema.outcome.name if schema.outcome else ""
    cells = frame[name]
    if classes.dtype.kind in "iuf":
        true = {True: 1, False: 0, "True": 1, "False": 0}
        known = pd.to_numeric(cells.map(lambda cell: true.get(cell, cell)), errors="coerce")
    else:
        known = cells.astype("str").where(cells.notna(), None)
    codes = pd.Index(classes).get_indexer(pd.Index(known))
    unknown = int(((codes < 0) & cells.notna().to_numpy()).sum())
    if unknown:
        raise DataError(
            f"column '{name}': {unknown:,} of {len(cells):,} values are none of the "
            f"{len(classes)} classes of `fit`. Correct their spelling, or drop those rows."
        )
    return frame.assign(**{name: np.where(codes < 0, np.nan, codes)})


def labels(table: Table, classes: NDArray[Any]) -> NDArray[Any]:
    """The classes of the rows of a table with a coded outcome, (row,)."""
    return classes[table.y.astype(np.int64)]
