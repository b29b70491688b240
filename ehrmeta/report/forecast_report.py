"""The report on a forecaster: test data, errors, coverage, subgroups, model card, checklists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.columns import take_rows
from ehrmeta.data.findings import Finding
from ehrmeta.errors import DataError
from ehrmeta.estimators import ConformalRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report.displays._base import (
    decimals,
    number,
    outcome_label,
    ranged,
    row_range,
    with_unit,
)
from ehrmeta.report.displays.intervals import CoverageDisplay, TrajectoryDisplay
from ehrmeta.report.displays.k_shot import KShotDisplay
from ehrmeta.report.document import MIN_CELL, Document, Picture, Section, TextTable, model_card
from ehrmeta.report.forecast_scores import coverage_by_k, forecasts, group_scores, read_test_rows
from ehrmeta.report.tripod import tripod_tables

_MOST_LEVELS = 8  # of a column whose levels are scored
_FEWEST_LATER = 3  # values after those shown, to draw a patient
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
        Values shown of each patient. Errors are scored on the rows after the largest, whatever the
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
    rows = forecasts(model, X, inputs, shots=shots, confidence_level=confidence_level)
    models = {**(baselines or {}), _OURS: model}
    curve = k_shot_curve(
        models, X, y, groups=groups, time=time, shots=shots, query="fixed", reference=_OURS
    )
    tested = _Tested(
        model,
        fitted,
        inputs,
        rows[rows["k"] == max(shots)],
        curve[curve["metric"] == "rmse_macro"],
        coverage_by_k(rows),
        confidence_level,
    )
    scores = group_scores(tested.rows, _subgroups(tested, subgroups or {}))
    has_groups = "rmse" in scores and bool(scores["rmse"].notna().any())
    checklists = tripod_tables(answers or {}, has_groups=has_groups)
    sections = (
        _summary_section(tested, checklists),
        _data_section(tested, findings),
        _errors_section(tested),
        _intervals_section(tested),
        _groups_section(tested, scores),
        *([_examples_section(tested, X, examples)] if examples else []),
        _card_section(tested),
        Section("Checklists", (), checklists),
    )
    return Document(title or f"Evaluation of a prediction model: {tested.outcome}", sections)


@dataclass(frozen=True)
class _Tested:
    """A forecaster and its scores on test patients: what the sections are about."""

    model: TaskRegressor | ConformalRegressor
    fitted: TaskRegressor  # the model itself, whether calibrated or not
    inputs: Inputs  # the test table
    rows: pd.DataFrame  # of `forecasts`, after the largest k
    curve: pd.DataFrame  # RMSE of all methods, of `k_shot_curve`
    coverage: pd.DataFrame  # of `coverage_by_k`
    level: float  # of the intervals

    @property
    def outcome(self) -> str:
        """The outcome in words, with its unit."""
        return outcome_label(self.fitted.schema_)

    @property
    def unit(self) -> str:
        """The unit of the outcome, where one is known."""
        schema = self.fitted.schema_
        return schema.outcome.unit if schema and schema.outcome else ""

    @property
    def digits(self) -> int:
        """Decimals of errors."""
        return decimals(self.curve["high"].max())


def _subgroups(tested: _Tested, given: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    """Columns whose few levels are groups of patients, and those that are given."""
    levels = {}
    for feature in tested.fitted.table_.features:
        values = tested.inputs.columns[feature.name]
        if feature.kind == "binary":
            levels[feature.name] = pd.Series(values).map({0: "no", 1: "yes"}).to_numpy()
        elif feature.kind == "categorical" and len(pd.unique(values)) <= _MOST_LEVELS:
            levels[feature.name] = values
    levels |= {name: np.asarray(values) for name, values in given.items()}
    for name, values in levels.items():
        if values.shape != (tested.inputs.n_rows,):
            raise DataError(
                f"subgroup {name!r} must have a value for each of {tested.inputs.n_rows:,} rows."
            )
    return levels


def _summary_section(tested: _Tested, checklists: Sequence[TextTable]) -> Section:
    """The scores in plain words, with warnings."""
    ours, held = tested.curve[tested.curve["method"] == _OURS], tested.coverage.iloc[-1]
    first, last = ours.iloc[0], ours.iloc[-1]
    n, n_training = int(last["n_tasks"]), tested.fitted.n_tasks_
    n_needed = _RILEY + len(tested.fitted.table_.features)
    items = [row for table in checklists for row in table.rows]
    missing = sum(row[1] == "missing" for row in items)
    early, late = (
        f"{row_range(row, tested.digits)} {tested.unit}".rstrip() for row in (first, last)
    )
    words = [
        f"The model forecasts {tested.outcome}. It was tested on {n:,} patients. After {last['k']} "
        f"values of a new patient its typical error on later ones is {late}; after {first['k']} "
        f"values it is {early}. (Square root of the mean squared error, patients weighing the "
        "same, 95 % interval.)",
        f"Its {100 * tested.level:g} % intervals held {100 * held['value']:.1f} % of those later "
        f"values ({100 * held['low']:.1f} to {100 * held['high']:.1f}).",
    ]
    if n < _FEW_PATIENTS:
        words.append(
            f"Warning: {n} test patients are few. The intervals are wide, and calibration in "
            f"groups of patients cannot be judged; test on {_FEW_PATIENTS} or more."
        )
    if n_training < n_needed:
        words.append(
            f"Warning: it was fitted to {n_training:,} patients. {n_needed:,} are needed to know "
            "the spread of what is left to within 10 % (Riley et al. 2019, doi:10.1002/sim.7993, "
            "third criterion)."
        )
    words.append(
        f"{missing} of {len(items)} items of the reporting checklists are for the authors "
        "to answer and are missing. This is an evaluation on records: it does not show that using "
        "the model helps anyone."
    )
    return Section("Summary", tuple(words))


def _data_section(tested: _Tested, findings: Sequence[Finding]) -> Section:
    """Flow of patients and rows, and the predictors."""
    inputs, rows = tested.inputs, tested.rows
    tasks, y, scored = inputs.tasks(), inputs.outcome(), rows["task"].nunique()
    flow = [
        ("patients in the test table", f"{tasks.n_tasks:,}"),
        ("their rows", f"{inputs.n_rows:,}"),
        ("rows of a patient, median", f"{np.median(tasks.sizes):g}"),
        ("patients with no row after the largest k, left out", f"{tasks.n_tasks - scored:,}"),
        ("patients judged", f"{scored:,}"),
        ("rows judged", f"{rows['row'].nunique():,}"),
        (f"{tested.outcome}, mean (sd) over rows", f"{number(y.mean())} ({number(y.std())})"),
        *((f"{finding.what} ({finding.column})", f"{finding.count:,}") for finding in findings),
    ]
    columns = [
        (f.label or f.name, f.role, f.kind, f.unit, f"{100 * np.mean(pd.isna(values)):.1f} %")
        for f in tested.fitted.table_.features
        for values in [inputs.columns[f.name]]
    ]
    headings = ("column", "role", "kind", "unit", "missing")
    tables = (
        TextTable("Flow of patients and rows", ("what", "count"), tuple(flow)),
        TextTable("Predictors", headings, tuple(columns), sortable=True),
    )
    return Section("Data", (), tables)


def _errors_section(tested: _Tested) -> Section:
    """Error by k beside the baselines."""
    curve = tested.curve
    rows = [
        (str(name), *(row_range(row, tested.digits) for _, row in of_method.iterrows()))
        for name, of_method in curve.groupby("method", sort=False)
    ]
    headings = ("method", *(f"k = {k}" for k in dict.fromkeys(curve["k"])))
    counted = f"{int(curve['n_tasks'].max()):,} patients"
    caption = f"{with_unit('RMSE', tested.unit)} with 95 % interval, {counted}"
    return Section(
        "Error after k values",
        ("All columns are judged on the same later rows of the same patients.",),
        (TextTable(caption, headings, tuple(rows), sortable=True),),
        (
            Picture.of(
                KShotDisplay.from_curve(curve, unit=tested.unit),
                "error",
                "Error of each method over the number of values shown, with 95 % bands.",
            ),
        ),
    )


def _intervals_section(tested: _Tested) -> Section:
    """Share of later values that the intervals held, by k."""
    rows = [
        (f"{row['k']:g}", _percent(row, "value", "low", "high"), number(row["width"]))
        for _, row in tested.coverage.iterrows()
    ]
    headings = ("k", "held, % (95 % interval)", with_unit("mean width", tested.unit))
    caption = f"{100 * tested.level:g} % intervals of later values"
    return Section(
        "Intervals",
        ("Of all values after the first k: shares of a patient's values, averaged over patients.",),
        (TextTable(caption, headings, tuple(rows)),),
        (
            Picture.of(
                CoverageDisplay.from_coverage(tested.coverage, confidence_level=tested.level),
                "coverage",
                "Share of later values inside their interval, by the number of values shown.",
            ),
        ),
    )


def _groups_section(tested: _Tested, scores: pd.DataFrame) -> Section:
    """Scores of groups of patients."""
    if scores.empty:
        return Section("Groups of patients", ("No groups were named: pass subgroups=.",))
    rows = []
    for _, row in scores.iterrows():
        if pd.notna(row.get("rmse")):
            digits = decimals(scores["rmse_high"].max())
            error = ranged(row["rmse"], row["rmse_low"], row["rmse_high"], digits=digits)
            size = f"{row['n']:,.0f}" if pd.notna(row["n"]) else "withheld"
            shown = (size, error, _percent(row, "held", "held_low", "held_high"))
        else:
            shown = (f"under {MIN_CELL}", "withheld", "withheld")
        rows.append((f"{row['group']}: {row['level']}", *shown))
    headings = ("group", "patients", with_unit("RMSE", tested.unit), "held, %")
    words = (
        "Intervals of two groups may overlap although the groups differ, and with many groups some "
        "look different by chance: this raises questions, it does not test. Groups of fewer than "
        f"{MIN_CELL} patients are withheld, and the size of another that would tell theirs."
    )
    caption = f"After {tested.rows['k'].iloc[0]} values, with 95 % intervals"
    table = TextTable(caption, headings, tuple(rows), sortable=True)
    return Section("Groups of patients", (words,), (table,))


def _examples_section(tested: _Tested, X: Any, n_examples: int) -> Section:
    """Patients at even steps of the error after the largest k."""
    inputs, rows = tested.inputs, tested.rows
    patients = rows.groupby("task")["squared"].agg(["mean", "size"])
    patients = patients[patients["size"] >= _FEWEST_LATER].sort_values("mean")
    y, tasks = inputs.outcome(), inputs.tasks()
    pictures = []
    for shown, share in enumerate(np.linspace(0.1, 0.9, n_examples if len(patients) else 0), 1):
        of_patient = tasks.codes == patients.index[int(share * (len(patients) - 1))]
        display = TrajectoryDisplay.from_estimator(
            tested.model,
            take_rows(X, of_patient),
            y[of_patient],
            time=None if inputs.time is None else inputs.time[of_patient],
            shots=int(rows["k"].iloc[0]),
            confidence_level=tested.level,
        )
        name = f"patient {shown}"
        words = f"{name}: {100 * share:.0f} % of the patients have a smaller error than this one."
        pictures.append(Picture.of(display, f"patient{shown}", words, name))
    paragraph = (
        f"Real values of {len(pictures)} test patients under made-up names, chosen at even steps "
        "of the error, among those with three later values or more: keep this page as you keep "
        "the records."
    )
    return Section("Example patients", (paragraph,), (), tuple(pictures), "Show ")


def _card_section(tested: _Tested) -> Section:
    """The model and its settings."""
    facts = [("training patients", f"{tested.fitted.n_tasks_:,}")]
    if isinstance(tested.model, ConformalRegressor):
        n_calibrated = max(limits.n_tasks for limits in tested.model.limits_.values())
        facts.append(("intervals", f"calibrated on {n_calibrated:,} further patients"))
    words = (
        "Use: forecasting for patients like those of training and test. It is no statement about "
        "causes, nor about what a treatment would change."
    )
    return model_card(tested.fitted, facts, words)


def _percent(row: pd.Series, *names: str) -> str:
    """A share with its interval, in percent."""
    value, low, high = (100 * row[name] for name in names)
    return ranged(value, low, high, digits=1)
