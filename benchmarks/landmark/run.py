"""Risk of events after a landmark: a forecaster's posterior beside last values and mixed models.

Five folds by patient, matched sets together. All methods are judged on the same patients, with
weights for censoring and with death as a competing event; differences are paired by patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.landmark.cell import FULL, QUICK, Plan, run_cell, test_rows
from benchmarks.landmark.data import COHORTS, HORIZONS, load_cohort
from benchmarks.landmark.methods import METHODS
from benchmarks.suite.cells import finished
from benchmarks.suite.score_files import Fitted
from benchmarks.suite.text_table import number

__all__ = ["EventRisks", "run_landmark"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EventRisks:
    """What every method says of one event in one cohort.

    Parameters
    ----------
    cohort, event : str
    outcome : structured array, (patient,)
        Of the test patients of all folds in turn, times in years.
    fold : ndarray of int, (patient,)
    risks : dict
        ``risks[method][years]``, (patient,).
    seconds : dict of str to float
        Of every method, mean over folds, over all events.
    """

    cohort: str
    event: str
    outcome: NDArray[np.void]
    fold: NDArray[np.int64]
    risks: dict[str, dict[int, Array]]
    seconds: dict[str, float]


def run_landmark(
    say: Callable[[str], object] = lambda line: None,
    *,
    quick: bool = False,
    folder: Path | None = None,
    cohorts: Sequence[str] = (),
    methods: Sequence[str] = (),
    workers: int = 1,
    plan: Plan | None = None,
) -> list[EventRisks]:
    """Run every method on every cohort.

    Parameters
    ----------
    say : callable
        Told about every fold of a method that finishes.
    quick : bool
        `QUICK` in place of `FULL`.
    folder : Path, optional
        Where finished cells are kept.
    cohorts, methods : sequence of str
        Names; all without any.
    workers : int
        Processes of one thread each; with 1 this process works, on its threads.
    plan : Plan, optional
        How much is run, in place of both.
    """
    plan = plan or (QUICK if quick else FULL)
    names = list(methods or METHODS)
    keys = [
        (cohort, method, fold)
        for cohort in cohorts or COHORTS
        for method in names
        for fold in range(plan.folds_run)
    ]
    done: dict[tuple[str, str, int], Fitted] = {}
    for at, found in finished(run_cell, [(*key, plan, folder) for key in keys], workers):
        cohort, method, fold = keys[at]
        done[keys[at]] = found
        say(
            f"[{len(done)}/{len(keys)}] {cohort}: {method}, fold {fold + 1}: "
            f"{number(found.seconds)} s"
        )
    return [
        _joined(cohort, event, names, done, plan)
        for cohort in cohorts or COHORTS
        for event in load_cohort(cohort).labels
    ]


def _joined(
    cohort: str,
    event: str,
    methods: Sequence[str],
    done: dict[tuple[str, str, int], Fitted],
    plan: Plan,
) -> EventRisks:
    """One event over all folds."""
    folds = range(plan.folds_run)
    outcome = load_cohort(cohort).outcome(event)
    tested = [test_rows(load_cohort(cohort), event, fold, plan) for fold in folds]
    return EventRisks(
        cohort,
        event,
        np.concatenate([outcome[mask] for mask in tested]),
        np.repeat(folds, [int(mask.sum()) for mask in tested]),
        {
            method: {
                years: np.concatenate(
                    [done[cohort, method, fold].scores[years][event] for fold in folds]
                )
                for years in HORIZONS
            }
            for method in methods
        },
        {
            method: sum(done[cohort, method, fold].seconds for fold in folds) / len(folds)
            for method in methods
        },
    )
