"""Adapted tasks: the times of their queries, and records of what was adapted."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ehrmeta import MLP, MatchingNet, MetaRegressor
from ehrmeta.baselines import MixedEffects
from ehrmeta.data import Clock, Feature, Schema
from ehrmeta.errors import BundleError, DataError, DataWarning
from tests.estimators.patients import make_patients, small_model


@pytest.fixture(scope="module")
def fitted():
    X, y, groups, time = make_patients(n_patients=30)
    return small_model(max_steps=5).fit(X, y, groups=groups, time=time)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("EHRMETA_AUDIT_KEY", "a key of 16 bytes or more")


def _records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_adaptation_adds_one_record(fitted, tmp_path):
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    path = tmp_path / "audit.jsonl"
    for rows in (slice(None), slice(None), slice(0, 6)):
        fitted.adapt(X[rows], y[rows], groups=groups[rows], time=time[rows]).add_audit_record(path)
    first, again, one = _records(path)
    assert (first["n_tasks"], first["n_rows"], one["n_tasks"], one["n_rows"]) == (4, 24, 1, 6)
    assert first["output"] == again["output"] != one["output"]
    assert first["model"] == one["model"]
    assert first["time"] <= again["time"]


@pytest.mark.filterwarnings("ignore:levels of")
def test_other_rows_or_another_model_give_other_digests(fitted, tmp_path):
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    path = tmp_path / "audit.jsonl"
    other = small_model(max_steps=5, random_state=5).fit(X, y, groups=groups, time=time)
    for model, outcome in ((fitted, y), (fitted, y + 1e-3), (other, y)):
        model.adapt(X, outcome, groups=groups, time=time).add_audit_record(path)
    records = _records(path)
    assert len({record["output"] for record in records}) == 3
    assert records[0]["model"] == records[1]["model"] != records[2]["model"]


def test_no_value_and_no_label_is_written(fitted, tmp_path):
    X, y, _, time = make_patients(n_patients=4, seed=1)
    groups = np.repeat(["canary-a", "canary-b", "canary-c", "canary-d"], 6)
    path = tmp_path / "audit.jsonl"
    fitted.adapt(X, y, groups=groups, time=time).add_audit_record(path)
    text = path.read_text()
    assert "canary" not in text
    assert not any(repr(float(value)) in text for value in (*y, *X.age))


def test_without_a_key_a_record_holds_no_digest(fitted, tmp_path, monkeypatch):
    monkeypatch.delenv("EHRMETA_AUDIT_KEY")
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    path = tmp_path / "audit.jsonl"
    fitted.adapt(X, y, groups=groups, time=time).add_audit_record(path)
    assert set(_records(path)[0]) == {"time", "n_tasks", "n_rows"}


def test_a_record_that_cannot_be_written_is_an_error(fitted, tmp_path):
    X, y, groups, time = make_patients(n_patients=4, seed=1)
    with pytest.raises(DataError, match="audit record cannot be written"):
        fitted.adapt(X, y, groups=groups, time=time).add_audit_record(tmp_path / "none" / "a.jsonl")


@pytest.fixture
def adapted(model, halves):
    support, _ = halves
    return model.adapt(support.X, support.y, groups=support.groups, time=support.time)


def test_later_rows_are_predicted_in_silence(adapted, halves):
    _, query = halves
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted.predict(query.X, groups=query.groups, time=query.time)
    assert not said


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_rows_not_after_the_support_are_counted_and_named(adapted, halves, shift):
    support, query = halves
    time = query.time.copy()
    last = support.time.max()
    time[[4, 7]] = last - shift
    task = np.unique(query.groups).tolist().index(query.groups[4])
    pattern = rf"2 of {len(time)} rows \(first: row 4, of task {task} of 20\) are not later"
    with pytest.warns(DataWarning, match=pattern):
        adapted.predict(query.X, groups=query.groups, time=time)
    with pytest.warns(DataWarning, match=pattern):
        adapted.own_weight(query.X, groups=query.groups, time=time)


def test_nobodys_rows_lie_before_nothing(model, adapted, halves):
    _, query = halves
    early, new = query.time - 200, query.groups + 5000
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        expected = model.predict(query.X, time=early)
        found = adapted.predict(query.X, groups=new, time=early, new_groups="population")
    assert not said
    np.testing.assert_array_equal(found, expected)


def test_dates_count_from_the_origin_that_the_schema_names(patients, halves):
    X, y, groups, time = patients
    features = (Feature("age"), Feature("sex", kind="categorical"))
    schema = Schema(features, time=Clock("day", origin="2020-01-01"))
    fitted = small_model(max_steps=10, schema=schema).fit(X, y, groups=groups, time=time)
    dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(time[:6], unit="D")
    np.testing.assert_array_equal(
        fitted.predict(X[:6], time=dates), fitted.predict(X[:6], time=time[:6])
    )


def test_summaries_of_predictions_are_those_of_their_distribution(adapted, halves):
    _, query = halves
    rows = {"groups": query.groups, "time": query.time}
    predicted = adapted.predict_distribution(query.X, **rows)
    levels = (0.05, 0.5, 0.95)
    quantiles = adapted.predict_quantiles(query.X, **rows)
    np.testing.assert_array_equal(quantiles, np.column_stack([*map(predicted.quantile, levels)]))
    interval = adapted.predict_interval(query.X, **rows)
    np.testing.assert_allclose(interval, quantiles[:, [0, 2]], rtol=1e-12)
    single = adapted.predict_quantiles(query.X, 0.5, **rows)
    np.testing.assert_array_equal(single, quantiles[:, [1]])
    np.testing.assert_array_equal(adapted.predict(query.X, **rows), predicted.mean())
    for wrong in ((), (0.0,), (0.5, 1.0)):
        with pytest.raises(DataError, match="levels must lie strictly between 0 and 1"):
            adapted.predict_quantiles(query.X, wrong, **rows)


def test_rows_of_patients_and_of_others_are_mixed_in_any_order(model, adapted, halves):
    _, query = halves
    groups = np.where(np.arange(60) % 3 == 1, 7, query.groups)
    rows = {"groups": groups, "time": query.time}
    mixed = adapted.predict_interval(query.X, **rows, new_groups="population")
    own = adapted.predict_interval(query.X, groups=query.groups, time=query.time)
    population = model.unadapted().predict_interval(query.X, time=query.time)
    expected = np.where((groups == 7)[:, None], population, own)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5)
    missing = adapted.predict(query.X, **rows, new_groups="nan")
    assert np.isnan(missing).tolist() == (groups == 7).tolist()
    nobody = {"groups": np.full(60, 7), "time": query.time}
    assert np.isnan(adapted.predict(query.X, **nobody, new_groups="nan")).all()
    with pytest.raises(DataError, match="20 of 60 rows .* were not adapted"):
        adapted.predict(query.X, **rows)


def test_updating_is_adapting_to_all_rows_at_once(model, halves):
    support, query = halves
    early = support.time < 60
    first = model.adapt(
        support.X[early], support.y[early], groups=support.groups[early], time=support.time[early]
    )
    rest = {"groups": support.groups[~early], "time": support.time[~early]}
    updated = first.update(support.X[~early], support.y[~early], **rest)
    whole = model.adapt(support.X, support.y, groups=support.groups, time=support.time)
    rows = {"groups": query.groups, "time": query.time}
    np.testing.assert_allclose(
        updated.predict(query.X, **rows), whole.predict(query.X, **rows), rtol=1e-6
    )
    assert updated.n_shots_.tolist() == whole.n_shots_.tolist() == [3] * 20
    assert first.n_shots_.tolist() == [2] * 20


def test_adapted_patients_are_shown_by_number_and_shots(model, adapted, halves):
    support, _ = halves
    assert repr(adapted) == "Adapted(20 tasks, 3 shots each, MetaRegressor)"
    rows = {"groups": support.groups[:5], "time": support.time[:5]}
    uneven = model.adapt(support.X[:5], support.y[:5], **rows)
    assert repr(uneven) == "Adapted(2 tasks, 2-3 shots each, MetaRegressor)"
    assert repr(model.unadapted()) == "Adapted(1 task, 0 shots each, MetaRegressor)"


def test_shrinkage_leaves_out_patients_without_a_row(model, adapted, halves):
    effects, prior = adapted.effects_
    assert adapted.eta_shrinkage_ == pytest.approx(1.0 - np.std(effects) / prior)
    support = adapted._support
    wider = replace(support, starts=torch.cat([support.starts, support.starts[-1:]]))
    labels = np.append(adapted.labels_, 5000)
    more = type(adapted)(model.model_, labels, wider)
    assert more.n_tasks == 21
    assert more.eta_shrinkage_ == pytest.approx(adapted.eta_shrinkage_, rel=1e-4)
    first = halves[0].time == 0
    seen = {"groups": halves[0].groups[first], "time": halves[0].time[first]}
    single = model.adapt(halves[0].X[first], halves[0].y[first], **seen)
    effects, prior = single.effects_
    assert single.eta_shrinkage_ == pytest.approx(1.0 - np.std(effects) / prior)


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
def test_own_weights_and_attention_are_in_the_order_of_the_rows(patients, halves):
    X, y, groups, time = patients
    support, query = halves
    given = {"max_steps": 1, "random_state": 0, "verbose": False}
    rows = {"groups": query.groups, "time": query.time}
    matching = MetaRegressor(MatchingNet(), MLP((4,)), **given).fit(X, y, groups=groups, time=time)
    seen = {"groups": support.groups, "time": support.time}
    adapted = matching.adapt(support.X, support.y, **seen)
    weights = adapted.support_weights(query.X, **rows)
    assert weights["row"].is_monotonic_increasing
    np.testing.assert_allclose(weights.groupby("row")["weight"].sum(), 1.0, rtol=1e-5)
    assert (weights.groupby("row")["weight"].diff().dropna() <= 0).all()
    known = weights[weights["support_row"] >= 0]
    np.testing.assert_array_equal(support.groups[known["support_row"]], query.groups[known["row"]])
    mixed = MixedEffects().fit(X, y, groups=groups, time=time).adapt(support.X, support.y, **seen)
    weight = mixed.own_weight(query.X, **rows)
    backwards = {name: values[::-1] for name, values in rows.items()}
    np.testing.assert_allclose(mixed.own_weight(query.X[::-1], **backwards), weight[::-1])


def test_a_pipelines_patients_are_transformed_and_not_saved(patients, tmp_path):
    X, y, groups, time = patients
    table = X.assign(patient=groups, day=time)
    model = MixedEffects(task="patient", time="day").fit(table, y)
    adapted = model.adapt(table[:3], y[:3])
    adapted.transform = lambda frame: frame.rename(columns={"years": "age"})[list(table)]
    renamed = table.rename(columns={"age": "years"})
    np.testing.assert_array_equal(
        adapted.predict(renamed[3:6]), model.adapt(table[:3], y[:3]).predict(table[3:6])
    )
    updated = adapted.update(renamed[3:4], y[3:4])
    assert updated.transform is adapted.transform
    with pytest.raises(BundleError, match="adapted by a pipeline cannot be saved"):
        adapted.to_state()


@pytest.mark.filterwarnings("ignore:overflow")
def test_predictions_beyond_the_largest_number_are_refused(adapted, halves):
    _, query = halves
    table = adapted.model.table
    huge = replace(table, outcome=replace(table.outcome, scale=1e308))
    adapted.model = replace(adapted.model, table=huge)
    with pytest.raises(DataError, match="5 of 60 rows are not finite"):
        adapted.predict(query.X, groups=query.groups, time=query.time)
