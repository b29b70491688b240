"""One-compartment law (superposition, steady state, area), population fit, draws, likelihood."""

import numpy as np
import pytest
from scipy.stats import norm

from ehrmeta.data import make_pk
from ehrmeta.errors import DataError
from ehrmeta.treatment.dosing.dosed_rows import DosedRows
from ehrmeta.treatment.dosing.kinetics import Course, Kinetics, courses, steady
from tests.treatment.dosing.levels import fitted

TYPICAL = Kinetics(np.log([[4.0, 1.0], [40.0, 1.0]]), np.array([0.4, 0.2]), 0.15, 0.2)

ORAL = np.log([[4.0, 40.0, 1.2]])
ROUTES = pytest.mark.parametrize("theta", [ORAL, ORAL[:, :2]], ids=["oral", "iv"])


def test_the_fit_recovers_the_population():
    kinetics = fitted()[0].kinetics_
    scale = fitted()[0].encoder_.transform({"x0": np.zeros(1), "x1": np.zeros(1)})[0][0]
    typical = kinetics.beta @ np.append(1.0, scale)
    np.testing.assert_allclose(np.exp(typical), [4, 40, 1], rtol=0.35)
    np.testing.assert_allclose(kinetics.proportional, 0.15, atol=0.05)
    assert 0.2 < kinetics.sd[0] < 0.5


def test_without_rows_draws_are_the_populations() -> None:
    theta, weight = TYPICAL.draws(np.zeros(1), None, 1024)
    np.testing.assert_allclose(weight, 1 / 1024)
    np.testing.assert_allclose(theta.mean(0), np.log([4.0, 40.0]), atol=0.01)
    np.testing.assert_allclose(theta.std(0), [0.4, 0.2], rtol=0.02)


def test_the_likelihood_and_the_posterior_are_those_of_a_grid() -> None:
    row = np.ones(1)
    course = Course(1.7 * row, 6 * row, 100 * row, 0 * row, row, 12.0)
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 3.5, 201), np.linspace(2.5, 5, 201)), -1)
    theta = grid.reshape(-1, 2)
    mean = 100 / np.exp(theta[:, 1]) * np.exp(-6 * np.exp(theta[:, 0] - theta[:, 1]))
    expected = norm.logpdf(1.7, mean, np.hypot(0.15 * mean, 0.2))
    np.testing.assert_allclose(TYPICAL.log_likelihood(course, theta), expected)
    prior = norm.logpdf(theta, np.log([4.0, 40.0]), TYPICAL.sd).sum(1)
    exact = np.average(theta, axis=0, weights=np.exp(prior + expected))
    drawn, weight = TYPICAL.draws(np.zeros(1), course, 2048)
    assert weight.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weight @ drawn, exact, atol=0.02)


def one_dose(time: np.ndarray, amount: float = 100.0) -> Course:
    """Course of one dose at time 0."""
    zero = np.zeros(len(time))
    first = np.r_[1.0, zero[1:]]
    return Course(zero, time, amount * first, zero, first, 12.0)


@pytest.mark.parametrize("route", ["oral", "iv"])
def test_the_law_is_that_of_the_simulator(route):
    p = make_pk(4, 3, route=route, random_state=0)
    rows = DosedRows({}, p.y, p.X[:, 2], p.time, np.arange(0, 13, 3), None)
    parameters = [p.clearance, p.volume, p.absorption][: 3 if p.oral else 2]
    theta = np.log(np.column_stack(parameters))
    for patient, course in enumerate(courses(rows, p.X[:, 3], 12.0)):
        concentration = course.concentration(theta[[patient]])[:, 0]
        np.testing.assert_allclose(concentration, p.mean[p.groups == patient], rtol=1e-9)
    held = steady(theta, np.array([12.0]), 12.0)[0] * 300
    np.testing.assert_allclose(held, p.concentration(300), rtol=1e-9)


@ROUTES
def test_the_area_under_one_dose_is_the_dose_over_the_clearance(theta: np.ndarray) -> None:
    time = np.linspace(0.0, 150.0, 1_501)
    area = np.trapezoid(one_dose(time).concentration(theta)[:, 0], time)
    assert area == pytest.approx(100.0 / 4.0, rel=1e-3)


def test_in_a_vein_a_concentration_halves_every_ln_2_over_k() -> None:
    half_life = np.log(2) * 40 / 4
    values = one_dose(half_life * np.arange(4)).concentration(ORAL[:, :2])[:, 0]
    np.testing.assert_allclose(values, 100 / 40 * 0.5 ** np.arange(4))


@ROUTES
def test_doses_add_up_to_the_steady_state(theta: np.ndarray) -> None:
    since = np.array([0.0, 3.0, 11.0])
    after = since[:, None] + 12.0 * np.arange(60)
    single = one_dose(after.ravel()).concentration(theta)[:, 0].reshape(after.shape)
    np.testing.assert_allclose(single.sum(1), 100 * steady(theta, since, 12.0)[:, 0], rtol=1e-9)


def test_equal_rates_have_the_limit_of_close_ones() -> None:
    time = np.array([1.0, 5.0, 20.0])
    rate = 0.1
    equal = one_dose(time).concentration(np.log([[4.0, 40.0, rate]]))[:, 0]
    np.testing.assert_allclose(equal, 100 / 40 * rate * time * np.exp(-rate * time), rtol=1e-2)


def test_negative_doses_are_refused() -> None:
    zero = np.zeros(2)
    rows = DosedRows({}, zero, np.array([1.0, -1.0]), np.arange(2.0), np.array([0, 2]), None)
    with pytest.raises(DataError, match="dose is negative in 1 of 2 rows"):
        courses(rows, zero, 12.0)
