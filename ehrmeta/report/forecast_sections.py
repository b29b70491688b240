"""The sections of a forecaster's report, from its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.checks import Finding
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.report.coverage_display import CoverageDisplay
from ehrmeta.report.document import Picture, Section, TextTable, svg_of
from ehrmeta.report.k_shot_display import KShotDisplay
from ehrmeta.report.small_cells import MIN_CELL
from ehrmeta.report.style import decimals, number, ranged

__all__ = [
    "OURS",
    "card_section",
    "data_section",
    "errors_section",
    "groups_section",
    "intervals_section",
    "summary_section",
]

OURS = "the model"  # its name among the methods of a curve
_FEW_PATIENTS = 100
_RILEY = 234  # patients beyond the predictors: v / chi2(.025, v) < 1.1 ** 2 from v = 233 on


def summary_section(
    curve: pd.DataFrame,
    coverage: pd.DataFrame,
    checklists: Sequence[TextTable],
    outcome: str,
    unit: str,
    level: float,
    *,
    n_training: int,
    n_predictors: int,
) -> Section:
    """What was found, in plain words."""
    ours = curve[curve["method"] == OURS]
    first, last = ours.iloc[0], ours.iloc[-1]
    n, held, digits = int(last["n_tasks"]), coverage.iloc[-1], decimals(curve["high"].max())
    items = [row for table in checklists for row in table.rows]
    missing = sum(row[1] == "missing" for row in items)
    early, late = (f"{_range(row, digits)} {unit}".rstrip() for row in (first, last))
    words = [
        f"The model forecasts {outcome}. It was tested on {n:,} patients. After {last['k']} values "
        f"of a new patient its typical error on later ones is {late}; after {first['k']} values it "
        f"is {early}. (Square root of the mean squared error, patients weighing the same, 95 % "
        "interval.)",
        f"Its {100 * level:g} % intervals held {100 * held['value']:.1f} % of those later values "
        f"({100 * held['low']:.1f} to {100 * held['high']:.1f}).",
    ]
    if n < _FEW_PATIENTS:
        words.append(
            f"Warning: {n} test patients are few. The intervals are wide, and calibration in "
            f"groups of patients cannot be judged; test on {_FEW_PATIENTS} or more."
        )
    if n_training < _RILEY + n_predictors:
        words.append(
            f"Warning: it was fitted to {n_training:,} patients. {_RILEY + n_predictors:,} are "
            "needed to know the spread of what is left to within 10 % (Riley et al. 2019, "
            "doi:10.1002/sim.7993, third criterion)."
        )
    words.append(
        f"{missing} of {len(items)} items of the reporting checklists are for the authors "
        "to answer and are missing. This is an evaluation on records: it does not show that using "
        "the model helps anyone."
    )
    return Section("Summary", tuple(words))


def data_section(
    fitted: TaskRegressor,
    inputs: Inputs,
    rows: pd.DataFrame,
    findings: Sequence[Finding],
    outcome: str,
) -> Section:
    """Flow of patients and rows, and the predictors."""
    tasks, y = inputs.tasks(), inputs.outcome()
    scored = rows["task"].nunique()
    flow = [
        ("patients in the test table", f"{tasks.n_tasks:,}"),
        ("their rows", f"{inputs.n_rows:,}"),
        ("rows of a patient, median", f"{np.median(tasks.sizes):g}"),
        ("patients with no row after the largest k, left out", f"{tasks.n_tasks - scored:,}"),
        ("patients judged", f"{scored:,}"),
        ("rows judged", f"{rows['row'].nunique():,}"),
        (f"{outcome}, mean (sd) over rows", f"{number(y.mean())} ({number(y.std())})"),
    ]
    left = [(f"{f.what} ({f.column})", f"{f.count:,}") for f in findings]
    columns = [
        (f.label or f.name, f.role, f.kind, f.unit, f"{_missing(inputs.columns[f.name]):.1f} %")
        for f in fitted.table_.features
    ]
    headings = ("column", "role", "kind", "unit", "missing")
    return Section(
        "Data",
        (),
        (
            TextTable("Flow of patients and rows", ("what", "count"), tuple(flow + left)),
            TextTable("Predictors", headings, tuple(columns), sortable=True),
        ),
    )


def errors_section(curve: pd.DataFrame, unit: str) -> Section:
    """Error by k beside the baselines."""
    shots = list(dict.fromkeys(curve["k"]))
    table, digits = [], decimals(curve["high"].max())
    for name, rows in curve.groupby("method", sort=False):
        table.append((str(name), *(_range(row, digits) for _, row in rows.iterrows())))
    words = "Error of each method over the number of values shown, with 95 % bands."
    display = KShotDisplay.from_curve(curve, unit=unit)
    counted = f"{int(curve['n_tasks'].max()):,} patients"
    caption = f"RMSE {f'[{unit}] ' if unit else ''}with 95 % interval, {counted}"
    return Section(
        "Error after k values",
        ("All columns are judged on the same later rows of the same patients.",),
        (
            TextTable(
                caption, ("method", *(f"k = {k}" for k in shots)), tuple(table), sortable=True
            ),
        ),
        (Picture(svg_of(display.figure_, "error"), words),),
    )


def intervals_section(coverage: pd.DataFrame, unit: str, level: float) -> Section:
    """Share of later values that the intervals held, by k."""
    rows = [
        (
            f"{row['k']:g}",
            f"{100 * row['value']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})",
            number(row["width"]),
        )
        for _, row in coverage.iterrows()
    ]
    heading = ("k", "held, % (95 % interval)", f"mean width{f' [{unit}]' if unit else ''}")
    display = CoverageDisplay.from_coverage(coverage, confidence_level=level)
    caption = f"{100 * level:g} % intervals of later values"
    words = "Share of later values inside their interval, by the number of values shown."
    return Section(
        "Intervals",
        ("Of all values after the first k: shares of a patient's values, averaged over patients.",),
        (TextTable(caption, heading, tuple(rows)),),
        (Picture(svg_of(display.figure_, "coverage"), words),),
    )


def groups_section(scores: pd.DataFrame, k: int, unit: str) -> Section:
    """Scores of groups of patients."""
    if scores.empty:
        return Section("Groups of patients", ("No groups were named: pass subgroups=.",))
    rows = []
    for _, row in scores.iterrows():
        if "rmse" in row and row["rmse"] == row["rmse"]:
            ends = row["rmse"], row["rmse_low"], row["rmse_high"]
            error = ranged(*ends, digits=decimals(scores["rmse_high"].max()))
            held = [f"{100 * row[name]:.1f}" for name in ("held", "held_low", "held_high")]
            size = f"{row['n']:,.0f}" if row["n"] == row["n"] else "withheld"
            shown = (size, error, f"{held[0]} ({held[1]} to {held[2]})")
        else:
            shown = (f"under {MIN_CELL}", "withheld", "withheld")
        rows.append((f"{row['group']}: {row['level']}", *shown))
    heading = ("group", "patients", f"RMSE{f' [{unit}]' if unit else ''}", "held, %")
    words = (
        "Intervals of two groups may overlap although the groups differ, and with many groups some "
        "look different by chance: this raises questions, it does not test. Groups of fewer than "
        f"{MIN_CELL} patients are withheld, and the size of another that would tell theirs."
    )
    caption = f"After {k} values, with 95 % intervals"
    table = TextTable(caption, heading, tuple(rows), sortable=True)
    return Section("Groups of patients", (words,), (table,))


def card_section(fitted: TaskRegressor, model: Any) -> Section:
    """What the model is."""
    settings = fitted.get_params(deep=False)
    rows = [("model", type(fitted).__name__), ("training patients", f"{fitted.n_tasks_:,}")]
    if model is not fitted:
        cells = max(limits.n_tasks for limits in model.limits_.values())
        rows.append(("intervals", f"calibrated on {cells:,} further patients"))
    rows += [(name, repr(value)) for name, value in settings.items() if name != "schema"]
    words = (
        "Use: forecasting for patients like those of training and test. It is no statement about "
        "causes, nor about what a treatment would change."
    )
    return Section("Model card", (words,), (TextTable("Settings", ("name", "value"), tuple(rows)),))


def _missing(values: NDArray[Any]) -> float:
    return 100.0 * float(np.mean(pd.isna(values)))


def _range(row: Any, digits: int) -> str:
    """A score with its interval."""
    return ranged(row["value"], row["low"], row["high"], digits=digits)
