import numpy as np
import pandas as pd
import pytest

from ehrmeta import MetaClassifier, MetaRegressor
from tests.cli.commands import FIT, run


def test_check_lists_findings_and_saves_a_schema_that_finds_them_again(tmp_path):
    table, schema = tmp_path / "visits.csv", tmp_path / "visits.toml"
    table.write_text("mrn,day,glucose,hdl\n1,0,5.1,50\n1,3,5.5,50\n2,0,4.9,44\n2,0,6.1,\n")
    roles = ["--task", "mrn", "--time", "day", "--target", "hdl"]
    for arguments in ([*roles, "--write-schema", schema], ["--schema", schema]):
        output = run("check", table, *arguments, code=1).output
        assert "repeating a (mrn, day) pair" in output
        assert "1 missing outcome (first: line 5)." in output


def test_check_of_a_clean_table_succeeds(tmp_path):
    table = tmp_path / "visits.csv"
    table.write_text(
        "mrn,day,age,hdl\n1,0,40,50\n1,3,40,51\n2,0,61,44\n2,5,61,46\n3,0,52,47\n3,4,52,49\n"
    )
    roles = ["--task", "mrn", "--time", "day", "--target", "hdl", "--strict"]
    assert "nothing found" in run("check", table, *roles).output


def test_alike_findings_are_one_line_and_tasks_are_counted(tmp_path):
    table = tmp_path / "visits.csv"
    constant = {f"lab{i}": 1 for i in range(30)}
    rows = [{"mrn": f"{i // 3:03d}", "day": i % 3, "hdl": 40 + i, **constant} for i in range(30)]
    pd.DataFrame(rows).to_csv(table, index=False)
    output = run("check", table, "--task", "mrn", "--time", "day", "--target", "hdl").output
    assert "30 rows of 10 patients" in output
    assert "30 columns ('lab0', 'lab1', 'lab2' and 27 others): distinct value" in output


def test_a_table_of_one_patient_cannot_be_used(tmp_path):
    (tmp_path / "v.csv").write_text("mrn,day,age,hdl\n1,0,40,50\n1,3,41,51\n")
    roles = ["--task", "mrn", "--time", "day", "--target", "hdl"]
    assert "meta-learning needs" in run("check", tmp_path / "v.csv", *roles, code=1).output


def test_fit_keeps_names_units_ranges_and_roles(folder):
    schema = MetaRegressor.load(folder / "hdl.ehrmeta").schema_
    assert (schema.task, schema.time.name, schema.measured) == ("patient", "date", ("crp",))
    outcome = schema.outcome
    assert (outcome.name, outcome.unit, outcome.low, outcome.high) == ("hdl", "mg/dL", 5.0, 200.0)


def test_two_classes_are_detected_and_a_classifier_is_trained(risky):
    done = run("fit", risky / "visits.csv", *FIT, "--out", risky / "again.ehrmeta")
    assert "column 'hdl' holds 2 classes, no, yes: predicts the risk of yes" in done.output
    model = MetaClassifier.load(risky / "again.ehrmeta")
    assert model.classes_.tolist() == ["no", "yes"]
    options = [*FIT, "--likelihood", "student_t", "--out", risky / "again.ehrmeta"]
    refused = run("fit", risky / "visits.csv", *options, code=2)
    assert "is for a target of numbers" in refused.output


@pytest.mark.parametrize("codes", [[0, 1], [False, True]])
def test_zero_and_one_are_classes(visits, tmp_path, codes):
    table = visits.assign(hdl=np.array(codes)[(visits.hdl > 50).astype(int)])
    table.to_csv(tmp_path / "v.csv", index=False)
    run("fit", tmp_path / "v.csv", *FIT[:-1], "2", "--out", tmp_path / "m.ehrmeta")
    assert MetaClassifier.load(tmp_path / "m.ehrmeta").classes_.tolist() == [0, 1]


def test_fit_prints_what_check_finds(visits, tmp_path):
    table = visits.assign(site="A", hdl_mmol=(visits.hdl * 0.02586).round(4))
    table.to_csv(tmp_path / "v.csv", index=False)
    done = run("fit", tmp_path / "v.csv", *FIT[:-1], "2", "--out", tmp_path / "m.ehrmeta")
    assert "column 'site': 1 distinct value" in done.output
    assert "hdl_mmol" in done.output
