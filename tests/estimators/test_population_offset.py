"""Laws of `population=`: cross-fitted by task, and adapted from there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GroupKFold

from ehrmeta import DeepMixedEffects, MetaRegressor
from ehrmeta.errors import BundleError, DataError, DataWarning, GroupError
from ehrmeta.estimators.population_offset import (
    add_boosted_offset,
    cross_fit_population,
    with_offset,
)
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


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")  # of rounding errors
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
            DeepMixedEffects(deep_mean=False, n_deep=0, correction=False, trees=False),
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


def test_atypical_supports_are_compared_with_the_population_model():
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


def test_it_warns_at_fit_and_refuses_at_save_what_a_file_cannot_hold(tmp_path):
    X, y, groups, time = make_patients(n_patients=25)
    model = MetaRegressor(DeepMixedEffects(), population=Remembers(), max_steps=1)
    with pytest.warns(DataWarning, match="cannot be saved"):
        model.fit(X, y, groups=groups, time=time)
    with pytest.raises(BundleError, match="population=Remembers cannot be saved"):
        model.save(tmp_path / "model.ehrmeta")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*supports unlike the training")
@pytest.mark.parametrize(
    "population",
    [Ridge(2.0), HistGradientBoostingRegressor(max_iter=9, random_state=0)],
    ids=lambda model: type(model).__name__,
)
def test_saved_population_models_predict_bit_for_bit_the_same(population, tmp_path):
    X, y, groups, time = make_patients()
    model = MetaRegressor(DeepMixedEffects(), population=population, max_steps=1, random_state=0)
    model.fit(X, y, groups=groups, time=time).save(tmp_path / "model.ehrmeta")
    loaded = MetaRegressor.load(tmp_path / "model.ehrmeta")
    support, query = time < 90, time >= 90
    found = [
        one.adapt(
            X[support], y[support], groups=groups[support], time=time[support]
        ).predict_interval(X[query], groups=groups[query], time=time[query])
        for one in (model, loaded)
    ]
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(model.predict(X, time=time), loaded.predict(X, time=time))
    assert loaded.population.get_params() == population.get_params()


def test_trees_are_as_many_as_serve_new_tasks():
    """Noise of tasks, identified by a feature: a split by row would favour more trees."""
    rng = np.random.default_rng(0)
    X, groups = rng.normal(size=60)[:, None], np.arange(60)
    y = rng.normal(size=60)[np.repeat(groups, 10)] + rng.normal(0, 0.1, 600)
    rows = TaskRows.from_codes(
        torch.from_numpy(np.repeat(groups, 10)),
        60,
        timed=False,
        x=torch.from_numpy(np.repeat(X, 10, axis=0)).float(),
        measured=torch.empty(600, 0),
        time=torch.zeros(600).double(),
        y=torch.from_numpy(y).float(),
        origin=torch.arange(600),
    )
    boosting = HistGradientBoostingRegressor(max_iter=50, random_state=0)
    fitted, _ = cross_fit_population(boosting, rows)
    assert fitted.n_iter_ < 10
    assert boosting.max_iter == 50
    added, same = add_boosted_offset(boosting, rows)
    assert added is None
    assert not same.offset.any(), "nothing is to be learned of new tasks"


def test_trees_see_no_level_of_few_patients():
    """All three patients of a level may be in one fold, whose trees then do not know it."""
    rng = np.random.default_rng(0)
    groups, age = np.repeat(np.arange(63), 6), rng.uniform(0, 10, 378)
    arm = np.where(groups % 21 == 0, "new", "usual")
    y = 3 * np.sin(age) + 10 * (arm == "new") + rng.normal(0, 1, 63)[groups]
    X = pd.DataFrame({"age": age, "arm": arm})
    model = MetaRegressor(max_steps=1, random_state=0).fit(X, y, groups=groups)
    encoder = model.table_.encoder
    assert encoder.thin.tolist() == [
        name.startswith("arm=new") or "other" in name for name in encoder.fixed_names
    ]
    both = X[:2].assign(age=5.0, arm=["usual", "new"])
    x = encoder.transform({name: both[name].to_numpy() for name in both})[0]
    usual, new = model.population_.predict(x.astype(float))
    assert usual == new
    usual, new = model.predict(both)
    assert new - usual == pytest.approx(10, abs=2)


def test_trees_grow_as_long_as_new_tasks_gain():
    """The number of trees is that of a search over all numbers, though most are not grown."""
    rng = np.random.default_rng(0)
    groups, x = np.repeat(np.arange(60), 6), rng.uniform(0, 10, 360)
    rows = replace(
        _rows(60, 6),
        x=torch.from_numpy(x)[:, None].float(),
        y=torch.from_numpy(3 * np.sin(x) + rng.normal(0, 1, 360)).float(),
    )
    boosting = HistGradientBoostingRegressor(learning_rate=0.06, max_iter=150)
    fitted, _ = cross_fit_population(boosting, rows)
    x, y, groups = rows.x.double().numpy(), rows.y.double().numpy(), rows.codes.numpy()
    loss, weight = np.zeros(150), np.full(len(y), 1 / 6)
    for train, test in GroupKFold(5).split(x, groups=groups):
        trees = clone(boosting).set_params(early_stopping=False)
        trees.fit(x[train], y[train], weight[train])
        loss += [((y[test] - predicted) ** 2).sum() for predicted in trees.staged_predict(x[test])]
    assert 50 < fitted.n_iter_ == np.argmin(loss) + 1 < 100


def test_by_default_trees_are_added_where_the_mean_bends():
    rng = np.random.default_rng(0)
    groups, age = np.repeat(np.arange(60), 6), rng.uniform(0, 10, 360)
    X, level = pd.DataFrame({"age": age}), rng.normal(0, 1, 60)[groups]
    bent, straight = 3 * np.sin(age) + level, 0.3 * age + level
    noise = rng.normal(0, 0.3, 360)
    settings = {"max_steps": 1, "random_state": 0}
    model = MetaRegressor(**settings).fit(X, bent + noise, groups=groups)
    assert model.population_ is not None
    without = MetaRegressor(DeepMixedEffects(trees=False), **settings)
    without.fit(X, bent + noise, groups=groups)
    assert without.population_ is None
    assert np.std(model.predict(X) - bent) < 0.7 * np.std(without.predict(X) - bent)
    assert MetaRegressor(**settings).fit(X, straight + noise, groups=groups).population_ is None
