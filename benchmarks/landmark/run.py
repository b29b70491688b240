"""Suite ``landmark``: risk of events after a landmark, from summaries of earlier lab values."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.landmark import table
from benchmarks.landmark.cells import FULL, METHODS, QUICK, held_out_rows, measure_risks
from benchmarks.landmark.data import COHORTS, HORIZONS, load_cohort
from benchmarks.suite.cells import Fitted, Run
from benchmarks.suite.command import CACHE, WORKERS, only, suite
from benchmarks.suite.fitting import Plan, measure_folds
from benchmarks.suite.record import Record


@suite(
    CACHE,
    WORKERS,
    only("--cohort", "cohorts", COHORTS, "cohort"),
    only("--method", "methods", METHODS, "method"),
)
def landmark(run: Run, cohorts: Sequence[str], methods: Sequence[str]) -> list[Record]:
    """Predict events after a patient's first visits: diabetes, heart attack, stroke, death.

    A hazard model on the posterior of the adapted forecaster, beside Cox, logistic and boosted
    models on last values and on the BLUP of a mixed model. Five folds by patient, with matched sets
    together; scores are weighted for censoring, death is a competing event, and differences are
    paired by patient. --quick runs one fold, with short training on few patients.

    \b
    Example:
        python -m benchmarks landmark --cohort pbcseq --quick
    """
    plan = QUICK if run.quick else FULL
    cells = table.cells_of(run_landmark(run, plan, cohorts, methods))
    run.show(
        table.landmark_notes(plan), *table.landmark_tables(cells), table.landmark_summary(cells)
    )
    return table.landmark_records(cells)


def run_landmark(
    run: Run, plan: Plan, cohorts: Sequence[str] = (), methods: Sequence[str] = ()
) -> list[table.EventRisks]:
    """Risks of all or the named methods and cohorts, by event."""
    chosen = dict.fromkeys(cohorts or COHORTS, tuple(methods or METHODS))
    n_folds = dict.fromkeys(chosen, plan.folds_run)
    cells = measure_folds(run, measure_risks, chosen, n_folds, plan)
    return [
        _joined(name, event, fitted, plan)
        for name, fitted in cells.items()
        for event in load_cohort(name).labels
    ]


def _joined(
    name: str, event: str, fitted: Mapping[str, Sequence[Fitted]], plan: Plan
) -> table.EventRisks:
    """Risks of one event over all folds."""
    cohort, folds = load_cohort(name), range(plan.folds_run)
    tested = [held_out_rows(cohort, event, fold, plan) for fold in folds]
    outcome = cohort.outcome(event)
    risks = {
        method: {
            years: np.concatenate([f.scores[years][event] for f in parts]) for years in HORIZONS
        }
        for method, parts in fitted.items()
    }
    return table.EventRisks(
        name,
        event,
        np.concatenate([outcome[mask] for mask in tested]),
        np.repeat(folds, [int(mask.sum()) for mask in tested]),
        risks,
        {method: sum(f.seconds for f in parts) / len(parts) for method, parts in fitted.items()},
    )
