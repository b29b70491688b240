"""Laws of `population=`: cross-fitted by task, and adapted from there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.tree import DecisionTreeClassifier

from ehrmeta import DeepMixedEffects, MetaRegressor
from ehrmeta.errors import BundleError, DataError, DataWarning, GroupError
from ehrmeta.estimators import population_offset
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


def _learned(n_tasks=25, seed=0, bend=3.0, noise=0.3):
    """Rows of tasks with 2 to 6 rows whose mean bends with the one feature."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_tasks), rng.integers(2, 7, n_tasks))
    n, x = len(codes), rng.uniform(0, 10, len(codes))
    y = bend * np.sin(x) + x + noise * rng.normal(size=n)
    return TaskRows.from_codes(
        torch.from_numpy(codes),
        n_tasks,
        timed=False,
        x=torch.from_numpy(x)[:, None].float(),
        measured=torch.empty(n, 0),
        time=torch.zeros(n).double(),
        y=torch.from_numpy(y).float(),
        origin=torch.arange(n),
    )


@pytest.mark.parametrize("n_tasks", [3, 25])
def test_offsets_are_predictions_of_folds_in_which_tasks_weigh_the_same(n_tasks):
    rows = _learned(n_tasks)
    fitted, offset = cross_fit_population(Ridge(), rows)
    x, y, codes = rows.x.double().numpy(), rows.y.double().numpy(), rows.codes.numpy()
    weight = (1.0 / rows.sizes)[rows.codes].double().numpy()
    expected = np.empty(len(y))
    for train, test in GroupKFold(min(5, n_tasks)).split(x, groups=codes):
        ridge = Ridge().fit(x[train], y[train], sample_weight=weight[train] * 1.0)
        expected[test] = ridge.predict(x[test])
    np.testing.assert_allclose(offset.offset, expected, rtol=1e-5)
    every = Ridge().fit(x, y, sample_weight=weight)
    np.testing.assert_allclose(fitted.predict(x), every.predict(x))
    added = with_offset(fitted, replace(rows, offset=torch.ones_like(rows.y)))
    np.testing.assert_allclose(added.offset, 1.0 + every.predict(x), rtol=1e-5)
    nobody = rows.take(torch.arange(0))
    assert with_offset(fitted, nobody) is nobody


def test_offsets_of_a_classifier_are_bounded_log_odds():
    rows = _learned()
    binary = replace(rows, y=(rows.y > rows.y.median()).float())
    fitted, offset = cross_fit_population(DecisionTreeClassifier(random_state=0), binary)
    largest = np.log((1 - 1e-5) / 1e-5)
    assert float(offset.offset.abs().max()) == pytest.approx(largest, rel=1e-4)
    p = fitted.predict_proba(rows.x.double().numpy())[:, 1]
    moved = with_offset(fitted, binary).offset
    np.testing.assert_allclose(
        moved, np.log(np.clip(p, 1e-5, 1 - 1e-5) / np.clip(1 - p, 1e-5, 1)), rtol=1e-4
    )
    with pytest.raises(DataError, match="two classes in every fold .* got 1"):
        cross_fit_population(LogisticRegression(), replace(rows, y=torch.zeros_like(rows.y)))
    with pytest.raises(DataError, match="got 3"):
        cross_fit_population(LogisticRegression(), replace(rows, y=(rows.codes % 3).float()))


def test_without_a_feature_the_population_is_a_constant():
    rows = _learned()
    rows = replace(rows, x=rows.x[:, :0])
    fitted, offset = cross_fit_population(Ridge(), rows)
    assert fitted.n_features_in_ == 1
    assert len(offset.offset.unique()) <= 5
    assert add_boosted_offset(HistGradientBoostingRegressor(), rows) == (None, rows)


@pytest.mark.parametrize(("n_tasks", "is_added"), [(19, False), (20, True)])
def test_trees_need_twenty_tasks(n_tasks, is_added):
    rows = _learned(n_tasks, noise=0.05)
    trees = HistGradientBoostingRegressor(max_iter=60, learning_rate=0.2)
    added, offset = add_boosted_offset(trees, rows)
    assert (added is not None) == is_added
    assert offset.offset.any() == is_added


