"""Nothing that is said of a row rests on the rows of its fold."""

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from ehrmeta.errors import DataError
from ehrmeta.treatment.cross_fitting import cross_fit, cross_fit_folds

RNG = np.random.default_rng(0)
X, FOLD = RNG.normal(size=(200, 2)), np.arange(200) % 4
Y = X @ [1.0, 2.0] + RNG.normal(size=200)


def test_outputs_are_those_of_models_without_the_rows_fold():
    stack, outputs = cross_fit([LinearRegression()], X, Y, FOLD)
    for k in range(4):
        model = LinearRegression().fit(X[k != FOLD], Y[k != FOLD])
        np.testing.assert_allclose(outputs[k == FOLD], model.predict(X[k == FOLD]))
    np.testing.assert_allclose(stack.predict(X), stack.by_fold(X).mean(0))


def test_the_stack_takes_what_predicts():
    stack, outputs = cross_fit([LinearRegression(), DummyRegressor()], X, Y, FOLD)
    assert (stack.weights >= 0).all()
    assert stack.weights[0] == pytest.approx(1, abs=0.1)
    assert np.mean((Y - outputs) ** 2) < 1.3


def test_classes_have_probabilities_that_sum_to_one():
    arm = np.digitize(Y, [-1.0, 1.0])
    stack, outputs = cross_fit([LogisticRegression(), LogisticRegression(C=0.01)], X, arm, FOLD)
    np.testing.assert_allclose(outputs.sum(1), 1)
    assert stack.predict(X).shape == (200, 3)
    assert cross_fit([LogisticRegression()], X, arm > 0, FOLD)[1].shape == (200,)


def test_folds_hold_whole_tasks_or_else_equal_shares_of_every_stratum():
    task = np.repeat(np.arange(10), 7)
    fold = cross_fit_folds(task, 10, 5)
    assert all(len(set(fold[task == t])) == 1 for t in range(10))
    strata = np.arange(60) % 3
    fold = cross_fit_folds(np.zeros(60, int), 1, 4, strata=strata)
    assert set(np.bincount(fold * 3 + strata)) == {5}
    with pytest.raises(DataError, match="n_folds"):
        cross_fit_folds(task, 10, 1)
