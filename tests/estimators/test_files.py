import copy
import json
import math
import os
import stat
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from ehrmeta import (
    MAML,
    MLP,
    Adapted,
    ConformalRegressor,
    Feature,
    MetaClassifier,
    MetaRegressor,
    MetaSGD,
    Outcome,
    Schema,
    TorchModule,
    load,
)
from ehrmeta.errors import BundleError, DataError, DataWarning, NotFittedError
from ehrmeta.estimators.files import (
    data_digest,
    digest,
    from_json,
    label_bytes,
    label_type,
    provenance,
    read_label_bytes,
    read_support,
    support_tensors,
    tensor_like,
    to_json,
)
from ehrmeta.estimators.table_encoder import Classes
from ehrmeta.persistence import read_bundle, write_bundle
from tests.estimators.patients import make_patients, small_model

LEVELS = (0.05, 0.5, 0.95)


def forecasts(adapted, query):
    X, _, groups, time = query
    queried = {"groups": groups, "time": time}
    point = adapted.predict(X, **queried)
    return np.column_stack([point, adapted.predict_quantiles(X, LEVELS, **queried)])


def rewritten(path, change, tensors=lambda found: found):
    """The file with other settings and valid digests, as a forger would write it."""
    found, metadata = read_bundle(path)
    metadata = copy.deepcopy(metadata)
    change(metadata)
    forged = path.with_name("forged.ehrmeta")
    write_bundle(forged, tensors(found), metadata)
    return forged


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model.ehrmeta"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def saved_patients(model, halves, tmp_path_factory):
    X, y, groups, time = halves[0]
    path = tmp_path_factory.mktemp("files") / "patients.ehrmeta"
    model.adapt(X, y, groups=groups, time=time).save(path)
    return path


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
@pytest.mark.parametrize(
    "algorithm", [MAML(inner_steps=2), MAML(first_order=True, pseudo_count=0), MetaSGD()], ids=str
)
def test_a_loaded_model_adapts_and_predicts_bit_for_bit_the_same(
    algorithm, likelihood, precision, patients, halves, tmp_path
):
    X, y, groups, time = patients
    made = small_model(
        algorithm=algorithm, likelihood=likelihood, precision=precision, max_steps=20
    ).fit(X, y, groups=groups, time=time)
    made.save(tmp_path / "model.ehrmeta")
    loaded = MetaRegressor.load(tmp_path / "model.ehrmeta")
    support, query = halves
    before, after = (
        m.adapt(support.X, support.y, groups=support.groups, time=support.time)
        for m in (made, loaded)
    )
    np.testing.assert_array_equal(forecasts(before, query), forecasts(after, query))
    np.testing.assert_array_equal(before.atypical_, after.atypical_)
    np.testing.assert_array_equal(
        made.predict(query.X, time=query.time), loaded.predict(query.X, time=query.time)
    )


def test_everything_fitted_comes_back(model, saved):
    loaded = MetaRegressor.load(saved)
    assert vars(loaded).keys() - vars(model).keys() == {"provenance_"}
    assert vars(model).keys() <= vars(loaded).keys()
    assert loaded.history_ == model.history_
    assert loaded.table_ == model.table_
    assert loaded.n_tasks_ == model.n_tasks_
    assert list(loaded.feature_names_in_) == ["age", "sex"]
    assert repr(loaded) == repr(model)
    assert loaded.provenance_["random_state"] == 0
    assert loaded.provenance_["torch"] == torch.__version__
    assert len(loaded.provenance_["data_sha256"]) == 64


def test_the_digest_of_the_data_changes_with_the_data_alone(patients):
    X, y, groups, time = patients
    one, same, other = (
        small_model(max_steps=1, random_state=seed).fit(X, outcome, groups=groups, time=time)
        for seed, outcome in ((0, y), (1, y), (0, y + np.arange(len(y)) / 100))
    )
    assert one.data_digest_ == same.data_digest_ != other.data_digest_


def test_the_digest_of_the_data_ignores_the_order_of_rows(patients):
    X, y, groups, _ = patients
    order = np.random.default_rng(0).permutation(len(y))
    one = small_model(max_steps=1).fit(X, y, groups=groups)
    _, rows = one.model_.read_support(X.iloc[order], y[order], groups=groups[order])
    assert data_digest(rows) == one.data_digest_


