"""Rows are put in order of patient and time, and refused where doses cannot act."""

import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.treatment.dosing.dosed_rows import DosedReader, read_rows
from tests.treatment.dosing.patients import fitted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose_time": [0.0, 1.0, 5.0]}, "the dose was given after its response in 1 of 3"),
        ({"treatment": [1, 2]}, "dose has 2 rows, X has 3"),
        ({"treatment": [1, np.nan, 2]}, "dose is missing in 1 of 3"),
        ({"time": None}, "time is missing"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(change: dict, message: str) -> None:
    given = {"treatment": [1, 2, 3], "time": [0, 1, 2]} | change
    with pytest.raises(DataError, match=message):
        fitted().adapt([[0.0]] * 3, [12.0, 16.0, 14.0], **given)


def test_rows_come_by_patient_and_time_with_their_doses() -> None:
    reader = DosedReader(None, None)
    inputs = reader.read([[1.0], [2.0], [3.0]], [np.e, 1.0, np.e**2], ["b", "a", "b"], [5, 1, 2])
    rows = read_rows(
        inputs, np.array([10.0, 20.0, 30.0]), None, None, log_dose=False, log_outcome=True
    )
    assert rows.labels.tolist() == ["a", "b"]
    assert rows.starts.tolist() == [0, 1, 3]
    assert rows.dose.tolist() == [20.0, 30.0, 10.0]
    np.testing.assert_allclose(rows.y, [0.0, 2.0, 1.0])
