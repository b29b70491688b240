import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, strategies as st

from ehrmeta.data import Clock, Feature, Outcome, Schema, Table, check_table, load_dataset
from ehrmeta.errors import DataError, DataWarning, GroupError, SchemaError

SCHEMA = Schema(
    (
        Feature("age", unit="a", low=0, high=110),
        Feature("sex", "categorical", "static"),
        Feature("crp", role="measured", unit="mg/L", low=0, high=500),
        Feature("smoker", "binary"),
    ),
    Outcome("sbp", unit="mm[Hg]", low=40, high=300),
    task="patient",
    time=Clock("day"),
    treatment="arm",
    outcome_time="known",
)


def rows(n: int = 12) -> dict[str, list[Any]]:
    """Three patients in turn, in no order of time."""
    return {
        "patient": [f"p{i % 3}" for i in range(n)],
        "day": [float((7 * i) % n) for i in range(n)],
        "known": [float((7 * i) % n + 2) for i in range(n)],
        "age": [50.0 + i for i in range(n)],
        "sex": ["f" if i % 3 else "m" for i in range(n)],
        "crp": [None if i % 4 == 0 else 2.0 * i for i in range(n)],
        "smoker": [i % 2 for i in range(n)],
        "arm": [i % 2 for i in range(n)],
        "sbp": [120.0 + i for i in range(n)],
        "note": ["not in the schema"] * n,
    }


def frame(**changes: Any) -> pd.DataFrame:
    return pd.DataFrame(rows()).assign(**changes)


def first(name: str, value: Any) -> list[Any]:
    """Return a column of `rows` with another first cell."""
    return [value, *rows()[name][1:]]


def test_pandas_polars_and_arrays_give_the_same_table() -> None:
    tables = [
        Table.from_frame(make(rows()), SCHEMA)
        for make in (pd.DataFrame, pl.DataFrame, lambda r: pd.DataFrame(r).convert_dtypes())
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table.X, tables[0].X, check_dtype=False)
        for name in ("y", "groups", "time", "treatment", "outcome_time"):
            np.testing.assert_array_equal(getattr(table, name), getattr(tables[0], name))
    array = np.column_stack([[1, 1, 2, 2], [0, 1, 0, 1], [5.0, 6.0, 7.0, 8.0], [1, 2, 3, 4]])
    from_array = Table.from_frame(array, task="x0", time="x1", outcome="x2", known=["x3"])
    assert from_array.y.tolist() == [5, 6, 7, 8]
    assert list(from_array.X) == ["x3"]


def test_rows_keep_their_order_and_columns_their_place() -> None:
    table = Table.from_frame(frame(), SCHEMA)
    assert list(table.X) == ["age", "sex", "crp", "smoker"]
    assert table.y.tolist() == rows()["sbp"]
    assert table.groups.tolist() == rows()["patient"]
    assert table.X.index.tolist() == list(range(12))
    assert (len(table), table.n_tasks, table.findings) == (12, 3, ())


def test_the_schema_travels_with_the_features() -> None:
    table = Table.from_frame(frame(), SCHEMA)
    for part in (table, *table.split(random_state=0), *table.support_query(shots=1)):
        assert Schema.from_dict(part.X.attrs["ehrmeta_schema"]) == SCHEMA


def test_implausible_values_are_masked_counted_and_warned_of_once() -> None:
    wrong = frame(sbp=first("sbp", 1200.0), crp=[-1.0, -1.0, *rows()["crp"][2:]])
    with pytest.warns(DataWarning) as caught:
        table = Table.from_frame(wrong, SCHEMA)
    assert len(caught) == 1
    assert "column 'sbp': 1 row dropped: outcome outside 40 to 300 mm[Hg]" in str(caught[0].message)
    assert "column 'crp': 2 values set to missing: outside 0 to 500 mg/L" in str(caught[0].message)
    assert len(table) == 11
    assert table.X.index.tolist() == list(range(1, 12))
    assert np.isnan(table.X["crp"].iloc[0])
    assert [f.count for f in table.findings] == [1, 2]
    assert "1200" not in str(caught[0].message)


def test_rows_without_outcome_raise_or_are_left_out_and_counted() -> None:
    gaps = frame(sbp=first("sbp", None))
    with pytest.raises(
        DataError, match=r"'sbp': 1 missing outcome \(first: row 0\).*on_missing_outcome='drop'"
    ):
        Table.from_frame(gaps, SCHEMA)
    table = Table.from_frame(gaps, SCHEMA, on_missing_outcome="drop")
    assert (len(table), table.findings[0].count) == (11, 1)


