"""The generalised mixed model against normal theory, its own definition and finite samples."""

import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit, log_expit, logsumexp
from scipy.stats import multivariate_normal, norm

from ehrmeta.nn import generalised_mixed_model
from ehrmeta.nn.generalised_mixed_model import (
    GeneralisedMixedModel,
    Sites,
    fit_generalised_mixed_model,
    matched_observations,
    matched_sites,
    posterior_effects,
)
from ehrmeta.nn.mixed_model import fit_mixed_model, posterior
from tests.nn.test_mixed_process import assert_gradient, searched


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


def test_a_normal_outcome_is_the_linear_mixed_model():
    z, eta, starts, rng = make(n_tasks=12, n_rows=9, sd=(0.8, 0.5))
    y = eta + rng.normal(size=len(eta)) * 0.7
    found = fit_generalised_mixed_model(z, z[:, :1], y, starts, binary=False, beta_sd=1e4)
    oracle = fit_mixed_model(z, z[:, :1], y, starts)
    np.testing.assert_allclose(found.beta, oracle.beta, rtol=1e-3)
    np.testing.assert_allclose(found.beta_cov, oracle.beta_cov, rtol=1e-3)
    np.testing.assert_allclose(found.sd**2, oracle.G[0], rtol=1e-3)
    assert found.noise_var == pytest.approx(oracle.noise_var, rel=1e-3)
    effects, covariance = posterior_effects(found, z, z[:, :1], y, starts)
    mean, left = posterior(oracle, z, z[:, :1], y, starts)
    np.testing.assert_allclose(effects, mean, atol=1e-3)
    assert (covariance <= left + 1e-3).all(), "beta is given here, and estimated there"


def by_quadrature(offset, y, sd):
    """Log of the integral over a random intercept, its mean and its variance, a row per task."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    eta = offset[:, :, None] + sd * nodes
    sign = 2 * y[:, :, None] - 1
    log_terms = log_expit(sign * eta).sum(1) + np.log(weights / weights.sum())
    log_total = logsumexp(log_terms, axis=1)
    share = np.exp(log_terms - log_total[:, None])
    mean = sd * (share @ nodes)
    return log_total, mean, sd**2 * (share @ nodes**2) - mean**2


@pytest.mark.parametrize("sd", [0.8, 2.5])
def test_few_rows_a_task_are_met_as_by_quadrature(sd):
    """Four rows a task: Laplace's likelihood and mode are far off where tasks differ much."""
    rng = np.random.default_rng(2)
    offset = 0.5 + rng.normal(size=(150, 4))
    y = (rng.random((150, 4)) < expit(offset + sd * rng.normal(size=(150, 1)))).astype(float)
    starts, one = np.arange(0, 601, 4), np.ones((600, 1))
    rows = (one[:, :0], one, y.ravel(), starts)
    found = fit_generalised_mixed_model(*rows, binary=True, offset=offset.ravel())
    log_sd = np.log(found.sd[0])
    exact = {move: by_quadrature(offset, y, np.exp(log_sd + move)) for move in (-0.1, 0.0, 0.1)}
    total = {move: values[0].sum() for move, values in exact.items()}
    assert total[0.0] == max(total.values()), "the estimate is a maximum of the exact likelihood"
    assert found.log_likelihood == pytest.approx(total[0.0], rel=0.01)
    effects, covariance = posterior_effects(found, *rows, offset.ravel())
    np.testing.assert_allclose(effects[:, 0], exact[0.0][1], atol=0.03 * sd)
    np.testing.assert_allclose(covariance[:, 0, 0], exact[0.0][2], rtol=0.12)


def by_all_rows_at_once(x, z, y, starts, sd, offset, beta_sd=10.0):
    """Expectation propagation with the covariance of all rows: log-likelihood, mean of beta."""
    task = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    prior = beta_sd**2 * x @ x.T + (task[:, None] == task) * ((z * sd**2) @ z.T)
    p = expit(offset)
    first = (p * (1 - p), y - p + p * (1 - p) * offset, 0 * p)
    sites = Sites(*(torch.from_numpy(part) for part in first))
    for _ in range(20):
        precision, pull, log_scale = (part.numpy() for part in sites)
        target, noise = pull / precision, 1 / precision
        gain = np.linalg.solve(prior + np.diag(noise), prior).T
        mean, variance = offset + gain @ (target - offset), np.diag(prior - gain @ prior)
        moments = [torch.from_numpy(part.copy()) for part in (y, 0 * y + 1, mean, variance)]
        sites = matched_sites(*moments, sites)
    marginal = multivariate_normal(offset, prior + np.diag(noise)).logpdf(target)
    total = log_scale + 0.5 * np.log(2 * np.pi * noise) + 0.5 * pull * target
    weight = np.linalg.solve(prior + np.diag(noise), target - offset)
    return marginal + total.sum(), beta_sd**2 * x.T @ weight


