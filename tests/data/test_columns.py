import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from ehrmeta.data import read_column, read_columns
from ehrmeta.data.columns import native_column, take_rows
from ehrmeta.errors import CellError, DataError, SchemaError

DAY = dt.datetime(2020, 1, 2, 3, 4, 5)
ROWS = {
    "whole": [1, 2, 3],
    "whole_missing": [1, None, 3],
    "real": [1.5, None, 2.5],
    "flag": [True, False, True],
    "flag_missing": [True, None, False],
    "text": ["a", None, "b"],
    "empty": [None, None, None],
    "date": [dt.date(2020, 1, 2), None, dt.date(1999, 12, 31)],
    "stamp": [DAY, None, DAY],
    "zoned": [DAY.replace(tzinfo=dt.UTC), None, DAY.replace(tzinfo=dt.UTC)],
}
EXPECTED = {
    "whole": np.array([1, 2, 3]),
    "whole_missing": np.array([1, np.nan, 3]),
    "real": np.array([1.5, np.nan, 2.5]),
    "flag": np.array([True, False, True]),
    "flag_missing": np.array([1, np.nan, 0]),
    "text": np.array(["a", None, "b"], dtype=object),
    "empty": np.full(3, np.nan),
    "date": np.array(["2020-01-02", "NaT", "1999-12-31"], dtype="datetime64[ns]"),
    "stamp": np.array(["2020-01-02T03:04:05", "NaT", "2020-01-02T03:04:05"], "datetime64[ns]"),
    "zoned": np.array(["2020-01-02T03:04:05", "NaT", "2020-01-02T03:04:05"], "datetime64[ns]"),
}


def object_frame(rows: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in rows.items()})


FRAMES = {
    "pandas": pd.DataFrame,
    "pandas objects": object_frame,
    "pandas nullable": lambda rows: pd.DataFrame(rows).convert_dtypes(),
    "pandas arrow": lambda rows: pd.DataFrame(rows).convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
    "narwhals": lambda rows: nw.from_native(pl.DataFrame(rows)),
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_every_frame_reads_the_same(make: Callable[[dict[str, list[Any]]], Any]) -> None:
    columns = read_columns(make(ROWS))
    assert list(columns) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        assert columns[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(columns[name], expected, err_msg=name)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["u", None, "v"], dtype="category"),
        pl.Series(["u", None, "v"], dtype=pl.Categorical),
        pl.Series(["u", None, "v"], dtype=pl.Enum(["v", "u"])),
        pa.chunked_array([pa.array(["u", None, "v"]).dictionary_encode()]),
        np.array(["u", None, "v"], dtype=object),
        ["u", None, "v"],
    ],
    ids=["pandas", "polars", "enum", "pyarrow", "numpy", "list"],
)
def test_categories_read_as_text(column: Any) -> None:
    assert read_column(column, "sex").tolist() == ["u", None, "v"]


def test_whole_number_categories_do_not_change_name_when_some_are_missing() -> None:
    complete = pd.DataFrame({"code": pd.Categorical([3, 4])})
    gaps = pd.DataFrame({"code": pd.Categorical([3, None])})
    assert read_columns(complete)["code"].tolist() == ["3", "4"]
    assert read_columns(gaps)["code"].tolist() == ["3", None]


def test_arrays_and_lists_get_numbered_names() -> None:
    assert list(read_columns(np.zeros((2, 3)))) == ["x0", "x1", "x2"]
    assert read_columns(np.zeros((2, 1), np.float32))["x0"].dtype == np.float32
    mixed = read_columns([[1, "a"], [2, None]])
    assert mixed["x0"].tolist() == [1.0, 2.0]
    assert mixed["x1"].tolist() == ["a", None]


def test_other_zones_become_utc() -> None:
    paris = pl.DataFrame({"t": [DAY]}).with_columns(
        pl.col("t").dt.replace_time_zone("Europe/Paris")
    )
    assert read_columns(paris)["t"][0] == np.datetime64("2020-01-02T02:04:05")


def test_column_names_become_text() -> None:
    assert list(read_columns(pd.DataFrame([[1, 2]]))) == ["0", "1"]


