"""Numbers recorded as below or above a limit."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Schema, Table
from ehrmeta.data.censored import read_limits
from ehrmeta.errors import DataError, SchemaError

GROUPS, DAYS = np.repeat(np.arange(4), 3), np.tile([0.0, 1.0, 2.0], 4)
ROLES = {"task": "id", "time": "day", "outcome": "hdl"}
CRP = ["<5", "7", ">200", None] * 3


def visits(**columns):
    return pd.DataFrame({"id": GROUPS, "day": DAYS, "crp": CRP, "hdl": DAYS + GROUPS} | columns)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("half", [2.5, 7.0, 200.0, np.nan]), ("limit", [5.0, 7.0, 200.0, np.nan])],
)
def test_a_choice_makes_numbers_of_them(choice, expected):
    table = Table.from_frame(visits(), **ROLES, measured=["crp"], censored=choice)
    np.testing.assert_array_equal(table.X.crp, expected * 3)
    again = Table.from_frame(visits(), table.schema)
    pd.testing.assert_frame_equal(again.X, table.X)


def test_a_column_says_which_are_censored_also_where_none_is():
    roles = ROLES | {"measured": ["crp", "crp_censored"]}
    frame = visits()
    with pytest.raises(SchemaError, match="no column 'crp_censored'"):
        Schema.infer(frame, **roles)
    table = Table.from_frame(frame, **roles, censored="column")
    assert table.X.crp_censored.tolist() == [-1, 0, 1, 0] * 3
    later = Table.from_frame(visits(crp=6.0), Schema.from_dict(table.schema.to_dict()))
    assert later.X.crp_censored.tolist() == [0] * 12


def test_without_a_choice_the_error_counts_and_names_the_choices():
    with pytest.raises(
        SchemaError,
        match="'crp': 9 values of text, of which 3 are below and 3 above a limit, not numbers. "
        "Choose censored='half' .*'limit' .*'column'",
    ):
        Table.from_frame(visits(), **ROLES, measured=["crp"])


def test_an_outcome_may_be_censored_but_not_revealed_by_a_feature():
    outcome = ["<5", *map(str, range(11))]
    frame = visits(hdl=outcome, crp=1.0)
    with pytest.raises(DataError, match="'hdl': 12 values of text, of which 1 are below"):
        Table.from_frame(frame, **ROLES)
    assert Table.from_frame(frame, **ROLES, censored="half").y[0] == 2.5
    table = Table.from_frame(frame, **ROLES, censored="column")
    assert table.schema.measured == ("hdl_censored",)
    with pytest.raises(SchemaError, match="reveals the outcome 'hdl'"):
        Table.from_frame(frame.drop(columns="day"), task="id", outcome="hdl", censored="column")


@pytest.mark.parametrize("cells", [["<5", ">5"], ["<5", "low"], ["5", "7"], ["<30", "30-60", "9"]])
def test_categories_are_no_limits(cells):
    assert read_limits(np.array(cells, object)) is None
