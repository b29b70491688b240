"""Exposures against their sums and integrals in closed form."""

import numpy as np
import pytest

from ehrmeta.data import make_nof1
from ehrmeta.treatment.dosing.exposure import exposure, usual_gap


def test_exposure_is_the_recursion_and_forgets_nothing_over_a_long_half_life() -> None:
    p = make_nof1(4, 4, 5, carry_over=0.6, random_state=0)
    starts = np.arange(0, 81, 20)
    half_life = np.log(0.5) / np.log(0.6)
    found = exposure(p.treatment, p.time, starts, half_life, usual_gap(p.time, starts))
    np.testing.assert_allclose(found, p.exposure)
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
