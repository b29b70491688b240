"""Every fault put into a clean table is found, counted and distinguished."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ehrmeta.data import Clock, Feature, Outcome, Schema, Table, check_table
from ehrmeta.errors import DataError, DataWarning

SCHEMA = Schema(
    (
        Feature("age", role="static", unit="a"),
        Feature("glucose", role="measured", unit="mg/dL", low=20, high=600),
        Feature("ward", kind="categorical"),
        Feature("smoker", kind="binary"),
    ),
    Outcome("hdl", unit="mg/dL"),
    task="patient",
    time=Clock("day"),
    outcome_time="known",
    treatment="arm",
)


def _frame(n_patients: int = 40, n_visits: int = 3) -> pd.DataFrame:
    random = np.random.default_rng(0)
    n = n_patients * n_visits
    day = np.tile(np.arange(n_visits) * 30.0, n_patients)
    return pd.DataFrame(
        {
            "patient": np.repeat([f"p{i}" for i in range(n_patients)], n_visits),
            "day": day,
            "known": day + 1,
            "arm": random.choice(["a", "b"], n),
            "age": np.repeat(random.integers(30, 60, n_patients), n_visits),
            "glucose": random.normal(100, 15, n),
            "ward": random.choice(["north", "south"], n),
            "smoker": random.integers(0, 2, n),
            "hdl": random.normal(50, 9, n).round(),
        }
    )


def _set(column, rows, value):
    def spoil(frame):
        values = frame[column].astype(object)
        values.iloc[rows] = value
        frame[column] = values if isinstance(value, str) else values.infer_objects()
        return frame

    return spoil


def _replace(column, make):
    return lambda frame: frame.assign(**{column: make(frame)})


# what is done to the table; column, count and level of the finding
FAULTS = {
    "a column is gone": (lambda f: f.drop(columns="ward"), "ward", 1, True),
    "text among numbers": (_set("glucose", [3, 4], "<5"), "glucose", 120, True),
    "an infinite value": (_set("glucose", [3], np.inf), "glucose", 120, True),
    "numbers as text": (
        _replace("ward", lambda f: ["<5", *(str(i % 7) for i in range(1, len(f)))]),
        "ward",
        1,
        False,
    ),
    "all text": (
        _replace("glucose", lambda f: ["high", "low"] * (len(f) // 2)),
        "glucose",
        120,
        True,
    ),
    "a binary 2": (_set("smoker", [0], 2), "smoker", 1, True),
    "a typing error": (_set("glucose", [7], 9000.0), "glucose", 1, False),
    "mmol/L": (_replace("glucose", lambda f: f.glucose / 18 + 20), "glucose", 0, None),
    "no id": (_set("patient", [5], None), "patient", 1, True),
    "an id in two writings": (_set("patient", [0], " P0"), "patient", 1, False),
    "no treatment": (_set("arm", [5], None), "arm", 1, True),
    "no outcome": (_set("hdl", [5, 6], np.nan), "hdl", 2, True),
    "a repeated visit": (_set("day", [1], 0.0), "patient", 1, True),
    "visits out of order": (lambda f: f.iloc[[1, 0, *range(2, len(f))]], "day", 1, False),
    "two time zones": (
        _replace("day", lambda f: ["2020-01-01T00:00"] + ["2020-01-01T00:00+01:00"] * (len(f) - 1)),
        "day",
        120,
        True,
    ),
    "dates as numbers": (
        _replace("day", lambda f: 20200101 + f.day.astype(int) // 30),
        "day",
        120,
        False,
    ),
    "a placeholder for a date": (_set("day", [8], 1e7), "day", 1, False),
    "a code for missing": (_set("glucose", [8, 9], 9999.0), "glucose", 2, False),
    "units beside values": (
        _replace("ward", lambda f: ["mg/dL", "mmol/L"] * (len(f) // 2)),
        "ward",
        2,
        False,
    ),
    "known too early": (_set("known", [8], -5.0), "known", 1, True),
    "a constant": (_replace("ward", lambda f: "north"), "ward", 1, False),
    "mostly missing": (_set("glucose", list(range(90)), np.nan), "glucose", 90, False),
    "a row's number": (
        _replace("ward", lambda f: [f"r{i}" for i in range(len(f))]),
        "ward",
        120,
        False,
    ),
    "a row's number, one row twice": (
        _replace("glucose", lambda f: [100, *range(100, 99 + len(f))]),
        "glucose",
        119,
        False,
    ),
    "a patient's number": (
        _replace("age", lambda f: f.patient.str[1:].astype(int)),
        "age",
        40,
        False,
    ),
    "the outcome again": (_replace("age", lambda f: f.hdl - 0.5), "age", 120, False),
}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "mmol/L"])
def test_each_fault_is_found_counted_and_distinguished(fault):
    spoil, column, count, is_error = FAULTS[fault]
    found = [f for f in check_table(spoil(_frame()), SCHEMA) if f.column == column]
    assert [(f.count, f.is_error) for f in found] == [(count, is_error)]
    with pytest.raises(DataError, match=column):
        check_table(spoil(_frame()), SCHEMA, strict=True)


def test_a_clean_table_has_no_findings_in_pandas_and_polars():
    assert repr(check_table(_frame(), SCHEMA, strict=True)) == "nothing found"
    assert not check_table(pl.from_pandas(_frame()), SCHEMA)


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.filterwarnings("ignore::ehrmeta.errors.DataWarning")
def test_the_first_error_is_what_a_table_raises_and_without_one_it_can_be_used(fault):
    frame = FAULTS[fault][0](_frame())
    errors = check_table(frame, SCHEMA).errors
    if errors:
        with pytest.raises(type(errors[0].error), match=re.escape(str(errors[0].error))):
            Table.from_frame(frame, SCHEMA)
    else:
        assert len(Table.from_frame(frame, SCHEMA))


def test_values_in_another_unit_are_recognised():
    schema = Schema((Feature("glucose", unit="mg/dL"),), Outcome("hdl"), task="patient")
    frame = _frame().assign(glucose=lambda f: f.glucose / 18)
    (finding,) = check_table(frame, schema)
    assert "mmol/L" in str(finding.remedy)


def test_findings_print_no_value_and_make_a_frame():
    frame = _set("glucose", [7], 123456.0)(_frame())
    findings = check_table(frame, SCHEMA)
    assert "123456" not in repr(findings)
    assert list(findings.to_frame()["column"]) == ["glucose"]


def test_a_table_without_rows_is_refused():
    with pytest.raises(DataError, match="no rows"):
        check_table(_frame().iloc[:0], SCHEMA)


@pytest.mark.filterwarnings("error")
def test_dates_read_as_numbers_are_warned_of():
    frame = FAULTS["dates as numbers"][0](_frame()).drop(columns="known")
    with pytest.warns(DataWarning, match="look like dates"):
        Table.from_frame(
            frame, task="patient", time="day", outcome="hdl", treatment="arm", known=()
        )
    Table.from_frame(_frame(), SCHEMA)


def test_repeated_times_are_normal_in_cohorts():
    wards = Schema((Feature("age"),), task="ward", task_kind="cohort", time=Clock("day"))
    assert not [f for f in check_table(_frame(), wards) if "repeating" in f.what]


def test_copies_are_not_reported_in_few_rows():
    schema = Schema((Feature("age"),), Outcome("hdl"), task="patient")
    frame = _frame().iloc[:9].assign(age=lambda f: f.hdl + 1)
    assert not check_table(frame, schema)


@pytest.mark.filterwarnings("error")
def test_guessing_warns_of_numbers_that_one_text_turns_into_a_category():
    frame = _set("glucose", [3], "low")(_frame())[["patient", "glucose", "hdl"]].astype(
        {"glucose": str}
    )
    with pytest.warns(DataWarning, match=r"'glucose' is categorical because 1 of 120 .*row 3"):
        schema = Schema.infer(frame, task="patient", outcome="hdl")
    assert schema.features[0].kind == "categorical"


def test_what_is_wrong_outside_the_schema_is_no_concern_of_a_table():
    frame = _frame().assign(note=np.inf)
    assert not check_table(frame, SCHEMA)
    assert len(Table.from_frame(frame, SCHEMA)) == len(frame)


def test_a_repeat_counts_only_among_the_rows_that_stay():
    frame = _set("hdl", [1], np.nan)(_set("day", [1], 0.0)(_frame()))
    assert [f.what for f in check_table(frame, SCHEMA).errors] == [
        "missing outcomes",
        "rows repeating a (patient, day) pair",
    ]
    assert len(Table.from_frame(frame, SCHEMA, on_missing_outcome="drop")) == len(frame) - 1


def test_without_a_range_the_name_of_a_lab_says_what_is_implausible():
    schema = Schema((Feature("glucose", unit="mg/dL"),), Outcome("hdl"), task="patient")
    (finding,) = check_table(_set("glucose", [7], 9000.0)(_frame()), schema)
    assert str(finding).startswith("column 'glucose': 1 value implausible for glucose in mg/dL")
