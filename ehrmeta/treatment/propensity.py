"""Propensities that the user knows, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Arms

__all__ = ["read_probabilities", "read_propensities"]

Array = npt.NDArray[np.float64]


def read_probabilities(propensity: Any, arms: Arms) -> Array:
    """Randomisation probability of every arm, (arm,).

    Parameters
    ----------
    propensity : float or mapping
        Of the second of two arms, or arm to probability.

    Examples
    --------
    >>> read_probabilities(0.25, Arms.fit(["a", "b"]))
    array([0.75, 0.25])
    """
    if isinstance(propensity, Mapping):
        codes = arms.codes(list(propensity))
        found = np.full(arms.n_arms, np.nan)
        found[codes] = list(propensity.values())
    else:
        found = _both(np.array([float(propensity)]), arms)[0]
    return np.asarray(_checked(found[None])[0])


def read_propensities(propensity: Any, arms: Arms, n_rows: int) -> Array:
    """Known propensity of every arm in every row, (row, arm).

    Parameters
    ----------
    propensity : array-like, (row,) or (row, arm)
        Of the second of two arms, or of all in the order of ``arms_.labels``.
    """
    found = np.asarray(propensity, dtype=np.float64)
    if found.ndim == 1:
        found = _both(found, arms)
    if found.shape != (n_rows, arms.n_arms):
        raise DataError(
            f"propensity has shape {found.shape}, but there are {n_rows:,} rows and {arms.n_arms} "
            "arms. Pass one number a row (of the arm that is not the control), or one per arm."
        )
    return _checked(found)


def _both(found: Array, arms: Arms) -> Array:
    if arms.n_arms > 2:
        raise DataError(
            f"there are {arms.n_arms} arms, so propensity needs one number an arm: pass a mapping "
            "of arm to probability, or an array (row, arm)."
        )
    return np.column_stack([1.0 - found, found])


def _checked(found: Array) -> Array:
    outside = ~((found > 0) & (found < 1)).all(1)
    if outside.any():
        raise DataError(
            f"propensity is missing, 0, 1 or outside of that in {int(outside.sum()):,} of "
            f"{len(found):,} rows (first: row {int(np.flatnonzero(outside)[0])}): who could get "
            "one arm only tells nothing of its effect. Leave those rows out."
        )
    off = np.abs(found.sum(1) - 1) > 1e-6
    if off.any():
        raise DataError(
            f"propensities do not sum to 1 in {int(off.sum()):,} of {len(found):,} rows (first: "
            f"row {int(np.flatnonzero(off)[0])})."
        )
    return found
