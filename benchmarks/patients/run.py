"""Suite ``patients``: forecasts of real patients by meta-learning, mixed models and boosting."""

from collections.abc import Sequence

from benchmarks.patients import table
from benchmarks.patients.cells import FULL, METHODS, QUICK, TunedPlan, measure_forecasts
from benchmarks.patients.data import DATA_SETS
from benchmarks.suite.cells import Run
from benchmarks.suite.command import CACHE, WORKERS, only, suite
from benchmarks.suite.fitting import joined_folds, measure_folds
from benchmarks.suite.peers import installed
from benchmarks.suite.record import Record


@suite(
    CACHE,
    WORKERS,
    only("--data-set", "data_sets", DATA_SETS, "data set"),
    only("--method", "methods", METHODS, "method"),
)
def patients(run: Run, data_sets: Sequence[str], methods: Sequence[str]) -> list[Record]:
    """Forecast real patients: meta-learning beside mixed models and boosting.

    Five folds by patient; models adapt to the first 0 to 10 rows of a patient and predict the later
    ones. All methods are scored on the same patients, with paired differences. Peers choose their
    settings on training patients, ours run with default settings. --quick runs one fold of a few
    patients, with short training and without choosing settings.

    \b
    Example:
        python -m benchmarks patients --data-set pbcseq-bilirubin --cache runs
    """
    plan = QUICK if run.quick else FULL
    results = run_patients(run, plan, data_sets, methods)
    run.show(
        table.patients_notes(plan), *table.patients_tables(results), table.patients_summary(results)
    )
    return table.patients_records(results)


def run_patients(
    run: Run, plan: TunedPlan, data_sets: Sequence[str] = (), methods: Sequence[str] = ()
) -> table.Results:
    """Folds of all or the named methods and data sets: ``results[data_set][method]``."""
    data_sets = [d for d in data_sets or DATA_SETS if installed(DATA_SETS[d].package, d, run.echo)]
    methods = [m for m in methods or METHODS if installed(METHODS[m].package, m, run.echo)]
    n_folds = dict.fromkeys(data_sets, plan.folds_run)
    cells = measure_folds(run, measure_forecasts, dict.fromkeys(data_sets, methods), n_folds, plan)
    return {d: {m: joined_folds(folds) for m, folds in by.items()} for d, by in cells.items()}
