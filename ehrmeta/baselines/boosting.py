"""Gradient boosting with equal total weight for every task, alone or on a task's history.

Summaries of the history use support rows only.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils import check_random_state

from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.predictions import Predictive
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows
from ehrmeta.training.held_out import HELD_OUT_SHARE

Array = NDArray[np.float64]
_MIN_TASKS = 20  # with fewer, no task is held out


@dataclass(eq=False, repr=False, kw_only=True)
class BoostedRegressor(TaskRegressor):
    """Boosted trees in which every task has the same weight, stopped early on held-out tasks."""

    max_iter: int = 300
    learning_rate: float = 0.05
    max_leaf_nodes: int = 12
    random_state: int | None = None

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _boost(
        self,
        x: Array,
        y: Array,
        tasks: NDArray[np.int64],
        n_tasks: int,
        *,
        seed: int,
        min_samples_leaf: int = 20,
    ) -> HistGradientBoostingRegressor:
        """Fit trees to features (row, feature); NaN is missing. `tasks` (row,) are task numbers."""
        weight = 1.0 / np.bincount(tasks, minlength=n_tasks)[tasks]
        trees = HistGradientBoostingRegressor(
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.max_leaf_nodes,
            min_samples_leaf=min_samples_leaf,
            early_stopping=False,
            random_state=seed,
        )
        n_held_out = int(HELD_OUT_SHARE * n_tasks) if n_tasks >= _MIN_TASKS else 0
        test = (np.random.default_rng(seed).permutation(n_tasks) < n_held_out)[tasks]
        x = np.where(np.isnan(x[~test]).all(axis=0), 0.0, x)  # empty columns cannot be binned
        if n_held_out == 0:
            trees.fit(x, y, weight)
        else:
            held_out = {"X_val": x[test], "y_val": y[test], "sample_weight_val": weight[test]}
            trees.set_params(early_stopping=True)
            trees.fit(x[~test], y[~test], weight[~test], **held_out)
        self.n_iter_ = trees.n_iter_
        return trees


class PopulationBoosting(BoostedRegressor):
    """Gradient boosting on the row's features; the support is ignored.

    Measured features are not used, because they are unknown at prediction time.

    Parameters
    ----------
    max_iter : int
        Largest number of trees. With 20 tasks or more, held-out tasks determine when to stop.
    learning_rate : float
        Shrinkage of each tree.
    max_leaf_nodes : int
        Largest number of leaves of a tree.
    random_state : int, optional
        Seed for the choice of held-out tasks.
    schema, task, time, known, outcome_transform, score_shots
        As in `MetaRegressor`.

    Attributes
    ----------
    n_iter_ : int
        Number of trees.

    Examples
    --------
    >>> from ehrmeta.baselines import PopulationBoosting
    >>> X = [[i % 3] for i in range(200)]
    >>> y = [float(row[0]) ** 2 for row in X]
    >>> model = PopulationBoosting().fit(X, y, groups=[i // 5 for i in range(200)])
    >>> model.predict([[0], [1], [2]]).round(1) + 0.0
    array([0., 1., 4.])
    """

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        y, tasks = rows.y.double().numpy(), rows.codes.numpy()
        trees = self._boost(_design(rows), y, tasks, rows.n_tasks, seed=self._seed())
        return BoostingModel(**vars(reader), trees=trees)


@dataclass(frozen=True, kw_only=True, eq=False)
class BoostingModel(TaskModel):
    """Fitted trees; the support is ignored."""

    trees: HistGradientBoostingRegressor

    def predict(self, support: TaskRows, state: Any, query: TaskRows) -> Predictive:
        """Predictions from the query's features."""
        return self._predicted(_design(query))

    def _predicted(self, design: Array) -> Predictive:
        y = self.trees.predict(design) if len(design) else np.empty(0)  # trees refuse 0 rows
        return Predictive(y, self.table.outcome)


def _design(rows: TaskRows) -> Array:
    """Features known at the row, and a constant, for tables without features."""
    return np.column_stack([rows.x.double().numpy(), np.zeros(rows.n_rows)])


def outcome_history(support: TaskRows) -> Array:
    """Count, mean, spread, last value and slope in time of each task's outcomes, (task, 5).

    Undefined values are NaN. The spread (sd) and the slope need two rows; the last value and the
    slope need time.
    """
    y, n_tasks = support.y.double().numpy(), support.n_tasks
    codes, count = support.codes.numpy(), support.sizes.double().numpy()

    def mean(values: Array) -> Array:
        return np.bincount(codes, values, minlength=n_tasks) / np.where(count > 0, count, np.nan)

    level = mean(y)
    deviation = y - level[codes]
    spread = np.where(count > 1, np.sqrt(mean(deviation**2)), np.nan)
    last = slope = np.full(n_tasks, np.nan)
    if support.timed:
        time = support.time.numpy()
        elapsed = time - mean(time)[codes]
        last = last_of_tasks(support, y, np.nan)
        variance = mean(elapsed**2)
        slope = mean(elapsed * deviation) / np.where(variance > 0, variance, np.nan)
    return np.column_stack([count, level, spread, last, slope])


def last_of_tasks(support: TaskRows, values: Array, default: float) -> Array:
    """Value of every task's last support row, (task,); `default` without support."""
    last, filled = np.full(support.n_tasks, default), support.sizes.numpy() > 0
    last[filled] = values[(support.starts[1:].numpy() - 1)[filled]]
    return last


def time_since_support(support: TaskRows, query: TaskRows) -> Array:
    """Time from the support's last row to each query row, (row,); NaN without support or time."""
    if not support.timed:
        return np.full(query.n_rows, np.nan)
    latest = last_of_tasks(support, support.time.numpy(), np.nan)
    return np.asarray(query.time.numpy() - latest[query.codes.numpy()])


def carried_forward(support: TaskRows, query: TaskRows) -> Array:
    """Last measured values and their ages at each query row, (row, 2 * measured feature).

    They come from support rows strictly before the query row; NaN if there are none.
    """
    measured = support.measured.double().numpy()
    n_rows, n_features = measured.shape
    if not query.timed or n_rows == 0:
        return np.full((query.n_rows, 2 * n_features), np.nan)
    row = np.where(np.isnan(measured), -1, np.arange(n_rows)[:, None])
    seen = np.maximum.accumulate(row, axis=0)  # last row with a value, possibly of another task
    previous = _rows_before(support, query) - 1
    last = np.where(previous[:, None] >= 0, seen[previous], -1)
    known = last >= support.starts.numpy()[query.codes.numpy()][:, None]
    value = np.take_along_axis(measured, np.maximum(last, 0), axis=0)
    age = query.time.numpy()[:, None] - support.time.numpy()[np.maximum(last, 0)]
    return np.where(np.hstack([known, known]), np.hstack([value, age]), np.nan)


def _rows_before(support: TaskRows, query: TaskRows) -> NDArray[np.int64]:
    """Number of support rows that sort before each query row, by task and then time."""
    codes = np.concatenate([query.codes.numpy(), support.codes.numpy()])
    time = np.concatenate([query.time.numpy(), support.time.numpy()])
    in_support = np.arange(len(codes)) >= query.n_rows
    order = np.lexsort((in_support, time, codes))  # at ties, query rows come first
    before = np.empty(len(codes), dtype=np.int64)
    before[order] = np.cumsum(in_support[order])
    return before[: query.n_rows]


def history_design(support: TaskRows, history: Array, query: TaskRows) -> Array:
    """The query row's features, outcome history (task, 5), elapsed time and measured values."""
    return np.column_stack(
        [
            query.x.double().numpy(),
            history[query.codes.numpy()],
            time_since_support(support, query),
            carried_forward(support, query),
        ]
    )


def draw_episodes(
    rows: TaskRows, shots: tuple[int, int], max_queries: int, rng: np.random.Generator
) -> tuple[TaskRows, TaskRows]:
    """Split every task into a support of random size and at most `max_queries` later rows."""
    if not rows.timed:
        rows = rows.take(torch.from_numpy(rng.permutation(rows.n_rows)))
    codes, sizes = rows.codes.numpy(), rows.sizes.numpy()
    k = np.minimum(rng.integers(shots[0], shots[1] + 1, rows.n_tasks), sizes - 1)
    position = np.arange(rows.n_rows) - rows.starts.numpy()[codes]
    support = rows.take(torch.from_numpy(np.flatnonzero(position < k[codes])))
    later = position >= k[codes]
    if rows.timed:
        later &= ~(time_since_support(support, rows) <= 0)
    candidates = rng.permutation(np.flatnonzero(later))
    candidates = candidates[np.argsort(codes[candidates], kind="stable")]
    first = np.searchsorted(codes[candidates], codes[candidates])
    chosen = np.sort(candidates[np.arange(len(candidates)) - first < max_queries])
    return support, rows.take(torch.from_numpy(chosen))


@dataclass(eq=False, repr=False, kw_only=True)
class HistoryBoosting(BoostedRegressor):
    """Gradient boosting on the row's features and on summaries of the support.

    The summaries are count, mean, spread, last value and slope of the support's outcomes, the time
    since its last row, and the last value and age of every measured feature. Training supports have
    random sizes, so the model learns how far to rely on the summaries.

    Parameters
    ----------
    shots : tuple of int
        Smallest and largest support size drawn in training.
    n_draws : int
        Number of supports drawn per training task.
    max_queries : int
        Largest number of query rows per support.
    random_state : int, optional
        Seed of the draws and of the held-out tasks.
    max_iter, learning_rate, max_leaf_nodes and others
        As in `PopulationBoosting`, which has the same attributes.

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

    shots: tuple[int, int] = (0, 10)
    n_draws: int = 8
    max_queries: int = 10

    poor_score: ClassVar[bool] = True  # without groups, the history is too short

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        seed = self._seed()
        rng = np.random.default_rng(seed)
        parts = []
        for _ in range(self.n_draws):
            support, query = draw_episodes(rows, self.shots, self.max_queries, rng)
            design = history_design(support, outcome_history(support), query)
            parts.append((design, query.y.double().numpy(), query.codes.numpy()))
        x, y, tasks = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        leaf = 10 * self.n_draws  # rows of a task occur in every draw
        trees = self._boost(x, y, tasks, rows.n_tasks, seed=seed, min_samples_leaf=leaf)
        return _HistoryModel(**vars(reader), trees=trees)


@dataclass(frozen=True, kw_only=True, eq=False)
class _HistoryModel(BoostingModel):
    def adapt(self, support: TaskRows) -> Array:
        return outcome_history(support)

    def predict(self, support: TaskRows, state: Array, query: TaskRows) -> Predictive:
        return self._predicted(history_design(support, state, query))
