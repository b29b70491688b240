from typing import Literal

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ehrmeta.data import make_pk
from ehrmeta.errors import DataError


@pytest.mark.parametrize("route", ["oral", "iv"])
def test_concentrations_solve_the_compartment_equations(route: Literal["oral", "iv"]) -> None:
    p = make_pk(2, 2, route=route, random_state=0)
    for i in range(2):
        k, ka, volume = p.clearance[i] / p.volume[i], p.absorption[i], p.volume[i]
        gut, blood = 0.0, 0.0
        given = np.repeat(p.doses[i], 4)
        queried = p.time[p.groups == i]
        found = []
        for number, dose in enumerate(given):
            gut, blood = (gut + dose, blood) if route == "oral" else (gut, blood + dose)
            times = [t - 12 * number for t in queried if 12 * number <= t < 12 * number + 12]
            solved = solve_ivp(
                lambda t, a, k=k, ka=ka: [-ka * a[0], ka * a[0] - k * a[1]],
                (0, 12),
                [gut, blood],
                t_eval=[*times, 12.0],
                rtol=1e-9,
                atol=1e-9,
            )
            found += list(solved.y[1, :-1] / volume)
            gut, blood = solved.y[:, -1]
        np.testing.assert_allclose(p.mean[p.groups == i], found, rtol=1e-6)


@pytest.mark.parametrize("route", ["oral", "iv"])
def test_the_steady_state_is_the_limit_of_many_doses(route: Literal["oral", "iv"]) -> None:
    p = make_pk(20, 1, route=route, random_state=1)
    k, ka, ago = p.clearance / p.volume, p.absorption, 12 * np.arange(1, 400)[:, None]
    if route == "iv":
        summed = np.exp(-k * ago).sum(axis=0) / p.volume
    else:
        each = np.exp(-k * ago) - np.exp(-ka * ago)
        summed = ka / (p.volume * (ka - k)) * each.sum(axis=0)
    np.testing.assert_allclose(p.concentration(300), 300 * summed, rtol=1e-9)
    grid = p.concentration(np.tile([100.0, 200.0], (20, 1)))
    np.testing.assert_allclose(grid[:, 1], 2 * grid[:, 0])


def test_clearance_and_volume_follow_weight_and_kidneys() -> None:
    p = make_pk(4000, 1, random_state=2)
    weight, kidney = np.log(p.X[:, 0] / 70), np.log(p.X[:, 1] / 80)
    design = np.column_stack([np.ones(4000), weight, kidney])
    for values, expected, sd in (
        (p.clearance / 4, [0, 0.75, 0.6], 0.35),
        (p.volume / 40, [0, 1, 0], 0.2),
        (p.absorption, [0, 0, 0], 0.3),
    ):
        coefficients = np.linalg.lstsq(design, np.log(values))[0]
        np.testing.assert_allclose(coefficients, expected, atol=0.1)
        assert abs(np.std(np.log(values) - design @ coefficients) / sd - 1) < 0.05
    assert abs(np.mean(weight)) < 0.02


def test_the_measurement_error_is_as_stated() -> None:
    p = make_pk(3000, 2, random_state=3)
    z = (p.y - p.mean) / np.hypot(0.15 * p.mean, 0.2)
    assert abs(z.std() - 1) < 0.03
    assert p.y.min() >= 0.1
    doses = p.doses.ravel()
    assert 100 <= doses.min() <= doses.max() <= 1200
    assert abs(np.corrcoef(p.doses.T)[0, 1]) < 0.06


def test_the_true_posterior_is_calibrated_and_more_rows_dose_better() -> None:
    p = make_pk(150, 4, random_state=4)
    grid = np.geomspace(100, 3000, 40)
    row = np.arange(len(p.y)) % 4
    attained = []
    for k in (0, 1, 3):
        chance = p.chance(row < k, grid, random_state=0)
        best = chance.argmax(axis=1)
        attained.append(p.in_target(grid[best]).mean())
        assert abs(chance.max(axis=1).mean() - attained[-1]) < 0.11
    assert attained[0] + 0.15 < attained[1] < attained[2]
    one_for_all = max(p.in_target(dose).mean() for dose in grid)
    assert one_for_all < attained[1] - 0.15


def test_same_seed_same_rows() -> None:
    one, two = (make_pk(5, random_state=5) for _ in range(2))
    np.testing.assert_array_equal(one.y, two.y)
    seen = one.time < 48
    np.testing.assert_array_equal(
        one.chance(seen, [500.0], random_state=1), two.chance(seen, [500.0], random_state=1)
    )


def test_impossible_requests_say_what_is_wrong() -> None:
    with pytest.raises(DataError, match="unknown route 'nasal'. Use 'oral' or 'iv'"):
        make_pk(route="nasal")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 1"):
        make_pk(0)
