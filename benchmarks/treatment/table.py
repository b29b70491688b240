"""Tables of the treatment benchmark for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table
from benchmarks.treatment.simulated import CONSTANT

__all__ = ["treatment_tables"]


def treatment_tables(records: Sequence[Record]) -> str:
    """One table a part that was run."""
    parts = [_acic(records), _sites(records), _trials(records), _survival(records)]
    return "\n\n".join(part for part in parts if part)


def _acic(records: Sequence[Record]) -> str:
    found = _values([r for r in records if r.case.startswith("acic2016")])
    cases = sorted({case for case, _, _ in found if "90/10" not in case})
    split = [f"{case}, 90/10" for case in cases]
    varied = [case for case in cases if case not in CONSTANT]
    rows = []
    for method in dict.fromkeys(method for _, method, _ in found):
        constant = [found.get((case, method, "pehe")) for case in CONSTANT if case in cases]
        rows.append(
            [
                method,
                _summary(found, cases, method, "pehe", np.mean),
                _summary(found, split, method, "pehe", np.mean),
                _summary(found, varied, method, "pehe_sd", np.median),
                " ".join(number(value) for value in constant),
                _summary(found, cases, method, "ate_error", np.mean),
            ]
        )
    heading = ["ACIC 2016", "PEHE", "90/10", "median PEHE / sd", "no heterogeneity", "ATE error"]
    return text_table(heading, rows) if rows else ""


def _sites(records: Sequence[Record]) -> str:
    tables = []
    ours = [r for r in records if r.case.startswith("sites")]
    for case in dict.fromkeys(r.case for r in ours):
        own = [r for r in ours if r.case == case]
        shots = sorted({r.k for r in own if r.k is not None})
        rows = []
        for method in dict.fromkeys(r.method for r in own):
            by_k = {(r.k, r.metric): r for r in own if r.method == method}
            cells = [number(_value(by_k.get((k, "pehe")))) for k in shots]
            cells += [_percent(_value(by_k.get((k, "coverage")))) for k in shots]
            rows.append([method, *cells])
        heading = [case, *(f"k = {k}" for k in shots), *(f"90 %, k = {k}" for k in shots)]
        tables.append(text_table(heading, rows))
    return "\n\n".join(tables)


def _trials(records: Sequence[Record]) -> str:
    tables = []
    scored = [r for r in records if r.metric == "gain_sd"]
    others = {(r.case, r.method, r.metric): r for r in records}
    for case in dict.fromkeys(r.case for r in scored):
        rows = []
        for gain in (r for r in scored if r.case == case):
            key = (case, gain.method)
            rows.append(
                [
                    gain.method,
                    _with_range(gain),
                    _with_range(others.get((*key, "autoc_sd"))),
                    number(_value(others.get((*key, "calibration_sd")))),
                    _percent(_value(others.get((*key, "recovered")))),
                ]
            )
        heading = [case, "gain / sd", "AUTOC / sd", "calibration / sd", "recovered"]
        tables.append(text_table(heading, rows))
    return "\n\n".join(tables)


def _survival(records: Sequence[Record]) -> str:
    rows = [[r.case, r.method, _with_range(r)] for r in records if r.metric == "rmst"]
    return text_table(["days of life added", "by", "effect"], rows) if rows else ""


def _values(records: Sequence[Record]) -> dict[tuple[str, str, str], float]:
    return {(r.case, r.method, r.metric): r.value for r in records if r.value is not None}


def _summary(
    found: dict[tuple[str, str, str], float],
    cases: Sequence[str],
    method: str,
    metric: str,
    over: object,
) -> str:
    values = [found[case, method, metric] for case in cases if (case, method, metric) in found]
    return number(float(over(values))) if values and callable(over) else ""


def _value(record: Record | None) -> float | None:
    return None if record is None else record.value


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _with_range(record: Record | None) -> str:
    if record is None or record.value is None:
        return ""
    if record.low is None or record.high is None:
        return f"{record.value:+.3g}"
    return f"{record.value:+.3g} ({record.low:+.3g} to {record.high:+.3g})"
