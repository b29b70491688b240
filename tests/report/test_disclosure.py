"""Nothing about fewer than eleven patients can be computed from the tables of a page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from ehrmeta import Feature, MetaClassifier, Outcome, Schema, TreatmentResponse
from ehrmeta.baselines import MixedEffects, MixedEffectsLogistic
from ehrmeta.errors import DataError
from ehrmeta.report import forecast_report, risk_report, treatment_report
from ehrmeta.report.disclosure import (
    BASE,
    MIN_CELL,
    OTHER,
    count_text,
    protect_levels,
    rounded,
    share_text,
)

SHARE = (
    0.9  # of the range that one group leaves to a mean of few patients, at least, for all tables
)
NARROW = 3  # possible values of a count of 1 to 10 that a page must leave open, at least


def _bounds(shown: str) -> tuple[int, int]:
    """The counts that a cell of a page may stand for."""
    if shown == f"under {MIN_CELL}":
        return 1, MIN_CELL - 1
    n = int(shown.replace(",", ""))
    return (n, n) if n == 0 else (n - BASE // 2, n + BASE // 2)


def _smallest_contrast(groups: np.ndarray, counts: np.ndarray) -> int:
    """Fewest patients in a sum and difference of groups, found by minimising its L1 norm.

    `groups` is (group, cell) and `counts` the patients of each cell. For every cell, weights of the
    groups are sought that give this cell 1 and as little as possible to the others.
    """
    n_groups, n_cells = groups.shape
    fewest = int(counts.sum())
    # minimise counts @ u with -u <= groups.T @ a <= u
    above = np.hstack([groups.T, -np.eye(n_cells)])
    below = np.hstack([-groups.T, -np.eye(n_cells)])
    cost = np.r_[np.zeros(n_groups), counts]
    limits = [(None, None)] * n_groups + [(0, None)] * n_cells
    for cell in np.flatnonzero(counts < MIN_CELL):
        fixed = np.r_[groups[:, cell], np.zeros(n_cells)][None]
        found = optimize.linprog(
            cost, np.vstack([above, below]), np.zeros(2 * n_cells), fixed, [1.0], limits
        )
        contrast = groups.T @ found.x[:n_groups] if found.success else np.ones(n_cells)
        fewest = min(fewest, int(counts[np.abs(contrast) > 1e-6].sum()))
    return fewest


def _attack_groups(shown: dict[str, dict[str, str]], levels: pd.DataFrame, n_scored: str) -> None:
    """Fail if the groups of a page, with their counts, tell of fewer than eleven patients.

    Parameters
    ----------
    shown : {column: {level: count}}, as printed
    levels : the true levels of the scored patients, (patient, column)
    n_scored : the total, as printed
    """
    member = [np.ones(len(levels), bool)]
    printed = [n_scored]
    for column, counts in shown.items():
        true = levels[column].astype(str)
        named = true.where(true.isin([level for level in counts if level != OTHER]), OTHER)
        for level, count in counts.items():
            member.append((named == level).to_numpy())
            printed.append(count)
    cells, counts = np.unique(np.array(member, float), axis=1, return_counts=True)
    assert _smallest_contrast(cells, counts) >= MIN_CELL
    low, high = np.array([_bounds(text) for text in printed]).T
    sets = [a & b for a in member for b in member] + [a & ~b for a in member for b in member]
    for small in sets:
        if not 0 < small.sum() < MIN_CELL:
            continue
        inside = np.array(
            [small[(np.array(member, float) == cell[:, None]).all(0)].all() for cell in cells.T],
            float,
        )
        ends = [
            optimize.linprog(
                sign * inside,
                np.vstack([cells, -cells]),
                np.r_[high, -low],
                bounds=[(1, None)] * len(counts),
            ).fun
            * sign
            for sign in (1, -1)
        ]
        assert ends[1] - ends[0] >= NARROW - 1


def _attack_means(shown: dict[str, dict[str, str]], levels: pd.DataFrame) -> None:
    """Fail if all means of a page tell more of fewer than eleven patients than one mean does.

    Whoever attacks knows who is in which group, and the true counts. The means are percentages, and
    patients have equally many rows. The mean of a group bounds that of its parts.

    Parameters
    ----------
    shown : {column: {level: mean in percent}}, as printed
    levels : the true levels of the scored patients, (patient, column)
    """
    groups, means = [], []
    for column, printed in shown.items():
        true = levels[column].astype(str)
        named = true.where(true.isin([level for level in printed if level != OTHER]), OTHER)
        groups += [(named == level).to_numpy(float) for level in printed]
        means += [float(mean.partition(" ")[0]) for mean in printed.values()]
    joint = pd.factorize(pd.Series(list(zip(*levels.T.to_numpy(), strict=True))))[0]
    cells = np.eye(joint.max() + 1)[joint].T  # (cell, patient) everything that is known of them
    share = np.array([group @ cells.T / group.sum() for group in groups])  # (group, cell)
    half = 0.05 + 1e-9  # of the last digit printed
    limits = np.vstack([share, -share]), np.r_[np.add(means, half), -np.subtract(means, half)]
    sets = [a * b for a in groups for b in groups] + [a * (1 - b) for a in groups for b in groups]
    for small in sets:
        if not 0 < small.sum() < MIN_CELL:
            continue
        wanted = small @ cells.T / small.sum()
        open_ = _range(wanted, *limits)
        within = [
            place for place, group in enumerate(groups) if (group * small).sum() == small.sum()
        ]
        alone = min(
            _range(wanted, *(side[[place, place + len(groups)]] for side in limits))
            for place in within
        )
        assert open_ >= SHARE * alone


def _range(wanted: np.ndarray, above: np.ndarray, most: np.ndarray) -> float:
    """Length of the range of a weighted mean of percentages, given linear bounds on them."""
    ends = [
        sign * optimize.linprog(sign * wanted, above, most, bounds=[(0, 100)] * len(wanted)).fun
        for sign in (1, -1)
    ]
    return ends[1] - ends[0]


def _attack_flow(flow: dict[str, str], k: int, true_out: int) -> None:
    """Fail if the number left out follows from the counts of patients and rows."""
    patients, scored = (
        _bounds(flow[name]) for name in ("patients in the test table", "patients scored")
    )
    out = _bounds(next(count for step, count in flow.items() if "left out" in step))
    rows = _bounds(flow["their rows"])
    rows_scored = _bounds(next(count for step, count in flow.items() if "rows scored" in step))
    possible = [
        m
        for m in range(out[0], out[1] + 1)
        if patients[0] - scored[1] <= m <= patients[1] - scored[0]
        # those left out have 1 to k rows, the others k rows more than are scored
        and rows[0] - rows_scored[1] - k * scored[1] <= k * m
        and rows[1] - rows_scored[0] - k * scored[0] >= m
    ]
    assert true_out in possible
    assert true_out == 0 or true_out >= MIN_CELL or len(possible) >= NARROW


def _table(page, title: str, place: int = 0):
    section = next(section for section in page.sections if section.title == title)
    return section.tables[place].rows if section.tables else ()


def _cohort(seed: int):
    """Patients with nested and rare groups, some with too few rows: X, y, groups, time, levels."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(45, 150))
    ward = rng.choice(list("abcdef"), n, p=rng.dirichlet(np.full(6, 0.7)))
    x, u = rng.random(n) < 0.3, rng.random(n) < 0.2
    levels = pd.DataFrame(
        {
            "ward": ward,
            "arm": np.where(np.isin(ward, ["a", "c"]), "ac", "rest"),
            "city": np.where(np.isin(ward, ["a", "b", "c"]), "north", "south"),
            "drug": np.where(rng.random(n) < 3 / n, "named-by-one", rng.choice(["p", "q"], n)),
            "x": np.where(x, "yes", "no"),
            "u": np.where(u & ~x, "yes", "no"),
            "any": np.where(x | u | (rng.random(n) < 4 / n), "yes", "no"),
        }
    )
    sizes = np.where(rng.random(n) < rng.choice([0.05, 0.3]), rng.integers(1, 3, n), 4)
    groups = np.repeat(np.arange(n), sizes)
    time = np.concatenate([np.arange(size, dtype=float) for size in sizes])
    y = rng.normal(0, 2, n)[groups] + rng.normal(size=len(groups))
    X = pd.DataFrame({"age": np.repeat(rng.uniform(20, 80, n), sizes)})
    return X, y, groups, time, levels


