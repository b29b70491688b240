"""Which columns are known ahead of a visit, and which only once measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Clock, Schema
from ehrmeta.data.roles import find_measured
from ehrmeta.errors import DataWarning, SchemaError

N_TASKS, N_VISITS = 40, 6
GROUPS = np.repeat(np.arange(N_TASKS), N_VISITS)
RNG = np.random.default_rng(0)
IRREGULAR = np.sort(RNG.integers(0, 3650, (N_TASKS, N_VISITS)), axis=1).ravel().astype(float)
SHARED = np.tile([0.0, 30.0, 60.0, 90.0, 180.0, 365.0], N_TASKS)
VISIT = np.tile(np.arange(N_VISITS), N_TASKS)
BIRTH = RNG.uniform(20, 80, N_TASKS)[GROUPS]
FLAG = np.where(GROUPS == 3, VISIT >= 2, False)  # a diagnosis that one patient gets


def found(values, time):
    return find_measured({"column": np.asarray(values)}, ["column"], GROUPS, time)


@pytest.mark.parametrize(
    ("values", "time"),
    [
        pytest.param(BIRTH + IRREGULAR / 365.25, IRREGULAR, id="age in fractions"),
        pytest.param(np.floor(BIRTH + IRREGULAR / 365.25), IRREGULAR, id="age in whole years"),
        pytest.param(np.round(BIRTH + IRREGULAR / 365.25, 1), IRREGULAR, id="age in tenths"),
        pytest.param(VISIT, SHARED // 30, id="number of the visit by calendar"),
        pytest.param(VISIT, VISIT * 90.0, id="number of equally spaced visits"),
        pytest.param(IRREGULAR - 10.0 * GROUPS, IRREGULAR, id="days since an event"),
        pytest.param(np.array(list("ABABAB") * N_TASKS, object), SHARED, id="arm of one schedule"),
        pytest.param(np.tile([0, 0, 1, 1, 0, 1], N_TASKS), SHARED, id="season"),
    ],
)
def test_functions_of_time_are_known_ahead(values, time):
    assert found(values, time).timed == ("column",)


@pytest.mark.parametrize("time", [IRREGULAR, SHARED, None], ids=["irregular", "shared", "unread"])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(RNG.normal(size=len(GROUPS)), id="lab"),
        pytest.param(50 + IRREGULAR / 365 + RNG.normal(0, 1, len(GROUPS)), id="lab that rises"),
        pytest.param(FLAG, id="rare diagnosis"),
        pytest.param(np.where(FLAG, "yes", "no").astype(object), id="rare diagnosis as text"),
        pytest.param(np.where(VISIT == GROUPS % N_VISITS, 5.0, np.nan), id="lab taken once"),
        pytest.param(RNG.integers(0, 2, len(GROUPS)), id="yes or no"),
        pytest.param((RNG.uniform(1, 9, N_TASKS)[GROUPS]) * VISIT, id="slopes of patients"),
    ],
)
def test_what_varies_otherwise_is_measured(values, time):
    assert list(found(values, time).n_varying) == ["column"]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(BIRTH, id="number"),
        pytest.param(np.array(["f", "m"], object)[GROUPS % 2], id="text"),
        pytest.param(np.where(np.arange(len(GROUPS)) % 50 == 0, np.nan, BIRTH), id="gaps"),
        pytest.param(np.full(len(GROUPS), np.nan), id="missing"),
    ],
)
def test_constants_are_neither(values):
    nothing = found(values, IRREGULAR)
    assert not nothing.n_varying
    assert not nothing.timed


def test_the_tasks_in_which_a_column_varies_are_counted():
    assert found(FLAG, IRREGULAR).n_varying == {"column": 1}


@pytest.mark.parametrize("times", ["numbers", "dates", "text"])
def test_order_of_rows_and_kind_of_times_change_nothing(times):
    table = pd.DataFrame({"id": GROUPS, "day": IRREGULAR, "lab": RNG.normal(size=len(GROUPS))})
    table["age"] = np.floor(BIRTH + IRREGULAR / 365.25)
    table["y"] = 1.0
    if times != "numbers":
        table["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(table.day, unit="D")
    if times == "text":
        table["day"] = table.day.dt.strftime("%Y-%m-%d")
    mixed = table.sample(frac=1, random_state=0)
    with pytest.warns(DataWarning, match=r"'lab' \(in 40\).*functions of time: \['age'\]"):
        schema = Schema.infer(mixed, task="id", time="day", outcome="y")
    assert schema.measured == ("lab",)


def small(**columns):
    return pd.DataFrame({"id": [1, 1, 2, 2], "day": [0, 9, 0, 5], "dose": [1, 2, 3, 3]} | columns)


def test_declared_columns_are_neither_guessed_nor_warned_of():
    roles = {"task": "id", "time": "day"}
    assert Schema.infer(small(), **roles, known=["dose"]).measured == ()
    assert Schema.infer(small(), **roles, measured=["dose"]).measured == ("dose",)
    assert Schema.infer(small(), **roles, known=[]).measured == ("dose",)
    with pytest.raises(SchemaError, match=r"\['dose'\] are both measured and known"):
        Schema.infer(small(), **roles, known=["dose"], measured=["dose"])
    with pytest.raises(SchemaError, match="no column 'dos'. Did you mean 'dose'"):
        Schema.infer(small(), **roles, known=["dos"])


def test_without_time_and_in_cohorts_everything_is_known_ahead():
    assert Schema.infer(small(), task="id").measured == ()
    assert Schema.infer(small(), task="id", time="day", task_kind="cohort").measured == ()


def test_unreadable_times_are_left_to_the_check_of_the_table():
    table = small(day=["soon", "later", "soon", "later"])
    assert Schema.infer(table, task="id", time=Clock("day"), known=[]).measured == ("dose",)


def test_a_warning_names_a_dozen_columns():
    many = {f"lab{i}": RNG.normal(size=4) for i in range(20)}
    with pytest.warns(DataWarning, match=r"21 column\(s\).*'lab10' \(in 2\), and 9 more\. They"):
        Schema.infer(small(**many), task="id", time="day")
