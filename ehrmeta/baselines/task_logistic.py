"""Every site's own logistic regression, and nothing from the others."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Tags

from ehrmeta.data.schema import Schema
from ehrmeta.estimators.predictive import ClassPredictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.estimators.task_classifier import TaskClassifier
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["TaskLogistic"]

Array = NDArray[np.float64]


class TaskLogistic(TaskClassifier):
    """Ridge-penalised logistic regression of each task on its own rows.

    A support of one class, or without rows, has no such fit: there it is the rate of events, with
    the training rows' rate as one row more.

    Parameters
    ----------
    C : float
        Inverse penalty, in the unit of standardised features.
    schema, task, time, score_shots
        As in `TaskClassifier`.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskLogistic
    >>> X, y = [[0.0], [1.0], [0.0], [1.0]], [0, 1, 1, 0]
    >>> model = TaskLogistic().fit(X, y, groups=[1, 1, 2, 2])
    >>> model.adapt(X[:3], [0, 0, 0]).predict_proba([[2.0]]).round(3)
    array([[0.875, 0.125]])
    """

    two_classes_only: ClassVar[bool] = True

    def __init__(
        self,
        *,
        C: float = 1.0,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
    ) -> None:
        super().__init__(schema=schema, task=task, time=time, score_shots=score_shots)
        self.C = C

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # without groups it is the rate of events
        return tags

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        self.rate_ = float(rows.y.double().mean())

    def _adapt_tasks(self, support: TaskRows) -> tuple[Array, Array]:
        """Intercept (task,) and coefficients (task, feature)."""
        x, y, starts = (part.double().numpy() for part in (support.x, support.y, support.starts))
        intercept, slope = np.empty(support.n_tasks), np.zeros((support.n_tasks, x.shape[1]))
        for task, (a, b) in enumerate(
            zip(starts[:-1].astype(int), starts[1:].astype(int), strict=True)
        ):
            if len(np.unique(y[a:b])) < 2:
                intercept[task] = logit((y[a:b].sum() + self.rate_) / (b - a + 1))
                continue
            found = LogisticRegression(C=self.C, max_iter=1000).fit(x[a:b], y[a:b])
            intercept[task], slope[task] = found.intercept_[0], found.coef_[0]
        return intercept, slope

    def _predict_tasks(
        self, support: TaskRows, state: tuple[Array, Array], query: TaskRows
    ) -> ClassPredictive:
        codes, (intercept, slope) = query.codes.numpy(), state
        found = intercept[codes] + np.sum(query.x.double().numpy() * slope[codes], axis=1)
        return ClassPredictive(np.column_stack([0.0 * found, found]), self.table_.outcome.labels)
