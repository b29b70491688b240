"""Scores of forecasts are means over patients."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta.baselines import MixedEffects
from ehrmeta.errors import DataError
from ehrmeta.report.forecast_scores import (
    coverage_by_k,
    event_risk,
    forecasts,
    name_of,
    read_test_rows,
)

N = 30
GROUPS, TIME = np.repeat(np.arange(N), 4), np.tile(np.arange(4.0), N)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4 * N, 1)), RNG.normal(size=N)[GROUPS] + RNG.normal(size=4 * N)


@pytest.fixture(scope="module")
def model():
    return MixedEffects(known=["x0"]).fit(X, Y, groups=GROUPS, time=TIME)


@pytest.fixture(scope="module")
def rows(model):
    _, inputs = read_test_rows(model, X, Y, GROUPS, TIME)
    return forecasts(model, X, inputs, shots=(0, 1, 3), confidence_level=0.9)


def test_every_later_row_is_forecast_once_for_each_k(rows, model):
    assert [len(part) for _, part in rows.groupby("k")] == [4 * N, 3 * N, N]
    assert not rows.duplicated(["k", "row"]).any()
    np.testing.assert_array_equal(rows["task"], GROUPS[rows["row"]])
    first, last = (rows[rows["k"] == k] for k in (0, 3))
    np.testing.assert_allclose(first["squared"], (model.predict(X, time=TIME) - Y) ** 2)
    at, shown = last["row"].to_numpy(), TIME < 3
    adapted = model.adapt(X[shown], Y[shown], groups=GROUPS[shown], time=TIME[shown])
    later = adapted.predict(X[at], groups=GROUPS[at], time=TIME[at])
    np.testing.assert_allclose(last["squared"], (later - Y[at]) ** 2)


def test_coverage_is_the_mean_of_the_patients_shares(rows):
    coverage = coverage_by_k(rows).set_index("k")
    shares = rows.groupby(["k", "task"])["covered"].mean().groupby("k").mean()
    np.testing.assert_allclose(coverage["value"], shares)
    assert (coverage["low"] <= coverage["value"]).all()
    assert (coverage["value"] <= coverage["high"]).all()
    assert (coverage["n"] == N).all()


def test_what_cannot_be_tested_is_refused():
    timeless = MixedEffects().fit(X, Y, groups=GROUPS)
    with pytest.raises(DataError, match="fitted with time"):
        read_test_rows(timeless, X, Y, GROUPS, None)
    with pytest.raises(DataError, match="does not forecast numbers"):
        read_test_rows(pd.Series(), X, Y, GROUPS, TIME)


def test_the_risk_is_that_of_the_second_class(oracle, cohort):
    X, y, p, _ = cohort
    happened, risk = event_risk(oracle, X, oracle.classes_[y], {})
    np.testing.assert_array_equal(happened, y)
    np.testing.assert_allclose(risk, p)
    assert name_of(oracle) == "Oracle"
    with pytest.raises(DataError, match="unseen at fit in 360 of 360"):
        event_risk(oracle, X, y, {})
