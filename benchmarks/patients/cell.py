"""One cell of the patients benchmark: one method on one fold of one data set."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from benchmarks.patients.data import load
from benchmarks.patients.methods import METHODS, Method
from benchmarks.suite.score_files import Fitted, code_digest, kept
from benchmarks.suite.task_scores import Scores, metric, score_split
from ehrmeta.data import Table, first_k
from ehrmeta.errors import DataWarning, DivergenceError

__all__ = ["FULL", "QUICK", "Plan", "forecast", "run_cell", "shots_of"]

SHOTS = (0, 1, 2, 3, 5, 10)
_FEWEST_TASKS = 10  # with queries, for a k to be in the table
_FEW_TASKS = 100


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Parameters
    ----------
    n_folds, folds_run : int
        Folds of the split, and how many of them are run.
    max_tasks : int, optional
        Patients of a data set, drawn at random.
    max_steps : int, optional
        Of the learners' training; their default without it.
    tuned : bool
        Whether peers choose from their grids; else they take its first setting.
    steps_of_few : int
        Training steps where there are fewer than 100 patients.
    tuning_tasks, tuning_steps : int
        Patients, and training steps, at most of a trial.
    seed : int
    """

    n_folds: int = 5
    folds_run: int = 5
    max_tasks: int | None = None
    max_steps: int | None = None
    tuned: bool = True
    steps_of_few: int = 300
    tuning_tasks: int = 1500
    tuning_steps: int = 150
    seed: int = 0


FULL = Plan()
QUICK = Plan(folds_run=1, max_tasks=400, max_steps=60, tuned=False)


def run_cell(data_set: str, method: str, fold: int, plan: Plan, folder: Path | None) -> Fitted:
    """Measure a cell, or read it where the folder has it under these settings and this code."""
    # repr of the model holds every parameter that is not at its default
    settings = [data_set, repr(METHODS[method]), fold, asdict(plan), SHOTS, _code()]
    name = f"patients {data_set} {method} {fold}"
    return kept(folder, name, settings, lambda: _measure(data_set, METHODS[method], fold, plan))


@cache
def _code() -> str:
    """As it is when the first cell is asked for."""
    return code_digest("patients/[cdmp]*.py")


def shots_of(table: Table) -> tuple[int, ...]:
    """Support sizes after which enough patients have another row."""
    return tuple(k for k in SHOTS if int(np.sum(table.tasks.sizes > k)) >= _FEWEST_TASKS)


def forecast(model: Any, table: Table, k: int) -> Scores | None:
    """Adapt to the first k rows of every task and score its later ones; None without any."""
    support, query = first_k(table.tasks, k, time=table.time, outcome_time=table.outcome_time)
    return score_split(model, table, support, query) if query.any() else None


def _measure(data_set: str, method: Method, fold: int, plan: Plan) -> Fitted:
    table = _some(load(data_set), plan.max_tasks, plan.seed)
    shots = shots_of(table)
    train, test = list(table.kfold(plan.n_folds, random_state=plan.seed))[fold]
    train = _some(train, method.max_tasks, fold)
    steps = plan.max_steps
    if steps is None and train.n_tasks < _FEW_TASKS:
        steps = plan.steps_of_few
    started = time.perf_counter()
    setting = _choose(method, train, shots, fold, plan)
    chosen = time.perf_counter()
    try:
        model = _fit(method, setting, train, fold, steps)
    except DivergenceError:
        return Fitted({}, note="diverged")
    fitted = time.perf_counter()
    scores = {k: found for k in shots if (found := forecast(model, test, k)) is not None}
    words = ", ".join(f"{name}={value}" for name, value in setting.items())
    return Fitted(scores, fitted - chosen, chosen - started, words)


def _choose(
    method: Method, train: Table, shots: Sequence[int], fold: int, plan: Plan
) -> Mapping[str, Any]:
    """The setting with the least error, as a geometric mean over k, on a quarter of `train`."""
    if len(method.grid) == 1 or not plan.tuned:
        return method.grid[0]
    inner, judged = _some(train, plan.tuning_tasks, fold).split(0.25, random_state=fold)
    losses = []
    for setting in method.grid:
        try:
            model = _fit(method, setting, inner, fold, plan.tuning_steps)
        except DivergenceError:
            losses.append(np.inf)
            continue
        found = [forecast(model, judged, k) for k in shots]
        errors = [metric(scores, "rmse_macro").value() for scores in found if scores is not None]
        losses.append(float(np.mean(np.log(errors))))
    return method.grid[int(np.argmin(losses))]


def _fit(
    method: Method, setting: Mapping[str, Any], train: Table, seed: int, max_steps: int | None
) -> Any:
    model = clone(method.model)
    known = model.get_params()
    if "random_state" in known:
        model.set_params(random_state=seed)
    if "max_steps" in known and max_steps is not None:
        model.set_params(max_steps=max_steps)
    model.set_params(**setting)
    with warnings.catch_warnings():  # that some models cannot be saved matters to nobody here
        warnings.simplefilter("ignore", DataWarning)
        return model.fit(train.X, train.y, groups=train.groups, time=train.time)


def _some(table: Table, max_tasks: int | None, seed: int) -> Table:
    if max_tasks is None or table.n_tasks <= max_tasks:
        return table
    chosen = np.zeros(table.n_tasks, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(table.n_tasks)[:max_tasks]] = True
    return table.take(chosen[table.tasks.codes])
