"""Last observation carried forward."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Tags

from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["LastValue"]


class LastValue(TaskRegressor):
    """Predicts the last outcome of the support; the population mean without support.

    Hard to beat where patients drift slowly. Without time the last row in the given order counts.

    Examples
    --------
    >>> from ehrmeta.baselines import LastValue
    >>> X, y = [[0.0], [0.0], [0.0], [0.0]], [1.0, 2.0, 3.0, 6.0]
    >>> model = LastValue().fit(X, y, groups=[1, 1, 2, 2], time=[0, 1, 0, 1])
    >>> model.adapt(X[:2], [4.0, 5.0], time=[0, 1]).predict([[0.0]], time=[2]).round(3)
    array([5.])
    """

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # without groups it is the mean of y
        return tags

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        self.population_mean_ = float(rows.y.double().mean())

    def _predict_tasks(self, support: TaskRows, state: Any, query: TaskRows) -> Predictive:
        last = np.full(support.n_tasks, self.population_mean_)
        filled = support.sizes.numpy() > 0
        last[filled] = support.y.double().numpy()[(support.starts[1:].numpy() - 1)[filled]]
        return Predictive(last[query.codes.numpy()], self.table_.outcome)
