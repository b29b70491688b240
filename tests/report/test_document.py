"""A document is one page that loads nothing, and says the same in all forms."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from sklearn.linear_model import Ridge

from ehrmeta.errors import DataError
from ehrmeta.report import DecisionCurveDisplay, Document
from ehrmeta.report.document import Picture, Section, TextTable, model_card
from tests.report.page import Page

HOSTILE = '<script>alert("x")</script> | a&b'


@pytest.fixture
def document() -> Document:
    """Hostile words everywhere, and the same drawing twice."""
    drawings = (DecisionCurveDisplay.from_predictions([0, 1], [0.2, 0.7]) for _ in range(2))
    pictures = tuple(
        Picture.of(display, f"curve{place}", "Net benefit.", f"curve {place}")
        for place, display in enumerate(drawings)
    )
    table = TextTable("Counts", ("what", "count"), ((HOSTILE, "40"), ("b", "12")), sortable=True)
    return Document(
        HOSTILE,
        (
            Section(HOSTILE, (HOSTILE,), (table,)),
            Section("Curves", (), (), pictures, "Show "),
            model_card(Ridge(alpha=2.0), [("training patients", "40")], "A ridge."),
        ),
    )


@pytest.fixture
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
    assert page.words.count(HOSTILE) == 6  # title twice, heading twice, paragraph, cell
    markdown = document.to_markdown()
    assert "<script" not in markdown
    for block in re.findall(r"(?:^\|.*\n?)+", markdown, flags=re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
        assert len(cells) == 1  # no row has gained a column


def test_headings_tables_and_pictures_are_there_once(page):
    assert page.tags.count("h1") == 1
    assert page.tags.count("h2") == page.tags.count("section") == 3
    assert page.tags.count("svg") == page.tags.count("figcaption") == 2
    assert page.tags.count("caption") == page.tags.count("table") == 2
    assert len(page.ids) == len(set(page.ids))


def test_all_forms_say_the_same(document, tmp_path):
    for form in ("html", "md", "json"):
        document.save(tmp_path / f"report.{form}")
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))
    titles = [section["title"] for section in content["sections"]]
    assert titles == [section.title for section in document.sections]
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", markdown, flags=re.MULTILINE)[1:] == titles[1:]
    assert Page((tmp_path / "report.html").read_text("utf-8")).tags.count("h2") == len(titles)


def test_a_file_that_cannot_be_written_is_refused(document, tmp_path):
    with pytest.raises(DataError, match=r"cannot be saved with the suffix '\.pdf'"):
        document.save(tmp_path / "report.pdf")
    with pytest.raises(DataError, match="its folder does not exist"):
        document.save(tmp_path / "nowhere" / "report.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(DataError, match="it is a folder"):
        document.save(tmp_path / "taken.html")
    with pytest.raises(DataError, match="cannot write"):
        document.save("/proc/report.html")


def test_a_card_holds_class_facts_and_settings(document):
    rows = dict(document.sections[-1].tables[0].rows)
    assert (rows["model"], rows["training patients"], rows["alpha"]) == ("Ridge", "40", "2.0")