def test_settings_come_back_in_their_own_types(patients, tmp_path):
    X, y, groups, time = patients
    schema = Schema(
        (Feature("age", unit="a"), Feature("sex", kind="categorical")), Outcome("hdl", unit="mg/dL")
    )
    made = small_model(
        schema=schema,
        backbone=MLP((5, 4)),
        algorithm=MetaSGD(inner_lr=np.float64(0.05), max_inner_norm=None, mixed_start=False),
        shots=(0, 4),
        score_shots=(1, 2),
        max_steps=np.int64(5),
        validation_fraction=0.0,
        callbacks=[lambda record: None],
        random_state=np.random.RandomState(0),
    ).fit(X, y, groups=groups, time=time)
    made.save(tmp_path / "model.ehrmeta")
    loaded = MetaRegressor.load(tmp_path / "model.ehrmeta")
    assert loaded.get_params(deep=False)["schema"] == schema == loaded.schema_
    assert (loaded.shots, loaded.score_shots, loaded.max_steps) == ((0, 4), (1, 2), 5)
    assert loaded.backbone.get_params() == MLP((5, 4)).get_params()
    assert loaded.algorithm.get_params() == made.algorithm.get_params()
    assert loaded.random_state is None
    assert loaded.callbacks == ()
    assert np.isnan(loaded.history_[-1]["held_out_loss"])
    loaded.fit(X, y, groups=groups, time=time)


def test_default_parts_come_back_as_they_were_not_as_they_are(patients, halves, tmp_path):
    X, y, groups, time = patients
    made = small_model(algorithm=None, backbone=None, max_steps=2)
    made.fit(X, y, groups=groups, time=time).save(tmp_path / "model.ehrmeta")
    loaded = MetaRegressor.load(tmp_path / "model.ehrmeta")
    assert loaded.algorithm is None
    assert loaded.backbone is None
    query = halves[1]
    np.testing.assert_array_equal(
        made.predict(query.X, time=query.time), loaded.predict(query.X, time=query.time)
    )


def test_arrays_without_names_come_back_without_names(tmp_path):
    X, y, groups, _ = make_patients(20)
    made = small_model(max_steps=2).fit(X[["age"]].to_numpy(), y, groups=groups)
    made.save(tmp_path / "model.ehrmeta")
    loaded = MetaRegressor.load(tmp_path / "model.ehrmeta")
    assert not hasattr(loaded, "feature_names_in_")
    assert loaded.n_features_in_ == 1


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_adapted_patients_come_back_bit_for_bit_and_go_on(model, halves, saved_patients):
    support, query = halves
    before = model.adapt(support.X, support.y, groups=support.groups, time=support.time)
    after = Adapted.load(saved_patients)
    np.testing.assert_array_equal(before.labels_, after.labels_)
    np.testing.assert_array_equal(before.n_shots_, after.n_shots_)
    np.testing.assert_array_equal(forecasts(before, query), forecasts(after, query))
    one = query.groups == query.groups[0]
    more = {"groups": query.groups[one][:1], "time": query.time[one][:1]}
    grown = [p.update(query.X[one][:1], query.y[one][:1], **more) for p in (before, after)]
    np.testing.assert_array_equal(*(forecasts(p, query) for p in grown))


@pytest.mark.parametrize(
    "labels",
    [
        ["a'b", "zürich"],
        [1.5, -2.0],
        [True, False],
        np.array(["2020-01-01", "2021-01-01"], "datetime64[ns]"),
    ],
    ids=["text", "float", "bool", "date"],
)
def test_task_labels_of_every_type_come_back(labels, tmp_path):
    X, y, groups, _ = make_patients(40)
    model = small_model(max_steps=2).fit(X, y, groups=groups)
    support = pd.Series(labels).repeat(2).to_numpy()
    adapted = model.adapt(X[:4], y[:4], groups=support)
    adapted.save(tmp_path / "patients.ehrmeta")
    loaded = Adapted.load(tmp_path / "patients.ehrmeta")
    assert loaded.labels_.dtype == adapted.labels_.dtype
    assert loaded.labels_.tolist() == adapted.labels_.tolist()
    np.testing.assert_array_equal(
        adapted.predict(X[:4], groups=support), loaded.predict(X[:4], groups=support)
    )


