"""The tuning suite compares what it says."""

from benchmarks.suite.record import Record
from benchmarks.tuning import DEFAULTS, IN_FULL, PRUNED, TUNED, Plan, measure_final, tuning_table

SMALL = Plan(n_trials=2, folds=2, trial_tasks=60, trial_steps=2, final_steps=2, final_seeds=1)


def test_both_settings_are_scored_on_the_same_new_patients():
    tuned, defaults = TUNED, DEFAULTS
    records = {r.method: r for r in measure_final({"algorithm__inner_steps": 1}, SMALL, 0)}
    assert list(records) == [defaults, tuned]
    gap = records[tuned].value - records[defaults].value
    assert records[tuned].low - 0.01 <= gap <= records[tuned].high + 0.01
    assert records[defaults].low is None
    assert records[tuned].n_tasks == records[defaults].n_tasks > 1000


def test_the_table_shows_what_stopping_early_saves():
    cpu, error = {PRUNED: 25.0, IN_FULL: 100.0}, {PRUNED: 10.1, IN_FULL: 10.0}
    records = [
        Record("tuning", "nafld-hdl", method, metric, value, note=note)
        for method in (PRUNED, IN_FULL)
        for metric, value, note in (
            ("best_error", error[method], '{"lr": 0.1}'),
            ("cpu_seconds", cpu[method], ""),
            ("fits", 9.0, ""),
            ("given_up", 1.0, ""),
        )
    ]
    records.append(Record("tuning", "nafld-hdl", TUNED, "rmse_macro", 9.0, 3, -1.0, 1.0, 700))
    table = tuning_table(records)
    assert "saves 75 % of the CPU time and changes the best error by +1.00 %" in table
    assert 'tuned: {"lr": 0.1}' in table
