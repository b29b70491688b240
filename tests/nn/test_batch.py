"""What a set may show: nothing at or after the point itself, nothing of another task."""

from __future__ import annotations

import math

import pandas as pd
import torch
from hypothesis import given, strategies as st

from ehrmeta.nn.batch import TaskRows, TaskSet, empty_set, padded_index, padded_set, visible_width


def _rows(sizes: list[int], seed: int = 0, missing: float = 0.3) -> TaskRows:
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    measured = torch.randn(n, 2, generator=generator)
    measured[torch.rand(n, 2, generator=generator) < missing] = torch.nan
    return TaskRows.from_codes(
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        len(sizes),
        timed=True,
        x=torch.randn(n, 1, generator=generator),
        measured=measured,
        time=torch.randint(0, 8, (n,), generator=generator).double(),
        y=torch.randn(n, generator=generator),
        origin=torch.arange(n),
    )


def _set(query: TaskRows, support: TaskRows):
    index, mask = padded_index(query.starts[:-1], query.sizes)
    source_index, source_mask = padded_index(support.starts[:-1], support.sizes)
    return padded_set(
        query,
        index,
        mask,
        source=support,
        source_index=source_index,
        source_mask=source_mask,
        time_unit=1.0,
    )


sizes = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@given(sizes, st.integers(0, 100))
def test_measured_features_are_the_last_strictly_earlier_support_value(support_sizes, seed):
    support = _rows(support_sizes, seed)
    query = _rows([2] * len(support_sizes), seed + 1)
    batch = _set(query, support)
    for task in range(support.n_tasks):
        rows = slice(int(support.starts[task]), int(support.starts[task + 1]))
        table = pd.DataFrame(support.measured[rows].numpy()).assign(time=support.time[rows].numpy())
        for point in range(2):
            row = int(query.starts[task]) + point
            now = float(query.time[row])
            for feature in range(2):
                seen = table[table.time < now][["time", feature]].dropna()
                value, age, missing = batch.x[task, point, [2 + feature, 4 + feature, 6 + feature]]
                assert bool(missing) == seen.empty
                if seen.empty:
                    assert value == age == 0.0
                if not seen.empty:
                    assert float(value) == seen[feature].iloc[-1]
                    expected = math.asinh(now - seen.time.iloc[-1])
                    assert math.isclose(float(age), expected, abs_tol=1e-6)


@given(sizes, st.integers(0, 100))
def test_elapsed_time_counts_from_the_last_support_row(support_sizes, seed):
    support, query = _rows(support_sizes, seed), _rows([2] * len(support_sizes), seed + 1)
    batch = _set(query, support)
    for task, size in enumerate(support_sizes):
        last = support.time[support.starts[task + 1] - 1] if size else None
        now = query.time[2 * task : 2 * task + 2]
        expected = now - last if size else torch.zeros(2, dtype=torch.float64)
        torch.testing.assert_close(batch.time[task], expected)
        torch.testing.assert_close(batch.x[task, :, 1], torch.asinh(expected).float())


@given(sizes)
def test_a_point_never_sees_its_own_measurements(query_sizes):
    query = _rows(query_sizes)
    scrambled = TaskRows(**{**vars(query), "measured": torch.randn_like(query.measured)})
    support = _rows([3] * len(query_sizes), seed=5)
    torch.testing.assert_close(_set(query, support).x, _set(scrambled, support).x)


def test_padding_is_masked_weightless_and_zero():
    batch = _set(_rows([3, 1, 0]), _rows([2, 0, 1], seed=1))
    assert batch.mask.sum(1).tolist() == [3, 1, 0]
    for tensor in batch:
        assert not tensor[~batch.mask].any()
    assert batch.x.shape[-1] == visible_width(_rows([1]))
    assert batch.x.isfinite().all()


def test_selecting_and_merging_rows_keep_every_row_with_its_task():
    rows = _rows([3, 0, 4, 2])
    picked = rows.select(torch.tensor([2, 0]))
    assert picked.sizes.tolist() == [4, 3]
    torch.testing.assert_close(picked.y, torch.cat([rows.y[3:7], rows.y[:3]]))
    merged = rows.merge(rows.codes, 5, picked, torch.tensor([4] * 4 + [0] * 3))
    assert merged.sizes.tolist() == [6, 0, 4, 2, 4]
    assert sorted(merged.y.tolist()) == sorted([*rows.y.tolist(), *picked.y.tolist()])
    for task in range(5):
        assert (merged.time[merged.codes == task].diff() >= 0).all()


