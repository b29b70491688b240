"""Reading of frames and 2-D arrays as named NumPy columns."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Number
from typing import Any
from uuid import UUID

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.errors import CellError, DataError, Remedy, SchemaError, did_you_mean

Column = NDArray[Any]
Columns = dict[str, Column]
Mask = NDArray[np.bool_]
_CONVERT = "Use pd.to_numeric(column, errors='coerce') for numbers, or astype(str) for categories."
_DATES = ("datetime", "datetime64", "date", "period")
_FEW_CELLS = 10_000  # up to here, copying a table is faster than one series per column
_FIRST_NS, _LAST_NS = np.datetime64("1678-01-01", "us"), np.datetime64("2262-01-01", "us")
_LONGEST_NS = np.timedelta64(292 * 365, "D")


def read_columns(X: Any) -> dict[str, Column]:
    """Read a table as ordered, named 1-D arrays.

    Parameters
    ----------
    X : pandas, polars or pyarrow frame, or 2-D array or list, (row, column)
        A lazy frame of polars is collected. The columns of an array are named ``x0``, ``x1``, ...

    Returns
    -------
    dict of str to ndarray, (row,)
        Booleans, integers and floats keep their type without missing cells, else they become
        float64 with NaN. Text, categories, enums and UUIDs become objects: `str`, or None if
        missing. Dates become ``datetime64[ns]``, in UTC if they have a time zone; periods become
        their first moment; durations become ``timedelta64[ns]``.

    Raises
    ------
    DataError
        Infinite numbers, text mixed with numbers, cells of any other type, or an empty table.

    Examples
    --------
    >>> import pandas as pd
    >>> read_columns(pd.DataFrame({"age": [61, 40], "sex": ["f", None]}))
    {'age': array([61, 40]), 'sex': array(['f', None], dtype=object)}
    """
    X = collected(X)
    is_array = isinstance(X, np.ndarray) or not nw.dependencies.is_into_dataframe(X)
    columns = _read_array(X) if is_array else _read_frame(X)
    n_rows = len(next(iter(columns.values()), X))
    shape = f"(shape=({n_rows}, {len(columns)})) while a minimum of 1 is required."
    if not columns:
        raise DataError(f"0 feature(s) {shape} Pass at least one column.")
    if n_rows == 0:
        raise DataError(f"0 sample(s) {shape} The table has no rows.")
    return columns


def read_column(values: Any, name: str) -> Column:
    """Read one column (series, array or list) by the rules of `read_columns`.

    Examples
    --------
    >>> read_column([1, None, 3], "dose")
    array([ 1., nan,  3.])
    """
    if isinstance(values, str):
        raise DataError(f"{name} is a text, not a column. Pass its values: frame[{values!r}].")
    values = collected(values)
    if isinstance(values, pd.Series):
        return _read_pandas(values, name)
    if not isinstance(values, np.ndarray) and nw.dependencies.is_into_series(values):
        return _read_series(nw.from_native(values, series_only=True), name)
    array = _as_array(values)
    if array.ndim != 1:
        raise DataError(f"{name} must be one column, got shape {array.shape}. Pass a 1-D array.")
    return _read_values(array, name)


def refuse_rows(bad: Mask, what: str, remedy: str, error: type[DataError] = DataError) -> None:
    """Raise if some rows are invalid, with their number, the first of them and the remedy.

    Examples
    --------
    >>> refuse_rows(np.array([False, True]), "time is negative", "Correct those rows.")
    Traceback (most recent call last):
    ehrmeta.errors.DataError: time is negative in 1 of 2 rows (first: row 1). Correct those rows.
    """
    rows = np.flatnonzero(bad)
    if len(rows):
        raise error(f"{what} in {len(rows):,} of {len(bad):,} rows (first: row {rows[0]}).", remedy)


def require_columns(columns: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise a `SchemaError` if a column is missing."""
    for name in names:
        if name not in columns:
            raise SchemaError(f"no column '{name}'. {did_you_mean(name, columns)}")


