"""Pooling equals statsmodels, and covers."""

import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from ehrmeta.errors import DataError
from ehrmeta.treatment import pool_effects


def test_equals_statsmodels():
    rng = np.random.default_rng(0)
    se = rng.uniform(0.1, 0.5, 12)
    effect = 1 + 0.5 * rng.normal(size=12) + se * rng.normal(size=12)
    ours = pool_effects(effect, se)
    theirs = combine_effects(effect, se**2, method_re="iterated", use_t=True)
    assert ours.tau == pytest.approx(np.sqrt(theirs.tau2), rel=1e-4)
    assert ours.effect == pytest.approx(theirs.mean_effect_re, rel=1e-5)
    assert ours.se == pytest.approx(theirs.sd_eff_w_re_hksj, rel=1e-4)


def test_alike_effects_have_no_spread():
    pooled = pool_effects([1.0, 1.01, 0.99], [0.2, 0.2, 0.2])
    assert pooled.tau == 0
    assert pooled.se == pytest.approx(0.2 / np.sqrt(3))


def test_intervals_cover():
    rng = np.random.default_rng(1)
    mean, new = 0, 0
    for _ in range(300):
        se = rng.uniform(0.1, 0.5, 10)
        pooled = pool_effects(0.4 * rng.normal(size=10) + se * rng.normal(size=10), se)
        mean += pooled.interval[0] < 0 < pooled.interval[1]
        new += pooled.prediction_interval[0] < 0.4 * rng.normal() < pooled.prediction_interval[1]
    assert 0.91 < mean / 300 < 0.99
    assert 0.90 < new / 300 < 0.99


def test_few_tasks():
    assert pool_effects([2.0], [0.5]).prediction_interval == (-np.inf, np.inf)
    assert pool_effects([2.0, 1.0], [0.5, 0.5]).prediction_interval == (-np.inf, np.inf)
    with pytest.raises(DataError, match="positive standard error"):
        pool_effects([1.0, 2.0], [0.1, 0.0])


def test_prints_in_one_short_line():
    line = str(pool_effects([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))
    assert line.startswith("effect 2 (")
    assert "sd over 3 tasks" in line
    assert len(line) < 100
