"""Risk of events after a landmark: a forecaster's posterior beside last values and mixed models.

Five folds by patient, matched sets together. All methods are scored on the same patients, with
weights for censoring and with death as a competing event; differences are paired by patient.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.landmark.cells import FULL, METHODS, QUICK, held_out_rows, measure_risks
from benchmarks.landmark.data import COHORTS, HORIZONS, load_cohort
from benchmarks.landmark.table import (
    EventRisks,
    cells_of,
    landmark_notes,
    landmark_records,
    landmark_summary,
    landmark_tables,
)
from benchmarks.suite.cells import Cell, Fitted, Run
from benchmarks.suite.command import CACHE, WORKERS, only, suite
from benchmarks.suite.fitting import Plan
from benchmarks.suite.record import Record


@suite(
    CACHE,
    WORKERS,
    only("--cohort", "cohorts", COHORTS, "cohort"),
    only("--method", "methods", METHODS, "method"),
)
def landmark(run: Run, cohorts: Sequence[str], methods: Sequence[str]) -> list[Record]:
    """Predict events after a patient's first visits: diabetes, heart attack, stroke, death.

    The adapted forecaster's posterior of the values before the landmark in a hazard model, beside
    Cox, logistic and boosted models on last values and on a mixed model's BLUP; death competes.
    --quick runs one fold, with short training on few patients.

    \b
    Example:
        python -m benchmarks landmark --cohort pbcseq --quick
    """
    plan = QUICK if run.quick else FULL
    cells = cells_of(run_landmark(run, plan, cohorts, methods))
    for text in (landmark_notes(plan), *landmark_tables(cells), landmark_summary(cells)):
        run.show(text)
    return landmark_records(cells)


def run_landmark(
    run: Run, plan: Plan, cohorts: Sequence[str] = (), methods: Sequence[str] = ()
) -> list[EventRisks]:
    """Every method on every event of every cohort, or of those named."""
    folds = range(plan.folds_run)
    keys = [(c, m, fold) for c in cohorts or COHORTS for m in methods or METHODS for fold in folds]
    cells = [
        Cell(f"landmark {c}: {m}, fold {fold}", measure_risks, (c, m, fold, plan))
        for c, m, fold in keys
    ]
    fitted = dict(zip(keys, run.results(cells), strict=True))
    return [
        _joined(
            name, event, {m: [fitted[name, m, f] for f in folds] for m in methods or METHODS}, plan
        )
        for name in cohorts or COHORTS
        for event in load_cohort(name).labels
    ]


def _joined(
    name: str, event: str, fitted: Mapping[str, Sequence[Fitted]], plan: Plan
) -> EventRisks:
    """One event over all folds."""
    cohort, folds = load_cohort(name), range(plan.folds_run)
    tested = [held_out_rows(cohort, event, fold, plan) for fold in folds]
    outcome = cohort.outcome(event)
    risks = {
        method: {
            years: np.concatenate([f.scores[years][event] for f in parts]) for years in HORIZONS
        }
        for method, parts in fitted.items()
    }
    return EventRisks(
        name,
        event,
        np.concatenate([outcome[mask] for mask in tested]),
        np.repeat(folds, [int(mask.sum()) for mask in tested]),
        risks,
        {method: sum(f.seconds for f in parts) / len(parts) for method, parts in fitted.items()},
    )