def level_names(levels: NDArray[Any]) -> list[str]:
    """Levels as text; a whole number has the same text whether int, float or bool.

    Examples
    --------
    >>> level_names(np.array([1.0, 2.5])), level_names(np.array([True]))
    (['1', '2.5'], ['1'])
    """
    if levels.dtype.kind not in "biuf":
        return [str(level) for level in levels]
    numbers = [float(level) for level in levels]
    return [f"{number:.0f}" if number.is_integer() else repr(number) for number in numbers]


def collected(X: Any) -> Any:
    """A table in memory: lazy frames of polars are collected, narwhals frames are unwrapped.

    Examples
    --------
    >>> import polars as pl
    >>> collected(pl.LazyFrame({"age": [61, 40]})).height
    2
    """
    if isinstance(X, np.ndarray | pd.DataFrame | pd.Series):
        return X
    X = X.to_native() if hasattr(X, "to_native") else X  # of any narwhals version
    return X.collect() if nw.dependencies.is_polars_lazyframe(X) else X


def native_column(X: Any, name: str) -> Any:
    """A column of a table as it is, before `read_column`; arrays have columns x0, x1, ..."""
    X = collected(X)
    if isinstance(X, pd.DataFrame):
        return X.iloc[:, list(map(str, X.columns)).index(name)]
    if nw.dependencies.is_into_dataframe(X) and not isinstance(X, np.ndarray):
        return nw.from_native(X, eager_only=True)[name].to_native()
    return _as_array(X)[:, int(name.removeprefix("x"))]


def _read_frame(X: Any) -> dict[str, Column]:
    if isinstance(X, pd.DataFrame):
        names = [str(name) for name in X.columns]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SchemaError(f"column name(s) {repeated} occur more than once. Rename them.")
        if X.attrs:
            X = pd.DataFrame(X, copy=False)  # without attrs, which are copied to every column
        types = set(X.dtypes)
        if X.size <= _FEW_CELLS and len(types) == 1 and _is_numeric(*types):
            return _read_array(X.to_numpy(), names)
        columns = zip(names, X.items(), strict=True)
        return {name: _read_pandas(column, name) for name, (_, column) in columns}
    frame = nw.from_native(X, eager_only=True)
    return {name: _read_series(frame[name], name) for name in frame.columns}


def _read_array(X: Any, names: list[str] | None = None) -> dict[str, Column]:
    if hasattr(X, "toarray"):
        raise DataError("sparse input is not supported. Pass X.toarray() or a data frame.")
    is_record = isinstance(X, Mapping) or (
        isinstance(X, Sequence) and len(X) > 0 and isinstance(X[0], Mapping)
    )
    if is_record or getattr(getattr(X, "dtype", None), "names", None):
        raise DataError(f"X is a {type(X).__name__} of named columns. Pass pd.DataFrame(X).")
    array = _as_array(X)
    if array.ndim != 2:
        raise DataError(
            f"Expected 2D array, got {array.ndim}D array instead (shape={array.shape}). Reshape "
            "your data: array.reshape(-1, 1) for one column, array.reshape(1, -1) for one row."
        )
    names = names or [f"x{i}" for i in range(array.shape[1])]
    few_numbers = array.size <= _FEW_CELLS and _is_numeric(array.dtype)
    if few_numbers and not np.isinf(array).any():
        return dict(zip(names, array.T, strict=True))
    return {name: _read_values(array[:, i], name) for i, name in enumerate(names)}


def _as_array(values: Any) -> Column:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(
            "the input is not rectangular: rows have different lengths. "
            "Pass a data frame or a 2-D array."
        ) from error
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        array = np.asarray(values, dtype=object)  # a list such as [1, "a"] keeps its numbers
    return array


