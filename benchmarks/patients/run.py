"""Forecasting real patients: the learners beside mixed models and boosting, k by k.

Five folds by patient; the support is the first k rows of a patient, the query all later ones. All
methods are judged on the same patients, and differences are paired by patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.patients.cell import FULL, QUICK, Plan, run_cell
from benchmarks.patients.data import DATA_SETS
from benchmarks.patients.methods import METHODS
from benchmarks.suite.cells import finished
from benchmarks.suite.score_files import Fitted
from benchmarks.suite.task_scores import Scores, joined

__all__ = ["Result", "run_patients"]

Key = tuple[str, str, int]  # data set, method, fold


@dataclass(frozen=True, eq=False)
class Result:
    """A method on all folds of a data set.

    Parameters
    ----------
    scores : dict of int to Scores
        By k, over the test patients of all folds in turn: every method's in the same order.
    seconds, tuning_seconds : float
        Mean over folds, of the fit and of choosing settings.
    settings : tuple of str
        Chosen in each fold.
    note : str
        Why there are no scores.
    """

    scores: dict[int, Scores]
    seconds: float
    tuning_seconds: float
    settings: tuple[str, ...]
    note: str = ""


def run_patients(
    say: Callable[[str], object] = lambda line: None,
    *,
    quick: bool = False,
    folder: Path | None = None,
    data_sets: Sequence[str] = (),
    methods: Sequence[str] = (),
    workers: int = 1,
    plan: Plan | None = None,
) -> dict[str, dict[str, Result]]:
    """Run every method on every data set.

    Parameters
    ----------
    say : callable
        Told about every method that finishes a data set, and about what is left out.
    quick : bool
        `QUICK` in place of `FULL`.
    folder : Path, optional
        Where finished cells are kept.
    data_sets, methods : sequence of str
        Names; all without any.
    workers : int
        Processes of one thread each; with 1 this process works, on its threads.
    plan : Plan, optional
        How much is run, in place of both.

    Returns
    -------
    dict
        ``results[data_set][method]``.
    """
    plan = plan or (QUICK if quick else FULL)
    chosen = [name for name in data_sets or DATA_SETS if _found(DATA_SETS[name].package, name, say)]
    names = [name for name in methods or METHODS if _found(METHODS[name].package, name, say)]
    keys = [(d, m, fold) for d in chosen for m in names for fold in range(plan.folds_run)]
    done: dict[Key, Fitted] = {}
    results: dict[str, dict[str, Result]] = {d: {} for d in chosen}
    calls = [(*key, plan, folder) for key in keys]
    for at, found in finished(run_cell, calls, workers):
        done[keys[at]] = found
        data_set, method, _ = keys[at]
        folds = [done.get((data_set, method, fold)) for fold in range(plan.folds_run)]
        complete = [fold for fold in folds if fold is not None]
        if len(complete) == plan.folds_run:
            result = _result(complete)
            results[data_set][method] = result
            count = sum(map(len, results.values()))
            took = f"fit {result.seconds:.1f} s, settings {result.tuning_seconds:.1f} s a fold"
            say(f"[{count}/{len(chosen) * len(names)}] {data_set}: {method}: {result.note or took}")
    return {d: {m: results[d][m] for m in names} for d in chosen}


def _result(folds: Sequence[Fitted]) -> Result:
    note = next((fold.note for fold in folds if fold.note), "")
    shots = sorted({k for fold in folds for k in fold.scores}) if not note else []
    return Result(
        {k: joined([fold.scores[k] for fold in folds if k in fold.scores]) for k in shots},
        sum(fold.seconds for fold in folds) / len(folds),
        sum(fold.tuning_seconds for fold in folds) / len(folds),
        tuple(fold.setting for fold in folds),
        note,
    )


def _found(package: str, name: str, say: Callable[[str], object]) -> bool:
    if not package or find_spec(package) is not None:
        return True
    say(f"{name} left out: {package} is not installed (pip install 'ehrmeta[bench]')")
    return False
