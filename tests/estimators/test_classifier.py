"""`MetaClassifier` keeps the laws of adaptation, in classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from ehrmeta import MAML, MLP, Adapted, MetaClassifier, MetaRegressor, MetaSGD, make_sinusoid
from ehrmeta.algorithms.registry import ALGORITHMS
from ehrmeta.errors import BundleError, DataError

N_ROWS = 8


def small_classifier(**parameters) -> MetaClassifier:
    defaults = {
        "algorithm": MAML(inner_steps=1),
        "backbone": MLP((8,), "tanh"),
        "max_steps": 150,
        "batch_size": 32,
        "learning_rate": 0.02,
        "random_state": 0,
        "verbose": False,
    }
    return MetaClassifier(**(defaults | parameters))


def make_events(n_tasks=60, labels=("no", "yes"), seed=0, spread=2.0):
    """Rows of tasks whose log-odds differ by a shift of sd `spread`."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_tasks), N_ROWS)
    X = pd.DataFrame({"a": rng.normal(size=len(groups)), "b": rng.normal(size=len(groups))})
    shift = spread * rng.normal(size=(n_tasks, len(labels)))
    scores = shift[groups] + np.outer(X.a, np.arange(len(labels)))
    codes = np.argmax(scores + rng.gumbel(size=scores.shape), 1)
    return X, np.asarray(labels, dtype=object)[codes], groups


@pytest.fixture(scope="module", params=[("no", "yes"), ("low", "high", "mid")], ids=["2", "3"])
def labels(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(labels):
    X, y, groups = make_events(labels=labels)
    return small_classifier().fit(X, y, groups=groups)


@pytest.fixture(scope="module")
def split(labels):
    """Support (4 rows) and query (4 rows) of every new task."""
    X, y, groups = make_events(n_tasks=40, labels=labels, seed=1)
    first = np.arange(len(y)) % N_ROWS < 4
    return (X[first], y[first], groups[first]), (X[~first], y[~first], groups[~first])


def test_classes_are_sorted_and_probabilities_sum_to_one(fitted, labels, split):
    (X, y, groups), (later, _, later_groups) = split
    assert fitted.classes_.tolist() == sorted(labels)
    adapted = fitted.adapt(X, y, groups=groups)
    p = adapted.predict_proba(later, groups=later_groups)
    assert p.shape == (len(later), len(labels))
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-12)
    predicted = adapted.predict(later, groups=later_groups)
    np.testing.assert_array_equal(predicted, fitted.classes_[p.argmax(1)])


def test_adaptation_beats_the_population(fitted, split):
    (X, y, groups), (later, truth, later_groups) = split
    codes = np.searchsorted(fitted.classes_, truth)

    def log_loss(p):
        return -np.mean(np.log(p[np.arange(len(codes)), codes]))

    adapted = fitted.adapt(X, y, groups=groups).predict_proba(later, groups=later_groups)
    assert log_loss(adapted) < log_loss(fitted.predict_proba(later)) - 0.02


def test_population_is_adaptation_to_nothing_bit_for_bit(fitted, split):
    (X, y, _), (later, _, _) = split
    empty = fitted.adapt(X[:0], y[:0])
    np.testing.assert_array_equal(empty.predict_proba(later), fitted.predict_proba(later))
    np.testing.assert_array_equal(empty.predict(later), fitted.predict(later))


def test_a_support_of_one_class_only_leans_towards_it(fitted, labels, split):
    (X, _, _), (later, _, _) = split
    for i, label in enumerate(fitted.classes_):
        adapted = fitted.adapt(X[:4], np.full(4, label, object))
        p = adapted.predict_proba(later)
        assert np.isfinite(p).all()
        assert p[:, i].mean() > fitted.predict_proba(later)[:, i].mean()


