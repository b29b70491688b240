"""Report on a classifier: test data, scores, calibration, subgroups, card, checklists."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ehrmeta.data.findings import Finding
from ehrmeta.errors import DataError
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits, shots_to_score
from ehrmeta.evaluation import k_shot_class_curve
from ehrmeta.evaluation.k_shot_classes import class_losses
from ehrmeta.report.disclosure import MIN_CELL, count_text, left_out_text
from ehrmeta.report.displays.risk import CalibrationDisplay
from ehrmeta.report.document import Document, Picture, Section, TextTable, model_card
from ehrmeta.report.subgroups import Score, group_scores, groups_section, protected, subgroup_levels
from ehrmeta.report.tripod import open_items_text, tripod_tables
from ehrmeta.report.wording import outcome_label, row_range

_OURS = "the model"
_CLASS = "class of the outcome"  # among the columns that are protected together
_SCORES = (Score("log_loss", "log loss"), Score("brier", "Brier score"))
_NAMES = {"log_loss": "log loss", "brier": "Brier score", "auroc": "AUROC over all rows"}


def risk_report(
    model: Any,
    X: Any,
    y: Any,
    *,
    groups: Any,
    time: Any = None,
    baselines: Mapping[str, Any] | None = None,
    shots: Sequence[int] | None = None,
    event: Any = None,
    subgroups: Mapping[str, ArrayLike] | None = None,
    findings: Sequence[Finding] = (),
    answers: Mapping[str, str] | None = None,
    allow_training_table: bool = False,
    title: str = "",
) -> Document:
    """Report on a fitted classifier over tasks, tested on patients it has not seen.

    Parameters
    ----------
    model : fitted classifier over tasks
    X, y, groups, time
        Test patients, none of whom it was fitted on.
    baselines : mapping of str to fitted classifier, optional
        For comparison; fit them on the model's training patients.
    shots : sequence of int, optional
        Numbers k of values to adapt to; by default those of 0, 1, 2, 3 and 5 after which at least
        half of the patients have another value. Risks are scored on all rows after the first k.
    event : class label, optional
        Class of two whose risk the calibration curve shows; by default the second by name.
    subgroups, findings, answers
        As in `forecast_report`.
    allow_training_table : bool
        Whether the model may be tested on the table that it was trained on.
    title : str

    Returns
    -------
    Document
        Rounded counts, scores and a calibration curve, which is left out of more than two classes
        and where a class has fewer than eleven patients; no patient's values.

    Raises
    ------
    DataError
        Fewer than eleven patients have a row after the largest k, a class is unknown, or the model
        was trained on this table.

    Examples
    --------
    >>> from ehrmeta.baselines import TaskLogistic
    >>> rng = np.random.default_rng(0)
    >>> X, groups = rng.normal(size=(400, 1)), np.repeat(np.arange(50), 8)
    >>> y = np.where(X[:, 0] + rng.normal(size=50)[groups] > 0, "yes", "no")
    >>> train, test = groups < 20, groups >= 20
    >>> model = TaskLogistic().fit(X[train], y[train], groups=groups[train])
    >>> page = risk_report(model, X[test], y[test], groups=groups[test], shots=(2, 5))
    >>> [section.title for section in page.sections][2:5]
    ['Scores after k values', 'Calibration', 'Groups of patients']
    """
    inputs = model.fitted_model().read(X, y, groups=groups, time=time)
    tasks, classes = inputs.tasks(), np.asarray(model.classes_)
    if event is not None and (len(classes) != 2 or event not in classes.tolist()):
        raise DataError(f"event must be one of two classes, which are {classes.tolist()}.")
    shots = shots_to_score(tasks, shots, (0, 1, 2, 3, 5))
    *_, (k, support, query) = k_shot_splits(inputs, sorted(shots))
    n_rows, n_scored = int(query.sum()), len(np.unique(tasks.codes[query]))
    if n_scored < MIN_CELL:
        raise DataError(
            f"{n_scored} test patients are too few: a report needs {MIN_CELL} or more who have a "
            f"value after the first {k}."
        )
    curve = k_shot_class_curve(
        {**(baselines or {}), _OURS: model},
        X,
        y,
        groups=groups,
        time=time,
        shots=shots,
        confidence_level=0.95,
        allow_training_table=allow_training_table,
    )
    adapted, later = adapt_to_rows(model, X, inputs, support, query)
    outcome = outcome_label(model.schema_)
    # A class of few patients has no count, and neither an AUROC nor a calibration curve.
    labels = np.asarray(inputs.outcome()).astype(str)
    scored = pd.DataFrame({"task": tasks.codes[query], "row": np.flatnonzero(query)})
    p = np.asarray(adapted.predict_proba(**later), np.float64)
    codes = np.searchsorted(classes, np.asarray(inputs.outcome(), dtype=classes.dtype)[query])
    scored = scored.assign(**dict(class_losses(p, codes)))
    levels = subgroup_levels(model.table_, inputs, subgroups or {})
    safe = protected(scored, {_CLASS: labels, **levels})
    shown = safe.pop(_CLASS, np.full(n_rows, ""))
    in_groups = group_scores(scored, safe, _SCORES)
    checklists = tripod_tables(answers or {}, has_groups=not in_groups.empty, of_classes=True)
    n_with = pd.Series(tasks.codes[query]).groupby(labels[query]).nunique()
    is_ranked = len(n_with) == len(classes) == 2 and n_with.min() >= MIN_CELL
    if not is_ranked:
        curve = curve[curve["metric"] != "auroc"]
    n_out = tasks.n_tasks - n_scored
    rows = [
        ("patients in the test table", count_text(tasks.n_tasks)),
        ("their rows", count_text(inputs.n_rows)),
        (f"patients with no row after the first {k}, left out", count_text(n_out)),
        ("patients scored", count_text(n_scored)),
        (f"rows scored after the first {k}", count_text(n_rows)),
        *(
            (f"rows scored of class {label}", count_text(np.sum(shown == label)))
            for label in sorted(set(shown) - {""})
        ),
        *(
            (f"{finding.what} ({finding.column})", count_text(finding.count))
            for finding in findings
        ),
    ]
    data = TextTable("Flow of patients and rows", ("step", "count"), tuple(rows))
    sections = [
        Section("Summary", _summary(curve, outcome, classes, tasks.n_tasks, n_scored, checklists)),
        Section("Data", (), (data,)),
        _scores_section(curve),
    ]
    if is_ranked:
        number = 1 if event is None else classes.tolist().index(event)
        happened = np.asarray(inputs.outcome())[query] == classes[number]
        risk = p[:, number]
        display = CalibrationDisplay.from_predictions(happened, risk, name=_OURS, min_cell=MIN_CELL)
        words = (
            f"Share of rows of class {classes[number]} over their predicted risk, after {k} values."
        )
        paragraph = "Rows of one patient count as separate: the band is narrower than it should be."
        picture = Picture.of(display, "calibration", words)
        sections.append(Section("Calibration", (paragraph,), (), (picture,)))
    sections.append(groups_section(in_groups, list(levels), _SCORES, k))
    facts = [("training patients", count_text(model.n_tasks_)), ("classes", f"{len(classes)}")]
    words = (
        "Intended use: risks of patients like those of training and test. They are not causal: "
        "they do not say what a treatment would change."
    )
    sections += [model_card(model, facts, words), Section("Checklists", (), checklists)]
    return Document(title or f"Evaluation of a prediction model: {outcome}", tuple(sections))


def _summary(
    curve: pd.DataFrame,
    outcome: str,
    classes: Any,
    n_tested: int,
    n: int,
    checklists: Sequence[TextTable],
) -> tuple[str, ...]:
    """The scores of the model in plain words."""
    ours = curve[(curve["method"] == _OURS)].sort_values("k", kind="stable")
    last = ours[ours["k"] == ours["k"].max()].set_index("metric")
    k = int(last["k"].iloc[0])
    ranked = f" AUROC {last['value']['auroc']:.3f}." if "auroc" in last.index else ""
    return (
        f"The model predicts {outcome}, {len(classes)} classes. {left_out_text(n_tested, n, k)}",
        f"After {k} values of a new patient its log loss on later rows is "
        f"{row_range(last.loc['log_loss'], 3)} (mean over patients, 95 % interval).{ranked}",
        open_items_text(checklists),
    )


def _scores_section(curve: pd.DataFrame) -> Section:
    """Section with a table of every score by k, beside the baselines."""
    tables = []
    for metric, name in _NAMES.items():
        of_metric = curve[curve["metric"] == metric]
        rows = [
            (str(method), *(row_range(row, 3) for _, row in part.iterrows()))
            for method, part in of_metric.groupby("method", sort=False)
        ]
        if rows:
            headings = ("method", *(f"k = {k}" for k in dict.fromkeys(of_metric["k"])))
            tables.append(TextTable(name, headings, tuple(rows), sortable=True))
    paragraph = "Log loss and Brier score are averaged over patients, with 95 % intervals."
    return Section("Scores after k values", (paragraph,), tuple(tables))
