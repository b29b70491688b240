"""Scores and reports of saved models, and what is refused before anything is computed."""

import re

import numpy as np
import pandas as pd
import pytest

from ehrmeta import Clock, ConformalRegressor, Feature, MetaRegressor, Outcome, Schema, Table
from tests.cli.commands import FIT, failure, run

SCHEMA = Schema(
    (Feature("sex", kind="categorical", role="static"),),
    Outcome("hdl", unit="mg/dL"),
    task="patient",
    time=Clock("day"),
)


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
    assert "tasks has a row after the first 4" in error
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
    assert "Pass --hold-out 0.3 to test" in failure("evaluate", model, folder / "visits.csv")


def _visits(n_patients: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patient, day = np.repeat(np.arange(n_patients), 5), np.tile(np.arange(5) * 90.0, n_patients)
    sex = np.repeat(rng.choice(["f", "m"], n_patients), 5)
    hdl = rng.normal(50, 5, n_patients)[patient] + rng.normal(0, 2, len(patient))
    columns = {"patient": [f"p{i}" for i in patient], "day": day, "sex": sex}
    return pd.DataFrame(columns | {"hdl": hdl.round(1)})


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory):
    forecasts = tmp_path_factory.mktemp("report")
    train, more, test = (Table.from_frame(_visits(40, seed), SCHEMA) for seed in range(3))
    model = MetaRegressor(max_steps=5, random_state=0, verbose=False)
    model.fit(train.X, train.y, groups=train.groups, time=train.time)
    model.save(forecasts / "hdl.ehrmeta")
    conformal = ConformalRegressor(model, shots=(0, 1, 2))
    conformal.calibrate(more.X, more.y, groups=more.groups, time=more.time)
    conformal.save(forecasts / "calibrated.ehrmeta")
    _visits(40, 0).to_csv(forecasts / "train.csv", index=False)
    _visits(40, 2).to_csv(forecasts / "test.csv", index=False)
    (forecasts / "answers.toml").write_text(
        '17 = "Approved."\n5a = "Two clinics"\n', encoding="utf-8"
    )
    return forecasts


def report(folder, *arguments):
    names = (".csv", ".ehrmeta", ".toml", ".md", ".pdf")
    return run("report", *(folder / a if a.endswith(names) else a for a in arguments), code=None)


def test_the_report_holds_baselines_answers_and_no_patient(forecasts):
    done = report(
        forecasts, "hdl.ehrmeta", "test.csv", "--train", "train.csv", "--answers", "answers.toml",
        "--shots", "0,1,2", "--out", "report.md",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    tested = "It was tested on 40 of 40 patients; none was left out."
    assert tested in done.output
    text = (forecasts / "report.md").read_text("utf-8")
    assert tested in text
    assert "Approved." in text
    assert "| last value |" in text
    assert "p17" not in text


def test_a_calibrated_model_is_reported_with_its_own_intervals(forecasts):
    done = report(
        forecasts, "calibrated.ehrmeta", "test.csv", "--shots", "0,1,2", "--out", "calibrated.md"
    )
    assert done.exit_code == 0, done.output
    assert "calibrated on 40 further patients" in (forecasts / "calibrated.md").read_text("utf-8")


def test_wrong_files_are_one_line_before_anything_is_computed(forecasts):
    for arguments, words in (
        (
            ("hdl.ehrmeta", "test.csv", "--out", "report.pdf"),
            "cannot be saved with the suffix '.pdf'",
        ),
        (("hdl.ehrmeta", "test.csv", "--out", "no/where.md"), "folder does not exist"),
        (("none.ehrmeta", "test.csv", "--out", "report.md"), "cannot read"),
        (
            ("hdl.ehrmeta", "test.csv", "--answers", "test.csv", "--out", "report.md"),
            "is not a valid TOML file",
        ),
        (
            ("hdl.ehrmeta", "test.csv", "--shots", "0,9", "--out", "report.md"),
            "Lower the numbers of --shots",
        ),
    ):
        done = report(forecasts, *arguments)
        assert done.exit_code != 0
        assert words in done.output
        assert "Traceback" not in done.output


def test_a_report_on_classes_shows_their_calibration(risky):
    out = risky / "report.md"
    arguments = ["report", risky / "low.ehrmeta", risky / "all.csv", "--out", out]
    run(*arguments, "--shots", "1,2")
    text = out.read_text(encoding="utf-8")
    assert "AUROC over all rows" in text
    assert {"## Calibration", "## Groups of patients", "## Checklists"} <= set(text.splitlines())
    assert "--examples is for a target" in run(*arguments, "--examples", "1", code=2).output


def test_the_default_shots_of_a_report_leave_enough_patients(forecasts):
    visits = _visits(16, 2)
    is_long = visits.patient.isin([f"p{i}" for i in range(9)])
    few = visits[is_long | (visits.day < 270)]  # nine of sixteen have a fourth visit
    few.to_csv(forecasts / "few.csv", index=False)
    done = report(forecasts, "hdl.ehrmeta", "few.csv", "--out", "few.md")
    assert done.exit_code == 0, done.output
    assert (
        "a report needs"
        in report(forecasts, "hdl.ehrmeta", "few.csv", "--shots", "3", "--out", "few.md").output
    )
