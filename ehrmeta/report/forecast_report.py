"""The report on a forecaster: what it was tested on, how well it does, for whom, what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.column_checks import Finding
from ehrmeta.data.columns import take_rows
from ehrmeta.data.schema import Feature
from ehrmeta.errors import DataError
from ehrmeta.estimators import ConformalRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report.displays._base import decimals, number, outcome_label, ranged
from ehrmeta.report.displays.intervals import CoverageDisplay, TrajectoryDisplay
from ehrmeta.report.displays.k_shot import KShotDisplay
from ehrmeta.report.document import MIN_CELL, Document, Picture, Section, TextTable, svg_of
from ehrmeta.report.forecast_scores import (
    coverage_by_k,
    forecasts,
    group_scores,
    read_test_rows,
)
from ehrmeta.report.tripod import tripod_tables

__all__ = [
    "forecast_report",
]

_MOST_LEVELS = 8  # of a column whose levels are scored each
_FEWEST_LATER = 3  # values after those shown, to make a picture
_OURS = "the model"  # its name among the methods of a curve
_FEW_PATIENTS = 100
_RILEY = 234  # patients beyond the predictors: v / chi2(.025, v) < 1.1 ** 2 from v = 233 on


def forecast_report(
    model: TaskRegressor | ConformalRegressor,
    X: Any,
    y: Any,
    *,
    groups: Any,
    time: Any = None,
    baselines: Mapping[str, Any] | None = None,
    shots: Sequence[int] = (0, 1, 2, 3, 5),
    subgroups: Mapping[str, ArrayLike] | None = None,
    findings: Sequence[Finding] = (),
    answers: Mapping[str, str] | None = None,
    confidence_level: float = 0.9,
    examples: int = 0,
    title: str = "",
) -> Document:
    """Report on a fitted forecaster, tested on patients it has not seen.

    Parameters
    ----------
    model : fitted regressor over tasks, or calibrated ConformalRegressor
    X, y, groups, time
        Test patients, none of whom it was fitted or calibrated on; time is needed.
    baselines : mapping of str to fitted estimator, optional
        To compare with; fit them on the model's training patients.
    shots : sequence of int
        Values shown of each patient. Errors are judged on the rows after the largest, whatever the
        k, and intervals on all rows after the first k.
    subgroups : mapping of str to (row,), optional
        Scored beside the model's own binary and categorical columns.
    findings : sequence of Finding, optional
        ``table.findings``: what was left out or masked on reading.
    answers : mapping of str to str, optional
        What only the authors know, by the number of the TRIPOD+AI item, or of TRIPOD-Cluster's with
        a C: ``{"17": "...", "C7b": "..."}``.
    confidence_level : float
        Of the intervals that are checked.
    examples : int
        Test patients whose values are drawn, under made-up names: the report is then patient data.
    title : str

    Returns
    -------
    Document
        Its `save` writes ``.html``, ``.md`` or ``.json``. Without `examples` it holds counts and
        scores, no patient's values; groups of fewer than 11 patients are withheld.

    Raises
    ------
    DataError
        The model predicts no numbers, groups or time are missing, or no patient has enough rows.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.baselines import MixedEffects
    >>> rng = np.random.default_rng(0)
    >>> groups, time = np.repeat(np.arange(60), 6), np.tile(np.arange(6.0), 60)
    >>> X, y = np.zeros((360, 1)), rng.normal(size=60)[groups] + rng.normal(size=360)
    >>> model = MixedEffects().fit(X, y, groups=groups, time=time)
    >>> page = forecast_report(model, X, y, groups=groups, time=time, shots=(0, 1, 3))
    >>> [section.title for section in page.sections][:3]
    ['Summary', 'Data', 'Error after k values']
    """
    fitted, inputs = read_test_rows(model, X, y, groups, time)
    outcome = outcome_label(fitted.schema_)
    unit = fitted.schema_.outcome.unit if fitted.schema_ and fitted.schema_.outcome else ""

    rows = forecasts(model, X, inputs, shots=shots, confidence_level=confidence_level)
    models = {**(baselines or {}), _OURS: model}
    curve = k_shot_curve(
        models, X, y, groups=groups, time=time, shots=shots, query="fixed", reference=_OURS
    )
    curve = curve[curve["metric"] == "rmse_macro"]
    coverage = coverage_by_k(rows)
    last = rows[rows["k"] == max(shots)]
    kinds = _kinds(fitted.table_.features, inputs) | {
        name: np.asarray(values) for name, values in (subgroups or {}).items()
    }
    for name, values in kinds.items():
        if values.shape != (inputs.n_rows,):
            raise DataError(
                f"subgroup {name!r} must have a value for each of {inputs.n_rows:,} rows."
            )
    scores = group_scores(last, kinds)
    has_groups = "rmse" in scores and bool(scores["rmse"].notna().any())
    checklists = tripod_tables(answers or {}, has_groups=has_groups)
    drawn: tuple[Section, ...] = ()
    if examples:
        level = confidence_level
        drawn = (_examples_section(model, X, inputs, last, n_examples=examples, level=level),)
    sections = (
        _summary_section(
            curve,
            coverage,
            checklists,
            outcome,
            unit,
            confidence_level,
            n_training=fitted.n_tasks_,
            n_predictors=len(fitted.table_.features),
        ),
        _data_section(fitted, inputs, last, findings, outcome),
        _errors_section(curve, unit),
        _intervals_section(coverage, unit, confidence_level),
        _groups_section(scores, max(shots), unit),
        *drawn,
        _card_section(fitted, model),
        Section("Checklists", (), checklists),
    )
    return Document(title or f"Evaluation of a prediction model: {outcome}", sections)


def _kinds(features: Sequence[Feature], inputs: Inputs) -> dict[str, NDArray[Any]]:
    """Columns whose few levels are groups of patients."""
    found = {}
    for feature in features:
        values = inputs.columns[feature.name]
        if feature.kind == "binary":
            found[feature.name] = pd.Series(values).map({0: "no", 1: "yes"}).to_numpy()
        elif feature.kind == "categorical" and len(pd.unique(values)) <= _MOST_LEVELS:
            found[feature.name] = values
    return found


def _examples_section(
    model: Any, X: Any, inputs: Inputs, rows: pd.DataFrame, *, n_examples: int, level: float
) -> Section:
    """Patients at even steps of the error after the largest k.

    Parameters
    ----------
    model : fitted regressor over tasks, or ConformalRegressor
    X, inputs
        The test table.
    rows : DataFrame
        Of `forecasts`, at the largest k.
    n_examples : int
    level : float
        Of the bands.
    """
    patients = rows.groupby("task")["squared"].agg(["mean", "size"])
    patients = patients[patients["size"] >= _FEWEST_LATER].sort_values("mean")
    shares = np.linspace(0.1, 0.9, n_examples)
    y, tasks = inputs.outcome(), inputs.tasks()
    pictures = []
    for shown, share in enumerate(shares if len(patients) else ()):
        task = patients.index[int(share * (len(patients) - 1))]
        own = tasks.codes == task
        time = None if inputs.time is None else inputs.time[own]
        display = TrajectoryDisplay.from_estimator(
            model,
            take_rows(X, own),
            y[own],
            time=time,
            shots=int(rows["k"].iloc[0]),
            confidence_level=level,
        )
        name = f"patient {shown + 1}"
        words = f"{name}: {100 * share:.0f} % of the patients have a smaller error than this one."
        pictures.append(Picture(svg_of(display.figure_, f"patient{shown + 1}"), words, name))
    paragraph = (
        f"Real values of {len(pictures)} test patients under made-up names, chosen at even steps "
        "of the error, among those with three later values or more: keep this page as you keep "
        "the records."
    )
    return Section("Example patients", (paragraph,), (), tuple(pictures), "Show ")


def _summary_section(
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
    ours = curve[curve["method"] == _OURS]
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


def _data_section(
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


def _errors_section(curve: pd.DataFrame, unit: str) -> Section:
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


def _intervals_section(coverage: pd.DataFrame, unit: str, level: float) -> Section:
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


def _groups_section(scores: pd.DataFrame, k: int, unit: str) -> Section:
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


def _card_section(fitted: TaskRegressor, model: Any) -> Section:
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
