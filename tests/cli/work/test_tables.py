"""Messages in the words of the command line, and how its tables are read."""

import ast
from pathlib import Path

import pytest

from ehrmeta import MetaRegressor
from ehrmeta.cli.work.tables import COMMAND_WORDS, in_command_words, reworded
from ehrmeta.data import Finding
from ehrmeta.errors import BundleError, DataWarning, Remedy
from tests.cli.commands import FIT, failure, run

PACKAGE = Path(__file__).parents[3] / "ehrmeta"


def remedies() -> dict[str, set[str]]:
    """Kind and values of every remedy that the package names."""
    kinds: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Remedy":
                kind, _, *values = node.args
                names = {key.value for value in values for key in value.keys}
                kinds[kind.value] = kinds.get(kind.value, set()) | names
    return kinds


def test_every_remedy_has_words_on_the_command_line_and_no_other():
    assert set(remedies()) == set(COMMAND_WORDS)


@pytest.mark.parametrize("kind", sorted(COMMAND_WORDS))
def test_the_words_of_a_remedy_name_no_python(kind):
    remedy = Remedy(kind, "", dict.fromkeys(remedies()[kind], "hdl"))
    text = in_command_words(remedy)
    assert not {"(", ")", "_", "'"} & set(text.replace("student_t", ""))
    assert "hdl" in text or not remedy.values


def test_a_message_is_one_line_with_its_remedies_reworded():
    remedy = Remedy("pass-a-model", "Open it with Adapted.load.")
    error = BundleError("It holds\nadapted patients.", remedy)
    assert in_command_words(error) == "It holds adapted patients. Pass a file from `fit`."
    finding = Finding("rows dropped", "hdl", 2, Remedy("keep-small-tasks", "Pass min_rows=1."))
    assert in_command_words(DataWarning(finding, finding)) == " ".join(
        2 * ["column 'hdl': 2 rows dropped."]
    )
    assert reworded(finding).remedy == ""


def test_row_numbers_are_no_feature(folder, visits):
    visits.to_csv(folder / "index.csv")
    done = run("fit", folder / "index.csv", *FIT, "--out", folder / "index.ehrmeta")
    assert "dropped unnamed column(s) ['Unnamed: 0']" in done.stderr
    assert MetaRegressor.load(folder / "index.ehrmeta").schema_.names == ("sex", "crp")


def test_only_the_named_features_are_used(folder):
    model = folder / "features.ehrmeta"
    arguments = ["fit", folder / "visits.csv", *FIT, "--out", model]
    run(*arguments, "--features", "sex", "--algorithm", "maml", "--transform", "log")
    loaded = MetaRegressor.load(model)
    assert loaded.schema_.names == ("sex",)
    assert loaded.outcome_transform == "log"
    assert "no column 'sx'" in failure(*arguments, "--features", "sx")


def test_rows_without_a_target_are_an_error_or_left_out(folder, visits):
    path = folder / "gaps.csv"
    visits.assign(hdl=visits.hdl.where(visits.index != 3)).to_csv(path, index=False)
    arguments = ["fit", path, *FIT, "--out", folder / "gaps.ehrmeta"]
    assert "1 missing outcome (first: row 3)" in failure(*arguments)
    assert "--drop-missing-target" in failure(*arguments)
    assert "239 rows" in run(*arguments, "--drop-missing-target").output


@pytest.mark.parametrize("out", ["nowhere/model.ehrmeta", "."], ids=["no folder", "a folder"])
def test_a_file_that_cannot_be_written_is_refused_before_the_training(folder, monkeypatch, out):
    monkeypatch.chdir(folder)
    printed = run("fit", "visits.csv", *FIT, "--out", out, code=2).output
    assert "no folder" in printed or "cannot be written" in printed
    assert "trained" not in printed
