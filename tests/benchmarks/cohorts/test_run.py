from __future__ import annotations

import numpy as np

from benchmarks.cohorts.cells import OURS, CohortPlan
from benchmarks.cohorts.run import run_cohorts
from benchmarks.cohorts.table import (
    cohorts_records,
    cohorts_tables,
    cohorts_targets,
    cohorts_verdict,
)
from benchmarks.suite.cells import Run
from benchmarks.suite.record import target_table

TINY = CohortPlan(n_folds=4, folds_run=1, max_draws=1)


def test_a_tiny_run_has_every_table(tmp_path):
    methods = [OURS, "pooled logistic", "mixed-effects logistic"]
    results = run_cohorts(Run(cache=tmp_path), TINY, ["heart"], methods)
    assert list(results["heart"]) == methods
    tables = list(cohorts_tables(results))
    assert all(method in table for method in methods for table in tables)
    assert "comparator" in cohorts_verdict(results)
    assert "no harm" in target_table(cohorts_targets(results), OURS)
    records = cohorts_records(results)
    assert {r.metric for r in records} >= {"log_loss", "auroc", "log_loss / pooled logistic"}
    again = run_cohorts(Run(cache=tmp_path), TINY, ["heart"], methods)
    for k, found in results["heart"][OURS].scores.items():
        for name, values in found.items():
            np.testing.assert_array_equal(again["heart"][OURS].scores[k][name], values)
