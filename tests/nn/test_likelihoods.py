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


@pytest.mark.parametrize("likelihood", [Normal(), StudentT(), Bernoulli(), Categorical(3)], ids=str)
def test_error_is_the_derivative_of_the_inner_loss(likelihood):
    params, y = learned(likelihood), torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    output = torch.linspace(-1, 1, 3 * likelihood.n_outputs, dtype=torch.float64).reshape(3, -1)
    gradient = torch.func.grad(lambda z: likelihood.inner_loss(params, z, y).sum())(output)
    torch.testing.assert_close(likelihood.error(params, output, y), gradient)


@pytest.mark.parametrize("name", REAL)
def test_inner_loss_is_the_negative_log_density_times_the_variance(name):
    likelihood, params = REAL[name], learned(REAL[name])
    within, dof = torch.exp(params["log_within"]), params.get("raw_dof")
    predictive = {"loc": OUTPUT[:, 0], "scale": within}
    if dof is not None:
        predictive["dof"] = degrees_of_freedom(params)
    loss = -(within**2) * likelihood.log_prob(predictive, Y)
    at_mean = -(within**2) * likelihood.log_prob(predictive, OUTPUT[:, 0])
    torch.testing.assert_close(likelihood.inner_loss(params, OUTPUT, Y), loss - at_mean)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Categorical(3)], ids=str)
def test_inner_loss_of_classes_is_the_log_loss(likelihood):
    y = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    output = torch.linspace(-1, 1, 3 * likelihood.n_outputs, dtype=torch.float64).reshape(3, -1)
    logits = torch.cat([0.0 * output, output], 1) if likelihood.n_outputs == 1 else output
    log_loss = -likelihood.log_prob({"logits": logits}, y)
    torch.testing.assert_close(likelihood.inner_loss({}, output, y), log_loss)


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


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_one_round_is_exact_for_normal_noise():
    y, mean, noise = column(1.0, -2.0), column(0.5, 0.5), column(0.3, 0.3)
    target, spread = Normal().pseudo_observations({}, y, mean, noise, None)
    assert Normal.n_rounds == 1
    torch.testing.assert_close(target, y - mean)
    torch.testing.assert_close(spread, noise)


def test_laplace_rounds_end_at_the_mode_of_one_row():
    """Conditioning a prior N(0, v) on one class by Newton's steps solves p'(f) = f / v."""
    variance, y, mean = 2.0, column(1.0), column(-0.5)
    posterior = None
    for _ in range(Bernoulli.n_rounds):
        target, spread = Bernoulli().pseudo_observations({}, y, mean, column(0.0), posterior)
        share = variance / (variance + spread)
        posterior = Bernoulli().damped(posterior, (share * target, share * spread))
    mode = posterior[0]
    torch.testing.assert_close(variance * (y - torch.sigmoid(mean + mode)), mode)


def test_a_large_newton_step_is_shortened_as_a_whole():
    start, _ = Bernoulli().damped(None, (column(8.0, -2.0), column(1.0, 1.0)))
    torch.testing.assert_close(start, column(4.0, -1.0))
    assert Normal().damped(None, (start, start)) == (start, start)


def test_an_outlying_residual_gets_more_noise_under_student_t():
    params = StudentT().init()
    y, mean, noise = column(0.1, 9.0), column(0.0, 0.0), column(1.0, 1.0)
    posterior = (column(0.0, 0.0), column(0.1, 0.1))
    _, spread = StudentT().pseudo_observations(params, y, mean, noise, posterior)
    assert spread[0] < noise[0] < spread[1]


def test_classes_have_no_noise_of_their_own():
    assert float(Bernoulli().noise_variance(Bernoulli().init())) == 0.0
    params = Normal().init()
    assert float(Normal().noise_variance(params)) == pytest.approx(
        np.exp(2.0 * float(params["log_within"]))
    )


def test_the_predictive_of_student_t_has_the_variance_of_the_sum():
    params = StudentT().init()
    dof = 2.0 + float(torch.nn.functional.softplus(params["raw_dof"]))
    loc, variance, noise = column(0.0), column(0.5), column(0.4)
    both = StudentT().predictive(params, (loc, variance), noise)
    total = stats.t.var(float(both["dof"]), scale=float(both["scale"]))
    assert total == pytest.approx(0.5 + 0.4 * dof / (dof - 2.0))
    alone = StudentT().predictive(params, (loc, column(0.0)), noise)
    assert float(alone["dof"]) == pytest.approx(dof)


def test_the_predictive_of_a_class_averages_over_the_latent():
    loc, variance = column(0.8), column(1.7)
    logits = Bernoulli().predictive({}, (loc, variance), column(0.0))["logits"]
    p = float(torch.softmax(logits, -1)[0, 1])
    exact = quad(lambda eta: expit(eta) * stats.norm.pdf(eta, 0.8, 1.7**0.5), -20, 20)[0]
    assert p == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("likelihood", [Normal(), StudentT(), Bernoulli(), Categorical(3)])
