"""Exposures against their sums and integrals in closed form."""

import numpy as np
import pytest

from ehrmeta.data import make_nof1
from ehrmeta.treatment.dosing.exposure import estimate_half_life, exposure, usual_gap
from tests.treatment.dosing.patients import nof1_fit


def test_exposure_is_the_recursion_and_forgets_nothing_over_a_long_half_life() -> None:
    p = make_nof1(4, 4, 5, carry_over=0.6, random_state=0)
    starts = np.arange(0, 81, 20)
    half_life = np.log(0.5) / np.log(0.6)
    exposed = exposure(p.treatment, p.time, starts, half_life, usual_gap(p.time, starts))
    np.testing.assert_allclose(exposed, p.exposure)
    np.testing.assert_array_equal(exposure(p.treatment, p.time, starts, 0.0, 1.0), p.treatment)


def test_exposure_is_the_integral_of_fading_doses() -> None:
    rng = np.random.default_rng(0)
    time, dose, half_life = np.cumsum(rng.uniform(0.5, 2, 6)), rng.uniform(0, 9, 6), 1.7
    rate, edges = np.log(2) / half_life, np.concatenate([[time[0] - 1.0], time])
    fine = np.linspace(edges[0], edges[-1], 400_001)
    middle = 0.5 * (fine[1:] + fine[:-1])
    given = dose[np.searchsorted(edges, middle) - 1]
    faded = given * rate * np.exp(-rate * (time[-1] - middle)) * np.diff(fine)
    by_rows = exposure(dose, time, np.array([0, 6]), half_life, 1.0)
    assert by_rows[-1] == pytest.approx(faded.sum(), rel=1e-4)


def test_a_dose_stopped_has_halved_after_one_half_life() -> None:
    held = np.r_[np.full(300, 8.0), 0.0]
    time = np.r_[np.arange(300.0), 299.0 + 2.5]
    assert exposure(held, time, np.array([0, 301]), 2.5, 1.0)[-1] == pytest.approx(4.0)


def test_carry_over_is_estimated_and_absent_where_there_is_none() -> None:
    there = make_nof1(60, carry_over=0.7, random_state=1)
    assert 0.5 ** (1 / nof1_fit(there).carry_over_) == pytest.approx(0.7, abs=0.1)
    assert nof1_fit(make_nof1(60, carry_over=0.0, random_state=2)).carry_over_ < 0.4


@pytest.mark.parametrize("true", [0.0, 3.0])
def test_a_half_life_without_features_is_recovered(true: float) -> None:
    rng = np.random.default_rng(0)
    starts, time = np.arange(0, 801, 20), np.tile(np.arange(20.0), 40)
    dose = rng.choice([0.0, 1.0], 800)
    level = np.repeat(rng.normal(size=40), 20)
    y = level + 2 * exposure(dose, time, starts, true, 1.0) + rng.normal(0, 0.1, 800)

    def designs(half_life: float) -> tuple[np.ndarray, ...]:
        phi = exposure(dose, time, starts, half_life, 1.0)
        return np.column_stack([np.ones(800), phi]), np.ones((800, 1)), time, y, starts

    assert estimate_half_life(designs, 1.0, process=False) == pytest.approx(true, rel=0.1)
