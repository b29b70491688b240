"""Suite ``treatment``: effects in simulations and at new sites, policies in trials, doses.

Zero and a constant effect are always included, as many published effect models are worse than zero
(arXiv:2410.07021).
"""

from collections.abc import Iterator, Sequence

from benchmarks.suite.cells import Cell, Run
from benchmarks.suite.command import CACHE, WORKERS, only, suite
from benchmarks.suite.peers import installed
from benchmarks.suite.record import Record, target_table
from benchmarks.treatment.dosing import dosing_table, run_dosing
from benchmarks.treatment.methods import METHODS, OURS
from benchmarks.treatment.n_of_1 import n_of_1_table, run_n_of_1
from benchmarks.treatment.simulated import BAYES, measure_acic, measure_sites
from benchmarks.treatment.table import treatment_tables, treatment_targets
from benchmarks.treatment.trials import SURVIVAL_TRIALS, TRIALS, measure_survival, measure_trial

PARTS = ("acic2016", "sites", "trials", "survival")
KNOBS = tuple((h, c) for h in (0.0, 1.0) for c in (0.0, 1.0, 2.0))
SHOTS = (0, 5, 20, 100)


@suite(
    CACHE,
    WORKERS,
    only("--part", "parts", [*PARTS, "dosing", "n-of-1"], "part"),
    only("--method", "methods", METHODS, "method of effects"),
)
def treatment(run: Run, parts: Sequence[str], methods: Sequence[str]) -> list[Record]:
    """Compare estimators of treatment effects: simulations, new sites, trials, doses, N-of-1.

    Peers are zero and constant effects, the S-, T-, X-, DR- and R-learner with ridge and boosting,
    EconML's causal forest if installed, pharmacometric MAP for doses, and regressions for N-of-1
    trials with carry-over. The last table compares the figures with their targets. --quick runs a
    small case of each part.

    \b
    Example:
        python -m benchmarks treatment --part sites --cache runs
    """
    parts = parts or (*PARTS, "dosing", "n-of-1")
    effects = run.records(list(_cells(run, parts, methods)))
    doses = run_dosing(run) if "dosing" in parts else []
    periods = run_n_of_1(run) if "n-of-1" in parts else []
    records = effects + doses + periods
    run.show(treatment_tables(effects), dosing_table(doses), n_of_1_table(periods))
    run.show(target_table(treatment_targets(records), OURS))
    return records


def _cells(run: Run, parts: Sequence[str], methods: Sequence[str]) -> Iterator[Cell]:
    """Cells of every method and case; only ours on the survival trials."""
    chosen = parts if set(parts) & set(PARTS) else ()
    names = [m for m in methods or METHODS if chosen and installed(METHODS[m].package, m, run.echo)]
    if "acic2016" in parts:
        n_folds = 1 if run.quick else 5
        for i in range(1, 2 if run.quick else 11):
            for name in names:
                yield Cell(f"treatment acic2016 {i}: {name}", measure_acic, (i, name, n_folds))
    if "sites" in parts:
        n_repeats, knobs = (1, KNOBS[1::3]) if run.quick else (4, KNOBS)
        for h, c in knobs:
            for name in [BAYES, *names]:
                args = (name, h, c, SHOTS, n_repeats)
                yield Cell(f"treatment sites {h:g} {c:g}: {name}", measure_sites, args)
    if "trials" in parts:
        trials = [t for t in TRIALS if installed(TRIALS[t].package, t, run.echo)]
        for trial in trials[:1] if run.quick else trials:
            for name in names:
                yield Cell(f"treatment {trial}: {name}", measure_trial, (trial, name))
    if "survival" in parts and OURS in names:
        for name in SURVIVAL_TRIALS:
            yield Cell(f"treatment {name}", measure_survival, (name,))