@pytest.fixture(scope="module")
def model():
    X, y, groups, time, _ = _cohort(99)
    return MixedEffects(known=["age"]).fit(X, y, groups=groups, time=time)


@pytest.mark.parametrize("seed", range(6))
def test_no_small_group_can_be_computed_from_a_report(model, seed):
    X, y, groups, time, levels = _cohort(seed)
    subgroups = {name: levels[name].to_numpy()[groups] for name in levels}
    page = forecast_report(
        model, X, y, groups=groups, time=time, shots=(0, 1, 2), subgroups=subgroups
    )
    flow = dict(_table(page, "Data"))
    scored = np.bincount(groups) > 2
    _attack_flow(flow, 2, int((~scored).sum()))
    shown: dict[str, dict[str, str]] = {}
    means: dict[str, dict[str, str]] = {}
    for name, count, _, covered in _table(page, "Groups of patients"):
        column, _, level = name.partition(": ")
        shown.setdefault(column, {})[level] = count
        means.setdefault(column, {})[level] = covered
    _attack_groups(shown, levels[scored], flow["patients scored"])
    _attack_means(means, levels[scored])
    text = page.to_html()
    assert ("named-by-one" in text) == ((levels[scored]["drug"] == "named-by-one").sum() >= 11)
    assert re.search(
        r"tested on [\d,]+ of [\d,]+ patients; (none was|(under )?\d+ were) left out", text
    )


