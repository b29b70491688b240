import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ehrmeta.data import OutcomeScale, Warp
from ehrmeta.errors import DataError

WARPS = [Warp(0.7, 0.0), Warp(2.0, None, 30.0), Warp(0.5, 0.0, 30.0)]


@given(
    hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0.01, 1e4)),
    st.sampled_from([None, "log", "sqrt", *WARPS]),
)
def test_the_outcome_comes_back(y: NDArray[np.float64], transform: Any) -> None:
    scale = OutcomeScale.fit(y, transform)
    np.testing.assert_allclose(scale.inverse(scale.forward(y)), y, rtol=1e-6, atol=1e-6)
    assert OutcomeScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


def test_the_scaled_outcome_has_mean_0_and_sd_1() -> None:
    y = np.random.default_rng(0).lognormal(3, 1, 500)
    z = OutcomeScale.fit(y, "log").forward(y)
    assert [z.mean(), z.std()] == pytest.approx([0, 1], abs=1e-9)
    assert OutcomeScale.fit([5.0, 5.0]).scale == 1


def test_the_inverse_keeps_the_order_of_quantiles_and_never_turns_negative() -> None:
    scale = OutcomeScale.fit(np.array([1.0, 4.0, 9.0]), "sqrt")
    low = scale.inverse(np.linspace(-50, 5, 200))
    assert (np.diff(low) >= 0).all()
    assert low.min() == 0
    assert OutcomeScale(0, 1, "log").inverse([1e4])[0] == np.inf


@pytest.mark.parametrize(
    ("y", "transform", "words"),
    [
        (
            [1.0, 0.0],
            "log",
            "outcome 'hdl' is zero or negative in 1 of 2 rows .*The log does not exist",
        ),
        ([1.0, -1.0], "sqrt", "negative in 1 of 2 rows .*The sqrt does not exist"),
        ([1.0, np.nan], None, r"missing \(NaN\) or infinite \(inf\) in 1 of 2 rows"),
        ([], None, "no rows"),
    ],
)
def test_an_outcome_without_a_scale_is_refused(y: Any, transform: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        OutcomeScale.fit(y, transform, "hdl")


@pytest.mark.parametrize("y", [1e9, -1e30])
def test_an_outcome_no_network_can_follow_is_refused(y: float) -> None:
    scale = OutcomeScale.fit([1.0, 2.0, 3.0], name="hdl")
    with pytest.raises(DataError, match=r"'hdl' is over 1e\+06 standard dev.* 1 of 2 rows"):
        scale.forward([2.0, y])
    with pytest.raises(DataError, match=r"'hdl' exceeds 1e\+30"):
        OutcomeScale.fit([2.0, 1e31], name="hdl")


@pytest.mark.parametrize("warp", WARPS, ids=str)
def test_a_warp_is_monotone_and_smooth_with_its_slope_also_beyond_the_ends(warp: Warp) -> None:
    y = np.linspace(-9.0, 39.0, 4801)
    g = warp.forward(y)
    assert (np.diff(g) > 0).all()
    slope = np.exp(warp.log_slope(0.5 * (y[1:] + y[:-1])))
    np.testing.assert_allclose(np.diff(g) / np.diff(y), slope, rtol=1e-3)
    np.testing.assert_allclose(warp.inverse(g), y, atol=1e-9)


def test_a_warp_is_the_log_near_its_end_and_straight_with_a_large_offset() -> None:
    y = np.array([1.0, 2.0, 4.0, 8.0])
    np.testing.assert_allclose(np.diff(Warp(1e-9, 0.0).forward(y)), np.log(2.0))
    np.testing.assert_allclose(1e6 * Warp(1e6, 0.0).forward(y), y, rtol=1e-5)
    logit = np.diff(Warp(1e-9, 0.0, 30.0).forward(y))
    np.testing.assert_allclose(logit, np.diff(np.log(y / (30.0 - y))))


@pytest.mark.parametrize(
    "ends", [(1.0,), (0.0, 0.0), (np.nan, 0.0), (1.0, np.inf), (1.0, 2.0, 1.0)]
)
def test_a_warp_without_ends_in_order_or_a_positive_offset_is_refused(ends: Any) -> None:
    with pytest.raises(DataError, match="warp"):
        Warp(*ends)
