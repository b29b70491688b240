"""Bands, chances and the recommended dose of an adapted patient."""

import numpy as np
import pytest

from ehrmeta.errors import DataError, DataWarning
from tests.treatment.dosing.patients import adapted


def test_bands_hold_the_response_and_widen_beyond_the_doses() -> None:
    with pytest.warns(DataWarning, match="2 of 4 doses lie outside the training doses"):
        found = adapted().dose_response([[0.0]], [0, 2, 4, 9])
    assert (found["low"] < found["response"]).all()
    assert (found["response"] < found["high"]).all()
    assert found["extrapolated"].tolist() == [True, False, False, True]
    width = found["high"] - found["low"]
    assert width.iloc[3] > 1.5 * width.iloc[1]


def test_the_recommended_dose_has_the_largest_chance_of_the_grid() -> None:
    one, grid = adapted(), np.linspace(1, 4, 13)
    chance = one.chance([[0.0]], grid, target=(15, 17))
    best = one.recommend([[0.0]], target=(15, 17), grid=grid)
    assert best["dose"][0] == grid[chance[0].argmax()]
    assert best["probability"][0] == chance.max()
    assert not best["extrapolated"][0]


def test_max_dose_is_kept() -> None:
    free = adapted().recommend([[0.0]], target=(17, 19), grid=[1, 2, 3, 4])
    kept = adapted().recommend([[0.0]], target=(17, 19), grid=[1, 2, 3, 4], max_dose=2.5)
    assert free["dose"][0] > 2.5 >= kept["dose"][0]
    assert kept["probability"][0] < free["probability"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_dose": 0.5}, "max_dose=0.5 lies below all training doses"),
        ({"max_dose": 1.5, "grid": [2, 3]}, "lies below all doses of the grid"),
        ({"target": (3, 1)}, "target must be a range"),
        ({"grid": []}, "grid must hold doses"),
        ({"monotone": "up"}, "monotone must be"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        adapted().recommend([[0.0]], **({"target": (15, 17)} | change))
