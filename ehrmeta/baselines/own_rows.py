"""Baselines fitted to each task's rows only, with the population mean as fallback."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from ehrmeta.baselines.boosting import last_of_tasks
from ehrmeta.estimators._base import TaskClassifier, TaskRegressor
from ehrmeta.estimators.predictions import ClassPredictive, Predictive
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows

Array = NDArray[np.float64]


class Line(NamedTuple):
    """Regression of each task: ``y = level + (d - center)' slope``."""

    level: Array  # (task,)
    center: Array  # (task, column)
    slope: Array  # (task, column)


@dataclass(eq=False, repr=False, kw_only=True)
class TaskRidge(TaskRegressor):
    r"""Ridge regression on the support of each task; without support, the population mean.

    The intercept is not penalised, and the slopes are shrunk towards 0:

    .. math:: \hat w_i = (\tilde D_i' \tilde D_i + \lambda I)^{-1} \tilde D_i' \tilde y_i

    where the columns of D are the features and the time of the rows, centred within the task.

    Parameters
    ----------
    penalty : float
        Lambda, for standardised features and time.
    schema, task, time, known, outcome_transform, score_shots
        As in `MetaRegressor`.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskRidge
    >>> X, y = [[0.0], [1.0]] * 3, [1.0, 2.0, 3.0, 6.0, 2.0, 4.0]
    >>> model = TaskRidge(penalty=1e-6).fit(X, y, groups=[1, 1, 2, 2, 3, 3])
    >>> model.adapt(X[:2], [4.0, 5.0]).predict([[2.0]]).round(3)
    array([6.])
    """

    poor_score: ClassVar[bool] = True  # without groups it predicts the mean of y
    penalty: float = 10.0

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        return _RidgeModel(**vars(reader), population_mean=_mean(rows), penalty=self.penalty)


@dataclass(frozen=True, kw_only=True, eq=False)
class _RidgeModel(TaskModel):
    population_mean: float
    penalty: float

    def adapt(self, support: TaskRows) -> Line:
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
        level = np.where(sizes > 0, level, self.population_mean)
        return Line(level, center, np.asarray(slope, np.float64))

    def predict(self, support: TaskRows, state: Line, query: TaskRows) -> Predictive:
        tasks = query.codes.numpy()
        centered = self._design(query) - state.center[tasks]
        loc = state.level[tasks] + np.sum(centered * state.slope[tasks], axis=1)
        return Predictive(loc, self.table.outcome)

    def _design(self, rows: TaskRows) -> Array:
        """Features known at the row, and time, (row, column)."""
        time = (rows.time.numpy() - self.table.time_center) / self.table.time_scale
        return np.column_stack([rows.x.double().numpy(), time])


def _mean(rows: TaskRows) -> float:
    """Mean outcome of the training rows, on the model's scale."""
    return float(rows.y.double().mean())


class LastValue(TaskRegressor):
    """Predicts the last outcome of the support; without support, the population mean.

    Hard to beat where patients drift slowly. Without time, the last row in the given order is used.

    Examples
    --------
    >>> from ehrmeta.baselines import LastValue
    >>> X, y = [[0.0]] * 6, [1.0, 2.0, 3.0, 6.0, 2.0, 4.0]
    >>> model = LastValue().fit(X, y, groups=[1, 1, 2, 2, 3, 3], time=[0, 1] * 3)
    >>> model.adapt(X[:2], [4.0, 5.0], time=[0, 1]).predict([[0.0]], time=[2]).round(3)
    array([5.])
    """

    poor_score: ClassVar[bool] = True

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        return _LevelModel(**vars(reader), population_mean=_mean(rows), level=_last)


@dataclass(frozen=True, kw_only=True, eq=False)
class _LevelModel(TaskModel):
    """Predicts one level per task, ``level(support, population_mean)`` (task,)."""

    population_mean: float
    level: Callable[[TaskRows, float], Array]

    def predict(self, support: TaskRows, state: Any, query: TaskRows) -> Predictive:
        level = self.level(support, self.population_mean)
        return Predictive(level[query.codes.numpy()], self.table.outcome)


def _last(support: TaskRows, population_mean: float) -> Array:
    return last_of_tasks(support, support.y.double().numpy(), population_mean)


@dataclass(eq=False, repr=False, kw_only=True)
class TaskLogistic(TaskClassifier):
    """Ridge-penalised logistic regression on the support of each task.

    If a support is empty or has one class only, the prediction is the support's event rate, with
    the event rate of the training rows counted as one more row.

    Parameters
    ----------
    C : float
        Inverse penalty, for standardised features.
    schema, task, time, known, score_shots
        As in `MetaClassifier`.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskLogistic
    >>> X, y = [[0.0], [1.0]] * 3, [0, 1, 1, 0, 0, 1]
    >>> model = TaskLogistic().fit(X, y, groups=[1, 1, 2, 2, 3, 3])
    >>> model.adapt(X[:3], [0, 0, 0]).predict_proba([[2.0]]).round(3)
    array([[0.875, 0.125]])
    """

    two_classes_only: ClassVar[bool] = True
    poor_score: ClassVar[bool] = True  # without groups it predicts the event rate
    C: float = 1.0

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        return _LogisticModel(**vars(reader), rate=_mean(rows), C=self.C)


@dataclass(frozen=True, kw_only=True, eq=False)
class _LogisticModel(TaskModel):
    rate: float  # event rate of the training rows
    C: float

    def adapt(self, support: TaskRows) -> tuple[Array, Array]:
        """Intercept (task,) and coefficients (task, feature)."""
        x, y = support.x.double().numpy(), support.y.double().numpy()
        intercept, slope = np.empty(support.n_tasks), np.zeros((support.n_tasks, x.shape[1]))
        for task, (a, b) in enumerate(pairwise(support.starts.tolist())):
            if len(np.unique(y[a:b])) < 2:
                intercept[task] = logit((y[a:b].sum() + self.rate) / (b - a + 1))
                continue
            fitted = LogisticRegression(C=self.C, max_iter=1000).fit(x[a:b], y[a:b])
            intercept[task], slope[task] = fitted.intercept_[0], fitted.coef_[0]
        return intercept, slope

    def predict(
        self, support: TaskRows, state: tuple[Array, Array], query: TaskRows
    ) -> ClassPredictive:
        codes, (intercept, slope) = query.codes.numpy(), state
        log_odds = intercept[codes] + np.sum(query.x.double().numpy() * slope[codes], axis=1)
        logits = np.column_stack([0.0 * log_odds, log_odds])
        return ClassPredictive(logits, self.table.outcome.labels)


class TaskMean(TaskRegressor):
    """Predicts the mean outcome of the support; without support, the population mean.

    The mean is on the scale of `outcome_transform`.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskMean
    >>> X, y = [[0.0]] * 6, [1.0, 2.0, 3.0, 6.0, 2.0, 4.0]
    >>> model = TaskMean().fit(X, y, groups=[1, 1, 2, 2, 3, 3])
    >>> model.adapt(X[:2], [4.0, 5.0]).predict([[0.0]]).round(3)
    array([4.5])
    """

    poor_score: ClassVar[bool] = True

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        return _LevelModel(**vars(reader), population_mean=_mean(rows), level=_task_means)


def _task_means(support: TaskRows, population_mean: float) -> Array:
    n = support.sizes.numpy()
    total = np.bincount(support.codes.numpy(), support.y.double().numpy(), len(n))
    return np.where(n > 0, total / np.maximum(n, 1), population_mean)
