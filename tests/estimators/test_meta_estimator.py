"""Training of meta-learning estimators: seeds, default parts, held-out tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from ehrmeta import MLP, DeepMixedEffects, MetaClassifier, MetaRegressor, MetaSGD, PatientKFold
from ehrmeta.errors import BundleError
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
