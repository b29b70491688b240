"""Baselines of a patient's rows: last value, mean, ridge between mean and least squares."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta.baselines import LastValue, TaskLogistic, TaskMean, TaskRidge


def patients():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 8)
    days = np.tile(np.arange(8.0), 20)
    y = rng.normal(size=20)[groups] + rng.normal(size=20)[groups] * days + rng.normal(size=160)
    return np.zeros((160, 1)), y, groups, days


def adapted(model):
    X, y, groups, days = patients()
    return model.fit(X, y, groups=groups, time=days).adapt(X[:5], y[:5], time=days[:5])


def test_with_little_penalty_it_is_least_squares():
    X, y, _, days = patients()
    slope, intercept = np.polyfit(days[:5], y[:5], 1)
    predicted = adapted(TaskRidge(penalty=1e-9)).predict(X[5:8], time=days[5:8])
    np.testing.assert_allclose(predicted, intercept + slope * days[5:8], rtol=1e-4)


def test_with_much_penalty_it_is_the_mean():
    X, _, _, days = patients()
    predicted, mean = (
        adapted(model).predict(X[5:8], time=days[5:8])
        for model in (TaskRidge(penalty=1e9), TaskMean())
    )
    np.testing.assert_allclose(predicted, mean, rtol=1e-6)


def test_last_value_and_mean_are_those_of_pandas():
    X, y, groups, days = patients()
    seen = days < 5
    keys = groups[~seen]
    frame = pd.Series(y[seen]).groupby(groups[seen])
    for model, expected in ((LastValue(), frame.last()), (TaskMean(), frame.mean())):
        adapted_all = model.fit(X, y, groups=groups, time=days).adapt(
            X[seen], y[seen], groups=groups[seen], time=days[seen]
        )
        predicted = adapted_all.predict(X[~seen], groups=keys, time=days[~seen])
        np.testing.assert_allclose(predicted, expected.loc[keys], rtol=1e-6)


@pytest.mark.parametrize("model", [LastValue(), TaskMean(), TaskRidge()])
def test_without_support_the_population_mean(model):
    X, y, groups, days = patients()
    level = model.fit(X, y, groups=groups, time=days).predict(X, time=days)
    np.testing.assert_allclose(level, y.mean(), rtol=1e-6)


@pytest.mark.parametrize("events", [0, 4])
def test_a_support_of_one_class_has_the_rate_with_one_row_of_the_population(events):
    X, y = np.zeros((40, 1)), np.arange(40) % 4 == 0
    model = TaskLogistic().fit(X, y, groups=np.arange(40) // 4)
    p = model.adapt(X[:4], np.full(4, events > 0)).predict_proba(X[:1])[0, 1]
    assert p == pytest.approx((events + 0.25) / 5, rel=1e-6)
