"""Laws of the patient's own line: with little penalty least squares, with much the mean."""

import numpy as np

from ehrmeta.baselines import TaskMean, TaskRidge


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
    found = adapted(TaskRidge(penalty=1e-9)).predict(X[5:8], time=days[5:8])
    np.testing.assert_allclose(found, intercept + slope * days[5:8], rtol=1e-4)


def test_with_much_penalty_it_is_the_mean():
    X, _, _, days = patients()
    found, mean = (
        adapted(model).predict(X[5:8], time=days[5:8])
        for model in (TaskRidge(penalty=1e9), TaskMean())
    )
    np.testing.assert_allclose(found, mean, rtol=1e-6)
