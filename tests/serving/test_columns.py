"""Columns of a model's tables: classes however they are written."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta import Feature, Outcome, Schema
from ehrmeta.errors import DataError
from ehrmeta.serving.columns import coded, features_of, text_columns

SCHEMA = Schema((), Outcome("died"))


@pytest.mark.parametrize("cells", [[1, 0, None], [True, False, None], ["1", "0", None]])
def test_zero_and_one_are_coded_however_they_are_written(cells):
    frame = coded(pd.DataFrame({"died": cells}), SCHEMA, np.array([0, 1]))
    np.testing.assert_array_equal(frame.died, [1, 0, np.nan])


def test_a_value_that_is_no_class_is_counted_and_not_shown():
    frame = pd.DataFrame({"died": ["yes", "YES", "no"]})
    with pytest.raises(DataError, match="column 'died': 1 of 3 values are none") as caught:
        coded(frame, SCHEMA, np.array(["no", "yes"], dtype=object))
    assert "YES" not in str(caught.value)


def test_absent_features_are_missing_and_ids_and_categories_are_text():
    schema = Schema((Feature("sex", "categorical"), Feature("age")), Outcome("y"), task="id")
    frame = features_of(pd.DataFrame({"age": [1.0], "other": [2.0]}), schema)
    assert list(frame) == ["sex", "age"]
    assert frame["sex"].isna().all()
    assert text_columns(schema) == ("id", "sex")