def test_tasks_of_all_sizes_are_met_as_by_all_rows_at_once():
    sizes = [1, 2, 3, 3, 5, 6, 9, 120, 0, 40]
    starts, rng = np.concatenate([[0], np.cumsum(sizes)]), np.random.default_rng(1)
    z = np.column_stack([np.ones(starts[-1]), rng.normal(size=starts[-1])])
    effects = np.repeat(rng.normal(size=(len(sizes), 2)), sizes, axis=0)
    offset = rng.normal(size=len(z))
    y = (rng.random(len(z)) < expit(offset + np.sum(z * effects, axis=1))).astype(float)
    found = fit_generalised_mixed_model(z, z, y, starts, binary=True, offset=offset)
    log_likelihood, beta = by_all_rows_at_once(z, z, y, starts, found.sd, offset)
    assert found.log_likelihood == pytest.approx(log_likelihood, abs=1e-3)
    np.testing.assert_allclose(found.beta, beta, atol=1e-6)
    for move in ([1.1, 1], [1 / 1.1, 1], [1, 1.1], [1, 1 / 1.1]):
        other, _ = by_all_rows_at_once(z, z, y, starts, found.sd * move, offset)
        assert other < log_likelihood, "the estimate is a maximum"
    effects, covariance = posterior_effects(found, z, z, y, starts, offset)
    for i, (a, b) in enumerate(pairwise(starts)):
        alone = posterior_effects(found, z[a:b], z[a:b], y[a:b], np.array([0, b - a]), offset[a:b])
        np.testing.assert_allclose(effects[i], alone[0][0], atol=1e-6)
        np.testing.assert_allclose(covariance[i], alone[1][0], atol=1e-6)


def test_one_large_task_does_not_make_all_tasks_large():
    z, eta, starts, rng = make(n_tasks=300, n_rows=5, sd=(0.8, 0.5))
    starts = np.append(starts[:-100], starts[-1])  # the last 101 tasks are one
    y = (rng.random(len(eta)) < expit(eta)).astype(float)

    def seconds(starts):
        began = time.process_time()
        fit_generalised_mixed_model(z, z, y, starts, binary=True)
        return time.process_time() - began

    assert seconds(starts) < 5 * seconds(np.arange(0, len(y) + 1, 5))


def test_a_rate_takes_what_few_tasks_leave_open_to_be_small():
    changes = {}
    for n_tasks in (4, 200):
        z, eta, starts, rng = make(n_tasks=n_tasks, sd=(0.8, 0.5))
        y = (rng.random(len(eta)) < expit(eta)).astype(float)
        free = fit_generalised_mixed_model(z, z, y, starts, binary=True)
        rate = np.array([3.0, 6.0])
        held = fit_generalised_mixed_model(z, z, y, starts, binary=True, rate=rate)
        changes[n_tasks] = held.sd / free.sd
    assert (changes[4] < 0.9).all()
    assert (changes[200] > 0.97).all()


def test_coefficients_that_tasks_hardly_show_are_shrunk():
    """A feature that is constant within tasks is known no better than there are tasks."""
    rng = np.random.default_rng(1)
    starts = np.arange(0, 601, 50)
    x = np.column_stack(
        [np.ones(600), rng.normal(size=(600, 4)), np.repeat(rng.normal(size=12), 50)]
    )
    y = x[:, 1:5] @ np.full(4, 0.3) + np.repeat(rng.normal(size=12), 50) + rng.normal(size=600)
    free = fit_generalised_mixed_model(x, x[:, :1], y, starts, binary=False)
    shrunk = np.array([-1] + [0] * 5)
    found = fit_generalised_mixed_model(x, x[:, :1], y, starts, binary=False, shrunk=shrunk)
    ratio = found.beta / free.beta
    assert 0.9 < ratio[1:5].min() <= ratio[1:5].max() < 1.1
    assert ratio[5] < 0.9
    assert found.beta_cov[5, 5] > 10 * found.beta_cov[1, 1]


