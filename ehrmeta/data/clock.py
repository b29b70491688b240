"""Conversion of times to numbers: float64, in one unit, from one origin."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.columns import collected, read_column, refuse_rows
from ehrmeta.errors import DataError, DataWarning, Remedy, SchemaError, warn

SECONDS = {  # seconds per UCUM unit of time
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "wk": 7 * 86400.0,
    "mo": 30.4375 * 86400.0,
    "a": 365.25 * 86400.0,
}
_FIRST_DATE, _LAST_DATE = 19000101, 21001231
FAR, ABSURD = 1_000, 1_000_000  # `distance_from_others` of placeholders, and of errors
_FEWEST_DATES = 3  # below, numbers may look like dates by chance
_FILL_IN = "Fill it in or drop those rows."
_WRITE_ISO = "Write it as YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, or as a number."
_LARGEST = 2.0**63  # of times as numbers: nanoseconds since 1970 are possible, more is an error
_ZONED = r"[T ]\d{2}.*?(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_LOCAL = r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?![\d./-])(.*)"  # 04.01.2021
_OFFSET = r"[T ]\d{2}.*?(Z|[+-]\d{2}(?::?\d{2})?)$"


class Times(NamedTuple):
    """Times of rows as numbers and, if they were given as dates, as dates."""

    numbers: NDArray[np.float64]  # (row,): in the unit and from the origin of a clock
    dates: NDArray[np.datetime64] | None  # (row,): in UTC if zoned; None if numbers


def to_time(
    values: Any, *, unit: str = "d", origin: str | None = None, name: str = "time"
) -> NDArray[np.float64]:
    """Convert times to numbers in `unit` since `origin`.

    Numbers are returned unchanged, and durations in `unit`. Dates, periods (their first moment) and
    ISO 8601 strings are counted from the origin, in UTC if they have a time zone. Dates such as
    31.01.2021 are read, with a warning; between slashes or hyphens, only if one of the column's
    rows tells the day from the month.

    Parameters
    ----------
    values : array-like, (row,)
        Numbers, durations, dates, periods, or ISO 8601 strings.
    unit : {"s", "min", "h", "d", "wk", "mo", "a"}
        UCUM unit; a month is 30.4375 d and a year 365.25 d.
    origin : str, optional
        ISO date; 1970-01-01 by default.
    name : str
        Name of the column in errors.

    Returns
    -------
    ndarray of float64, (row,)

    Raises
    ------
    DataError
        Missing, infinite, implausibly large or unparsable times, mixed time zones, or dates whose
        day may be the month.

    Examples
    --------
    >>> to_time(["2020-01-01", "2020-01-02T12:00"], origin="2020-01-01")
    array([0. , 1.5])
    """
    return read_times(values, unit=unit, origin=origin, name=name).numbers


def read_times(
    values: Any, *, unit: str = "d", origin: str | None = None, name: str = "time"
) -> Times:
    """Times as numbers, by the rules of `to_time`, and as dates."""
    if unit not in SECONDS:
        raise SchemaError(f"unknown unit of time {unit!r}. Use one of {', '.join(SECONDS)}.")
    column = read_column(values, name)
    if column.dtype.kind in "biuf":
        time = column.astype(np.float64)
        refuse_rows(np.isnan(time), f"column '{name}': the time is missing", _FILL_IN)
        remedy = "Correct these rows, or drop them."
        what = f"column '{name}': the time is implausibly large"
        refuse_rows(np.abs(time) > _LARGEST, what, remedy)
        return Times(time, None)
    if column.dtype == object:
        column = _parse(column, name)
    refuse_rows(np.isnat(column), f"column '{name}': the time is missing", _FILL_IN)
    if column.dtype.kind == "m":
        return Times(column.astype(np.int64) / (SECONDS[unit] * 1e9), None)
    nanoseconds = column.astype(np.int64).astype(np.float64) - _origin_nanoseconds(origin, name)
    return Times(nanoseconds / (SECONDS[unit] * 1e9), column)


def has_zone(values: Any) -> bool | None:
    """Whether dates have a time zone; None if the values are not dates.

    Parameters
    ----------
    values : array-like, (row,)
        As in `to_time`, before any conversion.

    Examples
    --------
    >>> has_zone(["2020-01-01T00:00Z"]), has_zone(["2020-01-01"]), has_zone([1, 2])
    (True, False, None)
    """
    values = collected(values)
    if nw.dependencies.is_into_series(values) and not isinstance(values, np.ndarray):
        series = nw.from_native(values, series_only=True)
        if isinstance(series.dtype, nw.Datetime | nw.Date):
            return getattr(series.dtype, "time_zone", None) is not None
        values = series.to_numpy()
    array = np.asarray(values)
    if array.dtype.kind == "M":
        return False
    kind = pd.api.types.infer_dtype(array, skipna=True) if array.dtype.kind in "OUT" else ""
    if kind == "string":
        return bool(pd.Series(array, dtype="str").str.strip().str.contains(_ZONED).any())
    if kind == "period":
        return False
    dates = [cell for cell in array if isinstance(cell, dt.date)] if kind else []
    return any(getattr(date, "tzinfo", None) is not None for date in dates) if dates else None


def check_zones(here: bool | None, before: bool | None, what: str, name: str = "time") -> None:
    """Raise a `DataError` if dates have a time zone and other dates have none, or the reverse.

    Parameters
    ----------
    here, before : bool or None
        From `has_zone`; None is not compared.
    what : str
        The other dates, for the error.
    name : str
        Name of the column, for the error.
    """
    if here is None or before is None or here == before:
        return
    has, had = ("have a", "have none") if here else ("have no", "have one")
    raise DataError(
        f"the dates of '{name}' {has} time zone, but {what} {had}.",
        Remedy(
            "one-time-zone",
            "Give both the same: dates.dt.tz_localize('Europe/Berlin') adds a zone, "
            "dates.dt.tz_convert('UTC').dt.tz_localize(None) removes it.",
        ),
    )


def distance_from_others(time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of times from their median, in widths of the middle 90 %, (row,).

    Examples
    --------
    >>> distance_from_others(np.array([*range(101), 90_050.0])).round()[-1]
    np.float64(990.0)
    """
    low, median, high = np.quantile(time, (0.05, 0.5, 0.95)) if len(time) else (0.0, 0.0, 0.0)
    width = high - low if high > low else np.inf
    return np.asarray(np.abs(time - median) / width)