def _is_numeric(dtype: Any) -> bool:
    """Whether a type is numeric in NumPy, with NaN as the only missing value."""
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def _read_pandas(series: pd.Series, name: str) -> Column:
    if _is_numeric(series.dtype):  # the most frequent type, read without narwhals
        return _checked_numbers(series.to_numpy(), name)
    return _read_series(nw.from_native(series, series_only=True), name)


def _read_series(series: nw.Series[Any], name: str) -> Column:
    native, dtype = series.to_native(), series.dtype
    if isinstance(dtype, nw.Datetime | nw.Date):
        if getattr(dtype, "time_zone", None) is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        dates = series if isinstance(dtype, nw.Datetime) else series.cast(nw.Datetime("us"))
        return _to_nanoseconds(dates.to_numpy(), name)
    if isinstance(dtype, nw.Duration):
        return _durations(series.to_numpy(), name)
    if dtype.is_numeric() or isinstance(dtype, nw.Boolean):
        if series.is_null().any() or isinstance(dtype, nw.Decimal):
            series = series.cast(nw.Float64)
        return _checked_numbers(series.to_numpy(), name)
    if isinstance(native, pd.Series) and isinstance(native.dtype, pd.CategoricalDtype):
        names = np.array([*level_names(native.cat.categories.to_numpy()), None], dtype=object)
        text: Column = names[np.asarray(native.cat.codes)]  # code -1 (missing) reads the last entry
        return text
    if isinstance(dtype, nw.Categorical | nw.Enum):
        series = series.cast(nw.String)
    elif not isinstance(dtype, nw.String | nw.Object | nw.Unknown):
        raise _cell_error(name, str(dtype))
    return _read_objects(np.asarray(series.to_numpy(), dtype=object), name)


def _read_values(array: Column, name: str) -> Column:
    kind = array.dtype.kind
    if kind in "biuf":
        return _checked_numbers(array, name)
    if kind in "OU":
        return _read_objects(array.astype(object), name)
    if kind == "M":
        return _to_nanoseconds(array, name)
    if kind == "m":
        return _durations(array, name)
    if kind == "c":
        raise DataError(f"Complex data not supported: column '{name}'. Pass real numbers.")
    raise _cell_error(name, str(array.dtype))


def _read_objects(values: Column, name: str) -> Column:
    """Convert an object column to the common type of its cells."""
    missing = np.asarray(pd.isna(values), dtype=bool)
    kind = pd.api.types.infer_dtype(values, skipna=True)
    types = set(map(type, values[~missing].tolist()))
    if kind == "empty":
        if not missing.all():
            raise _cell_error(name, "cells of an unknown type")
        return np.full(len(values), np.nan)
    if all(issubclass(t, str | UUID) for t in types):
        text = values.copy() if kind == "string" else values.astype(str).astype(object)
        text[missing] = None
        return text
    if kind in ("timedelta", "timedelta64"):
        return _durations(pd.to_timedelta(pd.Series(values)).to_numpy(), name)
    if kind == "period":
        values = values.copy()
        values[~missing] = [period.start_time for period in values[~missing]]
    if kind in _DATES or all(issubclass(t, dt.date) for t in types):
        return _read_date_objects(values, missing, name)
    if all(issubclass(t, Number | np.bool_) and not issubclass(t, complex) for t in types):
        is_flag = kind == "boolean" and not missing.any()
        return values.astype(bool) if is_flag else _to_numbers(values, missing, name)
    if any(issubclass(t, complex) for t in types):
        raise DataError(f"Complex data not supported: column '{name}'. Pass real numbers.")
    if all(issubclass(t, str | Number) for t in types):
        n_text = sum(isinstance(cell, str) for cell in values.tolist())
        raise DataError(
            f"column '{name}' mixes text ({n_text} cells) with numbers "
            f"({len(values) - n_text - int(missing.sum())} cells).",
            Remedy("numbers-or-text", _CONVERT),
        )
    raise _cell_error(name, ", ".join(sorted(t.__name__ for t in types)))


