"""Scores per site and subgroup rest on their own rows; what is left out is counted."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special, stats
from statsmodels.stats.meta_analysis import combine_effects

from ehrmeta.errors import DataError
from ehrmeta.evaluation import (
    pool_random_effects,
    pool_sites,
    risk_intervals,
    risk_score,
    score_sites,
    score_subgroups,
)

METRICS = ("auroc", "calibration_slope", "e_o_ratio")


@pytest.fixture(scope="module")
def cohort():
    """Eight hospitals whose risks differ in level: y, p, site."""
    rng = np.random.default_rng(0)
    site = np.repeat(np.arange(8), 150)
    logit = rng.normal(-0.5, 1.2, len(site))
    level = rng.normal(0, 0.5, 8)[site]
    y = (rng.random(len(site)) < special.expit(logit + level)).astype(int)
    return y, special.expit(logit), site


def test_each_site_is_scored_by_its_own_rows(cohort):
    y, p, site = cohort
    scores = score_sites(y, p, groups=site, n_bootstrap=50)
    assert len(scores) == 8 * 3
    for row in scores.itertuples():
        here = site == row.site
        assert row.value == risk_score(row.metric, y[here], p[here])
        assert (row.n, row.n_events) == (150, y[here].sum())
        assert row.low < row.value < row.high


def test_intervals_cover_the_true_score():
    rng = np.random.default_rng(0)
    inside = dict.fromkeys(METRICS, 0)
    logit = rng.normal(size=20_000)
    truth = risk_score("auroc", rng.random(20_000) < special.expit(logit), special.expit(logit))
    truths = {"auroc": truth, "calibration_slope": 1.0, "e_o_ratio": 1.0}
    for _ in range(150):
        p = special.expit(rng.normal(size=250))
        table = risk_intervals(rng.random(250) < p, p, n_bootstrap=200, confidence_level=0.95)
        table = table.set_index("metric")
        for name, value in truths.items():
            inside[name] += table.low[name] < value < table.high[name]
    assert all(0.88 < count / 150 < 0.99 for count in inside.values()), inside


def test_pooling_works_on_the_scale_of_each_metric(cohort):
    y, p, site = cohort
    scores = score_sites(y, p, groups=site, n_bootstrap=100)
    pooled = pool_sites(scores).set_index("metric")
    scales = {"auroc": (special.logit, special.expit), "e_o_ratio": (np.log, np.exp)}
    for metric, per_site in scores.groupby("metric"):
        to, back = scales.get(metric, (np.array, np.array))
        expected = pool_random_effects(to(per_site.value.to_numpy()), per_site.se.to_numpy())
        names = ["value", "low", "high", "prediction_low", "prediction_high"]
        np.testing.assert_allclose(pooled.loc[metric, names].astype(float), back(expected[:5]))
    assert pooled.n_sites.eq(8).all()
    assert pooled.tau2["e_o_ratio"] > 0  # the levels differ, and only they


def test_fewer_than_five_sites_are_listed_not_pooled(cohort):
    y, p, site = cohort
    few = site < 4
    pooled = pool_sites(score_sites(y[few], p[few], groups=site[few], n_bootstrap=20))
    assert pooled[["value", "low", "prediction_high", "tau2"]].isna().all(axis=None)
    assert pooled.note.str.contains("4 sites, fewer than 5: listed").all()
    assert pool_sites(score_sites(y[few], p[few], groups=site[few]), min_sites=3).note.eq("").all()


def test_sites_without_a_score_are_counted_with_the_reason(cohort):
    y, p, site = cohort
    y, p = y.copy(), p.copy()
    y[site == 0] = 0
    y[site == 1] = p[site == 1] > np.median(p[site == 1])  # ranked without a mistake
    scores = score_sites(y, p, groups=site, n_bootstrap=50).set_index(["site", "metric"])
    assert np.isnan(scores.value[0, "auroc"])
    assert scores.note[0, "auroc"] == "only one class, 0 events in 150 rows"
    assert "separate" in scores.note[1, "calibration_slope"]
    pooled = pool_sites(scores.reset_index()).set_index("metric")
    assert (pooled.n_sites["auroc"], pooled.n_left_out["auroc"]) == (6, 2)  # logit of 1 is infinite


def test_resamples_that_define_nothing_are_counted():
    y, p = np.zeros(40), np.linspace(0.1, 0.5, 40)
    y[20] = 1
    table = risk_intervals(y, p, metrics=["auroc"], n_bootstrap=400).loc[0]
    assert 400 * 0.3 < table.n_undefined < 400 * 0.45  # (1 - 1/40)^40 = .36 hold no event
    assert np.isfinite(table.low)
    y[20], y[0] = 0, 1
    mostly = risk_intervals(y[:1].repeat(2), p[:2], metrics=["brier"], n_bootstrap=10)
    assert mostly.n_undefined[0] == 0


def test_a_site_whose_rows_all_have_weight_zero_says_so(cohort):
    y, p, site = cohort
    scores = score_sites(y, p, groups=site, sample_weight=site > 0, n_bootstrap=10)
    first = scores[scores.site == 0]
    assert first.value.isna().all()
    assert first.note.eq("all weights are 0").all()
    assert first.n.eq(0).all()


def test_the_seed_repeats_and_size_of_chunks_is_nothing(cohort, monkeypatch):
    y, p, _ = cohort
    plain = risk_intervals(y, p, n_bootstrap=40)
    pd.testing.assert_frame_equal(plain, risk_intervals(y, p, n_bootstrap=40))
    monkeypatch.setattr("ehrmeta.evaluation.risk._CELLS", 7 * len(y))
    pd.testing.assert_frame_equal(plain, risk_intervals(y, p, n_bootstrap=40))


def test_subgroups_are_scored_by_their_own_rows_and_missing_is_a_level(cohort):
    y, p, site = cohort
    sex = np.where(site % 2, "f", "m").astype(object)
    sex[site == 7] = None
    table = score_subgroups(y, p, subgroups={"sex": sex, "half": site < 4}, n_bootstrap=20)
    table = table[table.metric == "auroc"].set_index(["subgroup", "level"])
    assert list(table.index) == [
        ("sex", "f"),
        ("sex", "m"),
        ("sex", "missing"),
        ("half", False),
        ("half", True),
    ]
    assert table.value["sex", "missing"] == risk_score("auroc", y[site == 7], p[site == 7])
    assert table.n["half", True] == 600
    assert table.n_events["half", True] == y[site < 4].sum()


@pytest.mark.parametrize("case", ["patients", "events", "non-events"])
def test_small_cells_are_withheld_entirely(cohort, case):
    y, p, site = cohort
    part = np.where(site < 4, "large", "small")
    part[site == 3] = "next"
    y = y.copy()
    if case == "patients":
        part[part == "small"] = "large"
        part[:10] = "small"
    else:
        y[part == "small"] = case == "non-events"
        y[np.flatnonzero(part == "small")[:10]] = case == "events"
    table = score_subgroups(y, p, subgroups={"part": part}, n_bootstrap=20)
    small = table[table.level == "small"]
    assert small[["n", "n_events", "value", "low", "high", "se"]].isna().all(axis=None)
    assert small.note.str.startswith("withheld: fewer than 11").all()
    assert table[table.level == "large"].value.notna().all()
    assert table[table.level == "next"].n.isna().all()  # or the total would give the small one
    open_ = score_subgroups(y, p, subgroups={"part": part}, min_cell=1, n_bootstrap=20)
    assert open_[open_.level == "small"].n.notna().all()


@pytest.mark.parametrize("seed", range(8))
def test_no_count_of_few_follows_from_the_total_and_the_levels_shown(seed):
    rng = np.random.default_rng(seed)
    level = rng.choice(6, 200, p=rng.dirichlet(np.full(6, 0.5)))
    y, p = rng.random(200) < rng.choice([0.1, 0.5]), rng.uniform(size=200)
    table = score_subgroups(y, p, subgroups={"level": level}, metrics=["brier"], n_bootstrap=2)
    shown = table[table.n.notna()]
    events, n = int(shown.n_events.sum()), int(shown.n.sum())
    rest = [y.sum() - events, (~y).sum() - (n - events), 200 - n]
    for hidden in rest:
        assert hidden == 0 or hidden >= 11


def test_bad_input_is_refused(cohort):
    y, p, site = cohort
    with pytest.raises(DataError, match="groups has 5 rows"):
        score_sites(y, p, groups=site[:5])
    with pytest.raises(DataError, match="unknown metric 'auc'"):
        score_sites(y, p, groups=site, metrics=["auc"])
    with pytest.raises(DataError, match="subgroup 'sex' has 5 rows"):
        score_subgroups(y, p, subgroups={"sex": site[:5]})
    with pytest.raises(DataError, match="subgroups is empty"):
        score_subgroups(y, p, subgroups={})
    with pytest.raises(DataError, match="at least 3 sites"):
        pool_sites(pd.DataFrame(), min_sites=2)


@pytest.mark.parametrize("seed", range(4))
def test_mean_variance_and_interval_are_statsmodels(seed):
    rng = np.random.default_rng(seed)
    y, variance = rng.normal(0, 0.7, 9), rng.uniform(0.05, 0.4, 9)
    pooled = pool_random_effects(y, np.sqrt(variance), confidence_level=0.95)
    weight = 1 / (variance + pooled.tau2)
    q = np.sum(weight * (y - np.average(y, weights=weight)) ** 2)
    assert q == pytest.approx(8, abs=1e-8)  # Paule and Mandel's equation
    oracle = combine_effects(y, variance, method_re="iterated")
    assert pooled.tau2 == pytest.approx(oracle.tau2, abs=1e-4)  # as far as it iterates
    fit = sm.WLS(y, np.ones(9), weights=weight).fit()  # its scaled variance is Hartung-Knapp's
    assert pooled.value == pytest.approx(fit.params[0], abs=1e-9)
    np.testing.assert_allclose([pooled.low, pooled.high], fit.conf_int()[0], atol=1e-9)
    half = stats.t.ppf(0.975, 7) * np.sqrt(pooled.tau2 + fit.bse[0] ** 2)
    assert pooled.prediction_high == pytest.approx(pooled.value + half, abs=1e-9)
    assert pooled.prediction_low == pytest.approx(pooled.value - half, abs=1e-9)


def test_sites_that_agree_have_no_variance_between():
    pooled = pool_random_effects([1.0, 1.01, 0.99, 1.0], np.full(4, 0.2))
    assert pooled.tau2 == 0
    assert pooled.value == pytest.approx(1.0)


def test_intervals_cover_the_mean_and_a_new_site():
    rng = np.random.default_rng(0)
    mean_in = new_in = 0
    for _ in range(600):
        se = rng.uniform(0.1, 0.3, 10)
        estimate = 0.5 + rng.normal(0, 0.3, 10) + se * rng.normal(size=10)
        pooled = pool_random_effects(estimate, se, confidence_level=0.95)
        mean_in += pooled.low < 0.5 < pooled.high
        new_in += pooled.prediction_low < 0.5 + 0.3 * rng.normal() < pooled.prediction_high
    assert 0.92 < mean_in / 600 < 0.98
    assert 0.92 < new_in / 600 < 0.98


def test_moving_and_stretching_the_scale_moves_and_stretches_the_answer():
    y, se = np.array([0.1, 0.5, 0.4, 0.9]), np.array([0.1, 0.2, 0.1, 0.3])
    plain, rescaled = pool_random_effects(y, se), pool_random_effects(3 * y + 2, 3 * se)
    np.testing.assert_allclose(rescaled[:5], 3 * np.array(plain[:5]) + 2)
    assert rescaled.tau2 == pytest.approx(9 * plain.tau2)


@pytest.mark.parametrize(
    ("y", "se", "reason"),
    [
        ([1, 2], [1, 1], "at least 3 sites"),
        ([1, 2, 3], [1, 1], "one value for each"),
        ([1, 2, 3], [1, 0, 1], "not positive in 1 of 3"),
        ([1, 2, np.nan], [1, 1, 1], "estimate is NaN"),
    ],
)
def test_bad_input_of_random_effects_is_refused(y, se, reason):
    with pytest.raises(DataError, match=reason):
        pool_random_effects(y, se)
