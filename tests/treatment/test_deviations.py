"""Tasks deviate from the population no more than their rows say."""

import numpy as np
import pytest

from ehrmeta.treatment.deviations import fit_deviations
from ehrmeta.treatment.treated_rows import TreatedRows

N_TASKS, N = 60, 30


def rows(differ, slope=0.0, seed=0):
    rng = np.random.default_rng(seed)
    task, x = np.repeat(np.arange(N_TASKS), N), rng.normal(size=(N_TASKS * N, 1))
    arm = np.arange(N_TASKS * N) % 2
    deviation, slopes = differ * rng.normal(size=N_TASKS), slope * rng.normal(size=N_TASKS)
    residual = rng.normal(size=len(task)) + rng.normal(size=N_TASKS)[task]
    residual += arm * (deviation[task] + slopes[task] * x[:, 0])
    return TreatedRows(x, residual, arm, task, N_TASKS), deviation


@pytest.mark.parametrize(
    ("differ", "slope", "expected"),
    [(0.0, 0.0, ("none",)), (1.0, 0.0, ("level",)), (1.0, 1.0, ("common slopes", "slopes"))],
)
def test_the_simplest_variation_that_the_rows_ask_for_is_taken(differ, slope, expected):
    cases, _ = rows(differ, slope)
    fitted = fit_deviations(cases, cases.arm[:, None] * 1.0, cases.y, np.ones(2))
    assert fitted.variation in expected
    if differ:
        assert fitted.prior_cov[0, 0] == pytest.approx(1, abs=0.5)


def test_rows_shrink_the_prior_and_no_rows_leave_it():
    cases, deviation = rows(1.0)
    fitted = fit_deviations(cases, cases.arm[:, None] * 1.0, cases.y, np.ones(2))
    sensitivity = np.zeros((cases.n_rows, 1))
    state = fitted.adapt(cases, cases.arm[:, None] * 1.0, cases.y, sensitivity)
    assert np.corrcoef(state.mean[:, 0], deviation)[0, 1] > 0.9
    assert (state.cov[:, 0, 0] < 0.3 * fitted.prior_cov[0, 0]).all()
    prior = fitted.adapt(cases, np.zeros((cases.n_rows, 1)), cases.y, sensitivity)
    np.testing.assert_array_equal(prior.mean[:, 0], 0)
    np.testing.assert_array_equal(prior.cov[:, 0, 0], fitted.prior_cov[0, 0])


def test_one_task_does_not_deviate():
    cases = rows(1.0)[0].in_one_task()
    fitted = fit_deviations(cases, cases.arm[:, None] * 1.0, cases.y, np.ones(2))
    assert fitted.variation == "none"
    assert fitted.design(cases.x, np.ones(1)).shape == (cases.n_rows, 0)
