"""The benchmark of calibrated intervals measures what it says."""

from __future__ import annotations

import pytest

from benchmarks.conformal import (
    BY_K,
    BY_SUBGROUP,
    OURS,
    SHOTS,
    UNCALIBRATED,
    Plan,
    conformal_table,
    conformal_targets,
    run_conformal,
)
from benchmarks.suite.cells import Run
from benchmarks.suite.record import Record

PLAN = Plan(n_splits=1, max_tasks=2000)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    run = Run(cache=tmp_path_factory.mktemp("cells"))
    first = run_conformal(run, PLAN, ("mixed",))
    assert run_conformal(run, PLAN, ("mixed",)) == first
    return first


def test_every_kind_of_row_is_measured_at_every_k(records):
    coverage = {(r.case, r.method, r.k) for r in records if r.metric == "coverage"}
    cases = {case for case, _, _ in coverage}
    assert len(cases) == 1 + 2 + 3 + 6  # all, by sex, by age third, by both
    assert len(coverage) == len(cases) * 3 * len(SHOTS)


def test_calibrated_intervals_hold_near_the_level(records):
    """Of 500 patients and one split; the command measures it on all."""
    overall = {
        (r.method, r.k): r.value for r in records if (r.case, r.metric) == ("all", "coverage")
    }
    for method in (BY_K, BY_SUBGROUP):
        shares = [overall[f"mixed: {method}", k] for k in SHOTS]
        assert shares == pytest.approx([0.9] * len(SHOTS), abs=0.04)


def test_the_table_has_a_line_for_every_method(records):
    table = conformal_table(records)
    for method in (UNCALIBRATED, BY_K, BY_SUBGROUP):
        assert f"\nmixed: {method} " in table
    assert "nan" not in table


def test_targets_are_the_defaults_alone(records):
    assert not list(conformal_targets(records))


@pytest.mark.parametrize(("women", "score", "met"), [(0.905, 20.0, True), (0.88, 21.0, False)])
def test_each_claim_stands_beside_its_target(women, score, met):
    """The score is that of the best of all methods, a baseline's own intervals too."""
    records = [
        Record("conformal", f"{kind}: {cell}", OURS, "coverage", value, k=1)
        for kind, cells in {
            "sex": {"women": women, "men": 0.9},
            "age third": {"up to 40": 0.9, "over 40": women},
        }.items()
        for cell, value in cells.items()
    ]
    records += [
        Record("conformal", "all", method, "interval_score", value, k=1)
        for method, value in ((OURS, score), (f"mixed + OU: {UNCALIBRATED}", 20.0))
    ]
    records += [Record("conformal", "all", OURS, "low_coverage", 0.083, k=1)]
    targets = list(conformal_targets(records))
    assert [target.met for target in targets[:3]] == [met] * 3
    assert "best of 2 methods" in targets[2].claim
    assert targets[2].figure == f"{score / 20.0:.3f}"
    assert targets[3][1:] == ("8.3", "11.0 before", None)
