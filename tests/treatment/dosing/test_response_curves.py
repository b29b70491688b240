"""Curves against posterior draws; bands, probabilities and recommended doses of a patient."""

import numpy as np
import pytest

from ehrmeta.errors import DataError, DataWarning
from ehrmeta.treatment.dosing.response_curves import OriginalScale, ResponseCurves, SampledCurves
from tests.treatment.dosing.patients import adapted


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
    original = OriginalScale(curves, np.log, log=True)
    quantile = curves.quantile(np.log(dose), 0.3)
    np.testing.assert_allclose(original.quantile(dose, 0.3), np.exp(quantile))
    for place in range(2):
        end = float(np.exp(quantile[0, place]))
        assert original.chance(dose, 0.0, end)[0, place] == pytest.approx(0.3)


def test_bands_hold_the_response_and_widen_beyond_the_doses() -> None:
    with pytest.warns(DataWarning, match="2 of 4 doses lie outside the training doses"):
        band = adapted().dose_response([[0.0]], [0, 2, 4, 9])
    assert (band["low"] < band["response"]).all()
    assert (band["response"] < band["high"]).all()
    assert band["extrapolated"].tolist() == [True, False, False, True]
    width = band["high"] - band["low"]
    assert width.iloc[3] > 1.5 * width.iloc[1]


def test_the_recommended_dose_has_the_largest_chance_of_the_grid() -> None:
    one, grid = adapted(), np.linspace(1, 4, 13)
    chance = one.chance([[0.0]], grid, target=(15, 17))
    best = one.recommend([[0.0]], target=(15, 17), grid=grid)
    assert best["dose"][0] == grid[chance[0].argmax()]
    assert best["probability"][0] == chance.max()
    assert not best["extrapolated"][0]


def test_max_dose_limits_the_recommendation() -> None:
    free = adapted().recommend([[0.0]], target=(17, 19), grid=[1, 2, 3, 4])
    limited = adapted().recommend([[0.0]], target=(17, 19), grid=[1, 2, 3, 4], max_dose=2.5)
    assert free["dose"][0] > 2.5 >= limited["dose"][0]
    assert limited["probability"][0] < free["probability"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_dose": 0.5}, "max_dose=0.5 lies below all training doses"),
        ({"max_dose": 1.5, "grid": [2, 3]}, "lies below all doses of the grid"),
        ({"target": (3, 1)}, "target must be a range"),
        ({"grid": []}, "grid must contain at least one dose"),
        ({"monotone": "up"}, "monotone must be"),
    ],
)
def test_invalid_arguments_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        adapted().recommend([[0.0]], **({"target": (15, 17)} | change))
