"""Counts of patients that are not told, lest somebody be recognised."""

from __future__ import annotations

from typing import Any

import pandas as pd

__all__ = ["MIN_CELL", "hidden_counts"]

MIN_CELL = 11  # patients; fewer are withheld


def hidden_counts(sizes: pd.Series) -> set[Any]:
    """Groups whose size is not told: small ones, and the next one where a small one is alone.

    Beside the sum, all sizes but one would tell that one.

    Examples
    --------
    >>> sorted(hidden_counts(pd.Series({"a": 3, "b": 40, "c": 60})))
    ['a', 'b']
    >>> sorted(hidden_counts(pd.Series({"a": 3, "b": 9, "c": 60})))
    ['a', 'b']
    >>> hidden_counts(pd.Series({"b": 40, "c": 60}))
    set()
    """
    ordered = sizes.sort_values(kind="stable")
    n_small = int((ordered < MIN_CELL).sum())
    return set(ordered.index[: max(n_small, 2)]) if n_small else set()
