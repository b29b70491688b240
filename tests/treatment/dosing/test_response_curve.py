"""Curves against draws of the posterior that they stand for."""

import numpy as np
import pytest

from ehrmeta.treatment.dosing.response_curve import OwnScale, ResponseCurves, SampledCurves


@pytest.mark.parametrize(("direction", "sign"), [("increasing", 1.0), ("decreasing", -1.0)])
def test_monotone_rules_out_the_curves_of_the_other_direction(direction, sign) -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(2, 2))
    mean, cov = np.array([[1.0, -0.3 * sign]]), (root @ root.T)[None]
    drawn = rng.multivariate_normal(mean[0], cov[0], 400_000)
    drawn = drawn[sign * drawn[:, 1] > 0]
    curves, phi = ResponseCurves.of(mean, cov, direction), np.array([-1.0, 0.5, 2.0])
    values = drawn[:, :1] + drawn[:, 1:] * phi
    inside = np.mean((values > 0) & (values < 2), axis=0)
    np.testing.assert_allclose(curves.chance(phi, 0, 2)[0], inside, atol=0.01)
    for level in (0.1, 0.5, 0.9):
        expected = np.quantile(values, level, axis=0)
        np.testing.assert_allclose(curves.quantile(phi, level)[0], expected, atol=0.06)
    assert (sign * curves.v > 0).all()


def test_chances_and_quantiles_are_those_of_the_weighted_draws():
    curves = SampledCurves.of(np.array([[3.0, 1.0, 2.0]]), np.array([[0.5, 0.2, 0.3]]))
    np.testing.assert_allclose(curves.chance(np.array([1.0, 2.0]), 1.5, 5.0)[0], [0.8, 0.5])
    np.testing.assert_allclose(curves.quantile(np.array([0.0, 10.0]), 0.4)[0], [0.0, 20.0])
    assert curves.chance(np.array([0.0]), 1.0, 2.0)[0, 0] == 0.0


def test_curves_of_a_logarithm_keep_chances_and_raise_quantiles() -> None:
    curves = ResponseCurves.of(np.array([[1.0, 0.5]]), 0.1 * np.eye(2)[None], None)
    dose = np.array([1.0, 3.0])
    own = OwnScale(curves, np.log, log=True)
    quantile = curves.quantile(np.log(dose), 0.3)
    np.testing.assert_allclose(own.quantile(dose, 0.3), np.exp(quantile))
    for place in range(2):
        end = float(np.exp(quantile[0, place]))
        assert own.chance(dose, 0.0, end)[0, place] == pytest.approx(0.3)
