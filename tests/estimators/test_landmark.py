import numpy as np
import pytest

from ehrmeta import MetaClassifier, landmark_posterior
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import DataError


def lines(n_patients=60, n_visits=6, seed=0):
    """Lines with noise, one per patient: groups, time, outcome, slopes."""
    rng = np.random.default_rng(seed)
    level, slope = rng.normal(10, 2, n_patients), rng.normal(0, 1, n_patients)
    groups = np.repeat(np.arange(n_patients), n_visits)
    time = np.tile(np.arange(float(n_visits)), n_patients)
    y = level[groups] + slope[groups] * time + rng.normal(0, 0.1, len(groups))
    return np.zeros((len(groups), 1)), y, groups, time, slope


def test_level_and_slope_are_those_of_the_line():
    X, y, groups, time, slope = lines()
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    adapted = model.adapt(X, y, groups=groups, time=time)
    found = landmark_posterior(adapted, X[:60], groups=np.arange(60), time=np.full(60, 5.0), step=2)
    np.testing.assert_allclose(found["level"], y[5::6], atol=0.4)
    np.testing.assert_allclose(found["slope"], slope, atol=0.2)


def test_patients_without_a_value_get_the_population():
    X, y, groups, time, _ = lines()
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    adapted = model.adapt(X[:6], y[:6], groups=groups[:6], time=time[:6])
    found = landmark_posterior(adapted, X[:2], groups=[0, 77], time=[5.0, 5.0], step=1.0)
    assert found["level"][1] == pytest.approx(model.predict(X[:1], time=[5.0])[0])
    assert found["spread"][1] > 5 * found["spread"][0]


def test_values_of_other_patients_and_their_order_change_nothing():
    X, y, groups, time, _ = lines()
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    alone = model.adapt(X[:6], y[:6], groups=groups[:6], time=time[:6])
    among = model.adapt(X, y, groups=groups, time=time)
    one = landmark_posterior(alone, X[:1], groups=[0], time=[5.0], step=1.0)
    both = landmark_posterior(among, X[:2], groups=[3, 0], time=[5.0, 5.0], step=1.0)
    np.testing.assert_allclose(both.iloc[1], one.iloc[0], rtol=1e-9)


def test_a_forecaster_without_distribution_has_no_spread():
    X, y, groups, time, _ = lines()
    adapted = LastValue().fit(X, y, groups=groups, time=time).adapt(X, y, groups=groups, time=time)
    found = landmark_posterior(adapted, X[:1], groups=[0], time=[5.0], step=1.0)
    assert list(found) == ["level", "slope"]
    assert found["level"][0] == pytest.approx(y[5]) and found["slope"][0] == 0


def test_classes_and_a_step_of_nothing_are_refused():
    X, y, groups, time, _ = lines()
    model = MetaClassifier(max_steps=1, random_state=0, verbose=False)
    model.fit(X, y > 10, groups=groups, time=time)
    adapted = model.adapt(X[:6], (y > 10)[:6], groups=groups[:6], time=time[:6])
    with pytest.raises(DataError, match="Adapt a regressor"):
        landmark_posterior(adapted, X[:1], groups=[0], time=[9.0], step=1.0)
    with pytest.raises(DataError, match="step must be a positive"):
        landmark_posterior(adapted, X[:1], groups=[0], time=[9.0], step=0.0)
