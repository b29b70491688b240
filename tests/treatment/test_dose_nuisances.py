"""Dose nuisances of a row do not depend on the row."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from ehrmeta.treatment.dose_nuisances import fit_dose_nuisances, rows_of_varied_dose
from ehrmeta.treatment.treated_rows import TreatedRows


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    task, x = np.repeat(np.arange(20), 15), rng.normal(size=(300, 1))
    level = rng.normal(size=20)[task]
    dose = x[:, 0] + level + rng.normal(size=300)
    return TreatedRows(x, 2 * dose + level + rng.normal(size=300), dose, task, 20)


def test_levels_of_tasks_are_learned_from_their_other_rows(cases):
    models = [LinearRegression()]
    nuisances, _ = fit_dose_nuisances(cases, cases.task % 5, outcome=models, dose=models)
    new = cases.take(np.arange(15))
    adapted = nuisances.adapt(new)
    shifted = new.y.copy()
    shifted[3] += 5.0
    again = nuisances.adapt(TreatedRows(new.x, shifted, new.arm, new.task, 20))
    assert again.m[3] == pytest.approx(adapted.m[3])
    assert (np.delete(again.m - adapted.m, 3) > 0.1).all()
    np.testing.assert_allclose(again.dose, adapted.dose)
    np.testing.assert_allclose(adapted.residual(new)[:, 0], new.arm - adapted.dose)


def test_a_task_of_one_dose_says_nothing_of_its_effect(cases):
    constant = np.where(cases.task == 2, 1.0, cases.arm)
    same = TreatedRows(cases.x, cases.y, constant, cases.task, 20)
    np.testing.assert_array_equal(rows_of_varied_dose(same), cases.task != 2)
