"""Hazards of events keep the laws of survival, and landmarks those of lines."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from ehrmeta import DiscreteTimeHazard, MetaClassifier, landmark_posterior, survival_array
from ehrmeta.baselines import LastValue, MixedEffects
from ehrmeta.data.labels import person_period
from ehrmeta.errors import DataError, NotFittedError, SchemaError

EVERY_TIME = DecisionTreeClassifier()  # without features: the share of events in each interval


def competing(n, seed=0):
    """Features, outcome, and the true cumulative incidence of cause 1 as a function of time."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    rates = 0.1 * np.exp(X)
    first = rng.exponential(1.0 / rates)
    until = rng.uniform(0, 12, n)
    event = np.where(first.min(1) <= until, 1 + first.argmin(1), 0)
    total = rates.sum(1)

    def incidence(t):
        return rates[:, 0] / total * (1 - np.exp(-total * t))

    return X, survival_array(event, np.minimum(first.min(1), until)), incidence


def aalen_johansen(y):
    """Cumulative incidence (cause, time) and survival (time,) at the sorted distinct times."""
    times = np.unique(y["time"])
    at_risk = (y["time"][:, None] >= times).sum(0)
    ended = [((y["time"][:, None] == times) & (y["event"] == c)[:, None]).sum(0) for c in (1, 2)]
    survival = np.cumprod(1 - sum(ended) / at_risk)
    before = np.concatenate([[1.0], survival[:-1]])
    return np.array([np.cumsum(before * d / at_risk) for d in ended]), survival


def test_with_an_edge_at_every_time_and_no_features_it_is_aalen_johansen():
    y = competing(300)[1]
    y["time"] = np.ceil(y["time"] * 4) / 4  # ties
    times = np.unique(y["time"])
    edges = np.concatenate([[0.0], times])
    nothing = np.zeros((300, 1))
    model = DiscreteTimeHazard(EVERY_TIME, intervals=edges).fit(nothing, y)
    incidence, survival = aalen_johansen(y)
    for cause in (1, 2):
        found = model.predict_cumulative_incidence(nothing[:1], cause=cause)[0]
        np.testing.assert_allclose(found, incidence[cause - 1], atol=1e-12)
    found = model.predict_survival_function(nothing[:1])[0]
    np.testing.assert_allclose(found, survival, atol=1e-12)


def test_a_fine_grid_comes_close_to_kaplan_meier():
    _, y, _ = competing(2000)
    alone = survival_array(y["event"] == 1, y["time"])
    nothing = np.zeros((2000, 1))
    model = DiscreteTimeHazard(intervals=100).fit(nothing, alone)
    queried = np.arange(1.0, 10.0)
    _, survival = aalen_johansen(alone)
    expected = survival[np.searchsorted(np.unique(alone["time"]), queried, side="right") - 1]
    found = model.predict_survival_function(nothing[:1], times=queried)[0]
    np.testing.assert_allclose(found, expected, atol=0.015)


@pytest.mark.parametrize("intervals", [8, 40])
def test_the_true_cumulative_incidence_is_recovered(intervals):
    X, y, incidence = competing(4000)
    model = DiscreteTimeHazard(intervals=intervals).fit(X, y)
    found = model.predict_cumulative_incidence(X, times=[2.0, 6.0])
    assert np.abs(found[:, 0] - incidence(2.0)).mean() < 0.015
    assert np.abs(found[:, 1] - incidence(6.0)).mean() < 0.025


@pytest.mark.parametrize(
    "classifier", [None, HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=4)]
)
def test_incidences_and_survival_add_up_and_only_grow(classifier):
    X, y, _ = competing(400)
    X[::7, 1] = np.nan
    model = DiscreteTimeHazard(classifier, intervals=6).fit(X, y)
    queried = np.linspace(0, model.edges_[-1], 23)
    parts = [model.predict_cumulative_incidence(X, queried, cause=cause) for cause in (1, 2)]
    survival = model.predict_survival_function(X, queried)
    np.testing.assert_allclose(sum(parts) + survival, 1.0, atol=1e-12)
    for part in parts:
        assert np.all(part[:, 0] == 0) and np.all(np.diff(part, axis=1) >= 0)


def test_settings_are_chosen_by_likelihood():
    X, y, _ = competing(600)
    model = DiscreteTimeHazard(DecisionTreeClassifier(random_state=0), intervals=6)
    search = GridSearchCV(model, {"classifier__max_depth": [3, None]}, cv=3).fit(X, y)
    assert search.best_params_ == {"classifier__max_depth": 3}


def test_cloning_keeps_the_settings_and_fitting_changes_none():
    X, y, _ = competing(50)
    model = DiscreteTimeHazard(EVERY_TIME, intervals=[0.0, 3.0, 6.0])
    settings = repr(clone(model))
    assert repr(model.fit(X, y)) == settings
    assert not hasattr(EVERY_TIME, "tree_")


