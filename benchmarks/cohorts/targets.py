"""What the cohorts benchmark must show, each figure beside its target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from benchmarks.cohorts.methods import BAYES_RULE, OURS
from benchmarks.cohorts.run import CohortResult
from benchmarks.cohorts.scores import CohortScores
from benchmarks.suite.text_table import text_table

__all__ = ["Target", "cohorts_targets", "target_table"]

_NO_WIN = {"heart": "pooled logistic", "rhdnase": "pooled logistic"}  # few hospitals, tiny sites
_HIGHEST, _SHARE_BETTER = 1.02, 0.6
_SLOPES, _SLOPE_SHOTS = (0.85, 1.15), 20
_CLOSED, _CLOSED_SHOTS, _CLOSED_ON = 0.7, 50, ("make_cohorts .5", "make_cohorts .8")
_DOSE_SHOTS = 20


class Target(NamedTuple):
    """A figure, and what it was to be."""

    case: str
    what: str
    figure: str
    target: str
    met: bool | None  # None where an interval leaves it open


def cohorts_targets(results: Mapping[str, Mapping[str, CohortResult]]) -> list[Target]:
    """All targets that the results can tell of, for the learner at its defaults."""
    found: list[Target] = []
    for name, methods in results.items():
        scores = CohortScores(name, methods)
        if OURS in scores.methods and scores.opponents:
            found += _no_harm(scores) if name in _NO_WIN else _to_win(scores)
    return found


def target_table(targets: list[Target]) -> str:
    """One line each."""
    words = {True: "yes", False: "NO", None: "open"}
    rows = [[f"{t.case}: {t.what}", t.figure, t.target, words[t.met]] for t in targets]
    return text_table([f"what {OURS} must show", "found", "target", "met"], rows)


def _to_win(scores: CohortScores) -> Iterator[Target]:
    counted = [k for k in scores.shots if scores.counts(k)]
    ratios = {(o, k): scores.ratio(OURS, o, k) for o in scores.opponents for k in counted}
    if ratios:
        (opponent, k), worst = max(ratios.items(), key=lambda item: item[1].high)
        what = f"largest upper end of a ratio ({opponent}, k = {k})"
        high = worst.high
        yield Target(scores.name, what, f"{high:.3f}", f"<= {_HIGHEST}", high <= _HIGHEST)
        better = sum(ratio.value < 1.0 for ratio in ratios.values()) / len(ratios)
        met, target = better >= _SHARE_BETTER, f">= {_SHARE_BETTER:.0%}"
        yield Target(scores.name, f"better in {len(ratios)} cells", f"{better:.0%}", target, met)
    for k in counted:
        if scores.binary and k >= _SLOPE_SHOTS:
            slope = scores.value(OURS, k, "calibration_slope")
            target, met = f"{_SLOPES[0]} to {_SLOPES[1]}", _SLOPES[0] <= slope <= _SLOPES[1]
            yield Target(scores.name, f"calibration slope, k = {k}", f"{slope:.2f}", target, met)
    k, known = _CLOSED_SHOTS, BAYES_RULE in scores.methods and bool(scores.updates)
    if scores.name in _CLOSED_ON and known and k in scores.shots:
        closed = scores.gap_closed(OURS, k)
        what, target = f"gap to the Bayes rule closed, k = {k}", f">= {_CLOSED:.0%}"
        yield Target(scores.name, what, f"{closed:.0%}", target, closed >= _CLOSED)
    if not scores.binary and _DOSE_SHOTS in scores.shots:
        yield from _doses(scores)


def _doses(scores: CohortScores) -> Iterator[Target]:
    for metric, words in (("mae", "MAE over patients"), ("site mae", "MAE, mean of sites")):
        values = {o: scores.value(o, _DOSE_SHOTS, metric) for o in scores.opponents}
        best = min(values, key=lambda opponent: values[opponent])
        own = scores.value(OURS, _DOSE_SHOTS, metric)
        what = f"{words}, k = {_DOSE_SHOTS} (best: {best})"
        target = f"< {values[best]:.2f}"
        yield Target(scores.name, what, f"{own:.2f}", target, own < values[best])


def _no_harm(scores: CohortScores) -> Iterator[Target]:
    """Loss over that of the model that would be used otherwise, with sites as what varies.

    Few hospitals leave it open: of four, the interval reaches a fifth to either side.
    """
    usual = _NO_WIN[scores.name]
    for k in scores.shots if usual in scores.methods else []:
        found = scores.ratio_over_sites(OURS, usual, k)
        what = f"no harm: loss over {usual}'s, k = {k}, 95 % over sites"
        figure = f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
        met = True if found.high <= _HIGHEST else False if found.low > 1.0 else None
        yield Target(scores.name, what, figure, f"high <= {_HIGHEST}", met)
