"""Boosting with history: gradient boosting on a summary of each patient's past."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import Tags, check_random_state

from ehrmeta.baselines.boosting import boost
from ehrmeta.baselines.history import carried_forward, outcome_history, time_since_support
from ehrmeta.data.schema import Schema, Transform
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["HistoryBoosting"]

Array = NDArray[np.float64]


class HistoryBoosting(TaskRegressor):
    """Gradient boosting on the row's features and on what the support says.

    The support enters as count, mean, spread, last value and slope of its outcomes, the time since
    its last row, and the last value and age of every measured feature. Trained on supports of
    random size, so that it knows how far to trust them.

    Parameters
    ----------
    shots : tuple of int
        Smallest and largest support size drawn in training.
    n_draws : int
        Supports drawn per training task.
    max_queries : int
        Query rows per draw.
    max_iter : int
        Trees at most; the number is chosen on held-out tasks where there are 20 or more.
    learning_rate : float
        Shrinkage of each tree.
    random_state : int, optional
        Seed of the draws and of the held-out tasks.
    schema, task, time, outcome_transform, score_shots
        As in `TaskRegressor`.

    Attributes
    ----------
    n_iter_ : int
        Trees grown.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.baselines import HistoryBoosting
    >>> level = np.repeat(np.linspace(-1, 1, 100), 8)  # 100 patients, 8 visits each
    >>> X, patients = np.zeros((800, 1)), np.repeat(np.arange(100), 8)
    >>> model = HistoryBoosting(random_state=0).fit(X, level, groups=patients)
    >>> model.adapt(X[:3], [0.5, 0.5, 0.5]).predict(X[:1]).round(1)
    array([0.5])
    """

    def __init__(
        self,
        *,
        shots: tuple[int, int] = (0, 10),
        n_draws: int = 8,
        max_queries: int = 10,
        max_iter: int = 300,
        learning_rate: float = 0.05,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        outcome_transform: Transform | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            schema=schema,
            task=task,
            time=time,
            outcome_transform=outcome_transform,
            score_shots=score_shots,
        )
        self.shots = shots
        self.n_draws = n_draws
        self.max_queries = max_queries
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # one anonymous task is too little history
        return tags

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rng = np.random.default_rng(seed)
        parts = [_draw(rows, self.shots, self.max_queries, rng) for _ in range(self.n_draws)]
        x, y, tasks = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        self.boosting_ = boost(
            x,
            y,
            tasks,
            rows.n_tasks,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            min_samples_leaf=10 * self.n_draws,  # rows of a task come up in every draw
            seed=seed,
        )
        self.n_iter_ = self.boosting_.n_iter_

    def _adapt_tasks(self, support: TaskRows) -> Array:
        return outcome_history(support)

    def _predict_tasks(self, support: TaskRows, state: Array, query: TaskRows) -> Predictive:
        if query.n_rows == 0:
            return Predictive(np.empty(0), self.table_.outcome)
        design = _design(support, state, query)
        return Predictive(self.boosting_.predict(design), self.table_.outcome)


def _design(support: TaskRows, history: Array, query: TaskRows) -> Array:
    """Columns of the boosting model, (row, column)."""
    return np.column_stack(
        [
            query.x.double().numpy(),
            history[query.codes.numpy()],
            time_since_support(support, query),
            carried_forward(support, query),
        ]
    )


def _draw(
    rows: TaskRows, shots: tuple[int, int], max_queries: int, rng: np.random.Generator
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Split every task into a support of random size and some later rows: columns, y, task."""
    if not rows.timed:
        rows = _subset(rows, rng.permutation(rows.n_rows))
    codes, sizes = rows.codes.numpy(), rows.sizes.numpy()
    k = np.minimum(rng.integers(shots[0], shots[1] + 1, rows.n_tasks), sizes - 1)
    position = np.arange(rows.n_rows) - rows.starts.numpy()[codes]
    support = _subset(rows, np.flatnonzero(position < k[codes]))
    later = position >= k[codes]
    if rows.timed:
        later &= ~(time_since_support(support, rows) <= 0)
    candidates = rng.permutation(np.flatnonzero(later))
    candidates = candidates[np.argsort(codes[candidates], kind="stable")]
    first = np.searchsorted(codes[candidates], codes[candidates])
    query = _subset(rows, np.sort(candidates[np.arange(len(candidates)) - first < max_queries]))
    design = _design(support, outcome_history(support), query)
    return design, query.y.double().numpy(), query.codes.numpy()


def _subset(rows: TaskRows, index: NDArray[np.int64]) -> TaskRows:
    """Some rows of every task; the tasks keep their numbers."""
    at = torch.from_numpy(index)
    return TaskRows.from_codes(
        rows.codes[at],
        rows.n_tasks,
        timed=rows.timed,
        x=rows.x[at],
        measured=rows.measured[at],
        time=rows.time[at],
        y=rows.y[at],
        origin=rows.origin[at],
    )
