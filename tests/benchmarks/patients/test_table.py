from __future__ import annotations

import numpy as np
import pytest

from benchmarks.patients.cells import FULL, MIXED_MODEL, POPULATION, TunedPlan
from benchmarks.patients.run import run_patients
from benchmarks.patients.table import (
    DataSetScores,
    patients_notes,
    patients_records,
    patients_summary,
    patients_tables,
)
from benchmarks.suite.cells import Run
from benchmarks.suite.task_scores import METRICS
from ehrmeta.evaluation import paired_bootstrap

PLAN = TunedPlan(folds_run=2, max_tasks=150, max_steps=5, tuned=False)


CHEAP = ("deep mixed effects", MIXED_MODEL, "mixed + OU", "last value", POPULATION)


@pytest.fixture(scope="module")
def results():
    printed = []
    by_data_set = run_patients(Run(echo=printed.append), PLAN, ("pbcseq-albumin",), CHEAP)
    assert len(printed) == len(CHEAP) * PLAN.folds_run
    return by_data_set


def test_all_methods_are_scored_on_the_same_patients_and_differences_are_paired(results):
    scores = DataSetScores("pbcseq-albumin", results["pbcseq-albumin"])
    for k in scores.shots:
        rows = [folds.scores[k]["rows"] for folds in scores.results.values()]
        for other in rows[1:]:
            np.testing.assert_array_equal(rows[0], other)
    k = scores.shots[1]
    losses = [scores.results[name].scores[k]["squared"] for name in ("last value", MIXED_MODEL)]
    expected = paired_bootstrap(*losses, confidence_level=0.95)
    assert scores.difference("last value", MIXED_MODEL, k) == pytest.approx(expected)


def test_records_hold_every_metric_and_every_difference_to_a_peer(results):
    records = patients_records(results)
    mine = [r for r in records if r.method == "deep mixed effects"]
    assert {*METRICS, "calibration_error"} <= {r.metric for r in mine}
    gaps = {r.metric for r in mine if r.metric.startswith("rmse_macro - ")}
    assert gaps == {f"rmse_macro - {peer}" for peer in CHEAP[1:]}
    assert not any(r.metric == "crps" for r in records if r.method == "last value")


def test_tables_fit_a_terminal_and_name_every_method(results):
    text = "\n".join(patients_tables(results))
    assert max(map(len, text.splitlines())) <= 100
    assert all(name in text for name in CHEAP)
    notes = patients_notes(FULL)
    assert max(map(len, notes.splitlines())) <= 100
    assert "statsmodels" in notes
    summary = patients_summary(results)
    assert max(map(len, summary.splitlines())) <= 100
    assert "cells" in summary
    assert "deep mixed + boosting, " not in summary, "it was not run"
