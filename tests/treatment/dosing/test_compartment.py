"""Laws of one compartment: superposition, steady state, area under the curve."""

import numpy as np
import pytest

from ehrmeta.data import make_pk
from ehrmeta.errors import DataError
from ehrmeta.treatment.dosing.compartment import Course, courses, steady
from ehrmeta.treatment.dosing.dosed_rows import DosedRows

ORAL = np.log([[4.0, 40.0, 1.2]])
ROUTES = pytest.mark.parametrize("theta", [ORAL, ORAL[:, :2]], ids=["oral", "iv"])


def one_dose(time: np.ndarray, amount: float = 100.0) -> Course:
    """Concentrations after one dose at 0: the first of all later rows' doses."""
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
        found = course.concentration(theta[[patient]])[:, 0]
        np.testing.assert_allclose(found, p.mean[p.groups == patient], rtol=1e-9)
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
