"""What the values of a column say about its meaning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.roles import Kind
from ehrmeta.errors import DataWarning, SchemaError

__all__ = ["is_static", "kind_of"]


def kind_of(values: NDArray[Any], name: str) -> Kind:
    """Text is a category, 0 and 1 are binary; dates are no feature."""
    if values.dtype == object:
        _warn_of_numbers_as_text(values, name)
        return "categorical"
    if values.dtype.kind == "M":
        raise SchemaError(
            f"column '{name}' holds dates, which are no feature. Name it as the time, turn it into "
            "a number such as age, or drop it."
        )
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    is_binary = (
        len(present) > 0 and bool(np.isin(present, (0, 1)).all()) and np.ptp(present * 1) > 0
    )
    return "binary" if is_binary else "numeric"


def _warn_of_numbers_as_text(values: NDArray[Any], name: str) -> None:
    """One '<5' among numbers turns a whole lab into a category: say so."""
    present = pd.Series(values).dropna()
    odd = pd.to_numeric(present, errors="coerce").isna()
    if 0 < odd.sum() < 0.2 * len(present):
        warnings.warn(
            f"column '{name}' is text because {int(odd.sum()):,} of {len(present):,} values are no "
            f"numbers (first: row {odd.idxmax()}), so it counts as a category. Replace them, for "
            "example '<5' by 5, to use it as a number.",
            DataWarning,
            stacklevel=4,
        )


def is_static(values: NDArray[Any], codes: NDArray[np.int64]) -> bool:
    """Constant (or missing throughout) within every task, of which at least one has two rows."""
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
