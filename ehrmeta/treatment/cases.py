"""The treated rows of many tasks as plain arrays: what every learner of effects is handed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Cases"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cases:
    """Encoded rows, in the user's order.

    Parameters
    ----------
    x : (row, feature)
        Encoded features, known before the treatment.
    y : (row,)
        Outcome.
    arm : (row,)
        Number of the arm given, 0 the control; of a dose the dose itself.
    task : (row,)
        Number of the task.
    n_tasks : int
    time : (row,), optional
        Of the treatment, in the schema's unit.
    known : (row, arm), optional
        Randomisation probabilities.
    """

    x: Array
    y: Array
    arm: npt.NDArray[Any]
    task: Index
    n_tasks: int
    time: Array | None = None
    known: Array | None = None

    @classmethod
    def none(cls, n_features: int, n_arms: int) -> Cases:
        """A task without rows."""
        return cls(
            np.zeros((0, n_features)),
            np.zeros(0),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            1,
            known=np.zeros((0, n_arms)),
        )

    @property
    def n_rows(self) -> int:
        """Number of rows over all tasks."""
        return len(self.y)

    def counts(self, n_arms: int) -> Index:
        """Rows of every task in every arm, (task, arm)."""
        both = np.bincount(self.task * n_arms + self.arm, minlength=self.n_tasks * n_arms)
        return both.reshape(self.n_tasks, n_arms)

    def in_one_task(self) -> Cases:
        """The same rows as those of one task."""
        return replace(self, task=np.zeros(self.n_rows, np.int64), n_tasks=1)

    def take(self, rows: npt.NDArray[Any]) -> Cases:
        """Some rows, by mask or position; the numbering of the tasks stays."""
        return replace(
            self,
            x=self.x[rows],
            y=self.y[rows],
            arm=self.arm[rows],
            task=self.task[rows],
            time=None if self.time is None else self.time[rows],
            known=None if self.known is None else self.known[rows],
        )
