"""The task's own mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Tags

from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["TaskMean"]


class TaskMean(TaskRegressor):
    """Predicts the mean outcome of the support; the population mean without support.

    The mean is taken on the transformed scale where the outcome has a transform.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskMean
    >>> X, y = [[0.0], [0.0], [0.0], [0.0]], [1.0, 2.0, 3.0, 6.0]
    >>> model = TaskMean().fit(X, y, groups=[1, 1, 2, 2])
    >>> model.adapt(X[:2], [4.0, 5.0]).predict([[0.0]]).round(3)
    array([4.5])
    """

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # without groups it is the mean of y
        return tags

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        self.population_mean_ = float(rows.y.double().mean())

    def _predict_tasks(self, support: TaskRows, state: Any, query: TaskRows) -> Predictive:
        n = support.sizes.numpy()
        total = np.bincount(support.codes.numpy(), support.y.double().numpy(), len(n))
        mean = np.where(n > 0, total / np.maximum(n, 1), self.population_mean_)
        return Predictive(mean[query.codes.numpy()], self.table_.outcome)
