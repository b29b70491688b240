"""Training of meta-learning estimators: seeds, default parts, held-out tasks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score

from ehrmeta import (
    MAML,
    MLP,
    AboveMixedModel,
    DeepMixedEffects,
    MatchingNet,
    MetaClassifier,
    MetaRegressor,
    MetaSGD,
    PatientKFold,
    make_cohorts,
)
from ehrmeta.baselines import MixedEffectsLogistic
from ehrmeta.data import Feature, Outcome, Schema
from ehrmeta.errors import BundleError, DataError, DataWarning, NotFittedError
from ehrmeta.estimators import meta_estimator
from ehrmeta.estimators.classifier import _case_control_offset
from ehrmeta.estimators.meta_estimator import _episodes
from ehrmeta.nn import TaskRows
from tests.estimators.patients import make_patients, small_model

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def _adapt(model, rows):
    return model.adapt(rows.X, rows.y, groups=rows.groups, time=rows.time)


def _predict(adapted, rows):
    return adapted.predict(rows.X, groups=rows.groups, time=rows.time)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"compile": True}, {"precision": "bf16"}], ids=str)
def test_faster_training_predicts_about_the_same(model, patients, halves, how):
    X, y, groups, time = patients
    fast = small_model(**how).fit(X, y, groups=groups, time=time)
    support, query = halves
    exact, quick = (_predict(_adapt(m, support), query) for m in (model, fast))
    assert np.sqrt(np.mean(np.square(quick - exact))) < 0.2 * np.std(exact)


def test_same_seed_gives_the_same_numbers(patients, halves):
    support, query = halves
    X, y, groups, time = patients
    fits = [small_model(max_steps=20).fit(X, y, groups=groups, time=time) for _ in range(2)]
    assert np.array_equal(*(_predict(_adapt(m, support), query) for m in fits))


@pytest.mark.parametrize("make", [MetaRegressor, MetaClassifier])
@pytest.mark.filterwarnings("ignore:levels of")
def test_a_small_fit_gives_the_same_numbers_with_any_number_of_threads(make):
    X, y, groups, time = make_patients(25, 4)
    if make is MetaClassifier:
        y = np.where(y > np.median(y), "high", "low")
    before, fits = torch.get_num_threads(), []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        model = make(max_steps=3, random_state=0, verbose=False)
        fits.append(model.fit(X, y, groups=groups, time=time).model_.learner.params)
        assert torch.get_num_threads() == n_threads
    torch.set_num_threads(before)
    assert all(torch.equal(value, fits[1][name]) for name, value in fits[0].items())


def test_nested_parameters_clone_and_grid_search_by_patient(patients):
    X, y, groups, time = patients
    table = X.assign(patient=groups, day=time)
    model = small_model(task="patient", time="day", max_steps=5)
    assert clone(model).get_params()["algorithm__inner_lr"] == 0.1
    search = GridSearchCV(
        model,
        {"algorithm__inner_lr": [0.01, 0.1]},
        cv=PatientKFold(2, task="patient", random_state=0),
        error_score="raise",
    ).fit(table, y)
    assert search.cv_results_["mean_test_score"].shape == (2,)
    scores = cross_val_score(
        model, table, y, cv=PatientKFold(2, task="patient"), error_score="raise"
    )
    assert np.isfinite(scores).all()


@pytest.mark.filterwarnings("ignore:levels of")
def test_own_default_parts_are_created_at_fit():
    model = MetaRegressor(max_steps=2, random_state=0, verbose=False)
    X, y, groups, time = make_patients(8, 4)
    model.fit(X, y, groups=groups, time=time)
    assert model.algorithm is None
    assert isinstance(model.model_.learner.algorithm, DeepMixedEffects)
    assert model.set_params(algorithm__n_deep=3).algorithm.n_deep == 3


def test_algorithm_and_backbone_are_the_only_parts_by_position():
    algorithm, backbone = MetaSGD(), MLP((8,))
    regressor = MetaRegressor(algorithm, backbone, "student_t")
    for made in (regressor, MetaClassifier(algorithm, backbone)):
        assert (made.algorithm, made.backbone) == (algorithm, backbone)
    with pytest.raises(TypeError, match="positional"):
        MetaClassifier(algorithm, backbone, None)
    assert regressor.likelihood == "student_t"


def test_a_state_makes_the_same_model_and_no_other_class(model, halves):
    tensors, metadata = model.to_state()
    again = MetaRegressor.from_state(tensors, metadata)
    X, _, _, time = halves[0]
    np.testing.assert_array_equal(again.predict(X, time=time), model.predict(X, time=time))
    assert again.n_tasks_ == model.n_tasks_
    with pytest.raises(BundleError, match="holds a MetaRegressor"):
        MetaClassifier.from_state(tensors, metadata)


@pytest.mark.parametrize(("fraction", "held_out"), [(0.0, False), (0.25, True)])
def test_held_out_tasks_are_scored_if_a_share_is_given(fraction, held_out):
    X, y, groups, time = make_patients(24, 4)
    fitted = small_model(validation_fraction=fraction, max_steps=50)
    history = fitted.fit(X, y, groups=groups, time=time).history_
    assert np.isfinite([record["held_out_loss"] for record in history]).all() == held_out


def _cohorts(**options):
    """Hospitals, and a schema that says so."""
    cohorts = make_cohorts(**options)
    features = tuple(Feature(f"x{i}") for i in range(cohorts.X.shape[1]))
    frame = pd.DataFrame(cohorts.X, columns=[one.name for one in features])
    return frame, cohorts.y, cohorts.groups, Schema(features, Outcome("ill"), task_kind="cohort")


@pytest.mark.parametrize("estimator", [MetaClassifier, MetaRegressor])
def test_cohorts_of_a_schema_get_random_slopes_of_all_features(estimator, tmp_path):
    X, y, groups, schema = _cohorts(n_sites=6, n_patients=(30, 40), random_state=0)
    y = y if estimator is MetaClassifier else y + X["x0"]
    model = estimator(schema=schema, random_state=0).fit(X, y, groups=groups)
    algorithm = model.model_.learner.algorithm
    assert isinstance(algorithm, DeepMixedEffects)
    assert algorithm.feature_slopes
    assert (algorithm.n_deep, algorithm.deep_mean, algorithm.correction) == (0, False, False)
    assert model.history_ == [], "nothing is trained"
    assert model.algorithm is None
    model.save(tmp_path / "model.ehrmeta")
    loaded = estimator.load(tmp_path / "model.ehrmeta")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize("estimator", [MetaClassifier, MetaRegressor])
def test_maml_on_few_cohorts_predicts_what_the_default_does(estimator, tmp_path):
    X, y, groups, schema = _cohorts(n_sites=8, n_patients=(30, 40), random_state=0)
    y = y if estimator is MetaClassifier else y + X["x0"]
    train, shown = groups < 6, (groups >= 6) & (np.arange(len(y)) % 2 == 0)
    later = (groups >= 6) & ~shown
    predicted = []
    for algorithm in (None, MAML(), MetaSGD()):
        model = estimator(algorithm, schema=schema, random_state=0)
        model.fit(X[train], y[train], groups=groups[train]).save(tmp_path / "model.ehrmeta")
        model = estimator.load(tmp_path / "model.ehrmeta")
        adapted = model.adapt(X[shown], y[shown], groups=groups[shown])
        predict = adapted.predict_proba if estimator is MetaClassifier else adapted.predict
        predicted.append(predict(X[later], groups=groups[later]))
    np.testing.assert_allclose(predicted[1], predicted[0], rtol=1e-5)
    np.testing.assert_allclose(predicted[2], predicted[0], rtol=1e-5)


@pytest.mark.parametrize(
    "case", ["own algorithm", "own backbone", "plain", "three classes", "no schema"]
)
def test_other_data_and_settings_keep_their_learner(case):
    X, y, groups, schema = _cohorts(n_sites=4, n_patients=(20, 30), random_state=0)
    settings = {"schema": schema, "max_steps": 1, "random_state": 0}
    settings |= {
        "own algorithm": {"algorithm": MetaSGD()},
        "plain": {"algorithm": MetaSGD(mixed_start=False)},
        "own backbone": {"backbone": MLP((4,))},
    }.get(case, {})
    if case == "no schema":
        settings["schema"] = None
    if case == "three classes":
        y = np.arange(len(y)) % 3
    algorithm = MetaClassifier(**settings).fit(X, y, groups=groups).model_.learner.algorithm
    starts_mixed = case in ("own algorithm", "own backbone")
    assert isinstance(algorithm, AboveMixedModel) == starts_mixed
    assert isinstance(algorithm.learner if starts_mixed else algorithm, MetaSGD)


def _above_intercept(n_sites, slope_sd, seed):
    """Mean log loss of 40 new cohorts above a model with a shrunken intercept, (cohort, k)."""
    X, y, groups, schema = _cohorts(
        n_sites=n_sites + 40, n_patients=(60, 120), slope_sd=slope_sd, random_state=seed
    )
    train, number = groups < n_sites, pd.Series(groups).groupby(groups).cumcount()
    query = ~train & (number >= 40)

    def losses(model, k):
        support = ~train & (number < k)
        if k:
            adapted = model.adapt(X[support], y[support], groups=groups[support])
        else:
            adapted = model.unadapted()
        known = {"groups": groups[query]} if k else {}
        p = adapted.predict_proba(X[query], **known)[np.arange(query.sum()), y[query]]
        return pd.Series(-np.log(p)).groupby(groups[query]).mean()

    default, intercept = (
        estimator(schema=schema).fit(X[train], y[train], groups=groups[train])
        for estimator in (MetaClassifier, MixedEffectsLogistic)
    )
    return pd.DataFrame({k: losses(default, k) - losses(intercept, k) for k in (0, 5, 40)})


def test_in_few_hospitals_that_share_their_slopes_nothing_is_lost():
    above = pd.concat([_above_intercept(8, 0.0, seed) for seed in range(4)])
    assert (above.mean() <= 0.002).all()


def test_in_hospitals_whose_slopes_differ_patients_teach_them():
    above = _above_intercept(30, 0.5, 0)
    assert (above.mean() <= 0.002).all()
    assert above[40].mean() < -2 * above[40].std() / np.sqrt(len(above))


def test_few_episodes_of_at_most_5000_tasks_start_a_model():
    drawn = []

    class Sampler:
        """Counts what is drawn."""

        def __init__(self, n_tasks):
            self.rows = SimpleNamespace(n_tasks=n_tasks)

        def draw(self, tasks, generator):
            drawn.append((tasks, generator.initial_seed()))
            return None, None

    cases = ((10, 3, 20), (500, 3, 20), (1000, 3, 10), (4000, 0, 2), (20_000, 3, 2), (500, 500, 2))
    for n_tasks, n_features, n_rounds in cases:
        drawn.clear()
        episodes = _episodes(Sampler(n_tasks), 3, n_features)
        tasks = torch.cat([part for part, _, _ in episodes])
        counts = torch.bincount(tasks)
        assert counts[counts > 0].tolist() == [n_rounds] * min(n_tasks, 5_000)
        assert max(len(part) for part, _ in drawn) <= 1024
        assert {seed for _, seed in drawn} == {3}


def test_of_more_tasks_than_can_be_drawn_a_sample_is_used(monkeypatch, patients):
    X, y, groups, time = patients
    whole = small_model(max_steps=1, batch_size=4).fit(X, y, groups=groups, time=time)
    monkeypatch.setattr(meta_estimator, "_FEWEST_DRAWN", 10)
    part = small_model(max_steps=1, batch_size=4).fit(X, y, groups=groups, time=time)
    assert part.n_tasks_ == whole.n_tasks_ > 10
    assert part.data_digest_ == whole.data_digest_
    assert not np.array_equal(part.predict(X, time=time), whole.predict(X, time=time))


def _support(y, codes, n_tasks=2):
    n = len(y)
    return TaskRows.from_codes(
        torch.tensor(codes),
        n_tasks,
        timed=False,
        x=torch.zeros(n, 1),
        measured=torch.empty(n, 0),
        time=torch.zeros(n).double(),
        y=torch.tensor(y),
        origin=torch.arange(n),
    )


def test_the_offset_of_a_sampled_support_is_its_log_odds_less_those_of_all():
    support = _support([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0], [0, 0, 0, 0, 1, 1, 1])
    support = replace(support, offset=torch.full((7,), 0.5))
    corrected = _case_control_offset(support, 0.1)
    logit = [np.log(share / (1 - share)) - np.log(0.1 / 0.9) for share in (1 / 4, 2 / 3)]
    np.testing.assert_allclose(corrected.offset, 0.5 + np.repeat(logit, [4, 3]), rtol=1e-6)
    for wrong in (0.0, 1.0, -0.1):
        with pytest.raises(DataError, match="prevalence must lie strictly between 0 and 1"):
            _case_control_offset(support, wrong)
    with pytest.raises(DataError, match="needs two classes"):
        _case_control_offset(_support([2.0, 0.0], [0, 0], 1), 0.1)
    message = r"1 of 2 supports \(first: task 1\) hold one class only"
    for value in (0.0, 1.0):
        with pytest.raises(DataError, match=message):
            _case_control_offset(_support([1.0, 0.0, value, value], [0, 0, 1, 1]), 0.1)
    assert _case_control_offset(_support([1.0, 0.0], [0, 0]), 0.5).offset.tolist() == [0.0, 0.0]


def test_defaults_are_the_documented_ones():
    model = MetaRegressor()
    assert model.verbose is None
    assert model.compile is False
    settings = [model.batch_size, model.max_steps, model.max_queries, model.patience, model.shots]
    assert settings == [256, 1000, 10, 10, (0, 10)]
    assert (model.learning_rate, model.weight_decay) == (3e-3, 1e-4)
    assert (model.validation_fraction, model.score_shots) == (0.1, (1, 3, 5))
    assert (model.device, model.precision, model.likelihood) == ("auto", "float32", "normal")
    assert len({MetaRegressor(), MetaRegressor()}) == 2
    assert repr(MetaRegressor(patience=3)) == "MetaRegressor(patience=3)"


def test_default_parts_are_made_for_their_own_parameters_only():
    model = MetaClassifier()
    assert (model.algorithm, model.backbone) == (None, None)
    model.set_params(backbone__hidden=(4,))
    assert model.algorithm is None
    assert model.backbone.hidden == (4,)
    algorithm = MetaSGD(inner_steps=3)
    model.set_params(algorithm=algorithm, algorithm__inner_lr=0.2)
    assert (model.algorithm.inner_steps, model.algorithm.inner_lr) == (3, 0.2)
    model.set_params(algorithm__inner_steps=4)
    assert (model.algorithm.inner_steps, model.algorithm.inner_lr) == (4, 0.2)


def test_time_starts_learners_at_the_mixed_model_unless_they_say_no():
    X, y, groups, time = make_patients(24, 4)
    given = {"max_steps": 1, "random_state": 0, "verbose": False}
    kinds = {}
    for name, algorithm, timed in (
        ("with time", MAML(inner_steps=1), True),
        ("without", MAML(inner_steps=1), False),
        ("refused", MAML(inner_steps=1, mixed_start=False), True),
    ):
        model = MetaRegressor(algorithm, MLP((4,)), **given)
        model.fit(X, y, groups=groups, time=time if timed else None)
        kinds[name] = type(model.model_.learner.algorithm).__name__
    assert kinds == {"with time": "AboveMixedModel", "without": "MAML", "refused": "MAML"}
    classes = MetaClassifier(MAML(inner_steps=1), MLP((4,)), **given)
    classes.fit(X, np.arange(len(y)) % 3, groups=groups, time=time)
    assert type(classes.model_.learner.algorithm).__name__ == "MAML"


def test_a_population_model_that_no_file_holds_is_warned_of_at_the_fit():
    X, y, groups, _ = make_patients(24, 4)
    X = X.assign(sex=(X["sex"] == "m").astype(float))
    model = small_model(population=RandomForestRegressor(3), max_steps=1)
    with pytest.warns(
        DataWarning, match="population=RandomForestRegressor cannot be saved"
    ) as caught:
        model.fit(X, y, groups=groups)
    assert caught[0].filename == __file__
    assert model.population_ is model.model_.population is not None


def test_an_offset_for_sampled_supports_needs_an_algorithm_that_uses_it():
    X, y, groups, _ = make_patients(24, 4)
    given = {"max_steps": 1, "random_state": 0, "verbose": False}
    sampled = (X[:4], np.array([0, 1, 0, 1]))
    for algorithm, is_used in ((MetaSGD(), True), (MatchingNet(), False)):
        model = MetaClassifier(algorithm, MLP((4,)), **given).fit(X, y > 53, groups=groups)
        if is_used:
            plain = model.adapt(*sampled).predict_proba(X[4:6])
            rare = model.adapt(*sampled, prevalence=0.01).predict_proba(X[4:6])
            assert (rare[:, 1] < plain[:, 1]).all()
            np.testing.assert_array_equal(
                model.adapt(*sampled, prevalence=0.5).predict_proba(X[4:6]), plain
            )
        else:
            with pytest.raises(DataError, match="MatchingNet does not correct for sampling"):
                model.adapt(*sampled, prevalence=0.1)


def test_a_model_is_saved_after_its_fit_and_knows_versions_after_loading_only(model):
    with pytest.raises(NotFittedError):
        MetaRegressor().to_state()
    assert not hasattr(model, "provenance_")
    assert MetaRegressor.from_state(*model.to_state()).provenance_["torch"] == torch.__version__
    assert "callbacks" not in model.to_state()[1]["model"]["settings"]


def test_compiling_without_a_compiler_is_refused_at_the_fit(patients, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    X, y, groups, time = patients
    with pytest.raises(DataError, match="compile=True needs"):
        small_model(compile=True).fit(X, y, groups=groups, time=time)
