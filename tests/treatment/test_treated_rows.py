"""A table is read once: treatments, tasks and features as one record."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta.errors import DataError, GroupError
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.treated_rows import TreatmentEncoder, read_treated

FRAME = pd.DataFrame(
    {"age": [50.0, 60.0, 70.0, 80.0], "site": ["b", "a", "b", "a"], "arm": ["x", "y", "y", "x"]}
)


@pytest.fixture(scope="module")
def encoder():
    table = read_treated(FRAME, np.arange(4), task_column="site", treatment_column="arm")
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
