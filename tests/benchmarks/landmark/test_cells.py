import dataclasses

import numpy as np
import pytest

from benchmarks.landmark.cells import METHODS, OURS, Plan, _at_landmark, _up_to, fold_risks
from benchmarks.landmark.data import DAYS, HORIZONS, SHOTS, fold_of_sets, load_cohort
from ehrmeta import survival_array

PLAN = Plan(n_folds=5, folds_run=1)


def simulated(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    first = rng.exponential(10 * np.exp(-X))
    until = rng.uniform(0, 12, n)
    event = np.where(first.min(1) <= until, 1 + first.argmin(1), 0)
    return X, survival_array(event, np.minimum(first.min(1), until))


def test_nothing_after_a_test_patients_landmark_changes_the_risk():
    cohort, method = load_cohort("pbcseq"), METHODS["hazard, BLUP"]
    before = fold_risks(cohort, method, 0, PLAN).scores
    test = fold_of_sets(cohort.matched_set, PLAN.n_folds, PLAN.seed) == 0
    subjects = cohort.times["subject_id"][test]
    labs = {}
    for lab, table in cohort.labs.items():
        later = ~_up_to(table, cohort.times) & np.isin(table.groups, subjects)
        assert later.sum() > 50
        labs[lab] = dataclasses.replace(table, y=np.where(later, 2.0 * table.y, table.y))
    after = fold_risks(dataclasses.replace(cohort, labs=labs), method, 0, PLAN).scores
    for years in HORIZONS:
        np.testing.assert_array_equal(before[years]["death"], after[years]["death"])


@pytest.mark.parametrize("name", ["nafld", "pbcseq"])
def test_every_patient_has_the_values_of_the_landmark_and_is_still_followed(name):
    cohort = load_cohort(name)
    leading = next(iter(cohort.labs.values()))
    known = leading.take(_up_to(leading, cohort.times))
    assert known.n_tasks == len(cohort.times)
    assert known.tasks.sizes.min() >= SHOTS
    assert (cohort.times["prediction_time"] >= 0).all()
    for labels in cohort.labels.values():
        assert (labels["time"] > 0).all() and (labels["time"] <= max(HORIZONS) * DAYS).all()
    ages = _at_landmark(leading, cohort.times)["age"].to_numpy()
    np.testing.assert_allclose(ages, cohort.static["age"], atol=1.1)  # one is of whole years


@pytest.mark.parametrize("name", ["Cox, BLUP", "logistic, BLUP", OURS])
def test_risk_models_find_the_true_incidence(name):
    X, y = simulated(3000)
    incidence = METHODS[name].risk.fit(X, y).predict_cumulative_incidence(X, [5.0])[:, 0]
    rates = np.exp(X) / 10
    total = rates.sum(1)
    truth = rates[:, 0] / total * (1 - np.exp(-5 * total))
    assert np.abs(incidence - truth).mean() < 0.03
