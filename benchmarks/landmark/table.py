"""Paired scores, tables, summary and records of the landmark benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.landmark.cells import OURS
from benchmarks.landmark.data import DAYS, HORIZONS, SHOTS
from benchmarks.suite.arrays import Array, Index
from benchmarks.suite.fitting import Plan
from benchmarks.suite.record import Record, number, text_table
from ehrmeta.data import label_within, load_events, load_frame, survival_array
from ehrmeta.evaluation import Difference, aalen_johansen, bootstrap_counts, kaplan_meier, labels_at
from ehrmeta.evaluation.discrimination import auroc
from ehrmeta.evaluation.metrics import percentile_limits

SUITE = "landmark"
_MIN_EVENTS, _MIN_PATIENTS = 30, 100
_HIGHER_IS_BETTER = {"auroc": True, "brier": False}
SCORES = ("auroc", "brier", "e_o")
_N_BOOTSTRAP = 500
_CHUNK = 50  # resamples at once, to limit memory


@dataclass(frozen=True, eq=False)
class EventRisks:
    """Risks of one event in a cohort by all methods.

    Parameters
    ----------
    cohort, event : str
    outcome : structured array, (patient,)
        Of the test patients of all folds, times in years.
    fold : ndarray of int, (patient,)
    risks : dict
        ``risks[method][years]``, (patient,).
    seconds : dict of str to float
        By method for all events, mean over folds.
    """

    cohort: str
    event: str
    outcome: NDArray[np.void]
    fold: Index
    risks: dict[str, dict[int, Array]]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class CellScores:
    """Scores of all methods on one event by one horizon.

    AUROC and Brier score are weighted for censoring, with competing events as patients without the
    event; E:O is the mean risk over the weighted share of events. AUROC compares patients of the
    same fold only, as risks of different folds are from different fits.
    """

    risks: EventRisks
    years: int

    @property
    def case(self) -> str:
        """Cohort, event and horizon."""
        return f"{self.risks.cohort}: {self.risks.event} by {self.years} years"

    @property
    def n_patients(self) -> int:
        """Patients at risk."""
        return len(self.risks.outcome)

    @property
    def n_events(self) -> int:
        """Observed events by the horizon."""
        y = self.risks.outcome
        return int(np.sum((y["event"] == 1) & (y["time"] <= self.years)))

    @cached_property
    def values(self) -> Mapping[str, dict[str, float]]:
        """``values[method][score]``."""
        everybody = np.ones((1, self.n_patients))
        return {
            method: {name: float(part[0]) for name, part in self._scores(method, everybody).items()}
            for method in self.risks.risks
        }

    @cached_property
    def samples(self) -> Mapping[str, dict[str, Array]]:
        """``samples[method][score]``, (sample,), with the same resamples for all."""
        counts = bootstrap_counts(self.n_patients, _N_BOOTSTRAP, 0)
        parts = [counts[at : at + _CHUNK] for at in range(0, len(counts), _CHUNK)]
        samples = {}
        for method in self.risks.risks:
            scores = [self._scores(method, part) for part in parts]
            samples[method] = {
                name: np.concatenate([score[name] for score in scores]) for name in SCORES
            }
        return samples

    def limits(self, method: str, score: str) -> tuple[float, float]:
        """95 % interval over patients."""
        return percentile_limits(_defined(self.samples[method][score]), 0.95)

    def difference(self, method: str, other: str, score: str) -> Difference:
        """Difference of a score between two methods, with paired 95 % interval."""
        gap = self.values[method][score] - self.values[other][score]
        samples = self.samples[method][score] - self.samples[other][score]
        return Difference(gap, *percentile_limits(_defined(samples), 0.95))

    @cached_property
    def _labels(self) -> tuple[Array, Array]:
        return labels_at(self.risks.outcome, horizon=self.years)

    def _scores(self, method: str, counts: Array) -> dict[str, Array]:
        """Scores in resamples given by counts (sample, patient)."""
        label, weight = self._labels
        risk, known = self.risks.risks[method][self.years], weight > 0
        weights = counts[:, known] * weight[known]
        gap = label[known] - risk[known]
        expected, seen = counts @ risk, weights @ label[known]
        e_o = np.full(len(counts), np.nan)
        np.divide(expected, seen, out=e_o, where=seen > 0)
        area = _auroc_within(self.risks.fold[known], label[known], risk[known], weights)
        return {"auroc": area, "brier": weights @ gap**2 / counts.sum(axis=1), "e_o": e_o}


def _auroc_within(fold: Index, label: Array, risk: Array, weights: Array) -> Array:
    """AUROC over pairs of patients in the same fold, (sample,)."""
    pairs, concordant = np.zeros(len(weights)), np.zeros(len(weights))
    for each in np.unique(fold):
        at = fold == each
        n = (weights[:, at] @ label[at]) * (weights[:, at] @ (1.0 - label[at]))
        area = auroc(label[at], risk[at], weights[:, at])
        pairs += n
        concordant += np.where(n > 0, n * area, 0.0)
    within = np.full(len(weights), np.nan)
    np.divide(concordant, pairs, out=within, where=pairs > 0)
    return within


def _defined(samples: Array) -> Array:
    """Samples in which the score is defined."""
    return samples[np.isfinite(samples)]


def cells_of(events: Sequence[EventRisks]) -> list[CellScores]:
    """Cells of all events and horizons with observed events."""
    cells = [CellScores(each, years) for each in events for years in HORIZONS]
    return [cell for cell in cells if cell.n_events > 0]


def landmark_notes(plan: Plan) -> str:
    """Notes to the tables."""
    lines = [
        f"{plan.folds_run} of {plan.n_folds} folds by patient, matched sets together. The landmark "
        f"is visit {SHOTS} with the main value, or\nthe index date if later; patients with an "
        "earlier event are excluded. Death competes with\nthe other events, transplant with "
        "death; AUROC and Brier score are weighted for censoring."
    ]
    if plan.max_tasks is not None:
        limit = f"at most {plan.max_tasks:,} patients, {plan.max_steps} steps"
        lines.append(f"Forecasters are trained on {limit}.")
    incidence, naive = overstated_incidence()
    lines.append(
        f"Diabetes within 10 years from age 75: {incidence:.1%} (Aalen-Johansen); 1 - Kaplan-Meier "
        f"with deaths as censoring\nis {naive:.1%}, {naive / incidence - 1:.0%} more."
    )
    return "\n".join(lines)


def overstated_incidence() -> tuple[float, float]:
    """Ten-year incidence of diabetes from age 75, and 1 - Kaplan-Meier."""
    people, events = load_frame("nafld"), load_events("nafld")
    old = people.loc[people["age"] >= 75, "patient_id"].to_numpy()
    labels = label_within(
        events,
        10 * DAYS,
        prediction_times=pd.DataFrame({"subject_id": old, "prediction_time": 0.0}),
        follow_up=events[events["code"] == "end of follow-up"],
        event="diabetes",
        competing="death",
    )
    times = [10 * DAYS]
    incidence = aalen_johansen(survival_array(labels["event"], labels["time"]), times=times)
    alone = survival_array(labels["event"] == 1, labels["time"])
    return float(incidence[0]), float(1.0 - kaplan_meier(alone, times=times)[0])


def landmark_tables(cells: Sequence[CellScores]) -> Iterator[str]:
    """One table per cohort and event: AUROC, Brier score and E:O at every horizon."""
    for risks in dict.fromkeys(cell.risks for cell in cells):
        yield _table([cell for cell in cells if cell.risks is risks])


def landmark_summary(cells: Sequence[CellScores]) -> str:
    """Comparison of our method with every comparator over the cells that are large enough."""
    counted = [c for c in cells if c.n_events >= _MIN_EVENTS and c.n_patients >= _MIN_PATIENTS]
    if not counted or OURS not in counted[0].risks.risks or len(counted[0].risks.risks) < 2:
        return "no summary: it needs our method, a comparator and a cell with 30 events"
    rows = []
    for other in counted[0].risks.risks:
        if other == OURS:
            continue
        row = [other]
        for score, higher in _HIGHER_IS_BETTER.items():
            gaps = [cell.difference(OURS, other, score) for cell in counted]
            better = sum((gap.low > 0) if higher else (gap.high < 0) for gap in gaps)
            worse = sum((gap.high < 0) if higher else (gap.low > 0) for gap in gaps)
            row += [f"{np.mean([gap.difference for gap in gaps]):+.4f}", f"{better}/{worse}"]
        rows.append(row)
    ratios = [cell.values[OURS]["e_o"] for cell in counted]
    heading = ["", "AUROC", "better/worse", "Brier", "better/worse"]
    return (
        f"{OURS} minus each comparator, mean of {len(counted)} cells with at least {_MIN_EVENTS} "
        f"events and {_MIN_PATIENTS} patients;\nnumber of cells in which the paired 95 % interval "
        "excludes 0\n"
        f"{text_table(heading, rows)}\nE:O of {OURS}: {min(ratios):.2f} to {max(ratios):.2f}"
    )


def landmark_records(cells: Sequence[CellScores]) -> list[Record]:
    """All scores of all methods, and the differences of our method to each comparator."""
    records = []
    for cell in cells:
        few = "" if cell.n_events >= _MIN_EVENTS else f"{cell.n_events} events only"
        record = partial(Record, SUITE, cell.case, k=SHOTS, n_tasks=cell.n_patients, note=few)
        for method, scores in cell.values.items():
            seconds = cell.risks.seconds[method]
            for name in SCORES:
                low, high = cell.limits(method, name)
                of_score = partial(record, method, name, scores[name], seconds=seconds)
                records.append(of_score(low=low, high=high))
            for name in _HIGHER_IS_BETTER if OURS in cell.values and method != OURS else ():
                gap, low, high = cell.difference(OURS, method, name)
                records.append(record(OURS, f"{name} - {method}", gap, low=low, high=high))
    return records


def _table(cells: Sequence[CellScores]) -> str:
    risks = cells[0].risks
    counts = [f"{cell.n_events:,} " for cell in cells]
    rows = [["events", *counts, *([""] * (2 * len(cells))), ""]]
    for method in risks.risks:
        row = [method]
        for score, digits in (("auroc", 3), ("brier", 4)):
            row += [
                f"{cell.values[method][score]:.{digits}f}{_mark(cell, method, score)}"
                for cell in cells
            ]
        row += [f"{cell.values[method]['e_o']:.2f}" for cell in cells]
        rows.append([*row, number(risks.seconds[method], 2)])
    years = [f"{cell.years}y" for cell in cells]
    groups = [[f"{name} {years[0]}", *years[1:]] for name in ("AUROC", "Brier", "E:O")]
    heading = ["", *(f"{each} " for group in groups[:2] for each in group), *groups[2], "fit s"]
    n_patients = cells[0].n_patients
    note = f"+ better, - worse than {OURS} (paired 95 %)\n" if OURS in risks.risks else ""
    return (
        f"{risks.cohort}: {risks.event}, {n_patients:,} patients\n{note}"
        f"{text_table(heading, rows)}\n"
    )


def _mark(cell: CellScores, method: str, score: str) -> str:
    if method == OURS or OURS not in cell.risks.risks:
        return " "
    gap = cell.difference(method, OURS, score)
    if gap.low > 0:
        return "+" if _HIGHER_IS_BETTER[score] else "-"
    if gap.high < 0:
        return "-" if _HIGHER_IS_BETTER[score] else "+"
    return " "