def are_numeric_dates(values: NDArray[Any]) -> bool:
    """Whether numbers are probably dates in the form YYYYMMDD.

    Examples
    --------
    >>> are_numeric_dates(np.array([20191231, 20200131, 20200229]))
    True
    >>> are_numeric_dates(np.array([20191231, 20200131, 20200299]))
    False
    """
    if values.dtype.kind not in "iuf" or len(values) < _FEWEST_DATES:
        return False
    month, day = values // 100 % 100, values % 100
    return bool(
        ((values >= _FIRST_DATE) & (values <= _LAST_DATE) & (values % 1 == 0)).all()
        and ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all()
    )


def _parse(text: NDArray[Any], name: str) -> NDArray[Any]:
    missing = np.array([cell is None for cell in text.tolist()])
    refuse_rows(missing, f"column '{name}': the time is missing", _FILL_IN)
    series = _iso_dates(pd.Series(text, dtype="str").str.strip(), name)
    offsets = series.str.extract(_OFFSET, expand=False).fillna("none")
    zones = offsets.replace({"Z": "+00:00"}).str.replace(r"^([+-]\d{2}):?$", r"\1:00", regex=True)
    zones = zones.str.replace(r"^([+-]\d{2})(\d{2})$", r"\1:\2", regex=True)
    if zones.nunique() > 1:
        counts = ", ".join(f"{zone}: {n} rows" for zone, n in zones.value_counts().items())
        if (zones == "none").any():
            raise DataError(
                f"column '{name}' mixes time zones ({counts}).",
                Remedy("one-time-zone", "Convert all to one: pd.to_datetime(column, utc=True)."),
            )
        warn(f"column '{name}' has several time zones ({counts}): read in UTC.", DataWarning)
    parsed = pd.to_datetime(series, format="ISO8601", utc=True, errors="coerce")
    parsed = parsed.where(series.str.contains("-", regex=False))  # "1200" is not a year
    refuse_rows(parsed.isna().to_numpy(), f"column '{name}' is not an ISO 8601 date", _WRITE_ISO)
    return read_column(parsed.dt.tz_localize(None), name)


def _iso_dates(series: pd.Series[str], name: str) -> pd.Series[str]:
    """Dates such as 31.01.2021 or 01/31/2021 in ISO 8601.

    A row must tell the day from the month, except between dots, where the day is always first.
    """
    parts = series.str.extract(f"^{_LOCAL}$")
    is_local = parts[0].notna()
    if not is_local.any():
        return series
    first, second = (parts.loc[is_local, at].astype(int) for at in (0, 2))
    n_day_first, n_month_first = int((first > 12).sum()), int((second > 12).sum())
    has_dots = bool((parts.loc[is_local, 1] == ".").all())
    is_day_first = n_month_first == 0 and (n_day_first > 0 or has_dots)
    if not is_day_first and (has_dots or n_day_first or not n_month_first):
        what = f"column '{name}' is not an ISO 8601 date, and the day may be the month,"
        refuse_rows(is_local.to_numpy(), what, _WRITE_ISO)
    order = "day, month, year" if is_day_first else "month, day, year"
    n_clear = n_day_first or n_month_first
    reason = f"because {n_clear:,} can be nothing else" if n_clear else "as is usual with dots"
    warn(
        f"column '{name}': {int(is_local.sum()):,} dates are read as {order}, {reason}. Write "
        "YYYY-MM-DD if this is wrong.",
        DataWarning,
    )
    day, month = (0, 2) if is_day_first else (2, 0)
    iso = parts[3] + "-" + parts[month].str.zfill(2) + "-" + parts[day].str.zfill(2) + parts[4]
    return iso.where(is_local, series)


def _origin_nanoseconds(origin: str | None, name: str) -> float:
    stamp = pd.Timestamp("1970-01-01")
    if origin is not None:
        # without a dash pandas would accept words such as "today"
        stamp = pd.to_datetime(origin if "-" in origin else "", format="ISO8601", errors="coerce")
    if stamp is pd.NaT:
        raise DataError(
            f"column '{name}' holds dates, but its origin {origin!r} is not an ISO date. Pass "
            "numbers counted from that event, or an ISO date as the origin."
        )
    if stamp.tzinfo is not None:
        stamp = stamp.tz_convert(None)
    return float(stamp.as_unit("ns").value)
