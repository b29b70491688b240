"""How models of a suite are fitted."""

import numpy as np
import pytest

from benchmarks.suite.cells import Fitted
from benchmarks.suite.fitting import joined_folds, prepared, subsample
from ehrmeta.baselines import LastValue
from ehrmeta.data import load_dataset
from ehrmeta.estimators import MetaRegressor


def test_folds_are_joined_in_turn_by_k():
    first = Fitted({0: {"x": np.array([1.0])}, 1: {"x": np.array([2.0])}}, 1.0, 3.0, "a")
    second = Fitted({0: {"x": np.array([4.0, 5.0])}}, 3.0, 5.0, "b")
    folds = joined_folds([first, second])
    np.testing.assert_array_equal(folds.scores[0]["x"], [1.0, 4.0, 5.0])
    np.testing.assert_array_equal(folds.scores[1]["x"], [2.0])
    assert (folds.seconds, folds.tuning_seconds, folds.settings) == (2.0, 4.0, ("a", "b"))


def test_one_fold_without_scores_leaves_none():
    folds = joined_folds([Fitted({0: {"x": np.zeros(1)}}), Fitted({}, note="diverged")])
    assert (folds.scores, folds.note) == ({}, "diverged")


def test_only_parameters_that_a_model_has_are_set():
    learner = prepared(MetaRegressor(), seed=3, max_steps=7)
    assert (learner.random_state, learner.max_steps) == (3, 7)
    assert prepared(MetaRegressor(max_steps=9)).max_steps == 9
    assert prepared(LastValue(), seed=3).get_params() == LastValue().get_params()


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.DataWarning")
def test_whole_patients_are_drawn_and_the_same_ones_by_one_seed():
    table = load_dataset("pbcseq")
    few = subsample(table, 20, 0)
    assert few.n_tasks == 20
    sizes = dict(zip(table.tasks.labels, table.tasks.sizes, strict=True))
    drawn = dict(zip(few.tasks.labels, few.tasks.sizes, strict=True))
    assert all(sizes[patient] == size for patient, size in drawn.items())
    np.testing.assert_array_equal(subsample(table, 20, 0).groups, few.groups)
    assert subsample(table, 10**6, 0) is table
