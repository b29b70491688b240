"""Laws of updating a pooled model for a new site."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from ehrmeta import make_cohorts
from ehrmeta.baselines import (
    MixedEffectsLogistic,
    TaskLogistic,
    UpdatedClassifier,
    UpdatedRegressor,
)
from ehrmeta.baselines.updating import UPDATES
from ehrmeta.errors import DataError

SITES = make_cohorts(20, n_patients=(80, 160), slope_sd=0.4, random_state=2)
CLASSIFIERS = [
    *(UpdatedClassifier(update=update) for update in (*UPDATES, "closed_test")),
    MixedEffectsLogistic(),
    TaskLogistic(),
]


@pytest.fixture(scope="module", params=CLASSIFIERS, ids=repr)
def fitted(request):
    return clone(request.param).fit(SITES.X, SITES.y, groups=SITES.groups)


@pytest.fixture(scope="module")
def closed_test():
    return UpdatedClassifier(update="closed_test").fit(SITES.X, SITES.y, groups=SITES.groups)


def new_site(n_rows, *, shift=0.0, flip=False, seed=0):
    """Rows of a site like the average one, shifted, or with coefficients of the other sign."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 10))
    sign = -1.0 if flip else 1.0
    logit = SITES.intercept + shift + sign * X @ SITES.coefficients
    return X, (rng.random(n_rows) < expit(logit)).astype(int)


def test_without_support_it_is_the_population(fitted):
    X, _ = new_site(5)
    none = fitted.adapt(X[:0], np.zeros(0, int)).predict_proba(X)
    np.testing.assert_array_equal(none, fitted.predict_proba(X))
    np.testing.assert_allclose(none.sum(1), 1.0)


@pytest.mark.parametrize("label", [0, 1])
def test_a_support_of_one_class_gives_finite_probabilities_on_its_side(fitted, label):
    X, _ = new_site(40)
    p = fitted.adapt(X, np.full(40, label)).predict_proba(X)[:, 1]
    assert np.isfinite(p).all()
    before = fitted.predict_proba(X)[:, 1].mean()
    if getattr(fitted, "update", "") == "none":
        assert p.mean() == before
    else:
        assert np.sign(p.mean() - before) == 2 * label - 1


def test_tasks_are_adapted_one_by_one_as_together(fitted):
    X, y = new_site(60)
    groups = np.arange(60) % 3
    together = fitted.adapt(X, y, groups=groups).predict_proba(X, groups=groups)
    for task in range(3):
        rows = groups == task
        alone = fitted.adapt(X[rows], y[rows]).predict_proba(X[rows])
        np.testing.assert_allclose(alone, together[rows], atol=1e-6)


@pytest.mark.parametrize("update", ["intercept", "recalibration", "revision"])
def test_a_shifted_site_is_met_by_its_intercept(update):
    model = UpdatedClassifier(update=update).fit(SITES.X, SITES.y, groups=SITES.groups)
    X, y = new_site(2000, shift=1.5)
    before, after = (
        p[:, 1].mean() for p in (model.predict_proba(X), model.adapt(X, y).predict_proba(X))
    )
    assert abs(before - y.mean()) > 0.1
    assert abs(after - y.mean()) < 0.01


def test_the_closed_test_takes_the_least_that_does(closed_test):
    def chosen(**site):
        X, y = new_site(120, **site)
        state = closed_test.adapt(X, y)._state
        return UPDATES[state.chosen[0]]

    assert chosen(shift=1.5) == "intercept"
    assert chosen(flip=True) in ("recalibration", "revision")


def test_the_closed_test_keeps_its_level():
    """About one in twenty sites that do not differ is updated."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(220), 100)
    X = rng.normal(size=(len(groups), 2))
    y = (rng.random(len(groups)) < expit(X @ [1.0, -1.0])).astype(int)
    train = groups < 20
    model = UpdatedClassifier(update="closed_test")
    model.fit(X[train], y[train], groups=groups[train])
    chosen = model.adapt(X[~train], y[~train], groups=groups[~train])._state.chosen
    assert 0.0 < np.mean(chosen > 0) < 0.12


def test_any_classifier_may_be_below():
    boosting = HistGradientBoostingClassifier(max_iter=20)
    model = UpdatedClassifier(boosting, update="recalibration")
    model.fit(SITES.X, SITES.y, groups=SITES.groups)
    assert not hasattr(boosting, "classes_"), "it is cloned"
    X, y = new_site(50)
    assert model.adapt(X, y).predict_proba(X).shape == (50, 2)


def test_a_new_fit_is_scikit_learns():
    X, y = new_site(200)
    model = TaskLogistic(C=0.5).fit(X, y, groups=np.arange(200) % 3)
    x = (X - X.mean(0)) / X.std(0)
    oracle = LogisticRegression(C=0.5).fit(x, y).predict_proba(x)
    np.testing.assert_allclose(model.adapt(X, y).predict_proba(X), oracle, atol=1e-2)


def test_unknown_updates_and_several_classes_are_refused():
    with pytest.raises(DataError, match="update must be one of"):
        UpdatedClassifier(update="all").fit(SITES.X, SITES.y, groups=SITES.groups)
    for model in CLASSIFIERS:
        with pytest.raises(DataError, match="Only binary"):
            clone(model).fit(SITES.X, np.arange(len(SITES.y)) % 3, groups=SITES.groups)


def test_a_site_intercept_shrinks_the_mean_residual():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    X = rng.normal(size=(1000, 2))
    y = 2.0 * X[:, 0] + rng.normal(size=40)[groups] + rng.normal(size=1000)
    model = UpdatedRegressor().fit(X, y, groups=groups)
    mixed = model.mixed_model_
    shrinkage = 8 * mixed.G[0, 0] / (8 * mixed.G[0, 0] + mixed.noise_var)
    before = model.predict(X[:8])
    change = model.adapt(X[:8], before + 3.0).predict(X[:8]) - before
    np.testing.assert_allclose(change.mean(), shrinkage * 3.0, atol=0.1)
    assert np.ptp(change) < 1e-6
    interval = model.adapt(X[:8], before + 3.0).predict_interval(X[:8])
    assert (interval[:, 0] < interval[:, 1]).all()


@pytest.mark.filterwarnings("ignore:groups=None")
@parametrize_with_checks([MixedEffectsLogistic(), TaskLogistic()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
