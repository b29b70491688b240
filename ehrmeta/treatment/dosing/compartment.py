r"""One compartment: concentrations of a drug under doses that add up.

With clearance CL, volume V, :math:`k = CL / V` and absorption :math:`k_a`, a dose D adds

.. math:: \frac{D k_a}{V (k_a - k)} (e^{-kt} - e^{-k_a t}) \text{ by mouth}, \qquad
          \frac{D}{V} e^{-kt} \text{ in a vein}

t later. Logarithms of the parameters come in that order, (..., 3) or in a vein (..., 2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Array
from ehrmeta.treatment.dosing.dosed_rows import DosedRows

_APART = 1e-4  # of k and k_a, relative: equal rates have a limit of their own


@dataclass(frozen=True, eq=False)
class Course:
    """One patient's measurements and the doses before each."""

    # y, time (row,): concentration, and when
    y: Array
    time: Array
    # dose, last (row,): dose given since the row before, and when last
    dose: Array
    last: Array
    count: Array  # (row,): how often, one interval apart
    interval: float

    def concentration(self, theta: Array) -> Array:
        """Of every row under log parameters (draw, parameter), (row, draw)."""
        elapsed = self.time[:, None] - self.last  # (row, level)
        amount = np.where(elapsed >= 0, self.dose, 0.0)

        def left(by: Array) -> Array:
            step = -by * self.interval
            repeats = np.expm1(step * self.count[:, None]) / np.expm1(step)  # (level, draw)
            faded = np.exp(-np.maximum(elapsed, 0)[..., None] * by)
            return np.asarray(np.sum(amount[..., None] * faded * repeats, axis=1))

        return _concentration(theta, left)


def steady(theta: Array, since: Array, interval: float) -> Array:
    """Concentration per unit of a dose held for long, (row, draw), `since` (row,) the last one."""
    return _concentration(
        theta, lambda by: np.exp(-since[:, None] * by) / -np.expm1(-by * interval)
    )


def courses(rows: DosedRows, since: Array, interval: float) -> list[Course]:
    """Every patient's course; time counts from the first dose.

    Parameters
    ----------
    since : (row,)
        Time since the last dose.
    """
    if (rows.dose < 0).any():
        raise DataError(
            f"dose is negative in {int((rows.dose < 0).sum()):,} of {len(rows.dose):,} rows. Pass "
            "amounts; 0 where none was given."
        )
    last = rows.time - since
    found: list[Course] = []
    for first, end in pairwise(rows.starts):
        own = slice(first, end)
        count = np.round(np.diff(last[own], prepend=-interval) / interval)
        count[:1] = np.floor(last[own][:1] / interval + 1e-6) + 1
        if (since[own] < 0).any() or (count < 0).any() or (count[:1] < 1).any():
            raise DataError(
                f"patient {len(found)} of {len(rows.starts) - 1}: times do not agree with doses. "
                "time counts from the first dose, and the time since the last dose is never "
                "negative nor longer than that."
            )
        found.append(
            Course(rows.y[own], rows.time[own], rows.dose[own], last[own], count, interval)
        )
    return found


def _concentration(theta: Array, left: Callable[[Array], Array]) -> Array:
    """From what is left of the doses at a rate (draw,), (row, draw)."""
    clearance, volume, *absorption = np.exp(theta.T)
    rate = clearance / volume
    if not absorption:
        return np.asarray(left(rate) / volume)
    k_a = absorption[0]
    apart = k_a - rate
    apart = np.where(np.abs(apart) < _APART * rate, _APART * rate, apart)
    return np.asarray(k_a / (volume * apart) * (left(rate) - left(rate + apart)))
