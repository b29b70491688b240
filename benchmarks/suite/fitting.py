"""Fitting of models in a suite: plans, folds, seeds, short trainings and subsamples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from benchmarks.suite.cells import Cell, Fitted, Run
from benchmarks.suite.task_scores import Scores, joined
from ehrmeta.data import Table


@dataclass(frozen=True)
class Plan:
    """Size of a run of a suite.

    Parameters
    ----------
    n_folds, folds_run : int
        Folds of the split (at most one per site), and how many of them are run.
    max_tasks : int, optional
        Maximum number of patients, drawn at random.
    max_steps : int, optional
        Training steps of the learners; by default their own.
    seed : int
    """

    n_folds: int = 5
    folds_run: int = 5
    max_tasks: int | None = None
    max_steps: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Folds:
    """Scores of a method on all folds of a data set.

    Parameters
    ----------
    scores : dict of int to Scores
        By k, over the test patients of all folds, in the same order for every method.
    seconds, tuning_seconds : float
        As in `Fitted`, mean over folds.
    settings : tuple of str
        Chosen in each fold.
    note : str
        Why there are no scores.
    """

    scores: dict[int, Scores]
    seconds: float
    tuning_seconds: float = 0.0
    settings: tuple[str, ...] = ()
    note: str = ""


def measure_folds(
    run: Run,
    measure: Callable[[str, str, int, Any], Fitted],
    methods: Mapping[str, Sequence[str]],
    n_folds: Mapping[str, int],
    plan: Plan,
) -> dict[str, dict[str, list[Fitted]]]:
    """Results ``measure(data_set, method, fold, plan)`` by data set, method and fold.

    `methods` and `n_folds` are given by data set.
    """
    keys = [(d, m, f) for d, names in methods.items() for m in names for f in range(n_folds[d])]
    cells = [Cell(f"{d}: {m}, fold {f}", measure, (d, m, f, plan)) for d, m, f in keys]
    fitted = dict(zip(keys, run.results(cells), strict=True))
    return {
        d: {m: [fitted[d, m, f] for f in range(n_folds[d])] for m in names}
        for d, names in methods.items()
    }


def joined_folds(folds: Sequence[Fitted]) -> Folds:
    """Concatenate the folds of a method; no scores if a fold has none."""
    note = next((fold.note for fold in folds if fold.note), "")
    shots = sorted({k for fold in folds for k in fold.scores}) if not note else []
    return Folds(
        {k: joined([fold.scores[k] for fold in folds if k in fold.scores]) for k in shots},
        sum(fold.seconds for fold in folds) / len(folds),
        sum(fold.tuning_seconds for fold in folds) / len(folds),
        tuple(fold.setting for fold in folds),
        note,
    )


def prepared(model: Any, seed: int | None = None, max_steps: int | None = None) -> Any:
    """Copy of a model with a seed and a number of training steps, if it has these parameters."""
    copy = clone(model)
    for name, value in {"random_state": seed, "max_steps": max_steps}.items():
        if value is not None and name in copy.get_params():
            copy.set_params(**{name: value})
    return copy


def subsample(table: Table, max_tasks: int | None, seed: int) -> Table:
    """At most `max_tasks` tasks, drawn at random."""
    if max_tasks is None or table.n_tasks <= max_tasks:
        return table
    chosen = np.zeros(table.n_tasks, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(table.n_tasks)[:max_tasks]] = True
    return table.take(chosen[table.tasks.codes])
