"""Peers of other packages under our protocol."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.patients.cells import forecast
from benchmarks.patients.data import load
from benchmarks.patients.peers import GPBoost, HistoryLightGBM, StatsmodelsMixedLM
from benchmarks.suite.task_scores import metric
from ehrmeta.baselines import MixedEffects, MixedProcessEffects


@pytest.fixture(scope="module")
def split():
    return load("pbcseq-bilirubin").split(0.3, random_state=0)


def error(model, split, k):
    train, test = split
    model.fit(train.X, train.y, groups=train.groups, time=train.time)
    return metric(forecast(model, test, k), "rmse_macro").value()


def test_statsmodels_finds_our_mixed_model(split):
    pytest.importorskip("statsmodels")
    train, test = split
    support, query = test.support_query(shots=2)
    ours, theirs = (
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
        .adapt(support.X, support.y, groups=support.groups, time=support.time)
        .predict(query.X, groups=query.groups, time=query.time)
        for model in (MixedEffects(), StatsmodelsMixedLM())
    )
    np.testing.assert_allclose(np.log(theirs), np.log(ours), atol=0.01)


def test_gpboost_predicts_new_patients_from_their_support(split):
    pytest.importorskip("gpboost")
    model = GPBoost(as_of=False, n_trees=20)
    alone, three = error(model, split, 0), error(model, split, 3)
    assert three < 0.8 * alone
    assert np.isfinite(metric(forecast(model, split[1], 3), "crps").value())


def test_lightgbm_learns_what_the_process_leaves(split):
    pytest.importorskip("lightgbm")
    process, boosted = (
        error(model, split, 1) for model in (MixedProcessEffects(), HistoryLightGBM(residual=True))
    )
    assert boosted < 1.01 * process
    assert error(HistoryLightGBM(), split, 1) < 1.05 * process


def test_no_measurement_at_the_query_informs_a_peer(split):
    pytest.importorskip("gpboost")
    pytest.importorskip("lightgbm")
    train, test = split
    support, query = test.support_query(shots=2)
    scrambled = query.X.copy()
    rng = np.random.default_rng(0)
    for name in query.schema.measured:
        scrambled[name] = rng.permutation(scrambled[name].to_numpy())
    for model in (GPBoost(n_trees=5), HistoryLightGBM(residual=True)):
        model.fit(train.X, train.y, groups=train.groups, time=train.time)
        adapted = model.adapt(support.X, support.y, groups=support.groups, time=support.time)
        predictions = [
            adapted.predict(X, groups=query.groups, time=query.time) for X in (query.X, scrambled)
        ]
        np.testing.assert_array_equal(*predictions)
