import numpy as np
import pytest

from benchmarks.landmark.table import CellScores, EventRisks, overstated_incidence
from ehrmeta import survival_array
from ehrmeta.evaluation import aalen_johansen, survival_auroc, survival_brier


def simulated(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    first = rng.exponential(10 * np.exp(-X))
    until = rng.uniform(0, 12, n)
    event = np.where(first.min(1) <= until, 1 + first.argmin(1), 0)
    return X, survival_array(event, np.minimum(first.min(1), until))


def test_one_less_kaplan_meier_overstates_diabetes_in_old_age():
    incidence, plain = overstated_incidence()
    assert plain / incidence - 1 == pytest.approx(0.29, abs=0.005)


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
