"""Gradient boosting with equal total weight for every task."""

from dataclasses import dataclass
from typing import Any

import numpy as np
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
