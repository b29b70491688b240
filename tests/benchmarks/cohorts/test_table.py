from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cohorts.cells import BAYES_RULE, OURS
from benchmarks.cohorts.data import load_cohorts
from benchmarks.cohorts.table import CohortScores, cohorts_targets
from benchmarks.suite.fitting import Folds
from benchmarks.suite.record import target_table


def made_up(losses, name="heart"):
    """Results in which the given risk is given to every event, one minus it to others."""
    data = load_cohorts(name)
    rows = np.arange(min(len(data.y), 2000))
    y, results = data.y[rows], {}
    for method, p in losses.items():
        predicted = np.where(y == 1, p, 1 - p)
        found = {"row": rows, "site": data.groups[rows], "y": y * 1.0, "predicted": predicted}
        results[method] = Folds({0: found, 50: found}, 0.0)
    return CohortScores(name, results)


def test_ratios_are_those_of_the_losses():
    scores = made_up({OURS: 0.8, "other": 0.5})
    found = scores.ratio(OURS, "other", 0)
    expected = np.log(0.8) / np.log(0.5)
    np.testing.assert_allclose(found, [expected] * 3)
    assert scores.value(OURS, 0, "loss") == pytest.approx(-np.log(0.8))
    assert not scores.counts(0), "four hospitals are no ten"


def test_sites_of_one_ratio_leave_no_doubt_of_it():
    """Where every patient's loss is the same share of the other's, so is every site's."""
    scores = made_up({OURS: 0.8, "other": 0.5})
    found = scores.ratio_over_sites(OURS, "other", 0)
    np.testing.assert_allclose(found, [np.log(0.8) / np.log(0.5)] * 3)


def test_one_bad_hospital_among_four_is_doubt():
    scores = made_up({OURS: 0.8, "other": 0.8})
    found = scores.results[OURS].scores[0]
    found["predicted"] = np.where(found["site"] == 0, 0.5, found["predicted"])
    ratio = scores.ratio_over_sites(OURS, "other", 0)
    assert ratio.low < 1 < ratio.value < ratio.high
    assert scores.ratio(OURS, "other", 0).low > 1, "of these four hospitals it is certain"


@pytest.mark.parametrize(("own", "met"), [(0.75, True), (0.65, False)])
def test_targets_say_whether_they_are_met(own, met):
    losses = {OURS: own, "logistic + intercept": 0.7, BAYES_RULE: 0.76}
    name = "make_cohorts .8"
    found = cohorts_targets({name: made_up(losses, name).results})
    closed = next(target for target in found if "Bayes" in target.claim)
    share = (np.log(own) - np.log(0.7)) / (np.log(0.76) - np.log(0.7))
    assert closed.figure == f"{share:.0%}"
    ours = [target for target in found if "slope" not in target.claim]
    assert len(ours) == 3
    assert all(target.met == met for target in ours)
    assert closed.figure in target_table(found, OURS)


@pytest.mark.parametrize(("own", "word"), [(0.8, "met"), (0.6, "missed")])
def test_harm_is_what_the_sites_show(own, word):
    losses = {OURS: own, "pooled logistic": 0.7}
    found = cohorts_targets({"heart": made_up(losses).results})
    assert [target.met for target in found] == [own > 0.7] * 2
    assert target_table(found, OURS).count(f"  {word}") == 2
    results = made_up({OURS: 0.7, "pooled logistic": 0.7}).results
    bad = results[OURS].scores[0]
    bad["predicted"] = np.where(bad["site"] == 0, 0.5, bad["predicted"])
    assert {target.met for target in cohorts_targets({"heart": results})} == {None}


def test_doses_are_compared_with_the_best_comparator():
    data, rows = load_cohorts("warfarin"), np.arange(1000)
    y = data.y[rows] * 1.0
    about = {"row": rows, "site": data.groups[rows], "y": y}
    errors = {OURS: 2.0, "linear + intercept": 3.0, "fixed 35 mg": 9.0}
    results = {
        method: Folds({20: about | {"predicted": y + error}}, 0.0)
        for method, error in errors.items()
    }
    found = [t for t in cohorts_targets({"warfarin": results}) if "MAE" in t.claim]
    assert [(t.figure, t.target, t.met) for t in found] == [("2.00", "< 3.00", True)] * 2
    assert all("linear + intercept" in t.claim for t in found)
