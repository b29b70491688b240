"""The intervals benchmark in words: all that was measured, and the default beside its targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pandas as pd

from benchmarks.conformal.run import (
    BY_KIND,
    COVERAGE,
    LEVEL,
    LOW_SHARE,
    MANY,
    SCORE,
    SERVED_BADLY,
    SHOTS,
)
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table

__all__ = ["conformal_table", "targets_table"]

OURS = f"deep mixed effects: {BY_KIND}"
_COVERED, _WORST_SCORE, _SERVED_BADLY_BEFORE = (0.89, 0.91), 1.02, 0.11
_KINDS = ("sex", "age third")


def conformal_table(records: Sequence[Record]) -> str:
    """Least and most coverage over the cells of each kind; interval score beside the best."""
    frame = _frame(records)
    ends, worst, served = _coverage(frame), _score_to_best(frame), _served_badly(frame)
    kinds = list(dict.fromkeys(ends.index.get_level_values("kind")))
    rows = [
        [
            method,
            *(_range(ends.loc[(method, kind)]) for kind in kinds),
            number(worst[method], 4),
            f"{100 * served[method]:.1f}",
        ]
        for method in dict.fromkeys(frame["method"])
    ]
    heading = ["intervals", *kinds, "score / best", f"% under {100 * LOW_SHARE:g} %"]
    return (
        f"Coverage in % of {100 * LEVEL:g} % intervals: least and most over k of "
        f"{', '.join(map(str, SHOTS))} and the cells of a kind; the largest ratio of the interval "
        f"score to the best method's; patients with {MANY} or more queries held under "
        f"{100 * LOW_SHARE:g} %\n\n" + text_table(heading, rows)
    )


def targets_table(records: Sequence[Record]) -> str:
    """Each claim on the default's intervals, by k and kind, beside its target; empty without it."""
    frame = _frame(records)
    rows = list(_targets(frame)) if OURS in set(frame["method"]) else []
    return text_table([f"{OURS} must show", "found", "wanted", ""], rows) if rows else ""


def _targets(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    low, high = _COVERED
    for kind in _KINDS:
        ends = _coverage(frame).loc[(OURS, kind)]
        met = low <= ends["min"] and ends["max"] <= high
        wanted = f"{100 * low:.1f}-{100 * high:.1f}"
        yield f"coverage in %, every k by {kind}", _range(ends), wanted, _met(met)
    if not frame["method"].str.startswith(OURS.partition(":")[0]).all():  # beside other models
        worst, n = _score_to_best(frame)[OURS], frame["method"].nunique()
        claim = f"interval score / that of the best of {n} methods"
        yield claim, number(worst, 4), f"at most {_WORST_SCORE}", _met(worst <= _WORST_SCORE)
    claim = f"% of patients with {MANY} or more queries held under {100 * LOW_SHARE:g} %"
    found = f"{100 * _served_badly(frame)[OURS]:.1f}"
    yield claim, found, f"{100 * _SERVED_BADLY_BEFORE:.1f} before", ""


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    return pd.DataFrame([asdict(record) for record in records])


def _coverage(frame: pd.DataFrame) -> pd.DataFrame:
    """Least and most over k and cells, by method and kind."""
    coverage = frame[frame["metric"] == COVERAGE]
    kind = coverage["case"].str.partition(":")[0].rename("kind")
    return coverage.groupby(["method", kind], sort=False)["value"].agg(["min", "max"])


def _score_to_best(frame: pd.DataFrame) -> pd.Series:
    """Largest ratio over k, by method."""
    scores = frame[frame["metric"] == SCORE].pivot(index="method", columns="k", values="value")
    return (scores / scores.min()).max(axis=1)


def _served_badly(frame: pd.DataFrame) -> pd.Series:
    """Most over k, by method."""
    return frame[frame["metric"] == SERVED_BADLY].groupby("method")["value"].max()


def _range(ends: pd.Series) -> str:
    return f"{100 * ends['min']:.1f}-{100 * ends['max']:.1f}"