@pytest.mark.parametrize(
    ("column", "error", "words"),
    [
        ([1.0, np.inf], DataError, r"'lab' holds infinity \(inf\) in 1 of 2 rows"),
        ([1.0, "<0.5"], DataError, r"'lab' mixes text \(1 cells\) with numbers \(1 cells\)"),
        (["a"] * 150 + [1], DataError, r"mixes text \(150 cells\) with numbers \(1 cells\)"),
        ([{"a": 1}, 2], CellError, "'lab': argument must be a string or a number, not dict"),
        ([[1], [2]], CellError, "argument must be a string or a number"),
        ([b"x", b"y"], CellError, "not bytes"),
        ([1j, 2j], DataError, "Complex data not supported: column 'lab'"),
        ([DAY, DAY.replace(tzinfo=dt.UTC)], DataError, r"with a time zone \(1 rows\) and without"),
        ([dt.datetime(9999, 12, 31)], DataError, "1 date.* outside 1678-2262"),
    ],
)
def test_bad_cells_name_the_column(column: list[Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_columns(object_frame({"lab": column}))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pl.Series([1.0, float("-inf")]), "holds infinity"),
        (pl.Series([[1], [2]]), "not List"),
        (pl.Series([dt.time(1)]), "not Time"),
        (pl.Series([dt.date(9999, 12, 31)]), "outside 1678-2262"),
        (pl.Series([object()], dtype=pl.Object), "not object"),
    ],
)
def test_bad_polars_cells_name_the_column(column: pl.Series, words: str) -> None:
    with pytest.raises(DataError, match=f"'lab'.*{words}"):
        read_columns(column.alias("lab").to_frame())


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros(3), r"Expected 2D array, got 1D array.*Reshape your data"),
        (pd.Series([1.0]), "Expected 2D array, got 1D"),
        (np.zeros((2, 2, 2)), "Expected 2D array, got 3D"),
        (np.zeros((15, 0)), r"0 feature\(s\) \(shape=\(15, 0\)\) while a minimum of 1 is required"),
        (pd.DataFrame(index=range(2)), r"0 feature\(s\) \(shape=\(2, 0\)\)"),
        (np.zeros((0, 3)), r"0 sample\(s\) \(shape=\(0, 3\)\)"),
        ([[1, 2], [3]], "rows have different lengths"),
        (np.array([[1j]]), "Complex data not supported"),
        (np.array([[np.timedelta64(300 * 366, "D")]]), "'x0': a duration of more than 292 years"),
        (sparse.csr_array(np.eye(2)), "sparse input is not supported"),
        (None, "Expected 2D array"),
    ],
)
def test_what_is_no_table_is_refused(X: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_columns(X)


def test_repeated_column_names_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"\['a'\] occur more than once"):
        read_columns(pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]))


def test_a_cell_of_no_type_is_a_type_error_too() -> None:
    with pytest.raises(TypeError, match="argument must be .* string.* number"):
        read_columns(np.array([[{"foo": "bar"}], [1]], dtype=object))


@pytest.mark.parametrize(
    "X", [{"a": [1]}, [{"a": 1}], np.zeros(2, [("a", float), ("b", float)])], ids=type
)
def test_named_columns_that_are_no_frame_are_refused(X) -> None:
    with pytest.raises(DataError, match=r"of named columns. Pass pd.DataFrame\(X\)"):
        read_columns(X)


def test_one_column_has_one_dimension() -> None:
    with pytest.raises(DataError, match=r"dose must be one column, got shape \(2, 1\)"):
        read_column(np.zeros((2, 1)), "dose")
    with pytest.raises(
        DataError, match=r"dose is a text, not a column. Pass its values: frame\['mg"
    ):
        read_column("mg", "dose")


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.period_range("2020-01-01", periods=2, freq="D")),
        pd.period_range("2020-01-01", periods=2, freq="D"),
        [dt.date(2020, 1, 1), dt.datetime(2020, 1, 2)],
    ],
    ids=["periods", "period index", "dates and datetimes"],
)
def test_periods_and_mixed_dates_are_dates(column: Any) -> None:
    expected = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[ns]")
    np.testing.assert_array_equal(read_column(column, "day"), expected)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_timedelta([1, None], unit="D")),
        pl.Series([dt.timedelta(1), None]),
        pl.Series([dt.timedelta(1), None], dtype=pl.Object),
        np.array([1, "NaT"], dtype="timedelta64[D]"),
        pd.Series(pd.to_timedelta([1, None], unit="D")).convert_dtypes(dtype_backend="pyarrow"),
        [dt.timedelta(1), None],
    ],
    ids=["pandas", "polars", "polars objects", "numpy", "pyarrow", "list"],
)
def test_durations_read_the_same(column: Any) -> None:
    expected = np.array([1, "NaT"], dtype="timedelta64[D]").astype("timedelta64[ns]")
    np.testing.assert_array_equal(read_column(column, "stay"), expected)


def test_uuids_are_text() -> None:
    ids = [uuid.UUID(int=1), None, uuid.UUID(int=2)]
    expected = [None if one is None else str(one) for one in ids]
    assert read_column(ids, "patient").tolist() == expected
    assert read_columns(pl.DataFrame({"id": pl.Series(ids, dtype=pl.Object)}))["id"].tolist() == (
        expected
    )


def test_a_lazy_frame_is_collected() -> None:
    rows = {"a": [1, 2], "b": ["x", None]}
    for lazy in (pl.LazyFrame(rows), nw.from_native(pl.LazyFrame(rows))):
        assert read_columns(lazy)["b"].tolist() == ["x", None]
    assert take_rows(pl.LazyFrame(rows), np.array([False, True])).rows() == [(2, None)]


def test_a_column_of_any_table_is_selected_by_its_name() -> None:
    for table in (pd.DataFrame([[1, 2]]), pl.DataFrame({"0": [1], "1": [2]})):
        assert list(native_column(table, "1")) == [2]
    assert native_column([[1, 2]], "x1").tolist() == [2]
