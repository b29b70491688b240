"""Leaving a row out in closed form equals adapting without it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LinearRegression, LogisticRegression

from ehrmeta.errors import DataError
from ehrmeta.treatment.nuisances import (
    LogitShifts,
    fit_arm_levels,
    fit_dose_nuisances,
    fit_nuisances,
    rows_of_varied_dose,
)
from ehrmeta.treatment.treated_rows import TreatedRows


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    task, x = np.repeat(np.arange(12), 25), rng.normal(size=(300, 2))
    level = rng.normal(size=12)[task]
    arm = (rng.random(300) < 1 / (1 + np.exp(-x[:, 0] - level))).astype(int)
    return TreatedRows(x, x[:, 0] + level + arm + rng.normal(size=300), arm, task, 12)


def test_levels_without_a_row_are_those_of_the_task_without_it(cases):
    mu = np.zeros((300, 2))
    levels = fit_arm_levels(mu, cases)
    without = levels.without_own_row(mu, cases)
    rest = np.arange(300) != 40
    mean, _ = levels.adapt(mu[rest], cases.take(rest))
    np.testing.assert_allclose(without[40], mean[cases.task[40]])


def test_shifts_without_a_row_are_nearly_those_of_the_task_without_it(cases):
    e, shifts = np.full((300, 2), 0.5), LogitShifts(1.0)
    without = shifts.without_own_row(e, cases)
    rest = np.arange(300) != 40
    mode, _ = shifts.adapt(e[rest], cases.take(rest))
    expected = softmax(np.log(e[[40]]) + mode[[cases.task[40]]], axis=1)
    np.testing.assert_allclose(without[[40]], expected, atol=5e-3)


def test_known_propensities_stay_and_small_ones_are_raised(cases):
    known = np.column_stack([np.full(300, 0.95), np.full(300, 0.05)])
    settings = {"outcome": [LinearRegression()], "propensity": [LogisticRegression()], "clip": 0.1}
    rows = replace(cases, known=known)
    nuisances, adapted = fit_nuisances(rows, 2, cases.task % 4, **settings)
    np.testing.assert_array_equal(adapted.e, np.tile([0.95, 0.1], (300, 1)))
    assert adapted.clipped.all()
    with pytest.raises(DataError, match="known propensities and has no propensity model"):
        nuisances.adapt(cases)


def test_outcomes_of_0_and_1_stay_between(cases):
    rows = replace(cases, y=(cases.y > 0) * 1.0)
    settings = {"outcome": [LinearRegression()], "propensity": np.array([0.5, 0.5]), "clip": 0.01}
    _, adapted = fit_nuisances(rows, 2, cases.task % 4, **settings)
    assert adapted.mu.min() >= 0
    assert adapted.mu.max() <= 1
    assert ((adapted.population_mu < 0) | (adapted.population_mu > 1)).any()


@pytest.fixture(scope="module")
def dosed_cases():
    rng = np.random.default_rng(0)
    task, x = np.repeat(np.arange(20), 15), rng.normal(size=(300, 1))
    level = rng.normal(size=20)[task]
    dose = x[:, 0] + level + rng.normal(size=300)
    return TreatedRows(x, 2 * dose + level + rng.normal(size=300), dose, task, 20)


def test_levels_of_tasks_are_learned_from_their_other_rows(dosed_cases):
    models = [LinearRegression()]
    nuisances, _ = fit_dose_nuisances(
        dosed_cases, dosed_cases.task % 5, outcome=models, dose=models
    )
    new = dosed_cases.take(np.arange(15))
    adapted = nuisances.adapt(new)
    shifted = new.y.copy()
    shifted[3] += 5.0
    again = nuisances.adapt(TreatedRows(new.x, shifted, new.arm, new.task, 20))
    assert again.m[3] == pytest.approx(adapted.m[3])
    assert (np.delete(again.m - adapted.m, 3) > 0.1).all()
    np.testing.assert_allclose(again.dose, adapted.dose)
    np.testing.assert_allclose(adapted.residual(new)[:, 0], new.arm - adapted.dose)


def test_a_task_of_one_dose_has_no_information_on_its_effect(dosed_cases):
    constant = np.where(dosed_cases.task == 2, 1.0, dosed_cases.arm)
    same = TreatedRows(dosed_cases.x, dosed_cases.y, constant, dosed_cases.task, 20)
    np.testing.assert_array_equal(rows_of_varied_dose(same), dosed_cases.task != 2)
