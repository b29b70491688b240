"""Laws of `population=`: cross-fitted by task, and adapted from there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from ehrmeta import DeepMixedEffects, MetaRegressor
from ehrmeta.errors import BundleError, DataError, DataWarning, GroupError
from ehrmeta.estimators.population import cross_fit_population, with_offset
from ehrmeta.nn import TaskRows
from tests.estimators.patients import make_patients

pytestmark = pytest.mark.filterwarnings("ignore:a model with population=")


class Remembers(RegressorMixin, BaseEstimator):
    """Predicts 1 for a row that it was fitted to, else 0."""

    def fit(self, X, y):
        self.seen_ = set(X[:, 0].tolist())
        return self

    def predict(self, X):
        return np.array([float(value in self.seen_) for value in X[:, 0].tolist()])


def _rows(n_tasks: int = 7, n_points: int = 3) -> TaskRows:
    n = n_tasks * n_points
    return TaskRows.from_codes(
        torch.arange(n) % n_tasks,
        n_tasks,
        timed=False,
        x=(torch.arange(n) % n_tasks).float()[:, None],
        measured=torch.empty(n, 0),
        time=torch.zeros(n).double(),
        y=torch.arange(n).float(),
        origin=torch.arange(n),
    )


def test_no_row_is_offset_by_a_model_that_saw_its_task():
    population, rows = cross_fit_population(Remembers(), _rows())
    assert not rows.offset.any()
    assert with_offset(population, rows).offset.all(), "for new tasks it is fitted to all"


def test_one_task_cannot_be_cross_fitted():
    with pytest.raises(GroupError, match="two tasks or more"):
        cross_fit_population(Remembers(), _rows(1, 5))


def test_above_a_perfect_population_model_adapting_changes_nothing():
    """The truth is linear and without noise: nothing is left to adapt."""
    X, _, groups, time = make_patients()
    y = 3.0 + 0.1 * X.age.to_numpy() + (X.sex == "f")
    model = MetaRegressor(
        DeepMixedEffects(), population=LinearRegression(), max_steps=50, random_state=0
    )
    model.fit(X, y, groups=groups, time=time)
    support, query = time < 90, time >= 90
    adapted = model.adapt(X[support], y[support], groups=groups[support], time=time[support])
    found = adapted.predict(X[query], groups=groups[query], time=time[query])
    unadapted = model.predict(X[query], time=time[query])
    np.testing.assert_allclose(found, unadapted, atol=1e-4 * y.std())
    np.testing.assert_allclose(found, y[query], atol=1e-4 * y.std())


def test_what_the_population_model_misses_is_adapted():
    """A wavy population curve and a level of each patient's own: both are found."""
    rng = np.random.default_rng(0)
    groups, age = np.repeat(np.arange(120), 8), rng.uniform(0, 10, 960)
    y = 3 * np.sin(age) + rng.normal(0, 2, 120)[groups] + rng.normal(0, 0.3, 960)
    X = pd.DataFrame({"age": age})
    boosting = HistGradientBoostingRegressor(max_iter=60, random_state=0)
    keep = np.arange(960) % 8 < 4
    errors = {}
    for name, population in (("with", boosting), ("without", None)):
        model = MetaRegressor(
            DeepMixedEffects(deep_mean=False, n_deep=0, correction=False),
            population=population,
            max_steps=1,
            random_state=0,
        ).fit(X, y, groups=groups)
        adapted = model.adapt(X[keep], y[keep], groups=groups[keep])
        errors[name] = np.std(adapted.predict(X[~keep], groups=groups[~keep]) - y[~keep])
        errors[name, 0] = np.std(model.predict(X) - y)
    assert errors["with"] < 0.8
    assert errors["without"] > 2
    assert errors["with", 0] < errors["without", 0]


def test_atypical_supports_are_judged_beyond_the_population_model():
    X, _, groups, time = make_patients()
    y = 50.0 * X.age.to_numpy() + np.random.default_rng(0).normal(size=len(X))
    model = MetaRegressor(DeepMixedEffects(), population=LinearRegression(), max_steps=1)
    model.fit(X, y, groups=groups, time=time)
    typical = model.adapt(X[:3], y[:3], time=time[:3])
    assert typical.atypical_[0] > 0.01
    with pytest.warns(UserWarning, match="unlike the training tasks"):
        model.adapt(X[:3], y[:3] + 100.0, time=time[:3])


def test_nested_parameters_and_clones():
    model = MetaRegressor(population=HistGradientBoostingRegressor())
    model.set_params(population__max_iter=7)
    copy = clone(model)
    assert copy.get_params()["population__max_iter"] == 7
    assert copy.population is not model.population


def test_it_must_be_a_regressor():
    X, y, groups, time = make_patients()
    with pytest.raises(DataError, match="population must be a scikit-learn regressor"):
        MetaRegressor(population="boosting").fit(X, y, groups=groups, time=time)


def test_it_warns_at_fit_and_refuses_at_save(tmp_path):
    X, y, groups, time = make_patients(n_patients=25)
    model = MetaRegressor(DeepMixedEffects(), population=LinearRegression(), max_steps=1)
    with pytest.warns(DataWarning, match="cannot be saved"):
        model.fit(X, y, groups=groups, time=time)
    with pytest.raises(BundleError, match="population=LinearRegression cannot be saved"):
        model.save(tmp_path / "model.ehrmeta")
    assert not list(tmp_path.iterdir())
