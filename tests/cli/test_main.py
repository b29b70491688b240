import re

import numpy as np
import pandas as pd
import pytest

from ehrmeta import MetaRegressor, list_datasets
from ehrmeta.cli.main import main
from tests.cli.commands import FIT, failure, run


def test_datasets_lists_every_bundled_set():
    lines = run("datasets").output.splitlines()
    assert lines[0].split() == ["name", "rows", "tasks", "licence", "what"]
    assert [line.split()[0] for line in lines[1:]] == list(list_datasets())
    (hdl,) = (line for line in lines if line.startswith("nafld-hdl "))
    assert "147,323" in hdl
    assert "10,190" in hdl


def test_warnings_are_one_line_each(folder, visits):
    path = folder / "outliers.csv"
    visits.assign(hdl=visits.hdl.where(visits.index != 3, 4711)).to_csv(path, index=False)
    done = run("fit", path, *FIT, "--range", "hdl=5:200", "--out", folder / "outliers.ehrmeta")
    (warning,) = [line for line in done.stderr.splitlines() if line]
    assert warning.startswith("Warning: column 'hdl': 1 row dropped: outcome outside 5 to 200")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nope.csv", *FIT], "cannot read 'nope.csv': No such file or directory"),
        (["fit", "visits.xlsx", *FIT], "must be .csv, .tsv, .csv.gz, .tsv.gz or .parquet"),
        (["fit", "empty.csv", *FIT], "cannot read 'empty.csv' as csv"),
        (["fit", "text.parquet", *FIT], "cannot read 'text.parquet' as parquet"),
        (["fit", "visits.csv", "--task", "patent", "--target", "hdl"], "Did you mean 'patient'"),
        (["fit", "header.csv", *FIT], "'header.csv' has a header, but no row"),
        (["fit", "copied.csv", *FIT], "'copied.csv' has more than one column ['hdl']"),
        (["fit", "twice.csv", *FIT], "rows repeating a (patient, date) pair"),
        (["adapt", "new.ehrmeta", "first.csv"], "holds adapted patients, not a model"),
        (["adapt", "hdl.ehrmeta", "later.csv"], "no column 'hdl'"),
        (["adapt", "visits.csv", "first.csv"], "cannot read 'visits.csv'"),
        (["predict", "short.ehrmeta", "later.csv"], "cannot read 'short.ehrmeta'"),
        (["predict", "new.ehrmeta", "header.csv"], "has a header, but no row"),
        (["predict", "new.ehrmeta", "no-sex.csv"], "no column 'sex'"),
        (["predict", "new.ehrmeta", "no-date.csv"], "no column 'date'"),
        (["predict", "nameless.ehrmeta", "later.csv"], "does not know its columns by name"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_leave_no_file(folder, visits, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    (folder / "empty.csv").write_text("")
    (folder / "text.parquet").write_text("no parquet")
    pd.concat([visits[:5], visits[:5]]).to_csv("twice.csv", index=False)
    visits[:0].to_csv("header.csv", index=False)
    pd.concat([visits, visits[["hdl"]]], axis=1).to_csv("copied.csv", index=False)
    later = pd.read_csv("later.csv")
    later.drop(columns="sex").to_csv("no-sex.csv", index=False)
    later.drop(columns="date").to_csv("no-date.csv", index=False)
    (folder / "short.ehrmeta").write_bytes((folder / "hdl.ehrmeta").read_bytes()[:-10])
    nameless = MetaRegressor(max_steps=1, random_state=0)
    X, groups = np.arange(40.0)[:, None], np.repeat(np.arange(10), 4)
    nameless.fit(X, X[:, 0] ** 2, groups=groups).save("nameless.ehrmeta")
    out = "out.csv" if arguments[0] == "predict" else "out.ehrmeta"
    error = failure(*arguments, "--out", out)
    assert error.startswith("Error: ")
    assert message in error
    assert not (folder / out).exists()


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_of_every_command_shows_an_example_that_parses(command):
    text = run(command, "--help").output
    examples = re.findall(r"^ +ehrmeta (\S+.*)$", text, flags=re.MULTILINE)
    assert examples
    for example in examples:
        name, *arguments = example.split()
        assert name == command
        context = main.commands[name].make_context(name, arguments)
        assert context.params is not None


def test_a_demo_folder_that_is_a_file_is_one_line(folder):
    error = failure("demo", "--quick", "--out", folder / "visits.csv")
    assert "File exists" in error


PYTHON = re.compile(
    r"\w\((?!s\))|\w=(?!\d+:)|\.\w+\(|\b(None|True|False|NaN)\b|\b(?!student_t|max_steps|learning_rate)[a-z]+_[a-z]+"
)


def with_cell(visits, column, value):
    """Visits with another cell in the fourth row."""
    return visits.assign(**{column: visits[column].astype(object).where(visits.index != 3, value)})


@pytest.mark.parametrize(
    ("spoil", "arguments"),
    [
        (lambda v: with_cell(v, "hdl", "<5"), ["fit", *FIT]),
        (lambda v: with_cell(v, "patient", None), ["fit", *FIT]),
        (lambda v: with_cell(v, "date", "2020-01-01T00:00+02:00"), ["fit", *FIT]),
        (lambda v: with_cell(v, "date", "soon"), ["fit", *FIT]),
        (lambda v: pd.concat([v, v[:2]]), ["fit", *FIT]),
        (lambda v: pd.concat([v, v[:2]]), ["fit", *FIT, "--on-duplicate", "allow"]),
        (lambda v: v[:6], ["fit", *FIT]),
        (lambda v: v, ["fit", "--task", "patient", "--target", "hdl", "--measured", "crp"]),
        (lambda v: v.assign(date="20200101"), ["check", *FIT[:-2]]),
        (lambda v: pd.concat([with_cell(v, "hdl", None), v[:2]]), ["check", *FIT[:-2]]),
        (lambda v: v.assign(crp=v.sex), ["predict"]),
        (lambda v: v, ["predict"]),
        (lambda v: v, ["tune", *FIT, "--search", "max_steps"]),
        (lambda v: v, ["tune", *FIT, "--search", "learning_rate=1:2:lin"]),
        (lambda v: v, ["tune", *FIT, "--shots", "9"]),
        (lambda v: v, ["tune", *FIT, "--folds", "50"]),
        (lambda v: v, ["report", "--shots", "0,9"]),
        (lambda v: v, ["adapt"]),
    ],
)
def test_no_message_says_what_to_do_in_python(folder, visits, tmp_path, spoil, arguments):
    command, *options = arguments
    table = tmp_path / "visits.csv"
    spoil(visits).to_csv(table, index=False)
    files = [table]
    if command in ("predict", "report", "adapt"):
        model = "hdl" if command == "report" else "new"
        files = [folder / f"{model}.ehrmeta", table]
    out = {"predict": "out.csv", "report": "out.md"}.get(command, "out.ehrmeta")
    if command != "check":
        options = [*options, "--out", tmp_path / out]
    if command == "tune":
        options = [*options, "--storage", tmp_path / "studies.db"]
    done = run(command, *files, *options, code=None)
    messages = done.stderr if command != "check" else done.output
    assert done.exit_code != 0
    assert messages.strip()
    assert not PYTHON.search(messages.replace(str(tmp_path), "").replace(str(folder), "")), messages


@pytest.mark.slow
@pytest.mark.parametrize("target", ["a number", "yes or no"])
def test_six_commands_from_an_export_to_a_report(visits, tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    table = visits.rename(columns={"sex": "größe"})
    if target == "yes or no":
        table = table.assign(hdl=np.where(table.hdl > 50, "ja", "nein"))
    export = {"index": False, "sep": ";", "decimal": ",", "encoding": "latin-1"}
    visit = table.groupby("patient").cumcount()
    table.to_csv("visits.csv", **export)
    table[visit < 3].to_csv("new_visits.csv", **export)
    table[visit >= 3].drop(columns=["hdl", "crp"]).to_csv("next_visits.csv", **export)
    roles = ["--task", "patient", "--time", "date", "--target", "hdl"]
    hold_out = ["--hold-out", "0.4"]
    commands = [
        ["check", "visits.csv", *roles, "--measured", "crp", "--write-schema", "visits.toml"],
        ["fit", "visits.csv", "--schema", "visits.toml", *hold_out, "--max-steps", "20"],
        ["evaluate", "hdl.ehrmeta", "visits.csv", *hold_out, "--shots", "1,3"],
        ["adapt", "hdl.ehrmeta", "new_visits.csv", "--out", "patients.ehrmeta"],
        ["predict", "patients.ehrmeta", "next_visits.csv", "--out", "predictions.csv"],
        ["report", "hdl.ehrmeta", "visits.csv", *hold_out, "--out", "report.html"],
    ]
    commands[1] += ["--out", "hdl.ehrmeta"]
    for command in commands:
        assert sum(word.startswith("--") for word in command) <= 6
        run(*command)
    predicted = pd.read_csv("predictions.csv", dtype={"patient": "str"})
    assert predicted.patient.iloc[0] == "000"
    columns = ["prediction", "lower", "upper"] if target == "a number" else ["class", "risk"]
    assert list(predicted)[2:] == columns
    assert predicted[columns[-1]].notna().all()
    assert "Evaluation of a prediction model" in (tmp_path / "report.html").read_text()
