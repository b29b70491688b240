"""Law 4: with every extra off it is the mixed model; law 5: it consumes what it is given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
import torch

from ehrmeta import DeepMixedEffects, MetaRegressor
from ehrmeta.algorithms import Spec
from ehrmeta.baselines import MixedEffects
from ehrmeta.nn import MLP, Normal, TaskSet
from ehrmeta.nn.gaussian_process import condition, posterior
from tests.estimators.patients import make_patients

MIXED = DeepMixedEffects(ornstein_uhlenbeck=False, n_deep=0, deep_mean=False, correction=False)


def _reaction_times(n_subjects: int = 18, n_days: int = 10) -> pd.DataFrame:
    """Like the sleep deprivation study: a level and a slope of each subject's own."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(n_subjects), n_days)
    day = np.tile(np.arange(float(n_days)), n_subjects)
    own = rng.multivariate_normal([0, 0], [[600, 10], [10, 35]], n_subjects)
    y = 251 + 10.5 * day + own[subject, 0] + own[subject, 1] * day + rng.normal(0, 25, len(day))
    return pd.DataFrame({"subject": subject, "day": day, "y": y})


def _set(day: np.ndarray, y: np.ndarray | None = None, *, last: float) -> TaskSet:
    time = torch.tensor(day) - last
    ones = torch.ones_like(time)
    return TaskSet(
        x=torch.tensor(day)[:, None],
        y=torch.zeros_like(time) if y is None else torch.tensor(y),
        time=time,
        mask=ones.bool(),
        weight=ones,
        offset=torch.zeros_like(time),
    )


def test_equals_statsmodels_random_effects_and_their_covariance():
    table = _reaction_times()
    oracle = smf.mixedlm("y ~ day", table, groups="subject", re_formula="~day").fit()
    spec = Spec(MLP((4,)).network(1, 1), Normal(), 1)
    params = {k: p.double() for k, p in MIXED.init(spec, torch.Generator().manual_seed(0)).items()}
    params |= {
        "intercept": torch.tensor(oracle.fe_params["Intercept"]),
        "beta": torch.tensor([oracle.fe_params["day"]]),
        "root": torch.tensor(np.linalg.cholesky(oracle.cov_re.to_numpy())),
        "likelihood.log_within": torch.tensor(0.5 * np.log(oracle.scale)),
    }
    asked = np.array([0.0, 3.5, 12.0])
    z = np.column_stack([np.ones(3), asked])
    for subject in (0, 7):
        own = table[table.subject == subject]
        support = _set(own.day.to_numpy(), own.y.to_numpy(), last=9.0)
        state = MIXED.adapt(spec, params, support)
        query = _set(asked, last=9.0)
        found = MIXED.predict(spec, params, state, query)
        effects = oracle.random_effects[subject].to_numpy()
        expected = z @ (oracle.fe_params.to_numpy() + effects)
        np.testing.assert_allclose(found["loc"], expected, rtol=1e-6)
        variance = np.einsum("ij,jk,ik->i", z, oracle.random_effects_cov[subject].to_numpy(), z)
        np.testing.assert_allclose(found["scale"] ** 2, variance + oracle.scale, rtol=1e-6)
        prior = np.einsum("ij,jk,ik->i", z, oracle.cov_re.to_numpy(), z)
        weight = MIXED.own_weight(spec, params, state, query)
        np.testing.assert_allclose(weight, 1 - variance / prior, rtol=1e-5)


def test_untrained_it_predicts_like_the_mixed_model_baseline():
    """Through the estimators: REML start, standardisation and encoding included."""
    X, y, groups, time = make_patients(n_patients=15)  # too few to hold any out
    support, query = time < 90, time >= 90
    asked = {"groups": groups[query], "time": time[query]}
    given = {"groups": groups[support], "time": time[support]}
    ours = MetaRegressor(MIXED, random_state=0).fit(X, y, groups=groups, time=time)
    assert ours.history_ == [], "without held-out tasks it stays at its start"
    theirs = MixedEffects().fit(X, y, groups=groups, time=time)
    np.testing.assert_allclose(
        ours.adapt(X[support], y[support], **given).predict(X[query], **asked),
        theirs.adapt(X[support], y[support], **given).predict(X[query], **asked),
        rtol=2e-4,
    )


def test_own_weight_goes_from_zero_to_one():
    X, y, groups, time = make_patients(n_patients=30, n_visits=12)
    model = MetaRegressor(DeepMixedEffects(), max_steps=20, random_state=0, verbose=False)
    model.fit(X, y, groups=groups, time=time)
    weights = []
    for shots in (0, 1, 3, 11):
        one = model.adapt(X[:shots], y[:shots], time=time[:shots])
        weights.append(float(one.own_weight(X[11:12], time=time[11:12])[0]))
    assert weights == sorted(weights)
    assert weights[0] == 0.0
    assert weights[-1] > 0.8


def test_a_step_of_training_needs_a_gain_on_held_out_tasks():
    """With pure noise there is nothing to gain: the start is kept."""
    X, y, groups, time = make_patients(n_patients=40)
    noise = np.random.default_rng(0).normal(size=len(y))
    model = MetaRegressor(DeepMixedEffects(), max_steps=60, random_state=0, verbose=False)
    model.fit(X, noise, groups=groups, time=time)
    assert float(model.learner_.params["mean_gain"]) == 0.0
    assert not model.learner_.params["correction_gain"].any()


def test_conditioning_equals_the_dense_formula_and_ignores_padding():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    kernel, residual = root @ root.mT, torch.randn(7, generator=generator, dtype=torch.float64)
    noise, mask = torch.full((5,), 0.3, dtype=torch.float64), torch.tensor([1, 1, 0, 1, 0]).bool()
    state = condition(kernel[:5, :5], residual[:5] + 1e3 * ~mask, noise, mask)
    mean, variance = posterior(state, kernel[5:, :5], kernel.diagonal()[5:])
    seen = torch.tensor([0, 1, 3])
    gram = kernel[seen][:, seen] + 0.3 * torch.eye(3, dtype=torch.float64)
    gain = kernel[5:][:, seen] @ torch.linalg.inv(gram)
    torch.testing.assert_close(mean, gain @ residual[seen])
    expected = kernel.diagonal()[5:] - (gain * kernel[5:][:, seen]).sum(1)
    torch.testing.assert_close(variance, expected)


@pytest.mark.parametrize("timed", [True, False])
def test_it_works_with_and_without_time(timed):
    X, y, groups, time = make_patients(n_patients=40)
    keywords = {"time": time} if timed else {}
    model = MetaRegressor(DeepMixedEffects(), max_steps=30, random_state=0, verbose=False)
    model.fit(X, y, groups=groups, **keywords)
    part = {name: value[:4] for name, value in keywords.items()}
    rest = {name: value[4:6] for name, value in keywords.items()}
    low, high = model.adapt(X[:4], y[:4], **part).predict_interval(X[4:6], **rest).T
    assert np.all(low < high)
