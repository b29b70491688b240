"""Report on a treatment effect: emulated target trial, effect, and checks of assumptions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.errors import DataError
from ehrmeta.report import document
from ehrmeta.report.disclosure import BASE, MIN_CELL, OTHER, count_text, rounded
from ehrmeta.report.displays.effects import BalanceDisplay, ConfoundingDisplay, OverlapDisplay
from ehrmeta.report.document import Document, Picture, Section, TextTable
from ehrmeta.report.wording import decimals, number, outcome_label, ranged
from ehrmeta.treatment import Diagnostics, PooledEffect, TreatmentResponse
from ehrmeta.treatment.arms import Arms

_MAX_FEATURES = 30  # in the balance table
_LARGE_DIFFERENCE = 0.1  # standardised, after weighting

#: Parts of a target trial that only the authors know, with the question to answer.
DESIGN = {
    "eligibility": "who could enter",
    "time zero": "when eligibility, assignment and follow-up begin",
    "strategies": "what each arm was to do, and for how long",
    "follow-up": "from when to when the outcome is counted",
    "confounders": "why these features are sufficient, or that treatment was randomised",
    "missing data": "how it was handled",
}


def treatment_report(
    model: TreatmentResponse,
    *,
    T0: Any = None,
    T1: Any = None,
    design: Mapping[str, str] | None = None,
    title: str = "",
) -> Document:
    """Report on the effect of one arm over another in a model's training tasks.

    Parameters
    ----------
    model : TreatmentResponse
        Fitted, with arms.
    T0, T1 : labels of arms, optional
        The arms to compare; by default the control and the only other arm.
    design : mapping of str to str, optional
        Protocol of the emulated trial, with the keys of `DESIGN`. Other parts are listed as
        missing.
    title : str

    Returns
    -------
    Document
        Its `save` writes ``.html``, ``.md`` or ``.json``. It contains rounded counts and effects,
        but no row's values. Effects in tasks are shown only if the schema says that the tasks are
        cohorts; those of fewer than 11 rows are merged.

    Raises
    ------
    DataError
        The model has a dose instead of arms, an arm has fewer than 11 rows, or `design` has an
        unknown key.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta import TreatmentResponse
    >>> rng = np.random.default_rng(0)
    >>> X, t = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    >>> model = TreatmentResponse(propensity=0.5, final="constant", random_state=0)
    >>> model = model.fit(X, t + rng.normal(size=200), treatment=t, groups=np.arange(200) % 4)
    >>> [section.title for section in treatment_report(model).sections][:3]
    ['Summary', 'The emulated trial', 'Effect']
    """
    arms = model.treatment_
    if not isinstance(arms, Arms):
        raise DataError(
            "a treatment report compares two arms, but this model was fitted with a dose. Fit a "
            "TreatmentResponse with arms."
        )
    unknown = sorted(set(design or {}) - set(DESIGN))
    if unknown:
        raise DataError(f"design has unknown keys {unknown}. Use {', '.join(DESIGN)}.")
    tasks = model.tasks_
    checks, pooled = tasks.diagnostics(T0=T0, T1=T1), tasks.pooled_effect(T0=T0, T1=T1)
    n_rows = int(checks.overlap.to_numpy().sum())
    checks = _publishable(checks, tasks.support.x)
    outcome = outcome_label(model.schema_)
    supplied = tasks.propensity_source_ == "supplied"
    sections = (
        _summary_section(checks, pooled, outcome, supplied, n_rows),
        _trial_section(checks, design or {}, outcome, supplied),
        _effects_section(model, tasks.task_effects(T0=T0, T1=T1), pooled, outcome),
        _checks_section(checks),
        _card_section(model),
    )
    return Document(title or f"Effect of a treatment on {outcome}", sections)


def _publishable(checks: Diagnostics, x: NDArray[Any]) -> Diagnostics:
    """Diagnostics with rounded bins of 11 rows or more, and without features of fewer."""
    smallest = int(checks.overlap.sum().min())
    if smallest < MIN_CELL:
        raise DataError(
            f"an arm has {smallest} rows: a report needs {MIN_CELL} or more in both. Compare other "
            "arms with T0 and T1."
        )
    bins = checks.overlap.where(checks.overlap >= MIN_CELL, 0).apply(rounded)
    sizes = [np.unique(column, return_counts=True)[1] for column in x.T]
    shown = [len(of) != 2 or of.min() >= MIN_CELL for of in sizes]  # two values: a level, or yes/no
    outside = round(checks.outside, 2)
    return replace(checks, overlap=bins, balance=checks.balance[shown], outside=outside)


def _summary_section(
    checks: Diagnostics, pooled: PooledEffect, outcome: str, supplied: bool, n_rows: int
) -> Section:
    """Section with the effect in plain words, and warnings."""
    zero, one = checks.arms
    low, high = pooled.interval
    words = [
        f"Compared with arm {zero}, arm {one} changes {outcome} by "
        f"{ranged(pooled.effect, low, high)} on average (95 % interval; {pooled.n_tasks:,} tasks, "
        f"{count_text(n_rows)} rows of these two arms). Counts are rounded to multiples of {BASE}."
    ]
    ends = pooled.prediction_interval
    if np.isfinite(ends).all():
        digits = decimals(max(np.abs(ends)))
        words.append(
            f"In a new task the average effect may lie between {ends[0]:,.{digits}f} and "
            f"{ends[1]:,.{digits}f} (95 % prediction interval); effects differ over tasks with a "
            f"standard deviation of {number(pooled.tau)}."
        )
    if supplied:
        words.append("The probabilities of treatment were known, as in a randomised trial.")
    else:
        words.append(
            "Treatment was not assigned by known probabilities. The effect is causal only if the "
            "features and the task include every common cause of treatment and outcome, which data "
            "cannot show. To explain the effect away, an unmeasured confounder would need a risk "
            f"ratio of {checks.e_value:.2f} with both; to shift the interval to 0, of "
            f"{checks.e_value_limit:.2f}."
        )
    if checks.outside > 0.0:
        words.append(
            f"In {100 * checks.outside:.0f} % of rows, one arm had a probability below 0.05. For "
            "such patients the comparison is an extrapolation of the model."
        )
    worst = float(checks.balance["after"].abs().max())
    if worst > _LARGE_DIFFERENCE:
        words.append(
            f"Warning: after weighting, the arms still differ by {worst:.2f} standard deviations "
            "in a feature."
        )
    return Section("Summary", tuple(words))


def _trial_section(
    checks: Diagnostics, design: Mapping[str, str], outcome: str, supplied: bool
) -> Section:
    """Section with the protocol of the target trial: filled, answered and missing parts."""
    zero, one = checks.arms
    assignment = "by known probabilities" if supplied else "assumed random given the features"
    filled = {
        "arms": f"{zero}, {one}",
        "assignment": assignment,
        "outcome": outcome,
        "estimand": "average effect over tasks of one arm instead of the other",
        "analysis": "doubly robust scores, nuisance models from other tasks; random effects",
    }
    rows = [(name, "filled", text) for name, text in filled.items()]
    for name, question in DESIGN.items():
        answer = design.get(name, "")
        rows.append((name, "answered", answer) if answer else (name, "missing", question))
    words = (
        "An effect is defined by a trial, real or emulated. These parts of the trial's protocol "
        "define what the figures mean (Hernan and Robins 2016, doi:10.1093/aje/kwv254)."
    )
    table = TextTable("Protocol", ("part", "status", "description"), tuple(rows))
    return Section("The emulated trial", (words,), (table,))


def _effects_section(
    model: TreatmentResponse, effects: pd.DataFrame, pooled: PooledEffect, outcome: str
) -> Section:
    """Section with the effect in each cohort and the mean over tasks."""
    schema = model.schema_
    words = "Tasks with fewer than three rows, or with one arm only, have no estimate."
    low, high = pooled.interval
    digits = decimals(max(effects["low"].abs().max(), effects["high"].abs().max()))
    rows: list[tuple[str, ...]] = []
    if schema is None or schema.task_kind != "cohort":
        words += " Single tasks are not shown: the schema does not say that they are cohorts."
    else:
        ordered = effects.sort_values("n", kind="stable")
        n_merged = int((ordered["n"] < MIN_CELL).sum())
        while n_merged and n_merged < len(ordered) and ordered["n"][:n_merged].sum() < MIN_CELL:
            n_merged += 1
        merged = ordered.index[:n_merged]
        for place, (task, row) in enumerate(effects.drop(merged).iterrows(), start=1):
            name = f"{schema.task} {task}" if schema.task is not None else f"task {place}"
            effect = ranged(row["effect"], row["low"], row["high"], digits=digits)
            rows.append((name, count_text(row["n"]), effect))
        if n_merged:
            size = count_text(effects.loc[merged, "n"].sum())
            rows.append((f"{OTHER}, of few rows", size, "not shown"))
    rows.append(("mean over tasks", "", ranged(pooled.effect, low, high, digits=digits)))
    caption = f"Effect on {outcome} with 95 % interval, from each task's rows"
    heading = ("task", "rows", "effect (95 % interval)")
    return Section("Effect", (words,), (TextTable(caption, heading, tuple(rows), sortable=True),))


def _checks_section(checks: Diagnostics) -> Section:
    """Section on overlap, balance and unmeasured confounding."""
    signed = (checks.balance.round(2) + 0.0).map("{:+.2f}".format)  # no -0.00
    order = checks.balance["before"].abs().sort_values(ascending=False).index
    rows = [
        (str(name), signed.loc[name, "before"], signed.loc[name, "after"])
        for name in order[:_MAX_FEATURES]
    ]
    overlap = (
        "Rows of both arms by the probability of treatment. Where one side is empty, the effect is "
        "an extrapolation of the model."
    )
    balance = (
        "Standardised differences of the features between the arms, before and after weighting."
    )
    confounding = "Strength of an unmeasured confounder that would explain the effect away."
    pictures = (
        Picture.of(OverlapDisplay(checks).plot(), "overlap", overlap),
        Picture.of(BalanceDisplay(checks).plot(), "balance", balance),
        Picture.of(ConfoundingDisplay(checks).plot(), "confounding", confounding),
    )
    heading = ("feature", "before weighting", "after")
    words = (
        f"Over all rows of all tasks: effect {number(checks.effect)}, standard error "
        f"{number(checks.se)} (doubly robust). A confounder that explains "
        f"{100 * checks.robustness_value:.0f} % of the residual variance of both treatment and "
        "outcome would explain it away.",
    )
    caption = "Standardised differences between the arms, largest first"
    table = TextTable(caption, heading, tuple(rows), sortable=True)
    return Section("Overlap, balance, confounders", words, (table,), pictures)


def _card_section(model: TreatmentResponse) -> Section:
    """Section with the model and its settings."""
    forms = ", ".join(dict.fromkeys(model.forms_))
    facts = [("form of the effect", forms), ("variation of effects over tasks", model.variation_)]
    words = (
        "Effects are averages over people with the same features. Nobody is observed in both arms, "
        "so no figure here is the effect on an individual."
    )
    return document.model_card(model, facts, words)
