"""The treatment benchmark's figures beside their targets, which were set before any run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

import pandas as pd

from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table
from benchmarks.treatment.dosing import BETTER, CLOSED, LAW
from benchmarks.treatment.methods import OURS, TUNED
from benchmarks.treatment.n_of_1 import COVERAGE, OWN, POOLED
from benchmarks.treatment.n_of_1 import OURS as WITHIN
from benchmarks.treatment.simulated import BAYES, CONSTANT

__all__ = ["Target", "targets_table", "treatment_targets"]

_NOMINAL = (0.87, 0.93)  # of 90 % intervals


class Target(NamedTuple):
    """A claim, what was found, what was wanted, and whether it was met."""

    claim: str
    found: str
    wanted: str
    met: bool


def targets_table(records: Sequence[Record]) -> str:
    """A row a claim of the parts that were run; empty without any."""
    rows = [[*t[:3], "met" if t.met else "missed"] for t in treatment_targets(records)]
    return text_table(["it must show", "found", "wanted", ""], rows) if rows else ""


def treatment_targets(records: Sequence[Record]) -> list[Target]:
    """The claims that the records can tell of."""
    if not records:
        return []
    figures = pd.DataFrame([asdict(record) for record in records]).dropna(subset="value")
    return [
        target for part in (_acic, _sites, _doses, _within, _trials) for target in part(figures)
    ]


def _acic(figures: pd.DataFrame) -> Iterator[Target]:
    own = figures[figures["case"].str.startswith("acic2016")]
    tenth = own["case"].str.endswith("90/10")
    by_method = own[~tenth].pivot_table("value", "case", ["metric", "method"])
    if {("pehe_sd", name) for name in (OURS, *TUNED)} <= set(by_method):
        varied = by_method["pehe_sd"][[OURS, *TUNED]].dropna()
        median, n = varied.median(), len(varied)
        wins = int((varied[OURS] < varied[list(TUNED)].min(axis=1)).sum())
        case = f"acic2016, {n} instances whose effects vary"
        yield _below(f"{case}: median PEHE / sd", median[OURS], median[list(TUNED)].min())
        claim = f"{case}: better than tuned X and R boosting"
        yield Target(claim, f"{wins} of {n}", "7 of 8", wins >= 7 / 8 * n)
    found = own[tenth & (own["method"] == OURS) & (own["metric"] == "pehe")]["value"]
    if len(found):
        yield _below(f"acic2016, 90/10: mean PEHE of {len(found)}", found.mean(), 1.15)
    for case in CONSTANT:
        if ("pehe", OURS) in by_method and case in by_method.index:
            yield _below(f"{case}, one effect: PEHE", by_method.loc[case, ("pehe", OURS)], 0.3)


def _sites(figures: pd.DataFrame) -> Iterator[Target]:
    sites = figures[figures["case"].str.startswith("sites")]
    for case, own in sites[sites["method"] == OURS].groupby("case"):
        rows = sites[(sites["case"] == case) & (sites["metric"] == "pehe") & (sites["k"] == 20)]
        pehe = rows.set_index("method")["value"]
        others = pehe.drop([OURS, BAYES], errors="ignore")
        of = f"the best of {len(others)} that do not adapt"
        if "heterogeneity 0" in str(case) and len(others):
            more = pehe[OURS] / others.min() - 1
            yield Target(f"{case}: PEHE over {of}", f"{more:+.1%}", "at most +2 %", more <= 0.02)
        elif BAYES in pehe and len(others):
            closed = (others.min() - pehe[OURS]) / (others.min() - pehe[BAYES])
            yield _share(f"{case}: gap from {of} closed at k = 20", closed, 0.4)
        for k, inside in own[own["metric"] == "coverage"].set_index("k")["value"].items():
            yield _nominal(f"{case}: 90 % intervals, k = {k:g}", inside)


def _doses(figures: pd.DataFrame) -> Iterator[Target]:
    own = figures[(figures["method"] == LAW) & (figures["k"] == 2)]
    closed, better = (own[own["metric"] == metric]["value"] for metric in (CLOSED, BETTER))
    if len(closed):
        yield _share(f"make_pk, k = 2, {len(closed)} seeds: gap closed", closed.mean(), 0.8)
        gain = better.mean()
        claim = "make_pk, k = 2: chance over that of MAP, estimated population"
        yield Target(claim, f"{gain:+.3f}", "above 0", gain > 0)


def _within(figures: pd.DataFrame) -> Iterator[Target]:
    own = figures[figures["case"].str.startswith("make_nof1")]
    for (case, k), rows in own.groupby(["case", "k"]):
        mean = rows.pivot_table("value", "method", "metric")
        n = rows["seed"].nunique()
        yield _nominal(f"{case}, {k:g} days, {n} seeds: 90 % intervals", mean.loc[WITHIN, COVERAGE])
        if "follow" in str(case):
            naive = mean.loc[[OWN, POOLED], COVERAGE].max()
            claim = f"{case}, {k:g} days: naive intervals"
            yield Target(claim, f"{naive:.1%}", f"below {_NOMINAL[0]:.0%}", naive < _NOMINAL[0])


def _trials(figures: pd.DataFrame) -> Iterator[Target]:
    own = figures[figures["method"] == OURS]
    for row in own[own["metric"] == "gain_sd"].itertuples():
        claim = f"{row.case}: gain / sd over the best arm for all, lower bound"
        yield Target(claim, f"{row.low:+.3f}", "at least -0.1", bool(row.low >= -0.1))
    for row in own[own["metric"] == "recovered"].itertuples():
        yield _share(f"{row.case}: gain recovered", row.value, 0.6)


def _below(claim: str, found: float, most: float) -> Target:
    return Target(claim, number(found), f"at most {number(most)}", bool(found <= most))


def _share(claim: str, found: float, least: float) -> Target:
    return Target(claim, f"{found:.1%}", f"at least {least:.0%}", bool(found >= least))


def _nominal(claim: str, found: float) -> Target:
    low, high = _NOMINAL
    return Target(claim, f"{found:.1%}", f"{low:.0%} to {high:.0%}", bool(low <= found <= high))
