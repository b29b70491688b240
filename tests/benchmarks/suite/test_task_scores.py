"""Scores of distributions with a jump are those of draws from them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.suite.task_scores import N_BINS, calibration, score_tasks
from ehrmeta.data import OutcomeScale
from ehrmeta.estimators.predictions import CarriedPredictive, Predictive
from ehrmeta.evaluation import crps_sample

OUTCOME = OutcomeScale(center=10.0, scale=2.0)


UNCHANGED = np.array([0.2, 0.5, 0.9, 0.0, 1.0])


LAST, LOC, SCALE = (
    np.array([15.0, 9, 12, 8, 11]),
    np.array([12.0, 10, 6, 8.5, 9]),
    np.arange(1.0, 6),
)


@pytest.fixture(params=[None, 6.0], ids=["normal", "t"])
def carried(request):
    dof = None if request.param is None else np.full(5, request.param)
    return CarriedPredictive(
        OUTCOME.forward(LOC),
        OUTCOME,
        SCALE / 2.0,
        dof,
        unchanged=UNCHANGED,
        last=OUTCOME.forward(LAST),
    )


def draws(n, dof, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(5, n)) if dof is None else rng.standard_t(dof[0], (5, n))
    changed = LOC[:, None] + SCALE[:, None] * noise
    return np.where(rng.random((5, n)) < UNCHANGED[:, None], LAST[:, None], changed)


def test_mean_quantiles_and_crps_are_those_of_draws(carried):
    samples = draws(40_000, carried.dof)
    np.testing.assert_allclose(carried.mean(), samples.mean(1), atol=0.15)
    for level in (0.05, 0.3, 0.5, 0.7, 0.95):
        expected = np.quantile(samples, level, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(carried.quantile(level), expected, atol=0.25)
    y = np.array([15.0, 11, 12, 9, 13])
    scores = score_tasks(y, carried, np.arange(5), resolution=1.0)
    np.testing.assert_allclose(scores["crps"], crps_sample(y, samples), atol=0.06)
    np.testing.assert_allclose(scores["root_squared"], abs(y - carried.quantile(0.5)), atol=1e-9)
    np.testing.assert_allclose(scores["squared"], (y - carried.mean()) ** 2)


def test_the_bins_of_a_rounded_outcome_hold_all_probability(carried):
    grid = np.arange(-400.0, 400.0)
    rows = carried.take(np.repeat(np.arange(5), len(grid)))
    scores = score_tasks(np.tile(grid, 5), rows, np.arange(5 * len(grid)), resolution=1.0)
    total = np.exp(scores["log_likelihood"]).reshape(5, -1).sum(1)
    np.testing.assert_allclose(total, 1.0, atol=1e-3)


def test_outcomes_drawn_from_the_predictions_are_calibrated(carried):
    samples = draws(4_000, carried.dof)
    for i in range(5):
        one = carried.take(np.full(4_000, i))
        scores = score_tasks(samples[i], one, np.arange(4_000), resolution=1.0)
        assert calibration(scores) < 0.02
        assert scores["covered"].mean() > 0.88
    np.testing.assert_allclose(scores["pit"].sum(1), 1.0)
    assert scores["pit"].shape[1] == N_BINS


def test_no_jump_is_the_plain_distribution(carried):
    plain = Predictive(carried.loc, carried.outcome, carried.scale, carried.dof)
    none = CarriedPredictive(
        *(plain.loc, plain.outcome, plain.scale, plain.dof),
        unchanged=np.zeros(5),
        last=OUTCOME.forward(LAST),
    )
    y = np.array([15.0, 11, 12, 9, 13])
    ours, theirs = (score_tasks(y, p, np.arange(5), resolution=1.0) for p in (none, plain))
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, atol=1e-12, err_msg=name)