def test_one_unnamed_patient_and_missing_measurements_come_back(patients, halves, tmp_path):
    X, y, groups, time = patients
    lab = pd.Series(y + 1.0).where(np.arange(len(y)) % 3 > 0)
    schema = Schema.infer(
        X.assign(lab=lab, day=time, hdl=y), outcome="hdl", time="day", measured=["lab"]
    )
    table = X.assign(lab=lab)
    model = small_model(schema=schema, max_steps=10).fit(table, y, groups=groups, time=time)
    adapted = model.adapt(table[:3], y[:3], time=time[:3])
    adapted.save(tmp_path / "one.ehrmeta")
    loaded = Adapted.load(tmp_path / "one.ehrmeta")
    assert loaded.labels_ is None
    queried = {"time": time[3:6]}
    np.testing.assert_array_equal(
        adapted.predict(table[3:6], **queried), loaded.predict(table[3:6], **queried)
    )
    model.unadapted().save(tmp_path / "nobody.ehrmeta")
    nobody = Adapted.load(tmp_path / "nobody.ehrmeta")
    np.testing.assert_array_equal(
        nobody.predict(table[3:6], **queried), model.predict(table[3:6], **queried)
    )


def test_a_model_file_holds_no_label_and_no_rare_level(tmp_path):
    X, y, groups, time = make_patients(60)
    X.loc[groups <= 7, "sex"] = "rare-level"
    names = np.array([f"patient-{group}-secret" for group in groups], dtype=object)
    model = small_model(max_steps=2).fit(X, y, groups=names, time=time)
    path = tmp_path / "model.ehrmeta"
    with pytest.warns(DataWarning, match=r"fewer than eleven patients .* \('sex': 1\)"):
        model.save(path)
    assert b"secret" not in path.read_bytes()
    assert b"rare-level" not in path.read_bytes()
    assert "contains_patient_data" not in read_bundle(path)[1]
    with pytest.warns(DataWarning, match="'sex': 3 with an unknown level"):
        without = MetaRegressor.load(path).predict(X[:3], time=time[:3])
    with pytest.warns(DataWarning, match="'sex': 3 with an unknown level"):
        unknown = model.predict(X[:3].assign(sex="?"), time=time[:3])
    np.testing.assert_array_equal(without, unknown)

    model.save(path, rare_levels="keep")
    assert read_bundle(path)[1]["contains_patient_data"] is True
    loaded = MetaRegressor.load(path)
    predicted = loaded.predict(X[:3], time=time[:3])
    np.testing.assert_array_equal(predicted, model.predict(X[:3], time=time[:3]))
    with pytest.warns(DataWarning, match="not named in the file"):
        loaded.save(path)
    with pytest.raises(DataError, match="rare_levels must be 'drop' or 'keep', got 'hide'"):
        model.save(path, rare_levels="hide")


@pytest.mark.parametrize("saves", ["classifier", "calibrated", "calibrated adapted"])
def test_every_file_names_rare_levels_on_request_only(saves, tmp_path):
    X, y, groups, time = make_patients(40)
    X.loc[groups <= 7, "sex"] = "rare-level"
    rows = {"groups": groups, "time": time}
    if saves == "classifier":
        saved = MetaClassifier(MAML(), max_steps=1, random_state=0).fit(X, y > 52, **rows)
    else:
        saved = ConformalRegressor(small_model(max_steps=1).fit(X, y, **rows), shots=(2,))
        saved = saved.calibrate(X, y, **rows, allow_training_table=True)
    if saves == "calibrated adapted":
        saved = saved.adapt(X[:3], y[:3], time=time[:3])
    path = tmp_path / "it.ehrmeta"
    with pytest.warns(DataWarning, match="not named in the file"):
        saved.save(path)
    assert b"rare-level" not in path.read_bytes()
    saved.save(path, rare_levels="keep")
    assert b"rare-level" in path.read_bytes()
    assert read_bundle(path)[1]["contains_patient_data"] is True
    kept, before = (it.predict(X[3:6], time=time[3:6]) for it in (load(path), saved))
    np.testing.assert_array_equal(kept, before)


