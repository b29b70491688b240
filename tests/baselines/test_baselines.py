"""Laws of every baseline, on a table with static, known and measured features."""

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from ehrmeta.baselines import (
    HistoryBoosting,
    LastValue,
    MixedEffects,
    MixedProcessEffects,
    PopulationBoosting,
    TaskMean,
    TaskRidge,
)
from ehrmeta.data import Clock, Feature, Outcome, Schema, first_k, index_tasks
from ehrmeta.evaluation import k_shot_curve

MODELS = [
    LastValue(),
    TaskMean(),
    MixedEffects(),
    MixedProcessEffects(),
    TaskRidge(),
    PopulationBoosting(max_iter=20, random_state=0),
    HistoryBoosting(max_iter=20, n_draws=2, random_state=0),
]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def cohort(n_patients=60, seed=0, *, is_feature=True):
    """Patients with random levels and trends; the lab follows the outcome."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 12, n_patients)
    groups = np.repeat(np.arange(n_patients) + 100, sizes)
    n = len(groups)
    order = rng.permutation(n)
    days = np.concatenate([np.cumsum(rng.integers(1, 60, size)) for size in sizes]).astype(float)
    sex, weight = rng.choice(["F", "M"], n_patients), rng.normal(70, 10, n)
    level, slope = rng.normal(50, 8, n_patients), rng.normal(0, 0.03, n_patients)
    code = groups - 100
    y = level[code] + slope[code] * days + 4 * (sex[code] == "M") + rng.normal(0, 2, n)
    lab = np.where(rng.random(n) < 0.3, np.nan, y + rng.normal(0, 1, n))
    X = pd.DataFrame({"sex": sex[code], "weight": weight, "lab": lab})
    schema = Schema(
        (
            Feature("sex", "categorical", "static"),
            Feature("weight", unit="kg"),
            Feature("lab", role="measured"),
        ),
        Outcome("y"),
        time=Clock("day", is_feature=is_feature),
    )
    X = X.iloc[order].reset_index(drop=True)
    X.attrs["ehrmeta_schema"] = schema.to_dict()
    return X, y[order], groups[order], days[order]


def parts(k=3, seed=2):
    X, y, groups, days = cohort(30, seed)
    support, query = first_k(index_tasks(groups, days), k, time=days)
    return [
        (X[mask].reset_index(drop=True), y[mask], groups[mask], days[mask])
        for mask in (support, query)
    ]


def fitted(model):
    X, y, groups, days = cohort()
    return model.fit(X, y, groups=groups, time=days)


@every_model
def test_no_measurement_at_the_query_informs_it(model):
    (X, y, groups, days), (later, _, later_groups, later_days) = parts()
    adapted = fitted(model).adapt(X, y, groups=groups, time=days)
    before = adapted.predict(later, groups=later_groups, time=later_days)
    scrambled = later.assign(lab=np.random.default_rng(0).permutation(later["lab"]) * 100)
    after = adapted.predict(scrambled, groups=later_groups, time=later_days)
    np.testing.assert_array_equal(before, after)


@every_model
def test_the_other_query_rows_do_not_matter(model):
    (X, y, groups, days), (later, _, later_groups, later_days) = parts()
    adapted = fitted(model).adapt(X, y, groups=groups, time=days)
    together = adapted.predict(later, groups=later_groups, time=later_days)
    some = np.random.default_rng(0).permutation(len(later))[:10]
    alone = adapted.predict(later.iloc[some], groups=later_groups[some], time=later_days[some])
    np.testing.assert_allclose(alone, together[some], rtol=1e-12)


@every_model
def test_order_of_the_support_and_the_other_patients_do_not_matter(model):
    (X, y, groups, days), (later, _, later_groups, later_days) = parts()
    model = fitted(model)
    together = model.adapt(X, y, groups=groups, time=days)
    together = together.predict(later, groups=later_groups, time=later_days)
    label = later_groups[0]
    rows = np.flatnonzero(groups == label)[::-1]
    alone = model.adapt(X.iloc[rows], y[rows], time=days[rows])
    mine = later_groups == label
    predicted = alone.predict(later[mine], time=later_days[mine])
    np.testing.assert_allclose(predicted, together[mine], rtol=1e-9)


@every_model
def test_population_prediction_is_defined_without_support(model):
    _, (later, _, _, later_days) = parts()
    predicted = fitted(model).predict(later, time=later_days)
    assert np.isfinite(predicted).all()
    assert 30 < predicted.mean() < 70


@every_model
def test_every_baseline_runs_in_the_k_shot_curve(model):
    X, y, groups, days = cohort(30, seed=2)
    curve = k_shot_curve(
        {"m": fitted(model)}, X, y, groups=groups, time=days, query="fixed", n_bootstrap=20
    )
    value = curve[curve["metric"] == "rmse_macro"].set_index("k")["value"]
    assert (value < 14).all()
    if not isinstance(model, PopulationBoosting):
        assert value[5] < value[0]


@every_model
def test_without_time_or_groups_in_order(model):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    X = rng.normal(size=(240, 2))
    y = X[:, 0] + rng.normal(size=40)[groups] + 0.1 * rng.normal(size=240)
    model.fit(X, y, groups=groups)
    assert np.isfinite(model.adapt(X[:3], y[:3]).predict(X[3:6])).all()
    assert np.isfinite(model.predict(X[:6])).all()


@every_model
def test_same_seed_same_numbers(model):
    (X, y, groups, days), (later, _, later_groups, later_days) = parts()
    first, second = (
        fitted(model)
        .adapt(X, y, groups=groups, time=days)
        .predict(later, groups=later_groups, time=later_days)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.filterwarnings("ignore")  # the checks pass tables no one has patients in
@parametrize_with_checks(
    [LastValue(), TaskMean(), MixedEffects(), PopulationBoosting(), HistoryBoosting()]
)
def test_is_a_scikit_learn_estimator(estimator, check):
    assert check(estimator) is None
