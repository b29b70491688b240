import numpy as np
import pandas as pd
import pytest

from ehrmeta import Outcome, Schema
from ehrmeta.cli.work.classes import classes_of, coded
from ehrmeta.errors import DataError

SCHEMA = Schema((), Outcome("died"))


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["yes", "no", None], ["no", "yes"]),
        (["mild", "none", "severe"], ["mild", "none", "severe"]),
        ([1, 0, 1], [0, 1]),
        ([1.0, 0.0, None], [0, 1]),
        ([True, False, True], [0, 1]),
        ([True, None, False], [0, 1]),
        ([0, 1, 2], None),
        ([1, 1, 1], None),
        (["yes", "yes", None], None),
        (["48", "<5", "50"], None),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), None),
        ([f"patient {i}" for i in range(50)], None),
    ],
)
def test_classes_are_text_or_zero_and_one(cells, classes):
    found = classes_of(pd.Series(cells))
    assert (None if found is None else found.tolist()) == classes


@pytest.mark.parametrize("cells", [[1, 0, None], [True, False, None], ["1", "0", None]])
def test_zero_and_one_are_coded_however_they_are_written(cells):
    frame = coded(pd.DataFrame({"died": cells}), SCHEMA, np.array([0, 1]))
    np.testing.assert_array_equal(frame.died, [1, 0, np.nan])


def test_a_value_that_is_no_class_is_counted_and_not_shown():
    frame = pd.DataFrame({"died": ["yes", "YES", "no"]})
    with pytest.raises(DataError, match="column 'died': 1 of 3 values are none") as caught:
        coded(frame, SCHEMA, np.array(["no", "yes"], dtype=object))
    assert "YES" not in str(caught.value)
