"""Laws of the mixed models: statsmodels' BLUP, and coverage of intervals."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from ehrmeta.baselines import MixedEffects, MixedProcessEffects
from ehrmeta.data import Clock, Feature, Schema
from ehrmeta.errors import DataWarning


def longitudinal(n_patients=150, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 10, n_patients)
    groups = np.repeat(np.arange(n_patients), sizes)
    n = len(groups)
    days = rng.uniform(0, 10, n)
    age = rng.normal(60, 10, n_patients)[groups]
    b = rng.multivariate_normal([0, 0], [[40, 2], [2, 3]], n_patients)[groups]
    y = 200 + 0.5 * age + 2 * days + b[:, 0] + b[:, 1] * days + rng.normal(0, 4, n)
    return pd.DataFrame({"age": age}), y, groups, days


def arms(sizes, seed=0):
    """Five rows of every patient, of arms that are ten apart."""
    rng = np.random.default_rng(seed)
    arm = np.repeat(np.arange(len(sizes)), sizes)
    groups = np.repeat(np.arange(len(arm)), 5)
    y = (10 * arm + rng.normal(0, 1, len(arm)))[groups] + rng.normal(0, 1, len(groups))
    return pd.DataFrame({"arm": np.array(list("abc"))[arm[groups]]}), y, groups


@pytest.mark.parametrize("sizes", [(9, 9, 9), (30, 30, 3), (4, 4, 4)])
def test_arms_of_few_patients_are_distinguished(sizes):
    X, y, groups = arms(sizes)
    model = MixedEffects().fit(X, y, groups=groups)
    means = pd.Series(y).groupby(X["arm"]).mean()
    predicted = model.predict(pd.DataFrame({"arm": list("abc")}))
    np.testing.assert_allclose(predicted, means, atol=0.5)


@pytest.mark.parametrize("unknown", ["A", "a ", "hospice", None])
def test_an_unknown_level_is_the_average_of_the_levels(unknown):
    X, y, groups = arms((20, 20, 20))
    model = MixedEffects().fit(X, y, groups=groups)
    with pytest.warns(DataWarning, match="'arm': 1 with"):
        (predicted,) = model.predict(pd.DataFrame({"arm": [unknown]}, dtype=object))
    levels = model.predict(pd.DataFrame({"arm": list("abc")}))
    assert predicted == pytest.approx(levels.mean())
    with pytest.warns(DataWarning, match="'arm': 1 with"):
        adapted = model.adapt(pd.DataFrame({"arm": [unknown]}, dtype=object), [12.0])
    assert adapted.predict(pd.DataFrame({"arm": ["a"]})) > levels[0]


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_equals_statsmodels_prediction_of_random_effects():
    X, y, groups, days = longitudinal()
    ones = np.ones(len(y))
    theirs = sm.MixedLM(
        y, np.column_stack([ones, X["age"], days]), groups, np.column_stack([ones, days])
    ).fit()
    model = MixedEffects().fit(X, y, groups=groups, time=days)
    adapted = model.adapt(X, y, groups=groups, time=days)
    predicted = adapted.predict(X, groups=groups, time=days)
    np.testing.assert_allclose(predicted, theirs.fittedvalues, rtol=1e-4)


def test_interval_of_a_new_patient_is_that_of_the_joint_normal():
    X, y, groups, days = longitudinal()
    model = MixedEffects().fit(X, y, groups=groups, time=days)
    ones = np.ones(len(y))
    theirs = sm.MixedLM(
        y, np.column_stack([ones, X["age"], days]), groups, np.column_stack([ones, days])
    ).fit()
    new, new_y, new_groups, new_days = longitudinal(1, seed=9)
    z = np.column_stack([np.ones(len(new_y)), new_days])
    v = z @ theirs.cov_re @ z.T + theirs.scale * np.eye(len(new_y))
    centre = np.column_stack([z[:, 0], new["age"], new_days]) @ theirs.fe_params
    gain = np.linalg.solve(v[:2, :2], v[:2, 2:]).T
    mean = centre[2:] + gain @ (new_y - centre)[:2]
    sd = np.sqrt(np.diag(v[2:, 2:] - gain @ v[:2, 2:]))
    adapted = model.adapt(new[:2], new_y[:2], time=new_days[:2])
    interval = adapted.predict_interval(new[2:], time=new_days[2:], confidence_level=0.95)
    np.testing.assert_allclose(interval[:, 0], mean - 1.959964 * sd, rtol=1e-3)
    np.testing.assert_allclose(interval[:, 1], mean + 1.959964 * sd, rtol=1e-3)
    prior = np.diag(z @ theirs.cov_re @ z.T)[2:]
    weight = adapted.own_weight(new[2:], time=new_days[2:])
    np.testing.assert_allclose(weight, 1 - (sd**2 - theirs.scale) / prior, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_intervals_cover_new_patients():
    X, y, groups, days = longitudinal(2000)
    train = groups < 1000
    model = MixedEffects().fit(X[train], y[train], groups=groups[train], time=days[train])
    first = pd.Series(groups).groupby(groups).cumcount().to_numpy() < 2
    support, query = ~train & first, ~train & ~first
    adapted = model.adapt(X[support], y[support], groups=groups[support], time=days[support])
    interval = adapted.predict_interval(X[query], groups=groups[query], time=days[query])
    inside = (interval[:, 0] <= y[query]) & (y[query] <= interval[:, 1])
    assert inside.mean() == pytest.approx(0.9, abs=0.02)
    p = adapted.atypical_
    assert np.quantile(p, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_own_weight_and_shrinkage_separate_population_from_own_data():
    X, y, groups, days = longitudinal()
    model = MixedEffects().fit(X, y, groups=groups, time=days)
    np.testing.assert_allclose(model.unadapted().own_weight(X[:4], time=days[:4]), 0, atol=1e-12)
    weights = [
        model.adapt(X[:k], y[:k], time=days[:k]).own_weight(X[:1], time=days[:1])[0]
        for k in (1, 2, 3)
    ]
    assert 0 < weights[0] < weights[1] < weights[2] < 1
    adapted = model.adapt(X, y, groups=groups, time=days)
    assert 0 < adapted.eta_shrinkage_ < 0.5


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_a_clock_without_a_known_origin_serves_through_differences_only():
    X, y, groups, days = longitudinal()
    schema = Schema((Feature("age"),), time=Clock("day", is_feature=False))
    shift = np.random.default_rng(0).normal(0, 500, 150)[groups]  # one time origin per patient
    plain = MixedEffects(schema=schema).fit(X, y, groups=groups, time=days)
    shifted = MixedEffects(schema=schema).fit(X, y, groups=groups, time=days + shift)
    predicted = [
        model.adapt(X, y, groups=groups, time=t).predict(X, groups=groups, time=t + 1)
        for model, t in ((plain, days), (shifted, days + shift))
    ]
    np.testing.assert_allclose(predicted[0], predicted[1], rtol=1e-5)
    alone = [model.predict(X, time=t) for model, t in ((plain, days), (shifted, days + shift))]
    np.testing.assert_allclose(alone[0], alone[1], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_random_intercept_only_moves_every_prediction_of_a_patient_alike():
    X, y, groups, days = longitudinal()
    model = MixedEffects(random_slope=False).fit(X, y, groups=groups, time=days)
    adapted = model.adapt(X[:2], y[:2], time=days[:2])
    shift = adapted.predict(X[2:9], time=days[2:9]) - model.predict(X[2:9], time=days[2:9])
    np.testing.assert_allclose(shift, shift[0])
    assert model.mixed_model_.G.shape == (1, 1)


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_log_outcomes_come_back_on_their_own_scale():
    X, y, groups, days = longitudinal()
    model = MixedEffects(outcome_transform="log").fit(X, np.exp(y / 100), groups=groups, time=days)
    plain = MixedEffects().fit(X, y, groups=groups, time=days)
    pair = [
        m.adapt(X[:3], values[:3], time=days[:3]).predict_interval(X[3:5], time=days[3:5])
        for m, values in ((model, np.exp(y / 100)), (plain, y))
    ]
    np.testing.assert_allclose(np.log(pair[0]) * 100, pair[1], rtol=1e-4)


def walks(n_patients=300, seed=0):
    """Patients with random levels, trends and Ornstein-Uhlenbeck processes of tau = 5."""
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


def test_the_parameters_are_recovered(model):
    variance = model.table_.outcome.scale**2
    assert model.tau_ == pytest.approx(5, rel=0.4)
    assert model.process_var_ * variance == pytest.approx(4, rel=0.3)
    assert model.noise_var_ * variance == pytest.approx(0.25, rel=0.5)


def test_it_predicts_the_conditional_of_the_joint_normal(model):
    X, y, _, days = walks(seed=1)
    adapted = model.adapt(X[:4], y[:4], time=days[:4])
    distribution = adapted.predict_distribution(X[4:9], time=days[4:9])
    time = days[:9]
    z = np.column_stack([np.ones(9), (time - model.table_.time_center) / model.table_.time_scale])
    # the clock is a feature: fixed design [1, x, s], x constant
    mean = np.column_stack([z[:, 0], np.zeros(9), z[:, 1]]) @ model.beta_
    gap = np.abs(time[:, None] - time)
    prior = z @ model.G_ @ z.T + model.process_var_ * np.exp(-gap / model.tau_)
    joint = prior + model.noise_var_ * np.eye(9)
    gain = joint[4:, :4] @ np.linalg.inv(joint[:4, :4])
    scaled = model.table_.outcome.forward(y[:4])
    np.testing.assert_allclose(distribution.loc, mean[4:] + gain @ (scaled - mean[:4]), rtol=1e-5)
    variance = np.diag(joint[4:, 4:] - gain @ joint[:4, 4:])
    np.testing.assert_allclose(distribution.scale**2, variance, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
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