def test_update_equals_adapting_to_all_rows(fitted, split):
    (X, y, groups), (later, _, later_groups) = split
    early = np.arange(len(y)) % 4 < 2
    begun = fitted.adapt(X[early], y[early], groups=groups[early])
    updated = begun.update(X[~early], y[~early], groups=groups[~early])
    whole = fitted.adapt(X, y, groups=groups)
    np.testing.assert_allclose(
        updated.predict_proba(later, groups=later_groups),
        whole.predict_proba(later, groups=later_groups),
        rtol=1e-5,
    )


def test_new_groups_raise_or_warn(fitted, split):
    (X, y, groups), (later, _, later_groups) = split
    known = groups < 30
    adapted = fitted.adapt(X[known], y[known], groups=groups[known])
    with pytest.raises(DataError, match="were not adapted"):
        adapted.predict(later, groups=later_groups)
    new = later_groups >= 30
    filled = adapted.predict(later, groups=later_groups, new_groups="population")
    np.testing.assert_array_equal(filled[new], fitted.predict(later[new]))
    missing = adapted.predict(later, groups=later_groups, new_groups="nan")
    assert pd.isna(missing).tolist() == new.tolist()
    p = adapted.predict_proba(later, groups=later_groups, new_groups="nan")
    assert np.isnan(p).all(1).tolist() == new.tolist()


def test_intervals_are_refused_and_so_are_a_regressors_classes(fitted, split):
    (X, y, groups), _ = split
    with pytest.raises(DataError, match=r"MetaClassifier.*Use predict_proba"):
        fitted.adapt(X, y, groups=groups).predict_interval(X, groups=groups)
    regressor = MetaRegressor(MAML(inner_steps=1), max_steps=1, verbose=False)
    regressor.fit(X, np.sin(X.a.to_numpy()), groups=groups)
    with pytest.raises(DataError, match=r"MetaRegressor.*Use predict_quantiles"):
        regressor.unadapted().predict_proba(X)


@pytest.mark.parametrize("labels", [(0, 1), (3, 7), (-1.0, 2.0), (False, True)], ids=str)
def test_labels_come_back_as_what_they_were(labels):
    X, y, groups = make_events(n_tasks=8, labels=labels)
    y = np.asarray(y.tolist())
    fitted = small_classifier(max_steps=2).fit(X, y, groups=groups)
    assert fitted.classes_.dtype == y.dtype
    assert fitted.predict(X).dtype == y.dtype


BAD_OUTCOMES = {
    "one class": (lambda y: np.full(len(y), "no", object), "only one class in all 64 rows"),
    "missing": (lambda y: [None, *y[1:]], r"is NaN in 1 of 64 rows \(first: row 0"),
    "real-valued": (lambda y: np.linspace(0, 1, len(y)), "Unknown label type.*MetaRegressor"),
}


@pytest.mark.parametrize("case", BAD_OUTCOMES)
def test_a_bad_outcome_is_refused(case):
    change, message = BAD_OUTCOMES[case]
    X, y, groups = make_events(n_tasks=8)
    with pytest.raises(DataError, match=f"(?s){message}"):
        small_classifier().fit(X, change(y), groups=groups)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_support_without_a_labelled_row_is_refused(fitted, split, missing):
    X, _, groups = split[0]
    labels = np.full(len(groups), missing, dtype=object)
    with pytest.raises(DataError, match=r"is NaN in .* rows .*Drop these rows"):
        fitted.adapt(X, labels, groups=groups)


def test_classes_unseen_at_fit_are_counted_and_not_shown(fitted, split):
    (X, y, groups), _ = split
    with pytest.raises(DataError, match=r"unseen at fit in 1 of 160 rows \(first: row 0\)") as seen:
        fitted.adapt(X, np.r_[["secret"], y[1:]].astype(object), groups=groups)
    assert "secret" not in str(seen.value)
    with pytest.raises(DataError, match="classes were text at fit"):
        fitted.adapt(X, np.zeros(len(y), int), groups=groups)


