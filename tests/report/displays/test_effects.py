"""Ranked effects and dose-response curves are drawn as the model holds them."""

import numpy as np
import pytest

from ehrmeta.errors import DataError, DataWarning
from ehrmeta.report import (
    BalanceDisplay,
    ConfoundingDisplay,
    DoseResponseDisplay,
    EffectRankDisplay,
    OverlapDisplay,
    RefuterDisplay,
)
from ehrmeta.treatment import DoseResponse
from tests.treatment.sites import adapted, fitted, plain, simulate


@pytest.fixture(scope="module")
def model():
    return fitted(plain(), simulate(12, 60, seed=1))


def test_a_group_is_drawn_at_its_own_effect(model):
    sites = adapted(model, simulate(12, 60, seed=2))
    display = EffectRankDisplay.from_adapted(sites, n_groups=4)
    table = sites.effects_by_rank(n_groups=4)
    drawn = np.asarray(display.ax_.containers[0].lines[0].get_ydata(), float)
    np.testing.assert_allclose(drawn, table["effect"])
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == [f"{group}\n(180 rows)" for group in range(1, 5)]
    zero, one = sites.diagnostics().arms
    assert display.ax_.get_ylabel().endswith(f",\n{one} over {zero}")


def test_doses_beyond_training_are_dashed_and_the_target_is_a_stripe():
    rng = np.random.default_rng(0)
    patient, dose = np.repeat(np.arange(30), 4), np.tile([1.0, 2.0, 3.0, 4.0], 30)
    y = 2 * dose + rng.normal(size=30)[patient] + rng.normal(0, 0.1, 120)
    day, X = np.tile(np.arange(4.0), 30), np.zeros((120, 1))
    model = DoseResponse(trend=False).fit(X, y, treatment=dose, groups=patient, time=day)
    one = model.adapt([[0.0]] * 2, [3.0, 5.0], treatment=[1.0, 2.0], time=[0.0, 1.0])
    with pytest.warns(DataWarning, match="outside the training doses"):
        display = DoseResponseDisplay.from_adapted(one, [[0.0]], [2.0, 4.0, 8.0], target=(4, 6))
        table = one.dose_response([[0.0]], [2.0, 4.0, 8.0])
    beyond, within = display.ax_.get_lines()
    assert np.isnan(within.get_ydata()).tolist() == [False, False, True]
    np.testing.assert_allclose(beyond.get_ydata(), table["response"])
    words = {text.get_text() for text in display.ax_.get_legend().get_texts()}
    assert {"target", "90 % band", "outside the training doses"} <= words
    with pytest.raises(DataError, match="row=2, but X has 1 rows"):
        DoseResponseDisplay.from_adapted(one, [[0.0]], row=2)


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