@pytest.mark.parametrize(
    ("event", "time", "words"),
    [
        ([0, 0, 0], [1.0, 2.0, 3.0], "none of the 3 patients has an event"),
        ([0, 0, 0], [0.0, 0.0, 0.0], "ends at time 0"),
        ([1, 0], [1.0, 2.0], "X has 3 rows and y 2"),
    ],
)
def test_outcomes_that_teach_nothing_are_refused(event, time, words):
    with pytest.raises(DataError, match=words):
        DiscreteTimeHazard().fit(np.zeros((3, 1)), survival_array(event, time))


def test_questions_that_the_fit_cannot_answer_are_refused():
    X, y, _ = competing(60)
    with pytest.raises(NotFittedError):
        DiscreteTimeHazard().predict_hazard(X)
    model = DiscreteTimeHazard().fit(pd.DataFrame(X, columns=["a", "b"]), y)
    frame = pd.DataFrame(X, columns=["b", "a"])
    with pytest.raises(DataError, match="the longest training follow-up"):
        model.predict_survival_function(frame[["a", "b"]], times=[99.0])
    with pytest.raises(DataError, match="unknown cause 3"):
        model.predict_cumulative_incidence(frame[["a", "b"]], cause=3)
    with pytest.raises(SchemaError, match="columns of fit"):
        model.predict_hazard(frame)
    with pytest.raises(SchemaError, match=r"\['sex'\] contain text"):
        DiscreteTimeHazard().fit(pd.DataFrame({"sex": ["f"] * 60}), y)


def lines(n_patients=60, n_visits=6, seed=0):
    """Lines with noise, one per patient: groups, time, outcome, slopes."""
    rng = np.random.default_rng(seed)
    level, slope = rng.normal(10, 2, n_patients), rng.normal(0, 1, n_patients)
    groups = np.repeat(np.arange(n_patients), n_visits)
    time = np.tile(np.arange(float(n_visits)), n_patients)
    y = level[groups] + slope[groups] * time + rng.normal(0, 0.1, len(groups))
    return np.zeros((len(groups), 1)), y, groups, time, slope


def test_level_and_slope_are_those_of_the_line():
    X, y, groups, time, slope = lines()
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    adapted = model.adapt(X, y, groups=groups, time=time)
    found = landmark_posterior(adapted, X[:60], groups=np.arange(60), time=np.full(60, 5.0), step=2)
    np.testing.assert_allclose(found["level"], y[5::6], atol=0.4)
    np.testing.assert_allclose(found["slope"], slope, atol=0.2)


def test_patients_without_a_value_get_the_population():
    X, y, groups, time, _ = lines()
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    adapted = model.adapt(X[:6], y[:6], groups=groups[:6], time=time[:6])
    found = landmark_posterior(adapted, X[:2], groups=[0, 77], time=[5.0, 5.0], step=1.0)
    assert found["level"][1] == pytest.approx(model.predict(X[:1], time=[5.0])[0])
    assert found["spread"][1] > 5 * found["spread"][0]


def test_values_of_other_patients_and_their_order_change_nothing():
    X, y, groups, time, _ = lines()
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    alone = model.adapt(X[:6], y[:6], groups=groups[:6], time=time[:6])
    among = model.adapt(X, y, groups=groups, time=time)
    one = landmark_posterior(alone, X[:1], groups=[0], time=[5.0], step=1.0)
    both = landmark_posterior(among, X[:2], groups=[3, 0], time=[5.0, 5.0], step=1.0)
    np.testing.assert_allclose(both.iloc[1], one.iloc[0], rtol=1e-9)


def test_a_forecaster_without_distribution_has_no_spread():
    X, y, groups, time, _ = lines()
    adapted = LastValue().fit(X, y, groups=groups, time=time).adapt(X, y, groups=groups, time=time)
    found = landmark_posterior(adapted, X[:1], groups=[0], time=[5.0], step=1.0)
    assert list(found) == ["level", "slope"]
    assert found["level"][0] == pytest.approx(y[5]) and found["slope"][0] == 0


def test_classes_and_a_step_of_nothing_are_refused():
    X, y, groups, time, _ = lines()
    model = MetaClassifier(max_steps=1, random_state=0, verbose=False)
    model.fit(X, y > 10, groups=groups, time=time)
    adapted = model.adapt(X[:6], (y > 10)[:6], groups=groups[:6], time=time[:6])
    with pytest.raises(DataError, match="Adapt a regressor"):
        landmark_posterior(adapted, X[:1], groups=[0], time=[9.0], step=1.0)
    with pytest.raises(DataError, match="step must be a positive"):
        landmark_posterior(adapted, X[:1], groups=[0], time=[9.0], step=0.0)


