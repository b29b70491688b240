import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, strategies as st

from ehrmeta.data import to_time
from ehrmeta.data.clock import SECONDS, check_zones, has_zone
from ehrmeta.errors import DataError, DataWarning, SchemaError


def test_numbers_are_in_the_unit_already() -> None:
    time = to_time([3, 1, 2], unit="a", origin="1999-01-01")
    assert time.dtype == np.float64
    assert time.tolist() == [3, 1, 2]


@pytest.mark.parametrize("unit", SECONDS)
def test_a_date_counts_units_since_the_origin(unit: str) -> None:
    seconds = (dt.datetime(2024, 3, 1) - dt.datetime(1970, 1, 1)).total_seconds()
    assert to_time(["2024-03-01"], unit=unit)[0] == pytest.approx(seconds / SECONDS[unit])


def test_months_and_years_are_ucum_means() -> None:
    assert SECONDS["mo"] * 12 == SECONDS["a"] == 365.25 * SECONDS["d"]


@given(st.lists(st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1)), min_size=1))
def test_whole_days_are_exact_whatever_holds_them(dates: list[dt.date]) -> None:
    expected = [float((date - dt.date(2000, 1, 1)).days) for date in dates]
    holders = [
        pd.Series(pd.to_datetime(pd.Series(dates))),
        pl.Series(dates),
        np.array(dates, dtype="datetime64[D]"),
        [date.isoformat() for date in dates],
        dates,
    ]
    for holder in holders:
        assert to_time(holder, origin="2000-01-01").tolist() == expected


def test_one_zone_counts_in_utc() -> None:
    text = ["2020-01-01T00:00+01:00", "2020-01-01T12:00+0100"]
    zoned = pd.Series(pd.to_datetime(text))
    for values in (text, zoned):
        assert to_time(values, unit="h", origin="2020-01-01").tolist() == [-1, 11]
    same = ["2020-01-01T00:00Z", "2020-01-01T01:00+00:00"]
    assert to_time(same, unit="h", origin="2020-01-01").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["2020-01-01T00:00Z", "2020-01-01T00:00"], r"mixes time zones \(.*1 rows.*Convert all"),
        (["2020-01-01", "01/02/2020"], r"day may be the month, in 1 of 2 rows \(first: row 1\)"),
        (["04/01/2021", "05/01/2021"], "day may be the month.*YYYY-MM-DD"),
        (["31.01.2021", "01.31.2021"], "day may be the month"),
        (["01.04.2021", "01.31.2021"], "day may be the month"),
        (["04.01.21"], "not an ISO 8601 date"),
        (["2020-13-01"], "not an ISO 8601 date"),
        (["1200"], "not an ISO 8601 date.*or as a number"),
        (["9999-12-31"], "outside 1678-2262"),
        (["2020-01-01", None], r"missing in 1 of 2 rows \(first: row 1\)"),
        ([1.0, np.nan], "missing in 1 of 2 rows"),
        ([1.0, np.inf], "holds infinity"),
        (np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]"), "missing in 1 of 2 rows"),
        ([{}], "argument must be a string or a number"),
    ],
)
def test_bad_times_name_column_and_remedy(values: Any, words: str) -> None:
    with pytest.raises(DataError, match=f"column 'visit'.*{words}"):
        to_time(values, name="visit")


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["04.01.2021", "31.01.2021"], "day, month, year"),
        (["4/1/2021", "31/1/2021"], "day, month, year"),
        (["01/04/2021", "01/31/2021"], "month, day, year"),
        (["04-01-2021 00:00", "31-01-2021 00:00"], "day, month, year"),
        (["04.01.2021T00:00Z", "31.01.2021T00:00Z"], "day, month, year"),
        (["04.01.2021", "2021-01-31", "31.01.2021"], "day, month, year"),
    ],
)
def test_local_dates_are_read_where_a_row_tells_the_day(values: list[str], order: str) -> None:
    with pytest.warns(DataWarning, match=f"'visit': 2 dates are read as {order}, because 1 can"):
        days = to_time(values, origin="2021-01-01", name="visit")
    assert (days[0], days[-1]) == (3, 30)


def test_several_time_zones_are_read_in_utc() -> None:
    summer_begins = ["2022-03-27T01:30+01:00", "2022-03-27T03:30+02:00"]
    with pytest.warns(DataWarning, match=r"'visit' has several time zones \(.*read in UTC"):
        hours = to_time(summer_begins, unit="h", origin="2022-03-27T00:00", name="visit")
    assert hours.tolist() == [0.5, 1.5]


def test_the_day_is_first_between_dots() -> None:
    with pytest.warns(DataWarning, match="2 dates are read as day, month, year, as is usual"):
        assert to_time(["04.01.2021", "5.2.2021"], origin="2021-01-01").tolist() == [3, 35]


@pytest.mark.parametrize("origin", ["index date", "randomisation", "today", "year-end"])
def test_dates_cannot_be_counted_from_an_event(origin: str) -> None:
    with pytest.raises(DataError, match="is not an ISO date"):
        to_time(["2020-01-01"], origin=origin)
    assert to_time([7.0], origin=origin).tolist() == [7.0]


def test_an_unknown_unit_lists_the_known_ones() -> None:
    with pytest.raises(SchemaError, match="'days'. Use one of s, min, h, d, wk, mo, a"):
        to_time([1], unit="days")


@pytest.mark.parametrize("unit", SECONDS)
def test_durations_are_counted_in_the_unit(unit: str) -> None:
    expected = [0.0, 36 * 3600 / SECONDS[unit]]
    hours = pd.to_timedelta([0, 36], unit="h")
    for values in (hours, pl.Series(hours), hours.to_pytimedelta().tolist()):
        np.testing.assert_allclose(to_time(values, unit=unit, origin="admission"), expected)


def test_a_period_counts_from_its_first_moment() -> None:
    months = pd.Series(pd.period_range("2020-01", periods=2, freq="M"))
    assert to_time(months, origin="2020-01-01").tolist() == [0, 31]


@pytest.mark.parametrize("value", [1e19, -1e308])
def test_implausibly_large_numbers_are_refused_and_nanoseconds_are_not(value: float) -> None:
    with pytest.raises(
        DataError, match=r"'visit': the time is implausibly large in 1 of 2 rows \(first: row 1"
    ):
        to_time([0.0, value], name="visit")
    assert to_time([1.8e18]).tolist() == [1.8e18]


STAMPS = pd.Series(pd.to_datetime(["2020-01-01", "2020-06-01"]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], None),
        (pd.to_timedelta([1], unit="D"), None),
        (pl.Series([dt.timedelta(1)]), None),
        (STAMPS, False),
        (STAMPS.dt.date, False),
        (STAMPS.dt.to_period("D"), False),
        (STAMPS.astype(str), False),
        (pl.Series(STAMPS), False),
        (STAMPS.to_numpy(), False),
        (STAMPS.dt.tz_localize("Europe/Berlin"), True),
        (pd.DatetimeIndex(STAMPS, tz="UTC"), True),
        (list(STAMPS.dt.tz_localize("UTC")), True),
        (pl.Series(STAMPS).dt.replace_time_zone("UTC"), True),
        (["2020-01-01T10:00+01:00"], True),
    ],
)
def test_dates_have_a_zone_or_none_and_numbers_neither(values: Any, expected: bool | None) -> None:
    assert has_zone(values) is expected


def test_zones_are_compared_where_both_are_known() -> None:
    check_zones(None, True, "others")
    check_zones(False, None, "others")
    with pytest.raises(DataError, match="dates of 'visit' have no time zone, but others have one"):
        check_zones(False, True, "others", "visit")
