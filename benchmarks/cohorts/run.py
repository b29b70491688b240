"""Risk and dose at new hospitals: the learners beside what hospitals do with pooled models.

Folds of sites; the support is k patients of a held-out site, the query its others. All methods are
scored on the same patients, and ratios are paired by patient.
"""

from collections.abc import Sequence

from benchmarks.cohorts import table
from benchmarks.cohorts.cells import (
    COHORT_METHODS,
    FULL,
    OURS,
    QUICK,
    CohortPlan,
    folds_of,
    measure_sites,
    methods_of,
)
from benchmarks.cohorts.data import COHORT_DATA
from benchmarks.suite.cells import Run
from benchmarks.suite.command import CACHE, WORKERS, only, suite
from benchmarks.suite.fitting import joined_folds, measure_folds
from benchmarks.suite.peers import installed
from benchmarks.suite.record import Record, target_table


@suite(
    CACHE,
    WORKERS,
    only("--data-set", "data_sets", COHORT_DATA, "data set"),
    only("--method", "methods", COHORT_METHODS["risk"] | COHORT_METHODS["dose"], "method"),
)
def cohorts(run: Run, data_sets: Sequence[str], methods: Sequence[str]) -> list[Record]:
    """Predict risk and dose at new hospitals, from none to 100 of their patients.

    Folds of sites, at most five; beside pooled models, what hospitals do to update them, the
    mixed-effects logistic, and dosing equations. --quick runs one fold and one draw of supports.

    \b
    Example:
        python -m benchmarks cohorts --data-set heart --quick
    """
    results = run_cohorts(run, QUICK if run.quick else FULL, data_sets, methods)
    run.show(*table.cohorts_tables(results), table.cohorts_verdict(results))
    run.show(target_table(table.cohorts_targets(results), OURS))
    return table.cohorts_records(results)


def run_cohorts(
    run: Run, plan: CohortPlan, data_sets: Sequence[str] = (), methods: Sequence[str] = ()
) -> table.Results:
    """Every method on every data set, or those named: ``results[data_set][method]``."""
    chosen = {
        d: [m for m in methods_of(d) if not methods or m in methods]
        for d in data_sets or COHORT_DATA
        if installed(COHORT_DATA[d].package, d, run.say)
    }
    n_folds = {d: folds_of(d, plan) for d in chosen}
    cells = measure_folds(run, measure_sites, chosen, n_folds, plan)
    return {d: {m: joined_folds(f) for m, f in by.items()} for d, by in cells.items() if by}
