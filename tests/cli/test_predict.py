import stat
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ehrmeta import Adapted
from ehrmeta.cli.predict import groups_of
from ehrmeta.data.clock import to_time
from tests.cli.commands import FIT, failure, run


def test_predict_is_what_the_library_predicts(folder, visits):
    out = folder / "predictions.csv"
    done = run("predict", folder / "new.ehrmeta", folder / "later.csv", "--out", out)
    assert "predicted 30 rows from 10 adapted tasks" in done.output
    queried = pd.read_csv(folder / "later.csv", dtype={"patient": "str"})
    found = pd.read_csv(out, dtype={"patient": "str"})
    assert list(found) == ["patient", "date", "prediction", "lower", "upper"]
    pd.testing.assert_frame_equal(found[["patient", "date"]], queried[["patient", "date"]])
    X = queried[["sex"]].assign(crp=np.nan)
    adapted = Adapted.load(folder / "new.ehrmeta")
    keys = {"groups": queried.patient, "time": to_time(queried.date)}
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


def test_new_patients_raise_or_warn(folder):
    arguments = ["predict", folder / "new.ehrmeta", folder / "visits.csv"]
    out = folder / "new-groups.csv"
    assert "belong to tasks that were not adapted" in failure(*arguments, "--out", out)
    assert not out.exists()
    run(*arguments, "--new-groups", "nan", "--out", out)
    assert pd.read_csv(out).prediction.isna().all()
    done = run(*arguments, "--new-groups", "population", "--out", out)
    assert "from 0 adapted tasks (180 rows of other tasks: the population)" in done.output
    assert pd.read_csv(out).prediction.notna().all()


def test_numeric_patient_ids_match_those_in_a_csv(folder, visits):
    numbered = visits.assign(patient=visits.patient.astype(int))
    model = folder / "numbered.ehrmeta"
    numbered.to_parquet(folder / "numbered.parquet")
    run("fit", folder / "numbered.parquet", *FIT, "--out", model)
    run("adapt", model, folder / "numbered.parquet", "--out", folder / "numbers.ehrmeta")
    run("predict", folder / "numbers.ehrmeta", folder / "test.csv", "--out", folder / "n.csv")
    bad = folder / "bad-ids.csv"
    pd.read_csv(folder / "test.csv").assign(patient="x").to_csv(bad, index=False)
    error = failure("predict", folder / "numbers.ehrmeta", bad, "--out", folder / "n.csv")
    assert "column 'patient': 60 of 60 rows are not numbers" in error
    pd.read_csv(folder / "test.csv").assign(patient=30.7).to_csv(bad, index=False)
    error = failure("predict", folder / "numbers.ehrmeta", bad, "--out", folder / "n.csv")
    assert "60 of 60 rows (first: line 2) belong to tasks that were not adapted" in error


def test_codes_stay_text_when_a_later_file_holds_numbers_only(folder, visits):
    coded, model = folder / "coded.csv", folder / "coded.ehrmeta"
    visits.assign(sex=visits.sex.map({"f": "01", "m": "1A"})).to_csv(coded, index=False)
    visits[visits.patient < "003"].assign(sex="01").to_csv(folder / "01.csv", index=False)
    run("fit", coded, *FIT, "--out", model)
    out = folder / "codes.csv"
    done = run("predict", model, folder / "01.csv", "--out", out, "--support", folder / "01.csv")
    assert "never seen" not in done.stderr
    assert "from 3 adapted tasks" in done.output


def test_adapted_patients_and_predictions_are_for_the_owner_alone_unless_told(folder):
    assert stat.S_IMODE((folder / "new.ehrmeta").stat().st_mode) == 0o600
    out = folder / "shared.csv"
    rows = folder / "later.csv"
    for words, mode in (((), 0o600), (("--mode", "640"), 0o640)):
        run("predict", folder / "new.ehrmeta", rows, "--out", out, *words)
        assert stat.S_IMODE(out.stat().st_mode) == mode


def test_an_id_called_prediction_is_not_overwritten(folder, visits):
    renamed, model = folder / "renamed.csv", folder / "renamed.ehrmeta"
    visits.rename(columns={"patient": "lower"}).to_csv(renamed, index=False)
    run("fit", renamed, "--task", "lower", *FIT[2:], "--out", model)
    error = failure("predict", model, renamed, "--out", folder / "lower.csv")
    assert "column(s) ['lower']" in error


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_numbered_ids_match_digit_by_digit(dtype):
    labels = np.array([2**53, 2**53 + 2, 7], dtype)
    patients = SimpleNamespace(labels_=labels)
    queried = pd.Series(["9007199254740993", "9007199254740994", "7.0", "7.3"], name="id")
    found = groups_of(queried, patients)
    assert found.dtype == dtype
    assert pd.Index(labels).get_indexer(found).tolist() == [-1, 1, 2, -1]


def test_predictions_of_classes_are_risks(risky):
    out = risky / "risks.csv"
    run("predict", risky / "new.ehrmeta", risky / "later.csv", "--out", out)
    predicted = pd.read_csv(out, dtype={"patient": "str"})
    assert list(predicted) == ["patient", "date", "class", "risk"]
    assert predicted.patient.iloc[0] == "030"
    assert predicted.risk.between(0, 1).all()
    assert (predicted["class"] == np.where(predicted.risk > 0.5, "yes", "no")).all()


def test_visits_without_a_value_are_left_out_and_counted(folder, visits):
    path = folder / "unfinished.csv"
    new = visits[visits.patient >= "030"].reset_index(drop=True)
    new.assign(hdl=new.hdl.where(~new.index.isin([1, 7]))).to_csv(path, index=False)
    done = run("adapt", folder / "hdl.ehrmeta", path, "--out", folder / "unfinished.ehrmeta")
    assert "2 rows dropped: no outcome" in done.stderr
    assert sum(Adapted.load(folder / "unfinished.ehrmeta").n_shots_) == len(new) - 2


def test_the_event_chooses_the_class_of_the_risk(risky):
    risks = {}
    for event in ("yes", "no"):
        out = risky / f"{event}.csv"
        run("predict", risky / "new.ehrmeta", risky / "later.csv", "--event", event, "--out", out)
        risks[event] = pd.read_csv(out).risk
    np.testing.assert_allclose(risks["no"], 1 - risks["yes"])
    given = ["predict", risky / "new.ehrmeta", risky / "later.csv", "--event", "maybe"]
    done = run(*given, "--out", risky / "out.csv", code=2)
    assert "--event 'maybe': pass no or yes" in done.output


def test_a_class_unknown_to_the_model_is_refused(risky):
    path = risky / "unknown.csv"
    pd.read_csv(risky / "test.csv").replace({"hdl": {"yes": "YES"}}).to_csv(path, index=False)
    error = failure("adapt", risky / "low.ehrmeta", path, "--out", risky / "unknown.ehrmeta")
    assert "are none of the 2 classes of `fit`" in error