def _to_numbers(values: Column, missing: Mask, name: str) -> Column:
    if not missing.any() and pd.api.types.infer_dtype(values) == "integer":
        with suppress(OverflowError):
            return values.astype(np.int64)  # exact: ids may exceed 2^53
    numbers = np.full(len(values), np.nan)
    numbers[~missing] = values[~missing].astype(np.float64)
    return _checked_numbers(numbers, name)


def _read_date_objects(values: Column, missing: Mask, name: str) -> Column:
    present = values[~missing]
    zoned = np.fromiter(
        (isinstance(v, dt.datetime) and v.tzinfo is not None for v in present), bool, len(present)
    )
    if zoned.any() and not zoned.all():
        raise DataError(
            f"column '{name}' mixes dates with a time zone ({int(zoned.sum())} rows) and without "
            f"({int((~zoned).sum())} rows). Use one time zone for all of them, or none."
        )
    stamps = pd.to_datetime(pd.Series(present, dtype=object), utc=True, errors="coerce")
    if stamps.isna().any():
        raise _date_range_error(name, int(stamps.isna().sum()))
    dates = np.full(len(values), np.datetime64("NaT"), dtype="datetime64[us]")
    dates[~missing] = stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    return _to_nanoseconds(dates, name)


def _durations(values: Column, name: str) -> Column:
    """Convert to timedelta64[ns]; NumPy would overflow silently beyond 292 years."""
    values = np.asarray(values)
    if values.dtype != np.dtype("timedelta64[ns]"):
        outside = ~np.isnat(values) & (np.abs(values) >= _LONGEST_NS)
        remedy = "Convert it to numbers in one unit."
        refuse_rows(outside, f"column '{name}': a duration of more than 292 years", remedy)
    return values.astype("timedelta64[ns]")


def _to_nanoseconds(dates: Column, name: str) -> Column:
    """Convert to datetime64[ns]; NumPy would overflow silently outside 1678-2262."""
    dates = np.asarray(dates)
    if dates.dtype != np.dtype("datetime64[ns]"):
        outside = ~np.isnat(dates) & ((dates < _FIRST_NS) | (dates >= _LAST_NS))
        if outside.any():
            raise _date_range_error(name, int(outside.sum()))
    return dates.astype("datetime64[ns]")


def _checked_numbers(numbers: Any, name: str) -> Column:
    array: Column = np.asarray(numbers)
    if array.dtype.kind == "f" and np.isinf(array).any():
        remedy = "Replace it by NaN or by a number."
        refuse_rows(np.isinf(array), f"column '{name}' holds infinity (inf)", remedy)
    return array


def _date_range_error(name: str, count: int) -> DataError:
    return DataError(
        f"column '{name}': {count} date(s) outside 1678-2262, often placeholders such as "
        "9999-12-31. Set them to missing or drop the rows."
    )


def _cell_error(name: str, types: str) -> CellError:
    return CellError(
        f"column '{name}': argument must be a string or a number, not {types}. "
        "Convert or drop the column."
    )


def take_rows(X: Any, mask: Mask) -> Any:
    """Rows of a frame, array or list by a mask, (row,), with the type of X.

    Examples
    --------
    >>> import numpy as np
    >>> take_rows([[1], [2], [3]], np.array([True, False, True]))
    array([[1],
           [3]])
    """
    X = collected(X)
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        taken = frame[np.flatnonzero(mask)].to_native()
        if getattr(X, "attrs", None):
            taken.attrs = dict(X.attrs)
        return taken
    return np.asarray(X)[mask]


def check_mask(rows: ArrayLike, n_rows: int) -> Mask:
    """Rows as a mask, (row,); raises unless there is one bool per row."""
    mask = np.asarray(rows)
    if mask.dtype != bool or mask.shape != (n_rows,):
        raise DataError(f"pass a mask of shape ({n_rows},), one bool per row, got {mask.shape}.")
    return mask
