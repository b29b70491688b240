"""Findings, and what is odd about columns that can be used all the same."""

import numpy as np

from ehrmeta.data import Clock, Feature, Finding, Findings, Outcome, Schema
from ehrmeta.data.findings import odd_column, odd_keys
from ehrmeta.errors import DataError, Remedy

REMEDY = Remedy("keep-small-tasks", "Pass min_rows=1 to keep them.")


def test_one_is_not_written_as_many():
    assert str(Finding("missing outcomes", "hdl", 1, "Fill in.")) == (
        "column 'hdl': 1 missing outcome. Fill in."
    )
    assert str(Finding("missing outcomes", "hdl", 1200, "")) == (
        "column 'hdl': 1,200 missing outcomes."
    )


def test_errors_are_distinguished_and_remedies_written_out():
    odd = Finding("rows dropped", "hdl", 2, REMEDY)
    wrong = Finding("missing values", "id", 1, "Fill in.", DataError("no id"))
    findings = Findings((wrong, odd))
    assert findings.errors == Findings((wrong,))
    assert repr(findings).splitlines() == [f"error    {wrong}", f"warning  {odd}"]
    table = findings.to_frame()
    assert table["level"].tolist() == ["error", "warning"]
    assert table["remedy"].tolist() == ["Fill in.", str(REMEDY)]


def whats(findings):
    return [finding.what for finding in findings]


def test_a_unit_that_nobody_knows_is_named():
    schema = Schema((Feature("lab", unit="mg per dl"),))
    columns = {"lab": np.arange(30.0)}
    (what,) = whats(odd_column(columns, schema.features[0], schema))[:1]
    assert "'mg per dl', is not a known UCUM code" in what


def test_a_copy_of_the_outcome_is_odd_unless_measured_with_it():
    y = np.random.default_rng(0).normal(50, 9, 40)
    columns = {"copy": np.exp(y / 50), "y": y}
    for role, count in (("known", 1), ("measured", 0)):
        schema = Schema((Feature("copy", role=role),), Outcome("y"), time=Clock("day"))
        assert len(whats(odd_column(columns, schema.features[0], schema))) == count


def test_repeats_that_are_allowed_are_odd_in_patients_only():
    columns = {"id": np.repeat([1, 2, 3], 2), "day": np.array([0.0, 0.0, 1.0, 2.0, 1.0, 2.0])}
    for kind, expected in (("patient", ["rows repeating a (id, day) pair"]), ("cohort", [])):
        schema = Schema((), task="id", time=Clock("day"), task_kind=kind, on_duplicate="allow")
        assert whats(odd_keys(columns, schema)) == expected


def test_ids_in_two_writings_and_a_single_task_are_odd():
    schema = Schema((), task="id")
    assert whats(odd_keys({"id": np.array(["A 1", "a1"], object)}, schema)) == [
        "ids that differ from another by leading zeros, capitals or spaces only",
        "tasks, none of which has two rows",
    ]
    assert whats(odd_keys({"id": np.array([7, 7])}, schema)) == [
        "task only: meta-learning needs many"
    ]


def test_two_tasks_and_visits_side_by_side_are_odd():
    schema = Schema((), task="id")
    assert whats(odd_keys({"id": np.array([7, 7, 8, 8])}, schema)) == [
        "tasks with two rows or more: too few to tell how tasks differ"
    ]
    wide = {"id": np.arange(9), "hdl_1": np.zeros(9), "hdl_2": np.zeros(9)}
    (finding,) = odd_keys(wide, schema)
    assert "pd.wide_to_long(frame, ['hdl'], i='id', j='visit', sep='_')" in str(finding)


def test_levels_in_two_spellings_are_odd():
    sex = Feature("sex", kind="categorical")
    levels = {"sex": np.array(["f", "F", "m ", "m", None, "x"], object)}
    (finding,) = (f for f in odd_column(levels, sex, Schema((sex,))) if "levels" in f.what)
    assert (finding.column, finding.count) == ("sex", 2)
    assert "Use one spelling" in str(finding)
