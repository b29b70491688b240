"""`BayesianHead` is Bayesian regression on its features, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import LogisticRegression, Ridge

from ehrmeta import BayesianHead, MetaClassifier, MetaRegressor, TorchModule, make_sinusoid
from ehrmeta.algorithms import Spec
from ehrmeta.errors import DataWarning
from ehrmeta.nn import Bernoulli, Categorical, Normal, TaskSet
from tests.algorithms.one_task import N_FEATURES, points

PRIOR_SD, NOISE_SD = 0.7, 0.4
IDENTITY = TorchModule(lambda n_features, n_outputs: torch.nn.Identity())


def _head(likelihood, newton_steps: int = 40):
    """Identity features and a constant, all weights N(0, PRIOR_SD^2)."""
    algorithm = BayesianHead(N_FEATURES, newton_steps)
    spec = Spec(IDENTITY.network(N_FEATURES, N_FEATURES), likelihood, N_FEATURES)
    params = algorithm.init(spec, torch.Generator().manual_seed(0))
    params["root"] = PRIOR_SD * torch.eye(N_FEATURES + 1, dtype=torch.float64)
    params = {name: value.double() for name, value in params.items()}
    if isinstance(likelihood, Normal):
        params["likelihood.log_within"] = torch.tensor(NOISE_SD).double().log()
    return algorithm, spec, params


def _with_constant(rows: TaskSet) -> np.ndarray:
    return np.column_stack([rows.x.numpy(), np.ones(len(rows.y))])


@pytest.mark.parametrize("n", [1, 3, 20])
def test_identity_features_equal_ridge_and_gaussian_process(n):
    algorithm, spec, params = _head(Normal())
    support, query = points(n), points(5, seed=1)
    state = algorithm.adapt(spec, params, support)
    found = algorithm.predict(spec, params, state, query)
    x, later = _with_constant(support), _with_constant(query)
    ridge = Ridge(alpha=(NOISE_SD / PRIOR_SD) ** 2, fit_intercept=False).fit(x, support.y.numpy())
    np.testing.assert_allclose(found["loc"].numpy(), ridge.predict(later), atol=1e-6)
    kernel = ConstantKernel(PRIOR_SD**2) * DotProduct(1.0) + WhiteKernel(NOISE_SD**2)
    process = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None)
    process.fit(support.x.numpy(), support.y.numpy())
    mean, sd = process.predict(query.x.numpy(), return_std=True)
    np.testing.assert_allclose(found["loc"].numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(found["scale"].numpy(), sd, atol=1e-6)


def test_two_classes_have_the_posterior_mode_of_logistic_regression():
    algorithm, spec, params = _head(Bernoulli())
    support, query = points(12), points(5, seed=1)
    support = support._replace(y=(support.y > 0).double())
    state = algorithm.adapt(spec, params, support)
    latent, _, _ = algorithm._latent(spec, params, state, query)
    oracle = LogisticRegression(
        C=PRIOR_SD**2, fit_intercept=False, solver="newton-cg", tol=1e-10, max_iter=1000
    )
    oracle.fit(_with_constant(support), support.y.numpy())
    expected = oracle.decision_function(_with_constant(query))
    np.testing.assert_allclose(latent[:, 0].numpy(), expected, atol=1e-5)


def test_several_classes_have_the_posterior_mode_of_logistic_regression():
    algorithm, spec, params = _head(Categorical(3))
    support, query = points(15), points(5, seed=1)
    support = support._replace(y=(support.y + 1).round().clamp(0, 2))
    state = algorithm.adapt(spec, params, support)
    latent, _, _ = algorithm._latent(spec, params, state, query)
    oracle = LogisticRegression(
        C=PRIOR_SD**2, fit_intercept=False, solver="newton-cg", tol=1e-10, max_iter=1000
    )
    oracle.fit(_with_constant(support), support.y.numpy())
    expected = oracle.decision_function(_with_constant(query))
    np.testing.assert_allclose(latent.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("likelihood", [Normal(), Bernoulli(), Categorical(3)], ids=str)
def test_own_weight_goes_from_nothing_to_everything(likelihood):
    algorithm, spec, params = _head(likelihood, newton_steps=8)
    query, weights = points(5, seed=1), []
    for n in (0, 1, 5, 50, 5000):
        support = points(n)
        if not isinstance(likelihood, Normal):
            support = support._replace(
                y=(support.y + 1).round().clamp(0, spec.likelihood.n_classes - 1)
            )
        state = algorithm.adapt(spec, params, support)
        weights.append(float(algorithm.own_weight(spec, params, state, query).mean()))
    assert weights[0] == pytest.approx(0.0, abs=1e-12)
    assert weights == sorted(weights)
    assert weights[-1] > 0.97


@pytest.mark.parametrize("sd", [1.0, 2.0, 4.0])
def test_probabilities_of_new_tasks_integrate_over_the_prior(sd):
    """Law 1: plugged in at zero, expected over observed events would be .89 at an sd of 1."""
    algorithm, spec, params = _head(Bernoulli())
    params["root"] = torch.zeros_like(params["root"])
    params["root"][-1, -1] = sd
    params["mean"][-1, 0] = -2.0
    state = algorithm.adapt(spec, params, points(0))
    logits = algorithm.predict(spec, params, state, points(1, seed=1))["logits"]
    p = torch.softmax(logits, -1)[0, 1]
    shift = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * shift**2)
    expected = (torch.sigmoid(-2.0 + sd * shift) * density).sum() / density.sum()
    assert float(p / expected) == pytest.approx(1.0, abs=5e-3)


def test_noise_free_rows_are_met_and_nothing_breaks():
    algorithm, spec, params = _head(Normal())
    params["likelihood.log_within"] = torch.tensor(-40.0).double()
    support = points(20)
    support = support._replace(y=support.x.sum(-1))
    state = algorithm.adapt(spec, params, support)
    found = algorithm.predict(spec, params, state, support)
    torch.testing.assert_close(found["loc"], support.y, atol=1e-4, rtol=0)
    assert found["scale"].isfinite().all()


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
def test_own_weight_reaches_the_user():
    X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
    keywords = {"max_steps": 60, "random_state": 0, "verbose": False}
    model = MetaRegressor(BayesianHead(), **keywords).fit(X, y, groups=groups)
    some = model.adapt(X[:2], y[:2]).own_weight(X[5:10])
    more = model.adapt(X[:8], y[:8]).own_weight(X[5:10])
    assert np.all((some > 0) & (more >= some) & (more < 1))
    assert model.unadapted().own_weight(X[:3]) == pytest.approx(np.zeros(3), abs=1e-6)
    classes = MetaClassifier(BayesianHead(), **keywords).fit(X, y > 0, groups=groups)
    assert classes.adapt(X[:8], y[:8] > 0).own_weight(X[5:10]).mean() > 0


def test_atypical_supports_are_noticed():
    X, y, groups = make_sinusoid(n_tasks=60, n_points=10, random_state=0)
    model = MetaRegressor(BayesianHead(), max_steps=60, random_state=0, verbose=False)
    model.fit(X, y, groups=groups)
    with pytest.warns(DataWarning, match="unlike the training tasks"):
        model.adapt(X[:5], y[:5] + 100.0)
