"""Boosted trees count patients, not rows, and do not look at the support."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from ehrmeta.baselines import HistoryBoosting, PopulationBoosting
from ehrmeta.baselines.boosting import carried_forward, outcome_history, time_since_support
from ehrmeta.nn.batch import TaskRows, padded_index, padded_set


def rows(n_tasks, seed=0):
    """Patients with 1 to 6 rows, and an outcome that follows a feature."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_tasks), rng.integers(1, 7, n_tasks))
    X = rng.normal(size=(len(groups), 2))
    return X, 2.0 * (X[:, 0] > 0) + 0.1 * rng.normal(size=len(groups)), groups


def test_rows_weigh_one_over_the_rows_of_their_patient():
    """Too few patients to hold any out: scikit-learn's trees with these weights."""
    X, y, groups = rows(19)
    model = PopulationBoosting(max_iter=10, learning_rate=0.3, random_state=0)
    model.fit(X, y, groups=groups)
    trees = HistGradientBoostingRegressor(
        max_iter=10, learning_rate=0.3, max_leaf_nodes=12, early_stopping=False
    ).fit(X, y, 1.0 / np.bincount(groups)[groups])
    np.testing.assert_allclose(model.predict(X), trees.predict(X), atol=1e-5)
    assert model.n_iter_ == 10


def test_held_out_patients_stop_the_trees():
    X, _, groups = rows(40)
    noise = np.random.default_rng(1).normal(size=len(groups))
    model = PopulationBoosting(random_state=0).fit(X, noise, groups=groups)
    assert model.n_iter_ < model.max_iter


def test_the_support_changes_nothing():
    X, y, groups = rows(20)
    model = PopulationBoosting(max_iter=5, random_state=0).fit(X, y, groups=groups)
    adapted = model.adapt(X[:2], [100.0, 100.0])
    np.testing.assert_array_equal(adapted.predict(X), model.predict(X))


@pytest.mark.parametrize("model", [PopulationBoosting, HistoryBoosting])
def test_no_query_row_gives_no_prediction(model):
    X, y, groups = rows(20)
    fitted = model(max_iter=2, random_state=0).fit(X, y, groups=groups)
    assert fitted.predict(X[:0]).shape == (0,)


def test_a_column_without_any_value_is_no_obstacle():
    X, y, groups = rows(20)
    X = np.column_stack([X, np.full(len(y), np.nan)])
    model = PopulationBoosting(max_iter=20, random_state=0).fit(X, y, groups=groups)
    assert np.corrcoef(model.predict(X), y)[0, 1] > 0.9


def history_rows(sizes, seed, *, timed=True):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    n = len(codes)
    measured = rng.normal(size=(n, 2)).astype(np.float32)
    measured[rng.random((n, 2)) < 0.4] = np.nan
    return TaskRows.from_codes(
        torch.from_numpy(codes),
        len(sizes),
        timed=timed,
        x=torch.zeros(n, 1),
        measured=torch.from_numpy(measured),
        time=torch.from_numpy(rng.integers(0, 9, n) * float(timed)),
        y=torch.from_numpy(rng.normal(size=n).astype(np.float32)),
        origin=torch.arange(n),
    )


def test_summary_equals_pandas():
    support = history_rows([4, 0, 1, 2, 7], seed=0)
    frame = pd.DataFrame(
        {"task": support.codes.numpy(), "y": support.y.numpy(), "time": support.time.numpy()}
    ).astype(float)
    grouped = frame.groupby("task")["y"]
    history = pd.DataFrame(outcome_history(support), columns=["n", "mean", "sd", "last", "slope"])
    filled = history.loc[history["n"] > 0]
    np.testing.assert_array_equal(history["n"], [4, 0, 1, 2, 7])
    np.testing.assert_allclose(filled["mean"], grouped.mean(), rtol=1e-6)
    np.testing.assert_allclose(filled["last"], grouped.last(), rtol=1e-6)
    expected = grouped.std(ddof=0).where(grouped.size() > 1)
    np.testing.assert_allclose(filled["sd"], expected, rtol=1e-6)
    for task in (0, 4):
        patient = frame[frame["task"] == task]
        slope = np.polyfit(patient["time"], patient["y"], 1)[0]
        assert history.loc[task, "slope"] == pytest.approx(slope, rel=1e-5)
    assert np.isnan(history.loc[1, ["mean", "sd", "last", "slope"]]).all()
    assert np.isnan(history.loc[2, ["sd", "slope"]]).all()


def test_without_time_the_order_of_rows_has_no_effect():
    history = outcome_history(history_rows([4, 2], seed=0, timed=False))
    assert np.isnan(history[:, 3:]).all() and np.isfinite(history[:, :3]).all()


def test_measured_values_are_those_the_networks_see():
    support, query = history_rows([4, 0, 1, 2, 7], seed=1), history_rows([3, 2, 5, 1, 6], seed=2)
    ours = carried_forward(support, query)
    index, mask = padded_index(query.starts[:-1], query.sizes)
    source_index, source_mask = padded_index(support.starts[:-1], support.sizes)
    padded = padded_set(
        query, index, mask,
        source=support, source_index=source_index, source_mask=source_mask, time_unit=2.0,
    )  # fmt: skip
    value, age, missing = padded.x[mask][:, -6:].double().numpy().reshape(-1, 3, 2).swapaxes(0, 1)
    np.testing.assert_array_equal(np.isnan(ours[:, :2]), missing == 1)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(np.hstack([ours[:, :2], ours[:, :2]])))
    np.testing.assert_allclose(np.nan_to_num(ours[:, :2]), value)
    np.testing.assert_allclose(np.arcsinh(np.nan_to_num(ours[:, 2:]) / 2), age, rtol=1e-6)


def test_a_value_measured_at_the_query_or_later_is_not_seen():
    support = history_rows([4], seed=3)
    last = float(support.time[-1])
    query = history_rows([5], seed=4)
    scrambled = carried_forward(
        support, TaskRows(**{**vars(query), "measured": query.measured + 9})
    )
    np.testing.assert_array_equal(scrambled, carried_forward(support, query))
    first = float(support.time[0])
    early = query.time.numpy() <= first
    assert np.isnan(carried_forward(support, query)[early]).all()
    np.testing.assert_allclose(time_since_support(support, query), query.time.numpy() - last)


def test_empty_supports_give_nothing():
    support, query = history_rows([0, 0], seed=0), history_rows([2, 1], seed=1)
    assert np.isnan(carried_forward(support, query)).all()
    assert np.isnan(time_since_support(support, query)).all()
    np.testing.assert_array_equal(outcome_history(support)[:, 0], 0)
