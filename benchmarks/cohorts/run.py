"""Suite ``cohorts``: risk and dose at new hospitals, beside updates of pooled models."""

from collections.abc import Sequence

from benchmarks.cohorts import cells, table
from benchmarks.cohorts.cells import COHORT_METHODS, FULL, QUICK, CohortPlan
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
    """Predict risk and dose at new hospitals, adapting to 0 to 100 of their patients.

    At most five folds of sites; the support is k patients of a held-out site, the query its others.
    Peers are pooled models, their updates, mixed-effects logistic regression, and dosing equations.
    All are scored on the same patients, with paired ratios. --quick runs one fold and one draw of
    supports.

    \b
    Example:
        python -m benchmarks cohorts --data-set heart --quick
    """
    results = run_cohorts(run, QUICK if run.quick else FULL, data_sets, methods)
    run.show(*table.cohorts_tables(results), table.cohorts_verdict(results))
    run.show(target_table(table.cohorts_targets(results), cells.OURS))
    return table.cohorts_records(results)


def run_cohorts(
    run: Run, plan: CohortPlan, data_sets: Sequence[str] = (), methods: Sequence[str] = ()
) -> table.Results:
    """Folds of all or the named methods and data sets: ``results[data_set][method]``."""
    chosen = {
        d: [m for m in cells.methods_of(d) if not methods or m in methods]
        for d in data_sets or COHORT_DATA
        if installed(COHORT_DATA[d].package, d, run.echo)
    }
    n_folds = {d: cells.folds_of(d, plan) for d in chosen}
    fitted = measure_folds(run, cells.measure_sites, chosen, n_folds, plan)
    return {d: {m: joined_folds(f) for m, f in by.items()} for d, by in fitted.items() if by}
