"""Laws of the mixed model with a process: it is the joint normal's conditional, and recovers."""

import numpy as np
import pytest

from ehrmeta.baselines import MixedEffects, MixedProcessEffects


def walks(n_patients=300, seed=0):
    """Level, trend and an Ornstein-Uhlenbeck process with tau = 5 of each patient's own."""
    rng = np.random.default_rng(seed)
    days = np.sort(rng.uniform(0, 40, (n_patients, 10)), axis=1)
    gap = np.abs(days[:, :, None] - days[:, None, :])
    root = np.linalg.cholesky(4.0 * np.exp(-gap / 5.0) + 1e-9 * np.eye(10))
    process = (root @ rng.normal(size=(n_patients, 10, 1)))[..., 0]
    level, slope = rng.normal(0, 2, (n_patients, 1)), rng.normal(0, 0.1, (n_patients, 1))
    y = 10 + level + slope * (days - 20) + process + rng.normal(0, 0.5, days.shape)
    groups = np.repeat(np.arange(n_patients), 10)
    return np.zeros((len(groups), 1)), y.ravel(), groups, days.ravel()


@pytest.fixture(scope="module")
def model():
    X, y, groups, days = walks()
    return MixedProcessEffects().fit(X, y, groups=groups, time=days)


def test_the_parameters_are_found_again(model):
    variance = model.table_.outcome.scale**2
    assert model.tau_ == pytest.approx(5, rel=0.4)
    assert model.process_var_ * variance == pytest.approx(4, rel=0.3)
    assert model.noise_var_ * variance == pytest.approx(0.25, rel=0.5)


def test_it_predicts_the_conditional_of_the_joint_normal(model):
    X, y, _, days = walks(seed=1)
    adapted = model.adapt(X[:4], y[:4], time=days[:4])
    found = adapted.predict_distribution(X[4:9], time=days[4:9])
    time = days[:9]
    z = np.column_stack([np.ones(9), (time - model.table_.time_center) / model.table_.time_scale])
    # the clock is a feature: fixed design [1, x, s], x constant
    mean = np.column_stack([z[:, 0], np.zeros(9), z[:, 1]]) @ model.beta_
    gap = np.abs(time[:, None] - time)
    prior = z @ model.G_ @ z.T + model.process_var_ * np.exp(-gap / model.tau_)
    joint = prior + model.noise_var_ * np.eye(9)
    gain = joint[4:, :4] @ np.linalg.inv(joint[:4, :4])
    scaled = model.table_.outcome.forward(y[:4])
    np.testing.assert_allclose(found.loc, mean[4:] + gain @ (scaled - mean[:4]), rtol=1e-5)
    variance = np.diag(joint[4:, 4:] - gain @ joint[:4, 4:])
    np.testing.assert_allclose(found.scale**2, variance, rtol=1e-6)


def test_where_patients_drift_it_beats_the_mixed_model(model):
    X, y, groups, days = walks(seed=1)
    plain = MixedEffects().fit(*walks()[:2], groups=groups, time=walks()[3])
    first = np.tile(np.arange(10) < 5, 300)
    errors = [
        y[~first]
        - each.adapt(X[first], y[first], groups=groups[first], time=days[first]).predict(
            X[~first], groups=groups[~first], time=days[~first]
        )
        for each in (model, plain)
    ]
    assert np.mean(errors[0] ** 2) < 0.97 * np.mean(errors[1] ** 2)


def test_own_weight_fades_with_the_time_since_the_support(model):
    X, y, _, days = walks(seed=1)
    adapted = model.adapt(X[:5], y[:5], time=days[:5])
    weight = adapted.own_weight(X[:3], time=days[4] + np.array([0.1, 3.0, 9.0]))
    assert 1 > weight[0] > weight[1] > weight[2] > 0
