"""Figures stand beside their targets, each judged by its own part's records."""

import pytest

from benchmarks.suite.record import Record
from benchmarks.treatment.dosing import BETTER, CLOSED, LAW
from benchmarks.treatment.n_of_1 import COVERAGE, OURS, OWN, POOLED
from benchmarks.treatment.table import treatment_targets


def record(case, method, metric, value, **more):
    return Record("treatment", case, method, metric, value, **more)


def acic(instance, **pehe_sd):
    case = f"acic2016 {instance}"
    return [
        record(case, name.replace("_", " "), metric, value)
        for name, value in pehe_sd.items()
        for metric in ("pehe", "pehe_sd")
    ]


SITES = "sites, heterogeneity 1, confounding 1"


ALIKE = "sites, heterogeneity 0, confounding 1"


NOF1 = "make_nof1, doses that follow the outcome"


RECORDS = {
    "gap from": [
        record(SITES, method, "pehe", value, k=20)
        for method, value in (
            ("ehrmeta", 0.6),
            ("R ridge", 0.9),
            ("zero", 2.0),
            ("Bayes rule", 0.4),
        )
    ],
    "PEHE over": [
        record(ALIKE, method, "pehe", value, k=20)
        for method, value in (("ehrmeta", 0.1), ("R ridge", 0.3), ("Bayes rule", 0.0))
    ],
    "wins": [
        *acic(1, ehrmeta=0.3, X_tuned_boosting=0.4, R_tuned_boosting=0.5),
        *acic(4, ehrmeta=0.3, X_tuned_boosting=0.4, R_tuned_boosting=0.5),
    ],
    "doses": [record("make_pk", LAW, CLOSED, 0.95, k=2), record("make_pk", LAW, BETTER, 0.01, k=2)],
    "within": [
        record(NOF1, method, COVERAGE, value, k=56)
        for method, value in ((OURS, 0.9), (OWN, 0.6), (POOLED, 0.1))
    ],
    "trials": [
        record("actg175, planted", "ehrmeta", "gain_sd", 0.1, low=0.05),
        record("actg175, planted", "ehrmeta", "recovered", 0.7),
    ],
}


@pytest.mark.parametrize("part", RECORDS)
def test_good_figures_meet_their_targets(part):
    targets = treatment_targets(RECORDS[part])
    assert targets
    assert all(target.met for target in targets)


@pytest.mark.parametrize(
    "missed",
    [
        [record("acic2016 2", "ehrmeta", "pehe", 0.4)],
        [record("acic2016 1, 90/10", "ehrmeta", "pehe", 1.3)],
        [record(SITES, "ehrmeta", "coverage", 0.8, k=5)],
        [record("rhdnase", "ehrmeta", "gain_sd", 0.1, low=-0.2)],
        [record("make_pk", LAW, CLOSED, 0.7, k=2), record("make_pk", LAW, BETTER, -0.1, k=2)],
    ],
    ids=lambda records: records[0].case,
)
def test_bad_figures_miss_them(missed):
    assert not any(target.met for target in treatment_targets(missed))


def test_the_gap_is_that_of_the_best_without_adaptation():
    (gap,) = treatment_targets(RECORDS["gap from"])
    assert gap.figure == "60.0%"


def test_parts_that_were_not_run_are_left_out():
    assert treatment_targets([]) == []
    assert len(treatment_targets(RECORDS["trials"])) == 2
