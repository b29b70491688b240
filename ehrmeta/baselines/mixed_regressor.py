"""What mixed models over tasks share: their designs in features and time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ehrmeta.data.roles import Transform
from ehrmeta.data.schema import Schema
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.near_copies import apart
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["MixedRegressor", "designs", "time_since_first"]

Array = NDArray[np.float64]


class MixedRegressor(TaskRegressor):
    """Linear in features and time, with a random intercept and slope in time of every task.

    Parameters
    ----------
    random_slope : bool
        A slope in time of each task's own; without time there is a random intercept only.
    schema, task, time, outcome_transform, score_shots
        As in `TaskRegressor`.
    """

    def __init__(
        self,
        *,
        random_slope: bool = True,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        outcome_transform: Transform | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
    ) -> None:
        super().__init__(
            schema=schema,
            task=task,
            time=time,
            outcome_transform=outcome_transform,
            score_shots=score_shots,
        )
        self.random_slope = random_slope

    def _training_designs(
        self, rows: TaskRows, table: TableEncoder
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Fixed and random designs, and which fixed columns those before them do not tell."""
        self.mean_elapsed_ = float(time_since_first(rows, rows).mean())
        x, z = self._designs(rows, rows, table)
        return x, z, apart(x)

    def _designs(
        self, support: TaskRows, rows: TaskRows, table: TableEncoder
    ) -> tuple[Array, Array]:
        return designs(
            support,
            rows,
            table,
            mean_elapsed=self.mean_elapsed_,
            random_slope=self.random_slope,
        )


def designs(
    support: TaskRows,
    rows: TaskRows,
    table: TableEncoder,
    *,
    mean_elapsed: float,
    random_slope: bool,
) -> tuple[Array, Array]:
    """Fixed and random designs, ``[1, features, s]`` and ``[1, s]``, of some rows."""
    one = np.ones(rows.n_rows)
    x = np.column_stack([one, rows.x.double().numpy()])
    if not table.timed:
        return x, one[:, None]
    if table.clock_is_feature:  # already a column of the features
        s = (rows.time.numpy() - table.time_center) / table.time_scale
    else:  # centred, so that a row without support gets the average of the training rows
        s = np.nan_to_num(time_since_first(support, rows) - mean_elapsed)
        s /= table.time_scale
        x = np.column_stack([x, s])
    return x, np.column_stack([one, s]) if random_slope else one[:, None]


def time_since_first(support: TaskRows, rows: TaskRows) -> Array:
    """Time from the support's first row to each row, (row,); NaN without support."""
    first = np.full(support.n_tasks, np.nan)
    filled = support.sizes.numpy() > 0
    first[filled] = support.time.numpy()[support.starts[:-1].numpy()[filled]]
    elapsed: Array = rows.time.numpy() - first[rows.codes.numpy()]
    return elapsed
