"""How far from a prediction a new patient's outcome may lie, from the errors of other patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError

__all__ = ["Limits", "tasks_needed"]

Array = npt.NDArray[np.float64]

_ROUNDING = 1e-9  # sums of 1 / n are not exact


@dataclass(frozen=True)
class Limits:
    r"""Errors of the calibration tasks, from which limits for one more task are read.

    The errors of one task are alike, so the task is what is exchangeable: with m tasks, row j of
    the :math:`n_i` of task i weighs :math:`1 / ((m + 1) n_i)`, and the new task's own
    :math:`1 / (m + 1)` lies beyond all of them. An interval of level :math:`1 - a` cuts off
    :math:`a / 2` on each side, by weight, and then holds a random row of a new task with at least
    that probability, whatever the distribution of the errors.

    Attributes
    ----------
    error : (row,)
        Signed and standardised, (outcome - mean) / sd, in ascending order.
    weight : (row,)
        One over the rows of its task.
    n_tasks : int

    References
    ----------
    Lee, Barber, Willett (2023), arXiv:2306.06342; Dunn, Wasserman, Ramdas (2023),
    doi:10.1080/01621459.2022.2060112.

    Examples
    --------
    >>> limits = Limits.of(np.arange(-9.5, 10.0), tasks=np.arange(20))
    >>> limits.at(0.9)
    (-9.5, 9.5)
    """

    error: Array
    weight: Array
    n_tasks: int

    @classmethod
    def of(cls, error: Array, tasks: npt.NDArray[np.int64]) -> Limits:
        """Take the errors of some rows, (row,), and the number of each one's task, (row,)."""
        counts = np.bincount(tasks)
        order = np.argsort(error, kind="stable")
        weight = (1.0 / np.maximum(counts, 1))[tasks]
        return cls(error[order], weight[order], int(np.count_nonzero(counts)))

    def at(self, confidence_level: float) -> tuple[float, float]:
        """Lower and upper limit of the standardised error.

        Raises
        ------
        DataError
            There are fewer than `tasks_needed`.
        """
        self._refuse_too_few(tasks_needed(confidence_level), confidence_level)
        tail = 0.5 * (1.0 - confidence_level)
        upper = -_lower(-self.error[::-1], self.weight[::-1], tail, self.n_tasks)
        return _lower(self.error, self.weight, tail, self.n_tasks), upper

    def lower(self, confidence_level: float) -> float:
        """Lower limit alone: at least this share of a new task's rows lies at it or above.

        Raises
        ------
        DataError
            There are fewer than ``tasks_needed(confidence_level, sides=1)``.

        Examples
        --------
        >>> Limits.of(np.arange(20.0), tasks=np.arange(20)).lower(0.9)
        1.0
        """
        self._refuse_too_few(tasks_needed(confidence_level, sides=1), confidence_level)
        return _lower(self.error, self.weight, 1.0 - confidence_level, self.n_tasks)

    def _refuse_too_few(self, needed: int, confidence_level: float) -> None:
        if self.n_tasks < needed:
            raise DataError(
                f"a level of {100 * confidence_level:g} % needs {needed:,} calibration tasks with "
                f"rows to predict, here are {self.n_tasks:,}. Calibrate on more patients, or lower "
                "confidence_level."
            )


def tasks_needed(confidence_level: float, *, sides: int = 2) -> int:
    """Calibration tasks without which limits of this level are not finite.

    Examples
    --------
    >>> tasks_needed(0.9), tasks_needed(0.95), tasks_needed(0.9, sides=1)
    (19, 39, 9)
    """
    if not 0.0 < confidence_level < 1.0:
        raise DataError(
            f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
        )
    return math.ceil(sides / (1.0 - confidence_level) - 1.0 - _ROUNDING)


def _lower(error: Array, weight: Array, tail: float, n_tasks: int) -> float:
    """The smallest error that leaves at most a share of the weight below it."""
    beyond = tail * (n_tasks + 1) - 1.0
    return float(error[int(np.searchsorted(np.cumsum(weight), beyond + _ROUNDING, side="right"))])
