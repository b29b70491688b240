"""A saved model predicts bit for bit the same and names no patient; no forgery is read."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeCV

from ehrmeta import MetaRegressor, load
from ehrmeta.baselines import TaskRidge
from ehrmeta.errors import BundleError, DataError, DataWarning, NotFittedError
from ehrmeta.persistence import read_bundle, write_bundle
from ehrmeta.treatment import AdaptedResponse, TreatmentResponse
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.effect_model import EffectSettings, fit_effect_model
from ehrmeta.treatment.treated_rows import TreatmentEncoder, read_treated
from tests.treatment.sites import adapted, fitted, plain, simulate

TREES = HistGradientBoostingRegressor(max_iter=4, max_leaf_nodes=4)
META = MetaRegressor(max_steps=2, random_state=0, verbose=False)
SETTINGS = {
    "s": {"learner": "s"},
    "t": {"learner": "t", "outcome": [RidgeCV(np.logspace(-1, 1, 3)), TREES]},
    "x": {"learner": "x", "final": "crossed boosting"},
    "dr": {"final": "auto", "propensity": {0: 0.5, 1: 0.5}},
    "r": {"learner": "r", "final": TREES, "propensity": HistGradientBoostingClassifier(max_iter=3)},
    "one form": {"final": "constant", "propensity": DummyClassifier()},
}


def reloaded(model, folder):
    model.save(folder / "it.ehrmeta")
    return load(folder / "it.ehrmeta")


def test_settings(train, tmp_path):
    model = fitted(plain(**SETTINGS["t"], control=1, n_folds=3), train)
    again = reloaded(model, tmp_path)
    assert (again.control, again.n_folds, again.learner) == (1, 3, "t")
    assert again.outcome[0].alphas == (0.1, 1.0, 10.0)
    assert again.forms_ == model.forms_
    assert again.variation_ == model.variation_
    refitted = fitted(clone(again), train)
    np.testing.assert_array_equal(refitted.effect(train.X[:3]), model.effect(train.X[:3]))


@pytest.fixture(scope="module")
def train():
    return simulate(12, 40)


@pytest.fixture(scope="module")
def new():
    return simulate(3, 20, seed=1)


@pytest.fixture(scope="module")
def model(train):
    return fitted(plain(), train)


def assert_the_same(first, second, new, **contrast):
    given = {"groups": new.groups, **contrast}
    one, two = (adapted(response, new) for response in (first, second))
    for read in ("effect", "effect_interval", "ate_interval"):
        expected = getattr(one, read)(new.X, **given)
        np.testing.assert_array_equal(getattr(two, read)(new.X, **given), expected)
    expected = one.potential_outcomes(new.X, groups=new.groups)
    np.testing.assert_array_equal(two.potential_outcomes(new.X, groups=new.groups), expected)
    np.testing.assert_array_equal(two.arm_scores(), one.arm_scores())


@pytest.mark.parametrize("case", SETTINGS)
def test_every_learner_predicts_bit_for_bit_the_same(train, new, case, tmp_path):
    response = fitted(plain(**SETTINGS[case]), train)
    again = reloaded(response, tmp_path)
    assert type(again) is TreatmentResponse
    assert_the_same(response, again, new)
    assert again.to_state()[1]["model"] == response.to_state()[1]["model"]


def test_several_arms_with_names(train, new, tmp_path):
    def three(sites):
        return np.array(["a", "b", "c"])[sites.treatment + (np.arange(len(sites.y)) % 3 == 0)]

    names = train._replace(treatment=three(train)), new._replace(treatment=three(new))
    settings = {"learner": "dr", "propensity": [LogisticRegression()], "control": "b"}
    response = fitted(plain(**settings), names[0])
    again = reloaded(response, tmp_path)
    assert again.treatment_.labels.tolist() == ["b", "a", "c"]
    assert_the_same(response, again, names[1], T1="c")
    shown = [one.recommend(new.X, higher_is_better=True) for one in (response, again)]
    pd.testing.assert_frame_equal(*shown)


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")  # hardly trained
@pytest.mark.parametrize("learner", ["s", "dr"])
@pytest.mark.parametrize("timed", [False, True])
def test_an_estimator_over_tasks_is_saved_within(train, new, learner, timed, tmp_path):
    def given(sites):
        time = {"time": np.arange(len(sites.y)) * 1.0} if timed else {}
        return {"treatment": sites.treatment, "groups": sites.groups, **time}

    response = plain(estimator=META, learner=learner).fit(train.X, train.y, **given(train))
    again = reloaded(response, tmp_path)
    assert type(again.estimator) is MetaRegressor
    rows, outcomes = response.adapt(new.X, new.y, **given(new)).support, []
    later = replace(rows, time=rows.time + 1000.0) if timed else rows
    for one in (response.model_, again.model_):
        outcomes.append(one.outcomes(later, one.adapt(rows), np.ones(1))[0])
    np.testing.assert_array_equal(*outcomes)


def test_models_that_are_code_are_not_written(train, tmp_path):
    forest = fitted(plain(outcome=RandomForestRegressor(3, random_state=0)), train)
    with pytest.raises(BundleError, match="RandomForestRegressor cannot be saved"):
        forest.save(tmp_path / "forest")
    with pytest.raises(BundleError, match="cannot be saved"):
        fitted(plain(estimator=TaskRidge()), train).save(tmp_path / "baseline")


def test_a_dose_and_its_range(train, new, tmp_path):
    def dosed(sites):
        return sites._replace(treatment=sites.treatment + sites.X[:, 0])

    settings = {"learner": "r", "discrete_treatment": False, "propensity": LinearRegression()}
    response = fitted(plain(**settings), dosed(train))
    again = reloaded(response, tmp_path)
    effects = [
        adapted(one, dosed(new)).effect(new.X, groups=new.groups) for one in (response, again)
    ]
    np.testing.assert_array_equal(*effects)
    assert response.treatment_.low < again.treatment_.low
    assert again.treatment_.high < response.treatment_.high


def test_adapted_patients_come_back(model, new, tmp_path):
    names = new._replace(groups=np.array(["x", "y", "z"])[new.groups])
    sites = adapted(model, names)
    again = reloaded(sites, tmp_path)
    assert type(again) is AdaptedResponse
    assert again.labels_.tolist() == ["x", "y", "z"]
    assert repr(again) == repr(sites)
    given = {"groups": names.groups}
    np.testing.assert_array_equal(
        again.effect_interval(new.X, **given), sites.effect_interval(new.X, **given)
    )
    pd.testing.assert_frame_equal(again.task_effects(), sites.task_effects())
    assert read_bundle(tmp_path / "it.ehrmeta")[1]["contains_patient_data"] is True
    with pytest.raises(BundleError, match="training tasks cannot be saved"):
        model.tasks_.save(tmp_path / "tasks")
    with pytest.raises(BundleError, match="Open it with AdaptedResponse.load"):
        TreatmentResponse.load(tmp_path / "it.ehrmeta")


def test_training_tasks_are_gone_and_say_so(model, tmp_path):
    again = reloaded(model, tmp_path)
    assert not hasattr(again, "tasks_")
    with pytest.raises(NotFittedError, match="loaded from a file, which does not contain"):
        again.tasks_.ate([[0.0, 0.0]])
    assert again.provenance_["random_state"] == 0


def test_a_file_holds_no_value_of_a_patient(train, tmp_path):
    rng = np.random.default_rng(0)
    ward = np.where(train.groups == 3, "rare ward", "usual ward")
    X = pd.DataFrame({"age": train.X[:, 0], "ward": ward})
    names = np.array([f"patient {i}" for i in range(12)])[train.groups]
    y = train.y + rng.normal(size=len(train.y))
    response = plain(outcome=[LinearRegression(), TREES], final="boosting")
    response.fit(X, y, treatment=train.treatment, groups=names)
    with pytest.warns(DataWarning, match=r"not named in the file \('ward': 1\)"):
        response.save(tmp_path / "it")
    tensors, metadata = read_bundle(tmp_path / "it")
    text = json.dumps(metadata)
    assert "usual ward" in text
    assert "rare ward" not in text
    assert "patient" not in text
    rows = set(np.concatenate([y, train.X[:, 0], np.float32(train.X[:, 0])]).tolist())
    numbers = np.concatenate([tensor.double().ravel().numpy() for tensor in tensors.values()])
    assert not rows & set(numbers.tolist())
    response.save(tmp_path / "it", rare_levels="keep")
    assert read_bundle(tmp_path / "it")[1]["contains_patient_data"] is True
    X = X[:3].assign(ward="rare ward")
    again = TreatmentResponse.load(tmp_path / "it")
    np.testing.assert_array_equal(again.effect(X), response.effect(X))


def test_arms_and_leaves_of_few_are_not_written(train, tmp_path):
    treatment = np.where(np.arange(len(train.y)) % 60 == 0, 2, train.treatment)
    rare = fitted(plain(propensity={0: 0.4, 1: 0.4, 2: 0.2}), train._replace(treatment=treatment))
    with pytest.raises(BundleError, match=r"arm 2 of 3 .* in fewer than 10 rows"):
        rare.save(tmp_path / "rare")
    leaves = clone(TREES).set_params(min_samples_leaf=2)
    with pytest.raises(BundleError, match="min_samples_leaf=2"):
        fitted(plain(outcome=leaves), train).save(tmp_path / "leaves")


FORGED = {
    "arms": lambda plain: plain[0]["fields"]["treatment"]["fields"].update(labels={"texts": ["a"]}),
    "many arms": lambda plain: plain[1]["fields"].update(n_arms=10**9),
    "clip": lambda plain: plain[1]["fields"].update(clip=0.0),
    "outcome": lambda plain: plain[1]["fields"].update(outcome={"tuple": []}),
    "width": lambda plain: plain[2]["fields"]["deviations"]["fields"].update(width=10**9),
    "variation": lambda plain: plain[2]["fields"]["deviations"]["fields"].update(variation="all"),
    "effects": lambda plain: plain.__setitem__(2, plain[1]),
    "class": lambda plain: plain[2].update({"class": "TreatmentResponse"}),
    "circle": lambda plain: plain.__setitem__(2, {"same": ".2"}),
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_settings_are_refused(model, case, tmp_path):
    tensors, metadata = model.to_state()
    metadata = json.loads(json.dumps(metadata))
    FORGED[case](metadata["model"]["tuple"])
    write_bundle(tmp_path / "forged", tensors, metadata)
    with pytest.raises(BundleError, match="cannot use"):
        load(tmp_path / "forged")


def test_forged_arrays_are_refused(model, tmp_path):
    tensors, metadata = model.to_state()
    for name, tensor in tensors.items():
        short = torch.zeros((*tensor.shape[:-1], tensor.shape[-1] + 1) if tensor.ndim else (2,))
        write_bundle(tmp_path / "forged", tensors | {name: short.to(tensor.dtype)}, metadata)
        with pytest.raises(BundleError, match="cannot use"):
            load(tmp_path / "forged")


@pytest.mark.parametrize(("name", "value"), [("arm", 2), ("arm", -1), ("task", 3), ("task", -1)])
def test_forged_rows_are_refused(model, new, name, value, tmp_path):
    tensors, metadata = adapted(model, new).to_state()
    tensors[f"support.{name}"][0] = value
    write_bundle(tmp_path / "forged", tensors, metadata)
    with pytest.raises(BundleError, match="unknown tasks or arms"):
        load(tmp_path / "forged")


def test_a_model_is_learned_without_the_estimator(train):
    table = read_treated(train.X, train.y, treatment=train.treatment, groups=train.groups)
    encoder = TreatmentEncoder.fit(table, Arms.fit(table.treatment))
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    response = fitted(plain(), train)
    settings = EffectSettings(
        propensity=response.propensity, outcome=response.outcome, final="linear", random_state=seed
    )
    model, _, scores = fit_effect_model(encoder, encoder.rows(table), settings)
    query = encoder.query(train.X, None, encoder.no_rows(), "error").rows
    effect, _ = model.contrast(query, model.population, *model.treatment.pair())
    np.testing.assert_array_equal(effect, response.effect(train.X))
    assert scores == response.form_scores_


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner": "q"}, "learner must be one of"),
        ({"clip": 0.7}, "clip must lie"),
        ({"n_folds": 1}, "n_folds must be 2 or more"),
        ({"final": "cubic"}, "final must be"),
        ({"control": 5}, "control=5 is not an arm"),
        ({"outcome": "boosting"}, "outcome= must be a scikit-learn estimator"),
        ({"discrete_treatment": False}, "compares arms"),
        ({"discrete_treatment": False, "learner": "s"}, "needs estimator="),
        ({"learner": "t", "estimator": TaskRidge()}, "does not take estimator="),
    ],
)
def test_bad_settings_are_refused(train, settings, message):
    with pytest.raises(DataError, match=message):
        fitted(plain(**settings), train)
