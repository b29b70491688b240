"""``ehrmeta report`` writes what `forecast_report` finds, and says early what it cannot do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ehrmeta import Clock, ConformalRegressor, Feature, MetaRegressor, Outcome, Schema, Table
from ehrmeta.cli.main import main
from tests.cli.commands import run

SCHEMA = Schema(
    (Feature("sex", kind="categorical", role="static"),),
    Outcome("hdl", unit="mg/dL"),
    task="patient",
    time=Clock("day"),
)


def _visits(n_patients: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    patient, day = np.repeat(np.arange(n_patients), 5), np.tile(np.arange(5) * 90.0, n_patients)
    sex = np.repeat(rng.choice(["f", "m"], n_patients), 5)
    hdl = rng.normal(50, 5, n_patients)[patient] + rng.normal(0, 2, len(patient))
    columns = {"patient": [f"p{i}" for i in patient], "day": day, "sex": sex}
    return pd.DataFrame(columns | {"hdl": hdl.round(1)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    train, more, test = (Table.from_frame(_visits(40, seed), SCHEMA) for seed in range(3))
    model = MetaRegressor(max_steps=5, random_state=0, verbose=False)
    model.fit(train.X, train.y, groups=train.groups, time=train.time)
    model.save(folder / "hdl.ehrmeta")
    conformal = ConformalRegressor(model, shots=(0, 1, 2))
    conformal.calibrate(more.X, more.y, groups=more.groups, time=more.time)
    conformal.save(folder / "calibrated.ehrmeta")
    _visits(40, 0).to_csv(folder / "train.csv", index=False)
    _visits(40, 2).to_csv(folder / "test.csv", index=False)
    (folder / "answers.toml").write_text('17 = "Approved."\n5a = "Two clinics"\n', encoding="utf-8")
    return folder


def _run(folder, *arguments: str):
    paths = [
        str(folder / argument) if argument.endswith((".csv", ".ehrmeta", ".toml", ".md", ".pdf"))
        else argument
        for argument in arguments
    ]  # fmt: skip
    return CliRunner().invoke(main, ["report", *paths])


def test_the_report_holds_baselines_answers_and_no_patient(folder):
    done = _run(
        folder, "hdl.ehrmeta", "test.csv", "--train", "train.csv", "--answers", "answers.toml",
        "--shots", "0,1,2", "--out", "report.md",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "7 sections on 40 patients" in done.output
    text = (folder / "report.md").read_text("utf-8")
    assert "Approved." in text
    assert "| last value |" in text
    assert "p17" not in text


def test_a_calibrated_model_is_reported_with_its_own_intervals(folder):
    done = _run(
        folder, "calibrated.ehrmeta", "test.csv", "--shots", "0,1,2", "--out", "calibrated.md"
    )
    assert done.exit_code == 0, done.output
    assert "calibrated on 40 further patients" in (folder / "calibrated.md").read_text("utf-8")


def test_wrong_files_are_one_line_before_anything_is_computed(folder):
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
        done = _run(folder, *arguments)
        assert done.exit_code != 0
        assert words in done.output
        assert "Traceback" not in done.output


def test_a_report_on_classes_shows_their_calibration(risky):
    out = risky / "report.md"
    arguments = ["report", risky / "low.ehrmeta", risky / "all.csv", "--out", out]
    run(*arguments, "--shots", "1,2")
    text = out.read_text(encoding="utf-8")
    assert "AUROC over all rows" in text
    assert "## Calibration" in text
    assert "--answers and --examples are for" in run(*arguments, "--examples", "1", code=2).output
