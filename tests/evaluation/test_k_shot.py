"""Laws of the k-shot curve: no look-ahead, one adaptation per k, paired intervals."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ehrmeta import KShotScorer, MetaRegressor, make_sinusoid
from ehrmeta.data.schema import Clock, Feature, Schema
from ehrmeta.errors import DataError, DataWarning
from ehrmeta.evaluation import METRICS, k_shot_curve, paired_bootstrap, rmse_macro


class TaskMeans:
    """Mean of the support; writes down the rows it is shown (column 0 is the row number)."""

    def __init__(self, shift=0.0):
        self.shift = shift
        self.supports, self.queries = [], []

    def adapt(self, X, y, *, groups=None, time=None):
        self.supports.append(row_numbers(X))
        self.means = pd.Series(y).groupby(np.asarray(groups)).mean()
        return self

    def predict(self, X, *, groups=None, time=None):
        self.queries.append(row_numbers(X))
        if groups is None:
            return np.full(len(X), self.shift)
        return self.means.loc[groups].to_numpy() + self.shift


def row_numbers(X):
    return np.asarray(X)[:, 0].astype(int)


def table(seed=0):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(list("abcdefgh"), [20, 14, 10, 6, 4, 3, 2, 1]))
    days = rng.integers(0, 1500, 60).astype(float)
    y = rng.normal(size=60) + (groups < "c")
    return np.column_stack([np.arange(60), rng.normal(size=60)]), y, groups, days


def pick(curve, **where):
    for column, value in where.items():
        curve = curve[curve[column] == value]
    return curve


def test_equals_the_loop_over_patients():
    X, y, groups, days = table()
    curve = k_shot_curve({"m": TaskMeans()}, X, y, groups=groups, time=days, n_bootstrap=50)
    for k in (1, 3, 5):
        errors = []
        for label in np.unique(groups):
            rows = np.flatnonzero(groups == label)
            rows = rows[np.argsort(days[rows], kind="stable")]
            later = rows[k:][days[rows[k:]] > days[rows[:k]].max()] if len(rows) > k else rows[:0]
            if len(later):
                errors.append(np.mean((y[later] - y[rows[:k]].mean()) ** 2))
        row = pick(curve, k=k, metric="rmse_macro").iloc[0]
        assert row["value"] == pytest.approx(np.sqrt(np.mean(errors)))
        assert (row["n_tasks"], row["n_excluded"]) == (len(errors), 8 - len(errors))
    zero = pick(curve, k=0, metric="rmse_macro").iloc[0]
    assert zero["value"] == pytest.approx(rmse_macro(y, np.zeros(60), groups))
    assert zero["n_excluded"] == 0


@pytest.mark.parametrize("query", ["growing", "fixed"])
def test_queries_lie_strictly_after_the_supports_of_their_task(query):
    X, y, groups, days = table()
    model = TaskMeans()
    k_shot_curve({"m": model}, X, y, groups=groups, time=days, query=query, n_bootstrap=5)
    assert len(model.supports) == 3 and len(model.queries) == 4  # one call per k
    for k, support, query_rows in zip((1, 3, 5), model.supports, model.queries[1:], strict=True):
        latest = pd.Series(days[support]).groupby(groups[support]).max()
        assert (days[query_rows] > latest.loc[groups[query_rows]].to_numpy()).all()
        assert set(groups[support]) == set(groups[query_rows])
        assert (pd.Series(groups[support]).value_counts() == k).all()


def test_fixed_queries_are_the_same_rows_for_every_k():
    X, y, groups, days = table()
    model = TaskMeans()
    curve = k_shot_curve({"m": model}, X, y, groups=groups, time=days, query="fixed", n_bootstrap=5)
    for query_rows in model.queries[1:]:
        np.testing.assert_array_equal(query_rows, model.queries[0])
    assert curve["n_tasks"].nunique() == 1


def test_outcomes_not_yet_known_push_the_query_back():
    X, y, groups, days = table()
    model = TaskMeans()
    known = days + 400
    k_shot_curve(
        {"m": model}, X, y, groups=groups, time=days, outcome_time=known, shots=(2,), n_bootstrap=5
    )
    latest = pd.Series(known[model.supports[0]]).groupby(groups[model.supports[0]]).max()
    query_rows = model.queries[0]
    assert (days[query_rows] >= latest.loc[groups[query_rows]].to_numpy()).all()


def test_without_time_supports_are_random_nested_and_repeatable():
    X, y, groups, _ = table()
    runs = [TaskMeans(), TaskMeans(), TaskMeans()]
    for model, seed in zip(runs, (0, 0, 1), strict=True):
        k_shot_curve({"m": model}, X, y, groups=groups, n_bootstrap=5, random_state=seed)
    first, again, other = (run.supports for run in runs)
    for one, repeated in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, repeated)
    large = np.isin(groups[first[0]], groups[first[2]])
    assert set(first[0][large]) <= set(first[2])
    assert set(first[0]) != set(other[0])


def test_differences_are_the_paired_bootstrap():
    X, y, groups, days = table()
    models = {"a": TaskMeans(0.5), "b": TaskMeans()}
    curve = k_shot_curve(models, X, y, groups=groups, time=days, shots=(0,), reference="b")
    loss = [pd.Series((y - shift) ** 2).groupby(groups).mean() for shift in (0.5, 0.0)]
    expected = paired_bootstrap(*loss)
    row = pick(curve, method="a", metric="rmse_macro").iloc[0]
    difference = row[["difference", "difference_low", "difference_high"]].to_numpy(float)
    np.testing.assert_allclose(difference, expected)
    assert (pick(curve, method="b")["difference"] == 0).all()
    assert (curve["low"] <= curve["value"]).all() and (curve["value"] <= curve["high"]).all()
    alone = k_shot_curve(models, X, y, groups=groups, time=days, shots=(0,), n_bootstrap=5)
    assert alone["difference"].isna().all()


def test_without_resamples_the_limits_are_nan():
    X, y, groups, days = table()
    models = {"a": TaskMeans(0.5), "b": TaskMeans()}
    arguments = {"groups": groups, "time": days, "shots": (0, 1), "reference": "b"}
    curve = k_shot_curve(models, X, y, **arguments, n_bootstrap=0)
    assert curve[["low", "high", "difference_low", "difference_high"]].isna().all(axis=None)
    full = k_shot_curve(models, X, y, **arguments)
    pd.testing.assert_frame_equal(curve[["value", "difference"]], full[["value", "difference"]])


def test_horizons_part_the_query_rows():
    X, y, groups, days = table()
    frame = pd.DataFrame(X, columns=["row", "x"])
    schema = Schema((Feature("row"), Feature("x")), time=Clock("day"))
    frame.attrs["ehrmeta_schema"] = schema.to_dict()
    curve = k_shot_curve(
        {"m": TaskMeans()}, frame, y, groups=groups, time=days, shots=(0, 1), by_horizon=True,
        n_bootstrap=5,
    )  # fmt: skip
    names = ["all", "up to 365.25 d", "365.25-1095.75 d", "over 1095.75 d"]
    assert list(curve["horizon"].unique()) == names
    start = pd.Series(days).groupby(groups).transform("min").to_numpy()
    near = days - start <= 365.25
    expected = rmse_macro(y[near], np.zeros(near.sum()), groups[near])
    value = pick(curve, k=0, metric="rmse_macro", horizon=names[1])["value"].item()
    assert value == pytest.approx(expected)


def test_a_stretch_without_rows_is_counted_not_scored():
    X, y, groups, days = table()
    curve = k_shot_curve(
        {"m": TaskMeans()}, X, y, groups=groups, time=days, shots=(1,), by_horizon=(5000,),
        n_bootstrap=5,
    )  # fmt: skip
    empty = pick(curve, horizon="over 5000")
    assert empty["value"].isna().all()
    assert (empty["n_excluded"] == 8).all()


def test_the_curve_is_tidy_and_the_same_for_every_kind_of_frame():
    X, y, groups, days = table()
    pandas = pd.DataFrame(X, columns=["row", "x"], index=np.arange(60) + 7)
    curves = [
        k_shot_curve({"m": TaskMeans()}, frame, y, groups=groups, time=days, n_bootstrap=20)
        for frame in (X, pandas, pl.from_pandas(pandas))
    ]
    assert list(curves[0].columns) == [
        "method", "k", "query", "horizon", "n_tasks", "n_excluded", "metric", "value", "low",
        "high", "difference", "difference_low", "difference_high",
    ]  # fmt: skip
    assert len(curves[0]) == 4 * len(METRICS)
    pd.testing.assert_frame_equal(curves[0], curves[1])
    pd.testing.assert_frame_equal(curves[0], curves[2])


def test_default_shots_are_those_that_half_of_the_tasks_bear():
    X, y, groups, days = table()
    rows = np.isin(groups, list("efgh"))  # of 4, 3, 2 and 1 rows
    new = {"groups": groups[rows], "time": days[rows], "n_bootstrap": 5}
    with pytest.warns(DataWarning, match=r"shots \[3, 5\] are not scored: .* of 4 tasks"):
        curve = k_shot_curve({"m": TaskMeans()}, X[rows], y[rows], **new)
    assert curve["k"].unique().tolist() == [0, 1]
    with pytest.raises(DataError, match=r"none of 4 tasks has a row after the first 9.* Lower"):
        k_shot_curve({"m": TaskMeans()}, X[rows], y[rows], **new, shots=(1, 9))


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    X, groups, time = (
        rng.normal(size=(60, 1)),
        np.repeat(np.arange(12), 5),
        np.tile(np.arange(5), 12),
    )
    y = rng.normal(size=12)[groups] + rng.normal(size=60)
    model = MetaRegressor(max_steps=1, random_state=0, verbose=False, known=["x0"])
    return model.fit(X, y, groups=groups, time=time), X, y, {"groups": groups, "time": time}


def test_the_training_table_is_refused_unless_allowed(trained):
    model, X, y, rows = trained
    given = {"shots": (1,), "n_bootstrap": 0}
    shuffled = np.random.default_rng(1).permutation(60)
    again = {name: values[shuffled] for name, values in rows.items()}
    for table in ((X, y, rows), (X[shuffled], y[shuffled], again)):
        with pytest.raises(DataError, match="was trained on this very table"):
            k_shot_curve({"m": model}, *table[:2], **table[2], **given)
    allowed = k_shot_curve({"m": model}, X, y, **rows, **given, allow_training_table=True)
    other = k_shot_curve({"m": model}, X, np.r_[y[:-1], y[-1] + 1e-3], **rows, **given)
    np.testing.assert_allclose(allowed["value"], other["value"], rtol=1e-3)


def test_warnings_about_the_rows_are_given_once_and_count_all_rows(trained):
    model, X, y, rows = trained
    odd = rows["time"].copy()
    odd[[3, 8]] = odd[[2, 7]]  # two repeated visits
    odd[[4, 9, 14]] = 999  # far outside the training period
    given = {"groups": rows["groups"], "time": odd, "shots": (0, 1, 2, 3), "n_bootstrap": 0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        k_shot_curve({"a": model, "b": model}, X, y, **given)
    repeats, far = sorted(str(one.message) for one in caught)
    assert repeats.startswith("2 rows repeat") and far.startswith("the time of 3 of 60 rows")
    assert {one.filename for one in caught} == {__file__}


def test_errors_say_what_to_do():
    X, y, groups, days = table()
    model = {"mean": TaskMeans(np.nan)}
    with pytest.raises(DataError, match="model 'mean' predicts NaN or infinity in 60 of 60"):
        k_shot_curve(model, X, y, groups=groups, time=days)
    with pytest.raises(DataError, match="Did you mean 'mean'"):
        k_shot_curve(model, X, y, groups=groups, time=days, reference="means")
    with pytest.raises(DataError, match="require time="):
        k_shot_curve(model, X, y, groups=groups, by_horizon=True)
    with pytest.raises(DataError, match="schema with the unit of time"):
        k_shot_curve(model, X, y, groups=groups, time=days, by_horizon=True)
    with pytest.raises(DataError, match="increasing edges"):
        k_shot_curve(model, X, y, groups=groups, time=days, by_horizon=(3, 1))
    with pytest.raises(DataError, match="'growing' or 'fixed'"):
        k_shot_curve(model, X, y, groups=groups, time=days, query="all")
    with pytest.raises(DataError, match="at least one model"):
        k_shot_curve({}, X, y, groups=groups)
    with pytest.raises(DataError, match="needs y, and groups"):
        k_shot_curve(model, X, y, groups=None)


def test_the_scorer_passes_rows_through_a_pipeline():
    X, y, groups = make_sinusoid(n_tasks=12, n_points=6, random_state=0)
    X = pd.DataFrame({"x": X[:, 0], "patient": groups})
    model = MetaRegressor(task="patient", max_steps=1, random_state=0, verbose=False)
    double = FunctionTransformer(lambda table: table.assign(x=2 * table["x"]))
    pipeline = make_pipeline(double, model).fit(X, y)
    scorer = KShotScorer(shots=(2,))
    with pytest.raises(DataError, match="metric='brier' does not fit a MetaRegressor"):
        KShotScorer(metric="brier")(pipeline, X, y)
    assert scorer(pipeline, X, y) == scorer(pipeline[-1], double.transform(X), y)
