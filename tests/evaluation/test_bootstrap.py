"""Laws of the paired bootstrap over patients."""

import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.evaluation.bootstrap import bootstrap_counts, paired_bootstrap


def test_counts_are_a_resample_and_repeat_with_the_seed():
    counts = bootstrap_counts(30, 200, 0)
    assert counts.shape == (200, 30)
    np.testing.assert_array_equal(counts.sum(axis=1), 30)
    np.testing.assert_array_equal(counts, bootstrap_counts(30, 200, 0))
    assert abs(counts.var() - (1 - 1 / 30)) < 0.1


def test_interval_of_a_mean_matches_the_normal_theory():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=400)
    a, b = shared + rng.normal(0.5, 0.1, 400), shared
    difference, low, high = paired_bootstrap(a, b, root=False, n_bootstrap=4000)
    error = np.std(a - b) / np.sqrt(400)  # pairing removes what the methods share
    assert difference == pytest.approx(np.mean(a - b))
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_root_and_weights_enter_the_statistic():
    a, b, weight = np.array([9.0, 1.0]), np.array([4.0, 4.0]), np.array([3.0, 1.0])
    assert paired_bootstrap(a, b, weight=weight).difference == pytest.approx(np.sqrt(7) - 2)
    assert paired_bootstrap(a, b, weight=weight, root=False).difference == pytest.approx(3)


def test_swapping_the_methods_turns_the_sign():
    rng = np.random.default_rng(0)
    a, b = rng.exponential(size=(2, 50))
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    np.testing.assert_allclose(forth, [-back.difference, -back.high, -back.low])


def test_a_method_against_itself_is_exactly_zero():
    loss = np.random.default_rng(0).exponential(size=20)
    assert paired_bootstrap(loss, loss) == (0, 0, 0)


def test_errors_say_what_to_do():
    with pytest.raises(DataError, match="same tasks"):
        paired_bootstrap([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="between 0 and 1"):
        paired_bootstrap([1.0], [1.0], confidence_level=95)
