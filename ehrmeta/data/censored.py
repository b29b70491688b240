"""Numbers recorded as below or above a limit, such as '<5' or '>200'."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.columns import Column, Columns
from ehrmeta.errors import Remedy

Censored = Literal["error", "half", "limit", "column"]
FLAG = "_censored"  # suffix of the column that flags censored values
CHOOSE = Remedy(
    "censored",
    "Choose censored='half' (half the lower limit), 'limit' (the limit), or 'column' (the limit, "
    "and a column that says which values are censored) in Table.from_frame or the schema.",
)
_PATTERN = r"^\s*(<=|>=|<|>|≤|≥)?\s*(\S+)\s*$"


class Limits(NamedTuple):
    """A column with censored values."""

    limit: NDArray[np.float64]  # (row,): value or limit, NaN where missing
    side: NDArray[np.float64]  # (row,): -1 below, 1 above the limit, 0 for a value


def read_limits(values: Column) -> Limits | None:
    """Values and limits of a text column; None unless all are numbers, some of them censored.

    Examples
    --------
    >>> read_limits(np.array(["<5", "7", None, "> 200"], object))
    Limits(limit=array([  5.,   7.,  nan, 200.]), side=array([-1.,  0.,  0.,  1.]))
    >>> read_limits(np.array(["<5", "low"], object)) is None
    True
    """
    if values.dtype != object:
        return None
    parts = pd.Series(values, dtype="str").str.extract(_PATTERN)
    limit = pd.to_numeric(parts[1], errors="coerce").to_numpy(np.float64)
    sign = parts[0].fillna("").to_numpy(object)
    side = np.select([np.isin(sign, ("<", "<=", "≤")), sign != ""], [-1.0, 1.0], 0.0)
    present = ~pd.isna(values)
    if not side.any() or side[present].all() or np.isnan(limit[present]).any():
        return None
    return Limits(limit, side)


def resolve_censored(columns: Columns, choice: Censored) -> Columns:
    """Columns with numbers for censored values; unchanged for "error".

    Parameters
    ----------
    columns : dict of str to ndarray, (row,)
    choice : {"error", "half", "limit", "column"}
        As in `Schema`.

    Examples
    --------
    >>> resolve_censored({"crp": np.array(["<5", "7"], object)}, "half")
    {'crp': array([2.5, 7. ])}
    >>> resolve_censored({"crp": np.array(["<5", "7"], object)}, "column")
    {'crp': array([5., 7.]), 'crp_censored': array([-1.,  0.])}
    """
    if choice == "error":
        return columns
    resolved: Columns = {}
    for name, values in columns.items():
        limits = read_limits(values)
        if limits is None:
            resolved.setdefault(name, values)
            continue
        below = (limits.side < 0) & (choice == "half")
        resolved[name] = np.where(below, limits.limit / 2, limits.limit)
        if choice == "column":
            resolved[name + FLAG] = limits.side
    return resolved
