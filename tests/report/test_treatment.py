"""The treatment's report says what was found and what is assumed, and shows no row."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ehrmeta import Feature, Outcome, Schema, TreatmentResponse
from ehrmeta.errors import DataError, NotFittedError
from ehrmeta.report import Document, treatment_report
from ehrmeta.report.treatment import DESIGN

HOSTILE = "<script>alert(1)</script>"


def _fitted(**parameters) -> TreatmentResponse:
    rng = np.random.default_rng(0)
    site = np.repeat(["north", "south", "east", "tiny"], [100, 80, 60, 8])
    X = pd.DataFrame({"age": rng.normal(60, 10, 248)})
    arm = np.where(rng.random(248) < 0.5, "drug", HOSTILE)
    y = 77123.0 + 3.0 * (arm == "drug") + rng.normal(size=248)
    schema = Schema((Feature("age", unit="a"),), Outcome("bp"), task="ward", task_kind="cohort")
    model = TreatmentResponse(
        final="constant", schema=schema, control=HOSTILE, random_state=0, **parameters
    )
    return model.fit(X, y, treatment=arm, groups=site)


@pytest.fixture(scope="module")
def model() -> TreatmentResponse:
    return _fitted(propensity=0.5)


@pytest.fixture(scope="module")
def document(model) -> Document:
    return treatment_report(model, design={"time zero": "the day of admission"})


def _table(document: Document, title: str) -> dict[str, tuple[str, ...]]:
    section = next(s for s in document.sections if s.title == title)
    return {row[0]: row[1:] for row in section.tables[0].rows}


def test_the_effect_is_that_of_the_model(document, model):
    low, high = model.tasks_.pooled_effect().interval
    assert low < 3.0 < high
    mean = _table(document, "Effect")["mean over tasks"][1]
    assert f"{low:.2f} to {high:.2f}" in mean
    assert mean.split(" ")[0] in document.sections[0].paragraphs[0]


def test_small_tasks_are_merged_and_cohorts_have_their_names(document):
    effects = _table(document, "Effect")
    assert "ward tiny" not in effects
    assert effects["ward north"][0] == "100"
    assert " to " in effects["ward north"][1]
    assert "ward east" not in effects  # the least of the others, of which the sum would tell
    assert effects["other, of few rows"] == ("70", "not shown")


def test_the_protocol_is_filled_answered_or_missing(document):
    protocol = _table(document, "The emulated trial")
    assert protocol["time zero"] == ("answered", "the day of admission")
    assert protocol["assignment"] == ("filled", "by known probabilities")
    assert sum(status == "missing" for status, _ in protocol.values()) == len(DESIGN) - 1


def test_without_known_probabilities_the_assumption_is_said_first(document):
    words = " ".join(treatment_report(_fitted()).sections[0].paragraphs)
    assert "causal only if" in words
    assert "causal only if" not in " ".join(document.sections[0].paragraphs)


def test_names_stay_text_and_no_outcome_is_shown(document, model):
    page = document.to_html()
    assert HOSTILE not in page
    assert HOSTILE not in document.to_markdown()
    for text in (page, document.to_markdown(), document.to_json()):
        assert not any(f"{value:.2f}" in text for value in model.tasks_.support.y)
    assert len(json.loads(document.to_json())["sections"]) == 5


def test_bad_input_is_refused(model):
    with pytest.raises(NotFittedError):
        treatment_report(TreatmentResponse())
    with pytest.raises(DataError, match="design has unknown keys"):
        treatment_report(model, design={"time-zero": "?"})
