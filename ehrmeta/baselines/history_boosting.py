"""Boosting with history: gradient boosting on a summary of each patient's past."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Tags, check_random_state

from ehrmeta.baselines.boosting import boost
from ehrmeta.baselines.history import draw_episodes, history_design, outcome_history
from ehrmeta.data.roles import Transform
from ehrmeta.data.schema import Schema
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
    max_leaf_nodes : int
        Leaves of each tree.
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
        max_leaf_nodes: int = 12,
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
        self.max_leaf_nodes = max_leaf_nodes
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # one anonymous task is too little history
        return tags

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rng = np.random.default_rng(seed)
        parts = []
        for _ in range(self.n_draws):
            support, query = draw_episodes(rows, self.shots, self.max_queries, rng)
            design = history_design(support, outcome_history(support), query)
            parts.append((design, query.y.double().numpy(), query.codes.numpy()))
        x, y, tasks = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        self.boosting_ = boost(
            x,
            y,
            tasks,
            rows.n_tasks,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=10 * self.n_draws,  # rows of a task come up in every draw
            seed=seed,
        )
        self.n_iter_ = self.boosting_.n_iter_

    def _adapt_tasks(self, support: TaskRows) -> Array:
        return outcome_history(support)

    def _predict_tasks(self, support: TaskRows, state: Array, query: TaskRows) -> Predictive:
        if query.n_rows == 0:
            return Predictive(np.empty(0), self.table_.outcome)
        design = history_design(support, state, query)
        return Predictive(self.boosting_.predict(design), self.table_.outcome)
