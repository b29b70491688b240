"""Report on a forecasting model: test data, errors, coverage, subgroups, card, checklists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ehrmeta.data.columns import take_rows
from ehrmeta.data.findings import Finding
from ehrmeta.errors import DataError, Remedy
from ehrmeta.estimators import ConformalRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.k_shot_protocol import shots_to_score
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report.disclosure import MIN_CELL, count_text, left_out_text, rounded, share_text
from ehrmeta.report.displays.intervals import CoverageDisplay, TrajectoryDisplay
from ehrmeta.report.displays.learning import KShotDisplay
from ehrmeta.report.document import Document, Picture, Section, TextTable, model_card
from ehrmeta.report.forecast_scores import coverage_by_k, forecasts, read_test_rows
from ehrmeta.report.subgroups import Score, group_scores, groups_section, protected, subgroup_levels
from ehrmeta.report.tripod import open_items_text, tripod_tables
from ehrmeta.report.wording import decimals, number, outcome_label, ranged, row_range, with_unit

_MIN_LATER = 3  # values after the support that an example patient needs
_OURS = "the model"  # name of the reported model among the methods of a curve
_FEW_PATIENTS = 100
_RILEY = 234  # patients, plus 1 per predictor: v / chi2(.025, v) < 1.1 ** 2 for all v >= 233


def forecast_report(
    model: TaskRegressor | ConformalRegressor,
    X: Any,
    y: Any,
    *,
    groups: Any,
    time: Any = None,
    baselines: Mapping[str, Any] | None = None,
    shots: Sequence[int] | None = None,
    subgroups: Mapping[str, ArrayLike] | None = None,
    findings: Sequence[Finding] = (),
    answers: Mapping[str, str] | None = None,
    confidence_level: float = 0.9,
    examples: int = 0,
    allow_training_table: bool = False,
    title: str = "",
) -> Document:
    """Report on a fitted forecasting model, tested on patients it has not seen.

    Parameters
    ----------
    model : fitted regressor over tasks, or calibrated ConformalRegressor
    X, y, groups, time
        Test patients, not used to fit or calibrate the model. `time` is required.
    baselines : mapping of str to fitted estimator, optional
        Models to compare with, fitted on the same training patients.
    shots : sequence of int, optional
        Numbers k of values to adapt to; by default those of 0, 1, 2, 3 and 5 after which at least
        half of the patients have another value. For every k, errors are scored on the rows after
        the largest k, and intervals on all rows after the first k.
    subgroups : mapping of str to (row,), optional
        Subgroups to score in addition to the model's binary and categorical columns.
    findings : sequence of Finding, optional
        ``table.findings``: rows and values that were dropped or masked on reading.
    answers : mapping of str to str, optional
        The authors' answers by item number: "17" of TRIPOD+AI, "C7b" of TRIPOD-Cluster.
    confidence_level : float, default 0.9
        Level of the model's intervals, whose coverage is reported.
    examples : int
        Number of test patients whose values are drawn under made-up names. With examples, the
        report is patient data.
    allow_training_table : bool
        Whether the model may be tested on the table that it was trained on.
    title : str

    Returns
    -------
    Document
        Its `save` writes ``.html``, ``.md`` or ``.json``. Without `examples` it contains rounded
        counts and scores, but no patient's values: levels of fewer than 11 patients are merged, and
        no difference of its groups has fewer.

    Raises
    ------
    DataError
        The model does not predict numbers or was trained on this table, groups or time are missing,
        or fewer than 11 patients have enough rows.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.baselines import MixedEffects
    >>> rng = np.random.default_rng(0)
    >>> groups, time = np.repeat(np.arange(60), 6), np.tile(np.arange(6.0), 60)
    >>> X, effect = np.zeros((360, 1)), rng.normal(size=60)[groups]
    >>> train, test = effect + rng.normal(size=(2, 360))
    >>> model = MixedEffects().fit(X, train, groups=groups, time=time)
    >>> page = forecast_report(model, X, test, groups=groups, time=time, shots=(0, 1, 3))
    >>> [section.title for section in page.sections][:3]
    ['Summary', 'Data', 'Error after k values']
    """
    fitted, inputs = read_test_rows(model, X, y, groups, time)
    shots = shots_to_score(inputs.tasks(), shots, (0, 1, 2, 3, 5))
    models = {**(baselines or {}), _OURS: model}
    protocol: dict[str, Any] = {"shots": shots, "query": "fixed", "reference": _OURS}
    protocol["allow_training_table"] = allow_training_table
    curve = k_shot_curve(models, X, y, groups=groups, time=time, confidence_level=0.95, **protocol)
    rows = forecasts(model, X, inputs, shots=shots, confidence_level=confidence_level)
    last_rows = rows[rows["k"] == max(shots)]
    n_scored = last_rows["task"].nunique()
    if n_scored < MIN_CELL:
        raise DataError(
            f"{n_scored} patients have a value after the first {max(shots)}: a report needs "
            f"{MIN_CELL} or more.",
            Remedy("fewer-shots", "Lower shots, or test on more patients."),
        )
    curve = curve[curve["metric"] == "rmse_macro"].assign(n_tasks=int(rounded(n_scored)))
    coverage = coverage_by_k(rows)
    coverage["n"] = rounded(coverage["n"])
    tested = _Tested(model, fitted, inputs, last_rows, curve, coverage, confidence_level)
    levels = subgroup_levels(fitted.table_, inputs, subgroups or {})
    in_groups = (
        Score("squared", with_unit("RMSE", tested.unit), root=True),
        Score("covered", "coverage, %", scale=100.0),
    )
    scores = group_scores(last_rows, protected(last_rows, levels), in_groups)
    checklists = tripod_tables(answers or {}, has_groups=not scores.empty)
    sections = (
        _summary_section(tested, checklists),
        _data_section(tested, findings),
        _errors_section(tested),
        _intervals_section(tested),
        groups_section(scores, list(levels), in_groups, max(shots)),
        *([_examples_section(tested, X, examples)] if examples else []),
        _card_section(tested),
        Section("Checklists", (), checklists),
    )
    return Document(title or f"Evaluation of a prediction model: {tested.outcome}", sections)


@dataclass(frozen=True)
class _Tested:
    """A forecasting model and its scores on test patients."""

    model: TaskRegressor | ConformalRegressor
    fitted: TaskRegressor  # the model without calibration
    inputs: Inputs  # the test table
    rows: pd.DataFrame  # from `forecasts`, after the largest k
    curve: pd.DataFrame  # RMSE of all methods, from `k_shot_curve`
    coverage: pd.DataFrame  # from `coverage_by_k`
    level: float  # of the intervals

    @property
    def outcome(self) -> str:
        """Label and unit of the outcome."""
        return outcome_label(self.fitted.schema_)

    @property
    def unit(self) -> str:
        """Unit of the outcome; "" if unknown."""
        schema = self.fitted.schema_
        return schema.outcome.unit if schema and schema.outcome else ""

    @property
    def digits(self) -> int:
        """Decimals of errors."""
        return decimals(self.curve["high"].max())


def _summary_section(tested: _Tested, checklists: Sequence[TextTable]) -> Section:
    """Section with the scores in plain words, and warnings."""
    ours, coverage = tested.curve[tested.curve["method"] == _OURS], tested.coverage.iloc[-1]
    first, last = ours.iloc[0], ours.iloc[-1]
    n, n_training = tested.rows["task"].nunique(), tested.fitted.n_tasks_
    k, n_tested = int(last["k"]), tested.inputs.tasks().n_tasks
    n_needed = _RILEY + len(tested.fitted.table_.features)
    early, late = (
        f"{row_range(row, tested.digits)} {tested.unit}".rstrip() for row in (first, last)
    )
    words = [
        f"The model forecasts {tested.outcome}. {left_out_text(n_tested, n, k)}",
        f"After {k} values of a new patient its typical error on later ones is {late}; after "
        f"{first['k']} values it is {early}. (Square root of the mean squared error with equal "
        "weight per patient, 95 % interval.)",
        f"Its {100 * tested.level:g} % intervals contained {100 * coverage['value']:.1f} % of the "
        f"later values ({100 * coverage['low']:.1f} to {100 * coverage['high']:.1f}).",
    ]
    if n < _FEW_PATIENTS:
        words.append(
            f"Warning: {count_text(n)} test patients are few. The intervals are wide, and "
            "calibration in subgroups cannot be assessed. Test on "
            f"{_FEW_PATIENTS} or more patients."
        )
    if n_training < n_needed:
        words.append(
            f"Warning: the model was fitted to {count_text(n_training)} patients. {n_needed:,} are "
            "needed to estimate the residual standard deviation within 10 % (Riley et al. 2019, "
            "doi:10.1002/sim.7993, third criterion)."
        )
    words.append(open_items_text(checklists))
    return Section("Summary", tuple(words))


def _data_section(tested: _Tested, findings: Sequence[Finding]) -> Section:
    """Section with the flow of patients and rows, and the predictors."""
    inputs, rows = tested.inputs, tested.rows
    tasks, y, scored = inputs.tasks(), inputs.outcome(), rows["task"].nunique()
    flow = [
        ("patients in the test table", count_text(tasks.n_tasks)),
        ("their rows", count_text(inputs.n_rows)),
        ("rows of a patient, median", f"{np.median(tasks.sizes):g}"),
        ("patients with no row after the largest k, left out", count_text(tasks.n_tasks - scored)),
        ("patients scored", count_text(scored)),
        ("rows scored", count_text(rows["row"].nunique())),
        (f"{tested.outcome}, mean (sd) over rows", f"{number(y.mean())} ({number(y.std())})"),
        *(
            (f"{finding.what} ({finding.column})", count_text(finding.count))
            for finding in findings
        ),
    ]
    columns = [
        (f.label or f.name, f.role, f.kind, f.unit, share_text(missing, tasks.codes))
        for f in tested.fitted.table_.features
        for missing in [np.asarray(pd.isna(inputs.columns[f.name]))]
    ]
    headings = ("column", "role", "kind", "unit", "missing")
    counts = TextTable("Flow of patients and rows", ("step", "count"), tuple(flow))
    predictors = TextTable("Predictors", headings, tuple(columns), sortable=True)
    return Section("Data", (), (counts, predictors))


def _errors_section(tested: _Tested) -> Section:
    """Section with the error by k, of the model and the baselines."""
    curve = tested.curve
    rows = [
        (str(name), *(row_range(row, tested.digits) for _, row in of_method.iterrows()))
        for name, of_method in curve.groupby("method", sort=False)
    ]
    headings = ("method", *(f"k = {k}" for k in dict.fromkeys(curve["k"])))
    n_patients = int(curve["n_tasks"].max())
    caption = f"{with_unit('RMSE', tested.unit)} with 95 % interval, {n_patients:,} patients"
    table = TextTable(caption, headings, tuple(rows), sortable=True)
    display = KShotDisplay.from_curve(curve, unit=tested.unit)
    words = "Error of each method over the number of values shown, with 95 % bands."
    paragraph = "All columns are scored on the same later rows of the same patients."
    picture = Picture.of(display, "error", words)
    return Section("Error after k values", (paragraph,), (table,), (picture,))


def _intervals_section(tested: _Tested) -> Section:
    """Section with the coverage of the intervals by k."""
    rows = [
        (f"{row['k']:g}", _percent(row, "value", "low", "high"), number(row["width"]))
        for _, row in tested.coverage.iterrows()
    ]
    headings = ("k", "coverage, % (95 % interval)", with_unit("mean width", tested.unit))
    caption = f"{100 * tested.level:g} % intervals of later values"
    table = TextTable(caption, headings, tuple(rows))
    display = CoverageDisplay.from_coverage(tested.coverage, confidence_level=tested.level)
    words = "Share of later values inside their interval, by the number of values shown."
    paragraph = "All values after the first k. Coverage is averaged over patients."
    picture = Picture.of(display, "coverage", words)
    return Section("Intervals", (paragraph,), (table,), (picture,))


def _examples_section(tested: _Tested, X: Any, n_examples: int) -> Section:
    """Section with the trajectories of patients at equally spaced ranks of their errors."""
    inputs, rows = tested.inputs, tested.rows
    patients = rows.groupby("task")["squared"].agg(["mean", "size"])
    patients = patients[patients["size"] >= _MIN_LATER].sort_values("mean")
    y, tasks = inputs.outcome(), inputs.tasks()
    pictures = []
    settings: dict[str, Any] = {"shots": int(rows["k"].iloc[0]), "confidence_level": tested.level}
    for i, share in enumerate(np.linspace(0.1, 0.9, n_examples if len(patients) else 0), 1):
        of_patient = tasks.codes == patients.index[int(share * (len(patients) - 1))]
        time = None if inputs.time is None else inputs.time[of_patient]
        display = TrajectoryDisplay.from_estimator(
            tested.model, take_rows(X, of_patient), y[of_patient], time=time, **settings
        )
        name = f"patient {i}"
        words = f"{name}: {100 * share:.0f} % of the patients have a smaller error than this one."
        pictures.append(Picture.of(display, f"patient{i}", words, name))
    paragraph = (
        f"Real values of {len(pictures)} test patients under made-up names, chosen at equally "
        "spaced ranks of the error among patients with three or more later values. Protect this "
        "page like the records."
    )
    return Section("Example patients", (paragraph,), (), tuple(pictures), "Show ")


def _card_section(tested: _Tested) -> Section:
    """Section with the model and its settings."""
    facts = [("training patients", count_text(tested.fitted.n_tasks_))]
    if isinstance(tested.model, ConformalRegressor):
        n_calibrated = max(limits.n_tasks for limits in tested.model.limits_.values())
        facts.append(("intervals", f"calibrated on {count_text(n_calibrated)} further patients"))
    words = (
        "Intended use: forecasts for patients like those in training and test. The forecasts are "
        "not causal: they do not predict what a treatment would change."
    )
    return model_card(tested.fitted, facts, words)


def _percent(row: pd.Series, *names: str) -> str:
    """A share and its interval, in percent."""
    value, low, high = (100 * row[name] for name in names)
    return ranged(value, low, high, digits=1)