def test_trees_are_the_mean_of_two_models_and_gain_by_a_standard_error():
    rows = _learned(40)
    boosting = HistGradientBoostingRegressor(max_iter=60, learning_rate=0.2)
    added, offset = add_boosted_offset(boosting, rows)
    x, y, codes = rows.x.double().numpy(), rows.y.double().numpy(), rows.codes.numpy()
    linear = cross_fit_population(Ridge(), rows)[1].offset.double().numpy()
    weight = (1.0 / rows.sizes)[rows.codes].double().numpy()
    models, offsets = [], []
    for target in (y - linear, y):
        best = None
        for leaf in (5, 20):
            grown = HistGradientBoostingRegressor(
                max_iter=60, learning_rate=0.2, early_stopping=False, min_samples_leaf=leaf
            )
            staged = np.empty((60, len(y)))
            for train, test in GroupKFold(5).split(x, groups=codes):
                fold = clone(grown).fit(x[train], target[train], sample_weight=weight[train])
                staged[:, test] = list(fold.staged_predict(x[test]))
            losses = [weight @ (target - one) ** 2 for one in staged]
            at = int(np.argmin(losses))
            if best is None or losses[at] < best[0]:
                best = losses[at], clone(grown).set_params(max_iter=at + 1), staged[at]
        models.append(best[1].fit(x, target, sample_weight=weight))
        offsets.append(best[2])
    np.testing.assert_allclose(offset.offset, np.mean(offsets, axis=0), atol=1e-4)
    expected = np.mean([model.predict(x) for model in models], axis=0)
    np.testing.assert_allclose(added.predict(x), expected, atol=1e-4)


def test_of_many_rows_a_sample_of_tasks_grows_the_trees(monkeypatch):
    rows = _learned(300)
    boosting = HistGradientBoostingRegressor(max_iter=60, learning_rate=0.2)
    monkeypatch.setattr(population_offset, "_MOST_ROWS", 600)
    added, offset = add_boosted_offset(boosting, rows)
    x = rows.x.double().numpy()
    is_final = np.isclose(offset.offset, added.predict(x), rtol=1e-5)
    of_task = np.bincount(rows.codes, is_final) == rows.sizes.numpy()  # not cross-fitted
    drawn = rows.sizes.numpy()[~of_task].sum()
    assert 500 < drawn <= 600
    y, error = rows.y.double().numpy(), added.predict(x) + 0.5 * x[:, 0] - rows.y.double().numpy()
    assert len(np.unique(x)) > 255
    assert np.std(error) < 0.4 * np.std(y)


def test_rows_of_rare_levels_get_the_trees_offset_but_train_none():
    rows = _learned(40)
    rare = (rows.codes < 3).float()
    wide = replace(rows, x=torch.column_stack([rows.x, rare]))
    boosting = HistGradientBoostingRegressor(max_iter=60, learning_rate=0.2)
    added, offset = add_boosted_offset(boosting, wide, np.array([False, True]))
    rest = wide.select(torch.arange(3, 40))
    alone, expected = add_boosted_offset(boosting, rest, np.array([False, True]))
    x = wide.x.double().numpy()
    np.testing.assert_allclose(added.predict(x), alone.predict(x))
    is_rare = rare.bool()
    np.testing.assert_allclose(offset.offset[~is_rare], expected.offset, rtol=1e-5)
    np.testing.assert_allclose(offset.offset[is_rare], added.predict(x[is_rare.numpy()]), rtol=1e-5)


def test_two_tasks_are_enough_for_cross_fitting():
    population, rows = cross_fit_population(Remembers(), _rows(2, 3))
    assert not rows.offset.any()
    assert with_offset(population, rows).offset.all()


def test_of_many_features_trees_read_those_that_matter():
    rows = _learned(n_tasks=90)
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(rows.n_rows, 60))).float()
    wide = replace(rows, x=torch.cat([noise, rows.x], 1))
    boosting = HistGradientBoostingRegressor(learning_rate=0.1, max_iter=60, max_leaf_nodes=8)
    trees, offset = add_boosted_offset(boosting, wide)
    assert trees.check(61)
    bend = 3.0 * torch.sin(rows.x[:, 0])
    assert np.corrcoef(offset.offset - rows.x[:, 0], bend)[0, 1] > 0.7
