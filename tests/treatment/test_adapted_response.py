"""Laws of adapted tasks: their effects, outcomes and intervals."""

import numpy as np
import pytest

from ehrmeta import MatchingNet, MetaRegressor
from ehrmeta.errors import DataError, DataWarning, GroupError
from tests.treatment.sites import adapted, fitted, plain, simulate


@pytest.fixture(scope="module")
def train():
    return simulate()


@pytest.fixture(scope="module")
def model(train):
    return fitted(plain(), train)


@pytest.fixture(scope="module")
def new():
    return simulate(20, 220, seed=1).split(20)


def test_swapped_arms_swap_the_sign(model, new):
    effect = model.effect(new[1].X[:5], T0=1, T1=0)
    np.testing.assert_allclose(effect, -model.effect(new[1].X[:5]))
    np.testing.assert_allclose(model.effect(new[1].X[:5], T0=1, T1=1), 0)


def test_outcomes_differ_by_the_effect(model, new):
    support, query = new
    sites = adapted(model, support)
    outcomes = sites.potential_outcomes(query.X, groups=query.groups)
    effect = sites.effect(query.X, groups=query.groups)
    np.testing.assert_allclose(outcomes[:, 1] - outcomes[:, 0], effect)
    one = sites.potential_outcomes(query.X, 1, groups=query.groups)
    np.testing.assert_allclose(one, outcomes[:, 1])
    given = np.where(query.treatment == 1, outcomes[:, 1], outcomes[:, 0])
    assert np.mean((query.y - given) ** 2) < 1.5  # of noise 1


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")  # hardly trained
def test_similar_patients_are_weighed_by_attention(train, new):
    estimator = MetaRegressor(MatchingNet(), max_steps=5, random_state=0, verbose=False)
    model = fitted(plain(estimator=estimator), train)
    support = new[0].take(new[0].groups < 3)
    similar = adapted(model, support).similar_patients(np.zeros((2, 2)), groups=[0, 1])
    np.testing.assert_allclose(similar.groupby("row").weight.sum(), 1, rtol=1e-5)
    assert set(
        support.groups[similar.support_row[(similar.row == 1) & (similar.support_row >= 0)]]
    ) == {1}
    with pytest.raises(DataError, match="MatchingNet"):
        fitted(plain(), train).tasks_.similar_patients(np.zeros((1, 2)), groups=[0])


def test_a_site_of_one_arm_keeps_the_uncertainty_of_no_rows(model):
    support = simulate(3, 40, seed=5)
    only = support.take((support.groups > 0) | (support.treatment == 1))
    with pytest.warns(DataWarning, match="1 of 3 tasks .* one arm only"):
        sites = adapted(model, only)
    assert sites.one_arm_.tolist() == [True, False, False]
    X = np.zeros((1, 2))
    np.testing.assert_allclose(sites.effect(X, groups=[0]), model.effect(X))
    width = np.ptp(sites.effect_interval(X, groups=[0]))
    assert width == pytest.approx(np.ptp(model.effect_interval(X)))
    outcome = sites.potential_outcomes(X, 1, groups=[0])[0]
    levels = [only.y[only.groups == 0].mean(), model.potential_outcomes(X, 1)[0]]
    assert min(levels) < outcome < max(levels)  # but of the outcome it learned


def test_no_rows_is_the_population(model):
    X = np.zeros((2, 2))
    np.testing.assert_allclose(model.unadapted().effect(X), model.effect(X))
    sites = adapted(model, simulate(2, 20, seed=6))
    mixed = sites.effect(X, groups=[0, 9], new_groups="population")
    np.testing.assert_allclose(mixed[1], model.effect(X)[1])
    assert np.isnan(sites.effect(X, groups=[0, 9], new_groups="nan")).tolist() == [False, True]
    with pytest.raises(GroupError, match="1 of 2 rows .* were not adapted"):
        sites.effect(X, groups=[0, 9])
    with pytest.raises(GroupError, match="groups is missing"):
        sites.effect(X)


def test_rows_in_another_order_change_nothing(model):
    support = simulate(3, 30, seed=7)
    order = np.random.default_rng(0).permutation(90)
    X = np.zeros((3, 2))
    np.testing.assert_allclose(
        adapted(model, support.take(order)).effect(X, groups=[0, 1, 2]),
        adapted(model, support).effect(X, groups=[0, 1, 2]),
    )


def test_a_frame_holds_effects_and_their_intervals(model, new):
    support, query = new
    sites = adapted(model, support)
    frame = sites.predict_frame(query.X, groups=query.groups, confidence_level=0.8)
    assert list(frame) == ["task", "effect", "lower", "upper"]
    np.testing.assert_array_equal(frame["effect"], sites.effect(query.X, groups=query.groups))
    interval = sites.effect_interval(query.X, groups=query.groups, confidence_level=0.8)
    np.testing.assert_array_equal(frame[["lower", "upper"]], interval)


def test_a_frame_of_three_arms_has_columns_for_each_but_the_control(train):
    arms = np.array(["a", "b", "c"])[np.arange(len(train.y)) % 3]
    model = plain(propensity=dict.fromkeys("abc", 1 / 3))
    model.fit(train.X, train.y, treatment=arms, groups=train.groups)
    frame = model.unadapted().predict_frame(train.X[:4], as_="polars")
    assert frame.columns == [
        f"{name}_{arm}" for arm in "bc" for name in ("effect", "lower", "upper")
    ]
    effects = model.unadapted().arm_effects(train.X[:4])
    np.testing.assert_array_equal(frame[["effect_b", "effect_c"]].to_numpy(), effects)
