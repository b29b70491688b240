"""Parts of a prediction add up to it, and each value counts as it does in the prediction."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.inspection import permutation_importance
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import ehrmeta
from ehrmeta import (
    MAML,
    MLP,
    BayesianHead,
    CarryForward,
    Clock,
    DeepMixedEffects,
    Feature,
    MatchingNet,
    MetaClassifier,
    MetaRegressor,
    Schema,
)
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.data import OutcomeScale
from ehrmeta.errors import DataError, GroupError, SchemaError
from ehrmeta.estimators.explain import (
    _explained_value,
    _features_of,
    _label_number,
    _path_weights,
    draw_rows,
    shapley_shares,
)
from ehrmeta.estimators.predictions import CarriedPredictive, ClassPredictive, Predictive
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
    expected = adapted.unadapted().predict(X[LATER], time=time[LATER])
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
    queried = {"X": X[~early][::-1], "groups": groups[~early][::-1], "time": time[~early][::-1]}
    found = many.explain(**queried)
    total = found.groupby("row")["contribution"].sum()
    np.testing.assert_allclose(total, many.predict(**queried), atol=2e-3)
    values = found[found["part"] == "value"]
    owner = groups[early][values["support_row"]]
    np.testing.assert_array_equal(owner, queried["groups"][values["row"]])
    gap = queried["time"][values["row"]] - time[early][values["support_row"]]
    np.testing.assert_array_equal(values["before"], gap)
    np.testing.assert_allclose(values["own_weight"], many.own_weight(**queried)[values["row"]])


def test_baselines_and_classes_are_explained_by_leaving_rows_out(one):
    X, y, groups, time = make_patients()
    patient, outcome, times = one
    mixed = MixedEffects().fit(X, y, groups=groups, time=time)
    last = LastValue().fit(X, y, groups=groups, time=time)
    risk = MetaClassifier(max_steps=5, random_state=0).fit(X, y > 54, groups=groups, time=time)
    for model, seen in ((mixed, outcome), (last, outcome), (risk, outcome > 54)):
        adapted = model.adapt(patient[ROWS], seen[ROWS], time=times[ROWS])
        found = adapted.explain(patient[LATER], time=times[LATER])
        queried = {"X": patient[LATER], "time": times[LATER]}
        own = (
            adapted.predict_proba(**queried)[:, 1] if model is risk else adapted.predict(**queried)
        )
        np.testing.assert_allclose(found.groupby("row")["contribution"].sum(), own, rtol=1e-6)
        kept = np.array([0, 2])
        without = model.adapt(patient.iloc[kept], seen[kept], time=times[kept])
        left = (
            without.predict_proba(**queried)[:, 1] if model is risk else without.predict(**queried)
        )
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
    with pytest.raises(DataError, match="Omit target="):
        adapted.explain(X[LATER], groups=np.zeros(3), time=time[LATER], target="hi")
    with pytest.raises(DataError, match="X has no rows"):
        adapted.explain(X[:0], groups=np.zeros(0), time=time[:0])
    grades = pd.cut(make_patients().y, 3, labels=["a", "b", "c"]).astype(str)
    P = make_patients()
    three = MetaClassifier(max_steps=2, random_state=0).fit(
        P.X, np.asarray(grades), groups=P.groups, time=P.time
    )
    with pytest.raises(DataError, match="one of the model's 3 classes"):
        three.unadapted().explain(X[LATER], time=time[LATER])


@pytest.fixture(scope="module")
def patients():
    """Age and a sex that stays count, noise does not, and nothing is the same for all."""
    X, y, groups, time = make_patients()
    rng = np.random.default_rng(1)
    X["sex"] = np.repeat(rng.choice(["f", "m"], 60), 6)
    X["noise"] = rng.normal(size=360)
    X["nothing"] = 1.0
    return X, y + 4.0 * (X["sex"] == "m").to_numpy(), groups, time


@pytest.fixture(scope="module")
def mixed(patients):
    X, y, groups, time = patients
    schema = Schema(
        (Feature("age"), Feature("sex", kind="categorical", role="static"),
         Feature("noise"), Feature("nothing")),
    )  # fmt: skip
    return MixedEffects(schema=schema).fit(X, y, groups=groups, time=time)


def _shares(adapted, patients, rows=LATER, **given) -> pd.DataFrame:
    X, _, _, time = patients
    found = adapted.explain_features(X[rows], background=X[6:], time=time[rows], **given)
    return found.pivot(index="row", columns="feature", values="contribution")


def test_sampled_orders_give_the_shapley_values_of_a_game():
    """Where each sample is one game: the mean over all orders, which six orders come close to."""
    weight = np.array([3.0, -1.0, 2.0, 5.0])

    def game(joined, sample):
        return joined @ weight + 4.0 * (joined[:, 0] & joined[:, 1] & joined[:, 3]) + sample

    exact = np.zeros(4)
    for order in permutations(range(4)):
        joined = np.zeros((1, 4), dtype=bool)
        for player in order:
            before = game(joined, np.zeros(1))
            joined[0, player] = True
            exact[player] += (game(joined, np.zeros(1)) - before)[0] / 24
    base, shares = shapley_shares(game, 4, 300, np.random.default_rng(0))
    np.testing.assert_array_equal(base, np.arange(300))
    np.testing.assert_allclose(base + shares.sum(1), base + weight.sum() + 4.0)
    np.testing.assert_allclose(shares.mean(0), exact, atol=0.1)
    assert shares[:, 2] == pytest.approx(2.0)  # joins no other


@pytest.mark.parametrize("name", ["mixed", "default", "MAML on ridge", "last value", "classes"])
def test_base_and_shares_add_up_to_the_prediction(name, patients, mixed):
    X, y, groups, time = patients
    given, known = {"groups": groups, "time": time}, ("noise",)
    if name == "classes":
        y = y > 56
    model = {
        "mixed": lambda: mixed,
        "default": lambda: MetaRegressor(
            DeepMixedEffects(trees=False), max_steps=5, random_state=0, known=known
        ).fit(X, y, **given),
        "MAML on ridge": lambda: MetaRegressor(
            MAML(inner_steps=2),
            MLP((8,)),
            population=Ridge(),
            max_steps=5,
            random_state=0,
            known=known,
        ).fit(X, y, **given),
        "last value": lambda: LastValue(known=known).fit(X, y, **given),
        "classes": lambda: MetaClassifier(max_steps=5, random_state=0, known=known).fit(
            X, y, **given
        ),
    }[name]()
    adapted = model.adapt(X[ROWS], y[ROWS], time=time[ROWS])
    shares = _shares(adapted, patients, n_samples=8)
    queried = {"X": X[LATER], "time": time[LATER]}
    own = (
        adapted.predict_proba(**queried)[:, 1] if name == "classes" else adapted.predict(**queried)
    )
    np.testing.assert_allclose(shares.sum(axis=1), own, rtol=1e-5)
    np.testing.assert_allclose(shares["nothing"], 0.0, atol=1e-5)
    if name == "last value":
        np.testing.assert_allclose(shares[["age", "sex", "noise"]], 0.0, atol=1e-12)
    else:
        assert np.abs(shares["age"]).max() > 1e-3


def test_where_the_model_is_linear_a_share_is_the_gap_to_the_mean(patients, mixed):
    X, _, _, time = patients
    shares = _shares(mixed.unadapted(), patients, n_samples=len(X) - 6)
    for row, at in enumerate(range(3, 6)):
        typical = X.iloc[[at]].assign(age=X["age"][6:].mean())
        here = {"time": time[[at]]}
        gap = mixed.predict(X.iloc[[at]], **here) - mixed.predict(typical, **here)
        assert shares["age"][row] == pytest.approx(gap[0], abs=1e-5)


def test_information_of_outcomes_is_not_ascribed_to_a_static_feature(patients, mixed):
    X, y, _, time = patients
    alone, few, many = (
        _shares(mixed.adapt(X[:k], y[:k], time=time[:k]) if k else mixed.unadapted(), patients,
                rows=slice(5, 6))["sex"].abs()[0]
        for k in (0, 1, 5)
    )  # fmt: skip
    assert alone > 1.0
    assert alone > 1.5 * few > 1.5 * many


def test_a_measured_feature_counts_through_the_support():
    X, y, groups, time = make_patients()
    X = X.assign(lab=np.random.default_rng(0).normal(size=360))
    y = y + 3.0 * X["lab"].groupby(groups).shift(fill_value=0.0).to_numpy()  # of the last visit
    schema = Schema((Feature("age"), Feature("sex", kind="categorical"),
                     Feature("lab", role="measured")), time=Clock("day"))  # fmt: skip
    model = MetaRegressor(DeepMixedEffects(trees=False), max_steps=5, random_state=0, schema=schema)
    model.fit(X, y, groups=groups, time=time)
    queried = {"X": X[3:4], "time": time[3:4], "background": X[6:], "n_samples": 10}
    none = model.unadapted().explain_features(**queried).set_index("feature")["contribution"]
    seen = model.adapt(X[:3], y[:3], time=time[:3]).explain_features(**queried)
    assert none["lab"] == pytest.approx(0.0, abs=1e-5)
    assert abs(seen.set_index("feature")["contribution"]["lab"]) > 0.1


def test_the_error_is_the_spread_between_two_samples(patients, mixed):
    X, _, _, time = patients
    queried = {"X": X[LATER], "time": time[LATER], "background": X[6:], "n_samples": 40}
    one, other = (mixed.unadapted().explain_features(**queried, random_state=s) for s in (0, 1))
    pd.testing.assert_frame_equal(one, mixed.unadapted().explain_features(**queried))
    gap = np.abs(one["contribution"] - other["contribution"])
    assert gap.max() > 0.0
    assert (gap <= 5.0 * np.hypot(one["error"], other["error"]) + 1e-9).all()


def test_many_patients_are_each_compared_with_their_own_rows(patients, mixed):
    X, y, groups, time = patients
    early = (time < 90) & (groups < 3)
    late = np.flatnonzero((time >= 90) & (groups < 3))[::-1]
    many = mixed.adapt(X[early], y[early], groups=groups[early], time=time[early])
    given = {"background": X[18:], "n_samples": 5}
    queried = {"groups": groups[late], "time": time[late]}
    found = many.explain_features(X.iloc[late], **queried, **given)
    total = found.groupby("row")["contribution"].sum()
    np.testing.assert_allclose(total, many.predict(X.iloc[late], **queried), rtol=1e-6)
    assert list(found["row"].unique()) == list(range(9))


def test_a_pipelines_columns_are_those_before_the_model(patients):
    X, y, groups, time = patients
    steps = make_pipeline(FunctionTransformer(lambda X: X.drop(columns="noise")), MixedEffects())
    with_time = {"mixedeffects__groups": groups, "mixedeffects__time": time}
    steps.fit(X, y, **with_time)
    adapted = ehrmeta.adapt(steps, X[ROWS], y[ROWS], time=time[ROWS])
    assert "noise" not in _shares(adapted, patients, n_samples=2)


def test_scikit_learns_importance_ranks_features_over_all_patients(patients):
    X, y, groups, time = patients
    columns = X.drop(columns="nothing").assign(patient=groups, day=time)
    model = MixedEffects(task="patient", time="day", known=["noise"], score_shots=(1,))
    model.fit(columns, y)
    found = permutation_importance(model, columns, y, n_repeats=2, random_state=0)
    of = dict(zip(columns, found["importances_mean"], strict=True))
    assert of["age"] > 5 * abs(of["noise"])


def test_bad_input_of_feature_attributions_is_refused(patients, mixed):
    X, _, _, time = patients
    adapted, queried = mixed.unadapted(), {"X": X[LATER], "time": time[LATER]}
    with pytest.raises(DataError, match="background has no rows"):
        adapted.explain_features(**queried, background=X[:0])
    with pytest.raises(SchemaError, match="Pass the columns of fit"):
        adapted.explain_features(**queried, background=X[["age"]])
    for wrong in (1, 2.5):
        with pytest.raises(DataError, match="n_samples must be a whole number, 2 or more"):
            adapted.explain_features(**queried, background=X, n_samples=wrong)
    with pytest.raises(DataError, match="X has no rows"):
        adapted.explain_features(X[:0], time=time[:0], background=X)
    with pytest.raises(DataError, match="Omit target="):
        adapted.explain_features(**queried, background=X, target="m")


def test_path_weights_are_exact_where_the_derivative_is_a_polynomial():
    start, end = torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 1.0]).double()

    def predict(y):
        return torch.stack([y[0] ** 6 + 2.0 * y[1] ** 3, y[0] * y[1], 3.0 * y[0] - y[1]])

    weight = _path_weights(predict, start, end)
    torch.testing.assert_close(weight @ (end - start), predict(end) - predict(start))
    first = (end[0] ** 6 - start[0] ** 6) / (end[0] - start[0])
    second = 2.0 * (end[1] ** 3 - start[1] ** 3) / (end[1] - start[1])
    torch.testing.assert_close(weight[0], torch.stack([first, second]))
    torch.testing.assert_close(weight[2], torch.tensor([3.0, -1.0]).double())


def test_every_row_of_a_patient_has_its_own_features_and_draws(patients, mixed):
    X, y, groups, time = patients
    two = groups < 2
    early, later = two & (time < 90), two & (time >= 90)
    many = mixed.adapt(X[early], y[early], groups=groups[early], time=time[early])
    given = {"background": X[12:], "n_samples": 7, "random_state": 3}
    rows = X[later].iloc[::-1]
    queried = {"groups": groups[later][::-1], "time": time[later][::-1]}
    found = many.explain_features(rows, **queried, **given)
    for task in (0, 1):
        own = early & (groups == task)
        alone = mixed.adapt(X[own], y[own], time=time[own])
        mine = later & (groups == task)
        expected = alone.explain_features(X[mine].iloc[::-1], time=time[mine][::-1], **given)
        at = np.flatnonzero(queried["groups"] == task)
        part = found[found["row"].isin(at)]
        for column in ("contribution", "error"):
            np.testing.assert_allclose(part[column], expected[column], atol=1e-5)
        assert part["value"].tolist() == expected["value"].tolist()
    values = found[found["feature"] == "age"].set_index("row")["value"]
    assert values.tolist() == rows["age"].tolist()
    assert found[found["part"] == "base"]["value"].isna().all()


def test_the_error_is_the_standard_error_over_the_samples(patients, mixed):
    X, _, _, time = patients
    few, many = (
        mixed.unadapted().explain_features(
            X[3:4], time=time[3:4], background=X[6:], n_samples=n, random_state=1
        )["error"]
        for n in (20, 320)
    )
    assert few[1] == pytest.approx(4.0 * many[1], rel=0.5)  # age
    assert few[4] == pytest.approx(0.0, abs=1e-6)  # nothing


def test_samples_are_drawn_in_chunks_without_a_change():
    calls = []

    def game(joined, sample):
        calls.append(len(joined))
        return joined @ np.array([1.0, 2.0, 4.0]) + 10.0 * sample

    base, shares = shapley_shares(game, 3, 600, np.random.default_rng(0))
    np.testing.assert_array_equal(base, 10.0 * np.arange(600))
    np.testing.assert_allclose(shares, np.tile([1.0, 2.0, 4.0], (600, 1)))
    assert sum(calls) == 600 * 2 * 4
    assert max(calls) <= 2000


def test_background_rows_are_drawn_once_each():
    rows = pd.DataFrame({"x": np.arange(30)})
    drawn = draw_rows(rows, 10, 0)
    assert len(drawn) == drawn["x"].nunique() == 10
    assert drawn["x"].is_monotonic_increasing
    pd.testing.assert_frame_equal(draw_rows(rows, 99, 0), rows)
    assert not draw_rows(rows, 10, 1).equals(drawn)
    assert len(draw_rows(rows, np.int64(2), 0)) == 2


def test_columns_of_features_are_found_by_number():
    X, y, groups, time = make_patients(n_patients=20)
    schema = Schema(
        (Feature("lab", role="measured"), Feature("age"), Feature("sex", kind="categorical")),
        time=Clock("day"),
    )
    X = X.assign(lab=np.arange(len(y)) % 7.0)[["lab", "age", "sex"]]
    model = MixedEffects(schema=schema).fit(X, y, groups=groups, time=time).model_
    of_x, of_measured = _features_of(model.table, model.no_rows())
    assert set(of_measured.tolist()) == {0}
    assert of_x.tolist()[0] == 1
    assert set(of_x.tolist()) == {1, 2, 3}  # the clock has the number after the last
    assert of_x.tolist()[-1] == 3


def test_a_class_is_chosen_by_its_label():
    classes = MetaClassifier(max_steps=1, random_state=0, verbose=False)
    X, y, groups, time = make_patients(n_patients=30)
    labels = np.array(["a", "b", "c"])[(y > 53).astype(int) + (y > 57)]
    classes.fit(X, labels, groups=groups, time=time)
    adapted = classes.adapt(X[ROWS], labels[ROWS], time=time[ROWS])
    p = adapted.predict_proba(X[LATER], time=time[LATER])
    for number, label in enumerate("abc"):
        found = adapted.explain(X[LATER], time=time[LATER], target=label)
        np.testing.assert_allclose(
            found.groupby("row")["contribution"].sum(), p[:, number], rtol=1e-6
        )
    table = classes.model_.table
    assert [_label_number(table, label) for label in "abc"] == [0, 1, 2]
    with pytest.raises(DataError, match="one of the model's 3 classes"):
        _label_number(table, "d")


def test_what_is_explained_is_the_mean_on_the_transformed_scale():
    outcome = OutcomeScale(center=10.0, scale=2.0, transform="log")
    parts = np.array([0.5]), outcome, np.array([1.0])
    assert _explained_value(Predictive(*parts), None).tolist() == [11.0]
    carried = CarriedPredictive(*parts, unchanged=np.array([0.25]), last=np.array([2.0]))
    assert _explained_value(carried, None).tolist() == [10.0 + 2.0 * (0.25 * 2.0 + 0.75 * 0.5)]
    classes = ClassPredictive(np.log([[0.2, 0.8]]), np.array(["a", "b"]))
    assert _explained_value(classes, 1) == pytest.approx(0.8)
    with pytest.raises(DataError, match="only predictions of numbers and classes"):
        _explained_value(classes, None)
