import re

import pytest

from ehrmeta import MetaRegressor
from tests.cli.commands import FIT, failure, run


def test_evaluate_prints_the_table_with_baselines_where_there_is_training_data(folder):
    arguments = ["evaluate", folder / "hdl.ehrmeta", folder / "test.csv", "--shots", "1,2"]
    alone = run(*arguments).output
    assert re.search(r"rmse_macro \[mg/dL\] +k = 1 +k = 2\n", alone)
    assert "last value" not in alone
    beside = run(*arguments, "--train", folder / "visits.csv").output
    assert "mixed model with slope" in beside
    assert "paired over patients" in beside
    assert re.search(r"patients scored +10 +10\n", beside)
    without = run(*arguments, "--train", folder / "visits.csv", "--no-baselines").output
    assert without == alone


def test_held_out_patients_are_scored_and_the_others_fit_the_baselines(folder):
    model = folder / "held-out.ehrmeta"
    fitted = run("fit", folder / "visits.csv", *FIT, "--hold-out", "0.3", "--out", model)
    assert "21 tasks" in fitted.output
    printed = run("evaluate", model, folder / "visits.csv", "--hold-out", "0.3").output
    assert re.search(r"patients scored +9 +9 +9\n", printed)
    assert "boosting with history" in printed
    other = failure("evaluate", model, folder / "visits.csv", "--hold-out", "0.2")
    assert "was fitted (0.3 of 30)" in other
    assert "of 10 tasks" in failure("evaluate", model, folder / "test.csv", "--hold-out", "0.3")
    none = failure("evaluate", folder / "hdl.ehrmeta", folder / "visits.csv", "--hold-out", "0.3")
    assert "was fitted without --hold-out" in none


def test_a_bundled_data_set_stands_in_for_a_table(tmp_path):
    out = tmp_path / "bili.ehrmeta"
    run("fit", "pbcseq", "--likelihood", "student_t", "--max-steps", "2", "--out", out)
    model = MetaRegressor.load(out)
    assert (model.likelihood, model.table_.outcome.transform) == ("student_t", "log")
    printed = run("evaluate", out, "pbcseq", "--shots", "3", "--allow-training-table")
    assert re.search(r"rmse_macro \[mg/dL\] +k = 3", printed.output)
    assert (
        "outcome of the bundled data set nafld-sbp"
        in run("evaluate", out, "nafld-sbp", code=1).stderr
    )


def test_classes_are_scored_by_log_loss_and_ranked(risky):
    arguments = ["evaluate", risky / "low.ehrmeta", risky / "test.csv", "--shots", "1,2"]
    printed = run(*arguments, "--train", risky / "visits.csv").output
    for words in ("log_loss", "auroc", "mixed logistic model", "own rows (logistic)"):
        assert words in printed
    assert len(re.findall(r"patients scored +10 +10\n", printed)) == 2


def test_shots_are_what_the_patients_have(folder, visits):
    table = folder / "few.csv"
    new = visits[visits.patient >= "030"]
    new[new.groupby("patient").cumcount() < 4].to_csv(table, index=False)
    arguments = ["evaluate", folder / "hdl.ehrmeta", table]
    assert re.search(r"k = 1 +k = 3\n", run(*arguments).output)
    error = failure(*arguments, "--shots", "1,4")
    assert "no patient of the table has a value after the first 4" in error
    assert "Lower the numbers of --shots" in error


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_the_training_table_is_refused_unless_allowed(folder, risky, tmp_path, command):
    out = ["--out", tmp_path / "report.md"] if command == "report" else []
    for model, table in ((folder / "hdl.ehrmeta", folder), (risky / "low.ehrmeta", risky)):
        arguments = [command, model, table / "visits.csv", "--shots", "1,2", *out]
        error = failure(*arguments)
        assert "was trained on patients of this table" in error
        assert "--allow-training-table" in error
        run(*arguments, "--allow-training-table")


def test_a_table_with_held_out_patients_is_refused_as_a_whole(folder, tmp_path):
    model = tmp_path / "held-out.ehrmeta"
    steps = [*FIT[:-1], "2", "--hold-out", "0.3"]
    run("fit", folder / "visits.csv", *steps, "--out", model)
    assert "Pass --hold-out 0.3" in failure("evaluate", model, folder / "visits.csv")
