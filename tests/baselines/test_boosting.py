"""Boosted trees count patients, not rows, and do not look at the support."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from ehrmeta.baselines import HistoryBoosting, PopulationBoosting


def rows(n_tasks, seed=0):
    """Patients with 1 to 6 rows, and an outcome that follows a feature."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_tasks), rng.integers(1, 7, n_tasks))
    X = rng.normal(size=(len(groups), 2))
    return X, 2.0 * (X[:, 0] > 0) + 0.1 * rng.normal(size=len(groups)), groups


def test_rows_weigh_one_over_the_rows_of_their_patient():
    """Too few patients to hold any out: scikit-learn's trees with these weights."""
    X, y, groups = rows(19)
    model = PopulationBoosting(max_iter=10, learning_rate=0.3, random_state=0)
    model.fit(X, y, groups=groups)
    trees = HistGradientBoostingRegressor(
        max_iter=10, learning_rate=0.3, max_leaf_nodes=12, early_stopping=False
    ).fit(X, y, 1.0 / np.bincount(groups)[groups])
    np.testing.assert_allclose(model.predict(X), trees.predict(X), atol=1e-5)
    assert model.n_iter_ == 10


def test_held_out_patients_stop_the_trees():
    X, _, groups = rows(40)
    noise = np.random.default_rng(1).normal(size=len(groups))
    model = PopulationBoosting(random_state=0).fit(X, noise, groups=groups)
    assert model.n_iter_ < model.max_iter


def test_the_support_changes_nothing():
    X, y, groups = rows(20)
    model = PopulationBoosting(max_iter=5, random_state=0).fit(X, y, groups=groups)
    adapted = model.adapt(X[:2], [100.0, 100.0])
    np.testing.assert_array_equal(adapted.predict(X), model.predict(X))


@pytest.mark.parametrize("model", [PopulationBoosting, HistoryBoosting])
def test_no_query_row_gives_no_prediction(model):
    X, y, groups = rows(20)
    fitted = model(max_iter=2, random_state=0).fit(X, y, groups=groups)
    assert fitted.predict(X[:0]).shape == (0,)


def test_a_column_without_any_value_is_no_obstacle():
    X, y, groups = rows(20)
    X = np.column_stack([X, np.full(len(y), np.nan)])
    model = PopulationBoosting(max_iter=20, random_state=0).fit(X, y, groups=groups)
    assert np.corrcoef(model.predict(X), y)[0, 1] > 0.9
