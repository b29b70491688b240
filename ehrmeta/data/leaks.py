"""Checks for copies of the outcome, gross errors, and codes for missing values."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.columns import Column, Columns
from ehrmeta.errors import DataError

Floats = NDArray[np.float64]
_FEWEST = 20  # rows: below, a feature may follow the outcome by chance
_LEAST_R2 = 0.999  # of an affine copy, which may be rounded
_CODES = [9, 99, 999, 9999, 99999, 88, 888, 8888]  # and their negatives
_GROSS = (50.0, 8.0)  # robust sds from the median, of values and of their logarithms


def refuse_copies(columns: Columns, y: Column, name: str) -> None:
    """Raise if a feature is a copy or an affine function of the outcome.

    Parameters
    ----------
    columns : dict of str to ndarray, (row,)
        Features.
    y : ndarray, (row,)
        Outcome: numbers or labels of classes.
    name : str
        Name of the outcome.

    Raises
    ------
    DataError
        Features reveal the outcome; the message names them.
    """
    copies = [column for column, values in columns.items() if is_copy(values, y)]
    if copies:
        raise DataError(
            f"feature(s) {copies} are copies of the outcome '{name}', or linear functions of it "
            "such as another unit.",
            "Drop them from the features.",
        )


def is_copy(values: Column, y: Column) -> bool:
    """Whether a feature is an affine function of the outcome, or renames its classes.

    Rounding is allowed for: the residual may be as large as the smallest step of either column.

    Examples
    --------
    >>> y = np.arange(30.0) % 7
    >>> is_copy(1.8 * y + 32, y), is_copy(y**2, y)
    (True, False)
    """
    present = ~(pd.isna(values) | pd.isna(y))
    if present.sum() <= _FEWEST or values.dtype.kind == "M":
        return False
    values, y = values[present], y[present]
    if values.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        return _renames(values, y)
    x, target = values.astype(np.float64), y.astype(np.float64)
    centred_x, centred = x - x.mean(), target - target.mean()
    spread = centred @ centred
    if (centred_x @ centred) ** 2 < _LEAST_R2 * (centred_x @ centred_x) * spread:
        return False
    steps = [np.diff(np.unique(column)).min(initial=np.inf) for column in (x, target)]
    if np.inf in steps:
        return False
    x, target = centred_x, centred
    slope = (x @ target) / (x @ x)
    step = max(abs(slope) * steps[0], steps[1], 1e-6 * float(np.sqrt(spread / len(x))))
    return bool((np.abs(target - slope * x) <= step).mean() > 0.99)


def _renames(values: Column, y: Column) -> bool:
    """Whether the levels of a column and the classes are the same under other names."""
    codes, levels = pd.factorize(values)
    classes, labels = pd.factorize(y)
    if len(levels) != len(labels) or len(levels) < 2:
        return False
    return len(np.unique(codes * len(labels) + classes)) == len(levels)


def missing_codes(values: Column) -> dict[int, int]:
    """Codes such as 9, 99, -9 or 999 that probably mean "missing", with their counts.

    They lie outside all other values, by more than the width of their range.

    Examples
    --------
    >>> missing_codes(np.array([*[1.0, 2.0] * 20, 9.0, 9.0]))
    {9: 2}
    >>> missing_codes(np.arange(100.0))
    {}
    """
    numbers = values.astype(np.float64) if values.dtype.kind in "iuf" else np.empty(0)
    numbers = numbers[np.isfinite(numbers)]
    is_code = np.isin(np.abs(numbers), _CODES)
    others = numbers[~is_code]
    if len(others) < _FEWEST or is_code.sum() > len(others) or np.ptp(others) == 0:
        return {}
    low, high, width = others.min(), others.max(), np.ptp(others)
    far = is_code & ((numbers > high + width) | (numbers < low - width))
    codes, counts = np.unique(numbers[far], return_counts=True)
    return {int(code): int(count) for code, count in zip(codes, counts, strict=True)}


def n_gross_errors(y: Floats) -> int:
    """Number of values far from all others, such as 73,519 among values near 50.

    They lie more than 50 robust standard deviations from the median; where all values are positive,
    also more than 8 on the log scale, so that a skewed outcome has none.

    Examples
    --------
    >>> n_gross_errors(np.array([*np.linspace(40, 60, 50), 73519]))
    1
    >>> n_gross_errors(np.random.default_rng(0).lognormal(0, 1.5, 10_000))
    0
    """
    gross = _robust_distance(y) > _GROSS[0]
    if gross.any() and (y > 0).all():
        gross &= _robust_distance(np.log(y)) > _GROSS[1]
    return int(gross.sum())


def _robust_distance(y: Floats) -> Floats:
    """Distance to the median in robust standard deviations; 0 where most values are equal."""
    low, median, high = np.percentile(y, (25, 50, 75))
    sd = (high - low) / 1.349
    return np.abs(y - median) / sd if sd > 0 else np.zeros(len(y))
