"""Approximations of likelihoods against exact integrals, closed forms and limits."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as student

from ehrmeta.nn import Bernoulli, Normal, StudentT
from ehrmeta.nn.approximations import (
    Sites,
    damped_posterior,
    matched_sites,
    n_rounds,
    noise_variance,
    predictive_distribution,
    pseudo_observations,
)


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


def test_a_row_of_no_weight_says_nothing():
    sites = matched_sites(*one(1.0, 0.0, 0.7, 2.0), NONE)
    np.testing.assert_allclose([float(part) for part in sites], 0.0, atol=1e-8)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_one_round_is_exact_for_normal_noise():
    y, mean, noise = column(1.0, -2.0), column(0.5, 0.5), column(0.3, 0.3)
    target, spread = pseudo_observations(Normal(), {}, y, mean, noise, None)
    assert n_rounds(Normal()) == 1
    torch.testing.assert_close(target, y - mean)
    torch.testing.assert_close(spread, noise)


def test_laplace_rounds_end_at_the_mode_of_one_row():
    """Conditioning a prior N(0, v) on one class by Newton's steps solves p'(f) = f / v."""
    variance, y, mean = 2.0, column(1.0), column(-0.5)
    posterior = None
    for _ in range(n_rounds(Bernoulli())):
        target, spread = pseudo_observations(Bernoulli(), {}, y, mean, column(0.0), posterior)
        share = variance / (variance + spread)
        posterior = damped_posterior(Bernoulli(), posterior, (share * target, share * spread))
    mode = posterior[0]
    torch.testing.assert_close(variance * (y - torch.sigmoid(mean + mode)), mode)


def test_a_large_newton_step_is_shortened_as_a_whole():
    start, _ = damped_posterior(Bernoulli(), None, (column(8.0, -2.0), column(1.0, 1.0)))
    torch.testing.assert_close(start, column(4.0, -1.0))
    assert damped_posterior(Normal(), None, (start, start)) == (start, start)


def test_an_outlying_residual_gets_more_noise_under_student_t():
    params = StudentT().init()
    y, mean, noise = column(0.1, 9.0), column(0.0, 0.0), column(1.0, 1.0)
    posterior = (column(0.0, 0.0), column(0.1, 0.1))
    _, spread = pseudo_observations(StudentT(), params, y, mean, noise, posterior)
    assert spread[0] < noise[0] < spread[1]


def test_classes_have_no_noise_of_their_own():
    assert float(noise_variance(Bernoulli(), Bernoulli().init())) == 0.0
    params = Normal().init()
    assert float(noise_variance(Normal(), params)) == pytest.approx(
        np.exp(2.0 * float(params["log_within"]))
    )


def test_the_predictive_of_student_t_has_the_variance_of_the_sum():
    params = StudentT().init()
    dof = 2.0 + float(torch.nn.functional.softplus(params["raw_dof"]))
    loc, variance, noise = column(0.0), column(0.5), column(0.4)
    both = predictive_distribution(
        StudentT(), params, loc, variance, noise, column(1.0), torch.float64
    )
    total = student.var(float(both["dof"]), scale=float(both["scale"]))
    assert total == pytest.approx(0.5 + 0.4 * dof / (dof - 2.0))
    alone = predictive_distribution(
        StudentT(), params, loc, column(0.0), noise, column(1.0), torch.float64
    )
    assert float(alone["dof"]) == pytest.approx(dof)


def test_the_predictive_of_a_class_averages_over_the_latent():
    loc, variance = column(0.8), column(1.7)
    logits = predictive_distribution(
        Bernoulli(), {}, loc, variance, column(0.0), column(1.0), torch.float64
    )["logits"]
    p = float(torch.softmax(logits, -1)[0, 1])
    exact = quad(lambda eta: expit(eta) * norm.pdf(eta, 0.8, 1.7**0.5), -20, 20)[0]
    assert p == pytest.approx(exact, abs=1e-6)
