"""Numbers, intervals and outcomes as text."""

import numpy as np
import pytest

from ehrmeta import Outcome, Schema
from ehrmeta.report.wording import decimals, number, outcome_label, ranged, row_range


@pytest.mark.parametrize("value", [0.0, 0.001234, 0.5, 9.6, 123.4, 999.0])
def test_a_number_keeps_three_digits(value):
    assert float(number(value)) == pytest.approx(value, rel=0.005)
    assert float(number(-value)) == -float(number(value))


def test_ends_of_an_interval_have_the_decimals_of_the_largest():
    assert ranged(-12345.6, -20000, 5) == "-12,346 (-20,000 to 5)"
    assert ranged(0.5, 0.25, 0.75, digits=1) == "0.5 (0.2 to 0.8)"
    assert decimals(0.0) == decimals(np.nan) == decimals(np.inf) == 2


def test_scores_without_value_or_interval_say_so():
    assert row_range({"value": np.nan, "low": np.nan}) == "not defined"
    assert row_range({"value": 0.5, "low": np.nan}) == "0.50"
    assert row_range({"value": 0.5, "low": 0.4, "high": 0.6}, 1) == "0.5 (0.4 to 0.6)"


def test_the_outcome_has_its_label_and_unit():
    assert outcome_label(None) == "y"
    assert outcome_label(Schema((), Outcome("hdl", unit="mg/dL"))) == "hdl [mg/dL]"
    assert (
        outcome_label(Schema((), Outcome("n", unit="{count}", label="Visits"))) == "Visits [count]"
    )
