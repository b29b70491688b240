"""Scoring of partitions: the numbers of adapt and predict, in every engine's form."""

import multiprocessing
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import ehrmeta
from ehrmeta import ConformalRegressor, MetaClassifier, MetaRegressor, Table
from ehrmeta.errors import DataError, SchemaError
from ehrmeta.serving.score import load_once


@pytest.fixture(scope="module")
def asked(visits: pd.DataFrame) -> pd.DataFrame:
    """Ten new patients: three values each, two rows without one; the last has no value."""
    frame = visits[visits["patient"] >= 70].groupby("patient").head(5).reset_index(drop=True)
    later = frame.groupby("patient").cumcount() >= 3
    frame["hdl"] = frame["hdl"].mask(later | (frame["patient"] == 79))
    return frame


def in_two_calls(model, frame, **settings):
    """The same by `adapt` and `predict_frame`."""
    known, schema = frame["hdl"].notna(), model.schema_
    table = Table.from_frame(frame, schema, on_missing_outcome="drop", on_constant_outcome="allow")
    adapted = model.adapt(table.X, table.y, groups=table.groups, time=table.time)
    rows = frame[~known]
    return adapted.predict_frame(
        rows[list(schema.names)],
        groups=rows["patient"],
        time=rows["day"],
        new_groups="population",
        **settings,
    )


def test_a_partition_is_adapt_and_predict_in_one_call(model, asked):
    scored = ehrmeta.score_partition(asked, model, confidence_level=0.5)
    pd.testing.assert_frame_equal(
        scored, in_two_calls(model, asked, confidence_level=0.5), check_exact=True
    )
    assert list(scored) == ["task", "time", "mean", "lower", "upper"]
    assert scored.index.equals(asked.index[asked["hdl"].isna()])


def test_a_partition_of_one_patient_has_the_same_numbers_to_rounding(model, asked):
    together = ehrmeta.score_partition(asked, model)
    alone = [ehrmeta.score_partition(rows, model) for _, rows in asked.groupby("patient")]
    np.testing.assert_allclose(pd.concat(alone).sort_index()["mean"], together["mean"], rtol=1e-5)


def test_polars_in_polars_out(model, asked):
    scored = ehrmeta.score_partition(pl.from_pandas(asked), model)
    assert isinstance(scored, pl.DataFrame)
    expected = ehrmeta.score_partition(asked, model).reset_index(drop=True)
    pd.testing.assert_frame_equal(scored.to_pandas(), expected)
    in_arrow = ehrmeta.score_partition(pl.from_pandas(asked).to_arrow(), model)
    pd.testing.assert_frame_equal(in_arrow.reset_index(drop=True), expected)


def test_without_outcomes_everybody_gets_the_population(model, asked):
    rows = asked.drop(columns="hdl")
    scored = ehrmeta.score_partition(rows, model)
    expected = model.predict(rows[["sex", "crp"]], time=rows["day"])
    np.testing.assert_allclose(scored["mean"], expected, rtol=1e-6)
    assert scored["task"].tolist() == asked["patient"].tolist()


def test_a_partition_without_rows_to_predict_gives_an_empty_frame(model, asked):
    for rows in (asked[asked["hdl"].notna()], asked[:0]):
        scored = ehrmeta.score_partition(rows, model)
        assert list(scored) == ["task", "time", "mean", "lower", "upper"]
        assert len(scored) == 0
        assert scored["mean"].dtype == np.float64


def test_classes_are_labels_and_risks(visits, asked):
    frame = visits.assign(hdl=np.where(visits["hdl"] > 50, "high", "low"))
    table = Table.from_frame(
        visits.assign(hdl=(visits["hdl"] > 50) * 1.0),
        task="patient",
        time="day",
        outcome="hdl",
        measured=["crp"],
    )
    labels = frame["hdl"].to_numpy(object)
    model = MetaClassifier(max_steps=2, random_state=0)
    model.fit(table.X, labels, groups=table.groups, time=table.time)
    rows = asked.assign(hdl=frame["hdl"].reindex(asked.index).where(asked["hdl"].notna()))
    scored = ehrmeta.score_partition(rows, model)
    assert list(scored) == ["task", "time", "class", "risk"]
    assert set(scored["class"]) <= {"high", "low"}
    with pytest.raises(DataError, match="none of the 2 classes"):
        ehrmeta.score_partition(rows.assign(hdl="medium"), model)


def test_dates_come_back_as_they_went_in(visits):
    dated = visits.assign(day=pd.Timestamp("2020-01-01") + pd.to_timedelta(visits["day"], "D"))
    table = Table.from_frame(dated, task="patient", time="day", outcome="hdl", measured=["crp"])
    model = MetaRegressor(max_steps=2, random_state=0)
    model.fit(table.X, table.y, groups=table.groups, time=table.time)
    rows = dated[:6].assign(hdl=[50.0, 51.0, 52.0, None, None, None])
    scored = ehrmeta.score_partition(rows, model)
    assert scored["time"].tolist() == rows["day"][3:].tolist()


def test_calibrated_models_are_scored(model, visits, asked):
    others = visits.assign(hdl=visits["hdl"] + 1.0)
    table = Table.from_frame(others, model.schema_)
    calibrated = ConformalRegressor(model, shots=(1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calibrated.calibrate(table.X, table.y, groups=table.groups, time=table.time)
        scored = ehrmeta.score_partition(asked, calibrated)
    plain = ehrmeta.score_partition(asked, model)
    np.testing.assert_array_equal(scored["mean"], plain["mean"])
    assert (scored["upper"] != plain["upper"]).any()


def test_a_file_is_loaded_once_until_it_changes(model, model_file, asked):
    scored = ehrmeta.score_partition(asked, model_file)
    pd.testing.assert_frame_equal(scored, ehrmeta.score_partition(asked, model))
    first = load_once(model_file)
    assert load_once(str(model_file)) is first
    model.save(model_file)
    assert load_once(model_file) is not first


def test_no_global_state_is_changed(model, asked):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        filters = list(warnings.filters)
        ehrmeta.score_partition(asked, model)
        assert torch.get_num_threads() == 2
        assert warnings.filters == filters
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_spawned_worker_gives_the_same_numbers(model_file, asked):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        scored = pool.apply(ehrmeta.score_partition, (asked, str(model_file)))
    pd.testing.assert_frame_equal(scored, ehrmeta.score_partition(asked, model_file))


def test_errors_name_columns_and_what_to_pass(model, asked):
    with pytest.raises(SchemaError, match="no column 'day'"):
        ehrmeta.score_partition(asked.drop(columns="day"), model)
    with pytest.raises(DataError, match="fitted model without patients, got Adapted"):
        ehrmeta.score_partition(asked, model.unadapted())
    with pytest.raises(DataError, match="must be a pandas, polars or pyarrow frame"):
        ehrmeta.score_partition([[1.0]], model)
    arrays = MetaRegressor(max_steps=1, random_state=0).fit(
        np.zeros((40, 1)), np.arange(40.0), groups=np.arange(40) // 4
    )
    with pytest.raises(SchemaError, match="does not know its columns by name"):
        ehrmeta.score_partition(asked, arrays)
