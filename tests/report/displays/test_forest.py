import matplotlib.pyplot as plt
import numpy as np
import pytest

from ehrmeta.errors import DataError
from ehrmeta.evaluation import pool_sites, score_sites
from ehrmeta.report import ForestDisplay


@pytest.fixture(scope="module")
def scores(cohort):
    _, y, p, site = cohort
    return score_sites(y, p, groups=site, n_bootstrap=40)


def labels(ax):
    return [tick.get_text() for tick in ax.get_yticklabels()]


@pytest.mark.parametrize("metric", ["auroc", "calibration_slope", "e_o_ratio"])
def test_sites_pool_and_new_site_stand_in_words_beside_the_picture(scores, metric):
    display = ForestDisplay.from_scores(scores, metric=metric)
    names, values = (labels(ax) for ax in display.figure_.axes)
    pooled = pool_sites(scores).set_index("metric").loc[metric]
    assert names[0].startswith("site")
    assert [words.split()[0] for words in names[1:7]] == list("abcdef")
    assert names[7:] == ["pooled, 6 sites", "a new site (prediction)"]
    assert values[7].startswith(f"{pooled.value:.2f} ({pooled.low:.2f} to")
    assert values[8] == f"{pooled.prediction_low:.2f} to {pooled.prediction_high:.2f}"


def test_squares_lie_at_the_values_and_the_diamond_on_the_pooled_interval(scores):
    display = ForestDisplay.from_scores(scores, metric="auroc")
    squares = np.concatenate([drawn.get_offsets() for drawn in display.ax_.collections])
    np.testing.assert_allclose(squares[:, 0], display.sites.value)
    np.testing.assert_array_equal(squares[:, 1], range(6))
    (diamond,) = display.ax_.patches
    corners = diamond.get_xy()[:, 0]
    assert (corners.min(), corners.max()) == (display.pooled["low"], display.pooled["high"])


def test_few_sites_are_listed_and_one_without_a_score_says_so(cohort):
    _, y, p, site = cohort
    few = site < "d"
    y = np.where(site == "a", 0, y)
    display = ForestDisplay.from_predictions(y[few], p[few], groups=site[few], n_bootstrap=20)
    names, values = (labels(ax) for ax in display.figure_.axes)
    assert names[-1] == "fewer than 5 sites: not pooled"
    assert (names[1], values[1]) == ("a  (0 / 60)", "not defined")
    assert not display.ax_.patches
    assert len(display.ax_.collections) == 2


def test_an_estimator_is_drawn_on_the_axes_given(oracle, cohort):
    X, y, p, site = cohort
    _, ax = plt.subplots()
    display = ForestDisplay.from_estimator(oracle, X, oracle.classes_[y], groups=site, ax=ax)
    assert (display.ax_, display.figure_) == (ax, ax.figure)
    expected = ForestDisplay.from_predictions(y, p, groups=site)
    np.testing.assert_allclose(display.sites.value, expected.sites.value)


def test_nothing_leaves_the_page(scores):
    display = ForestDisplay.from_scores(scores, metric="e_o_ratio")
    display.figure_.draw_without_rendering()
    page = display.figure_.bbox
    for ax in display.figure_.axes:
        box = ax.get_tightbbox()
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1


def test_a_metric_that_was_not_scored_is_refused(scores):
    with pytest.raises(DataError, match="do not include the metric 'brier'"):
        ForestDisplay.from_scores(scores, metric="brier")