def test_the_attack_finds_what_two_tables_tell():
    ward = np.repeat(["a", "b", "c"], [5, 40, 60])
    levels = pd.DataFrame({"ward": ward, "arm": np.where(ward == "b", "b", "ac")})
    shown = {"ward": {"c": "60", OTHER: "45"}, "arm": {"ac": "65", "b": "40"}}
    with pytest.raises(AssertionError):
        _attack_groups(shown, levels, "105")
    inside, merged = np.random.default_rng(0).random(105) < 0.9, {OTHER: ("a", "b")}
    means = {
        column: {
            level: f"{100 * inside[of.isin([level, *merged.get(level, ())])].mean():.1f}"
            for level in shown[column]
        }
        for column, of in levels.items()
    }
    with pytest.raises(AssertionError):
        _attack_means(means, levels)
    flow = {
        "patients in the test table": "60",
        "their rows": "240",
        "left out": "under 11",
        "patients scored": "60",
        "rows scored": "120",
    }
    _attack_flow(flow, 2, 3)
    with pytest.raises(AssertionError):
        _attack_flow(flow | {"patients in the test table": "70", "left out": "10"}, 2, 3)


@pytest.mark.parametrize("seed", range(40))
def test_groups_and_their_differences_have_eleven_patients(seed):
    *_, levels = _cohort(seed)
    order = np.random.default_rng(seed).permutation(levels.columns)
    columns = {name: levels[name].to_numpy() for name in order}
    safe = protect_levels(np.arange(len(levels)), columns)
    groups = [np.ones(len(levels))]
    for name, merged in safe.items():
        assert ((merged == columns[name]) | (merged == OTHER)).all()
        groups += [merged == level for level in set(merged)]
    cells, counts = np.unique(np.array(groups, float), axis=1, return_counts=True)
    assert _smallest_contrast(cells, counts) >= MIN_CELL


def test_patients_with_several_levels_are_counted_once():
    patient = np.repeat(np.arange(30), 20)
    level = np.where(patient < 3, np.tile(["seen", "not"], 300), "not")
    assert protect_levels(patient, {"test": level}) == {}  # 30 rows, but 3 patients
    level = np.where(patient < 14, np.tile(["seen", "not"], 300), "not")
    assert set(protect_levels(patient, {"test": level})["test"]) == {"seen", "not"}


