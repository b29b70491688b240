"""Doses that follow outcomes are noticed; doses in random order are not."""

import numpy as np
import pytest

from ehrmeta.data import make_nof1, make_pk
from ehrmeta.errors import DataWarning
from ehrmeta.treatment.dosing.titration import titration_p_value
from tests.treatment.dosing.patients import nof1_fit


def test_titration_is_noticed_and_random_order_is_not() -> None:
    titrated = make_nof1(60, titration=True, random_state=3)
    with pytest.warns(DataWarning, match="later doses follow earlier outcomes"):
        simple = nof1_fit(titrated, carry_over=0.0, ornstein_uhlenbeck=False)
    assert simple.titration_p_value_ < 1e-6
    pk = make_pk(100, random_state=0)
    p = [
        titration_p_value(pk.X[:, 2], np.log(pk.y), np.arange(0, 501, 5)),
        nof1_fit(make_nof1(60, random_state=4), carry_over=0.0).titration_p_value_,
    ]
    assert not np.any(np.array(p) < 0.001)


def test_units_do_not_matter_and_few_changes_say_nothing() -> None:
    p, starts = make_nof1(30, titration=True, random_state=0), np.arange(0, 30 * 56 + 1, 56)
    p_value = titration_p_value(p.treatment, p.y, starts)
    assert titration_p_value(50 * p.treatment, 3 - 7 * p.y, starts) == pytest.approx(p_value)
    assert np.isnan(titration_p_value(p.treatment[:280], p.y[:280], starts[:6]))
