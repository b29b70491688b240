import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Clock, Feature, Outcome, Schema
from ehrmeta.errors import SchemaError

FULL = Schema(
    (
        Feature("age", unit="a", low=0, high=110),
        Feature("sex", "categorical", "static"),
        Feature("crp", role="measured", unit="mg/L", low=0),
    ),
    Outcome("bili", unit="mg/dL", low=0.1, high=60, transform="log", resolution=0.1),
    task="patient",
    time=Clock("day", origin="randomisation", is_feature=False),
    treatment="arm",
    outcome_time="known_on",
    on_duplicate="mean",
)


def test_a_schema_survives_json() -> None:
    assert Schema.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL
    assert Schema.from_dict(Schema(()).to_dict()) == Schema(())


def test_names_and_columns() -> None:
    assert FULL.names == ("age", "sex", "crp")
    assert FULL.measured == ("crp",)
    assert set(FULL.columns) == {"age", "sex", "crp", "bili", "patient", "day", "arm", "known_on"}


def test_the_printed_schema_shows_roles_units_and_ranges() -> None:
    lines = repr(FULL).splitlines()
    assert lines[1] == "outcome    bili [mg/dL] 0.1 to 60, log scale"
    assert lines[2] == "time       day [d] since randomisation, differences only"
    assert "measured   crp [mg/L] 0 to inf" in lines


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Feature("a", kind="real"), "unknown kind 'real'. Use one of numeric"),
        (lambda: Feature("a", role="fixed"), "unknown role 'fixed'. Use one of known"),
        (lambda: Feature("a", low=2, high=2), r"low \(2\) must be below high \(2\)"),
        (lambda: Feature("a", low=float("nan")), "bound must be finite"),
        (lambda: Feature("a", "categorical", low=0), "categorical and cannot have a range"),
        (lambda: Feature("a", "binary", block="image"), "binary and cannot be in a block"),
        (lambda: Outcome("y", low=3, high=1), "must be below"),
        (lambda: Outcome("y", transform="exp"), "unknown transform 'exp'"),
        (lambda: Outcome("y", resolution=0), "resolution must be positive"),
        (lambda: Clock("t", unit="years"), "unknown unit 'years'"),
        (lambda: Schema((Feature("a"), Feature("a"))), r"\['a'\] have more than one role"),
        (lambda: Schema((Feature("a"),), Outcome("a")), r"\['a'\] have more than one role"),
        (lambda: Schema((Feature("a", role="measured"),)), r"\['a'\] need a time column"),
        (lambda: Schema((Feature("a"),), outcome_time="b"), "needs a time column"),
        (lambda: Schema((Feature(""),)), "empty name"),
        (lambda: Schema((), task_kind="site"), "unknown task_kind 'site'"),
        (lambda: Schema((), on_duplicate="drop"), "unknown on_duplicate 'drop'"),
        (lambda: Schema.from_dict({"featurs": []}), "unknown key 'featurs'. Did you mean 'feature"),
        (lambda: Schema.from_dict({"features": [{"nam": "a"}]}), "Feature: unknown key 'nam'"),
        (lambda: Schema.from_dict({"features": [{"unit": "a"}]}), "Give every required key"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused(make: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        make()


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [1, 1, 2, 2, 3],
            "day": [0, 9, 0, 9, 0],
            "y": [1.0, 2.0, 3.0, 4.0, 5.0],
            "sex": ["f", "f", "m", "m", None],
            "height": [1.7, 1.7, np.nan, np.nan, 1.8],
            "smoker": [0, 1, 0, 0, 1],
            "dose": [5.0, 6.0, 7.0, 7.0, 8.0],
        }
    )


def test_infer_guesses_kinds_and_roles() -> None:
    schema = Schema.infer(
        frame(),
        task="id",
        outcome="y",
        time="day",
        measured=["dose"],
        known=["smoker"],
        units={"dose": "mg"},
    )
    found = {f.name: (f.kind, f.role, f.unit) for f in schema.features}
    assert found == {
        "sex": ("categorical", "static", ""),
        "height": ("numeric", "static", ""),
        "smoker": ("binary", "known", ""),
        "dose": ("numeric", "measured", "mg"),
    }
    assert schema.outcome == Outcome("y")
    assert schema.time == Clock("day")


def test_without_repeated_rows_nothing_counts_as_static() -> None:
    schema = Schema.infer(frame().drop_duplicates("id"), task="id", outcome="y")
    assert {f.role for f in schema.features} == {"known"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"outcome": "Y"}, "no column 'Y'"),
        ({"time": "dya"}, "no column 'dya'. Did you mean 'day'"),
        ({"measured": ["dos"], "time": "day"}, "no column 'dos'. Did you mean 'dose'"),
        ({"units": {"hieght": "m"}}, "no column 'hieght'. Did you mean 'height'"),
    ],
)
def test_infer_names_the_column_that_is_not_there(arguments: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        Schema.infer(frame(), **arguments)


def test_a_date_is_no_feature() -> None:
    dated = frame().assign(birth=pd.Timestamp("1960-01-01"))
    with pytest.raises(SchemaError, match="'birth' holds dates.*a number such as age"):
        Schema.infer(dated, task="id", outcome="y")


def test_a_schema_prints_every_role_it_gives() -> None:
    assert repr(Schema(())) == "Schema()"
    full = Schema(
        (Feature("x0", block="image"), Feature("sex", "binary", "static", low=0)),
        Outcome("hdl", unit="mg/dL", transform="log", high=200),
        task="ward",
        task_kind="cohort",
        time=Clock("day", origin="2020-01-01", is_feature=False),
        treatment="arm",
        outcome_time="known",
    )
    assert repr(full).splitlines() == [
        "task       ward (cohort)",
        "outcome    hdl [mg/dL] -inf to 200, log scale",
        "time       day [d] since 2020-01-01, differences only",
        "treatment  arm",
        "known at   known",
        "known      x0 of image",
        "static     sex binary 0 to inf",
    ]
