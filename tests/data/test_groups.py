"""Tasks of one row, wide tables, and ids that differ in their spelling only."""

import numpy as np
import pytest

from ehrmeta.data import index_tasks
from ehrmeta.data.groups import check_repeated_rows, respelled, wide_columns
from ehrmeta.errors import DataWarning, GroupError


def test_a_visit_id_for_the_patient_is_refused_with_the_likely_cause():
    with pytest.raises(GroupError, match="none of 40 tasks has two rows.*of visits or rows, not"):
        check_repeated_rows(index_tasks(np.arange(40)), ["age", "hdl"])


def test_a_wide_table_is_refused_with_the_call_that_turns_it():
    columns = ["age", "hdl_1", "hdl_2", "hdl_3", "alt_1", "alt_2", "alt_3", "b12"]
    with pytest.raises(GroupError, match="two rows") as caught:
        check_repeated_rows(index_tasks(np.arange(40)), columns)
    message = str(caught.value)
    assert "hdl_1, hdl_2, hdl_3, alt_1, alt_2, alt_3 look like visits side by side" in message
    assert "pd.wide_to_long(frame, ['hdl', 'alt'], i='patient', j='visit', sep='_')" in message
    with pytest.raises(GroupError, match="i='id', j='visit'"):
        check_repeated_rows(index_tasks(np.arange(40)), columns, "id")


@pytest.mark.parametrize(
    ("columns", "stems"),
    [
        (["sbp1", "sbp2"], [("sbp", "")]),
        (["visit.1", "visit.2", "visit.4"], [("visit", ".")]),
        (["il6", "il8", "b12", "x0", "x1", "x2", "2020"], []),
    ],
)
def test_numbered_columns_look_like_visits(columns, stems):
    assert list(wide_columns(columns)) == stems


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param(np.repeat([0, 1], 20), id="two patients"),
        pytest.param(np.append(np.arange(95), np.repeat(np.arange(95, 100), 2)), id="few repeat"),
    ],
)
def test_few_tasks_with_two_rows_are_warned_of(groups):
    with pytest.warns(DataWarning, match="tasks have two rows or more: too few"):
        check_repeated_rows(index_tasks(groups), ["age"])


@pytest.mark.parametrize("n_tasks", [3, 9, 100])
def test_tasks_of_two_rows_pass(n_tasks):
    check_repeated_rows(index_tasks(np.repeat(np.arange(n_tasks), 2)), ["age"])


def test_only_other_spellings_of_known_ids_are_counted():
    known = np.array(["007", "P1", "b 2"], object)
    assert respelled(np.array(["7", "7", "p1 ", "B2", "007", "new"], object), known) == 3
    assert respelled(np.array([7, 8])) == 0
    assert respelled(np.array(["a", "b"], object)) == 0