def test_files_of_adapted_patients_name_no_rare_level_of_others(tmp_path):
    X, y, groups, time = make_patients(60)
    X.loc[groups <= 7, "sex"] = "rare-level"
    names = np.array([f"patient-{group}-secret" for group in groups], dtype=object)
    model = small_model(max_steps=2).fit(X, y, groups=names, time=time)
    path = tmp_path / "adapted.ehrmeta"
    adapted = model.adapt(X[:3], y[:3], groups=names[:3], time=time[:3])
    with pytest.warns(DataWarning, match="not named in the file"):
        adapted.save(path)
    assert b"rare-level" not in path.read_bytes()
    assert read_bundle(path)[1]["contains_patient_data"] is True


def test_each_kind_of_file_names_the_other_reader(saved, saved_patients):
    with pytest.raises(BundleError, match=r"a model without patients.*MetaRegressor\.load"):
        Adapted.load(saved)
    with pytest.raises(BundleError, match=r"adapted patients, not a model.*Adapted\.load"):
        MetaRegressor.load(saved_patients)


def name_class(metadata):
    metadata["model"]["class"] = "os.system"


def name_algorithm(metadata):
    metadata["model"]["algorithm"]["class"] = "subprocess.Popen"


def name_nested(metadata):
    metadata["model"]["settings"]["backbone"] = {"class": "eval", "params": {}}


def swap_parts(metadata):
    metadata["model"]["algorithm"] = metadata["model"]["backbone"]


def add_setting(metadata):
    metadata["model"]["settings"]["command"] = "rm"


def drop_setting(metadata):
    del metadata["model"]["table"]["encoder"]


def widen(metadata):
    metadata["model"]["backbone"]["params"]["hidden"] = {"tuple": [9]}


def change_kind(metadata):
    metadata["kind"] = "zip"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (name_class, "'os.system' is not allowed in model files"),
        (name_algorithm, "'subprocess.Popen' is not allowed in model files"),
        (name_nested, "'eval' is not allowed in model files"),
        (swap_parts, "is not an Algorithm, or its 'backbone'"),
        (add_setting, "do not fit together"),
        (drop_setting, "do not fit together"),
        (widen, "its settings imply"),
        (change_kind, "kind 'zip' is unknown"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_forged_file_is_refused(saved, change, message):
    with pytest.raises(BundleError, match=message):
        MetaRegressor.load(rewritten(saved, change))


def test_weights_that_do_not_belong_are_refused(saved):
    first = next(iter(read_bundle(saved)[0]))
    extra = rewritten(saved, lambda m: None, lambda t: t | {"params.extra": torch.zeros(1)})
    with pytest.raises(BundleError, match="weight tensors; its settings imply"):
        MetaRegressor.load(extra)
    fewer = rewritten(saved, lambda m: None, lambda t: {k: v for k, v in t.items() if k != first})
    with pytest.raises(BundleError, match="is missing"):
        MetaRegressor.load(fewer)


def other_starts(tensors):
    return tensors | {"support.starts": tensors["support.starts"] + 1}


def other_width(tensors):
    return tensors | {"support.x": tensors["support.x"][:, :1]}


def fewer_labels(tensors):
    text = json.dumps([1, 2]).encode()
    return tensors | {"labels": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (other_starts, "are not divided into tasks"),
        (other_width, "its settings imply"),
        (fewer_labels, "2 task labels for 20 tasks"),
    ],
    ids=["starts", "width", "labels"],
)
def test_a_forged_support_is_refused(saved_patients, tensors, message):
    with pytest.raises(BundleError, match=message):
        Adapted.load(rewritten(saved_patients, lambda m: None, tensors))


def test_a_forged_type_of_labels_is_refused(saved_patients):
    forged = rewritten(saved_patients, lambda metadata: metadata.update(labels="V8"))
    with pytest.raises(BundleError, match="task labels are 'V8'"):
        Adapted.load(forged)


