"""Near copies among the columns of a design, whose slopes no data can tell apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["apart"]

_SAME = 0.02  # share of a column's variance that the columns before it leave: less is no other


def apart(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which columns, the first of ones, say what no combination of those before them says.

    Two near copies (a time and the clock that it was read from) would get slopes of opposite sign,
    as large as rounding lets them, which a new task's rows meet where the copies part.

    Examples
    --------
    >>> hour = np.arange(10.0)
    >>> apart(np.column_stack([np.ones(10), hour, hour + 1e-3 * (hour > 8), hour % 2]))
    array([ True,  True, False,  True])
    """
    left = np.abs(np.diag(np.linalg.qr(columns, mode="r"))) ** 2 / len(columns)
    variance = columns.var(axis=0)
    found: NDArray[np.bool_] = (left > _SAME * variance) & (variance > 0.0)
    found[0] = True
    return found