def test_taken_rows_keep_their_tasks_or_get_the_given_ones():
    rows = _rows([3, 0, 4, 2])
    kept = rows.take(torch.tensor([8, 0, 3]))
    assert kept.sizes.tolist() == [1, 0, 1, 1]
    torch.testing.assert_close(kept.y, rows.y[[0, 3, 8]])
    repeated = rows.take(torch.tensor([5, 5]), torch.tensor([1, 0]), 2)
    torch.testing.assert_close(repeated.y, rows.y[[5, 5]])
    assert repeated.sizes.tolist() == [1, 1]


def test_ages_and_elapsed_time_are_in_the_given_unit():
    rows = TaskRows(
        **{**vars(_rows([3])), "time": torch.tensor([0.0, 30.0, 90.0]).double()}
        | {"measured": torch.tensor([[1.0, 2.0]] * 3)}
    )
    index, mask = torch.tensor([[2]]), torch.tensor([[True]])
    source_index = torch.tensor([[0, 1]])
    batch = padded_set(
        rows,
        index,
        mask,
        source=rows,
        source_index=source_index,
        source_mask=source_index >= 0,
        time_unit=30.0,
    )
    elapsed = math.asinh(60.0 / 30.0)
    torch.testing.assert_close(
        batch.x[0, 0, 1:], torch.tensor([elapsed, 1.0, 2.0, elapsed, elapsed, 0.0, 0.0])
    )
    assert batch.time.tolist() == [[60.0]]


def test_without_a_support_all_measured_values_are_missing():
    batch = _set(_rows([2, 1]), _rows([0, 0]))
    point = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    torch.testing.assert_close(batch.x[batch.mask][:, 1:], point.expand(3, 7))
    assert not batch.time.any()


def test_rows_without_time_have_their_features_alone():
    timed = _rows([2, 1])
    rows = TaskRows(**{**vars(timed), "timed": False, "measured": torch.empty(3, 0)})
    assert visible_width(rows) == 1
    batch = _set(rows, rows)
    torch.testing.assert_close(batch.x[batch.mask], rows.x)
    untimed = TaskRows(**{**vars(timed), "measured": torch.empty(3, 0)})
    assert visible_width(untimed) == _set(untimed, untimed).x.shape[-1] == 2


def test_a_set_holds_outcomes_offsets_and_weights_of_its_rows():
    plain = _rows([3, 1])
    assert not plain.offset.any()
    rows = TaskRows(**{**vars(plain), "offset": torch.arange(4.0)})
    batch = _set(rows, rows)
    torch.testing.assert_close(batch.y[batch.mask], rows.y)
    torch.testing.assert_close(batch.offset[batch.mask], rows.offset)
    assert batch.n.tolist() == [3.0, 1.0]
    second = batch.tasks(torch.tensor([1]))
    assert all(torch.equal(of[0], column[1]) for of, column in zip(second, batch, strict=True))


def test_an_empty_set_has_no_point_of_any_task():
    none = empty_set(3, 2, torch.ones(1))
    assert [tuple(column.shape) for column in none] == [(3, 0, 2)] + [(3, 0)] * 5
    types = [torch.float32, torch.float32, torch.float64, torch.bool, torch.float32, torch.float32]
    assert [column.dtype for column in none] == types
    assert isinstance(none, TaskSet)


def test_a_padded_index_has_a_given_width_and_points_to_row_0_where_padded():
    index, mask = padded_index(torch.tensor([4, 1]), torch.tensor([2, 1]), width=3)
    assert index.tolist() == [[4, 5, 0], [1, 0, 0]]
    assert mask.tolist() == [[True, True, False], [True, False, False]]
    assert padded_index(torch.tensor([], dtype=int), torch.tensor([], dtype=int))[0].shape == (0, 0)


def test_one_task_is_sorted_like_many_and_keeps_equal_times_in_order():
    time = torch.tensor([2.0, 1.0, 2.0, 1.0]).double()
    columns = {"x": torch.zeros(4, 1), "measured": torch.empty(4, 0), "y": torch.arange(4.0)}
    columns |= {"time": time, "origin": torch.arange(4)}
    for n_tasks in (1, 2):
        rows = TaskRows.from_codes(torch.zeros(4, dtype=int), n_tasks, timed=True, **columns)
        assert rows.y.tolist() == [1.0, 3.0, 0.0, 2.0]
        assert rows.starts.tolist() == [0, 4] + [4] * (n_tasks - 1)
        assert (rows.n_tasks, rows.n_rows, rows.device.type) == (n_tasks, 4, "cpu")


def test_rows_move_to_another_device_as_a_whole():
    rows = _rows([2, 1])
    moved = rows.to(torch.device("meta"))
    assert {getattr(moved, name).device.type for name in vars(rows) if name != "timed"} == {"meta"}
    assert moved.timed is rows.timed


def test_rows_cannot_be_changed():
    assert TaskRows.__dataclass_params__.frozen
