"""Means of predictive distributions, back on the outcome's own scale."""

from __future__ import annotations

import numpy as np
import pytest

from ehrmeta.data import OutcomeScale
from ehrmeta.estimators.predictions import Predictive

LOGS = OutcomeScale(center=0.5, scale=1.2, transform="log")


def log_normal(loc: float, scale: float) -> Predictive:
    return Predictive(np.array([loc]), LOGS, np.array([scale]))


def test_a_sharp_prediction_of_logs_has_the_mean_of_the_log_normal() -> None:
    found = log_normal(0.3, 0.2).mean()
    assert found == pytest.approx(np.exp(0.5 + 1.2 * 0.3 + 0.5 * (1.2 * 0.2) ** 2), rel=1e-9)


def test_a_vague_prediction_of_logs_has_the_mean_of_what_lies_below_the_limit() -> None:
    draws = np.random.default_rng(0).normal(1.0, 1.5, 2_000_000)
    expected = np.exp(0.5 + 1.2 * draws[draws < 3.0]).mean()
    assert log_normal(1.0, 1.5).mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3])
def test_no_mean_of_logs_rests_on_a_tail_that_was_never_seen(scale: float) -> None:
    assert log_normal(0.0, scale).mean() < np.exp(0.5 + 1.2 * 3.0)
    assert log_normal(4.0, scale).mean() < np.exp(0.5 + 1.2 * 5.0)


def test_the_mean_of_logs_grows_with_the_median() -> None:
    loc = np.linspace(-5.0, 8.0, 200)
    assert (np.diff(Predictive(loc, LOGS, np.full(200, 0.8)).mean()) > 0.0).all()
