"""What a set may show: nothing at or after the point itself, nothing of another task."""

from __future__ import annotations

import math

import pandas as pd
import torch
from hypothesis import given, strategies as st

from ehrmeta.nn.batch import TaskRows, padded_index, padded_set, visible_width


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
