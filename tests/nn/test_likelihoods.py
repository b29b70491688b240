"""Likelihoods against scipy's densities, their own gradients and exact integrals."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit

from ehrmeta.nn import Bernoulli, Categorical, Normal, StudentT
from ehrmeta.nn.likelihoods import degrees_of_freedom

REAL = {"normal": Normal(), "student_t": StudentT()}
Y = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64)
OUTPUT = torch.tensor([[-1.0], [0.3], [0.1]], dtype=torch.float64)


def learned(likelihood):
    return {name: value.double() for name, value in likelihood.init().items()}


@pytest.mark.parametrize("name", REAL)
def test_densities_are_those_of_scipy(name):
    likelihood, params = REAL[name], learned(REAL[name])
    predictive = likelihood.distribution(params, OUTPUT, torch.tensor(3.0))
    loc, scale = predictive["loc"].numpy(), predictive["scale"].numpy()
    if name == "normal":
        expected = stats.norm.logpdf(Y, loc, scale)
    else:
        expected = stats.t.logpdf(Y, predictive["dof"].numpy(), loc, scale)
    np.testing.assert_allclose(likelihood.log_prob(predictive, Y), expected)


@pytest.mark.parametrize("name", REAL)
def test_scale_goes_from_both_variances_to_that_within(name):
    likelihood, params = REAL[name], learned(REAL[name])
    within, between = (float(torch.exp(2.0 * params[f"log_{w}"])) for w in ("within", "between"))
    first, last = (
        float(likelihood.distribution(params, OUTPUT, torch.tensor(n))["scale"][0]) ** 2
        for n in (0.0, 1e9)
    )
    assert first == pytest.approx(within + between)
    assert last == pytest.approx(within)


def test_error_of_student_t_is_the_derivative_of_its_scaled_loss():
    likelihood, params = StudentT(), learned(StudentT())
    output = OUTPUT.clone().requires_grad_()
    within = torch.exp(params["log_within"])
    predictive = {"loc": output[:, 0], "scale": within, "dof": degrees_of_freedom(params)}
    loss = -(within**2 * likelihood.log_prob(predictive, Y)).sum()
    (gradient,) = torch.autograd.grad(loss, output)
    torch.testing.assert_close(likelihood.error(params, OUTPUT, Y), gradient)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Categorical(3)], ids=str)
def test_error_of_classes_is_the_derivative_of_the_log_loss(likelihood):
    y = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    output = torch.linspace(-1, 1, 3 * likelihood.n_outputs, dtype=torch.float64)
    output = output.reshape(3, -1).requires_grad_()
    logits = torch.cat([0.0 * output, output], 1) if likelihood.n_outputs == 1 else output
    loss = -likelihood.log_prob({"logits": logits}, y).sum()
    (gradient,) = torch.autograd.grad(loss, output)
    torch.testing.assert_close(likelihood.error({}, output, y).detach(), gradient)


def test_a_probability_is_the_average_over_the_unknown_shift():
    mean, variance = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[2.0]])
    p = float(torch.softmax(Bernoulli().logits(mean, variance), -1)[0, 1])
    exact = quad(lambda eta: expit(eta) * stats.norm.pdf(eta, 0.7, 2.0**0.5), -20, 20)[0]
    assert p == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_variance_of_the_shift_falls_by_the_information_of_each_row(n_classes):
    likelihood = Bernoulli() if n_classes == 2 else Categorical(n_classes)
    params = learned(likelihood)
    before, after = (likelihood.shift_variance(params, torch.tensor(float(n))) for n in (0, 10))
    information = (n_classes - 1) / n_classes**2
    assert float(1.0 / after - 1.0 / before) == pytest.approx(10 * information)


def test_kinds_of_outcome():
    kinds = [likelihood.outcome for likelihood in (Normal(), Bernoulli(), Categorical(3))]
    assert kinds == ["real", "binary", "multiclass"]
