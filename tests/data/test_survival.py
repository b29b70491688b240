import numpy as np
import pytest

from ehrmeta.data import read_survival, survival_array
from ehrmeta.errors import DataError


def test_what_was_written_is_read_whatever_the_fields_are_called():
    y = survival_array([1, 0, 2], [0.5, 0.0, 3.0])
    y.dtype.names = ("status", "days")
    event, time = read_survival(y)
    np.testing.assert_array_equal(event, [1, 0, 2])
    np.testing.assert_array_equal(time, [0.5, 0.0, 3.0])


def test_scikit_survivals_own_array_is_read():
    y = np.array([(True, 2.0), (False, 5.0)], dtype=[("cens", bool), ("time", float)])
    event, _ = read_survival(y)
    np.testing.assert_array_equal(event, [1, 0])


@pytest.mark.parametrize(
    ("event", "time", "words"),
    [
        ([1, 0], [2.0, -1.0], "time is negative .* 1 of 2 rows"),
        ([1, 0], [np.nan, 1.0], "time is missing"),
        ([1, 0], [0.0, 1.0], "came before entry"),
        ([-1, 0], [1.0, 1.0], "no whole number from 0"),
        ([0.5, 0], [1.0, 1.0], "no whole number from 0"),
        (["a", "b"], [1.0, 1.0], "must hold numbers"),
        ([1], [1.0, 1.0], "one value per row"),
    ],
)
def test_what_cannot_be_a_time_to_an_event_is_refused(event, time, words):
    with pytest.raises(DataError, match=words):
        survival_array(event, time)


def test_a_plain_array_is_refused():
    with pytest.raises(DataError, match="survival_array"):
        read_survival([1, 2])
