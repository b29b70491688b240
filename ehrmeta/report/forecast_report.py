"""The report on a forecaster: what it was tested on, how well it does, for whom, what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.checks import Finding
from ehrmeta.data.roles import Feature
from ehrmeta.errors import DataError
from ehrmeta.estimators import ConformalRegressor
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.evaluation import k_shot_curve
from ehrmeta.report.document import Document, Section
from ehrmeta.report.forecast_examples import examples_section
from ehrmeta.report.forecast_scores import (
    coverage_by_k,
    forecasts,
    group_scores,
    read_test_rows,
)
from ehrmeta.report.forecast_sections import (
    OURS,
    card_section,
    data_section,
    errors_section,
    groups_section,
    intervals_section,
    summary_section,
)
from ehrmeta.report.style import outcome_label
from ehrmeta.report.tripod import tripod_tables

__all__ = ["forecast_report"]

_MOST_LEVELS = 8  # of a column whose levels are scored each


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
    models = {**(baselines or {}), OURS: model}
    curve = k_shot_curve(
        models, X, y, groups=groups, time=time, shots=shots, query="fixed", reference=OURS
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
        drawn = (examples_section(model, X, inputs, last, n_examples=examples, level=level),)
    sections = (
        summary_section(
            curve,
            coverage,
            checklists,
            outcome,
            unit,
            confidence_level,
            n_training=fitted.n_tasks_,
            n_predictors=len(fitted.table_.features),
        ),
        data_section(fitted, inputs, last, findings, outcome),
        errors_section(curve, unit),
        intervals_section(coverage, unit, confidence_level),
        groups_section(scores, max(shots), unit),
        *drawn,
        card_section(fitted, model),
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
