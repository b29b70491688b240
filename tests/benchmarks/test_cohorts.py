"""The cohorts benchmark: what is judged, and the published equations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.cohorts.cells import BAYES_RULE, OURS, CohortPlan, methods_of, supports
from benchmarks.cohorts.data import CohortData, load_cohorts
from benchmarks.cohorts.run import run_cohorts
from benchmarks.cohorts.table import (
    CohortScores,
    cohorts_records,
    cohorts_tables,
    cohorts_targets,
    cohorts_verdict,
)
from benchmarks.cohorts.warfarin_equations import (
    DosingEquation,
    WithEquation,
    clinical_dose,
    genetic_dose,
    with_linked_genotypes,
)
from benchmarks.suite.cells import Run
from benchmarks.suite.fitting import Folds
from benchmarks.suite.record import target_table
from ehrmeta.baselines import UpdatedRegressor

TINY = CohortPlan(n_folds=4, folds_run=1, max_draws=1)


def test_supports_and_queries_are_of_the_site_and_do_not_meet():
    groups = np.repeat([0, 1, 2], [30, 5, 40])
    data = CohortData(pd.DataFrame({"x": np.zeros(75)}), np.arange(75) % 2, groups)
    support, query = supports(data, np.array([0, 1]), 10, draw=0, seed=0)
    assert support[groups == 0].sum() == 10
    assert query[groups == 0].sum() == 20
    assert not (support & query).any()
    assert not support[groups > 0].any(), "5 rows hold no 10, and site 2 was not asked for"
    assert not query[groups > 0].any()
    other, _ = supports(data, np.array([0]), 10, draw=1, seed=0)
    assert (support != other).any()


def test_rows_in_order_are_seen_from_the_first():
    groups = np.zeros(8, int)
    data = CohortData(pd.DataFrame({"x": np.zeros(8)}), np.arange(8) % 2, groups, ordered=True)
    support, query = supports(data, np.array([0]), 3, draw=0, seed=0)
    np.testing.assert_array_equal(np.flatnonzero(support), [0, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(query), np.arange(3, 8))


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


def test_doses_are_held_against_the_best_opponent():
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


def test_a_tiny_run_has_every_table(tmp_path):
    methods = [OURS, "pooled logistic", "mixed-effects logistic"]
    results = run_cohorts(Run(cache=tmp_path), TINY, ["heart"], methods)
    assert list(results["heart"]) == methods
    tables = list(cohorts_tables(results))
    assert all(method in table for method in methods for table in tables)
    assert "opponent" in cohorts_verdict(results)
    assert "no harm" in target_table(cohorts_targets(results), OURS)
    records = cohorts_records(results)
    assert {r.metric for r in records} >= {"log_loss", "auroc", "log_loss / pooled logistic"}
    again = run_cohorts(Run(cache=tmp_path), TINY, ["heart"], methods)
    for k, found in results["heart"][OURS].scores.items():
        for name, values in found.items():
            np.testing.assert_array_equal(again["heart"][OURS].scores[k][name], values)


def test_the_bayes_rule_is_there_where_the_truth_is():
    assert BAYES_RULE in methods_of("make_cohorts .5")
    assert BAYES_RULE not in methods_of("heart")


def patient(**changes):
    columns = {
        "age_decade": 60.0,
        "height": 170.0,
        "weight": 80.0,
        "sex": "male",
        "race": "White",
        "enzyme_inducer": 0.0,
        "amiodarone": 1.0,
        "cyp2c9": "*1/*3",
        "vkorc1_1639": "A/G",
        "vkorc1_2255": None,
        "vkorc1_1173": None,
        "vkorc1_1542": None,
    }
    return pd.DataFrame([columns | changes])


def test_the_equations_are_the_consortiums():
    """Worked by hand from the published coefficients."""
    genetic = 5.6044 - 0.2614 * 6 + 0.0087 * 170 + 0.0128 * 80 - 0.8677 - 0.9357 - 0.5503
    clinical = 4.0376 - 0.2546 * 6 + 0.0118 * 170 + 0.0134 * 80 - 0.5695
    np.testing.assert_allclose(genetic_dose(patient()), genetic)
    np.testing.assert_allclose(clinical_dose(patient()), clinical)
    asian = patient(race="Asian", cyp2c9=None)
    expected = genetic - 0.1092 + 0.9357 - 0.2188
    np.testing.assert_allclose(genetic_dose(asian), expected)


@pytest.mark.parametrize(
    ("linked", "race", "same"),
    [
        ({"vkorc1_1173": "C/T"}, "Black or African American", True),
        ({"vkorc1_2255": "C/T"}, "White", True),
        ({"vkorc1_2255": "C/T"}, "Black or African American", False),
        ({"vkorc1_1542": "C/G"}, "Asian", True),
        ({}, "White", False),
    ],
)
def test_a_missing_genotype_is_read_from_linked_ones(linked, race, same):
    filled = genetic_dose(with_linked_genotypes(patient(vkorc1_1639=None, race=race, **linked)))
    known = genetic_dose(patient(race=race))
    assert np.isclose(filled[0], known[0]) == same


def test_a_site_intercept_moves_an_equation_part_of_the_way():
    data = load_cohorts("warfarin")
    model = DosingEquation("genetic").fit(data.X, data.y, groups=data.groups)
    site = data.X[data.groups == 0][:10]
    y = np.square(genetic_dose(site) + model.model_.beta[0] + 1.0)
    adapted = model.adapt(site, y, groups=np.zeros(10, int))
    moved = np.sqrt(adapted.predict_quantiles(site, [0.5], groups=np.zeros(10, int))[:, 0])
    step = moved - genetic_dose(site) - model.model_.beta[0]
    assert 0.2 < step[0] < 1.0
    np.testing.assert_allclose(step, step[0])


def test_a_learner_told_an_equation_may_take_it_over():
    """Where the dose is the equation's, a linear learner that is told it needs nothing else."""
    data = load_cohorts("warfarin")
    some = np.flatnonzero(data.groups < 3)
    X, groups = data.X.iloc[some], data.groups[some]
    y = np.square(genetic_dose(X))
    told = WithEquation(UpdatedRegressor(outcome_transform="sqrt")).fit(X, y, groups=groups)
    seen = {"groups": np.zeros(20, int)}
    adapted = told.adapt(X[:20], y[:20], **seen)
    found = adapted.predict_quantiles(X[:20], [0.5], **seen)[:, 0]
    np.testing.assert_allclose(found, y[:20], rtol=0.05)
    assert told.unadapted().predict_quantiles(X[:20], [0.5]).shape == (20, 1)
