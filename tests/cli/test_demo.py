import re

import numpy as np
import pandas as pd
import pytest

from ehrmeta import MetaRegressor, Table
from ehrmeta.cli.demo import STORY_VISITS, NotAdapted, demo_model, median_patient
from ehrmeta.cli.evaluate import comparators
from tests.cli.commands import run
from tests.estimators.patients import make_patients, small_model


def test_not_adapted_is_the_population_prediction_whatever_the_support():
    X, y, groups, time = make_patients(30)
    model = small_model(max_steps=5).fit(X, y, groups=groups, time=time)
    stubborn = NotAdapted(model).adapt(X[:3], y[:3], groups=groups[:3], time=time[:3])
    found = stubborn.predict(X[3:6], groups=groups[3:6], time=time[3:6])
    np.testing.assert_array_equal(found, model.predict(X[3:6], time=time[3:6]))


def test_the_quick_model_differs_in_its_steps_only():
    quick, full = demo_model(quick=True), demo_model()
    assert isinstance(full, MetaRegressor)
    assert quick.max_steps < full.max_steps
    assert repr(quick.set_params(max_steps=full.max_steps)) == repr(full)


def test_every_comparator_follows_the_protocol_and_the_transform():
    for baseline in comparators(outcome_transform="log").values():
        assert callable(baseline.fit)
        assert callable(baseline.adapt)
        assert baseline.outcome_transform == "log"


def test_the_story_is_the_patient_of_median_error_among_those_with_enough_visits():
    sizes = [STORY_VISITS, STORY_VISITS, STORY_VISITS, 3, 3]
    errors = [1.0, 5.0, 2.0, 2.1, 2.2]
    patients = np.repeat(["a", "b", "c", "d", "e"], sizes)
    day = np.concatenate([np.arange(size) for size in sizes])
    frame = pd.DataFrame({"id": patients, "day": day, "age": 50.0, "hdl": day + 40.0})
    test = Table.from_frame(frame, task="id", time="day", outcome="hdl")
    _, query = test.support_query(shots=1)
    predicted = query.y + pd.Series(query.groups).map(dict(zip("abcde", errors, strict=True)))
    assert set(median_patient(test, query, predicted.to_numpy()).groups) == {"c"}


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
