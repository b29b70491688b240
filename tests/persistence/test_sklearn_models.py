"""Laws of models as arrays: they predict what scikit-learn predicts, and refuse what is forged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import is_classifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

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
    found = read_model(kind, arrays, 3)
    np.testing.assert_array_equal(found.predict(x), model.predict(x))
    assert found.predict(x[:0]).shape == (0,)
    again = read_model(*written_model(found, 3), 3)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_the_mean_of_trees_predicts_the_mean_of_their_predictions_for_few_rows_as_for_many(data):
    x, y = data
    models = [
        HistGradientBoostingRegressor(max_iter=n, max_leaf_nodes=4 * n).fit(x, y) for n in (5, 20)
    ]
    expected = np.mean([model.predict(x) for model in models], axis=0)
    found = TreeSum.mean(models)
    np.testing.assert_allclose(found.predict(x), expected, rtol=1e-12)
    few = np.concatenate([found.predict(x[at : at + 60]) for at in range(0, len(x), 60)])
    np.testing.assert_array_equal(few, found.predict(x))
    again = read_model(*written_model(found, 3), 3)
    np.testing.assert_array_equal(again.predict(x), found.predict(x))


def test_a_linear_model_predicts_the_same(data):
    x, y = np.nan_to_num(data[0]), data[1]
    model = LinearRegression().fit(x, y)
    found = read_model(*written_model(model, 3), 3)
    np.testing.assert_allclose(found.predict(x), model.predict(x), rtol=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        LogisticRegression(fit_intercept=False, class_weight="balanced"),
        HistGradientBoostingClassifier(max_iter=20),
        HistGradientBoostingClassifier(max_iter=5, class_weight="balanced"),
    ],
    ids=str,
)
def test_classifiers_give_the_same_probabilities(data, model):
    x, y = data
    if isinstance(model, LogisticRegression):
        x = np.nan_to_num(x)
    model.fit(x, y > 1)
    found = read_model(*written_model(model, 3), 3)
    assert is_saved(found)
    assert is_classifier(found)
    np.testing.assert_allclose(
        found.predict_proba(x), model.predict_proba(x), rtol=1e-12, atol=1e-14
    )
    again = read_model(*written_model(found, 3), 3)
    np.testing.assert_array_equal(again.predict_proba(x), found.predict_proba(x))


@pytest.mark.parametrize(
    "model",
    [
        object(),
        HistGradientBoostingRegressor(loss="poisson"),
        HistGradientBoostingRegressor(categorical_features=[0]),
        HistGradientBoostingClassifier(categorical_features=[True]),
    ],
)
def test_what_arrays_cannot_say_is_known_before_a_fit(model):
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