def test_a_truncated_file_is_refused_and_named(saved):
    short = saved.with_name("short.ehrmeta")
    short.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"short\.ehrmeta.*truncated"):
        MetaRegressor.load(short)


class OwnAlgorithm(MAML):
    pass


class OwnModel(MetaRegressor):
    pass


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"backbone": TorchModule(torch.nn.Linear)}, "backbone=TorchModule cannot be saved"),
        (
            {"algorithm": OwnAlgorithm()},
            "algorithm=OwnAlgorithm cannot be saved: a file holds no code",
        ),
    ],
    ids=["TorchModule", "own algorithm"],
)
def test_what_no_file_can_hold_is_refused_and_the_old_file_survives(parameters, message, tmp_path):
    X, y, groups, _ = make_patients(20)
    path = tmp_path / "model.ehrmeta"
    path.write_text("the old file")
    model = small_model(**parameters, max_steps=2).fit(X[["age"]], y, groups=groups)
    with pytest.raises(BundleError, match=message):
        model.save(path)
    assert path.read_text() == "the old file"


def test_a_user_class_is_refused(model, tmp_path):
    own = copy.copy(model)
    own.__class__ = OwnModel
    with pytest.raises(BundleError, match="OwnModel cannot be saved"):
        own.save(tmp_path / "model.ehrmeta")


def test_a_backbone_changed_after_fit_is_refused(model, tmp_path):
    changed = copy.copy(model).set_params(backbone=MLP((8,), "relu"))
    with pytest.raises(BundleError, match="changed after fit"):
        changed.save(tmp_path / "model.ehrmeta")


def test_save_before_fit_says_so(tmp_path):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        MetaRegressor().save(tmp_path / "model.ehrmeta")


def test_a_full_disk_leaves_the_old_model(model, saved, tmp_path, monkeypatch):
    path = tmp_path / "model.ehrmeta"
    path.write_bytes(saved.read_bytes())

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(BundleError, match="No space left on device"):
        model.save(path)
    assert path.read_bytes() == saved.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["model.ehrmeta"]


