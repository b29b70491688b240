"""A table and a model so small that a trial takes milliseconds."""

from typing import Any

import numpy as np
import optuna

from ehrmeta import tune
from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import DivergenceError
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows
from ehrmeta.tuning.objective import Rows

SPACE: dict[str, Any] = {"penalty": (0.01, 100.0, "log")}


def lines(n_tasks: int = 40, n_rows: int = 8) -> dict[str, Any]:
    """Every patient's own line, with noise: X, y, groups."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_tasks * n_rows, 1))
    groups = np.repeat(np.arange(n_tasks), n_rows)
    level, slope = rng.normal(size=(2, n_tasks))
    y = level[groups] + slope[groups] * X[:, 0] + 0.5 * rng.normal(size=len(X))
    return {"X": X, "y": y, "groups": groups}


def rows_of(data: dict[str, Any]) -> Rows:
    """The rows of `lines`, whose tasks are numbered in order."""
    return Rows(**data, time=None, tasks=data["groups"])


def ridge(**settings: Any) -> TaskRidge:
    """Fits at once, and its penalty matters."""
    return TaskRidge(score_shots=(3,), **settings)


class Fragile(TaskRidge):
    """Training diverges under a small penalty; counts the fits of all copies."""

    fits = 0

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        Fragile.fits += 1
        if self.penalty < 1:
            raise DivergenceError("the loss is not finite at step 7. Lower inner_lr.")
        return super()._fit_tasks(rows, reader)


def search(**settings: Any) -> Any:
    given = {"n_trials": 4, "space": SPACE, "cv": 3, **lines(), **settings}
    estimator = given.pop("estimator", ridge())
    return tune(estimator, given.pop("X"), given.pop("y"), **given)


def drawn(study: optuna.Study) -> list[tuple[dict[str, Any], list[float] | None]]:
    return [(trial.params, trial.values) for trial in study.trials]
