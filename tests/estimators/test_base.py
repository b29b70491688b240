"""Every estimator over tasks is scored by its adaptation and works inside scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ehrmeta import MAML, Clock, Feature, MetaClassifier, Outcome, PatientKFold, Schema, adapt
from ehrmeta.baselines import LastValue, MixedEffects, TaskLogistic, TaskMean
from ehrmeta.errors import DataError, DataWarning, GroupError, NotFittedError
from ehrmeta.estimators._base import TaskEstimator, TaskRegressor, _skill
from tests.estimators.patients import make_patients, small_model

pytestmark = pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")


def test_score_sees_the_adaptation(patients, new_patients):
    """Changing a rate that only adaptation uses changes the score."""
    X, y, groups, time = patients
    scores = []
    for inner_lr in (1e-4, 0.2):
        algorithm = MAML(inner_lr, 1, learn_inner_lr=False, mixed_start=False)
        fitted = small_model(algorithm=algorithm).fit(X, y, groups=groups, time=time)
        scores.append(
            fitted.score(
                new_patients.X, new_patients.y, groups=new_patients.groups, time=new_patients.time
            )
        )
    assert scores[1] > scores[0] + 0.05


def test_metadata_routing_brings_groups_and_time(patients):
    X, y, groups, time = patients
    with config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            small_model(max_steps=5),
            X,
            y,
            cv=PatientKFold(2),
            params={"groups": groups, "time": time},
            error_score="raise",
        )
    assert np.isfinite(scores).all()


def test_pipelines_adapt_behind_their_transformers(patients):
    X, y, groups, time = patients
    table = X.assign(patient=groups, day=time)
    keep = make_column_transformer(
        (StandardScaler(), ["age"]), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    pipeline = make_pipeline(keep, small_model(task="patient", time="day", max_steps=20))
    pipeline.fit(table, y)
    support, query = time < 90, time >= 90
    adapted = adapt(pipeline, table[support], y[support])
    error = adapted.predict(table[query]) - y[query]
    assert np.std(error) < np.std(pipeline.predict(table[query]) - y[query])


def test_a_pipeline_that_drops_the_task_column_says_so(patients):
    X, y, groups, _ = patients
    table = X.assign(patient=groups)
    drop = FunctionTransformer(lambda frame: frame.drop(columns="patient"))
    with pytest.raises(DataError, match=r"'patient' is not in X.*pass it through"):
        make_pipeline(drop, small_model(task="patient")).fit(table, y)


def test_the_score_is_one_minus_the_error_averaged_within_then_over_patients(patients):
    """By hand, of the mean of one random row: patients weigh the same."""
    X, y, groups, time = patients
    kept = (groups > 0) | (time < 60)  # one patient with fewer rows
    X, y, groups, time = X[kept], y[kept], groups[kept], time[kept]
    model = LastValue(score_shots=(2,)).fit(X, y, groups=groups, time=time)
    errors = []
    for task in np.unique(groups)[1:]:  # the first has no row after its two
        values = y[groups == task]
        errors.append(np.mean(np.square(values[2:] - values[1])))
    later = (groups > 0) & (time >= 60)
    expected = 1.0 - np.mean(errors) / y[later].var()
    score = model.score(X, y, groups=groups, time=time)
    assert score == pytest.approx(expected, rel=1e-5)


def test_without_groups_the_population_is_scored(patients):
    X, y, groups, time = patients
    model = TaskMean().fit(X, y, groups=groups, time=time)
    assert model.score(X, y, time=time) == pytest.approx(0.0, abs=1e-6)


def test_a_classifier_is_scored_by_its_log_loss():
    y = np.tile([True, False, False, False], 30)
    model = TaskLogistic().fit(np.zeros((120, 1)), y, groups=np.repeat(np.arange(30), 4))
    assert model.score(np.zeros((120, 1)), y) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(DataError, match=r"TaskLogistic.*multiclass: 3 classes"):
        model.fit(np.zeros((120, 1)), np.tile([0, 1, 2, 0], 30), groups=np.arange(120) // 4)


def test_parameters_are_those_of_the_bases_and_its_own():
    model = MixedEffects(reml=False, task="patient", score_shots=(2,))
    copy = clone(model).set_params(random_slope=False)
    assert copy.get_params() == model.get_params() | {"random_slope": False}
    assert set(LastValue().get_params()) == {
        "schema",
        "task",
        "time",
        "known",
        "outcome_transform",
        "score_shots",
    }
    with pytest.raises(TypeError, match="positional"):
        MixedEffects(True)


def test_what_is_not_fitted_says_so():
    with pytest.raises(NotFittedError, match="LastValue instance is not fitted"):
        LastValue().predict([[0.0]])
    with pytest.raises(DataError, match=r"ends in StandardScaler, which has no adapt"):
        adapt(make_pipeline(StandardScaler()), [[0.0]], [1.0])


def test_ids_spelled_otherwise_are_hinted_at_and_not_shown():
    X, y, groups, time = make_patients(n_patients=9)
    ids = np.array([f"p0{group}" for group in groups], dtype=object)
    model = MixedEffects().fit(X, y, groups=ids, time=time)
    adapted = model.adapt(X[:3], y[:3], groups=ids[:3], time=time[:3])
    queried = {"groups": ["P00 "], "time": time[3:4]}
    with pytest.raises(GroupError, match="1 of their ids differ from known ids by lead") as caught:
        adapted.predict(X[3:4], **queried)
    assert "P00" not in str(caught.value)
    with pytest.warns(DataWarning, match=r"1 id\(s\) differ from another by leading zeros"):
        adapted.predict(X[3:4], **queried, new_groups="population")
    with pytest.warns(DataWarning, match=r"1 id\(s\) differ from another by leading zeros"):
        model.adapt(X[:2], y[:2], groups=["p00", "P00"], time=time[:2])
    with pytest.warns(DataWarning, match=r"1 id\(s\) differ from another by leading zeros"):
        adapted.update(X[3:4], y[3:4], **queried)


def test_copies_of_the_outcome_and_odd_outcomes_are_reported():
    X, y, groups, time = make_patients(n_patients=20)
    rows = {"groups": groups, "time": time}
    with pytest.raises(DataError, match=r"\['unit'\] are copies of the outcome 'y'"):
        MixedEffects(known=[]).fit(X.assign(unit=y * 0.02586), y, **rows)
    with pytest.raises(DataError, match=r"\['label'\] are copies of the outcome 'y'"):
        MetaClassifier(known=[]).fit(X.assign(label=y > 55), np.where(y > 55, "a", "b"), **rows)
    with pytest.warns(DataWarning, match="outcome 'y' is 0 or 1 in all 120 rows.*MetaClassifier"):
        MixedEffects().fit(X, y > 55, **rows)
    gross = np.where(np.arange(120) == 7, 73519.0, y)
    with pytest.warns(DataWarning, match="far from all other values in 1 of 120 rows"):
        MixedEffects().fit(X, gross, **rows)
    with pytest.raises(GroupError, match="none of 120 tasks has two rows"):
        MixedEffects().fit(X, y, groups=np.arange(120), time=time)


def test_weights_of_rows_weigh_the_score_within_patients(patients):
    X, y, groups, time = patients
    model = LastValue(score_shots=(2,)).fit(X, y, groups=groups, time=time)
    weight = np.where(time == 60, 3.0, 1.0) * (time < 150)
    later = time >= 60
    losses, constants = [], y[later] - np.average(y[later], weights=weight[later])
    for task in np.unique(groups):
        values, weights = y[groups == task], weight[groups == task]
        losses.append(np.average(np.square(values[2:] - values[1]), weights=weights[2:]))
    expected = 1.0 - np.mean(losses) / np.average(constants**2, weights=weight[later])
    given = {"groups": groups, "time": time}
    score = model.score(X, y, **given, sample_weight=weight)
    assert score == pytest.approx(expected, rel=1e-5)
    nobody = weight * (groups > 0)  # a patient without weight does not count
    assert np.isfinite(model.score(X, y, **given, sample_weight=nobody))
    for wrong in (weight[:-1], -weight, np.where(time == 0, np.nan, weight), weight[:, None]):
        with pytest.raises(DataError, match=r"sample_weight must be one number per row of X"):
            model.score(X, y, **given, sample_weight=wrong)
    unweighted = model.score(X, y, **given)
    assert unweighted == pytest.approx(model.score(X, y, **given, sample_weight=np.ones(len(y))))


def test_a_constant_outcome_scores_1_if_it_is_met_and_0_if_not():
    assert (_skill(0.0, 0.0), _skill(0.1, 0.0), _skill(1.0, 4.0)) == (1.0, 0.0, 0.75)


def test_the_score_is_the_mean_over_support_sizes_that_tasks_bear(patients):
    X, y, groups, time = patients
    given = {"groups": groups, "time": time}
    model = LastValue(score_shots=(1, 3, 9)).fit(X, y, **given)
    each = []
    for k in (1, 3):
        each.append(LastValue(score_shots=(k,)).fit(X, y, **given).score(X, y, **given))
    assert model.score(X, y, **given) == pytest.approx(np.mean(each))
    with pytest.raises(DataError, match=r"score_shots=\(6,\).*lower score_shots"):
        LastValue(score_shots=(6,)).fit(X, y, **given).score(X, y, **given)


def test_a_classifiers_loss_is_compared_with_that_of_its_base_rates(patients):
    X, y, groups, time = patients
    high = np.where(y > 55, "yes", "no")
    model = MetaClassifier(max_steps=1, random_state=0, verbose=False, score_shots=(2,))
    model.fit(X, high, groups=groups, time=time)
    early, later = time < 60, time >= 60
    adapted = model.adapt(X[early], high[early], groups=groups[early], time=time[early])
    p = adapted.predict_proba(X[later], groups=groups[later], time=time[later])
    loss = -np.log(p[np.arange(later.sum()), (high[later] == "yes").astype(int)])
    share = np.mean(high[later] == "yes")
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    score = model.score(X, high, groups=groups, time=time)
    assert score == pytest.approx(1.0 - loss.mean() / entropy, rel=1e-5)


def test_fitted_attributes_are_those_of_the_table(patients):
    X, y, groups, time = patients
    model = MixedEffects().fit(X, y, groups=groups, time=time)
    assert (model.n_tasks_, model.n_features_in_) == (60, 2)
    assert model.feature_names_in_.tolist() == ["age", "sex"]
    assert model.schema_ is None
    assert model.table_ is model.model_.table
    model.fit(np.zeros((len(y), 1)), y, groups=groups, time=time)
    assert not hasattr(model, "feature_names_in_")
    empty = model.unadapted()
    assert (empty.n_tasks, empty.labels_) == (1, None)


def test_tags_tell_scikit_learn_what_is_allowed():
    tags = MixedEffects().__sklearn_tags__()
    inputs = tags.input_tags
    assert inputs.allow_nan and inputs.string and inputs.categorical
    assert not tags.regressor_tags.poor_score
    tags = TaskLogistic().__sklearn_tags__()
    assert tags.classifier_tags.multi_class == (not TaskLogistic.two_classes_only)
    assert MetaClassifier().__sklearn_tags__().classifier_tags.multi_class


def test_a_range_and_a_transform_of_the_schema_scale_the_outcome(patients):
    X, y, groups, time = patients
    features = (Feature("age"), Feature("sex", kind="categorical"))
    outcome = Outcome("hdl", transform="log", low=1.0, high=99.0)
    schema = Schema(features, outcome, task="id", time=Clock("day"))
    rows = {"groups": groups, "time": time}
    scale = MixedEffects(schema=schema).fit(X, y, **rows).table_.outcome
    assert (scale.transform, scale.low, scale.high, scale.name) == ("log", 1.0, 99.0, "hdl")
    own = MixedEffects(schema=schema, outcome_transform="sqrt").fit(X, y, **rows).table_.outcome
    assert own.transform == "sqrt"
    plain = MixedEffects().fit(X, y, **rows).table_.outcome
    assert (plain.transform, plain.low, plain.name) == (None, None, "y")


def test_warnings_of_odd_outcomes_point_to_the_fit_and_depend_on_the_likelihood():
    X, y, groups, time = make_patients(n_patients=20)
    rows = {"groups": groups, "time": time}
    gross = np.where(np.arange(120) == 7, 73519.0, y)
    for outcome in (y > 55, gross):
        with pytest.warns(DataWarning, match="outcome 'y'") as caught:
            MixedEffects().fit(X, outcome, **rows)
        assert caught[0].filename == __file__
    robust = small_model(max_steps=1, likelihood="student_t")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        robust.fit(X, gross, **rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MixedEffects().fit(X, np.where(y > 55, 1.0, 2.0), **rows)


def test_supports_of_1_3_and_5_rows_are_scored_by_default():
    assert MixedEffects().score_shots == TaskLogistic().score_shots == (1, 3, 5)


def test_estimators_are_shown_and_compared_as_by_scikit_learn():
    assert repr(MixedEffects(reml=False)) == "MixedEffects(reml=False)"
    assert len({MixedEffects(), MixedEffects()}) == 2
    for kind in (TaskEstimator, TaskRegressor):
        settings = kind.__dataclass_params__
        assert (settings.eq, settings.repr) == (False, False)
        assert all(field.kw_only for field in fields(kind))


def test_adapting_a_search_at_the_end_of_a_pipeline_uses_its_best_model(patients):
    X, y, groups, time = patients
    table = X.assign(patient=groups, day=time)
    search = GridSearchCV(
        MixedEffects(task="patient", time="day"),
        {"reml": [True]},
        cv=PatientKFold(2, task="patient"),
    )
    pipeline = make_pipeline(search).fit(table, y)
    adapted = adapt(pipeline, table[:3], y[:3])
    assert adapted.transform is None
    expected = search.best_estimator_.adapt(table[:3], y[:3]).predict(table[3:6])
    np.testing.assert_array_equal(adapted.predict(table[3:6]), expected)


@pytest.mark.filterwarnings("ignore:levels of")
def test_a_fit_sees_levels_as_they_are_and_later_rows_shrunk(patients):
    X, y, groups, time = patients
    seen = []

    class Seen(MixedEffects):
        """Keeps the encoded rows that it is fitted to."""

        def _fit_tasks(self, rows, reader):
            seen.append(rows)
            return super()._fit_tasks(rows, reader)

    sites = X.assign(site=np.array(list("abcdefg"))[groups % 7])
    model = Seen(known=["site"]).fit(sites, y, groups=groups, time=time)
    _, later = model.model_.read_support(sites, y, groups=groups, time=time)
    assert not torch.equal(seen[0].x, later.x)
    indicators = ((seen[0].x == 0.0) | (seen[0].x == 1.0)).all(0)
    assert indicators.sum() >= 8  # of sex and site
    assert ((later.x[:, indicators] > 0.0) & (later.x[:, indicators] < 1.0)).any()


def test_times_alone_are_enough_to_fit_and_predict(patients):
    _, y, groups, time = patients
    table = pd.DataFrame({"patient": groups, "day": time})
    model = MixedEffects(task="patient", time="day").fit(table, y)
    assert model.table_.features == ()
    assert np.isfinite(model.predict(table[:3])).all()
