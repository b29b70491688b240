"""Laws of the scores: each equals its definition patient by patient."""

import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.evaluation.metrics import (
    METRICS,
    bootstrap_counts,
    interval_coverage,
    mae_macro,
    paired_bootstrap,
    rmse_macro,
    rmse_pooled,
    rmse_task,
    task_mean,
)


def rows(seed=0):
    rng = np.random.default_rng(seed)
    groups = rng.choice(["a", "b", "c", "d"], 40, p=[0.6, 0.2, 0.1, 0.1])
    return rng.normal(size=40), rng.normal(size=40), groups


def test_equals_the_loop_over_patients():
    y, prediction, groups = rows()
    errors = [(y - prediction)[groups == label] for label in np.unique(groups)]
    mse = [np.mean(e**2) for e in errors]
    assert rmse_macro(y, prediction, groups) == pytest.approx(np.sqrt(np.mean(mse)))
    assert rmse_task(y, prediction, groups) == pytest.approx(np.mean(np.sqrt(mse)))
    assert rmse_pooled(y, prediction, groups) == pytest.approx(
        np.sqrt(np.mean((y - prediction) ** 2))
    )
    mae = [np.mean(np.abs(e)) for e in errors]
    assert mae_macro(y, prediction, groups) == pytest.approx(np.mean(mae))


@pytest.mark.parametrize("metric", METRICS)
def test_order_and_labels_do_not_matter(metric):
    y, prediction, groups = rows()
    order = np.random.default_rng(1).permutation(40)
    renamed = np.array([{"a": 30, "b": 2, "c": 11, "d": 4}[g] for g in groups])
    expected = task_mean(metric, y, prediction, groups).value()
    reordered = task_mean(metric, y[order], prediction[order], renamed[order]).value()
    assert reordered == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_counting_a_patient_twice_equals_copying_it(metric):
    y, prediction, groups = rows()
    copy = groups == "b"
    stacked = [np.concatenate([part, part[copy]]) for part in (y, prediction)]
    copied = task_mean(metric, *stacked, np.concatenate([groups, np.full(copy.sum(), "e")]))
    twice = task_mean(metric, y, prediction, groups).resampled(np.array([[1.0, 2.0, 1.0, 1.0]]))
    assert twice[0] == pytest.approx(copied.value())


def test_coverage_over_rows_and_over_patients():
    y, groups = np.arange(10.0), np.repeat(["a", "b"], [8, 2])
    low, high = np.zeros(10), np.full(10, 7.0)
    assert interval_coverage(y, low, high) == pytest.approx(0.8)
    assert interval_coverage(y, low, high, groups) == pytest.approx(0.5)


def test_errors_say_what_to_do():
    y, prediction, groups = rows()
    with pytest.raises(DataError, match="prediction is NaN or infinite in 1 of 40"):
        rmse_macro(y, np.where(np.arange(40) == 2, np.nan, prediction), groups)
    with pytest.raises(DataError, match="groups has 39 rows, y has 40"):
        rmse_macro(y, prediction, groups[1:])
    with pytest.raises(DataError, match="Use one of rmse_macro"):
        task_mean("rmse", y, prediction, groups)


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
    assert (high - low) / (2 * 1.645 * error) == pytest.approx(1, abs=0.1)


def test_root_and_weights_enter_the_statistic():
    a, b, weight = np.array([9.0, 1.0]), np.array([4.0, 4.0]), np.array([3.0, 1.0])
    assert paired_bootstrap(a, b, sample_weight=weight).difference == pytest.approx(np.sqrt(7) - 2)
    assert paired_bootstrap(a, b, sample_weight=weight, root=False).difference == pytest.approx(3)


def test_swapping_the_methods_turns_the_sign():
    rng = np.random.default_rng(0)
    a, b = rng.exponential(size=(2, 50))
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    np.testing.assert_allclose(forth, [-back.difference, -back.high, -back.low])


def test_a_method_against_itself_is_exactly_zero():
    loss = np.random.default_rng(0).exponential(size=20)
    assert paired_bootstrap(loss, loss) == (0, 0, 0)


def test_errors_of_resampling_say_what_to_do():
    with pytest.raises(DataError, match="same tasks"):
        paired_bootstrap([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="between 0 and 1"):
        paired_bootstrap([1.0], [1.0], confidence_level=95)
