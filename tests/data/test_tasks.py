from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ehrmeta.data import PatientKFold, before, first_k, index_tasks, random_k, split_tasks
from ehrmeta.errors import DataError, DataWarning, GroupError, SchemaError

Rows = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Tasks of any size in any order, times with ties, outcomes known at or after them."""
    n = draw(st.integers(1, 40))
    groups = draw(hnp.arrays(np.int64, n, elements=st.integers(-3, 4)))
    time = draw(hnp.arrays(np.float64, n, elements=st.integers(0, 6).map(float)))
    wait = draw(hnp.arrays(np.float64, n, elements=st.integers(0, 4).map(float)))
    return groups, time, time + wait


@given(rows())
def test_index_sorts_rows_by_task_then_time_then_position(data: Rows) -> None:
    groups, time, _ = data
    tasks = index_tasks(groups, time)
    labels, codes = np.unique(groups, return_inverse=True)
    np.testing.assert_array_equal(tasks.labels, labels)
    np.testing.assert_array_equal(tasks.codes, codes)
    np.testing.assert_array_equal(tasks.order, np.lexsort((time, codes)))
    np.testing.assert_array_equal(tasks.sizes, np.bincount(codes))
    np.testing.assert_array_equal(index_tasks(groups).order, np.argsort(codes, kind="stable"))


@given(rows(), st.randoms(use_true_random=False))
def test_labels_do_not_depend_on_the_order_of_the_rows(data: Rows, random: Any) -> None:
    groups = data[0]
    shuffled = groups.copy()
    random.shuffle(shuffled)
    np.testing.assert_array_equal(index_tasks(groups).labels, index_tasks(shuffled).labels)


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b"],
        np.array(["b", "a", "b"]),
        pd.Series(["b", "a", "b"], dtype="category"),
        pl.Series(["b", "a", "b"]),
    ],
)
def test_ids_of_any_kind_give_the_same_tasks(groups: Any) -> None:
    tasks = index_tasks(groups)
    assert tasks.labels.tolist() == ["a", "b"]
    assert tasks.codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([1.0, np.nan], r"missing in 1 of 2 rows \(first: row 1\)"),
        (["a", None], "missing in 1 of 2 rows"),
        (pd.Series([1, None], dtype="Int64"), "missing in 1 of 2 rows"),
        ([1, "a"], "mixes text"),
        ([[1], [2]], "must be one column"),
        ([2**70, 2**70 + 1], "above 2\\^53"),
        ([1.0, 2.0**60], "Pass them as text"),
    ],
)
def test_unusable_ids_are_refused_without_showing_them(groups: Any, words: str) -> None:
    with pytest.raises(GroupError, match=words):
        index_tasks(groups)


@given(rows(), st.integers(0, 5), st.booleans())
def test_queries_lie_strictly_after_their_support(data: Rows, k: int, timed: bool) -> None:
    groups, time, known = data
    tasks = index_tasks(groups, time)
    support, query = first_k(tasks, k, time=time, outcome_time=known if timed else None)
    assert not (support & query).any()
    for label in np.unique(groups):
        of_task = groups == label
        s, q = support & of_task, query & of_task
        if k == 0 or of_task.sum() <= k:
            assert s.sum() == 0
            assert q.sum() == (of_task.sum() if k == 0 else 0)
            continue
        assert s.sum() == k
        last = time[s].max()
        assert time[s].max() <= time[of_task & ~s].min()
        allowed = of_task & (time > last) & (~timed | (time >= known[s].max()))
        np.testing.assert_array_equal(q, allowed)


@given(rows(), st.integers(1, 4))
def test_first_k_sorts_by_the_time_it_is_given(data: Rows, k: int) -> None:
    groups, time, _ = data
    sorted_before = first_k(index_tasks(groups, time), k, time=time)
    sorted_now = first_k(index_tasks(groups), k, time=time)
    np.testing.assert_array_equal(sorted_before, sorted_now)


def test_without_time_the_first_rows_in_order_are_the_support() -> None:
    support, query = first_k(index_tasks([1, 2, 1, 1]), 1)
    assert support.tolist() == [True, False, False, False]
    assert query.tolist() == [False, False, True, True]


@given(rows(), st.floats(-1, 8))
def test_before_uses_no_outcome_that_is_not_known_yet(data: Rows, cutoff: float) -> None:
    groups, time, known = data
    support, query = before(index_tasks(groups), time, cutoff, outcome_time=known)
    np.testing.assert_array_equal(support, (time <= cutoff) & (known <= cutoff))
    np.testing.assert_array_equal(query, time > cutoff)


def test_before_takes_one_cutoff_per_task_in_the_order_of_the_labels() -> None:
    tasks = index_tasks(["b", "a", "b", "c"])
    support, query = before(tasks, [0, 0, 5, 0], [-1, 2, np.nan])
    assert support.tolist() == [True, False, False, False]
    assert query.tolist() == [False, True, True, False]
    with pytest.raises(DataError, match=r"cutoff has shape \(2,\), but there are 3 tasks"):
        before(tasks, [0, 0, 5, 0], [1, 2])


@given(rows(), st.integers(0, 4), st.integers(0, 99))
def test_random_k_draws_k_rows_of_every_large_enough_task(data: Rows, k: int, seed: int) -> None:
    tasks = index_tasks(data[0])
    support, query = random_k(tasks, k, seed)
    drawn = np.bincount(tasks.codes[support], minlength=tasks.n_tasks)
    np.testing.assert_array_equal(drawn, np.where(tasks.sizes > k, k, 0))
    np.testing.assert_array_equal(query, ~support & (tasks.sizes > k)[tasks.codes])
    np.testing.assert_array_equal(random_k(tasks, k, seed)[0], support)


def test_random_k_draws_every_row_equally_often() -> None:
    tasks = index_tasks(np.repeat(np.arange(4000), 4))
    drawn = random_k(tasks, 1, 0)[0].reshape(-1, 4).mean(axis=0)
    np.testing.assert_allclose(drawn, 0.25, atol=0.03)


@pytest.mark.parametrize("k", [-1, 1.5, True, "2"])
def test_shots_are_a_whole_number(k: Any) -> None:
    with pytest.raises(DataError, match="shots must be a whole number"):
        first_k(index_tasks([1, 1]), k)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"time": [0.0]}, r"time has shape \(1,\), but groups has 2 rows"),
        ({"time": [0.0, np.nan]}, "time is missing or infinite in 1 of 2 rows"),
        ({"time": [0.0, 1.0], "outcome_time": [0.0, np.inf]}, "outcome_time is missing or inf"),
        ({"outcome_time": [0.0, 1.0]}, "outcome_time needs time"),
    ],
)
def test_unusable_times_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        first_k(index_tasks([1, 1]), 1, **arguments)


@given(st.integers(2, 50), st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_split_leaves_tasks_on_both_sides(n: int, fraction: float, seed: int) -> None:
    train, test = split_tasks(np.arange(n), fraction, seed)
    np.testing.assert_array_equal(train, ~test)
    assert 1 <= test.sum() <= n - 1
    assert abs(test.sum() - fraction * n) <= 1


def test_a_split_that_is_impossible_says_why() -> None:
    with pytest.raises(DataError, match=r"test_fraction must lie between 0 and 1, got 1\.5"):
        split_tasks([1, 2], 1.5)
    with pytest.raises(GroupError, match=r"cannot split 1 task\(s\)"):
        split_tasks([1], 0.5)


@given(rows(), st.integers(2, 4), st.booleans())
def test_folds_hold_whole_tasks_and_every_task_once(data: Rows, k: int, shuffle: bool) -> None:
    groups = np.concatenate([data[0], np.arange(10, 10 + k)])
    folds = list(
        PatientKFold(k, shuffle=shuffle, random_state=0 if shuffle else None).split(
            groups, None, groups
        )
    )
    assert len(folds) == k
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(len(groups)))
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(groups)))
    sizes = [len(set(groups[test])) for _, test in folds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_folds_read_the_task_column_inside_cross_validation(make: Any) -> None:
    frame = make({"patient": [1, 1, 2, 2, 3, 3], "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]})
    folds = PatientKFold(3, task="patient", random_state=0)
    assert folds.get_n_splits() == 3
    model = make_pipeline(FunctionTransformer(), DummyRegressor())
    scores = cross_val_score(
        model, frame, np.arange(6.0), cv=folds, scoring="neg_mean_squared_error"
    )
    assert scores.shape == (3,)


def test_groups_reach_the_folds_through_metadata_routing() -> None:
    X, y, groups = np.zeros((6, 1)), np.arange(6.0), np.repeat([1, 2, 3], 2)
    with config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            DummyRegressor(),
            X,
            y,
            cv=PatientKFold(3, random_state=0),
            params={"groups": groups},
            scoring="neg_mean_squared_error",
        )
    assert scores.shape == (3,)


def test_folds_that_cannot_be_made_say_why() -> None:
    frame = pd.DataFrame({"patient": [1, 2], "x": [0.0, 1.0]})
    with pytest.raises(SchemaError, match="no task column 'patien'.*Did you mean 'patient'"):
        next(PatientKFold(2, task="patien").split(frame))
    with pytest.raises(GroupError, match=r"Pass groups=.*PatientKFold\(task="):
        next(PatientKFold(2).split(frame))
    with pytest.raises(GroupError, match="2 tasks cannot be split into 3 folds"):
        next(PatientKFold(3, task="patient").split(frame))


def test_groups_that_only_reach_the_folds_are_warned_of() -> None:
    folds = PatientKFold(2)
    with pytest.warns(DataWarning, match="metadata routing is off"):
        folds.get_n_splits(np.zeros((4, 1)), None, [1, 1, 2, 2])
    with config_context(enable_metadata_routing=True):
        assert folds.get_n_splits(np.zeros((4, 1)), None, [1, 1, 2, 2]) == 2
    assert folds.get_n_splits() == 2
