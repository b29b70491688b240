"""The landmark benchmark in words: tables, a summary, and records for a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmarks.landmark.cell import Plan
from benchmarks.landmark.data import DAYS, HORIZONS, SHOTS
from benchmarks.landmark.methods import OURS
from benchmarks.landmark.run import EventRisks
from benchmarks.landmark.scores import SCORES, CellScores
from benchmarks.suite.record import Record
from benchmarks.suite.text_table import number, text_table
from ehrmeta.data import label_within, load_events, load_frame, survival_array
from ehrmeta.evaluation import aalen_johansen, kaplan_meier

__all__ = [
    "cells_of",
    "landmark_notes",
    "landmark_records",
    "landmark_summary",
    "landmark_tables",
    "overstated_incidence",
]

SUITE = "landmark"
_FEWEST_EVENTS, _FEWEST_PATIENTS = 30, 100
_HIGHER_IS_BETTER = {"auroc": True, "brier": False}


def cells_of(found: Sequence[EventRisks]) -> list[CellScores]:
    """Every event at every horizon at which it was seen."""
    cells = [CellScores(each, years) for each in found for years in HORIZONS]
    return [cell for cell in cells if cell.n_events > 0]


def landmark_notes(plan: Plan) -> str:
    """What a reader of the tables must know."""
    lines = [
        f"{plan.folds_run} of {plan.n_folds} folds by patient, matched sets together. Landmark: "
        f"visit {SHOTS} with the leading value, or the\nindex where that is later; patients with "
        "the event before it are not asked about. Death competes with\nthe other events, "
        "transplant with death; AUROC and Brier score are weighted for censoring."
    ]
    if plan.max_tasks is not None:
        lines.append(
            f"Forecasters are trained on {plan.max_tasks:,} people at most, {plan.max_steps} steps."
        )
    old, plain = overstated_incidence()
    lines.append(
        f"Diabetes within 10 years from age 75 on: {old:.1%} (Aalen-Johansen); 1 - Kaplan-Meier, "
        f"with deaths as censoring,\nsays {plain:.1%}, {plain / old - 1:.0%} more."
    )
    return "\n".join(lines)


def overstated_incidence() -> tuple[float, float]:
    """Ten-year incidence of diabetes from age 75 at the index on, and 1 - Kaplan-Meier."""
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
    for found in dict.fromkeys(cell.found for cell in cells):
        yield _table([cell for cell in cells if cell.found is found])


def landmark_summary(cells: Sequence[CellScores]) -> str:
    """How ours stands to every opponent over the cells with enough patients and events."""
    counted = [
        cell
        for cell in cells
        if cell.n_events >= _FEWEST_EVENTS and cell.n_patients >= _FEWEST_PATIENTS
    ]
    if not counted or OURS not in counted[0].found.risks or len(counted[0].found.risks) < 2:
        return "no summary: it needs our method, an opponent and a cell with 30 events"
    rows = []
    for other in counted[0].found.risks:
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
        f"{OURS} less each opponent, mean of {len(counted)} cells with {_FEWEST_EVENTS} events "
        f"and {_FEWEST_PATIENTS} patients or more;\ncells in which the paired 95 % interval "
        "excludes 0\n"
        f"{text_table(heading, rows)}\nE:O of {OURS}: {min(ratios):.2f} to {max(ratios):.2f}"
    )


def landmark_records(cells: Sequence[CellScores]) -> list[Record]:
    """Every score of every method, and the difference of ours to each opponent."""
    records = []
    for cell in cells:
        few = "" if cell.n_events >= _FEWEST_EVENTS else f"{cell.n_events} events only"
        for method, scores in cell.values.items():
            seconds = cell.found.seconds[method]
            for name in SCORES:
                limits = cell.limits(method, name)
                records.append(
                    _record(cell, method, name, scores[name], limits, seconds=seconds, note=few)
                )
            if OURS in cell.values and method != OURS:
                for name in _HIGHER_IS_BETTER:
                    gap = cell.difference(OURS, method, name)
                    named = f"{name} - {method}"
                    records.append(_record(cell, OURS, named, gap.difference, gap[1:], note=few))
    return records


def _record(
    cell: CellScores,
    method: str,
    metric: str,
    value: float,
    limits: tuple[float, float],
    *,
    seconds: float | None = None,
    note: str = "",
) -> Record:
    low, high = limits
    return Record(
        SUITE,
        cell.case,
        method,
        metric,
        value,
        SHOTS,
        low,
        high,
        cell.n_patients,
        seconds,
        note=note,
    )


def _table(cells: Sequence[CellScores]) -> str:
    found = cells[0].found
    counts = [f"{cell.n_events:,} " for cell in cells]
    rows = [["events", *counts, *([""] * (2 * len(cells))), ""]]
    for method in found.risks:
        row = [method]
        for score, digits in (("auroc", 3), ("brier", 4)):
            row += [
                f"{cell.values[method][score]:.{digits}f}{_mark(cell, method, score)}"
                for cell in cells
            ]
        row += [f"{cell.values[method]['e_o']:.2f}" for cell in cells]
        rows.append([*row, number(found.seconds[method], 2)])
    years = [f"{cell.years}y" for cell in cells]
    groups = [[f"{name} {years[0]}", *years[1:]] for name in ("AUROC", "Brier", "E:O")]
    heading = ["", *(f"{each} " for group in groups[:2] for each in group), *groups[2], "fit s"]
    n_patients = cells[0].n_patients
    note = f"+ better, - worse than {OURS} (paired 95 %)\n" if OURS in found.risks else ""
    return (
        f"{found.cohort}: {found.event}, {n_patients:,} patients\n{note}"
        f"{text_table(heading, rows)}\n"
    )


def _mark(cell: CellScores, method: str, score: str) -> str:
    if method == OURS or OURS not in cell.found.risks:
        return " "
    gap = cell.difference(method, OURS, score)
    if gap.low > 0:
        return "+" if _HIGHER_IS_BETTER[score] else "-"
    if gap.high < 0:
        return "-" if _HIGHER_IS_BETTER[score] else "+"
    return " "
