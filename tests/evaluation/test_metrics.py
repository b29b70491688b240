"""Laws of the scores: each equals its definition patient by patient."""

import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.evaluation.metrics import (
    METRICS,
    interval_coverage,
    mae_macro,
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
