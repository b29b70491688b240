"""Carry forward: what repeats is told from what moves, and nothing is carried from nobody."""

from __future__ import annotations

import numpy as np
import pytest

from ehrmeta import CarryForward, DeepMixedEffects, MetaRegressor
from ehrmeta.estimators.predictions import CarriedPredictive

N_PATIENTS, N_VISITS, SHOTS = 120, 12, 6

# Steps without any measurement error leave no noise to measure a support's distance by.
pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def walks(stay: float, seed: int = 0, resolution: float = 1.0):
    """Patients who stay where they are with a probability, else move by a few steps."""
    rng = np.random.default_rng(seed)
    shape = (N_PATIENTS, N_VISITS)
    steps = rng.integers(1, 4, shape) * rng.choice([-1, 1], shape)
    y = 20.0 + (steps * (rng.random(shape) > stay)).cumsum(1) * resolution
    patients = np.repeat(np.arange(N_PATIENTS), N_VISITS)
    return np.zeros((y.size, 1)), y.ravel(), patients, np.tile(np.arange(N_VISITS), N_PATIENTS)


def fitted(algorithm, X, y, groups, time):
    model = MetaRegressor(
        algorithm, shots=(2, 10), validation_fraction=0.0, random_state=0, device="cpu"
    )
    return model.fit(X, y, groups=groups, time=time)


@pytest.fixture(scope="module")
def sticky():
    return fitted(CarryForward(random_slope=False), *walks(0.8))


def later_visits(model, X, y, groups, time):
    """The distributions of all visits after the support, their outcomes and the last values."""
    shown, queried = time < SHOTS, time >= SHOTS
    adapted = model.adapt(X[shown], y[shown], groups=groups[shown], time=time[shown])
    found = adapted.predict_distribution(X[queried], groups=groups[queried], time=time[queried])
    return found, y[queried], y[time == SHOTS - 1][groups[queried]]


def test_the_share_that_stays_is_recovered(sticky):
    found, y, last = later_visits(sticky, *walks(0.8, seed=1))
    assert isinstance(found, CarriedPredictive)
    carried = found.outcome.inverse(found.last)
    np.testing.assert_allclose(carried, last, rtol=1e-5)
    assert found.unchanged.mean() == pytest.approx((y == last).mean(), abs=0.06)
    likely = found.unchanged > 0.5
    assert likely.mean() > 0.1
    np.testing.assert_allclose(found.quantile(0.5)[likely], last[likely], rtol=1e-5)


def test_what_hardly_repeats_is_not_carried():
    rows = walks(0.0, resolution=0.1)
    model = fitted(CarryForward(), *rows)
    found, _, _ = later_visits(model, *rows)
    assert found.unchanged.max() < 1e-9


def test_nobody_has_no_last_value(sticky):
    plain = fitted(DeepMixedEffects(random_slope=False), *walks(0.8))
    X = np.zeros((4, 1))
    for time in (np.zeros(4), np.arange(4)):
        ours, theirs = (
            model.unadapted().predict_distribution(X, time=time) for model in (sticky, plain)
        )
        np.testing.assert_array_equal(ours.unchanged, 0.0)
        np.testing.assert_allclose(ours.loc, theirs.loc, rtol=1e-5)
        np.testing.assert_allclose(ours.scale, theirs.scale, rtol=1e-5)
        np.testing.assert_allclose(ours.quantile(0.3), theirs.quantile(0.3), rtol=1e-5)


def test_without_time_it_is_deep_mixed_effects():
    X, y, groups, _ = walks(0.8)
    models = [
        fitted(algorithm, X, y, groups, None) for algorithm in (CarryForward(), DeepMixedEffects())
    ]
    ours, theirs = (model.adapt(X[:5], y[:5]).predict(X[5:9]) for model in models)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_file_keeps_it_bit_for_bit(sticky, tmp_path):
    sticky.save(tmp_path / "sticky.ehrmeta")
    X, y, _, time = walks(0.8, seed=1)
    again = MetaRegressor.load(tmp_path / "sticky.ehrmeta", device="cpu")
    before, after = (
        model.adapt(X[:SHOTS], y[:SHOTS], time=time[:SHOTS]).predict(X[:3], time=[7, 8, 9])
        for model in (sticky, again)
    )
    np.testing.assert_array_equal(before, after)


def test_neither_other_patients_nor_the_order_of_rows_matter(sticky):
    X, y, groups, time = walks(0.8, seed=1)
    chosen = time < np.where(groups % 2, SHOTS, 3)  # supports of two sizes, so padded
    order = np.random.default_rng(0).permutation(np.flatnonzero(chosen))
    ahead = {"X": np.zeros((2, 1)), "time": [7.0, 9.0]}
    together = sticky.adapt(X[order], y[order], groups=groups[order], time=time[order])
    for patient in (0, 1):
        own = chosen & (groups == patient)
        alone = sticky.adapt(X[own], y[own], time=time[own]).predict(**ahead)
        among = together.predict(**ahead, groups=[patient] * 2)
        np.testing.assert_allclose(among, alone, rtol=1e-5)
