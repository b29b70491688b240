"""Tables of the treatment benchmark, and targets that were set before any run."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.suite.record import Record, Target, number, text_table
from benchmarks.treatment.dosing import BETTER, CLOSED, LAW
from benchmarks.treatment.methods import OURS, TUNED
from benchmarks.treatment.n_of_1 import COVERAGE, OURS as WITHIN, OWN, POOLED
from benchmarks.treatment.simulated import BAYES, CONSTANT

_NOMINAL = (0.87, 0.93)  # of 90 % intervals


def treatment_tables(records: Sequence[Record]) -> str:
    """Tables of the parts that were run."""
    survival = [[r.case, r.method, _with_range(r)] for r in records if r.metric == "rmst"]
    tables = [*_acic_table(records), *_sites_tables(records), *_trial_tables(records)]
    if survival:
        tables.append(text_table(["days of life added", "by", "effect"], survival))
    return "\n\n".join(tables)


def _acic_table(records: Sequence[Record]) -> Iterator[str]:
    acic = [r for r in records if r.case.startswith("acic2016") and r.value is not None]
    values = {(r.case, r.method, r.metric): r.value for r in acic}
    cases = sorted({r.case for r in acic if "90/10" not in r.case})
    split = [f"{case}, 90/10" for case in cases]
    varied = [case for case in cases if case not in CONSTANT]
    rows = []
    for method in dict.fromkeys(r.method for r in acic):

        def over(cases: Sequence[str], metric: str, mean: Any, method: str = method) -> str:
            all_values = [values.get((case, method, metric)) for case in cases]
            known = [value for value in all_values if value is not None]
            return number(float(mean(known))) if known else ""

        constant = [values.get((case, method, "pehe")) for case in CONSTANT if case in cases]
        rows.append(
            [
                *(method, over(cases, "pehe", np.mean), over(split, "pehe", np.mean)),
                over(varied, "pehe_sd", np.median),
                " ".join(map(number, constant)),
                over(cases, "ate_error", np.mean),
            ]
        )
    heading = ["ACIC 2016", "PEHE", "90/10", "median PEHE / sd", "no heterogeneity", "ATE error"]
    if rows:
        yield text_table(heading, rows)


def _sites_tables(records: Sequence[Record]) -> Iterator[str]:
    sites = [r for r in records if r.case.startswith("sites")]
    for case in dict.fromkeys(r.case for r in sites):
        values = {(r.method, r.metric, r.k): r.value for r in sites if r.case == case}
        shots = sorted({r.k for r in sites if r.case == case and r.k is not None})
        rows = [
            [
                method,
                *(number(values.get((method, "pehe", k))) for k in shots),
                *(_percent(values.get((method, "coverage", k))) for k in shots),
            ]
            for method in dict.fromkeys(method for method, _, _ in values)
        ]
        heading = [case, *(f"k = {k}" for k in shots), *(f"90 %, k = {k}" for k in shots)]
        yield text_table(heading, rows)


def _trial_tables(records: Sequence[Record]) -> Iterator[str]:
    scored = [r for r in records if r.metric == "gain_sd"]
    by_key = {(r.case, r.method, r.metric): r for r in records}
    values = {key: r.value for key, r in by_key.items()}
    for case in dict.fromkeys(r.case for r in scored):
        rows = [
            [
                *(gain.method, _with_range(gain)),
                _with_range(by_key.get((case, gain.method, "autoc_sd"))),
                number(values.get((case, gain.method, "calibration_sd"))),
                _percent(values.get((case, gain.method, "recovered"))),
            ]
            for gain in scored
            if gain.case == case
        ]
        heading = [case, "gain / sd", "AUTOC / sd", "calibration / sd", "recovered"]
        yield text_table(heading, rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _with_range(record: Record | None) -> str:
    if record is None or record.value is None:
        return ""
    if record.low is None or record.high is None:
        return f"{record.value:+.3g}"
    return f"{record.value:+.3g} ({record.low:+.3g} to {record.high:+.3g})"


def treatment_targets(records: Sequence[Record]) -> list[Target]:
    """Targets of all parts that the records cover."""
    if not records:
        return []
    figures = pd.DataFrame([asdict(record) for record in records]).dropna(subset="value")
    parts = (_acic, _sites, _doses, _within, _trials)
    return [target for part in parts for target in part(figures)]


def _acic(figures: pd.DataFrame) -> Iterator[Target]:
    acic = figures[figures["case"].str.startswith("acic2016")]
    tenth = acic["case"].str.endswith("90/10")
    by_method = acic[~tenth].pivot_table("value", "case", ["metric", "method"])
    if {("pehe_sd", name) for name in (OURS, *TUNED)} <= set(by_method):
        varied = by_method["pehe_sd"][[OURS, *TUNED]].dropna()
        median, n = varied.median(), len(varied)
        wins = int((varied[OURS] < varied[list(TUNED)].min(axis=1)).sum())
        case = f"acic2016, {n} instances whose effects vary"
        yield Target.at_most(f"{case}: median PEHE / sd", median[OURS], median[list(TUNED)].min())
        claim = f"{case}: better than tuned X and R boosting"
        yield Target(claim, f"{wins} of {n}", "7 of 8", wins >= 7 / 8 * n)
    pehe = acic[tenth & (acic["method"] == OURS) & (acic["metric"] == "pehe")]["value"]
    if len(pehe):
        yield Target.at_most(f"acic2016, 90/10: mean PEHE of {len(pehe)}", pehe.mean(), 1.15)
    for case in CONSTANT:
        if ("pehe", OURS) in by_method and case in by_method.index:
            error = by_method.loc[case, ("pehe", OURS)]
            yield Target.at_most(f"{case}, constant effect: PEHE", error, 0.3)


def _sites(figures: pd.DataFrame) -> Iterator[Target]:
    sites = figures[figures["case"].str.startswith("sites")]
    for case, ours in sites[sites["method"] == OURS].groupby("case"):
        rows = sites[(sites["case"] == case) & (sites["metric"] == "pehe") & (sites["k"] == 20)]
        pehe = rows.set_index("method")["value"]
        others = pehe.drop([OURS, BAYES], errors="ignore")
        best = f"the best of {len(others)} without adaptation"
        if "heterogeneity 0" in str(case) and len(others):
            more = pehe[OURS] / others.min() - 1
            yield Target(f"{case}: PEHE / {best}", f"{more:+.1%}", "at most +2 %", more <= 0.02)
        elif BAYES in pehe and len(others):
            closed = (others.min() - pehe[OURS]) / (others.min() - pehe[BAYES])
            yield Target.share(f"{case}: gap from {best} closed at k = 20", closed, 0.4)
        for k, inside in ours[ours["metric"] == "coverage"].set_index("k")["value"].items():
            yield Target.within(f"{case}: 90 % intervals, k = {k:g}", inside, *_NOMINAL)


def _doses(figures: pd.DataFrame) -> Iterator[Target]:
    ours = figures[(figures["method"] == LAW) & (figures["k"] == 2)]
    closed, better = (ours[ours["metric"] == metric]["value"] for metric in (CLOSED, BETTER))
    if len(closed):
        yield Target.share(f"make_pk, k = 2, {len(closed)} seeds: gap closed", closed.mean(), 0.8)
        gain = better.mean()
        claim = "make_pk, k = 2: chance over that of MAP, estimated population"
        yield Target(claim, f"{gain:+.3f}", "above 0", gain > 0)


def _within(figures: pd.DataFrame) -> Iterator[Target]:
    ours = figures[figures["case"].str.startswith("make_nof1")]
    for (case, k), rows in ours.groupby(["case", "k"]):
        mean = rows.pivot_table("value", "method", "metric")
        n = rows["seed"].nunique()
        claim = f"{case}, {k:g} days, {n} seeds: 90 % intervals"
        yield Target.within(claim, mean.loc[WITHIN, COVERAGE], *_NOMINAL)
        if "follow" in str(case):
            naive = mean.loc[[OWN, POOLED], COVERAGE].max()
            claim = f"{case}, {k:g} days: naive intervals"
            yield Target(claim, f"{naive:.1%}", f"below {_NOMINAL[0]:.0%}", naive < _NOMINAL[0])


def _trials(figures: pd.DataFrame) -> Iterator[Target]:
    ours = figures[figures["method"] == OURS]
    for row in ours[ours["metric"] == "gain_sd"].itertuples():
        claim = f"{row.case}: gain / sd over the best arm for all, lower bound"
        yield Target(claim, f"{row.low:+.3f}", "at least -0.1", bool(row.low >= -0.1))
    for row in ours[ours["metric"] == "recovered"].itertuples():
        yield Target.share(f"{row.case}: gain recovered", row.value, 0.6)
