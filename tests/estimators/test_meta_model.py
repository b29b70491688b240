"""A trained model says how tasks differ from the population, and how it was computed."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy import stats

from ehrmeta import MAML, MLP, CarryForward, MetaClassifier, MetaRegressor
from ehrmeta.algorithms import AboveMixedModel
from ehrmeta.errors import BundleError, DataError, DataWarning
from ehrmeta.estimators.meta_model import MetaModel, RegressionModel, _check_settings
from ehrmeta.nn import StudentT
from ehrmeta.nn.likelihoods import degrees_of_freedom
from tests.estimators.patients import small_model

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def _adapt(model, rows):
    return model.adapt(rows.X, rows.y, groups=rows.groups, time=rows.time)


def _predict(adapted, rows):
    return adapted.predict(rows.X, groups=rows.groups, time=rows.time)


def test_chunk_size_changes_predictions_by_rounding_only(model, halves):
    support, query = halves
    chunked = small_model(chunk_size=3)
    chunked.__dict__.update({k: v for k, v in vars(model).items() if k.endswith("_")})
    learner = replace(model.model_.learner, chunk_size=3)
    chunked.model_ = replace(model.model_, learner=learner)
    np.testing.assert_allclose(
        _predict(_adapt(chunked, support), query),
        _predict(_adapt(model, support), query),
        rtol=1e-5,
    )


def test_shrinkage_and_atypical_tasks(model, halves):
    support, _ = halves
    adapted = _adapt(model, support)
    assert adapted.eta_shrinkage_ < 0.5
    assert adapted.atypical_.shape == (20,)
    assert adapted.atypical_.min() > 1e-4
    odd = support._replace(y=np.where(support.groups == 1003, support.y + 60, support.y))
    with pytest.warns(DataWarning, match=r"1 of 20 adapted tasks \(first: task 3\)"):
        atypical = _adapt(model, odd)
    assert np.argmin(atypical.atypical_) == 3


def test_no_adaptation_is_full_shrinkage(patients, halves):
    X, y, groups, time = patients
    frozen = MAML(inner_lr=1e-6, learn_inner_lr=False, mixed_start=False)
    fitted = small_model(algorithm=frozen, max_steps=20).fit(X, y, groups=groups, time=time)
    assert _adapt(fitted, halves[0]).eta_shrinkage_ == pytest.approx(1.0, abs=0.2)


def test_own_weight_is_nan_without_a_posterior(model, halves):
    support, query = halves
    weight = _adapt(model, support).own_weight(query.X, groups=query.groups, time=query.time)
    assert weight.shape == (60,)
    assert np.isnan(weight).all()


def test_the_state_holds_no_training_row_and_gives_the_same_predictions(model, halves):
    tensors, metadata = model.model_.to_state()
    assert {name.partition(".")[0] for name in tensors} == {"params"}
    again = MetaModel.from_state(tensors, metadata)
    _, support = again.read_support(*halves[0][:2], groups=halves[0].groups, time=halves[0].time)
    points = [m.predict(support, m.adapt(support), support).point() for m in (again, model.model_)]
    np.testing.assert_array_equal(*points)


def test_a_state_with_a_tensor_too_many_is_refused(model):
    tensors, metadata = model.model_.to_state()
    with pytest.raises(BundleError, match="weight tensors; its settings imply"):
        MetaModel.from_state(tensors | {"params.more": torch.zeros(1)}, metadata)


def test_the_response_to_the_supports_outcomes_is_its_derivative(model, halves):
    """One task: the mean prediction as a function of the outcomes, at those that were seen."""
    one = [type(rows)(*(part[rows.groups == 1003] for part in rows)) for rows in halves]
    _, support = model.model_.read_support(*one[0][:2], time=one[0].time)
    response = model.model_.response(support, support)
    outcome = model.model_.table.outcome
    seen = outcome.inverse(response.predict(response.y).detach().numpy())
    point = model.model_.predict(support, model.model_.adapt(support), support).point()
    np.testing.assert_allclose(seen, point, rtol=1e-4)
    assert not torch.equal(response.predict(response.y + 1.0), response.predict(response.y))


def _support(model, rows):
    return model.read_support(rows.X, rows.y, groups=rows.groups, time=rows.time)[1]


@pytest.mark.filterwarnings("ignore:.*are not later than:ehrmeta.errors.DataWarning")
def test_effects_are_mean_shifts_from_the_population_and_their_prior_sd(model, halves):
    fitted, support = model.model_, _support(model.model_, halves[0])
    adapted = _adapt(model, halves[0])
    shift = _predict(adapted, halves[0]) - model.predict(halves[0].X, time=halves[0].time)
    expected = [shift[halves[0].groups == group].mean() for group in adapted.labels_]
    effects, prior = fitted.effects(support, fitted.adapt(support))
    scale = fitted.table.outcome.scale
    np.testing.assert_allclose(effects * scale, expected, atol=1e-3)
    predictive = model.unadapted().predict_distribution(halves[0].X, time=halves[0].time)
    within = float(torch.exp(2.0 * fitted.learner.params["likelihood.log_within"]))
    assert prior == pytest.approx(np.sqrt(np.mean(predictive.scale**2) - within), rel=1e-4)
    nobody = fitted.no_rows(2)
    assert fitted.effects(nobody, fitted.adapt(nobody))[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
def test_the_p_value_is_that_of_a_shared_shift_under_an_f_distribution(
    patients, halves, likelihood
):
    X, y, groups, time = patients
    model = small_model(likelihood=likelihood, max_steps=20).fit(X, y, groups=groups, time=time)
    fitted, rows = model.model_, halves[0]
    support = _support(fitted, rows)
    predictive = model.unadapted().predict_distribution(rows.X, time=rows.time)
    residual = fitted.table.outcome.forward(rows.y) - predictive.loc
    params = fitted.learner.params
    within = float(torch.exp(2.0 * params["likelihood.log_within"]))
    between = float(np.mean(predictive.scale**2)) - within
    dof = fitted.n_tasks - 1.0 - fitted.learner.spec.n_features
    if likelihood == "student_t":
        dof = min(dof, float(degrees_of_freedom({"raw_dof": params["likelihood.raw_dof"]})))
    expected = []
    for group in np.unique(rows.groups):
        r = residual[rows.groups == group]
        distance = r @ np.linalg.solve(within * np.eye(len(r)) + between, r)
        expected.append(stats.f.sf(distance / len(r), len(r), dof))
    np.testing.assert_allclose(fitted.atypical(support, fitted.adapt(support)), expected, rtol=1e-3)
    few = replace(fitted, n_tasks=3)  # at least four degrees of freedom
    p = few.atypical(support, few.adapt(support))
    r = residual[rows.groups == 1000]
    distance = r @ np.linalg.solve(within * np.eye(len(r)) + between, r)
    least = 4.0 if likelihood == "normal" else min(4.0, dof)
    assert p[0] == pytest.approx(stats.f.sf(distance / len(r), len(r), least), rel=1e-3)
    nobody = fitted.no_rows(2)
    assert fitted.atypical(nobody, fitted.adapt(nobody)).tolist() == [1.0, 1.0]
    assert isinstance(fitted.learner.spec.likelihood, StudentT) == (likelihood == "student_t")


def test_without_a_row_the_variance_between_tasks_is_that_within(model):
    fitted = model.model_
    within = float(torch.exp(2.0 * fitted.learner.params["likelihood.log_within"]))
    empty = fitted._prediction({})
    assert len(empty.loc) == 0
    assert fitted._variances(empty) == (within, within)
    sharp = replace(empty, loc=np.zeros(1), scale=np.full(1, 1e-9))
    assert fitted._variances(sharp) == (within, 1e-6 * within)


def test_the_response_of_a_support_without_rows_is_the_population(model, halves):
    query = _support(model.model_, halves[1])
    one = query.select(torch.tensor([0]))
    response = model.model_.response(model.model_.no_rows(), one)
    torch.testing.assert_close(response.predict(response.y), response.population)
    assert len(response.y) == len(response.expected) == 0
    expected = model.model_._prediction(model.model_.learner.population(one)).loc
    np.testing.assert_allclose(response.population, expected, rtol=1e-5)


def test_the_mean_of_a_carried_value_weighs_the_last_one(halves):
    X, y, groups, time = halves[0]
    steady = np.round(y)
    fitted = MetaRegressor(CarryForward(), max_steps=1, random_state=0, verbose=False).fit(
        X, steady, groups=groups, time=time
    )
    one = X[groups == 1003], steady[groups == 1003]
    _, support = fitted.model_.read_support(*one, time=time[groups == 1003])
    response = fitted.model_.response(support, support)
    values = fitted.model_.predict(support, fitted.model_.adapt(support), support)
    mean = values.unchanged * values.last + (1.0 - values.unchanged) * values.loc
    np.testing.assert_allclose(response.predict(response.y), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(response.y, support.y)


def test_digests_are_those_of_parameters_and_of_states(model, halves):
    support, other = (_support(model.model_, rows) for rows in halves)
    weights, state = model.model_.digests(model.model_.adapt(support))
    again = model.model_.digests(model.model_.adapt(support))
    assert again == (weights, state)
    changed = model.model_.digests(model.model_.adapt(other))
    assert changed[0] == weights
    assert changed[1] != state


FORGED = {
    "a text as scale": (("table", "time_unit"), "1"),
    "a scale of 0": (("table", "time_scale"), 0.0),
    "a negative scale of the outcome": (("table", "outcome", "scale"), -1.0),
    "a text as centre": (("table", "outcome", "center"), "0"),
    "a text as centre of a feature": (("table", "encoder", "codings", 0, "center"), "0"),
    "a text as scale of a feature": (("table", "encoder", "codings", 0, "scale"), "1"),
    "a text as centre of time": (("table", "time_center"), "0"),
    "a period of one end": (("table", "period"), [1.0]),
    "a period of text": (("table", "period"), ["a", "b"]),
    "text in the history": (("history", 0, "loss"), "low"),
    "a text as number of tasks": (("n_tasks",), "3"),
    "no date": (("provenance", "saved"), None),
    "a number as version": (("provenance", "ehrmeta"), 1),
    "a negative number of tasks": (("n_tasks",), -1),
    "a truth value as count": (("n_visible",), True),
    "half a column": (("n_features_in",), 1.5),
    "a number as name": (("feature_names_in",), [1, 2]),
    "a number as name of the task": (("settings", "task"), 3),
    "an empty list as name of the task": (("settings", "task"), []),
    "0 as name of the time": (("settings", "time"), 0),
    "a number as name of the time": (("settings", "time"), 3),
    "a class that does not exist": (("class",), "MetaNothing"),
    "a network as algorithm": (("algorithm",), {"class": "MLP", "params": {}}),
    "an algorithm as network": (("backbone",), {"class": "MAML", "params": {}}),
    "more layers than tensors": (("backbone", "params", "hidden"), {"tuple": [8] * 9}),
    "steps without end": (("algorithm", "params", "inner_steps"), 10_001),
    "a number as switch": (("algorithm", "params", "learn_inner_lr"), 1),
    "another width": (("backbone", "params", "hidden"), {"tuple": [9]}),
}


@pytest.mark.parametrize(("path", "value"), FORGED.values(), ids=FORGED)
def test_a_state_that_no_model_has_is_refused(model, path, value):
    tensors, metadata = model.model_.to_state()
    metadata = copy.deepcopy(metadata)
    part = metadata["model"]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    with pytest.raises(BundleError):
        MetaModel.from_state(tensors, metadata)


def test_weights_up_to_1e9_are_read(model):
    tensors, metadata = model.model_.to_state()
    name = next(name for name in tensors if name.endswith("weight"))
    large = tensors | {name: torch.full_like(tensors[name], 1e9)}
    assert isinstance(MetaModel.from_state(large, metadata), RegressionModel)
    for value in (1.1e9, -1.1e9):
        with pytest.raises(BundleError, match="implausibly large"):
            MetaModel.from_state(tensors | {name: torch.full_like(large[name], value)}, metadata)
    del large[name]
    with pytest.raises(BundleError, match="missing"):
        MetaModel.from_state(large, metadata)


def test_steps_up_to_the_limit_and_switches_are_saved():
    _check_settings(MAML(inner_steps=10_000))
    with pytest.raises(
        BundleError, match=r"inner_steps=10001 exceeds the limit of a file \(10,000"
    ):
        _check_settings(MAML(inner_steps=10_001))
    with pytest.raises(BundleError, match="inner_steps=10001"):
        _check_settings(AboveMixedModel(MAML(inner_steps=10_001)))
    with pytest.raises(BundleError, match="learn_inner_lr must be True or False, got a int"):
        _check_settings(MAML(learn_inner_lr=0))


def test_a_network_that_was_changed_after_fit_is_not_saved(model):
    settings = {**model.model_.settings, "backbone": MLP((8,), "relu")}
    with pytest.raises(BundleError, match="changed after fit"):
        replace(model.model_, settings=settings).to_state()
    with pytest.raises(BundleError, match="changed after fit"):
        replace(
            model.model_, settings=model.model_.settings | {"likelihood": "student_t"}
        ).to_state()


def test_an_unknown_likelihood_is_named_and_classes_have_theirs(patients):
    with pytest.raises(DataError, match=r"one of \['normal', 'student_t'\], got 'cauchy'"):
        RegressionModel.likelihood({"likelihood": "cauchy"}, None)
    for n_classes, name in ((2, "Bernoulli"), (3, "Categorical")):
        y = np.arange(len(patients.y)) % n_classes
        model = MetaClassifier(max_steps=1, random_state=0, verbose=False).fit(
            patients.X, y, groups=patients.groups, time=patients.time
        )
        assert type(model.model_.learner.spec.likelihood).__name__ == name
        p = model.predict_proba(patients.X[:0], time=patients.time[:0])
        assert p.shape == (0, n_classes)


def test_models_cannot_be_changed_and_compare_by_identity():
    settings = MetaModel.__dataclass_params__
    assert (settings.frozen, settings.eq) == (True, False)
    assert all(field.kw_only for field in fields(MetaModel))


def test_one_row_has_its_own_shift_as_effect(model, halves):
    fitted = model.model_
    rows = _support(fitted, halves[0])
    one = rows.take(rows.starts[:-1], torch.arange(20), 20)
    effects, _ = fitted.effects(one, fitted.adapt(one))
    adapted = fitted.predict(one, fitted.adapt(one), one).loc
    nobody = fitted.no_rows(20)
    population = fitted.predict(nobody, fitted.adapt(nobody), one).loc
    np.testing.assert_allclose(effects, adapted - population, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"learning_rate": "fast"}, {"max_steps": 0}, {"shots": {"tuple": [5, 2]}}]
)
def test_settings_of_a_file_follow_the_rules_of_a_fit(model, changes):
    tensors, metadata = model.model_.to_state()
    metadata = copy.deepcopy(metadata)
    metadata["model"]["settings"] |= changes
    with pytest.raises(DataError, match=f"{next(iter(changes))} must be"):
        MetaModel.from_state(tensors, metadata)
