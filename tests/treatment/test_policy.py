"""Values of policies, trees and rankings equal their formulas."""

import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.treatment.policy import (
    best_arms,
    effects_by_rank,
    fit_policy_tree,
    policy_value,
    rank_score,
    rate,
)
from ehrmeta.treatment.row_scores import mean_by_task

RNG = np.random.default_rng(0)


def test_tied_effects_are_one_group():
    everyone = effects_by_rank(np.ones(20), np.arange(20.0), task=np.arange(20) % 12)
    assert everyone.index.tolist() == [1]
    assert everyone.loc[1, ["n", "effect"]].tolist() == [20, 9.5]


def test_a_constant_effect_ranks_no_better_than_chance():
    scores = np.random.default_rng(0).normal(size=100)
    assert rank_score(np.ones(100), scores, kind="qini") == pytest.approx(0)
    assert rank_score(scores, scores) > 0 > rank_score(-scores, scores)


def test_a_policy_that_is_followed_at_random_has_the_mean_of_those_who_follow():
    y, given = RNG.normal(size=400), np.arange(400) % 2
    e, none = np.full((400, 2), 0.5), np.zeros(400, bool)
    scores = np.column_stack([y, y + 1])
    ones = np.ones(400, int)
    weighted = policy_value(scores, y, given, e, none, ones, method="ipw")
    assert weighted.value == pytest.approx(y[given == 1].mean())
    assert weighted.n_eff == pytest.approx(200)
    robust = policy_value(scores, y, given, e, none, ones)
    assert robust.value == pytest.approx(y.mean() + 1)
    assert robust.se == pytest.approx(y.std(ddof=1) / 20)
    with pytest.raises(DataError, match="none of the 400 rows got"):
        policy_value(scores, y, given, e, none, 2 * ones)


def test_the_best_arm_leads_the_next_best():
    best, second, margin = best_arms(np.array([[0.0, 2.0, 5.0], [1.0, 1.0, 0.0]]))
    assert best.tolist() == [2, 0]
    assert second.tolist() == [1, 1]
    assert margin.tolist() == [3, 0]


def test_a_tree_splits_where_the_best_arm_changes():
    x = RNG.uniform(-1, 1, size=(300, 2))
    gain = np.column_stack([np.zeros(300), np.where(x[:, 1] > 0.2, 1.0, -1.0)])
    tree = fit_policy_tree(x, gain, np.array(["a", "b"]), ("age", "bmi"), max_depth=1)
    assert np.mean((tree.predict(x) == 1) == (x[:, 1] > 0.2)) > 0.98
    assert str(tree).startswith("gain of [a, b]")
    assert "bmi" in str(tree)


def test_tasks_are_resampled_whole():
    effect = RNG.normal(size=240)
    scores, task = effect + RNG.normal(size=240), np.repeat(np.arange(24), 10)
    by_row, by_task = rate(effect, scores), rate(effect, scores, task=task)
    assert by_row.value == by_task.value > by_row.low > 0
    assert by_row.se != by_task.se


@pytest.mark.parametrize(
    "interval_of",
    [
        lambda level: policy_value(
            np.zeros((4, 2)),
            np.arange(4.0),
            np.ones(4, int),
            np.full((4, 2), 0.5),
            np.zeros(4, bool),
            np.ones(4, int),
            confidence_level=level,
        ),
        lambda level: rate(np.arange(4.0), np.arange(4.0), confidence_level=level),
        lambda level: mean_by_task(np.arange(4.0), np.zeros(4, int), confidence_level=level),
    ],
)
def test_every_interval_refuses_an_impossible_level(interval_of):
    with pytest.raises(DataError, match="confidence_level must lie strictly between 0 and 1"):
        interval_of(1.2)