def test_shared_effects_have_one_sd():
    z, eta, starts, rng = make(n_tasks=30)
    y = (rng.random(len(eta)) < expit(eta)).astype(float)
    shared = np.array([0, 1, 1])
    found = fit_generalised_mixed_model(z, z, y, starts, binary=True, shared=shared)
    assert found.sd[1] == found.sd[2] != found.sd[0]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tasks_of_one_class_and_without_rows_have_finite_effects(value):
    model = GeneralisedMixedModel(np.array([-5.0]), np.zeros((1, 1)), np.array([1.5]), None, 0.0)
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


def one(*values):
    return [torch.tensor([value], dtype=torch.float64) for value in values]


NONE = Sites(*one(0.0, 0.0, 0.0))


@pytest.mark.parametrize("sd", [0.3, 1.5, 3.0])
@pytest.mark.parametrize(("y", "mean"), [(1.0, -2.0), (0.0, -2.0), (1.0, 0.5)])
def test_one_row_is_met_exactly(y, mean, sd):
    sites = matched_sites(*one(y, 1.0, mean, sd**2), NONE)

    def moment(power):
        def value(eta):
            return eta**power * expit((2 * y - 1) * eta) * norm.pdf(eta, mean, sd)

        return quad(value, mean - 12 * sd, mean + 12 * sd, limit=400)[0]

    total = moment(0)
    expected = moment(1) / total
    variance = 1.0 / (1.0 / sd**2 + float(sites.precision))
    found = variance * (mean / sd**2 + float(sites.pull))
    assert found == pytest.approx(expected, abs=2e-3)
    assert variance == pytest.approx(moment(2) / total - expected**2, abs=1e-2)
    center = found**2 / variance - mean**2 / sd**2
    integral = float(sites.log_scale) + 0.5 * np.log(variance / sd**2) + 0.5 * center
    assert integral == pytest.approx(np.log(total), abs=1e-3)


def test_where_nothing_varies_the_site_is_the_curvature():
    sites = matched_sites(*one(1.0, 1.0, 0.7, 0.0), NONE)
    p = expit(0.7)
    assert float(sites.precision) == pytest.approx(p * (1 - p), rel=1e-4)
    assert float(sites.pull - 0.7 * sites.precision) == pytest.approx(1 - p, rel=1e-4)


def test_a_row_of_weight_zero_has_no_effect():
    sites = matched_sites(*one(1.0, 0.0, 0.7, 2.0), NONE)
    np.testing.assert_allclose([float(part) for part in sites], 0.0, atol=1e-8)


OPTIONS = {
    "plain": {},
    "shared sds": {"shared": np.array([0, 1, 1])},
    "learned priors": {"shrunk": np.array([-1, 0, 0])},
    "priors of sds": {"positive": np.array([True, False, True]), "rate": np.array([0.0, 3, 1])},
}


