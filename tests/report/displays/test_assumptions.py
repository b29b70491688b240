"""The pictures of the diagnostics of two arms show what these say."""

import numpy as np
import pytest

from ehrmeta.report import BalanceDisplay, ConfoundingDisplay, OverlapDisplay, RefuterDisplay
from tests.treatment.sites import fitted, plain, simulate


@pytest.fixture(scope="module")
def model():
    return fitted(plain(), simulate(12, 60, seed=1))


def test_overlap_counts_the_rows_of_both_arms(model):
    ax = OverlapDisplay.from_adapted(model.tasks_).ax_
    heights = [bar.get_height() for bar in ax.patches]
    assert sum(map(abs, heights)) == 720
    assert min(heights) < 0 < max(heights)


def test_balance_has_a_point_a_feature_before_and_after(model):
    display = BalanceDisplay.from_adapted(model.tasks_)
    before, after = (dots.get_offsets()[:, 0] for dots in display.ax_.collections[:2])
    balance = display.diagnostics.balance
    np.testing.assert_allclose(sorted(before), sorted(balance.before))
    np.testing.assert_allclose(sorted(after), sorted(balance.after))


def test_the_curve_of_confounders_passes_the_e_value(model):
    display = ConfoundingDisplay.from_adapted(model.tasks_)
    curve = display.ax_.get_lines()[0].get_xydata()
    value = display.diagnostics.e_value
    assert np.interp(value, *curve.T) == pytest.approx(value, rel=0.02)


def test_refuters_stand_below_the_estimated_effect(model):
    display = RefuterDisplay.from_estimator(model, n_repeats=1)
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [
        "estimated effect",
        "placebo treatment",
        "dummy outcome",
    ]
