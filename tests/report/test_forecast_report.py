"""The report says what was measured, holds no patient's values, and runs its own script alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from ehrmeta import ConformalRegressor, Feature, Outcome, Schema
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import DataError, GroupError
from ehrmeta.report import Document, forecast_report
from ehrmeta.report.tripod import tripod_tables

HOSTILE = '<script>alert("x")</script> | a&b'


class Page(HTMLParser):
    """Tags, words and references of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.references += [v or "" for n, v in attrs if n in ("src", "href", "xlink:href")]
        self.ids += [v or "" for n, v in attrs if n == "id"]

    def handle_data(self, data):
        self.words.append(data)


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


def test_the_page_loads_nothing_and_runs_its_own_script_alone(page, document):
    assert set(page.tags).isdisjoint({"link", "iframe", "object", "embed", "form", "img"})
    assert page.tags.count("script") == 1
    (script,) = re.findall(r"<script>(.*?)</script>", document.to_html(), flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert {r.removeprefix("#") for r in page.references} <= set(page.ids)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    policy = [value for _, value in page.attributes if value and "default-src" in value]
    assert policy[0].startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy[0]
    assert "url(http" not in document.to_html()


def test_hostile_names_stay_text(page, document):
    assert HOSTILE in page.words  # as an answer
    assert any(word.startswith(HOSTILE + ": ") for word in page.words)  # as a column
    markdown = document.to_markdown()
    assert "<script" not in markdown
    for block in re.findall(r"(?:^\|.*\n?)+", markdown, flags=re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
        assert len(cells) == 1  # no row has gained a column


def test_headings_tables_and_pictures_are_there_once(page):
    assert page.tags.count("h1") == 1
    assert page.tags.count("h2") == page.tags.count("section") == 7
    assert page.tags.count("svg") == page.tags.count("figcaption") == 2
    assert page.tags.count("caption") == page.tags.count("table") == 8
    assert len(page.ids) == len(set(page.ids))


def test_small_groups_are_withheld_and_so_is_a_size_that_would_tell_theirs(document):
    table = next(s for s in document.sections if s.title == "Groups of patients").tables[0]
    shown = {row[0].rpartition(": ")[2]: row[1:] for row in table.rows}
    assert shown["rare"] == ("under 11", "withheld", "withheld")
    counts = {word: shown[word][0] for word in "ab"}
    assert list(counts.values()).count("withheld") == 1
    (largest,) = (int(count) for count in counts.values() if count != "withheld")
    assert 57 / 2 <= largest < 57
    assert all(" to " in shown[word][1] for word in "ab")


def test_yes_and_no_are_the_groups_of_a_binary_column():
    X, y, groups, time = _patients(60, seed=3)
    X = X.assign(smokes=groups % 2).drop(columns=HOSTILE)
    schema = Schema((Feature("age"), Feature("smokes", kind="binary")), Outcome("y"))
    model = MixedEffects(schema=schema).fit(X, y, groups=groups, time=time)
    found = forecast_report(model, X, y, groups=groups, time=time, shots=(0, 1))
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


def test_all_forms_say_the_same(document, tmp_path):
    for form in ("html", "md", "json"):
        document.save(tmp_path / f"report.{form}")
    found = json.loads((tmp_path / "report.json").read_text("utf-8"))
    titles = [section["title"] for section in found["sections"]]
    assert titles == [section.title for section in document.sections]
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", markdown, flags=re.MULTILINE) == titles
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_a_calibrated_model_says_on_how_many(tested):
    model, _, (X, y, groups, time) = tested
    more = _patients(50, seed=2)
    conformal = ConformalRegressor(model, shots=(0, 1, 3))
    conformal.calibrate(*more[:2], groups=more[2], time=more[3])
    given = {"groups": groups, "time": time, "shots": (0, 1, 3)}
    found = forecast_report(conformal, X, y, **given)
    card = next(s for s in found.sections if s.title == "Model card").tables[0]
    assert ("intervals", "calibrated on 50 further patients") in card.rows
    own = forecast_report(model, X, y, **given)
    assert found.sections[2] != own.sections[3]
    assert found.sections[3].tables != own.sections[3].tables


def test_the_checklists_are_filled_answered_or_missing():
    given = {"17": "yes", "5a": "registry", "C11": "low"}
    tripod, cluster = tripod_tables(given, has_groups=True)
    assert (len({row[0] for row in tripod.rows}), len({row[0] for row in cluster.rows})) == (52, 37)
    for table in (tripod, cluster):
        assert {row[1] for row in table.rows} == {"filled", "answered", "missing"}
    status = [row[1] for row in (*tripod.rows, *cluster.rows)]
    assert status.count("answered") == 4  # the origin of data is asked by both
    unanswered = tripod_tables({}, has_groups=True)
    before = [row[1] for table in unanswered for row in table.rows]
    assert before.count("missing") - status.count("missing") == 4
    with pytest.raises(DataError, match=r"answers to \['99', 5\] fit no open item"):
        tripod_tables({"99": "what?", 5: "x"}, has_groups=True)


def _status(answers, *, has_groups=True):
    """Status of every item, those of TRIPOD-Cluster with a C."""
    tripod, cluster = tripod_tables(answers, has_groups=has_groups)
    found = {row[0].partition(" ")[0]: row[1] for row in tripod.rows}
    return found | {"C" + row[0].partition(" ")[0]: row[1] for row in cluster.rows}


def test_items_of_groups_are_filled_only_where_groups_are_scored(tested):
    items = {"14", "23a", "C9", "C15"}
    filled, found = _status({}), _status({}, has_groups=False)
    assert {item for item in found if found[item] != filled[item]} == items
    answered = _status(dict.fromkeys(items, "by sex"), has_groups=False)
    assert {answered[item] for item in items} == {"answered"}
    with pytest.raises(DataError, match="fit no open item"):
        tripod_tables({"14": "by sex"}, has_groups=True)
    model, _, (X, y, groups, time) = tested
    few = np.isin(groups, np.arange(14))  # levels of 3 patients, and about 5 and 6
    given = {"groups": groups[few], "time": time[few], "shots": (0, 1)}
    page = forecast_report(model, X[few], y[few], **given)
    items = [row for table in page.sections[-1].tables for row in table.rows]
    missing = [row[0] for row in items if row[1] == "missing"]
    assert "14 Fairness" in missing  # all groups are withheld
    assert page.sections[0].paragraphs[-1].startswith(f"{len(missing)} of {len(items)} items")


def test_the_full_model_is_asked_of_the_authors():
    found = _status({})
    assert (found["22"], found["C12b"]) == ("missing", "missing")
    found = _status({"22": "file in the archive"})
    assert (found["22"], found["C12b"]) == ("answered", "answered")


def test_an_item_of_several_others_is_as_open_as_the_most_open_one():
    assert _status({"18c": "x"})["C18"] == "missing"
    status = _status({"18c": "x", "18e": "x", "18f": "x"})
    assert (status["C18"], status["C8a"], status["C19"]) == ("answered", "filled", "missing")


def test_bad_input_is_refused(tested, document, tmp_path):
    model, last, (X, y, groups, time) = tested
    with pytest.raises(GroupError, match="a report needs groups"):
        forecast_report(model, X, y, groups=None, time=time)
    with pytest.raises(DataError, match="has a row after its first 6"):
        forecast_report(model, X, y, groups=groups, time=time, shots=(1, 6))
    with pytest.raises(DataError, match="must have a value for each of 360 rows"):
        forecast_report(model, X, y, groups=groups, time=time, subgroups={"ward": ["x"]})
    with pytest.raises(DataError, match="no forecaster"):
        forecast_report(object(), X, y, groups=groups, time=time)
    with pytest.raises(DataError, match=r"cannot be a \.pdf file"):
        document.save(tmp_path / "report.pdf")
    with pytest.raises(DataError, match="its folder does not exist"):
        document.save(tmp_path / "nowhere" / "report.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        document.save(tmp_path / "taken.html")
    with pytest.raises(DataError, match="cannot write"):
        document.save("/proc/report.html")
