from __future__ import annotations

import numpy as np
import pytest

from benchmarks.patients import cells as patients_cells
from benchmarks.patients.cells import (
    METHODS,
    MIXED_MODEL,
    OURS,
    POPULATION,
    Method,
    TunedPlan,
    forecast,
    shots_of,
)
from benchmarks.patients.data import load
from benchmarks.suite.task_scores import calibration, metric
from ehrmeta.baselines import HistoryBoosting, LastValue, MixedEffects
from ehrmeta.evaluation import k_shot_curve


def test_the_methods_of_the_summary_are_in_the_table():
    assert {MIXED_MODEL, POPULATION, *OURS} <= set(METHODS)
    assert all(METHODS[name].grid == ({},) for name in OURS), "ours run at their defaults"


def test_scores_equal_those_of_the_k_shot_curve():
    table = load("nafld-sbp").take(np.arange(4000))
    model = LastValue().fit(table.X, table.y + 1.0, groups=table.groups, time=table.time)
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


def test_settings_are_chosen_on_training_patients(monkeypatch):
    seen = []
    table = load("pbcseq-albumin")
    folds = list(table.kfold(5, random_state=0))
    judge = patients_cells.forecast

    def watched(model, held_out, k):
        seen.append(set(held_out.groups))
        return judge(model, held_out, k)

    monkeypatch.setattr(patients_cells, "forecast", watched)
    method = Method(HistoryBoosting(n_draws=2), ({"max_iter": 1}, {"max_iter": 100}))
    plan = TunedPlan(tuned=True)
    setting = patients_cells._choose(method, folds[0][0], (1, 3), 0, plan)
    assert setting == {"max_iter": 100}, "a hundred trees beat one"
    assert len(seen) == 4
    assert not set.union(*seen) & set(folds[0][1].groups)


def test_a_k_needs_enough_patients_with_later_rows():
    table = load("pbcseq-albumin")
    assert shots_of(table) == (0, 1, 2, 3, 5, 10)
    few = table.take(table.tasks.codes < 12)
    assert max(shots_of(few)) < 10