def test_counts_and_shares_of_few_patients_are_not_shown():
    assert {count_text(n) for n in range(1, MIN_CELL)} == {"under 11"}
    assert [count_text(n) for n in (0, 11, 13, 1234)] == ["0", "10", "15", "1,235"]
    assert all(abs(rounded(n) - n) <= BASE // 2 for n in range(300))
    patient = np.repeat(np.arange(100), 5)
    for n, text in ((0, "0 %"), (3, "under 11 patients"), (25, "25 %"), (100, "100 %")):
        assert share_text(patient < n, patient) == text
    assert share_text(patient < 97, patient) == "all but under 11 patients"
    once = np.arange(500) % 5 == 0
    assert share_text(once & (patient < 11), np.arange(500)) == "2 %"


def test_a_page_needs_eleven_patients(model):
    X, y, groups, time, _ = _cohort(0)
    few = groups < 10
    with pytest.raises(DataError, match=r"\d patients have a value after the first 1"):
        forecast_report(model, X[few], y[few], groups=groups[few], time=time[few], shots=(0, 1))


@pytest.mark.parametrize("n_events", [3, 10, 20])
def test_a_class_of_few_patients_has_no_count_and_no_curve(n_events):
    rng = np.random.default_rng(0)
    groups, time = np.repeat(np.arange(60), 5), np.tile(np.arange(5.0), 60)
    X = pd.DataFrame({"age": rng.normal(size=300)})
    train = np.where(X.age + rng.normal(size=300) > 0, "yes", "no")
    y = np.where((groups < n_events) & (rng.random(300) < 0.9), "yes", "no")
    model = MixedEffectsLogistic(known=["age"]).fit(X, train, groups=groups, time=time)
    page = risk_report(model, X, y, groups=groups, time=time, shots=(1, 2))
    flow = dict(_table(page, "Data"))
    _attack_flow(flow, 2, 0)
    is_shown = n_events >= MIN_CELL
    assert any(step.startswith("rows scored of class") for step in flow) == is_shown
    assert any(section.title == "Calibration" for section in page.sections) == is_shown
    assert ("AUROC" in page.to_markdown()) == is_shown


def test_rare_classes_are_merged():
    groups, time = np.repeat(np.arange(60), 4), np.tile(np.arange(4.0), 60)
    y = np.where(groups < 2, "named-by-two", np.where(groups % 2, "p", "q"))
    train = np.array(["named-by-two", "p", "q"])[groups % 3]
    X = pd.DataFrame({"age": np.random.default_rng(0).normal(size=240)})
    model = MetaClassifier(max_steps=1, random_state=0, known=["age"], verbose=False)
    model.fit(X, train, groups=groups, time=time)
    page = risk_report(model, X, y, groups=groups, time=time, shots=(1,))
    assert "named-by-two" not in page.to_markdown()


@pytest.mark.parametrize("sizes", [(8, 60, 80, 100), (3, 4, 60, 80), (5, 11, 60, 80)])
def test_no_cohort_of_few_rows_can_be_computed_from_the_others(sizes):
    rng = np.random.default_rng(0)
    n = sum(sizes)
    site = np.repeat([f"s{place}" for place in range(4)], sizes)
    X = pd.DataFrame({"age": rng.normal(size=n), "held by 4": np.arange(n) % (n // 4) == 0})
    arm = rng.permutation(np.arange(n) % 2)
    arm[np.concatenate([[0], np.cumsum(sizes)[:-1]])] = 0  # both arms in every site
    arm[np.concatenate([[0], np.cumsum(sizes)[:-1]]) + 1] = 1
    features = (Feature("age"), Feature("held by 4", kind="binary"))
    schema = Schema(features, Outcome("bp"), task="ward", task_kind="cohort")
    model = TreatmentResponse(propensity=0.5, final="constant", schema=schema, random_state=0)
    model.fit(X, arm + rng.normal(size=n), treatment=arm, groups=site)
    page = treatment_report(model)
    rows = {name: (count, effect) for name, count, effect in _table(page, "Effect")}
    merged = [place for place in range(4) if f"ward s{place}" not in rows]
    assert sum(sizes[place] for place in merged) >= MIN_CELL
    assert rows["other, of few rows"][1] == "not shown"
    assert "held by 4" not in page.to_html()


def test_patients_as_tasks_have_no_effects_of_their_own():
    rng = np.random.default_rng(0)
    patient, arm = np.repeat(np.arange(20), 12), np.tile([0, 1], 120)
    X = rng.normal(size=(240, 1))
    model = TreatmentResponse(propensity=0.5, final="constant", random_state=0)
    model.fit(X, arm + rng.normal(size=240), treatment=arm, groups=patient)
    assert [row[0] for row in _table(treatment_report(model), "Effect")] == ["mean over tasks"]


def test_an_arm_of_few_rows_is_refused():
    rng = np.random.default_rng(0)
    arm = np.where(np.arange(240) % 24 == 0, 1, 0)
    model = TreatmentResponse(propensity=0.1, final="constant", random_state=0)
    model.fit(rng.normal(size=(240, 1)), rng.normal(size=240), treatment=arm)
    with pytest.raises(DataError, match="an arm has 10 rows"):
        treatment_report(model)
