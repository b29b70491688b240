"""Risk and dose at new hospitals: the learners beside what hospitals do with pooled models.

Folds of sites; the support is k patients of a held-out site, the query its others. All methods are
judged on the same patients, and ratios are paired by patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cohorts.cell import (
    FULL,
    QUICK,
    CohortPlan,
    folds_of,
    methods_of,
    run_cohort_cell,
)
from benchmarks.cohorts.data import COHORT_DATA
from benchmarks.suite.cells import finished
from benchmarks.suite.score_files import Fitted
from benchmarks.suite.task_scores import Scores, joined

__all__ = ["CohortResult", "run_cohorts"]


@dataclass(frozen=True, eq=False)
class CohortResult:
    """A method on all folds of a data set.

    Parameters
    ----------
    predictions : dict of int to Scores
        By k: row, site, y and predicted, in the same order for every method.
    seconds : float
        Mean over folds, of the fit.
    """

    predictions: dict[int, Scores]
    seconds: float


def run_cohorts(
    say: Callable[[str], object] = lambda line: None,
    *,
    quick: bool = False,
    folder: Path | None = None,
    data_sets: Sequence[str] = (),
    methods: Sequence[str] = (),
    workers: int = 1,
    plan: CohortPlan | None = None,
) -> dict[str, dict[str, CohortResult]]:
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
    plan : CohortPlan, optional
        How much is run, in place of both.

    Returns
    -------
    dict
        ``results[data_set][method]``.
    """
    plan = plan or (QUICK if quick else FULL)
    keys = []
    for name in data_sets or COHORT_DATA:
        package = COHORT_DATA[name].package
        if package and find_spec(package) is None:
            say(f"{name} left out: {package} is not installed (pip install 'ehrmeta[bench]')")
            continue
        chosen = [m for m in methods_of(name) if not methods or m in methods]
        keys += [(name, m, fold) for m in chosen for fold in range(folds_of(name, plan))]
    calls = [(*key, plan, folder) for key in keys]
    done: dict[tuple[str, str, int], Fitted] = {}
    results: dict[str, dict[str, CohortResult]] = {}
    for at, found in finished(run_cohort_cell, calls, workers):
        done[keys[at]] = found
        name, method, _ = keys[at]
        folds = [done.get((name, method, fold)) for fold in range(folds_of(name, plan))]
        complete = [fold for fold in folds if fold is not None]
        if len(complete) == len(folds):
            results.setdefault(name, {})[method] = _result(complete)
            say(f"{name}: {method}: fit {results[name][method].seconds:.1f} s a fold")
    return {d: {m: found[m] for m in methods_of(d) if m in found} for d, found in results.items()}


def _result(folds: Sequence[Fitted]) -> CohortResult:
    shots = sorted({k for fold in folds for k in fold.scores})
    predictions = {k: joined([fold.scores[k] for fold in folds if k in fold.scores]) for k in shots}
    return CohortResult(predictions, sum(fold.seconds for fold in folds) / len(folds))
