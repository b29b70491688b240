"""Laws of models as arrays: they predict what scikit-learn predicts, and refuse what is forged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeCV,
)

from ehrmeta.errors import BundleError
from ehrmeta.persistence.sklearn_models import TreeSum, is_saved, read_model, written_model


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3)).round(1)  # ties at the thresholds
    x[rng.uniform(size=x.shape) < 0.1] = np.nan
    return x, np.nan_to_num(x[:, 0]) ** 2 + np.isnan(x[:, 1]) + rng.normal(size=3000)


@pytest.mark.parametrize("leaves", [2, 8, 31])
def test_trees_predict_bit_for_bit_what_scikit_learn_predicts(data, leaves):
    x, y = data
    model = HistGradientBoostingRegressor(max_iter=20, max_leaf_nodes=leaves).fit(x, y)
    kind, arrays = written_model(model, 3)
    restored = read_model(kind, arrays, 3)
    np.testing.assert_array_equal(restored.predict(x), model.predict(x))
    assert restored.predict(x[:0]).shape == (0,)
    again = read_model(*written_model(restored, 3), 3)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_the_mean_of_trees_predicts_the_mean_of_their_predictions_for_few_rows_as_for_many(data):
    x, y = data
    models = [
        HistGradientBoostingRegressor(max_iter=n, max_leaf_nodes=4 * n).fit(x, y) for n in (5, 20)
    ]
    expected = np.mean([model.predict(x) for model in models], axis=0)
    restored = TreeSum.mean(models)
    np.testing.assert_allclose(restored.predict(x), expected, rtol=1e-12)
    few = np.concatenate([restored.predict(x[at : at + 60]) for at in range(0, len(x), 60)])
    np.testing.assert_array_equal(few, restored.predict(x))
    again = read_model(*written_model(restored, 3), 3)
    np.testing.assert_array_equal(again.predict(x), restored.predict(x))


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        Ridge(),
        RidgeCV(np.logspace(-2, 4, 13)),
        Lasso(0.01),
        ElasticNet(0.01),
        DummyRegressor(strategy="median"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_of_one_number_predict_bit_for_bit_the_same(data, model):
    x, y = np.nan_to_num(data[0]), data[1]
    model.fit(x, y)
    restored = read_model(*written_model(model, 3), 3)
    for rows in (x, x[:1], np.asfortranarray(x[::2])):
        np.testing.assert_array_equal(restored.predict(rows), model.predict(rows))


@pytest.mark.parametrize("cuts", [[1.0], [0.0, 1.0], [0.0, 1.0, 2.0]], ids=len)
@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        LogisticRegression(fit_intercept=False, class_weight="balanced"),
        HistGradientBoostingClassifier(max_iter=20),
        HistGradientBoostingClassifier(max_iter=5, class_weight="balanced"),
        DummyClassifier(),
    ],
    ids=str,
)
def test_classifiers_give_bit_for_bit_the_same_probabilities(data, model, cuts):
    x, y = data
    if isinstance(model, LogisticRegression):
        x = np.nan_to_num(x)
    model = clone(model).fit(x, np.digitize(y, cuts))
    restored = read_model(*written_model(model, 3), 3)
    assert is_saved(restored)
    assert is_classifier(restored)
    assert restored.classes_.tolist() == model.classes_.tolist()
    for rows in (x, x[:5]):
        np.testing.assert_array_equal(restored.predict_proba(rows), model.predict_proba(rows))
    again = read_model(*written_model(restored, 3), 3)
    np.testing.assert_array_equal(again.predict_proba(x), restored.predict_proba(x))


@pytest.mark.parametrize(
    "model",
    [
        object(),
        HistGradientBoostingRegressor(loss="poisson"),
        HistGradientBoostingRegressor(categorical_features=[0]),
        HistGradientBoostingClassifier(categorical_features=[True]),
        DummyClassifier(strategy="stratified"),
    ],
)
def test_what_arrays_cannot_hold_is_refused_before_a_fit(model):
    assert not is_saved(model)


def test_arrays_that_predict_something_else_are_never_written(data):
    x, y = data
    model = HistGradientBoostingRegressor(loss="poisson", max_iter=2).fit(x, np.abs(y))
    with pytest.raises(BundleError, match="do not predict what it predicts"):
        written_model(model, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feature", torch.tensor([3, 0, 0])),
        ("left", torch.tensor([-1, 1, 2])),
        ("right", torch.tensor([3, 1, 2])),
        ("roots", torch.tensor([5])),
        ("depth", torch.tensor(10**9)),
        ("depth", torch.tensor([1])),
        ("value", torch.zeros(2, dtype=torch.float64)),
        ("threshold", torch.zeros(3)),
        ("threshold", torch.full((3,), torch.nan, dtype=torch.float64)),
        ("left", torch.tensor([0, 1, 2])),  # a node with one child
        ("right", torch.tensor([1, 1, 2])),  # two ways to one node
        ("left", torch.tensor([1, 0, 2])),  # a circle
        ("roots", torch.tensor([0, 0])),
        ("baseline", torch.zeros(2, dtype=torch.float64)),
        ("more", torch.zeros(3)),
    ],
)
def test_forged_trees_are_refused(data, name, value):
    x, y = data
    model = HistGradientBoostingRegressor(max_iter=1, max_leaf_nodes=2).fit(x, y)
    kind, arrays = written_model(model, 3)
    with pytest.raises(BundleError, match="population model"):
        read_model(kind, arrays | {name: value}, 3)
    with pytest.raises(BundleError, match="population model"):
        read_model("code", arrays, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("coef", torch.zeros(2, 3)), ("intercept", torch.zeros(4)), ("coef", torch.zeros(3, 2))],
)
def test_forged_coefficients_are_refused(data, name, value):
    model = LogisticRegression().fit(np.nan_to_num(data[0]), np.digitize(data[1], [0.0, 1.0]))
    kind, arrays = written_model(model, 3)
    with pytest.raises(BundleError, match="population model"):
        read_model(kind, arrays | {name: value.double()}, 3)


def test_forged_shares_are_refused(data):
    kind, _ = written_model(DummyClassifier().fit(data[0], data[1] > 1), 3)
    with pytest.raises(BundleError, match="population model"):
        read_model(kind, {"probabilities": torch.tensor([0.5, 0.7]).double()}, 3)
