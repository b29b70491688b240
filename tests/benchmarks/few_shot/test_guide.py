"""The guide to the learners shows what was measured."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.few_shot.guide import BEGIN, END, learner_tables
from benchmarks.suite.record import Record, write_records
from ehrmeta.errors import DataError


@pytest.fixture
def saved(tmp_path):
    records = [
        Record("sinusoid", "noiseless", "MAML, 1 step", "mse", 0.25, k=k, low=0.2, high=0.3)
        for k in (5, 10, 20)
    ]
    write_records(tmp_path / "sinusoid.json", records, "python -m benchmarks sinusoid")
    return tmp_path / "sinusoid.json"


def test_tables_go_between_the_marks_of_a_page_and_nowhere_else(saved, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    for _ in range(2):  # the second time it replaces itself
        done = CliRunner().invoke(main, ["table", str(saved), "--into", str(page)])
        assert done.exit_code == 0, done.output
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{BEGIN}\n```text\nsinusoid, noiseless\n")
    assert text.endswith(f"\n```\n{END}\nafter\n")
    assert "0.250 [0.200, 0.300]" in text
    assert "old" not in text
    assert "\npython -m benchmarks sinusoid, 20" in text


def test_a_page_without_marks_and_a_file_without_records_are_refused(saved, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no marks\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["table", str(saved), "--into", str(page)])
    assert done.exit_code == 1 and "the page needs the marks" in done.output
    assert page.read_text(encoding="utf-8") == "no marks\n"
    saved.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="has no records of sinusoid or digits"):
        learner_tables([saved])
