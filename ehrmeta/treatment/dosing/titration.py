"""Whether doses follow outcomes, as in titration."""

import warnings

import numpy as np
from scipy import stats

from ehrmeta.errors import DataWarning
from ehrmeta.treatment.arms import Array, Index

_TITRATED = 0.001


def titration_p_value(dose: Array, y: Array, starts: Index) -> float:
    """How likely later doses would follow earlier outcomes as they do, if they did not.

    Among the rows at which a patient's dose changes, the new dose is regressed on the dose and the
    outcome of the row before; the outcome's coefficient is tested with a standard error robust to
    several rows of one patient. NaN where the doses of too few patients change, or where the
    dose before tells the new one.

    Parameters
    ----------
    dose, y : (row,)
        Rows in task order and in time.
    starts : (task + 1,)
        Offsets of the tasks.

    Examples
    --------
    >>> from ehrmeta.data import make_nof1
    >>> starts = np.arange(0, 101 * 56, 56)
    >>> p = make_nof1(titration=True, random_state=0)
    >>> titration_p_value(p.treatment, p.y, starts) < 0.001
    True
    """
    task = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    now = np.flatnonzero((np.diff(task) == 0) & (np.diff(dose) != 0)) + 1
    if len(np.unique(task[now])) < 10:
        return np.nan
    known = np.column_stack([np.ones(len(now)), dose[now - 1]])
    follow, before = (_residual(known, values) for values in (dose[now], y[now - 1]))
    if follow @ follow < 1e-9 * (dose[now] @ dose[now]) or not before.any():
        return np.nan
    slope = before @ follow / (before @ before)
    score = np.bincount(task[now], before * (follow - slope * before))
    z = slope * (before @ before) / np.sqrt(score @ score)
    return float(2 * stats.norm.sf(abs(z)))


def warn_of_titration(p_value: float, stacklevel: int = 3) -> None:
    """Say so where doses follow outcomes."""
    if p_value < _TITRATED:
        warnings.warn(
            f"later doses follow earlier outcomes (p = {p_value:.1g}), as in titration. The model "
            "conditions on all rows that it is given, so give it, also in adapt, every patient's "
            "rows from the first dose on.",
            DataWarning,
            stacklevel=stacklevel,
        )


def _residual(x: Array, y: Array) -> Array:
    return np.asarray(y - x @ np.linalg.lstsq(x, y, rcond=None)[0])
