import numpy as np
import pytest

from benchmarks.landmark.cells import _up_to
from benchmarks.landmark.data import SHOTS, fold_of_sets, load_cohort, visits


def test_visits_after_the_landmark_are_not_counted():
    cohort = load_cohort("nafld")
    for table in cohort.labs.values():
        known = visits(table.take(_up_to(table, cohort.times)), cohort.times)
        assert visits(table, cohort.times).equals(known)
        assert (known["age"].dropna() >= 0).all()
    leading = visits(cohort.labs["hdl"], cohort.times)
    assert np.expm1(leading["count"].min()) == pytest.approx(SHOTS)


def test_matched_sets_stay_together():
    sets = load_cohort("nafld").matched_set
    folds = fold_of_sets(sets, 5, 0)
    assert all(len(set(folds[sets == each])) == 1 for each in np.unique(sets)[:200])
    assert np.bincount(folds).min() > 0.9 * np.bincount(folds).max()


def test_what_looks_ahead_or_names_the_set_is_no_feature():
    names = " ".join(load_cohort("nafld").static)
    assert not any(word in names for word in ("follow", "death", "died", "status", "set", "day"))
