"""Tables, verdict and records of the cohorts benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.cohorts.methods import OURS
from benchmarks.cohorts.run import CohortResult
from benchmarks.cohorts.scores import DOSE_BANDS, CohortScores
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table

__all__ = ["cohorts_records", "cohorts_tables", "cohorts_verdict"]

Results = Mapping[str, Mapping[str, CohortResult]]

_RISK_DETAILS = {
    "AUROC": "auroc",
    "per site": "site auroc",
    "slope": "calibration_slope",
    "E:O": "e_o_ratio",
    "ICI": "ici",
    "Brier": "brier",
}
_DOSE_DETAILS = {
    "MAE": "mae",
    "per site": "site mae",
    **{f"20 %, {band}": f"within 20 %, {band}" for band in DOSE_BANDS},
}


def cohorts_tables(results: Results) -> Iterator[str]:
    """A table of losses and one of details for every data set."""
    for scores in _sets(results):
        yield _loss_table(scores)
        yield _detail_table(scores)


def cohorts_verdict(results: Results) -> str:
    """How the learner compares with every opponent over the cells that count."""
    cells = [(s, k) for s in _sets(results) if OURS in s.methods for k in s.shots if s.counts(k)]
    opponents = list(dict.fromkeys(o for scores, _ in cells for o in scores.opponents))
    rows = []
    for opponent in opponents:
        ratios = [s.ratio(OURS, opponent, k) for s, k in cells if opponent in s.methods]
        rows.append(
            [
                opponent,
                str(len(ratios)),
                f"{sum(r.high <= 1.02 for r in ratios)}",
                f"{sum(r.value < 1.0 for r in ratios)}",
                f"{np.exp(np.mean(np.log([r.value for r in ratios]))):.3f}",
                f"{max(r.high for r in ratios):.3f}",
            ]
        )
    heading = ["opponent", "cells", "high <= 1.02", "better", "mean ratio", "largest high"]
    title = f"{OURS}: loss over each opponent's, cells that count"
    return f"{title}\n{text_table(heading, rows)}"


def cohorts_records(results: Results) -> list[Record]:
    """Every number of the tables."""
    records = []
    for scores in _sets(results):
        details = _RISK_DETAILS if scores.binary else _DOSE_DETAILS
        loss = "log_loss" if scores.binary else "rmse_sqrt"
        for method, result in scores.results.items():
            for k in scores.shots:
                about: dict[str, Any] = {
                    "k": k,
                    "n_tasks": scores.n_sites,
                    "seconds": result.seconds,
                }
                values = {loss: "loss"} | {name: name for name in details.values()}
                for name, source in values.items():
                    value = scores.value(method, k, source)
                    records.append(
                        Record("cohorts", scores.name, method, name, _finite(value), **about)
                    )
                if method != OURS and OURS in scores.methods:
                    found = scores.ratio(OURS, method, k)
                    name = f"{loss} / {method}"
                    about |= {"low": found.low, "high": found.high}
                    records.append(Record("cohorts", scores.name, OURS, name, found.value, **about))
    return records


def _sets(results: Results) -> list[CohortScores]:
    return [CohortScores(name, found) for name, found in results.items()]


def _loss_table(scores: CohortScores) -> str:
    what = "log loss" if scores.binary else "RMSE of the square root"
    rows = []
    for method, result in scores.results.items():
        cells = [
            number(scores.value(method, k, "loss"), 4) + _mark(scores, method, k)
            for k in scores.shots
        ]
        rows.append([method, *cells, number(result.seconds, 2)])
    heading = ["", *(f"k = {k} " for k in scores.shots), "fit s"]
    note = f"+ worse, - better than {OURS} (paired 95 %)"
    title = f"{scores.name}: {what} at k patients of each new site, {scores.n_sites} sites"
    return f"{title}\n{note}\n{text_table(heading, rows)}\n"


def _mark(scores: CohortScores, method: str, k: int) -> str:
    if method == OURS or OURS not in scores.methods:
        return " "
    found = scores.ratio(method, OURS, k)
    return "+" if found.low > 1.0 else "-" if found.high < 1.0 else " "


def _detail_table(scores: CohortScores) -> str:
    k = max((k for k in scores.shots if k <= 20), default=0)
    details = _RISK_DETAILS if scores.binary else _DOSE_DETAILS
    rows = [
        [method, *(_shown(scores.value(method, k, name)) for name in details.values())]
        for method in scores.methods
    ]
    return f"{text_table([f'at k = {k}', *details], rows)}\n"


def _shown(value: float) -> str:
    return number(value, 3) if np.isfinite(value) else ""


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
