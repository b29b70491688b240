"""How tables are read: roles, classes, exports of other countries, lines of a file."""

import numpy as np
import pandas as pd
import pytest

from ehrmeta import MetaRegressor
from ehrmeta.cli.tables import classes_of
from tests.cli.commands import FIT, failure, run


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


def test_rows_without_a_target_are_left_out_and_counted_by_every_command(folder, visits, tmp_path):
    gaps = visits.assign(hdl=visits.hdl.where(visits.index % 40 != 3))
    path, new, out = tmp_path / "gaps.csv", tmp_path / "new.csv", tmp_path / "gaps.ehrmeta"
    gaps.to_csv(path, index=False)
    gaps[gaps.patient >= "030"].to_csv(new, index=False)
    tune = ["--trials", "1", "--folds", "2", "--storage", tmp_path / "s.db"]
    fitted = run("fit", path, *FIT[:-1], "2", "--out", out).output
    assert "234 rows" in fitted
    assert "column 'hdl': 6 rows dropped: no outcome" in fitted
    assert "missing outcome" not in fitted
    again = run("fit", path, *FIT[:-1], "2", "--drop-missing-target", "--out", out).output
    assert again.splitlines()[:5] == fitted.splitlines()[:5]
    checked = run("check", path, *FIT[:-2]).output
    assert "warning  column 'hdl': 6 missing outcomes (first: line 5). Those rows are" in checked
    tuned = run("tune", path, *FIT[:-1], "1", *tune, "--search", "learning_rate=0.01:0.02").output
    assert "column 'hdl': 6 rows dropped: no outcome" in tuned
    model = folder / "hdl.ehrmeta"
    for command in (
        ["adapt", model, new, "--out", tmp_path / "p.ehrmeta"],
        ["evaluate", model, new, "--shots", "1"],
        ["report", model, new, "--shots", "1", "--out", tmp_path / "r.md"],
        ["predict", model, new, "--support", new, "--out", tmp_path / "p.csv"],
    ):
        assert "column 'hdl': 1 row dropped: no outcome" in run(*command, code=None).stderr


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


def test_an_export_is_read_and_its_format_is_reported(export, tmp_path):
    done = run("fit", export, *FIT, "--out", tmp_path / "export.ehrmeta")
    assert "is read as: encoding cp1252, separated by semicolons, decimal commas." in done.stderr
    assert "--encoding, --sep or --decimal" in done.stderr
    schema = MetaRegressor.load(tmp_path / "export.ehrmeta").schema_
    assert [feature.kind for feature in schema.features] == ["categorical", "numeric"]
    told = ["--sep", ";", "--decimal", ",", "--encoding", "latin-1"]
    assert "is read as" not in run("check", export, *FIT[:-2], *told).stderr
    assert "is not one character" in run("check", export, *FIT[:-2], "--sep", ";;", code=2).output


def test_messages_name_lines_of_the_file(visits, tmp_path):
    path, gaps = tmp_path / "gaps.csv", visits.assign(date=visits.date.where(visits.index != 3))
    gaps.to_csv(path, index=False)
    assert "(first: line 5)" in failure("fit", path, *FIT, "--out", tmp_path / "m.ehrmeta")
    path.write_text("sep=,\n" + path.read_text().replace("\n", "\n\n", 1))
    assert "(first: line 7)" in failure("fit", path, *FIT, "--out", tmp_path / "m.ehrmeta")
    assert "(first: line 7)" in run("check", path, *FIT[:-2], code=1).stdout
    gaps.to_parquet(tmp_path / "gaps.parquet")
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


@pytest.mark.parametrize("given", [FIT[:2], FIT[4:6]], ids=["task", "target"])
def test_a_schema_names_the_columns_alone(folder, given):
    done = run("check", folder / "visits.csv", "--schema", "visits.toml", *given, code=2)
    assert "--schema names the columns: leave out --t" in done.output


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["yes", "no", None], ["no", "yes"]),
        (["mild", "none", "severe"], ["mild", "none", "severe"]),
        ([1, 0, 1], [0, 1]),
        ([1.0, 0.0, None], [0, 1]),
        ([True, False, True], [0, 1]),
        ([True, None, False], [0, 1]),
        ([0, 1, 2], None),
        ([1, 1, 1], None),
        (["yes", "yes", None], None),
        (["48", "<5", "50"], None),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), None),
        ([f"patient {i}" for i in range(50)], None),
    ],
)
def test_classes_are_text_or_zero_and_one(cells, classes):
    found = classes_of(pd.Series(cells))
    assert (None if found is None else found.tolist()) == classes


def test_warnings_while_adapting_name_lines_of_the_file(folder, visits, tmp_path):
    path = tmp_path / "far.csv"
    new = visits[visits.patient >= "030"].reset_index(drop=True)
    new.loc[2, "hdl"] = np.nan  # a row less in the table
    new.loc[7, "date"] = "2200-01-01"
    new.to_csv(path, index=False)
    done = run("adapt", folder / "hdl.ehrmeta", path, "--out", tmp_path / "p.ehrmeta")
    assert "first: line 9" in done.stderr


@pytest.mark.parametrize(
    ("choice", "more"), [("half", []), ("limit", []), ("column", ["crp_censored"])]
)
def test_censored_values_are_read_as_chosen_by_every_command(visits, tmp_path, choice, more):
    low = visits.assign(crp=visits.crp.astype("str").where(visits.crp >= 3, "<3"))
    path, model, schema = (tmp_path / name for name in ("low.csv", "m.ehrmeta", "low.toml"))
    low.to_csv(path, index=False)
    fit = ["fit", path, *FIT[:-1], "2", "--out", model]
    assert "--censored half" in failure(*fit)
    assert "--censored half" in run("check", path, *FIT[:-2], code=1).output
    run("check", path, *FIT[:-2], "--censored", choice, "--write-schema", schema)
    run("fit", path, "--schema", schema, "--max-steps", "2", "--out", model)
    assert sorted(MetaRegressor.load(model).schema_.names) == ["crp", *more, "sex"]
    run("evaluate", model, path, "--shots", "1", "--allow-training-table")
    run("predict", model, path, "--support", path, "--out", tmp_path / "p.csv")
    assert pd.read_csv(tmp_path / "p.csv").prediction.notna().all()


def test_rows_of_separators_at_the_end_are_no_rows(visits, tmp_path):
    path = tmp_path / "excel.csv"
    path.write_text(visits.to_csv(index=False) + 9 * ",,,,\n")
    assert "240 rows of 40 patients" in run("check", path, *FIT[:-2]).output


def test_classes_have_no_mean(risky, tmp_path):
    mean = ["--on-duplicate", "mean", "--out", tmp_path / "m.ehrmeta"]
    assert "classes, which have no mean" in failure("fit", risky / "visits.csv", *FIT, *mean)
