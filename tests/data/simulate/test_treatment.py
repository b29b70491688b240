import numpy as np
import pytest
from scipy.special import expit

from ehrmeta.data import TreatedSites, make_treatment
from ehrmeta.errors import DataError


def first_rows(sites: TreatedSites, k: int) -> np.ndarray:
    """Mark the first k rows of every site."""
    _, starts = np.unique(sites.groups, return_index=True)
    return np.arange(len(sites.y)) - starts[sites.groups] < k


def naive(sites: TreatedSites) -> float:
    treated = sites.treatment == 1
    return float(sites.y[treated].mean() - sites.y[~treated].mean())


def test_the_truth_is_the_documented_formula() -> None:
    s = make_treatment(30, confounding=2, random_state=0)
    x1, x2, x3 = s.X[:, 0], s.X[:, 1], s.X[:, 2]
    u, j = s.site_effect, s.groups
    effect = 1 + u[j, 0] + (0.5 + u[j, 1]) * x1 - (0.5 - u[j, 2]) * x2
    np.testing.assert_allclose(s.effect, effect, atol=1e-12)
    baseline = s.site_baseline[j] + x1 + x2 / 2 + (x3**2 - 1) / 2
    np.testing.assert_allclose(s.baseline, baseline, atol=1e-12)
    logit = 2 * (0.4 * x1 + 0.4 * x2 + 0.5 * s.site_inclination[j])
    np.testing.assert_allclose(s.propensity, expit(logit), atol=1e-12)
    noise = s.y - s.baseline - s.treatment * s.effect
    assert abs(noise.mean()) < 4 / np.sqrt(len(noise))
    assert abs(noise.std() - 1) < 0.05
    z = (s.treatment - s.propensity) / np.sqrt(s.propensity * (1 - s.propensity))
    assert abs(z.mean()) < 4 / np.sqrt(len(z))


def test_sites_have_the_stated_spread_and_correlation() -> None:
    s = make_treatment(5000, n_patients=(1, 1), heterogeneity=0.5, random_state=1)
    np.testing.assert_allclose(s.site_effect.std(axis=0), s.effect_sd, rtol=0.05)
    np.testing.assert_allclose(s.effect_sd, [0.35, 0.2, 0.2])
    assert abs(np.corrcoef(s.site_baseline, s.site_inclination)[0, 1] - 0.7) < 0.03
    assert abs(s.site_baseline.std() - 1) < 0.05


def test_the_naive_difference_is_right_only_without_confounding() -> None:
    bias = {}
    for confounding in (0, 1, 2):
        sites = [make_treatment(200, confounding=confounding, random_state=i) for i in range(2)]
        bias[confounding] = np.mean([naive(s) - s.effect.mean() for s in sites])
    assert abs(bias[0]) < 0.08
    assert bias[0] + 0.4 < bias[1] < bias[2] - 0.2


def test_without_heterogeneity_all_sites_share_one_effect_surface() -> None:
    s = make_treatment(20, heterogeneity=0, random_state=2)
    np.testing.assert_allclose(s.effect, 1 + s.X[:, 0] / 2 - s.X[:, 1] / 2, atol=1e-12)
    seen = first_rows(s, 20)
    mean, sd = s.bayes_effect(seen, ~seen)
    np.testing.assert_allclose(mean, s.effect[~seen], atol=1e-12)
    assert np.all(sd == 0)


@pytest.mark.parametrize("confounding", [0, 2])
def test_the_posterior_of_the_effects_is_calibrated_and_learns(confounding: int) -> None:
    s = make_treatment(400, n_patients=(60, 60), confounding=confounding, random_state=3)
    errors = []
    for k in (0, 5, 20, 50):
        seen = first_rows(s, k)
        mean, sd = s.bayes_effect(seen, first_rows(s, 60) & ~first_rows(s, 50))
        queried = s.effect[first_rows(s, 60) & ~first_rows(s, 50)]
        z = (queried - mean) / sd
        assert abs(np.mean(z**2) - 1) < 0.12
        errors.append(np.mean((queried - mean) ** 2))
    assert np.all(np.diff(errors) < 0)


def test_same_seed_same_rows() -> None:
    one, two = (make_treatment(5, random_state=4) for _ in range(2))
    np.testing.assert_array_equal(one.y, two.y)
    np.testing.assert_array_equal(one.treatment, two.treatment)
    assert not np.array_equal(one.site_effect, make_treatment(5, random_state=5).site_effect)


def test_impossible_requests_say_what_is_wrong() -> None:
    with pytest.raises(DataError, match=r"n_patients must be \(fewest, most\)"):
        make_treatment(n_patients=(0, 5))
    with pytest.raises(DataError, match="must not be negative"):
        make_treatment(confounding=-1)