def test_a_mixture_that_is_the_prediction_alone_shifts_as_its_output_does(likelihood):
    params, offset = likelihood.init(), torch.tensor([0.5, -1.0])
    prior = torch.tensor([[0.2, -0.4, 0.1], [1.0, 0.3, -0.2]])[:, : likelihood.n_outputs]
    weights, y, n = torch.tensor([[0.0, 1.0]] * 2), torch.ones(1), torch.tensor(1e9)
    shifted = likelihood.shift(likelihood.mixture(params, weights, y, prior, n), offset)
    moved = likelihood.averaged(
        params, prior + offset[:, None], likelihood.shift_variance(params, n)
    )
    y = torch.ones(2)
    torch.testing.assert_close(likelihood.log_prob(shifted, y), likelihood.log_prob(moved, y))


@pytest.mark.parametrize("likelihood", [Normal(), Bernoulli(), Categorical(3)])
def test_slope_and_curvature_are_derivatives_of_the_log_density(likelihood):
    params = learned(likelihood)
    latent = torch.tensor([[0.2, -0.4, 0.1]], dtype=torch.float64)[:, : likelihood.n_outputs]
    y = torch.ones(1, dtype=torch.float64)

    def log_density(latent):
        variance = torch.zeros((), dtype=torch.float64)
        return likelihood.log_prob(likelihood.averaged(params, latent, variance), y).sum()

    slope, curvature = likelihood.curvature(params, latent, y, torch.tensor(0.0))
    hessian = torch.autograd.functional.hessian(log_density, latent).reshape(latent.numel(), -1)
    torch.testing.assert_close(slope, torch.func.grad(log_density)(latent), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(curvature[0], -torch.diagonal(hessian), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REAL)
def test_at_the_start_a_new_task_has_the_variance_of_the_outcome_half_of_it_within(name):
    params = REAL[name].init()
    predictive = REAL[name].distribution(params, OUTPUT, torch.tensor(0.0))
    total = predictive["scale"][0] ** 2
    assert float(torch.exp(2.0 * params["log_within"]) / total) == pytest.approx(0.5)
    if name == "student_t":
        assert float(predictive["dof"][0]) == pytest.approx(5.0, abs=0.1)
        within = total / 2.0  # of a variance dof / (dof - 2) times as large
        total = within + within * predictive["dof"][0] / (predictive["dof"][0] - 2.0)
    assert float(total) == pytest.approx(1.0, abs=0.03)
    assert REAL[name].robust == (name == "student_t")


@pytest.mark.parametrize("likelihood", [Bernoulli(), Categorical(4)], ids=str)
def test_at_the_start_log_odds_of_tasks_have_an_sd_of_0_6(likelihood):
    variance = likelihood.shift_variance(likelihood.init(), torch.tensor(0.0))
    assert float(variance.sqrt()) == pytest.approx(0.6, abs=0.01)


def test_an_offset_of_all_classes_leaves_the_logits_apart_as_they_were():
    logits, offset = torch.tensor([[0.3, -0.2, 1.0], [0.0, 1.0, 2.0]]), torch.tensor([0.5, -1.0])
    shifted = Categorical(3).shift({"logits": logits}, offset)["logits"]
    torch.testing.assert_close(shifted, logits + offset[:, None])
    binary = Bernoulli().shift({"logits": logits[:, :2]}, offset)["logits"]
    torch.testing.assert_close(binary, logits[:, :2] + torch.tensor([[0.0, 0.5], [0.0, -1.0]]))


def test_outcomes_as_inputs_are_residuals_or_indicators():
    y, offset = torch.tensor([0.0, 2.0]), torch.tensor([0.5, -1.0])
    assert Normal().coded(y, offset).tolist() == [[-0.5], [3.0]]
    assert Categorical(3).coded(y, offset).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_a_mixture_is_the_weighted_mean_of_outcomes_and_prediction():
    weights, y = torch.tensor([[0.5, 0.2, 0.3], [0.0, 0.0, 1.0]]), torch.tensor([1.0, 2.0])
    prior, n = torch.tensor([[4.0], [5.0]]), torch.tensor(2.0)
    params = Normal().init()
    predictive = Normal().mixture(params, weights, y, prior, n)
    torch.testing.assert_close(predictive["loc"], torch.tensor([0.5 + 0.4 + 1.2, 5.0]))
    expected = Normal().distribution(params, prior, n)["scale"]
    torch.testing.assert_close(predictive["scale"], expected)
    logits = torch.tensor([[0.0, 1.0, -30.0], [1.0, 0.0, -30.0]])
    mixed = Categorical(3).mixture({}, weights, torch.tensor([0.0, 1.0]), logits, n)["logits"]
    p = torch.softmax(logits, -1)
    expected = 0.3 * p[0] + torch.tensor([0.5, 0.2, 0.0])
    torch.testing.assert_close(mixed.exp()[0, :2], expected[:2])
    torch.testing.assert_close(mixed.exp()[:, 2], torch.full((2,), 1e-6))


def test_slope_of_student_t_is_that_of_its_density_and_its_curvature_the_slope_per_residual():
    likelihood, params = StudentT(), learned(StudentT())
    latent = torch.tensor([[0.2], [0.0], [-3.0]], dtype=torch.float64)
    y = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    predictive = {"scale": torch.exp(params["log_within"]), "dof": degrees_of_freedom(params)}
    density = torch.func.grad(
        lambda z: likelihood.log_prob(predictive | {"loc": z[:, 0]}, y).sum()
    )(latent)
    slope, curvature = likelihood.curvature(params, latent, y, torch.tensor(0.0))
    torch.testing.assert_close(slope, density)
    residual = y[:, None] - latent
    torch.testing.assert_close(slope[[0, 2]], (curvature * residual)[[0, 2]])
    assert float(curvature[1]) == pytest.approx(float(torch.exp(-2.0 * params["log_within"])))


@pytest.mark.parametrize("floor", [1e-9, 7.0])
def test_the_noise_in_the_curvature_is_not_below_the_floor(floor):
    params = learned(Normal())
    _, curvature = Normal().curvature(params, OUTPUT, Y, torch.tensor(floor))
    noise = max(floor, float(torch.exp(2.0 * params["log_within"])))
    torch.testing.assert_close(curvature, torch.full_like(curvature, 1.0 / noise))


def test_scale_mixture_of_student_t_by_its_formula():
    """The expected precision is ``(dof + 1) / (dof + E r^2 / noise)`` over the noise variance."""
    params = StudentT().init()
    y, mean, noise = column(1.0, 4.0), column(0.5, 0.5), column(0.3, 0.6)
    first = StudentT().pseudo_observations(params, y, mean, noise, None)
    torch.testing.assert_close(first[0], y - mean)
    torch.testing.assert_close(first[1], noise)
    latent, variance = column(0.2, 1.0), column(0.1, 0.4)
    target, spread = StudentT().pseudo_observations(params, y, mean, noise, (latent, variance))
    dof = float(degrees_of_freedom(params).double())
    squared = (y - mean - latent) ** 2 + variance
    torch.testing.assert_close(target, y - mean)
    torch.testing.assert_close(noise / spread, (dof + 1.0) / (dof + squared / noise))


def test_pseudo_observations_of_a_class_match_slope_and_curvature():
    y, mean, latent = column(1.0, 0.0), column(-0.5, 0.2), column(0.4, -0.3)
    target, spread = Bernoulli().pseudo_observations({}, y, mean, mean, (latent, latent))
    p = torch.sigmoid(mean + latent)
    torch.testing.assert_close(1.0 / spread, p * (1.0 - p))
    torch.testing.assert_close((target - latent) / spread, y - p)
    _, spread = Bernoulli().pseudo_observations({}, y, 40.0 * mean.sign(), mean, None)
    torch.testing.assert_close(spread, column(1e4, 1e4))  # the curvature has a floor


def test_probabilities_of_several_classes_move_to_the_middle_with_the_variance():
    output = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    variance = torch.tensor(3.0, dtype=torch.float64)
    logits = Categorical(3).averaged({}, output, variance)["logits"]
    torch.testing.assert_close(logits, output / (1.0 + np.pi * 3.0 / 8.0) ** 0.5)
    predicted = Categorical(3).predictive({}, (output[0, :1], column(3.0)), column(0.0))["logits"]
    torch.testing.assert_close(predicted, logits[:, :1])


def test_normal_predictions_add_the_noise_to_the_variance():
    both = Normal().predictive({}, (column(0.3), column(0.5)), column(0.4))
    torch.testing.assert_close(both["loc"], column(0.3))
    torch.testing.assert_close(both["scale"] ** 2, column(0.9))


@pytest.mark.parametrize("likelihood", [Normal(), StudentT(), Bernoulli(), Categorical(3)])
def test_components_are_hashable_and_shown_with_their_parameters(likelihood):
    assert len({likelihood, type(likelihood)(**likelihood.get_params())}) == 2
    shown = "classes=3" if isinstance(likelihood, Categorical) else ""
    assert repr(likelihood) == f"{type(likelihood).__name__}({shown})"


def test_student_t_and_classes_need_rounds_and_a_normal_outcome_none():
    rounds = [one.n_rounds for one in (Normal, StudentT, Bernoulli, Categorical)]
    assert rounds[0] == 1
    assert min(rounds[1:]) > 1
