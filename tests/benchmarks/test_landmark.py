import dataclasses

import numpy as np
import pytest
from statsmodels.duration.hazard_regression import PHReg

from benchmarks.landmark.cells import (
    METHODS,
    OURS,
    Plan,
    _at_landmark,
    _up_to,
    fold_risks,
    test_rows,
)
from benchmarks.landmark.cox import CauseSpecificCox
from benchmarks.landmark.data import (
    DAYS,
    HORIZONS,
    SHOTS,
    fold_of_sets,
    load_cohort,
    visits,
)
from benchmarks.landmark.run import run_landmark
from benchmarks.landmark.table import (
    CellScores,
    EventRisks,
    cells_of,
    landmark_records,
    landmark_summary,
    landmark_tables,
    overstated_incidence,
)
from benchmarks.suite.cells import Run
from ehrmeta import survival_array
from ehrmeta.evaluation import aalen_johansen, survival_auroc, survival_brier

test_rows.__test__ = False  # a function of the benchmark, no test
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


def test_one_less_kaplan_meier_overstates_diabetes_in_old_age():
    incidence, plain = overstated_incidence()
    assert plain / incidence - 1 == pytest.approx(0.29, abs=0.005)


def test_cox_is_that_of_statsmodels():
    X, y = simulated()
    y["time"] = np.ceil(10 * y["time"])  # ties
    found = CauseSpecificCox(penalty=0.0).fit(X, y)
    for cause in (1, 2):
        model = PHReg(y["time"], X, status=y["event"] == cause, ties="breslow")
        np.testing.assert_allclose(found.coef_[cause], model.fit(disp=False).params, atol=1e-4)


def test_cox_that_may_use_nothing_is_aalen_johansen():
    X, y = simulated()
    found = CauseSpecificCox(penalty=1e9).fit(X, y)
    for cause in (1, 2):
        risk = found.predict_cumulative_incidence(X[:1], [2.0, 6.0], cause=cause)[0]
        expected = aalen_johansen(y, times=[2.0, 6.0], cause=cause)
        np.testing.assert_allclose(risk, expected, atol=0.01)


@pytest.mark.parametrize("name", ["Cox, BLUP", "logistic, BLUP", OURS])
def test_risk_models_find_the_true_incidence(name):
    X, y = simulated(3000)
    found = METHODS[name].risk.fit(X, y).predict_cumulative_incidence(X, [5.0])[:, 0]
    rates = np.exp(X) / 10
    total = rates.sum(1)
    truth = rates[:, 0] / total * (1 - np.exp(-5 * total))
    assert np.abs(found - truth).mean() < 0.03


def test_scores_are_those_of_the_evaluation():
    X, y = simulated()
    risks = {"a": {5: 0.4 / (1 + np.exp(-X[:, 0]))}, "b": {5: np.full(len(X), 0.3)}}
    one = np.zeros(len(y), dtype=np.int64)
    cell = CellScores(EventRisks("c", "e", y, one, risks, {"a": 0.0, "b": 0.0}), 5)
    for name in risks:
        value, risk = cell.values[name], risks[name][5]
        assert value["auroc"] == pytest.approx(survival_auroc(y, risk, times=[5.0])[0])
        assert value["brier"] == pytest.approx(survival_brier(y, risk, times=[5.0])[0])
        incidence = aalen_johansen(y, times=[5.0])[0]
        assert value["e_o"] == pytest.approx(risk.mean() / incidence, rel=0.01)
    gap = cell.difference("a", "b", "auroc")
    assert 0 < gap.low < gap.difference < gap.high


def test_patients_of_two_folds_are_not_ranked_against_each_other():
    X, y = simulated()
    fold = np.arange(len(y)) % 2
    risk = 0.4 / (1 + np.exp(-X[:, 0]))
    risks = {"as it is": {5: risk}, "one fold lower": {5: np.where(fold, risk, risk / 10)}}
    cell = CellScores(EventRisks("c", "e", y, fold, risks, {}), 5)
    values = [cell.values[name]["auroc"] for name in risks]
    assert values[0] == pytest.approx(values[1])


def test_a_run_goes_on_from_its_folder_and_is_told_in_words(tmp_path):
    names = ["hazard, last value", "logistic, last value"]
    run = Run(cache=tmp_path)
    first = run_landmark(run, PLAN, ["pbcseq"], names)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    stamps = [file.stat().st_mtime_ns for file in files]
    again = run_landmark(run, PLAN, ["pbcseq"], names)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    for name in names:
        np.testing.assert_array_equal(first[0].risks[name][5], again[0].risks[name][5])
    cells = cells_of(again)
    table = next(landmark_tables(cells))
    assert "pbcseq: death" in table and all(name in table for name in names)
    assert "no summary" in landmark_summary(cells)
    methods = {record.method for record in landmark_records(cells)}
    assert methods == set(names)
