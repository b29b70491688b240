"""What a patient is exposed to: the doses, with what is left of earlier ones."""

import numpy as np

from ehrmeta.treatment.arrays import Array, Index


def exposure(dose: Array, time: Array, starts: Index, half_life: float, gap: float) -> Array:
    r"""Doses averaged over the past, with weights that halve every `half_life`.

    .. math:: E_j = c_j E_{j-1} + (1 - c_j) D_j, \quad c_j = 2^{-(t_j - t_{j-1}) / T}

    A row's dose is taken to be given since the row before; before the first there was none. A dose
    held for long is its own exposure.

    Parameters
    ----------
    dose, time : (row,)
        Rows in task order and in time.
    starts : (task + 1,)
        Offsets of the tasks.
    half_life : float
        T, in the unit of time; 0 for none.
    gap : float
        How long a task's first dose had been given.

    Examples
    --------
    >>> days, starts = np.arange(1.0, 5.0), np.array([0, 4])
    >>> exposure(np.array([8.0, 8.0, 0.0, 0.0]), days, starts, half_life=1.0, gap=1.0)
    array([4. , 6. , 3. , 1.5])
    """
    if half_life == 0 or len(dose) == 0:
        return dose.astype(np.float64)
    since = np.diff(time, prepend=np.nan)
    filled = starts[:-1] < starts[1:]
    since[starts[:-1][filled]] = gap
    left = 0.5 ** (since / half_life)
    found = np.empty(len(dose))
    sizes = np.diff(starts)
    for place in range(int(sizes.max())):  # the n-th rows of all tasks at once
        rows = starts[:-1][sizes > place] + place
        before = found[rows - 1] if place else 0.0
        found[rows] = left[rows] * before + (1.0 - left[rows]) * dose[rows]
    return found


def usual_gap(time: Array, starts: Index) -> float:
    """Median time between a task's rows; 1 where no task has two."""
    inner = np.ones(len(time), bool)
    inner[starts[:-1][starts[:-1] < starts[1:]]] = False
    gaps = np.diff(time, prepend=0.0)[inner]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 1.0
