"""The report says what was measured, and holds no patient's values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ehrmeta import ConformalRegressor, Feature, Outcome, Schema
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import DataError, GroupError
from ehrmeta.report import Document, forecast_report
from ehrmeta.report.tripod import tripod_tables
from tests.report.page import Page
from tests.report.test_tripod import status_of

HOSTILE = '<script>alert("x")</script> | a&b'


def _patients(n: int, seed: int):
    rng = np.random.default_rng(seed)
    groups, time = np.repeat(np.arange(n), 6), np.tile(np.arange(6.0), n)
    kind = np.repeat(np.where(np.arange(n) < 3, "rare", rng.choice(["a", "b"], n)), 6)
    X = pd.DataFrame({"age": np.repeat(rng.uniform(20, 80, n), 6), HOSTILE: kind})
    y = 77123.0 + rng.normal(0, 2, n)[groups] + rng.normal(size=6 * n)
    return X, y, groups, time


@pytest.fixture(scope="module")
def tested():
    X, y, groups, time = _patients(80, seed=0)
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    last = LastValue().fit(X, y, groups=groups, time=time)
    return model, last, _patients(60, seed=1)


@pytest.fixture(scope="module")
def document(tested) -> Document:
    model, last, (X, y, groups, time) = tested
    return forecast_report(
        model,
        X,
        y,
        groups=groups,
        time=time,
        baselines={"last value": last},
        shots=(0, 1, 3),
        answers={"17": HOSTILE},
    )


@pytest.fixture(scope="module")
def page(document) -> Page:
    return Page(document.to_html())


def test_hostile_names_of_columns_and_answers_stay_text(page):
    assert HOSTILE in page.words  # as an answer
    assert any(word.startswith(HOSTILE + ": ") for word in page.words)  # as a column


def test_every_section_has_its_tables_and_pictures(page, document):
    assert [section.title for section in document.sections] == [
        "Summary",
        "Data",
        "Error after k values",
        "Intervals",
        "Groups of patients",
        "Model card",
        "Checklists",
    ]
    assert page.tags.count("svg") == page.tags.count("figcaption") == 2
    assert page.tags.count("table") == 8
    assert len(page.ids) == len(set(page.ids))


def test_levels_of_few_patients_are_merged_and_never_named(document):
    table = next(s for s in document.sections if s.title == "Groups of patients").tables[0]
    counts = {row[0].rpartition(": ")[2]: int(row[1]) for row in table.rows}
    assert "other" in counts
    assert "rare" not in counts
    assert len(counts) == 2
    assert sum(counts.values()) == 60
    assert all(" to " in cell for row in table.rows for cell in row[2:])


def test_yes_and_no_are_the_groups_of_a_binary_column():
    X, y, groups, time = _patients(60, seed=3)
    X = X.assign(smokes=groups % 2).drop(columns=HOSTILE)
    schema = Schema((Feature("age"), Feature("smokes", kind="binary")), Outcome("y"))
    model = MixedEffects(schema=schema).fit(X, y, groups=groups, time=time)
    given = {"groups": groups, "time": time, "allow_training_table": True}
    found = forecast_report(model, X, y, **given, shots=(0, 1))
    table = next(s for s in found.sections if s.title == "Groups of patients").tables[0]
    assert [row[:2] for row in table.rows] == [("smokes: no", "30"), ("smokes: yes", "30")]


def test_no_patient_value_is_in_any_form(document, tested):
    _, _, (_, y, _, _) = tested
    for text in (document.to_html(), document.to_markdown(), document.to_json()):
        assert not any(f"{value:.3f}" in text for value in y)


def test_example_patients_are_drawn_on_request_only(document, tested):
    assert "Example patients" not in [section.title for section in document.sections]
    model, _, (X, y, groups, time) = tested
    given = {"groups": groups, "time": time, "shots": (0, 1, 2)}
    found = forecast_report(model, X, y, **given, examples=3)
    (section,) = (s for s in found.sections if s.title == "Example patients")
    assert [picture.name for picture in section.pictures] == ["patient 1", "patient 2", "patient 3"]
    page = Page(found.to_html())
    assert page.tags.count("option") == 3
    assert len(page.ids) == len(set(page.ids))


def test_few_patients_are_said_to_be_few(document, tested):
    assert any("60 test patients are few" in words for words in document.sections[0].paragraphs)


def test_a_calibrated_model_says_on_how_many(tested):
    model, _, (X, y, groups, time) = tested
    more = _patients(50, seed=2)
    conformal = ConformalRegressor(model, shots=(0, 1, 3))
    conformal.calibrate(*more[:2], groups=more[2], time=more[3])
    given = {"groups": groups, "time": time, "shots": (0, 1, 3)}
    found = forecast_report(conformal, X, y, **given)
    card = next(s for s in found.sections if s.title == "Model card").tables[0]
    assert ("intervals", "calibrated on 50 further patients") in card.rows
    uncalibrated = forecast_report(model, X, y, **given)
    assert found.sections[2] != uncalibrated.sections[3]
    assert found.sections[3].tables != uncalibrated.sections[3].tables


def test_items_of_groups_are_filled_only_where_groups_are_scored(tested):
    items = {"14", "23a", "C9", "C15"}
    filled, found = status_of({}), status_of({}, has_groups=False)
    assert {item for item in found if found[item] != filled[item]} == items
    answered = status_of(dict.fromkeys(items, "by sex"), has_groups=False)
    assert {answered[item] for item in items} == {"answered"}
    with pytest.raises(DataError, match="match no open item"):
        tripod_tables({"14": "by sex"}, has_groups=True)
    model, _, (X, y, groups, time) = tested
    few = np.isin(groups, np.arange(14))  # levels of 3 patients, and about 5 and 6
    given = {"groups": groups[few], "time": time[few], "shots": (0, 1)}
    page = forecast_report(model, X[few], y[few], **given)
    items = [row for table in page.sections[-1].tables for row in table.rows]
    missing = [row[0] for row in items if row[1] == "missing"]
    assert "14 Fairness" in missing  # all groups are withheld
    assert page.sections[0].paragraphs[-1].startswith(f"{len(missing)} of {len(items)} items")


def test_bad_input_is_refused(tested):
    model, last, (X, y, groups, time) = tested
    with pytest.raises(GroupError, match="a report needs groups"):
        forecast_report(model, X, y, groups=None, time=time)
    with pytest.raises(DataError, match="has a row after the first 6"):
        forecast_report(model, X, y, groups=groups, time=time, shots=(1, 6))
    with pytest.raises(DataError, match="must have a value for each of 360 rows"):
        forecast_report(model, X, y, groups=groups, time=time, subgroups={"ward": ["x"]})
    with pytest.raises(DataError, match="does not forecast numbers"):
        forecast_report(object(), X, y, groups=groups, time=time)
