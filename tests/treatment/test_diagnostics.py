"""Diagnostics equal their formulas."""

import numpy as np
import pytest

from ehrmeta.treatment.diagnostics import diagnose, e_value
from ehrmeta.treatment.nuisances import TaskNuisances
from ehrmeta.treatment.treated_rows import TreatedRows


def test_balance_overlap_and_effect_of_a_trial_by_hand():
    x = np.array([[0.0], [2.0], [1.0], [3.0]])
    arm, y = np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 4.0, 5.0])
    cases = TreatedRows(x, y, arm, np.zeros(4, int), 1)
    mu = np.tile([1.5, 4.5], (4, 1))
    nuisances = TaskNuisances(mu, mu, np.full((4, 2), 0.5), np.array([True, False, False, False]))
    diagnostics = diagnose(cases, nuisances, (0, 1), names=("x",), labels=("a", "b"))
    assert diagnostics.balance.loc["x", "before"] == pytest.approx(1 / np.sqrt(2))
    assert diagnostics.balance.loc["x", "after"] == diagnostics.balance.loc["x", "before"]
    assert diagnostics.effect == pytest.approx(3)
    assert (diagnostics.clipped, diagnostics.outside) == (0.25, 0)
    assert diagnostics.overlap.to_numpy().sum(0).tolist() == [2, 2]
    sd = np.std(y - mu[np.arange(4), arm], ddof=1)
    assert diagnostics.e_value == pytest.approx(e_value(np.exp(0.91 * 3 / sd)))


def test_effects_of_risks_are_ratios_of_the_controls_risk():
    arm = np.arange(40) % 2
    y = np.where(np.arange(40) < 10, 1.0, 0.0) + 0.0 * arm
    cases = TreatedRows(np.zeros((40, 1)), y, arm, np.zeros(40, int), 1)
    mu = np.tile([0.2, 0.4], (40, 1))
    nuisances = TaskNuisances(mu, mu, np.full((40, 2), 0.5), np.zeros(40, bool))
    diagnostics = diagnose(cases, nuisances, (0, 1), names=("x",), labels=(0, 1))
    assert diagnostics.effect == pytest.approx(0, abs=1e-12)
    assert diagnostics.e_value_limit == 1
