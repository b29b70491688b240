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
from ehrmeta.persistence.sklearn_models import (
    LinearModel,
    LogOdds,
    Shares,
    TreeSum,
    is_saved,
    read_model,
    written_model,
)


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


def stump(**changes):
    """Arrays of one split of the first of three features, at 0.5."""
    arrays = {
        "baseline": torch.tensor(1.0).double(),
        "depth": torch.tensor(1),
        "roots": torch.tensor([0]),
        "feature": torch.tensor([0, 0, 0]),
        "left": torch.tensor([1, 1, 2]),
        "right": torch.tensor([2, 1, 2]),
        "threshold": torch.tensor([0.5, 0.0, 0.0]).double(),
        "value": torch.tensor([0.0, -2.0, 3.0]).double(),
        "missing_left": torch.tensor([True, False, False]),
    }
    return arrays | changes


@pytest.mark.parametrize("n_rows", [1, 30])
def test_a_row_goes_left_up_to_the_threshold_and_where_missing_values_go(n_rows):
    x = np.repeat([[0.5, 0, 0], [0.6, 0, 0], [np.nan, 0, 0]], n_rows, axis=0)
    for to_left, at_missing in ((True, -1.0), (False, 4.0)):
        model = read_model("trees", stump(missing_left=torch.tensor([to_left, False, False])), 3)
        expected = np.repeat([-1.0, 4.0, at_missing], n_rows)
        np.testing.assert_array_equal(model.predict(x), expected)
    assert model.n_features_in_ == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": torch.tensor(2)},
        {"depth": torch.tensor(0)},
        {"feature": torch.tensor([3, 0, 0])},
        {"feature": torch.tensor([-1, 0, 0])},
        {"left": torch.tensor([2, 1, 2])},
        {"left": torch.tensor([0, 1, 2])},
        {"roots": torch.tensor([1])},
        {"roots": torch.tensor([0, 1])},
        {"roots": torch.tensor([[0]])},
        {"baseline": torch.zeros(3).double()},
        {"baseline": torch.zeros(1, 3).double()},
        {"value": torch.tensor([0.0, torch.inf, 3.0]).double()},
        {"missing_left": torch.tensor([1, 0, 0])},
    ],
    ids=str,
)
def test_a_stump_that_is_no_tree_is_refused(changes):
    with pytest.raises(BundleError, match="do not fit together"):
        read_model("trees", stump(**changes), 3)


def test_constants_of_one_output_or_of_three_classes_and_more_are_read():
    for n_classes, fits in ((1, False), (2, False), (3, True)):
        arrays = {
            "coef": torch.zeros(n_classes, 4).double(),
            "intercept": torch.zeros(n_classes).double(),
        }
        if fits:
            model = read_model("linear of log-odds", arrays, 4)
            assert model.classes_.tolist() == [0, 1, 2]
            np.testing.assert_allclose(model.predict_proba(np.ones((2, 4))), 1 / 3)
        else:
            with pytest.raises(BundleError, match="do not fit together"):
                read_model("linear", arrays, 4)
    one = read_model(
        "linear", {"coef": torch.ones(4).double(), "intercept": torch.tensor(2.0).double()}, 4
    )
    assert one.predict(np.ones((2, 4))).tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("p", "fits"),
    [
        ([0.25, 0.75], True),
        ([0.0, 1.0], True),
        ([1.0], False),
        ([-0.5, 1.5], False),
        ([0.5, 0.5 + 1e-8], False),
        ([[0.5, 0.5]], False),
    ],
)
def test_shares_are_probabilities_of_two_classes_or_more(p, fits):
    arrays = {"probabilities": torch.tensor(p, dtype=torch.float64)}
    if fits:
        model = read_model("shares", arrays, 2)
        assert model.predict_proba(np.zeros((3, 2))).tolist() == [p] * 3
        assert is_saved(model)
    else:
        with pytest.raises(BundleError, match="do not fit together"):
            read_model("shares", arrays, 2)


def test_the_mean_of_several_trees_keeps_each_in_its_place():
    trees = [TreeSum(**{name: value.numpy() for name, value in stump().items()})]
    trees.append(TreeSum(**{name: value.numpy() for name, value in stump().items()}))
    trees[1].value = trees[1].value * 2.0
    trees[1].baseline = np.array(3.0)

    class Kept(TreeSum):
        """Trees that are given as they are."""

        of = classmethod(lambda cls, tree: tree)

    mean = Kept.mean(trees)
    x = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    np.testing.assert_allclose(mean.predict(x), [2.0 - 3.0, 2.0 + 4.5])
    assert mean.roots.tolist() == [0, 3]
    assert mean.check(3)


def test_arrays_are_shown_and_hashed_as_models():
    models = [read_model("trees", stump(), 3), read_model("trees", stump(), 3)]
    assert len(set(models)) == 2
    assert repr(LinearModel(np.zeros(1), np.zeros(()))).startswith("LinearModel(coef=")
    for kind in (LinearModel, TreeSum, LogOdds, Shares):
        settings = kind.__dataclass_params__
        assert (settings.eq, settings.repr) == (False, False)


def test_settings_that_arrays_hold_may_be_fitted():
    for model in (
        HistGradientBoostingRegressor(),
        HistGradientBoostingRegressor(loss="absolute_error", categorical_features=None),
        HistGradientBoostingClassifier(categorical_features="from_dtype"),
        DummyClassifier(strategy="prior"),
        Ridge(),
    ):
        assert is_saved(model)
    assert not is_saved(type("Ridge", (Ridge,), {})())


def test_trees_of_bin_numbers_become_trees_of_the_features():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    ends = np.linspace(-1, 1, 9)
    bins = np.column_stack([x[:, 0], np.searchsorted(ends, x[:, 1])])
    model = HistGradientBoostingRegressor(max_iter=20).fit(bins, x.sum(axis=1))
    trees = TreeSum.of(model).unbinned({1: ends})
    np.testing.assert_allclose(trees.predict(x), model.predict(bins))
