import numpy as np
import pytest

from ehrmeta.data import NofOnePatients, make_nof1
from ehrmeta.errors import DataError


def within(p: NofOnePatients, values: np.ndarray) -> np.ndarray:
    """Values less their patient's mean."""
    means = np.bincount(p.groups, values) / np.bincount(p.groups)
    return values - means[p.groups]


def naive_slope(p: NofOnePatients) -> float:
    dose = within(p, p.treatment)
    return float(dose @ p.y / (dose @ dose))


@pytest.mark.parametrize("titration", [False, True])
def test_the_truth_is_the_documented_formula(titration: bool) -> None:
    p = make_nof1(300, 6, 5, titration=titration, carry_over=0.6, random_state=0)
    exposure = p.exposure.reshape(300, -1)
    dose = p.treatment.reshape(300, -1)
    before = np.column_stack([np.zeros(300), exposure[:, :-1]])
    np.testing.assert_allclose(exposure, 0.6 * before + 0.4 * dose)
    i = p.groups
    np.testing.assert_allclose(
        p.mean, p.baseline[i] + p.effect[i] * p.exposure + p.trend[i] * p.time
    )
    rest = (p.y - p.mean).reshape(300, -1)
    assert abs(rest.mean()) < 0.3
    assert abs(rest.var() / (9 + 4) - 1) < 0.08
    lagged = np.mean(rest[:, 1:] * rest[:, :-1])
    assert abs(lagged / (0.7 * 9) - 1) < 0.1


def test_the_features_tell_dose_earlier_dose_and_day() -> None:
    p = make_nof1(5, 4, 3, random_state=1)
    np.testing.assert_array_equal(p.X[:, 0], p.treatment)
    np.testing.assert_array_equal(p.X[:, 2] + 3 * p.X[:, 3], p.time)
    for i in range(5):
        dose = p.treatment[p.groups == i]
        np.testing.assert_array_equal(p.X[p.groups == i][3:, 1], dose[:-3])
        assert (p.X[p.groups == i][:3, 1] == 0).all()


def test_pairs_of_periods_hold_both_treatments() -> None:
    p = make_nof1(50, 6, 4, random_state=2)
    periods = p.treatment.reshape(50, 6, 4)
    assert (periods == periods[:, :, :1]).all()
    pairs = periods[:, :, 0].reshape(50, 3, 2)
    assert (pairs.sum(axis=2) == 1).all()
    assert 0.3 < pairs[:, :, 0].mean() < 0.7


def test_titration_follows_the_outcome() -> None:
    p = make_nof1(80, 6, 7, titration=True, random_state=3)
    dose = p.treatment.reshape(80, 6, 7)[:, :, 0]
    score = p.y.reshape(80, 6, 7).mean(axis=2)[:, :-1]
    assert (dose[:, 0] == 0).all()
    assert set(np.unique(dose)) <= {0, 1, 2, 3}
    expected = np.clip(dose[:, :-1] + (score > 44) - 1.0 * (score < 38), 0, 3)
    np.testing.assert_array_equal(dose[:, 1:], expected)


def test_the_naive_slope_is_right_only_without_carry_over_and_titration() -> None:
    plain = make_nof1(400, carry_over=0, random_state=4)
    assert abs(naive_slope(plain) - plain.effect.mean()) < 0.3
    carried = make_nof1(400, carry_over=0.8, random_state=4)
    assert naive_slope(carried) > carried.effect.mean() + 0.8
    for carry_over in (0.0, 0.5):
        titrated = make_nof1(400, titration=True, carry_over=carry_over, random_state=4)
        pooled = np.polyfit(titrated.treatment, titrated.y, 1)[0]
        assert pooled > titrated.effect.mean() + 1


def test_same_seed_same_rows() -> None:
    one, two = (make_nof1(5, titration=True, random_state=5) for _ in range(2))
    np.testing.assert_array_equal(one.y, two.y)
    np.testing.assert_array_equal(one.treatment, two.treatment)


def test_impossible_requests_say_what_is_wrong() -> None:
    with pytest.raises(DataError, match="carry_over must be at least 0 and below 1, got 1"):
        make_nof1(carry_over=1)
    with pytest.raises(DataError, match="must be at least 1"):
        make_nof1(n_days=0)
