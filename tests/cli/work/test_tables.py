"""Messages in the words of the command line, and how its tables are read."""

import ast
from pathlib import Path

import pandas as pd
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
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Remedy":
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


def test_a_feature_may_be_known_ahead(folder, tmp_path):
    model = tmp_path / "known.ehrmeta"
    roles = ["--task", "patient", "--time", "date", "--target", "hdl", "--max-steps", "2"]
    run("fit", folder / "visits.csv", *roles, "--known", "crp", "--out", model)
    assert MetaRegressor.load(model).schema_.measured == ()


def test_rows_without_a_target_are_an_error_or_left_out(folder, visits):
    path = folder / "gaps.csv"
    visits.assign(hdl=visits.hdl.where(visits.index != 3)).to_csv(path, index=False)
    arguments = ["fit", path, *FIT, "--out", folder / "gaps.ehrmeta"]
    assert "1 missing outcome (first: line 5)" in failure(*arguments)
    assert "--drop-missing-target" in failure(*arguments)
    assert "239 rows" in run(*arguments, "--drop-missing-target").output


@pytest.mark.parametrize("out", ["nowhere/model.ehrmeta", "."], ids=["no folder", "a folder"])
def test_a_file_that_cannot_be_written_is_refused_before_the_training(folder, monkeypatch, out):
    monkeypatch.chdir(folder)
    printed = run("fit", "visits.csv", *FIT, "--out", out, code=2).output
    assert "no folder" in printed or "cannot be written" in printed
    assert "trained" not in printed


@pytest.fixture
def export(visits, tmp_path):
    """The visits as a spreadsheet of another country exports them, and roles of its columns."""
    path = tmp_path / "export.csv"
    umlauts = visits.assign(sex=visits.sex.map({"f": "weiblich", "m": "männlich"}))
    umlauts.to_csv(path, index=False, sep=";", decimal=",", encoding="latin-1")
    return path


def test_an_export_is_read_and_its_form_is_told(export, tmp_path):
    done = run("fit", export, *FIT, "--out", tmp_path / "export.ehrmeta")
    assert "is read as: encoding cp1252, separated by semicolons, decimal commas." in done.stderr
    assert "--encoding, --sep or --decimal" in done.stderr
    schema = MetaRegressor.load(tmp_path / "export.ehrmeta").schema_
    assert [feature.kind for feature in schema.features] == ["categorical", "numeric"]
    told = ["--sep", ";", "--decimal", ",", "--encoding", "latin-1"]
    assert "is read as" not in run("check", export, *FIT[:-2], *told).stderr
    assert "is not one character" in run("check", export, *FIT[:-2], "--sep", ";;", code=2).output


def test_messages_name_lines_of_the_file(visits, tmp_path):
    path = tmp_path / "gaps.csv"
    visits.assign(hdl=visits.hdl.where(visits.index != 3)).to_csv(path, index=False)
    assert "(first: line 5)" in failure("fit", path, *FIT, "--out", tmp_path / "m.ehrmeta")
    path.write_text("sep=,\n" + path.read_text().replace("\n", "\n\n", 1))
    assert "(first: line 7)" in failure("fit", path, *FIT, "--out", tmp_path / "m.ehrmeta")
    assert "(first: line 7)" in run("check", path, *FIT[:-2], code=1).stdout
    visits.assign(hdl=visits.hdl.where(visits.index != 3)).to_parquet(tmp_path / "gaps.parquet")
    error = failure("fit", tmp_path / "gaps.parquet", *FIT, "--out", tmp_path / "m.ehrmeta")
    assert "(first: row 3)" in error


def test_the_schema_that_check_writes_is_taken_by_every_command(folder, visits, tmp_path):
    schema, model = tmp_path / "visits.toml", tmp_path / "hdl.ehrmeta"
    roles = [*FIT[:-2], "--measured", "crp", "--unit", "hdl=mg/dL", "--on-duplicate", "first"]
    run("check", folder / "visits.csv", *roles, "--write-schema", schema)
    train = ["--schema", schema, "--max-steps", "2"]
    run("fit", folder / "visits.csv", *train, "--out", model)
    assert MetaRegressor.load(model).schema_.measured == ("crp",)
    twice = tmp_path / "twice.csv"
    pd.concat([visits, visits[:2]]).to_csv(twice, index=False)
    error = failure("adapt", folder / "hdl.ehrmeta", twice, "--out", tmp_path / "p.ehrmeta")
    assert "repeating a (patient, date) pair" in error
    given = ["--schema", schema, "--out", tmp_path / "p.ehrmeta"]
    run("adapt", folder / "hdl.ehrmeta", twice, *given)
    predicted = ["--schema", schema, "--out", tmp_path / "p.csv"]
    run("predict", tmp_path / "p.ehrmeta", folder / "later.csv", *predicted)
    run("evaluate", model, folder / "test.csv", "--shots", "2", "--schema", schema)
    schema.write_text(schema.read_text().replace("mg/dL", "mmol/L"))
    assert "differ in outcome" in failure("adapt", folder / "hdl.ehrmeta", twice, *given)
    roles = ["--schema", schema, *FIT[:2], "--out", model]
    assert "leave out --task" in run("fit", twice, *roles, code=2).output
