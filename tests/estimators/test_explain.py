"""Parts of a prediction add up to it, and each value counts as it does in the prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ehrmeta import (
    MAML,
    MLP,
    BayesianHead,
    CarryForward,
    DeepMixedEffects,
    MatchingNet,
    MetaClassifier,
    MetaRegressor,
)
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.errors import DataError, GroupError
from tests.estimators.patients import make_patients

ROWS, LATER = slice(0, 3), slice(3, 6)
LEARNERS = {
    "default": DeepMixedEffects(),
    "carry forward": CarryForward(),
    "MAML": MAML(inner_steps=2),
    "closed form": BayesianHead(8),
    "matching": MatchingNet(),
}


MODELS: dict[str, MetaRegressor] = {}


def _fitted(algorithm, **parameters) -> MetaRegressor:
    """A model of these settings, fitted once."""
    name = f"{algorithm} {parameters}"
    if name not in MODELS:
        X, y, groups, time = make_patients()
        backbone = MLP((8,), "tanh")
        model = MetaRegressor(algorithm, backbone, max_steps=5, random_state=0, **parameters)
        MODELS[name] = model.fit(X, y, groups=groups, time=time)
    return MODELS[name]


@pytest.fixture(scope="module")
def one():
    """One new patient: X, y, time."""
    X, y, _, time = make_patients(n_patients=1, seed=5)
    return X, y, time


@pytest.mark.parametrize(
    ("name", "likelihood"), [*((name, "normal") for name in LEARNERS), ("default", "student_t")]
)
def test_the_parts_add_up_to_the_prediction(name, likelihood, one):
    X, y, time = one
    given = {} if likelihood == "normal" else {"likelihood": likelihood}
    adapted = _fitted(LEARNERS[name], **given).adapt(X[ROWS], y[ROWS], time=time[ROWS])
    found = adapted.explain(X[LATER], time=time[LATER])
    total = found.groupby("row")["contribution"].sum()
    np.testing.assert_allclose(total, adapted.predict(X[LATER], time=time[LATER]), atol=2e-3)
    population = found.loc[found["part"] == "population", "contribution"]
    expected = adapted.model.predict(X[LATER], time=time[LATER])
    np.testing.assert_allclose(population, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "algorithm", [DeepMixedEffects(correction=False), BayesianHead(8), MatchingNet()], ids=repr
)
def test_where_the_prediction_is_linear_a_value_moves_it_by_its_weight(algorithm, one):
    X, y, time = one
    model = _fitted(algorithm, precision="float64")
    first = {"X": X[ROWS], "time": time[ROWS]}
    later = {"X": X[LATER], "time": time[LATER]}
    found = model.adapt(y=y[ROWS], **first).explain(**later)
    values = found[found["part"] == "value"]
    weight = values.pivot(index="row", columns="support_row", values="weight").to_numpy()
    before = model.adapt(y=y[ROWS], **first).predict(**later)
    for row in range(3):
        moved = y[ROWS] + 2.0 * (np.arange(3) == row)
        change = model.adapt(y=moved, **first).predict(**later) - before
        np.testing.assert_allclose(change, 2.0 * weight[:, row], atol=1e-4)
    expected = y[ROWS] - model.predict(X[ROWS], time=time[ROWS])  # as no value is known
    np.testing.assert_allclose(values.loc[values["row"] == 0, "surprise"], expected, atol=1e-4)


def test_values_as_expected_contribute_nothing(one):
    X, _, time = one
    model = _fitted(DeepMixedEffects(correction=False))
    expected = model.predict(X[ROWS], time=time[ROWS])
    found = model.adapt(X[ROWS], expected, time=time[ROWS]).explain(X[LATER], time=time[LATER])
    assert np.abs(found.loc[found["part"] == "value", "contribution"]).max() < 1e-4


def test_many_patients_are_explained_each_by_its_own_rows():
    model = _fitted(DeepMixedEffects())
    X, y, groups, time = make_patients(n_patients=4, seed=6)
    early = time < 90
    many = model.adapt(X[early], y[early], groups=groups[early], time=time[early])
    asked = {"X": X[~early][::-1], "groups": groups[~early][::-1], "time": time[~early][::-1]}
    found = many.explain(**asked)
    total = found.groupby("row")["contribution"].sum()
    np.testing.assert_allclose(total, many.predict(**asked), atol=2e-3)
    values = found[found["part"] == "value"]
    owner = groups[early][values["support_row"]]
    np.testing.assert_array_equal(owner, asked["groups"][values["row"]])
    gap = asked["time"][values["row"]] - time[early][values["support_row"]]
    np.testing.assert_array_equal(values["before"], gap)
    np.testing.assert_allclose(values["own_weight"], many.own_weight(**asked)[values["row"]])


def test_baselines_and_classes_say_what_leaving_a_row_out_takes_away(one):
    X, y, groups, time = make_patients()
    patient, outcome, times = one
    mixed = MixedEffects().fit(X, y, groups=groups, time=time)
    last = LastValue().fit(X, y, groups=groups, time=time)
    risk = MetaClassifier(max_steps=5, random_state=0).fit(X, y > 54, groups=groups, time=time)
    for model, seen in ((mixed, outcome), (last, outcome), (risk, outcome > 54)):
        adapted = model.adapt(patient[ROWS], seen[ROWS], time=times[ROWS])
        found = adapted.explain(patient[LATER], time=times[LATER])
        asked = {"X": patient[LATER], "time": times[LATER]}
        own = adapted.predict_proba(**asked)[:, 1] if model is risk else adapted.predict(**asked)
        np.testing.assert_allclose(found.groupby("row")["contribution"].sum(), own, rtol=1e-6)
        kept = np.array([0, 2])
        without = model.adapt(patient.iloc[kept], seen[kept], time=times[kept])
        left = without.predict_proba(**asked)[:, 1] if model is risk else without.predict(**asked)
        second = found[(found["part"] == "value") & (found["support_row"] == 1)]
        np.testing.assert_allclose(second["contribution"], own - left, atol=1e-6)


def test_a_transformed_outcome_is_explained_on_its_own_scale(one):
    X, y, time = one
    model = _fitted(DeepMixedEffects(), outcome_transform="log")
    adapted = model.adapt(X[ROWS], y[ROWS], time=time[ROWS])
    found = adapted.explain(X[LATER], time=time[LATER])
    median = adapted.predict_quantiles(X[LATER], (0.5,), time=time[LATER])[:, 0]
    total = found.groupby("row")["contribution"].sum()
    np.testing.assert_allclose(np.exp(total), median, rtol=1e-4)


def test_without_a_support_there_is_the_population_alone(one):
    X, _, time = one
    found = _fitted(DeepMixedEffects()).unadapted().explain(X, time=time)
    assert set(found["part"]) == {"population", "visits"}
    np.testing.assert_allclose(found.loc[found["part"] == "visits", "contribution"], 0, atol=1e-4)


def test_bad_input_is_refused(one):
    X, y, time = one
    model = _fitted(DeepMixedEffects())
    adapted = model.adapt(X[ROWS], y[ROWS], groups=np.zeros(3), time=time[ROWS])
    with pytest.raises(GroupError, match="not adapted"):
        adapted.explain(X[LATER], groups=np.ones(3), time=time[LATER])
    with pytest.raises(DataError, match="leave it out"):
        adapted.explain(X[LATER], groups=np.zeros(3), time=time[LATER], target="hi")
    with pytest.raises(DataError, match="got no rows"):
        adapted.explain(X[:0], groups=np.zeros(0), time=time[:0])
    grades = pd.cut(make_patients().y, 3, labels=["a", "b", "c"]).astype(str)
    P = make_patients()
    three = MetaClassifier(max_steps=2, random_state=0).fit(
        P.X, np.asarray(grades), groups=P.groups, time=P.time
    )
    with pytest.raises(DataError, match="one of the model's 3 classes"):
        three.unadapted().explain(X[LATER], time=time[LATER])
