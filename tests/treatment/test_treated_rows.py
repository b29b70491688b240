"""A table is read once: treatments, tasks and features as one record."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta.data import Clock, Schema
from ehrmeta.errors import DataError, DataWarning, GroupError
from ehrmeta.treatment import DoseResponse, TreatmentResponse
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.treated_rows import TreatmentEncoder, check_training_rows, read_treated

FRAME = pd.DataFrame(
    {"age": [50.0, 60.0, 70.0, 80.0], "site": ["b", "a", "b", "a"], "arm": ["x", "y", "y", "x"]}
)


@pytest.fixture(scope="module")
def encoder():
    table = read_treated(FRAME, np.arange(4), task_column="site", treatment_column="arm")
    with pytest.warns(DataWarning, match="2 of 2 tasks have two rows or more: too few"):
        return TreatmentEncoder.fit(table, Arms.fit(table.treatment), None, "site", "arm")


def test_columns_of_task_and_treatment_are_no_features(encoder):
    assert encoder.columns == ("age",)
    rows = encoder.rows(encoder.read(FRAME, np.arange(4)))
    assert rows.arm.tolist() == [0, 1, 1, 0]
    assert rows.task.tolist() == [1, 0, 1, 0]
    assert rows.labels.tolist() == ["a", "b"]
    assert rows.counts(2).tolist() == [[1, 1], [1, 1]]
    some = rows.take(rows.task == 1)
    assert (some.n_rows, some.n_tasks) == (2, 2)
    assert rows.in_one_task().n_tasks == 1


def test_queries_are_numbered_as_the_adapted_tasks(encoder):
    adapted = encoder.rows(encoder.read(FRAME, np.arange(4)))
    query = encoder.query(FRAME[["age"]], ["b", "c", "a", "b"], adapted, "nan")
    assert query.rows.task.tolist() == [1, 0, 0, 1]
    assert query.is_known.tolist() == [True, False, True, True]
    with pytest.raises(GroupError, match="1 of 4 rows .* were not adapted"):
        encoder.query(FRAME[["age"]], ["b", "c", "a", "b"], adapted, "error")
    with pytest.raises(DataError, match="new_groups must be"):
        encoder.query(FRAME[["age"]], None, adapted, "guess")
    assert encoder.query(FRAME[["age"]], None, encoder.no_rows(), "error").is_known.all()


def test_an_outcome_known_before_the_treatment_is_refused():
    given = {"treatment": [0, 1, 0, 1], "time": np.arange(4.0)}
    read_treated(FRAME[["age"]], np.arange(4), outcome_time=np.arange(4.0), **given)
    with pytest.raises(DataError, match="known before the treatment in 3 of 4 rows"):
        read_treated(FRAME[["age"]], np.arange(4), outcome_time=np.zeros(4), **given)


def trained_on(groups=None, time=None, y=None, schema=None, **columns):
    """Check 60 training rows of twelve tasks with odd parts."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"age": rng.normal(50, 9, 60), **columns})
    y = rng.normal(size=60) if y is None else y
    groups = np.repeat(np.arange(12), 5) if groups is None else groups
    table = read_treated(X, y, np.tile([0, 1], 30), groups, time, schema=schema)
    check_training_rows(table.inputs, schema)


DAYS = pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(np.tile(np.arange(5), 12), unit="D"))
Y = np.random.default_rng(1).normal(50, 9, 60)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"y": Y, "hdl": 2 * Y + 1}, r"\['hdl'\] are copies of the outcome 'y'.*Drop them"),
        ({"y": Y, "hdl": Y, "groups": np.zeros(60)}, r"\['hdl'\] are copies of the outcome"),
        ({"y": ["<5", *map(str, Y[1:])]}, "limit, such as '<5', in 1 of 60 rows.*censored='half'"),
        ({"time": np.r_[1e12, np.arange(59)]}, "implausibly far from the others in 1 of 60 rows"),
        (
            {"time": DAYS, "schema": Schema((), time=Clock("day", zoned=True))},
            "dates of 'day' have no time zone, but those that the schema describes have one",
        ),
    ],
)
def test_rows_that_teach_nothing_are_refused_as_by_the_meta_learners(odd, message):
    trained_on()
    with pytest.raises(DataError, match=message):
        trained_on(**odd)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"groups": np.repeat([0, 1], 30)}, "2 of 2 tasks have two rows or more: too few"),
        (
            {"groups": np.array([f"{'0' * (i == 0)}{i // 5}" for i in range(60)], object)},
            r"1 id\(s\) differ from another by leading zeros",
        ),
        ({"time": np.r_[99999.0, np.arange(59) % 5]}, "far from all others in 1 of 60 rows"),
        ({"time": 20200101 + np.arange(60) % 28}, "look like dates"),
    ],
)
def test_odd_tasks_and_times_are_reported(odd, message):
    with pytest.warns(DataWarning, match=message):
        trained_on(**odd)


def test_times_with_and_without_a_zone_do_not_mix():
    zoned = DAYS.dt.tz_localize("UTC")
    X, y, given = np.zeros((60, 1)), Y, {"treatment": np.tile([0, 1], 30)}
    groups = np.repeat(np.arange(12), 5)
    with pytest.raises(DataError, match="'outcome_time' have a time zone, but those of time="):
        read_treated(X, y, **given, groups=groups, time=DAYS, outcome_time=zoned)
    table = read_treated(X, y, **given, groups=groups, time=DAYS)
    encoder = TreatmentEncoder.fit(table, Arms.fit(table.treatment))
    encoder.read(X, y, **given, groups=groups, time=DAYS)
    with pytest.raises(DataError, match="those that the model was fitted on have none"):
        encoder.read(X, y, **given, groups=groups, time=zoned)


def test_patients_of_one_trial_passed_as_tasks_are_told_to_leave_groups_out():
    rows = {"treatment": np.tile([0, 1], 30), "groups": np.arange(60)}
    with pytest.raises(GroupError, match="none of 60 tasks has two rows.*leave groups= out"):
        TreatmentResponse().fit(np.zeros((60, 1)), Y, **rows)


@pytest.mark.parametrize("learner", [TreatmentResponse(learner="s"), DoseResponse()])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: 0 * y, "outcome 'y' is constant over all 60 rows"),
        (lambda y: np.arange(60) // 5, "outcome 'y' is constant within every one of 12 tasks"),
    ],
)
def test_an_outcome_that_treatment_cannot_change_is_refused(learner, change, message):
    X, y, rows = _trial()
    with pytest.raises(DataError, match=message):
        learner.fit(X, change(y), **rows)


@pytest.mark.parametrize("learner", [TreatmentResponse(learner="s"), DoseResponse()])
def test_gross_errors_are_told(learner):
    X, y, rows = _trial()
    with pytest.warns(DataWarning, match="far from all other values in 1 of 60 rows"):
        learner.fit(X, np.where(np.arange(60) == 3, 73519.0, y), **rows)


def _trial():
    rng = np.random.default_rng(0)
    treated = np.arange(60) % 2
    rows = {"treatment": treated, "groups": np.arange(60) // 5, "time": np.tile(np.arange(5.0), 12)}
    return rng.normal(size=(60, 1)), 50 + treated + rng.normal(size=60), rows
