"""The generalised mixed model against normal theory, its own definition and finite samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import multivariate_normal

from ehrmeta.nn.generalised_mixed_model import (
    GeneralisedMixedModel,
    fit_generalised_mixed_model,
    posterior_effects,
)


def make(n_tasks=60, n_rows=60, sd=(0.8, 0.5, 0.0), seed=0):
    rng = np.random.default_rng(seed)
    starts = np.arange(0, n_tasks * n_rows + 1, n_rows)
    z = np.column_stack([np.ones(starts[-1]), rng.normal(size=(starts[-1], len(sd) - 1))])
    effects = np.repeat(rng.normal(size=(n_tasks, len(sd))) * np.asarray(sd), n_rows, axis=0)
    eta = z @ np.linspace(-1.0, 1.0, len(sd)) + np.sum(z * effects, axis=1)
    return z, eta, starts, rng


def test_two_classes_are_recovered_and_effects_that_do_not_differ_vanish():
    z, eta, starts, rng = make(n_tasks=100)
    y = (rng.random(len(eta)) < expit(eta)).astype(float)
    found = fit_generalised_mixed_model(z, z, y, starts, binary=True)
    np.testing.assert_allclose(found.beta, [-1.0, 0.0, 1.0], atol=0.25)
    np.testing.assert_allclose(found.sd, [0.8, 0.5, 0.0], atol=0.12)
    assert found.noise_var is None


def test_a_normal_outcome_has_the_likelihood_and_posterior_of_the_joint_normal():
    z, eta, starts, rng = make(n_tasks=8, n_rows=9)
    y = eta + rng.normal(size=len(eta)) * 0.7
    found = fit_generalised_mixed_model(z, z, y, starts, binary=False, beta_sd=np.inf)
    effects, covariance = posterior_effects(found, z, z, y, starts)
    total = 0.0
    for task, (a, b) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        zs = z[a:b] * found.sd
        v = zs @ zs.T + found.noise_var * np.eye(b - a)
        residual = y[a:b] - z[a:b] @ found.beta
        total += multivariate_normal(cov=v).logpdf(residual)
        gain = (found.sd * zs).T @ np.linalg.inv(v)
        np.testing.assert_allclose(effects[task], gain @ residual, atol=1e-8)
        left = np.diag(found.sd**2) - gain @ (zs * found.sd)
        np.testing.assert_allclose(covariance[task], left, atol=1e-8)
    assert found.log_likelihood == pytest.approx(total)


def test_the_estimate_is_a_maximum_of_the_marginal_likelihood():
    """The exact gradient leads where a search without gradients cannot improve."""
    z, eta, starts, rng = make(n_tasks=15, n_rows=20, sd=(0.9, 0.6))
    y = (rng.random(len(eta)) < expit(eta)).astype(float)
    found = fit_generalised_mixed_model(z, z, y, starts, binary=True, beta_sd=np.inf)

    def laplace(theta):
        sd, total = np.exp(theta[2:]), 0.0
        for a, b in zip(starts[:-1], starts[1:], strict=True):
            fixed, zs = z[a:b] @ theta[:2], z[a:b] * sd

            def joint(u, fixed=fixed, zs=zs, y=y[a:b]):
                eta = fixed + zs @ u
                return -np.sum(y * eta - np.logaddexp(0, eta)) + 0.5 * u @ u

            mode = minimize(joint, np.zeros(2), method="BFGS").x
            p = expit(fixed + zs @ mode)
            curvature = np.eye(2) + (zs * (p * (1 - p))[:, None]).T @ zs
            total += -joint(mode) - 0.5 * np.linalg.slogdet(curvature)[1]
        return total

    at = np.concatenate([found.beta, np.log(found.sd)])
    assert laplace(at) == pytest.approx(found.log_likelihood, abs=1e-4)
    for move in np.vstack([np.eye(4), -np.eye(4)]) * 0.05:
        assert laplace(at + move) < found.log_likelihood


def test_shared_effects_have_one_sd():
    z, eta, starts, rng = make(n_tasks=30)
    y = (rng.random(len(eta)) < expit(eta)).astype(float)
    shared = np.array([0, 1, 1])
    found = fit_generalised_mixed_model(z, z, y, starts, binary=True, shared=shared)
    assert found.sd[1] == found.sd[2] != found.sd[0]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tasks_of_one_class_and_without_rows_have_finite_effects(value):
    model = GeneralisedMixedModel(np.array([-5.0]), np.array([1.5]), None, 0.0)
    one = np.ones((30, 1))
    effects, covariance = posterior_effects(
        model, one, one, np.full(30, value), np.array([0, 30, 30])
    )
    assert np.sign(effects[0, 0]) == 2 * value - 1
    assert effects[1, 0] == 0.0
    np.testing.assert_allclose(covariance[1], 1.5**2)
    assert 0 < covariance[0, 0, 0] < 1.5**2


def test_separated_classes_stay_finite():
    x = np.column_stack([np.ones(100), np.tile(np.linspace(-1, 1, 50), 2)])
    y = (x[:, 1] > 0).astype(float)
    starts = np.array([0, 50, 100])
    found = fit_generalised_mixed_model(x, x[:, :1], y, starts, binary=True)
    assert np.isfinite(found.beta).all()
    assert found.beta[1] > 1.0