def test_loading_warns_again_of_atypical_patients(model, halves, tmp_path):
    X, y, groups, time = halves[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = model.adapt(X, np.where(groups == groups[0], 400.0, y), groups=groups, time=time)
    odd.save(tmp_path / "odd.ehrmeta")
    with pytest.warns(UserWarning, match="unlike the training tasks"):
        loaded = Adapted.load(tmp_path / "odd.ehrmeta")
    assert loaded.atypical_[0] < 0.001


@pytest.mark.parametrize(
    "population",
    [LogisticRegression(), HistGradientBoostingClassifier(max_iter=5, random_state=0)],
    ids=lambda model: type(model).__name__,
)
def test_a_classifiers_population_model_comes_back_from_its_arrays(
    population, patients, halves, tmp_path
):
    X, y, groups, time = patients
    made = MetaClassifier(
        MAML(inner_steps=1), MLP((4,)), population=population, max_steps=2, random_state=0
    ).fit(X, y > 55, groups=groups, time=time)
    made.save(tmp_path / "model.ehrmeta")
    loaded = MetaClassifier.load(tmp_path / "model.ehrmeta")
    assert loaded.get_params()["population"].get_params() == population.get_params()
    support, query = halves
    before, after = (
        m.adapt(support.X, support.y > 55, groups=support.groups, time=support.time).predict_proba(
            query.X, groups=query.groups, time=query.time
        )
        for m in (made, loaded)
    )
    np.testing.assert_array_equal(before, after)


def ask_for_steps(metadata):
    metadata["model"]["algorithm"]["params"]["inner_steps"] = 2**40


def switch_to_nothing(metadata):
    metadata["model"]["algorithm"]["params"]["learn_inner_lr"] = None


def ask_for_layers(metadata):
    metadata["model"]["backbone"]["params"]["hidden"] = {"tuple": [4] * 100_000}


def never_advance(metadata):
    metadata["model"]["settings"]["chunk_size"] = -1


def scale_by_text(metadata):
    metadata["model"]["table"]["outcome"]["scale"] = "wide"


def scale_by_nothing(metadata):
    metadata["model"]["table"]["time_unit"] = 0


def hide_where_it_comes_from(metadata):
    metadata["model"]["provenance"]["saved"] = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (ask_for_steps, "inner_steps=1099511627776 exceeds the limit of a file"),
        (switch_to_nothing, "learn_inner_lr must be True or False, got a NoneType"),
        (ask_for_layers, "its settings imply more"),
        (never_advance, "do not fit together"),
        (scale_by_text, "must be positive numbers"),
        (scale_by_nothing, "must be positive numbers"),
        (hide_where_it_comes_from, "date and version"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_forged_file_cannot_keep_its_reader_busy_or_fail_later(saved, change, message):
    started = time.perf_counter()
    with pytest.raises(BundleError, match=message):
        MetaRegressor.load(rewritten(saved, change))
    assert time.perf_counter() - started < 5.0


def test_what_no_file_may_ask_for_is_not_saved(model, tmp_path):
    busy = copy.copy(model)
    learner = replace(model.model_.learner, algorithm=MAML(inner_steps=20_000))
    busy.model_ = replace(model.model_, learner=learner)
    with pytest.raises(BundleError, match="inner_steps=20000"):
        busy.save(tmp_path / "model.ehrmeta")


@pytest.mark.parametrize("dtype", ["S2000000000", "V8", "M8[ns]"])
def test_a_forged_type_of_classes_takes_no_memory(dtype):
    with pytest.raises(DataError, match="class labels"):
        Classes.from_dict({"labels": [0, 1], "dtype": dtype})


def test_a_file_of_an_earlier_version_may_hold_an_old_name_of_a_parameter():
    assert from_json({"class": "MatchingNet", "params": {"n_embedding": 4}}).width == 4


@pytest.mark.parametrize("rare_levels", ["drop", "keep"])
@pytest.mark.parametrize("mode", [None, 0o640])
@pytest.mark.filterwarnings("ignore:levels of fewer than eleven")
def test_only_patient_data_is_for_the_owner_alone_unless_a_mode_is_given(
    model, tmp_path, rare_levels, mode
):
    path = tmp_path / "model.ehrmeta"
    before = os.umask(0o022)
    try:
        model.save(path, rare_levels=rare_levels, mode=mode)
    finally:
        os.umask(before)
    usual = 0o600 if rare_levels == "keep" else 0o644
    assert stat.S_IMODE(path.stat().st_mode) == (mode or usual)
    marked = "contains_patient_data" in read_bundle(path)[1]
    assert marked == (rare_levels == "keep")
    with pytest.raises(DataError, match="rare_levels must be 'drop' or 'keep', got 'all'"):
        model.save(path, rare_levels="all")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        "text",
        (1, (2, "a")),
        MAML(inner_steps=2),
        MLP((4,)),
        LogisticRegression(),
    ],
    ids=str,
)
def test_settings_survive_json(value):
    plain = json.loads(json.dumps(to_json(value, "setting")))
    again = from_json(plain)
    if hasattr(value, "get_params"):
        assert type(again) is type(value)
        assert repr(again) == repr(value)
    else:
        assert again == value
        assert type(again) is type(value)


def test_numpy_values_become_plain_ones_and_code_is_refused():
    assert to_json(np.float64(0.5), "x") == 0.5
    assert type(to_json(np.int64(3), "x")) is int
    assert from_json([1, {"tuple": [2]}]) == [1, (2,)]
    with pytest.raises(BundleError, match="x=function cannot be saved"):
        to_json(test_numpy_values_become_plain_ones_and_code_is_refused, "x")
    with pytest.raises(BundleError, match="its class 'Path' is not allowed"):
        from_json({"class": "Path", "params": {}})


