"""The half-life is found where doses act on, and is 0 where they do not."""

import numpy as np
import pytest

from ehrmeta.data import make_nof1
from ehrmeta.treatment.dosing.exposure import exposure
from ehrmeta.treatment.dosing.half_life import estimate_half_life
from tests.treatment.dosing.patients import nof1_fit


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