def test_hazards_are_those_of_the_classifier_at_the_middle_of_each_interval():
    X, y, _ = competing(300)
    model = DiscreteTimeHazard(DecisionTreeClassifier(max_depth=3), intervals=[0, 2, 5, 12]).fit(
        X, y
    )
    hazard = model.predict_hazard(X[:4])
    assert hazard.shape == (4, 2, 3)
    classes = model.classifier_.classes_.tolist()
    for interval, middle in enumerate((1.0, 3.5, 8.5)):
        rows = np.column_stack([np.full(4, middle), X[:4]])
        p = model.classifier_.predict_proba(rows)
        for place, cause in enumerate((1, 2)):
            np.testing.assert_allclose(hazard[:, place, interval], p[:, classes.index(cause)])
    survival = np.cumprod(1.0 - hazard.sum(1), axis=1)
    np.testing.assert_allclose(model.predict_survival_function(X[:4]), survival)
    before = np.column_stack([np.ones(4), survival[:, :-1]])
    for place, cause in enumerate((1, 2)):
        incidence = np.cumsum(before * hazard[:, place], axis=1)
        np.testing.assert_allclose(
            model.predict_cumulative_incidence(X[:4], cause=cause), incidence
        )
    half = model.predict_survival_function(X[:4], times=[0.0, 1.0, 2.0, 3.5, 12.0])
    np.testing.assert_allclose(half[:, 0], 1.0)
    np.testing.assert_allclose(half[:, 1], (1.0 + survival[:, 0]) / 2)
    np.testing.assert_allclose(half[:, 2], survival[:, 0])
    np.testing.assert_allclose(half[:, 3], (survival[:, 0] + survival[:, 1]) / 2)
    np.testing.assert_allclose(half[:, 4], survival[:, 2])
    for wrong in (-0.1, 12.1):
        with pytest.raises(DataError, match="times must lie between 0 and 12"):
            model.predict_survival_function(X[:1], times=[wrong])


def test_the_score_is_the_mean_log_likelihood_of_the_intervals_survived():
    X, y, _ = competing(200)
    model = DiscreteTimeHazard(intervals=[0, 3, 12]).fit(X, y)
    hazard = model.predict_hazard(X)
    rows = person_period(y["event"], y["time"], model.edges_)
    total = 0.0
    for person, interval, event in zip(*rows, strict=True):
        of_causes = hazard[person, :, interval]
        total += np.log(of_causes[event - 1] if event else 1.0 - of_causes.sum())
    assert model.score(X, y) == pytest.approx(total / 200, rel=1e-6)
    unknown = y.copy()
    unknown["event"][np.flatnonzero(y["event"])[0]] = 3  # never seen: probability 0
    assert model.score(X, unknown) < model.score(X, y) - 600 / 200


def test_text_and_other_columns_are_refused():
    X, y, _ = competing(100)
    frame = pd.DataFrame(X, columns=["a", "b"])
    model = DiscreteTimeHazard(intervals=3).fit(frame, y)
    with pytest.raises(SchemaError, match="same order"):
        model.predict_hazard(frame[["b", "a"]])
    with pytest.raises(SchemaError, match=r"column\(s\) \['b'\] contain text"):
        model.predict_hazard(frame.assign(b="x"))
    with pytest.raises(DataError, match="X has 99 rows and y 100"):
        model.fit(frame[:99], y)
    assert DiscreteTimeHazard().__sklearn_tags__().input_tags.allow_nan
    missing = frame.assign(a=np.where(np.arange(100) < 9, np.nan, frame["a"]))
    assert np.isfinite(model.fit(missing, y).predict_hazard(missing)).all()


def test_a_landmark_holds_level_slope_and_spread_of_the_transformed_outcome():
    rng = np.random.default_rng(0)
    patients, years = np.repeat(np.arange(40), 5), np.tile(np.arange(5.0), 40)
    y = np.exp((1 + 0.1 * years) * rng.normal(1, 0.2, 40)[patients] + rng.normal(0, 0.05, 200))
    model = MixedEffects(outcome_transform="log")
    model.fit(np.zeros((200, 1)), y, groups=patients, time=years)
    seen = {"groups": np.repeat(["a", "b"], 3), "time": np.tile(np.arange(3.0), 2)}
    adapted = model.adapt(np.zeros((6, 1)), y[[0, 1, 2, 5, 6, 7]], **seen)
    asked = {"groups": ["b", "new", "a"], "time": [3.0, 3.0, 4.0]}
    found = landmark_posterior(adapted, np.zeros((3, 1)), **asked, step=0.5)
    population = model.unadapted()
    for row, (name, at) in enumerate(zip(asked["groups"], asked["time"], strict=True)):
        who, task = (population, {}) if name == "new" else (adapted, {"groups": [name]})
        now, later = (
            who.predict_distribution([[0.0]], time=[time], **task) for time in (at, at + 0.5)
        )
        scale = now.outcome.scale
        level = now.outcome.center + scale * now.loc[0]
        assert found["level"][row] == pytest.approx(level)
        assert found["slope"][row] == pytest.approx(scale * (later.loc[0] - now.loc[0]) / 0.5)
        assert found["spread"][row] == pytest.approx(scale * now.scale[0])