LABELS = {
    "numbers": np.array([3, 1]),
    "text": np.array(["a", "b"], object),
    "dates": np.array(["2020-01-01", "2021-01-01"], "datetime64[ns]"),
    "floats": np.array([0.5, 1.5]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_come_back_with_their_type(labels):
    again = read_label_bytes(label_bytes(labels), label_type(labels), 2)
    assert again.dtype == labels.dtype
    assert again.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("labels", "dtype", "n_tasks", "message"),
    [
        ([1, 1], "int64", 2, "2 task labels for 2 tasks"),
        ([1, 2], "int64", 3, "2 task labels for 3 tasks"),
        ([None, 1], "object", 2, "must be text or numbers"),
        ([1, 2], "complex128", 2, "'complex128', which a file cannot hold"),
    ],
)
def test_labels_that_no_support_has_are_refused(labels, dtype, n_tasks, message):
    text = torch.from_numpy(np.frombuffer(json.dumps(labels).encode(), np.uint8).copy())
    with pytest.raises(BundleError, match=message):
        read_label_bytes(text, dtype, n_tasks)


def test_a_support_comes_back_with_its_gaps_and_offsets(model, halves):
    support = model.adapt(*halves[0][:2], groups=halves[0].groups, time=halves[0].time)._support
    measured = torch.tensor([[1.0], [math.nan]]).repeat(30, 1)
    rows = replace(support, measured=measured, offset=torch.arange(60.0))
    empty = replace(model.model_.no_rows(), measured=torch.empty(0, 1))
    tensors = support_tensors(rows)
    assert tensors["support.measured"].isfinite().all()
    again = read_support(tensors, empty)
    for name, value in vars(rows).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(again, name), value, equal_nan=True)
    assert "support.offset" not in support_tensors(support)
    nobody = support_tensors(empty) | {"support.starts": torch.zeros(1, dtype=torch.int64)}
    with pytest.raises(BundleError, match="not divided into tasks"):
        read_support(nobody, empty)
    assert read_support(support_tensors(empty), empty).n_tasks == 1
    starts = tensors["support.starts"]
    for wrong in (starts + 1, starts[:1], starts.int(), starts[None], starts.flip(0), starts * 2):
        with pytest.raises(BundleError, match="not divided into tasks"):
            read_support(tensors | {"support.starts": wrong}, empty)


def test_provenance_names_versions_seed_and_data():
    found = provenance(np.int64(3), "digest")
    assert (found["random_state"], found["data_sha256"]) == (3, "digest")
    assert type(found["random_state"]) is int
    assert provenance(None, None)["random_state"] is None
    assert (found["torch"], found["numpy"]) == (torch.__version__, np.__version__)
    saved = datetime.fromisoformat(found["saved"])
    assert abs((datetime.now(UTC) - saved).total_seconds()) < 60
    json.dumps(found)


def test_a_digest_tells_no_more_of_a_value_than_the_mean_beside_it(tmp_path):
    """Whoever knows all other outcomes gets the last one from the file's mean alone."""
    X, y, groups, _ = make_patients(n_patients=20)
    y = np.round(y, 1)
    fitted = small_model(max_steps=1).fit(X[["age"]], y, groups=groups)
    fitted.save(tmp_path / "model.ehrmeta")
    center = read_bundle(tmp_path / "model.ehrmeta")[1]["model"]["table"]["outcome"]["center"]
    assert center * len(y) - y[1:].sum() == pytest.approx(y[0], abs=1e-6)


def test_digests_depend_on_names_shapes_and_values():
    base = {"a": torch.zeros(2, 1), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(1, 2), "b": torch.ones(1)},
        {"c": torch.zeros(2, 1), "b": torch.ones(1)},
        {"a": torch.zeros(2, 1), "b": torch.zeros(1)},
        {"a": torch.zeros(2, 1)},
    ]
    assert len({digest(one) for one in [base, *others]}) == 5
    assert digest(dict(reversed(base.items()))) == digest(base)
    assert digest({"a": torch.arange(4.0).reshape(2, 2).T}) != digest(
        {"a": torch.arange(4.0).reshape(2, 2)}
    )


def test_a_missing_tensor_or_one_of_another_kind_is_named():
    like = torch.zeros(2)
    assert tensor_like({"x": torch.ones(2)}, "x", like).tolist() == [1.0, 1.0]
    with pytest.raises(BundleError, match="tensor 'x' is missing"):
        tensor_like({}, "x", like)
    for wrong in (torch.ones(3), torch.ones(2).double()):
        with pytest.raises(BundleError, match=r"settings imply \(2,\) torch.float32"):
            tensor_like({"x": wrong}, "x", like)
