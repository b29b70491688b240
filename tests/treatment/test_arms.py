"""Arms stand in one order, doses in their range, and known propensities are checked."""

import numpy as np
import pytest

from ehrmeta.errors import DataError, DataWarning
from ehrmeta.treatment.arms import Arms, Dose, read_probabilities, read_propensities


def test_a_control_by_name_that_is_not_the_control_is_told():
    with pytest.warns(DataWarning, match="control is 'high dose'.*but 'placebo' may be meant"):
        assert Arms.fit(["placebo", "high dose", "low dose"]).labels[0] == "high dose"
    for arms in (["drug", "other"], ["control", "drug"], [0, 1]):
        assert Arms.fit(arms).n_arms == 2
    assert Arms.fit(["drug", "placebo"], control="placebo").labels[0] == "placebo"


ARMS = Arms.fit(["b", "a", "c", "a"], control="b")


def test_the_control_comes_first_and_is_what_others_are_compared_to():
    assert ARMS.labels.tolist() == ["b", "a", "c"]
    zero, one = ARMS.pair(T1="c")
    np.testing.assert_array_equal([zero, one], [[0, 0], [0, 1]])
    assert ARMS.codes_of("c", "a") == (2, 1)
    np.testing.assert_array_equal(ARMS.vectors @ [10, 20], [0, 10, 20])
    assert ARMS.costs({"c": 2.0}).tolist() == [0, 0, 2]


def test_a_dose_is_a_number_and_knows_its_range():
    dose = Dose.fit([1.0, 4.0, 2.0])
    assert (dose.low, dose.high) == (1, 4)
    np.testing.assert_array_equal(dose.pair(), [[0.0], [1.0]])
    assert dose.outside(np.array([0.5, 1.0, 5.0])).tolist() == [True, False, True]
    with pytest.warns(DataWarning, match="1 of 1 doses lie outside"):
        dose.warn_if_outside(np.array(9.0))


def test_the_range_that_a_file_names_is_reached_by_ten_tasks():
    dose, patient = np.arange(60.0), np.repeat(np.arange(30), 2)
    assert Dose.fit(dose).shared == (9, 50)
    assert Dose.fit(dose, groups=patient).shared == (18, 41)
    assert Dose.fit(dose[:18], groups=patient[:18]).shared == (-np.inf, np.inf)


def test_known_propensities_are_of_the_arms_in_their_order():
    two = Arms.fit(["a", "b"])
    np.testing.assert_array_equal(read_propensities([0.25, 0.5], two, 2), [[0.75, 0.25], [0.5] * 2])
    probabilities = read_probabilities({"c": 0.5, "b": 0.2, "a": 0.3}, ARMS)
    np.testing.assert_array_equal(probabilities, [0.2, 0.3, 0.5])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([0.5, 0.5], "one number per arm"),
        ([[0.5, 0.5, 0.5]], "has shape"),
        ([[0.5, 0.5, 0.5], [1 / 3] * 3], "do not sum to 1 in 1 of 2 rows"),
        ([[0.0, 0.5, 0.5], [1 / 3] * 3], "not strictly between 0 and 1 in 1 of 2"),
    ],
)
def test_propensities_that_are_none_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        read_propensities(given, ARMS, 2)