def test_expected_equals_observed_where_tasks_differ():
    """Law 1: probabilities of new tasks integrate over the prior."""
    X, y, groups = make_events(n_tasks=400, spread=1.5)
    fitted = small_classifier(max_steps=300, batch_size=128).fit(X, y, groups=groups)
    X, y, _ = make_events(n_tasks=1500, spread=1.5, seed=3)
    expected = fitted.predict_proba(X)[:, 1].mean()
    assert expected / np.mean(y == "yes") == pytest.approx(1.0, abs=0.06)


def test_score_is_the_skill_of_adapted_probabilities(fitted, split, labels):
    X, y, groups = make_events(n_tasks=40, labels=labels, seed=1)
    population = fitted.score(X, y)
    assert population < fitted.score(X, y, groups=groups) < 1
    frozen = small_classifier(algorithm=MAML(inner_lr=1e-6, learn_inner_lr=False))
    trained = make_events(labels=labels)
    frozen.fit(trained[0], trained[1], groups=trained[2])
    assert frozen.score(X, y, groups=groups) < fitted.score(X, y, groups=groups)


def test_files_hold_classifiers_and_their_patients(fitted, split, tmp_path):
    (X, y, groups), (later, _, later_groups) = split
    path = tmp_path / "model.ehrmeta"
    fitted.save(path)
    loaded = MetaClassifier.load(path)
    np.testing.assert_array_equal(loaded.predict_proba(later), fitted.predict_proba(later))
    np.testing.assert_array_equal(loaded.classes_, fitted.classes_)
    with pytest.raises(BundleError, match=r"holds a MetaClassifier.*MetaClassifier.load"):
        MetaRegressor.load(path)
    adapted = fitted.adapt(X, y, groups=groups)
    adapted.save(tmp_path / "patients.ehrmeta")
    back = Adapted.load(tmp_path / "patients.ehrmeta")
    np.testing.assert_array_equal(
        back.predict(later, groups=later_groups), adapted.predict(later, groups=later_groups)
    )


CHECKED = small_classifier(
    algorithm=MetaSGD(inner_steps=1),
    max_steps=120,
    batch_size=8,
    learning_rate=0.03,
    validation_fraction=0.0,
    precision="float64",  # scikit-learn asks for 1e-7 between batches of different shape
)


@pytest.mark.filterwarnings("ignore:groups=None")
@parametrize_with_checks([CHECKED])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore::ehrmeta.errors.AtypicalWarning")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_learner_lowers_risks_by_a_prevalence_or_refuses_it(name):
    X, y, groups = make_sinusoid(n_tasks=20, n_points=6, random_state=0)
    model = MetaClassifier(ALGORITHMS[name](), max_steps=3, random_state=0, verbose=False)
    model.fit(X, y > 0, groups=groups)
    label = (np.arange(6) % 2).astype(bool)
    if not model.algorithm.uses_support_offset:
        with pytest.raises(DataError, match=f"{type(model.algorithm).__name__} does not correct"):
            model.adapt(X[:6], label, prevalence=0.1)
        return
    sampled, corrected = (
        model.adapt(X[:6], label, **given).predict_proba(X[:6])[:, 1].mean()
        for given in ({}, {"prevalence": 0.01})
    )
    assert corrected == sampled if name == "population" else corrected < sampled  # it has none


def test_weights_of_rows_change_the_score_of_classes(fitted, labels):
    X, y, groups = make_events(n_tasks=20, labels=labels, seed=2)
    plain, kept = fitted.score(X, y, groups=groups), groups < 10
    same = fitted.score(X, y, groups=groups, sample_weight=np.full(len(y), 3.0))
    part = fitted.score(X, y, groups=groups, sample_weight=kept.astype(float))
    assert same == pytest.approx(plain)
    assert part == pytest.approx(fitted.score(X[kept], y[kept], groups=groups[kept]))


def test_no_row_has_no_prediction(fitted, split):
    (X, y, groups), (later, _, later_groups) = split
    adapted = fitted.adapt(X, y, groups=groups)
    assert adapted.predict_proba(later[:0], groups=later_groups[:0]).shape == (
        0,
        len(fitted.classes_),
    )
