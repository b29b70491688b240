"""Bad input gets one clear error that says what, where and what to do, and changes nothing."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge

from ehrmeta import MAML, MLP, MetaRegressor, NeuralProcess
from ehrmeta.baselines import LastValue, MixedEffects, PopulationBoosting
from ehrmeta.data import Clock, Feature, Outcome, Schema
from ehrmeta.data.clock import ABSURD, FAR
from ehrmeta.errors import DataError, DataWarning, EhrmetaError, GroupError, SchemaError
from ehrmeta.estimators.inputs import (
    Inputs,
    check_parameters,
    check_times,
    check_trainable,
    outcome_name,
    read_inputs,
    read_labels,
    read_numbers,
    report_repeats,
    schema_of,
)
from tests.estimators.patients import make_patients, small_model

SCHEMA = Schema(
    (Feature("age", low=0, high=120), Feature("sex", "categorical")),
    Outcome("hdl"),
    task="patient",
    time=Clock("day"),
)


def _fit_call(**changes):
    X, y, groups, time = make_patients(25, 4)
    return {"X": X, "y": y, "groups": groups, "time": time} | changes


def _patients() -> dict:
    return _fit_call()


BAD_FITS = {
    "outcome is constant": (lambda c: {"y": np.ones(100)}, "'hdl' is constant over all 100 rows"),
    "outcome is text": (lambda c: {"y": ["high"] * 100}, "'hdl' holds text.*numbers"),
    "outcome has limits": (
        lambda c: {"y": ["<5", *c["y"][1:].astype(str)]},
        "'hdl' is below or above a limit, such as '<5', in 1 of 100 rows.*censored='half'",
    ),
    "a feature has limits": (
        lambda c: {"X": c["X"].assign(age=["<5", *c["X"]["age"][1:].astype(str)])},
        "column 'age' is a numeric feature, but holds text. Choose censored='half'",
    ),
    "outcome is NaN": (
        lambda c: {"y": np.where(np.arange(100) == 7, np.nan, c["y"])},
        r"'hdl' is NaN in 1 of 100 rows \(first: row 7, of task 1 of 25\). Drop these rows",
    ),
    "outcome is infinite": (
        lambda c: {"y": np.where(np.arange(100) == 7, np.inf, c["y"])},
        "'hdl' holds infinity",
    ),
    "one explicit group": (
        lambda c: {"groups": np.zeros(100, int)},
        "one task for all 100 rows.*groups=None",
    ),
    "groups too short": (lambda c: {"groups": c["groups"][:-1]}, "groups has 99 rows, X has 100"),
    "group ids missing": (
        lambda c: {"groups": np.where(np.arange(100) == 3, np.nan, c["groups"])},
        r"task id is missing in 1 of 100 rows \(first: row 3\)",
    ),
    "outcome too short": (lambda c: {"y": c["y"][:-1]}, "hdl has 99 rows, X has 100"),
    "time too long": (lambda c: {"time": np.r_[c["time"], 1]}, "time has 101 rows, X has 100"),
    "time missing": (
        lambda c: {"time": np.where(np.arange(100) == 5, np.nan, c["time"])},
        r"time 'day' is NaN in 1 of 100 rows \(first: row 5, of task 1 of 25\)",
    ),
    "time not sortable": (
        lambda c: {"time": ["soon"] * 100},
        "'day' is not an ISO 8601 date in 100 of 100 rows",
    ),
    "time in mixed zones": (
        lambda c: {"time": ["2020-01-01T10:00+01:00"] * 50 + ["2020-01-01T10:00"] * 50},
        "'day' mixes time zones.*Convert all to one",
    ),
    "a repeated patient and time": (
        lambda c: {"time": np.where(np.arange(100) == 6, c["time"][5], c["time"])},
        r"1 rows repeat .* task 1 of 25, rows 5 and 6.*on_duplicate",
    ),
    "a column of the schema is missing": (lambda c: {"X": c["X"][["age"]]}, r"missing \['sex'\]"),
    "a column is not in the schema": (
        lambda c: {"X": c["X"].assign(extra=1.0)},
        r"not in the schema \['extra'\]",
    ),
    "infinite feature": (
        lambda c: {"X": c["X"].assign(age=np.inf)},
        r"column 'age' holds infinity \(inf\) in 100 of 100 rows",
    ),
    "no rows": (
        lambda c: {"X": c["X"][:0], "y": [], "groups": [], "time": []},
        "n_samples=0.*minimum of 2",
    ),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_a_bad_fit_is_refused_and_changes_nothing(case):
    change, message = BAD_FITS[case]
    call = _patients()
    model = small_model(schema=SCHEMA, max_steps=3).fit(**call)
    before = model.predict(call["X"], time=call["time"])
    attributes = {name: id(value) for name, value in vars(model).items()}
    with pytest.raises(EhrmetaError, match=message):
        model.fit(**(call | change(call)))
    assert {name: id(value) for name, value in vars(model).items()} == attributes
    np.testing.assert_array_equal(model.predict(call["X"], time=call["time"]), before)


@pytest.fixture(scope="module")
def fitted():
    return small_model(schema=SCHEMA, max_steps=3).fit(**_patients())


BAD_ADAPTS = {
    "time is missing": ({"time": None}, "fitted with time. Pass time="),
    "an unknown column": ({"X": lambda X: X.assign(extra=1)}, "(?s)unseen at fit time.*extra"),
    "a missing column": ({"X": lambda X: X[["age"]]}, "(?s)seen at fit time, yet now missing.*sex"),
    "another order of columns": ({"X": lambda X: X[["sex", "age"]]}, "same order"),
    "no outcome": ({"y": None}, "requires y"),
    "groups without rows": (
        {"X": lambda X: X[:0], "y": [], "groups": [], "time": []},
        "groups but no rows",
    ),
    "a repeated patient and time": ({"time": np.zeros(100)}, "repeat the time"),
}


@pytest.mark.parametrize("case", BAD_ADAPTS)
def test_a_bad_adapt_is_refused(fitted, case):
    changes, message = BAD_ADAPTS[case]
    call = _patients()
    for name, change in changes.items():
        call[name] = change(call[name]) if callable(change) else change
    with pytest.raises(DataError, match=message):
        fitted.adapt(**call)


def test_time_where_none_was_fitted_is_refused():
    X, y, groups, time = make_patients(25, 4)
    model = small_model(max_steps=2).fit(X, y, groups=groups)
    with pytest.raises(DataError, match="fitted without it. Leave it out"):
        model.adapt(X, y, groups=groups, time=time)


def test_predict_before_fit_says_so():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        small_model().predict(np.zeros((2, 2)))


def test_groups_none_is_one_anonymous_task_with_a_warning():
    X, y, _, _ = make_patients(25, 4)
    with pytest.warns(DataWarning, match="all rows are one task") as caught:
        model = small_model(max_steps=2).fit(X, y)
    assert caught[0].filename == __file__
    assert model.n_tasks_ == 1


def test_without_a_schema_a_repeated_time_is_a_warning():
    call = _patients()
    call["time"] = np.zeros(100)
    with pytest.warns(DataWarning, match="75 rows repeat the time.*task_kind='cohort'"):
        small_model(max_steps=2).fit(**call)


def test_in_cohorts_a_repeated_time_is_normal():
    call = _patients()
    cohort = Schema(SCHEMA.features, Outcome("hdl"), task_kind="cohort", time=Clock("day"))
    model = small_model(schema=cohort, max_steps=2).fit(**(call | {"time": np.zeros(100)}))
    assert model.n_tasks_ == 25


def test_an_unseen_category_is_counted(fitted):
    X, _, _, time = make_patients(25, 4)
    with pytest.warns(DataWarning, match="'sex': 100 with an unknown level, of 100 rows"):
        predicted = fitted.predict(X.assign(sex="unknown"), time=time)
    assert np.isfinite(predicted).all()


def test_implausible_values_count_as_missing_and_are_counted(fitted):
    X, _, _, time = make_patients(25, 4)
    wrong = X.assign(age=np.where(np.arange(100) < 3, 7777.0, X.age))
    with pytest.warns(DataWarning, match=r"'age': 3 \(range 0 to 120\)"):
        masked = fitted.predict(wrong, time=time)
    missing = X.assign(age=np.where(np.arange(100) < 3, np.nan, X.age))
    np.testing.assert_array_equal(masked, fitted.predict(missing, time=time))


def test_groups_are_required_after_adapting_to_groups(fitted):
    call = _patients()
    adapted = fitted.adapt(**call)
    with pytest.raises(DataError, match="groups is missing: .* 25 tasks with ids"):
        adapted.predict(call["X"], time=call["time"])


def test_an_unknown_choice_names_the_choices(fitted):
    call = _patients()
    adapted = fitted.adapt(**call)
    queried = {name: call[name] for name in ("X", "groups", "time")}
    with pytest.raises(DataError, match="'error', 'population' or 'nan'"):
        adapted.predict(**queried, new_groups="mean")
    with pytest.raises(DataError, match="confidence_level must lie strictly between 0 and 1"):
        adapted.predict_interval(**queried, confidence_level=95)
    with pytest.raises(DataError, match=r"likelihood must be one of \['normal', 'student_t'\]"):
        small_model(likelihood="poisson").fit(**call)


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
@pytest.mark.filterwarnings("ignore:.*gross errors:ehrmeta.errors.DataWarning")
def test_no_patient_value_is_in_a_message():
    """Canaries: a value and an id that would be recognised anywhere."""
    call = _patients()
    call["groups"] = np.where(call["groups"] == 3, 987654321, call["groups"])
    call["y"] = np.where(np.arange(100) == 13, 123456.789, call["y"])
    model = small_model(schema=SCHEMA, max_steps=2).fit(**call)
    adapted = model.adapt(**{name: value[:8] for name, value in call.items()})
    messages = []
    for trial in (
        lambda: adapted.predict(call["X"], groups=call["groups"], time=call["time"]),
        lambda: model.fit(**(call | {"time": np.full(100, 555.25)})),
        lambda: model.fit(**(call | {"y": np.full(100, 123456.789)})),
        lambda: model.fit(**(call | {"groups": np.full(100, 987654321)})),
        lambda: model.fit(**(call | {"X": call["X"].assign(age=[*("x" * 99), 123456.789])})),
    ):
        with pytest.raises(EhrmetaError) as error:
            trial()
        messages.append(str(error.value))
    for canary in ("987654321", "123456", "555.25"):
        assert not any(canary in message for message in messages)


def test_a_frame_that_is_not_rectangular_is_refused():
    with pytest.raises(DataError, match="rows have different lengths"):
        small_model().fit([[1.0, 2.0], [3.0]], [1.0, 2.0])


@pytest.mark.filterwarnings("ignore:y has the index of X in another order")
def test_pandas_index_labels_play_no_role():
    call = _patients()
    shuffled = call | {"X": call["X"].set_axis(np.arange(100)[::-1]), "y": pd.Series(call["y"])}
    plain, odd = (small_model(max_steps=2).fit(**c) for c in (call, shuffled))
    np.testing.assert_array_equal(
        plain.predict(call["X"], time=call["time"]), odd.predict(call["X"], time=call["time"])
    )


BAD_PARAMETERS = {
    "shots": (5, 2),
    "max_queries": 0,
    "max_steps": 0,
    "batch_size": 0,
    "patience": 0,
    "chunk_size": 0,
    "precision": "half",
    "compile": "yes",
    "validation_fraction": 1.0,
    "learning_rate": 0.0,
    "outcome_transform": "cube",
    "algorithm": "maml",
    "backbone": (64,),
    "algorithm__inner_lr": -1.0,
    "algorithm__max_inner_norm": -1.0,
    "algorithm__pseudo_count": -1.0,
    "score_shots": 3,
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_an_impossible_parameter_is_named(name):
    model = small_model().set_params(**{name: BAD_PARAMETERS[name]})
    with pytest.raises(DataError, match=f"{name} must be .* got"):
        model.fit(**_patients())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": True}, "max_steps must be a whole number, 1 or more, got True"),
        ({"shots": (0, 0)}, "shots must be a pair .*, the largest 1 or more, got"),
        ({"score_shots": (1, -1)}, "score_shots must be a tuple of one support size or more"),
        ({"algorithm": NeuralProcess(width=0)}, "algorithm__width must be a whole number, 1"),
        ({"algorithm": MAML(inner_lr=2.0)}, "inner_lr=2.0 exceeds max_inner_lr=1.0"),
        ({"backbone": MLP((8, 0))}, "backbone__hidden must be a width, or a tuple"),
        ({"backbone": MLP(activation="gelu")}, "backbone__activation must be one of relu"),
    ],
)
def test_a_parameter_that_trains_nothing_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        small_model().set_params(**changes).fit(**_patients())


@pytest.mark.parametrize("device", ["abacus", "meta", None])
def test_an_unknown_device_is_named(device):
    with pytest.raises(DataError, match="device must be"):
        small_model(device=device).fit(**_patients())


def test_ids_beyond_float_precision_stay_distinct():
    ids = np.array([2**60 + i for i in range(25)], dtype=object)
    call = _patients()
    model = small_model(max_steps=2).fit(**(call | {"groups": ids[call["groups"]]}))
    assert model.n_tasks_ == 25


def test_dates_where_numbers_were_fitted_are_refused(fitted):
    call = _patients()
    with pytest.raises(DataError, match="fitted with numbers"):
        fitted.adapt(
            **(
                call
                | {"time": pd.Timestamp("2020-01-01") + pd.to_timedelta(call["time"], unit="D")}
            )
        )


def test_an_update_is_checked_like_an_adapt(fitted):
    call = _patients()
    adapted = fitted.adapt(**call)
    later = call | {"time": call["time"] + 100.0}
    with pytest.raises(DataError, match="requires y"):
        adapted.update(**(later | {"y": None}))
    with pytest.raises(DataError, match="repeat the time of a row that their task already has"):
        adapted.update(**call)
    with pytest.raises(DataError, match="groups holds text"):
        adapted.update(**(later | {"groups": [f"p{i}" for i in later["groups"]]}))


def test_a_column_dropped_from_a_table_keeps_the_other_roles():
    X, y, groups, time = make_patients(25, 4)
    schema = Schema(
        (Feature("age"), Feature("sex", "categorical"), Feature("lab", role="measured")),
        Outcome("hdl"),
        time=Clock("day"),
    )
    X = X.assign(lab=y)
    X.attrs["ehrmeta_schema"] = schema.to_dict()
    model = small_model(max_steps=2).fit(X.drop(columns="sex"), y, groups=groups, time=time)
    assert model.schema_.measured == ("lab",)


def test_a_forgotten_clock_is_a_warning():
    X, y, groups, _ = make_patients(25, 4)
    with pytest.warns(DataWarning, match="time= was not passed") as caught:
        small_model(schema=SCHEMA, max_steps=2).fit(X, y, groups=groups)
    assert caught[0].filename == __file__


def test_one_long_record_does_not_pad_the_others(fitted):
    """Chunks of supports are bounded by padded points, not by tasks alone."""
    sizes = np.r_[3000, np.ones(400, int)]
    groups = np.repeat(np.arange(401), sizes)
    X = pd.DataFrame({"age": np.full(len(groups), 50.0), "sex": "f"})
    y = np.random.default_rng(0).normal(50, 1, len(groups))
    time = np.linspace(0.0, 90.0, len(groups))
    adapted = fitted.adapt(X, y, groups=groups, time=time)
    assert max(chunk.mask.numel() for chunk in adapted._state) <= 32_768
    assert sum(len(chunk.tasks) for chunk in adapted._state) == 401


START = pd.Timestamp("2020-01-01")
KINDS = {
    "timedelta": lambda time: pd.Series(pd.to_timedelta(time, unit="D")),
    "Duration": lambda time: pl.Series(pd.to_timedelta(time, unit="D")),
    "Period": lambda time: pd.Series(START + pd.to_timedelta(time, unit="D")).dt.to_period("D"),
    "dates": lambda time: (START + pd.to_timedelta(time, unit="D")).date.tolist(),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("in_table", [False, True])
def test_times_of_every_kind_give_the_numbers_of_days(kind, in_table):
    X, y, groups, time = make_patients(25, 4)
    expected = small_model(max_steps=2).fit(X, y, groups=groups, time=time)
    expected = expected.predict(X[:6], time=time[:6])
    if in_table:
        X = X.assign(day=list(kind(time)))
        model = small_model(max_steps=2, time="day").fit(X, y, groups=groups)
        predicted = model.predict(X[:6])
    else:
        model = small_model(max_steps=2).fit(X, y, groups=groups, time=kind(time))
        predicted = model.predict(X[:6], time=kind(time)[:6])
    np.testing.assert_allclose(predicted, expected, rtol=1e-4)


def test_the_index_of_x_in_another_order_is_warned_of():
    X, y = pd.DataFrame({"a": [1.0, 2.0, 3.0]}), pd.Series([4.0, 5.0, 6.0])
    with pytest.warns(DataWarning, match="y has the index of X in another order"):
        inputs = read_inputs(X, y[::-1])
    assert inputs.outcome().tolist() == [6.0, 5.0, 4.0]
    read_inputs(X, y.set_axis([7, 8, 9]))


@pytest.mark.filterwarnings("ignore:.*several time zones:ehrmeta.errors.DataWarning")
@pytest.mark.parametrize("fitted_with_zone", [True, False])
def test_dates_with_and_without_a_zone_do_not_mix(fitted_with_zone, tmp_path):
    X, y, groups, time = make_patients(25, 4)
    naive = pd.Series(START + pd.to_timedelta(time, unit="D"))
    here, other = naive, naive.dt.tz_localize("Europe/Berlin")
    if fitted_with_zone:
        here, other = other, here
    model = small_model(max_steps=2).fit(X, y, groups=groups, time=here)
    model.save(tmp_path / "model.ehrmeta", rare_levels="keep")
    model = MetaRegressor.load(tmp_path / "model.ehrmeta")
    assert np.isfinite(model.predict(X, time=here)).all()
    with pytest.raises(DataError, match="time zone"):
        model.predict(X, time=other)
    with pytest.raises(DataError, match="time zone"):
        model.adapt(X, y, groups=groups, time=other.astype(str))


def test_an_older_model_does_not_know_of_zones(fitted):
    model = fitted.model_
    older = replace(model, table=replace(model.table, zoned=None, period=None, dated=True))
    for zone in (None, "UTC"):
        stamps = pd.Series(pd.to_datetime(["2020-01-01"])).dt.tz_localize(zone)
        assert older.read(make_patients(1, 1).X, time=stamps).zoned is (zone is not None)


def test_uuids_name_tasks():
    X, y, groups, time = make_patients(25, 4)
    ids = np.array([uuid.UUID(int=number + 1) for number in groups], dtype=object)
    model = small_model(max_steps=2).fit(X, y, groups=ids, time=time)
    adapted = model.adapt(X[:4], y[:4], groups=ids[:4], time=time[:4])
    assert adapted.labels_.tolist() == [str(ids[0])]
    assert len(adapted.predict(X[:2], groups=ids[:2], time=time[:2] + 100)) == 2


def test_rows_far_outside_the_training_period_are_counted(fitted):
    call = _patients()
    time = call["time"].copy()
    time[[3, 8]] = [1e5, -1e5]
    with pytest.warns(DataWarning, match=r"2 of 100 rows \(first: row 3\) lies far outside"):
        fitted.predict(call["X"], time=time)
    with pytest.warns(DataWarning, match="far outside the training period"):
        fitted.adapt(call["X"], call["y"], groups=call["groups"], time=call["time"] + 1e4)


@pytest.mark.parametrize(("value", "kind"), [(1e6, "warned"), (1e12, "refused")])
def test_training_times_far_from_all_others_are_reported(value, kind):
    call = _fit_call()
    call["time"][7] = value
    model = small_model(max_steps=1)
    if kind == "warned":
        with pytest.warns(DataWarning, match=r"'time' is far from all .* in 1 of 100 rows .*row 7"):
            model.fit(**call)
    else:
        with pytest.raises(DataError, match=r"'time': the time is implausibly far.* 1 of 100 rows"):
            model.fit(**call)


@pytest.mark.parametrize(
    "empty", [pd.DataFrame(index=range(100)), np.empty((100, 0)), pl.DataFrame()]
)
def test_times_and_outcomes_alone_are_fitted(empty):
    _, y, groups, time = make_patients(25, 4)
    model = small_model(max_steps=2).fit(empty, y, groups=groups, time=time)
    adapted = model.adapt(empty, y, groups=groups, time=time)
    later = adapted.predict(empty, groups=groups, time=time + 100)
    assert np.std(later) > 0
    in_columns = pd.DataFrame({"patient": groups, "day": time})
    named = small_model(max_steps=2, task="patient", time="day").fit(in_columns, y)
    np.testing.assert_array_equal(named.predict(in_columns), model.predict(empty, time=time))
    with pytest.raises(DataError, match=r"0 feature\(s\)"):
        small_model(max_steps=2).fit(empty, y, groups=groups)


@pytest.mark.parametrize("estimator", [LastValue(), MixedEffects(), PopulationBoosting()])
def test_baselines_need_no_feature_but_the_clock(estimator):
    _, y, groups, time = make_patients(25, 4)
    empty = pd.DataFrame(index=range(100))
    estimator.fit(empty, y, groups=groups, time=time)
    assert np.isfinite(estimator.predict(empty, time=time)).all()


def test_repeated_rows_in_a_support_are_warned_of_as_at_fit(fitted):
    call = _patients()
    call["time"][1] = call["time"][0]
    with pytest.warns(DataWarning, match="1 rows repeat the time of another row"):
        adapted = small_model(max_steps=1).fit(**_fit_call()).adapt(**call)
    with pytest.warns(DataWarning, match="100 rows of the update repeat the time"):
        adapted.update(**call)


def test_lazy_frames_are_collected():
    X, y, groups, time = make_patients(25, 4)
    lazy = pl.LazyFrame(X)
    model = small_model(max_steps=2).fit(lazy, y, groups=groups, time=time)
    adapted = model.adapt(lazy, y, groups=groups, time=time)
    later = {"groups": groups, "time": time + 100}
    expected = adapted.predict(X, **later)
    np.testing.assert_array_equal(adapted.predict(lazy, **later), expected)
    frame = adapted.predict_frame(lazy, **later)
    np.testing.assert_array_equal(frame["mean"], expected)
    assert np.isfinite(model.score(lazy, y, groups=groups, time=time))


FRAME = pd.DataFrame({"id": list("bbaa"), "day": [1.0, 0.0, 0.0, 2.0], "age": [1.0, 2, 3, 4]})


def test_named_columns_are_tasks_and_times_unless_they_are_passed():
    named = {"task_column": "id", "time_column": "day"}
    inputs = read_inputs(FRAME, [1.0, 2, 3, 4], **named)
    assert list(inputs.columns) == ["age"]
    assert (inputs.groups.tolist(), inputs.time.tolist()) == (list("bbaa"), [1.0, 0.0, 0.0, 2.0])
    tasks = inputs.tasks()
    assert (tasks.labels.tolist(), tasks.order.tolist()) == (["a", "b"], [2, 3, 1, 0])
    passed = read_inputs(FRAME, groups=[1, 1, 2, 3], time=[4, 3, 2, 1], **named)
    assert (passed.groups.tolist(), passed.time.tolist()) == ([1, 1, 2, 3], [4.0, 3.0, 2.0, 1.0])
    assert list(passed.columns) == ["age"]
    assert passed.tasks().n_tasks == 3
    for name, message in (("task_column", "'patient'"), ("time_column", "'patient'")):
        with pytest.raises(SchemaError, match=f"column {message} is not in X"):
            read_inputs(FRAME, **{name: "patient"})
    assert read_inputs(FRAME, groups=list("abcd"), task_column="patient").groups is not None
    categories = read_inputs(FRAME, groups=pd.Series(pd.Categorical([3, 3, 1, 1])))
    assert categories.groups.dtype.kind == "i"


def test_rows_without_groups_are_one_task_in_time_order():
    tasks = read_inputs(FRAME[["age"]], time=FRAME["day"]).tasks()
    assert (tasks.n_tasks, tasks.order.tolist()) == (1, [1, 2, 0, 3])
    assert tasks.codes.tolist() == [0] * 4
    plain = read_inputs(FRAME[["age"]]).tasks()
    assert (plain.order.tolist(), plain.starts.tolist()) == ([0, 1, 2, 3], [0, 4])
    nobody = read_inputs(FRAME[["age"]][:0]).tasks()
    assert (nobody.n_tasks, len(nobody.codes)) == (0, 0)


def test_a_column_is_needed_unless_the_clock_is_enough():
    times = FRAME[["day"]]
    with pytest.raises(DataError, match=r"0 feature\(s\) \(shape=\(4, 0\)\) while a minimum of 1"):
        read_inputs(times, time_column="day")
    inputs = read_inputs(times, time_column="day", clock_is_enough=True)
    assert (inputs.n_rows, inputs.columns) == (4, {})
    with pytest.raises(DataError, match="minimum of 1 is required"):
        read_inputs(FRAME[["id"]], task_column="id", clock_is_enough=True)
    empty = read_inputs(pl.DataFrame(), time=[1.0, 2.0], clock_is_enough=True)
    assert empty.n_rows == 2
    assert list(read_inputs(np.empty((0, 2))).columns) == ["x0", "x1"]
    assert list(read_inputs(FRAME[:0]).columns) == ["id", "day", "age"]


def test_outcomes_are_numbers_or_labels():
    assert read_numbers([True, False], "y").tolist() == [1.0, 0.0]
    with pytest.warns(UserWarning, match="column-vector"):
        column = read_inputs(FRAME, np.array([[1.0], [2], [3], [4]]))
    assert column.y.tolist() == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(DataError, match=r"'y' is below or above a limit.*2 of 3 rows"):
        read_numbers(["<5", "7", ">9"], "y")
    with pytest.raises(DataError, match="holds dates, which cannot be classes"):
        read_labels(pd.date_range("2020", periods=2), "y")
    assert read_labels(["a", "b"], "y").tolist() == ["a", "b"]
    with pytest.raises(DataError, match=r"'y' is NaN in 2 of 4 rows \(first: row 1\). Drop"):
        read_inputs(FRAME, ["a", None, "b", None], read_outcome=read_labels)
    with pytest.raises(DataError, match=r"first: row 2, of task 0 of 2\)"):
        read_inputs(FRAME, [1.0, 2.0, np.nan, 3.0], groups=list("bbaa"))
    assert read_inputs(FRAME, [1, 2, 3, 4], outcome="hdl").outcome().dtype == np.float64
    with pytest.raises(DataError, match="requires y to be passed"):
        read_inputs(FRAME).outcome()


def test_repeated_visits_are_counted_with_the_first_of_them():
    inputs = read_inputs(FRAME[["age"]], groups=list("aabb"), time=[1.0, 2.0, 3.0, 3.0])
    tasks = inputs.tasks()
    message = r"1 rows repeat .* \(first in task 1 of 2, rows 2 and 3\)"
    with pytest.raises(DataError, match=message):
        report_repeats(tasks, inputs.time, "patient")
    with pytest.warns(DataWarning, match=message):
        report_repeats(tasks, inputs.time, None)
    report_repeats(tasks, inputs.time, "cohort")
    across = read_inputs(FRAME[["age"]], groups=list("aabb"), time=[1.0, 3.0, 3.0, 4.0])
    report_repeats(across.tasks(), across.time, "patient")


def _trainable(**changes):
    given = {"y": [1.0, 5.0, 2.0, 3.0], "groups": list("aabb"), "time": [0.0, 1.0, 0.0, 1.0]}
    return read_inputs(FRAME[["age"]], **given | changes)


@pytest.mark.filterwarnings("ignore:.*too few to tell how tasks differ")
def test_a_model_is_fitted_to_two_rows_of_several_tasks_or_more():
    check_trainable(_trainable(), None)
    two = read_inputs(FRAME[["age"]][:2], [1.0, 2.0])
    with pytest.warns(DataWarning, match="groups=None"):
        check_trainable(two, None)
    with pytest.raises(DataError, match="n_samples=1 while a minimum of 2"):
        check_trainable(read_inputs(FRAME[["age"]][:1], [1.0]), None)
    with pytest.raises(GroupError, match="there is one task for all 4 rows"):
        check_trainable(_trainable(groups=[1, 1, 1, 1]), None)
    measured = Schema((Feature("age", role="measured"),), time=Clock("day"))
    with pytest.raises(DataError, match=r"measured feature\(s\) \['age'\] need time="):
        check_trainable(_trainable(time=None), measured)
    check_trainable(_trainable(), measured)
    clock = Schema((Feature("age"),), time=Clock("day"))
    with pytest.warns(DataWarning, match=r"the schema has a clock \('day'\)"):
        check_trainable(_trainable(time=None), clock)


def test_copies_of_the_outcome_are_refused_unless_they_are_known_later_only():
    age = np.random.default_rng(0).uniform(20, 80, 60)
    visits = {"groups": np.arange(60) // 3, "time": np.arange(60) % 3.0}
    copied = read_inputs(pd.DataFrame({"age": age}), 2.0 * age, **visits)
    with pytest.raises(DataError, match="copies of the outcome"):
        check_trainable(copied, None)
    lagged = Schema((Feature("age", role="measured"),), time=Clock("day"))
    check_trainable(copied, lagged)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("shots", [(0, 1), (3, 3), [0, 10]], [(0, 0), (2, 1), (1,), (0, 1, 2), (-1, 2), (0.0, 1)]),
        ("score_shots", [(0,), [1, 3]], [(), 3, (1.0,), (True,)]),
        ("max_steps", [1, np.int64(3)], [0, 1.0, True, "1", None]),
        ("learning_rate", [1e-9, 1, np.float32(0.1)], [0, -1.0, True, "1"]),
        ("weight_decay", [0, 1.0], [-1e-9, True]),
        ("n_deep", [0, 3], [-1, 1.0]),
        ("chunk_size", [None, 1], [0, 1.5]),
        ("compile", [True, False, np.True_], [1, None]),
        ("max_inner_norm", [None, 0.1, 1e18], [0.0, 1e19, np.inf]),
        ("first_order_share", [0, 1, 0.5], [-0.1, 1.1, True]),
        ("hidden", [8, (8, 8), ()], [0, (0,), 8.0, "8"]),
        ("activation", ["tanh", "relu"], ["gelu", None]),
        ("validation_fraction", [0, 0.99], [1, -0.1, True]),
        ("outcome_transform", ["log", "sqrt", None], ["cube"]),
        ("known", [None, ["a"], ("a",), pd.Index(["a"])], ["a", [1]]),
        ("algorithm", [None, MAML()], [MLP()]),
        ("backbone", [None, MLP()], [MAML()]),
        ("schema", [None, SCHEMA], ["hdl"]),
        ("pseudo_count", [0, 2.5], [-1.0]),
        ("inner_lr", [0.1], [0]),
    ],
)
def test_every_parameter_has_its_rule(name, right, wrong):
    for value in right:
        check_parameters({name: value}, classes=False)
    for value in wrong:
        with pytest.raises(DataError, match=f"{name} must be .*, got"):
            check_parameters({name: value}, classes=False)


def test_rules_hold_for_parts_but_not_for_models_of_scikit_learn():
    with pytest.raises(DataError, match="algorithm__inner_steps must be a whole number"):
        check_parameters({"algorithm": MAML(inner_steps=0)}, classes=False)
    check_parameters({"population": Ridge(max_iter=0)}, classes=False)
    check_parameters({"algorithm": MAML(inner_lr=1.0, max_inner_lr=1.0)}, classes=False)
    with pytest.raises(DataError, match=r"algorithm__inner_lr=1.1 exceeds max_inner_lr=1.0"):
        check_parameters({"algorithm": MAML(inner_lr=1.1, max_inner_lr=1.0)}, classes=False)
    check_parameters({"population": LogisticRegression()}, classes=True)
    for population, classes in ((Ridge(), True), (LogisticRegression(), False), ("ridge", False)):
        with pytest.raises(DataError, match="population must be a scikit-learn"):
            check_parameters({"population": population}, classes=classes)


def test_a_tables_schema_follows_its_columns():
    frame = FRAME[["age"]].copy()
    schema = Schema((Feature("age"), Feature("sex")))
    frame.attrs["ehrmeta_schema"] = schema.to_dict()
    assert schema_of(None, frame).names == ("age",)
    assert schema_of(SCHEMA, frame) is SCHEMA
    assert schema_of(None, FRAME) is None
    assert (outcome_name(None), outcome_name(schema), outcome_name(SCHEMA)) == ("y", "y", "hdl")


def test_far_times_are_counted_and_dates_as_numbers_hinted_at():
    time = np.linspace(0.0, 100.0, 200)
    check_times(time, None)
    for factor, kind in ((FAR * 95, "warned"), (FAR * 85, "silent"), (ABSURD * 95, "refused")):
        far = np.append(time, factor)
        if kind == "warned":
            message = r"'time' is far from all others in 1 of 201 rows \(first: row 200\)"
            with pytest.warns(DataWarning, match=message) as caught:
                check_times(far, None)
            assert caught[0].filename == __file__
        elif kind == "silent":
            check_times(far, None)
        else:
            with pytest.raises(DataError, match="implausibly far from the others in 1 of 201"):
                check_times(far, SCHEMA)
    with pytest.warns(DataWarning, match="'day'") as caught:
        check_times(20200101.0 + np.arange(28.0), SCHEMA)
    assert caught[0].filename == __file__


def test_inputs_cannot_be_changed():
    assert Inputs.__dataclass_params__.frozen
