"""Limits of errors and maps of probabilities hold by their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.estimators.conformal_limits import BetaCalibration, Limits, tasks_needed


def test_limits_cover_a_random_row_of_a_new_task_at_the_nominal_level():
    """Exact on exchangeable tasks of different sizes, whose errors are alike within the task."""
    rng = np.random.default_rng(0)
    level, n_tasks, held = 0.8, 29, []
    for _ in range(4000):
        sizes = rng.integers(1, 6, n_tasks + 1)
        codes = np.repeat(np.arange(n_tasks + 1), sizes)
        shift = rng.exponential(1.0, n_tasks + 1) * np.where(sizes > 2, 3.0, 1.0)
        error = shift[codes] + 0.3 * rng.exponential(1.0, len(codes))
        new = codes == n_tasks
        low, high = Limits.of(error[~new], codes[~new]).at(level)
        held.append(np.mean((low <= error[new]) & (error[new] <= high)))
    noise = 3.0 * np.std(held) / np.sqrt(len(held))
    assert level - noise < np.mean(held) < level + 2.0 / (n_tasks + 1) + noise


def test_patients_weigh_the_same_however_many_rows_they_have():
    error, tasks = np.arange(100.0), np.arange(100)
    once = Limits.of(error, tasks)
    times = np.where(tasks == 99, 500, 1)
    often = Limits.of(np.repeat(error, times), np.repeat(tasks, times))
    for level in (0.5, 0.9, 0.95):
        assert often.at(level) == once.at(level)


@pytest.mark.parametrize(("n_tasks", "n_rows"), [(19, 1), (40, 3), (200, 1), (1500, 4)])
def test_coarse_limits_contain_the_exact_ones_and_are_hardly_wider(n_tasks, n_rows):
    rng = np.random.default_rng(n_tasks)
    tasks = np.repeat(np.arange(n_tasks), n_rows)
    exact = Limits.of(rng.standard_t(5, len(tasks)), tasks)
    coarse = exact.coarse()
    for level in np.arange(0.1, 0.999, 0.0137):
        if tasks_needed(level) <= n_tasks:
            inner, outer = exact.at(level), coarse.at(level)
            assert outer[0] <= inner[0] <= inner[1] <= outer[1]
            assert coarse.lower(level) <= exact.lower(level)
            assert coarse.upper(level) >= exact.upper(level)
    low, high = exact.at(0.9)
    assert np.diff(coarse.at(0.9)) <= 1.07 * (high - low)
    assert not np.isin(coarse.error, exact.error).any()
    assert len(coarse.error) <= 48
    assert Limits.of(np.empty(0), np.empty(0, np.int64)).coarse().n_tasks == 0


def test_more_patients_than_needed_give_finite_limits_and_fewer_an_error():
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        m = tasks_needed(level)
        errors = np.arange(float(m))
        assert Limits.of(errors, np.arange(m)).at(level) == (0.0, m - 1.0)
        with pytest.raises(DataError, match=f"needs {m} calibration tasks.*got {m - 1}"):
            Limits.of(errors[1:], np.arange(m - 1)).at(level)


@pytest.mark.parametrize("level", [0.5, 0.63, 0.8, 0.9])
@pytest.mark.parametrize("by_kind", [False, True])
def test_limits_are_those_of_crepes_where_every_patient_has_one_row(by_kind, level):
    """There its Mondrian conformal predictive system and this definition are the same."""
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(0)
    n, kinds = 60, np.arange(60) % 2
    sd = rng.uniform(1, 3, n)
    residual = sd * (rng.gamma(2.0, 1.0, n) - 1.0)
    system = crepes.ConformalPredictiveSystem()
    system.fit(residual, sd, bins=kinds if by_kind else None, seed=0)
    at, scale = np.array([50.0, 40.0]), np.array([1.0, 2.0])
    bins = np.arange(2) if by_kind else None
    expected = system.predict_int(at, scale, bins=bins, confidence=level)
    for row in range(2):
        rows = kinds == row if by_kind else np.ones(n, dtype=bool)
        limits = Limits.of((residual / sd)[rows], np.arange(rows.sum())).at(level)
        assert at[row] + scale[row] * np.array(limits) == pytest.approx(expected[row])


@pytest.mark.parametrize("seed", range(5))
def test_limits_are_quantiles_of_the_weighted_errors_and_one_task_beyond(seed):
    """The definition word by word, where patients have several rows; no library has this one."""
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(40), rng.integers(1, 7, 40))
    error = rng.normal(size=len(tasks)) + rng.normal(size=40)[tasks]
    mass = np.array([1.0 / np.sum(tasks == task) for task in tasks])

    def quantile(error: np.ndarray, tail: float) -> float:
        held = [e for e in error if 1.0 + mass[error <= e].sum() > tail * 41.0 + 1e-9]
        return min(held)

    limits = Limits.of(error, tasks)
    for level in (0.5, 0.8, 0.9):
        tail = (1.0 - level) / 2.0
        assert limits.at(level) == (quantile(error, tail), -quantile(-error, tail))
        assert limits.lower(level) == quantile(error, 1.0 - level)


def test_a_lower_limit_excludes_the_nominal_share():
    """Exact on exchangeable tasks of different sizes, whose errors are alike within the task."""
    rng = np.random.default_rng(0)
    n_tasks, above = 24, []
    for _ in range(4000):
        codes = np.repeat(np.arange(n_tasks + 1), rng.integers(1, 5, n_tasks + 1))
        error = rng.exponential(1.0, n_tasks + 1)[codes] + 0.2 * rng.normal(size=len(codes))
        new = codes == n_tasks
        limit = Limits.of(error[~new], codes[~new]).lower(0.8)
        above.append(np.mean(error[new] >= limit))
    noise = 3.0 * np.std(above) / np.sqrt(len(above))
    assert 0.8 - noise < np.mean(above) < 0.8 + 1.0 / (n_tasks + 1) + noise


def test_calibration_finds_the_map_that_made_the_outcomes():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 40_000)
    truth = BetaCalibration(1.5, 0.5, -0.3)
    calibration = BetaCalibration.of(p, rng.random(40_000) < truth.at(p), np.ones(40_000))
    assert (calibration.a, calibration.b, calibration.c) == pytest.approx(
        (1.5, 0.5, -0.3), abs=0.15
    )
    same = BetaCalibration(1.0, 1.0, 0.0)
    np.testing.assert_allclose(same.at(p), p)


def test_useless_probabilities_become_the_share_of_events():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, 2000)
    turned = BetaCalibration.of(p, rng.random(2000) < 1 - p, np.ones(2000))
    assert np.ptp(turned.at(p)) < 1e-12
    assert turned.at(p[:1])[0] == pytest.approx(0.5, abs=0.05)
