import numpy as np
import pytest

from ehrmeta import MetaClassifier, MetaRegressor
from tests.cli.commands import FIT, run


def test_fit_keeps_names_units_ranges_and_roles(folder):
    schema = MetaRegressor.load(folder / "hdl.ehrmeta").schema_
    assert (schema.task, schema.time.name, schema.measured) == ("patient", "date", ("crp",))
    outcome = schema.outcome
    assert (outcome.name, outcome.unit, outcome.low, outcome.high) == ("hdl", "mg/dL", 5.0, 200.0)


def test_two_classes_are_found_and_a_classifier_is_trained(risky):
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
