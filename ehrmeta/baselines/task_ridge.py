"""Every patient's own regression line, and nothing from the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Tags

from ehrmeta.data.roles import Transform
from ehrmeta.data.schema import Schema
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["TaskRidge"]

Array = NDArray[np.float64]


class Line(NamedTuple):
    """Regression of each task: ``y = level + (d - center)' slope``."""

    level: Array  # (task,)
    center: Array  # (task, column)
    slope: Array  # (task, column)


class TaskRidge(TaskRegressor):
    r"""Ridge regression of each task on its own rows; the population mean without support.

    The intercept is free, the slopes are shrunk toward 0:

    .. math:: \hat w_i = (\tilde D_i' \tilde D_i + \lambda I)^{-1} \tilde D_i' \tilde y_i

    with the features and the time of the rows, centred within the task, as D.

    Parameters
    ----------
    penalty : float
        Lambda, in the unit of standardised features; time counts in its sd over the training rows.
    schema, task, time, outcome_transform, score_shots
        As in `TaskRegressor`.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskRidge
    >>> X, y = [[0.0], [1.0], [0.0], [1.0]], [1.0, 2.0, 3.0, 6.0]
    >>> model = TaskRidge(penalty=1e-6).fit(X, y, groups=[1, 1, 2, 2])
    >>> model.adapt(X[:2], [4.0, 5.0]).predict([[2.0]]).round(3)
    array([6.])
    """

    def __init__(
        self,
        *,
        penalty: float = 10.0,
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
        self.penalty = penalty

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # without groups it is the mean of y
        return tags

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        self.population_mean_ = float(rows.y.double().mean())

    def _adapt_tasks(self, support: TaskRows) -> Line:
        d, y, codes = self._design(support), support.y.double().numpy(), support.codes.numpy()
        sizes = support.sizes.numpy()

        def total(values: Array) -> Array:
            sums = np.zeros((len(sizes), *values.shape[1:]))
            np.add.at(sums, codes, values)
            return sums

        center = total(d) / np.maximum(sizes, 1)[:, None]
        level = total(y) / np.maximum(sizes, 1)
        d, y = d - center[codes], y - level[codes]
        gram = total(d[:, :, None] * d[:, None, :]) + self.penalty * np.eye(d.shape[1])
        slope = np.linalg.solve(gram, total(d * y[:, None])[..., None])[..., 0]
        level = np.where(sizes > 0, level, self.population_mean_)
        return Line(level, center, np.asarray(slope, np.float64))

    def _predict_tasks(self, support: TaskRows, state: Line, query: TaskRows) -> Predictive:
        tasks = query.codes.numpy()
        away = self._design(query) - state.center[tasks]
        loc = state.level[tasks] + np.sum(away * state.slope[tasks], axis=1)
        return Predictive(loc, self.table_.outcome)

    def _design(self, rows: TaskRows) -> Array:
        """Features known at the row, and time, (row, column)."""
        time = (rows.time.numpy() - self.table_.time_center) / self.table_.time_scale
        return np.column_stack([rows.x.double().numpy(), time])
