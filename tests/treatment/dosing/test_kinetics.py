"""The population is found; draws and likelihood follow their formulas."""

import numpy as np
import pytest
from scipy.stats import norm

from ehrmeta.treatment.dosing.compartment import Course
from ehrmeta.treatment.dosing.kinetics import Kinetics
from tests.treatment.dosing.levels import fitted

TYPICAL = Kinetics(np.log([[4.0, 1.0], [40.0, 1.0]]), np.array([0.4, 0.2]), 0.15, 0.2)


def test_the_population_is_found():
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