def repeated() -> pd.DataFrame:
    return pd.concat([frame(), frame().iloc[[4]].assign(sbp=130.0, crp=1.0)], ignore_index=True)


@pytest.mark.parametrize(
    ("policy", "outcome", "crp", "row"),
    [("first", 124.0, np.nan, 4), ("last", 130.0, 1.0, 12), ("mean", 127.0, 1.0, 4)],
)
def test_repeated_times_are_resolved_by_the_policy(
    policy: Any, outcome: float, crp: float, row: int
) -> None:
    schema = Schema.from_dict(SCHEMA.to_dict() | {"on_duplicate": policy})
    table = Table.from_frame(repeated(), schema)
    assert len(table) == 12
    at = table.X.index.get_loc(row)
    assert table.y[at] == outcome
    np.testing.assert_equal(table.X["crp"].iloc[at], crp)
    assert table.findings[0].count == 1


def test_repeated_times_raise_in_patients_and_are_normal_in_cohorts() -> None:
    with pytest.raises(DataError, match=r"1 row repeating .*first: task 1 of 3, rows 4 and 12"):
        Table.from_frame(repeated(), SCHEMA)
    for change in ({"task_kind": "cohort"}, {"on_duplicate": "allow"}):
        schema = Schema.from_dict(SCHEMA.to_dict() | change)
        assert len(Table.from_frame(repeated(), schema)) == 13


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sbp": "high"}, DataError, "'sbp': 12 values of text, not numbers"),
        ({"sbp": 120.0}, DataError, "'sbp': 1 distinct value in the column: it is constant"),
        ({"sbp": 4000.0}, DataError, "'sbp': 0 valid outcomes"),
        ({"sbp": first("sbp", np.inf)}, DataError, r"'sbp' holds infinity \(inf\) in 1 of 12"),
        ({"patient": first("patient", None)}, GroupError, "'patient': 1 missing value"),
        ({"day": first("day", None)}, DataError, "'day': the time is missing in 1 of 12 rows"),
        ({"known": -1.0}, DataError, "'known': 12 outcomes known before the 'day' of their row"),
        ({"arm": first("arm", None)}, DataError, r"'arm': 1 missing value \(first: row 0\)"),
        ({"smoker": first("smoker", 2)}, DataError, "'smoker': 1 value other than 0 and 1"),
        ({"age": "old"}, SchemaError, "'age': 12 values of text, not numbers"),
    ],
)
def test_bad_columns_are_named_with_a_remedy(
    changes: Any, error: type[Exception], words: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        with pytest.raises(error, match=words):
            Table.from_frame(frame(**changes), SCHEMA)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Table.from_frame(frame().drop(columns="age"), SCHEMA), "no column 'age'"),
        (lambda: Table.from_frame(frame(), outcome="sbp"), "needs a task and an outcome"),
        (lambda: Table.from_frame(frame(), task="patient"), "needs a task and an outcome"),
        (lambda: Table.from_frame(frame(), SCHEMA, task="patient"), "one or the other"),
        (
            lambda: Table.from_frame(frame(), task="patinet", outcome="sbp"),
            "Did you mean 'patient'",
        ),
        (
            lambda: Table.from_frame(frame()[["patient", "sbp"]], task="patient", outcome="sbp"),
            "no feature and no time",
        ),
        (lambda: Table.from_frame(frame().iloc[:0], SCHEMA), "no rows"),
    ],
)
def test_tables_that_cannot_be_made_say_why(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make()


@given(st.integers(0, 30), st.floats(0.1, 0.9))
def test_patients_never_cross_a_split(seed: int, fraction: float) -> None:
    table = load_dataset("pbcseq")
    train, test = table.split(fraction, seed)
    assert not set(train.groups) & set(test.groups)
    assert len(train) + len(test) == len(table)
    assert train.n_tasks + test.n_tasks == table.n_tasks
    again = table.split(fraction, seed)[0]
    np.testing.assert_array_equal(train.groups, again.groups)


def test_folds_test_every_patient_once() -> None:
    table = load_dataset("pbcseq")
    tested: list[int] = []
    for train, test in table.kfold(4, random_state=0):
        assert not set(train.groups) & set(test.groups)
        tested += sorted(set(test.groups))
    assert sorted(tested) == sorted(set(table.groups))


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_queries_come_after_support_and_small_tasks_are_counted(shots: int) -> None:
    table = load_dataset("pbcseq")
    support, query = table.support_query(shots=shots)
    sizes = table.tasks.sizes
    assert query.n_tasks == (sizes > shots).sum()
    assert len(support) == shots * query.n_tasks
    assert table.time is not None
    latest = pd.Series(support.time).groupby(support.groups).max()
    earliest = pd.Series(query.time).groupby(query.groups).min()
    if shots:
        assert (latest < earliest).all()
        assert query.findings[-1].count == (sizes <= shots).sum()


def test_an_outcome_enters_the_support_only_once_known() -> None:
    table = Table.from_frame(frame(), SCHEMA)
    support, query = table.support_query(shots=2)
    assert support.outcome_time is not None
    known = pd.Series(support.outcome_time).groupby(support.groups).max()
    assert (query.time >= known[query.groups].to_numpy()).all()
    support, query = table.support_query(before=5)
    assert support.outcome_time.max() <= 5
    assert query.time.min() > 5


def test_before_takes_a_date_on_the_table_s_clock() -> None:
    dated = frame(day=pd.Timestamp("2020-01-01") + pd.to_timedelta(rows()["day"], unit="D"))
    table = Table.from_frame(
        dated.drop(columns=["known", "note"]),
        task="patient",
        outcome="sbp",
        time=Clock("day", unit="wk", origin="2020-01-01"),
        known=(),
    )
    support, query = table.support_query(before="2020-01-06")
    assert support.time.max() == pytest.approx(5 / 7)
    assert query.time.min() == pytest.approx(6 / 7)


def test_without_time_the_support_is_drawn_at_random() -> None:
    table = Table.from_frame(
        frame().drop(columns=["day", "known", "note"]), task="patient", outcome="sbp"
    )
    first_draw, query = table.support_query(shots=2, random_state=0)
    other_draw, _ = table.support_query(shots=2, random_state=1)
    assert len(first_draw) == 6
    assert len(query) == 6
    assert first_draw.y.tolist() != other_draw.y.tolist()
    with pytest.raises(SchemaError, match="needs a time column"):
        table.support_query(before=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either shots=... or before=..."),
        ({"shots": 1, "before": 2}, "either shots=... or before=..."),
        ({"shots": 4}, r"none of 3 tasks has a row to predict .* largest has 4 rows"),
        ({"before": 99}, "none of 3 tasks has a row to predict"),
    ],
)
def test_a_support_that_leaves_no_query_is_refused(arguments: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Table.from_frame(frame(), SCHEMA).support_query(**arguments)


def test_take_accepts_masks_and_positions() -> None:
    table = Table.from_frame(frame(), SCHEMA)
    mask = table.y > 128
    np.testing.assert_array_equal(table.take(mask).y, table.take(np.flatnonzero(mask)).y)
    assert table.take([5, 0]).y.tolist() == [125, 120]
    with pytest.raises(DataError, match=r"mask has shape \(2,\)"):
        table.take([True, False])


def test_the_printed_table_is_short_and_shows_no_patient() -> None:
    text = repr(Table.from_frame(frame(), SCHEMA))
    assert text.splitlines()[0] == "Table: 12 rows, 3 tasks (4 to 4 rows each, median 4)"
    assert "outcome    sbp [mm[Hg]] 40 to 300" in text
    assert "p0" not in text


def test_a_table_of_times_and_outcomes_alone_needs_no_feature() -> None:
    table = Table.from_frame(
        frame()[["patient", "sbp", "day"]], task="patient", outcome="sbp", time="day"
    )
    assert table.X.shape == (len(table), 0)


def test_tables_with_and_without_time_zones_do_not_mix() -> None:
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(rows()["day"], unit="D")
    named = {"task": "patient", "outcome": "sbp", "time": "day"}
    naive, zoned = (
        frame(day=day)[["patient", "sbp", "day"]] for day in (days, days.tz_localize("UTC"))
    )
    schema = Table.from_frame(zoned, **named).schema
    assert schema.time.zoned is True
    Table.from_frame(zoned, schema)
    with pytest.raises(DataError, match="dates of 'day' have no time zone"):
        Table.from_frame(naive, schema)
    with pytest.raises(DataError, match="dates of 'known' have a time zone, but those of 'day'"):
        Table.from_frame(naive.assign(known=zoned["day"]), **named, outcome_time="known")
    (finding,) = check_table(naive, schema).errors
    assert "have no time zone, but those that the schema describes have one" in str(finding)


def test_a_lazy_frame_is_read() -> None:
    lazy = pl.LazyFrame(frame()[["patient", "sbp", "day"]])
    table = Table.from_frame(lazy, task="patient", outcome="sbp", time="day")
    assert len(table) == len(frame())
