import re
import stat

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ehrmeta import Adapted, MetaRegressor, list_datasets
from ehrmeta.cli.main import main
from ehrmeta.data.clock import to_time
from ehrmeta.persistence import read_bundle, write_bundle

FIT = ["--task", "patient", "--time", "date", "--target", "hdl", "--max-steps", "20"]


def run(*arguments, code=0):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def failure(*arguments):
    """The error of a command that must fail in one line."""
    done = run(*arguments, code=1)
    assert "Traceback" not in done.output
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def visits():
    """Visits of 40 patients with ids that a careless reader turns into numbers."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 6)
    days = np.tile(np.arange(6) * 50, 40) + rng.integers(0, 40, len(patients))
    level, sex = rng.normal(50, 8, 40), rng.choice(["f", "m"], 40)
    return pd.DataFrame(
        {
            "patient": [f"{number:03d}" for number in patients],
            "date": (pd.Timestamp("2020-01-01") + pd.to_timedelta(days, "D")).strftime("%Y-%m-%d"),
            "sex": sex[patients],
            "crp": rng.gamma(2, 3, len(patients)).round(1),
            "hdl": (level[patients] + rng.normal(0, 2, len(patients))).round(),
        }
    )


@pytest.fixture(scope="module")
def folder(visits, tmp_path_factory):
    """The files of a study, the model included."""
    folder = tmp_path_factory.mktemp("study")
    old, new = visits[visits.patient < "030"], visits[visits.patient >= "030"]
    visit = new.groupby("patient").cumcount()
    old.to_csv(folder / "visits.csv", index=False)
    new.to_csv(folder / "test.csv", index=False)
    new[visit < 2].to_csv(folder / "first.csv", index=False)
    new[visit == 2].to_parquet(folder / "third.parquet", index=False)
    new[visit > 2].drop(columns=["hdl", "crp"]).to_csv(folder / "later.csv", index=False)
    run(
        *("fit", folder / "visits.csv", *FIT, "--measured", "crp", "--unit", "hdl=mg/dL"),
        *("--range", "hdl=5:200", "--out", folder / "hdl.ehrmeta"),
    )
    run("adapt", folder / "hdl.ehrmeta", folder / "first.csv", "--out", folder / "new.ehrmeta")
    return folder


def test_fit_keeps_names_units_ranges_and_roles(folder):
    schema = MetaRegressor.load(folder / "hdl.ehrmeta").schema_
    assert (schema.task, schema.time.name, schema.measured) == ("patient", "date", ("crp",))
    outcome = schema.outcome
    assert (outcome.name, outcome.unit, outcome.low, outcome.high) == ("hdl", "mg/dL", 5.0, 200.0)


def test_predict_is_what_the_library_predicts(folder, visits):
    out = folder / "predictions.csv"
    done = run("predict", folder / "new.ehrmeta", folder / "later.csv", "--out", out)
    assert "predicted 30 rows from 10 adapted tasks" in done.output
    asked = pd.read_csv(folder / "later.csv", dtype={"patient": "str"})
    found = pd.read_csv(out, dtype={"patient": "str"})
    assert list(found) == ["patient", "date", "prediction", "lower", "upper"]
    pd.testing.assert_frame_equal(found[["patient", "date"]], asked[["patient", "date"]])
    X = asked[["sex"]].assign(crp=np.nan)
    adapted = Adapted.load(folder / "new.ehrmeta")
    keys = {"groups": asked.patient, "time": to_time(asked.date)}
    np.testing.assert_allclose(found.prediction, adapted.predict(X, **keys), rtol=1e-12)
    interval = adapted.predict_interval(X, **keys, confidence_level=0.9)
    np.testing.assert_allclose(found[["lower", "upper"]], interval, rtol=1e-12)


def test_adapting_on_the_way_equals_adapting_before(folder):
    ways = {
        "before": ["new.ehrmeta"],
        "on the way": ["hdl.ehrmeta", "--support", folder / "first.csv"],
    }
    found = []
    for name, (model, *support) in ways.items():
        out = folder / f"{name}.parquet"
        run("predict", folder / model, folder / "later.csv", *support, "--out", out)
        found.append(pd.read_parquet(out))
    pd.testing.assert_frame_equal(*found)


def test_another_visit_joins_adapted_patients(folder):
    seen = pd.concat([pd.read_csv(folder / "first.csv", dtype={"patient": "str"})])
    third = pd.read_parquet(folder / "third.parquet")
    pd.concat([seen, third]).to_csv(folder / "three.csv", index=False)
    run(
        *("predict", folder / "new.ehrmeta", folder / "later.csv"),
        *("--support", folder / "third.parquet", "--out", folder / "updated.csv"),
    )
    run(
        *("predict", folder / "hdl.ehrmeta", folder / "later.csv"),
        *("--support", folder / "three.csv", "--out", folder / "at-once.csv"),
    )
    updated, at_once = (pd.read_csv(folder / f"{name}.csv") for name in ("updated", "at-once"))
    pd.testing.assert_frame_equal(updated, at_once, rtol=1e-5)


def test_a_model_alone_predicts_the_population_without_naming_patients(folder):
    rows = folder / "anonymous.csv"
    pd.read_csv(folder / "later.csv").drop(columns="patient").to_csv(rows, index=False)
    done = run("predict", folder / "hdl.ehrmeta", rows, "--out", folder / "population.csv")
    assert "from the population" in done.output
    found = pd.read_csv(folder / "population.csv")
    assert list(found) == ["date", "prediction", "lower", "upper"]


def test_a_wider_interval_at_a_higher_level(folder):
    widths = []
    for level in (0.5, 0.9):
        out = folder / "interval.csv"
        run(
            *("predict", folder / "new.ehrmeta", folder / "later.csv", "--out", out),
            *("--confidence-level", level),
        )
        found = pd.read_csv(out)
        widths.append((found.upper - found.lower).mean())
    assert widths[0] < widths[1]


def test_new_patients_are_never_silent(folder):
    arguments = ["predict", folder / "new.ehrmeta", folder / "visits.csv"]
    out = folder / "new-groups.csv"
    assert "belong to tasks that were not adapted" in failure(*arguments, "--out", out)
    assert not out.exists()
    run(*arguments, "--new-groups", "nan", "--out", out)
    assert pd.read_csv(out).prediction.isna().all()
    done = run(*arguments, "--new-groups", "population", "--out", out)
    assert "from 0 adapted tasks (180 rows of other tasks: the population)" in done.output
    assert pd.read_csv(out).prediction.notna().all()


def test_numbered_patients_are_found_in_a_csv(folder, visits):
    numbered = visits.assign(patient=visits.patient.astype(int))
    model = folder / "numbered.ehrmeta"
    numbered.to_parquet(folder / "numbered.parquet")
    run("fit", folder / "numbered.parquet", *FIT, "--out", model)
    run("adapt", model, folder / "numbered.parquet", "--out", folder / "numbers.ehrmeta")
    run("predict", folder / "numbers.ehrmeta", folder / "test.csv", "--out", folder / "n.csv")
    bad = folder / "bad-ids.csv"
    pd.read_csv(folder / "test.csv").assign(patient="x").to_csv(bad, index=False)
    error = failure("predict", folder / "numbers.ehrmeta", bad, "--out", folder / "n.csv")
    assert "column 'patient' holds no number like those of the adapted tasks in 60 of 60" in error
    pd.read_csv(folder / "test.csv").assign(patient=30.7).to_csv(bad, index=False)
    error = failure("predict", folder / "numbers.ehrmeta", bad, "--out", folder / "n.csv")
    assert "60 of 60 rows (first: row 0) belong to tasks that were not adapted" in error


def test_codes_stay_text_when_a_later_file_holds_numbers_only(folder, visits):
    coded, model = folder / "coded.csv", folder / "coded.ehrmeta"
    visits.assign(sex=visits.sex.map({"f": "01", "m": "1A"})).to_csv(coded, index=False)
    visits[visits.patient < "003"].assign(sex="01").to_csv(folder / "01.csv", index=False)
    run("fit", coded, *FIT, "--out", model)
    out = folder / "codes.csv"
    done = run("predict", model, folder / "01.csv", "--out", out, "--support", folder / "01.csv")
    assert "never seen" not in done.stderr
    assert "from 3 adapted tasks" in done.output


def test_adapted_patients_are_for_the_owner_alone(folder):
    assert stat.S_IMODE((folder / "new.ehrmeta").stat().st_mode) == 0o600


def test_an_id_called_prediction_is_not_overwritten(folder, visits):
    renamed, model = folder / "renamed.csv", folder / "renamed.ehrmeta"
    visits.rename(columns={"patient": "lower"}).to_csv(renamed, index=False)
    run("fit", renamed, "--task", "lower", *FIT[2:], "--out", model)
    error = failure("predict", model, renamed, "--out", folder / "lower.csv")
    assert "column(s) ['lower']" in error


def test_row_numbers_are_no_feature(folder, visits):
    visits.to_csv(folder / "index.csv")
    done = run("fit", folder / "index.csv", *FIT, "--out", folder / "index.ehrmeta")
    assert "column(s) ['Unnamed: 0'] without a name left out" in done.stderr
    assert MetaRegressor.load(folder / "index.ehrmeta").schema_.names == ("sex", "crp")


def test_a_demo_folder_that_is_a_file_is_one_line(folder):
    error = failure("demo", "--quick", "--out", folder / "visits.csv")
    assert "File exists" in error


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
    assert "was fitted with --hold-out 0.3 of 30" in other
    assert "of 10 tasks" in failure("evaluate", model, folder / "test.csv", "--hold-out", "0.3")
    none = failure("evaluate", folder / "hdl.ehrmeta", folder / "visits.csv", "--hold-out", "0.3")
    assert "was fitted without --hold-out" in none


def test_a_bundled_data_set_stands_in_for_a_table(tmp_path):
    out = tmp_path / "bili.ehrmeta"
    run("fit", "pbcseq", "--likelihood", "student_t", "--max-steps", "2", "--out", out)
    model = MetaRegressor.load(out)
    assert (model.likelihood, model.table_.outcome.transform) == ("student_t", "log")
    printed = run("evaluate", out, "pbcseq", "--shots", "3")
    assert re.search(r"rmse_macro \[mg/dL\] +k = 3", printed.output)
    assert (
        "the outcome of the bundled data set nafld-sbp"
        in run("evaluate", out, "nafld-sbp", code=1).stderr
    )


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
    assert warning.startswith("Warning: column 'hdl': 1 row left out: outcome outside 5 to 200")


def test_rows_without_a_target_are_an_error_or_left_out(folder, visits):
    path = folder / "gaps.csv"
    visits.assign(hdl=visits.hdl.where(visits.index != 3)).to_csv(path, index=False)
    arguments = ["fit", path, *FIT, "--out", folder / "gaps.ehrmeta"]
    assert "1 missing outcome (first: row 3)" in failure(*arguments)
    assert "--drop-missing-target" in failure(*arguments)
    assert "239 rows" in run(*arguments, "--drop-missing-target").output


def test_only_the_named_features_are_used(folder):
    model = folder / "features.ehrmeta"
    arguments = ["fit", folder / "visits.csv", *FIT, "--out", model]
    run(*arguments, "--features", "sex", "--algorithm", "maml", "--transform", "log")
    loaded = MetaRegressor.load(model)
    assert loaded.schema_.names == ("sex",)
    assert loaded.outcome_transform == "log"
    assert "no column 'sx'" in failure(*arguments, "--features", "sx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nope.csv", *FIT], "cannot read 'nope.csv': No such file or directory"),
        (["fit", "visits.xlsx", *FIT], "tables are .csv or .parquet files"),
        (["fit", "empty.csv", *FIT], "cannot read 'empty.csv' as csv"),
        (["fit", "text.parquet", *FIT], "cannot read 'text.parquet' as parquet"),
        (["fit", "visits.csv", "--task", "patent", "--target", "hdl"], "Did you mean 'patient'"),
        (["fit", "visits.csv", "--task", "patient", "--target", "sex"], "180 values of text"),
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
    nameless.fit(X, X[:, 0], groups=groups).save("nameless.ehrmeta")
    out = "out.csv" if arguments[0] == "predict" else "out.ehrmeta"
    error = failure(*arguments, "--out", out)
    assert error.startswith("Error: ")
    assert message in error
    assert not (folder / out).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "visits.csv"], "pass --task and --target"),
        (["fit", "pbcseq", "--task", "patient"], "whose card names its columns"),
        (["fit", "pbcseq", "--time-unit", "d", "--drop-missing-target"], "leave out --time-unit"),
        (["predict", "new.ehrmeta", "later.csv", "--out", "x.txt"], "name a .csv or .parquet file"),
        (["adapt", "hdl.ehrmeta", "first.csv", "--out", "x.csv"], "is named like a table"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--shots", "1,1"], "repeats a number"),
        (["fit", "visits.csv", *FIT, "--unit", "mg/dL"], "not of the form COLUMN=VALUE"),
        (["fit", "visits.csv", *FIT, "--range", "hdl=high"], "write COLUMN=LOW:HIGH"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--shots", "1,x"], "list of whole numbers"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--shots", "1,-1"], "one below 0"),
        (["predict", "new.ehrmeta", "later.csv", "--confidence-level", "1"], "not in the range"),
        (["evaluate", "hdl.ehrmeta", "test.csv", "--baselines"], "pass --train or --hold-out"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_wrong_usage_is_refused_before_any_work(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    out = ["--out", "unused.ehrmeta"] if arguments[0] == "fit" else []
    assert message in run(*arguments, *out, code=2).output
    assert not (folder / "unused.ehrmeta").exists()


@pytest.mark.parametrize("out", ["nowhere/model.ehrmeta", "."], ids=["no folder", "a folder"])
def test_a_file_that_cannot_be_written_is_refused_before_the_training(folder, monkeypatch, out):
    monkeypatch.chdir(folder)
    printed = run("fit", "visits.csv", *FIT, "--out", out, code=2).output
    assert "no folder" in printed or "cannot be written" in printed
    assert "trained" not in printed


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


@pytest.mark.slow
def test_the_quick_demo_prints_the_table_and_leaves_picture_and_model(tmp_path):
    printed = run("demo", "--quick", "--out", tmp_path / "demo").output
    for row in ("population", "last value", "patient mean", "mixed model", "boosting with history"):
        assert row in printed
    assert "\nehrmeta  " in printed
    assert re.search(r"[\d,]+ tasks/s", printed)
    assert re.search(r"one patient in [\d.]+ ms", printed)
    assert re.search(r"peak memory: [\d.]+ GiB", printed)
    assert (tmp_path / "demo" / "patient.png").read_bytes().startswith(b"\x89PNG")
    model = MetaRegressor.load(tmp_path / "demo" / "hdl.ehrmeta")
    assert model.schema_.outcome.unit == "mg/dL"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_check_lists_findings_and_saves_a_schema_that_finds_them_again(tmp_path):
    table, schema = tmp_path / "visits.csv", tmp_path / "visits.toml"
    table.write_text("mrn,day,glucose,hdl\n1,0,5.1,50\n1,3,5.5,50\n2,0,4.9,44\n2,0,6.1,\n")
    roles = ["--task", "mrn", "--time", "day", "--target", "hdl"]
    for arguments in ([*roles, "--write-schema", schema], ["--schema", schema]):
        output = run("check", table, *arguments, code=1).output
        assert "repeating a (mrn, day) pair" in output
        assert "missing outcome." in output


def test_check_of_a_clean_table_succeeds(tmp_path):
    table = tmp_path / "visits.csv"
    table.write_text("mrn,day,age,hdl\n1,0,40,50\n1,3,40,51\n2,0,61,44\n")
    roles = ["--task", "mrn", "--time", "day", "--target", "hdl", "--strict"]
    assert "nothing found" in run("check", table, *roles).output


def test_inspect_shows_all_of_a_model_but_no_row_of_its_patients(folder):
    shown = run("inspect", folder / "hdl.ehrmeta", "--full").output
    for name in ("provenance", *MetaRegressor.load(folder / "hdl.ehrmeta").model_.learner.params):
        assert name in shown
    shown = run("inspect", folder / "new.ehrmeta", "--full").output
    assert "holds patient data" in shown
    assert '"030"' not in shown


def test_inspect_says_the_main_things_in_a_few_lines(folder):
    shown = run("inspect", folder / "hdl.ehrmeta").output
    for words in ("MetaRegressor", "DeepMixedEffects", "30 tasks", "hdl", "No row and no label"):
        assert words in shown
    assert len(shown.splitlines()) < 25
    shown = run("inspect", folder / "new.ehrmeta").output
    assert "Adapted(10 tasks" in shown
    assert "holds patient data" in shown
    assert "030" not in shown


def test_inspect_lets_no_file_write_to_the_terminal(folder):
    forged = folder / "forged.ehrmeta"
    tensors, metadata = read_bundle(folder / "hdl.ehrmeta")
    write_bundle(forged, tensors, metadata | {"title": "\x9b2J\x1b[2J"})
    shown = run("inspect", forged, "--full").output
    assert not {"\x9b", "\x1b"} & set(shown)
