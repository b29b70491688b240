"""Copies of the outcome among the features, and gross errors of the outcome."""

import numpy as np
import pytest

from ehrmeta.data.leaks import is_copy, missing_codes, n_gross_errors, refuse_copies
from ehrmeta.errors import DataError

RNG = np.random.default_rng(0)
Y = RNG.normal(50, 9, 200).round(1)
GAPS = np.where(np.arange(200) % 3 == 0, np.nan, Y)
CLASSES = np.array(["yes", "no"], object)[RNG.integers(0, 2, 200)]


@pytest.mark.parametrize(
    ("values", "y"),
    [
        pytest.param(Y, Y, id="copy"),
        pytest.param(3.0 - 2.0 * Y, Y, id="affine"),
        pytest.param((Y / 38.67).round(3), Y, id="another unit, rounded"),
        pytest.param(Y.astype(np.float32), Y, id="single precision"),
        pytest.param(GAPS, Y, id="gaps"),
        pytest.param(CLASSES, CLASSES, id="classes"),
        pytest.param((CLASSES == "yes").astype(int), CLASSES, id="classes as numbers"),
    ],
)
def test_copies_are_detected(values, y):
    assert is_copy(values, y)


@pytest.mark.parametrize(
    ("values", "y"),
    [
        pytest.param(Y + RNG.normal(0, 1, 200), Y, id="noisy"),
        pytest.param(Y**2, Y, id="not linear"),
        pytest.param(np.full(200, 3.0), Y, id="constant"),
        pytest.param(Y[:20], Y[:20], id="few rows"),
        pytest.param(
            np.where(np.arange(200) % 7 == 0, "no", CLASSES), CLASSES, id="one class apart"
        ),
    ],
)
def test_other_columns_are_not(values, y):
    assert not is_copy(values, y)


def test_copies_are_refused_by_name():
    with pytest.raises(DataError, match=r"\['mmol'\] are copies of the outcome 'hdl'.*Drop them"):
        refuse_copies({"age": RNG.normal(size=200), "mmol": Y / 38.67}, Y, "hdl")


def test_gross_errors_are_counted_and_skewed_outcomes_have_none():
    assert n_gross_errors(np.append(Y, [73519.0, 1e9])) == 2
    assert n_gross_errors(np.append(RNG.normal(0, 1, 300), -999.0)) == 1
    assert n_gross_errors(RNG.lognormal(0, 2, 5_000)) == 0
    assert n_gross_errors(np.array([0.0] * 90 + [1.0] * 10)) == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.repeat([1, 2, 9], [30, 30, 4]), {9: 4}),
        (np.r_[RNG.normal(6.5, 1, 100).clip(4, 9), -9, 999, 999], {-9: 1, 999: 2}),
        (RNG.normal(80, 20, 300).round(), {}),  # 88 and 99 are values like others
        (np.repeat([0, 1, 2, 3], 20), {}),
        (np.r_[np.zeros(40), 9.0], {}),  # all others are alike
        (np.repeat([1, 2, 9], [3, 3, 4]), {}),  # too few to tell
        (np.array(["1", "9"] * 30, dtype=object), {}),
    ],
)
def test_codes_for_missing_values_lie_far_from_all_others(values, expected):
    assert missing_codes(values) == expected
