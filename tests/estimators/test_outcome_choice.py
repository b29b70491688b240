import numpy as np
import pandas as pd
import pytest

from ehrmeta import DeepMixedEffects, MetaRegressor
from ehrmeta.data import Clock, Outcome, Table, Warp
from ehrmeta.data.outcome_scale import OutcomeScale
from ehrmeta.estimators.outcome_choice import _ends, keeps_means

LEARNER = DeepMixedEffects(n_deep=0, deep_mean=False, trees=False, correction=False)
N_TASKS, N_ROWS = 60, 6


def table(kind, **outcome):
    """Patients whose outcomes are normal, counts, or scores of a test of 30 questions."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(size=N_TASKS), N_ROWS) + 0.3 * rng.normal(size=N_TASKS * N_ROWS)
    y = {
        "normal": 50 + 10 * level,
        "counts": rng.poisson(np.exp(0.5 + 1.2 * level)),
        "scores": rng.binomial(30, 1 / (1 + np.exp(-2.5 - 1.2 * level))),
    }[kind]
    time = np.tile(np.arange(float(N_ROWS)), N_TASKS)
    groups = np.repeat(np.arange(N_TASKS), N_ROWS)
    frame = pd.DataFrame({"id": groups, "t": time, "sex": groups % 2.0, "y": y * 1.0})
    return Table.from_frame(
        frame, task="id", time=Clock("t", "a", "entry"), outcome=Outcome("y", **outcome)
    )


def fitted(kind, transform="auto", **outcome):
    rows = table(kind, **outcome)
    model = MetaRegressor(LEARNER, outcome_transform=transform, max_steps=1, random_state=0)
    return model.fit(rows.X, rows.y, groups=rows.groups, time=rows.time), rows


@pytest.fixture(scope="module")
def scores():
    return fitted("scores", low=0, high=30)


def test_counts_and_scores_are_warped_from_their_ends(scores):
    counts, _ = fitted("counts")
    warp = counts.table_.outcome.transform
    assert (str(warp), warp.low, warp.high) == ("log", 0.0, None)
    warp = scores[0].table_.outcome.transform
    assert (warp.high, scores[0].table_.outcome.high) == (30, 30)


def test_an_ordinary_outcome_keeps_its_scale_without_a_fit(monkeypatch):
    monkeypatch.setattr("ehrmeta.estimators.outcome_choice._scores", None)
    model, _ = fitted("normal", low=0, high=200)
    assert model.table_.outcome.transform is None


def test_a_larger_error_at_one_number_of_shots_is_refused():
    before = np.random.default_rng(0).chisquare(1, (3, 200))
    factor = np.array([[0.9], [0.9], [1.0]])
    assert keeps_means(before, factor * before)
    factor[2] = 1.1
    assert not keeps_means(before, factor * before)
    assert not keeps_means(before, 1.03 * before[::-1])


def test_the_declared_transform_and_that_of_the_user_have_priority():
    assert fitted("counts", transform=None)[0].table_.outcome.transform is None
    assert fitted("counts", transform="sqrt")[0].table_.outcome.transform == "sqrt"


def test_warped_predictions_keep_to_the_range_and_agree_with_their_distribution(scores):
    model, rows = scores
    support, query = rows.support_query(shots=2)
    adapted = model.adapt(support.X, support.y, groups=support.groups, time=support.time)
    given = {"groups": query.groups, "time": query.time}
    levels = (np.arange(400) + 0.5) / 400
    quantiles = adapted.predict_quantiles(query.X, levels, **given)
    assert quantiles.min() >= 0
    assert quantiles.max() == 30
    mean = adapted.predict(query.X, **given)
    np.testing.assert_allclose(mean, quantiles.mean(1), atol=0.02)
    assert np.abs(mean - np.median(quantiles, axis=1)).max() > 0.1
    below, upto = adapted.predict_distribution(query.X, **given).cdf(quantiles[:, 300])
    inside = quantiles[:, 300] < 30
    np.testing.assert_allclose(below[inside], levels[300], atol=1e-6)
    assert (upto[~inside] == 1).all()
    assert np.isfinite(adapted.atypical_).all()


def test_a_warped_model_is_saved_exactly(scores, tmp_path):
    model, rows = scores
    model.save(tmp_path / "model")
    loaded = MetaRegressor.load(tmp_path / "model")
    assert isinstance(loaded.table_.outcome.transform, Warp)
    assert np.array_equal(
        loaded.predict(rows.X, time=rows.time), model.predict(rows.X, time=rows.time)
    )


EVEN, TAIL = np.arange(2.0, 42.0), np.geomspace(0.1, 100.0, 40)


@pytest.mark.parametrize(
    ("y", "declared", "ends"),
    [
        (EVEN, (None, None), None),
        (EVEN, (0.0, 50.0), None),
        ([*EVEN, 42.0, 42.0, 42.0], (None, None), (0.0, 42.0)),  # often at its largest value
        ([*EVEN, 2.0, 2.0, 2.0], (None, None), (2.0, None)),
        ([*EVEN, 2.0, 2.0], (1.0, None), (1.0, None)),
        ([*EVEN, 42.0, 42.0, 42.0], (None, 60.0), (0.0, 60.0)),
        (TAIL, (None, None), (0.0, None)),
        (TAIL, (None, 500.0), (0.0, 500.0)),
        (TAIL - 1.0, (None, None), None),
        (TAIL - 1.0, (-1.0, None), (-1.0, None)),
        ([5.0] * 170 + list(TAIL), (None, None), None),  # mostly one value
        ([0.0, 1.0, 2.0, 30.0] * 9, (None, None), None),  # few values
    ],
)
def test_ends_are_declared_or_evident(y, declared, ends):
    y = np.asarray(y)
    assert _ends(y, OutcomeScale.fit(y, None, "y", low=declared[0], high=declared[1])) == ends