@pytest.mark.parametrize("given", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("binary", [True, False])
def test_the_gradient_is_that_of_the_objective(monkeypatch, binary, given):
    z, eta, starts, rng = make(n_tasks=8, n_rows=20)
    y = (rng.random(len(eta)) < expit(eta)).astype(float) if binary else eta + rng.normal(size=160)
    monkeypatch.setattr(generalised_mixed_model, "_WHILE_SEARCHING", 1e-12)
    search, _ = searched(
        monkeypatch,
        generalised_mixed_model,
        lambda: fit_generalised_mixed_model(z, z, y, starts, binary=binary, **given),
    )
    first = search["start"]
    noise = 0.0 if binary else np.log(np.std(y))
    np.testing.assert_allclose(first, [*np.full(len(first) - 1, np.log(0.3)), noise])
    assert search["bounds"][-1] == (None, None)
    np.testing.assert_allclose(np.exp(search["bounds"][0]), [1e-3, 20.0])
    at = first + np.random.default_rng(0).normal(0, 0.3, len(first))
    assert_gradient(search["objective"], at, rtol=1e-3)


def test_the_log_likelihood_of_normal_rows_is_that_of_their_joint_density():
    z, eta, starts, rng = make(n_tasks=5, n_rows=4, sd=(0.8, 0.5))
    y, offset = eta + rng.normal(size=20), rng.normal(size=20)
    found = fit_generalised_mixed_model(z, z, y, starts, binary=False, offset=offset, beta_sd=3.0)
    task = np.repeat(np.arange(5), 4)
    joint = 9.0 * z @ z.T + (task[:, None] == task) * (z * found.sd**2 @ z.T)
    joint += found.noise_var * np.eye(20)
    density = multivariate_normal(offset, joint)
    assert found.log_likelihood == pytest.approx(density.logpdf(y))
    np.testing.assert_allclose(found.beta, 9.0 * z.T @ np.linalg.solve(joint, y - offset))
    np.testing.assert_allclose(
        found.beta_cov, 9.0 * np.eye(2) - 81.0 * z.T @ np.linalg.solve(joint, z)
    )


@pytest.mark.parametrize(("binary", "unit"), [(True, np.pi / 3**0.5), (False, None)])
def test_priors_of_sds_are_added_to_the_log_likelihood(monkeypatch, binary, unit):
    z, eta, starts, rng = make(n_tasks=8, n_rows=20, sd=(0.8, 0.5))
    y = (rng.random(160) < expit(eta)).astype(float) if binary else eta + rng.normal(size=160)
    monkeypatch.setattr(generalised_mixed_model, "_WHILE_SEARCHING", 1e-12)
    values = {}
    at = np.log([0.7, 0.4, 1.3])
    for name, given in {
        "none": {},
        "positive": {"positive": np.array([True, False])},
        "rate": {"rate": np.array([2.0, 5.0])},
    }.items():
        search, _ = searched(
            monkeypatch,
            generalised_mixed_model,
            lambda given=given: fit_generalised_mixed_model(
                z, z, y, starts, binary=binary, **given
            ),
        )
        values[name] = -search["objective"](at)[0]
    assert values["positive"] - values["none"] == pytest.approx(np.log(0.7), abs=1e-5)
    cost = (2.0 * 0.7 + 5.0 * 0.4) / (unit or 1.3)
    assert values["none"] - values["rate"] == pytest.approx(cost, abs=1e-5)


def test_a_row_of_weight_two_is_two_rows():
    moments = one(1.0), one(0.3), one(2.0)
    each = Sites(*one(0.05, 0.02, 0.01))
    both = Sites(*(2.0 * part for part in each))
    once = matched_sites(moments[0][0], *one(1.0), moments[1][0], moments[2][0], each)
    twice = matched_sites(moments[0][0], *one(2.0), moments[1][0], moments[2][0], both)
    for single, double in zip(once, twice, strict=True):
        torch.testing.assert_close(double, 2.0 * single)


def test_a_row_of_weight_below_one_has_its_likelihood_raised_to_it():
    sites = matched_sites(*one(1.0, 0.4, -0.5, 1.2**2), NONE)

    def moment(power):
        def value(eta):
            return eta**power * expit(eta) ** 0.4 * norm.pdf(eta, -0.5, 1.2)

        return quad(value, -15, 15, limit=400)[0]

    total, variance = moment(0), 1.0 / (1.0 / 1.2**2 + float(sites.precision))
    found = variance * (-0.5 / 1.2**2 + float(sites.pull))
    assert found == pytest.approx(moment(1) / total, abs=1e-3)
    assert variance == pytest.approx(moment(2) / total - (moment(1) / total) ** 2, abs=1e-3)


def test_a_site_is_never_more_precise_than_the_largest_curvature():
    for power in (1.0, 0.5):
        sites = matched_sites(*one(1.0, power, 0.0, 1e-10), NONE)
        assert float(sites.precision) == pytest.approx(0.25 * power, rel=1e-3)
        wide = matched_sites(*one(1.0, power, -30.0, 900.0), NONE)
        assert 0 < float(wide.precision) <= 0.25 * power


def test_pseudo_observations_are_the_sites_less_the_mean():
    y, weight, mean = one(1.0, 1.0, 0.4)
    target, noise, center, variance = one(0.9, 5.0, 0.2, 0.7)
    sites = Sites(1.0 / noise, (mean + target) / noise, 0.0 * mean)
    expected = matched_sites(y, weight, mean + center, variance, sites)
    found = matched_observations(y, weight, mean, (target, noise), (center, variance))
    torch.testing.assert_close(found[1], 1.0 / expected.precision)
    torch.testing.assert_close(found[0], expected.pull / expected.precision - mean)


def test_estimates_cannot_be_changed_and_compare_by_identity():
    for kind in (GeneralisedMixedModel, generalised_mixed_model._Bucket):
        settings = kind.__dataclass_params__
        assert (settings.frozen, settings.eq) == (True, False)
