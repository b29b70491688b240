import numpy as np
import pytest
from scipy.special import expit

from ehrmeta.data import Cohorts, make_cohorts, make_sinusoid
from ehrmeta.errors import DataError


def first_rows(cohorts: Cohorts, k: int) -> np.ndarray:
    """Mark the first k rows of every site."""
    _, starts = np.unique(cohorts.groups, return_index=True)
    return np.arange(len(cohorts.y)) - starts[cohorts.groups] < k


def log_loss(y: np.ndarray, p: np.ndarray) -> float:
    return float(-np.mean(np.where(y == 1, np.log(p), np.log1p(-p))))


def test_the_truth_is_the_documented_formula() -> None:
    c = make_cohorts(20, slope_sd=0.8, random_state=0)
    b = c.effects[c.groups]
    slopes = c.coefficients + np.pad(b[:, 1:], ((0, 0), (0, 8)))
    logit = c.intercept + b[:, 0] + (slopes * c.X).sum(axis=1)
    np.testing.assert_allclose(c.probability, expit(logit), atol=1e-12)
    z = (c.y - c.probability) / np.sqrt(c.probability * (1 - c.probability))
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    sizes = np.bincount(c.groups)
    assert 40 <= sizes.min() <= sizes.max() <= 800


def test_sites_differ_as_much_as_requested() -> None:
    c = make_cohorts(4000, n_patients=(1, 1), intercept_sd=0.6, slope_sd=0.3, random_state=1)
    np.testing.assert_allclose(c.effects.std(axis=0), c.effect_sd, rtol=0.05)
    np.testing.assert_allclose(c.effect_sd, [0.6, 0.3, 0.3])
    assert np.abs(np.corrcoef(c.effects.T) - np.eye(3)).max() < 0.06


def test_same_seed_same_rows() -> None:
    one, two = (make_cohorts(5, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(one.X, two.X)
    np.testing.assert_array_equal(one.y, two.y)
    assert not np.array_equal(one.y, make_cohorts(5, random_state=4).y)


def test_the_bayes_rule_is_the_average_over_the_posterior() -> None:
    c = make_cohorts(1, n_patients=(60, 60), slope_sd=0.8, random_state=5)
    seen = np.arange(60) < 20
    draws = c.effect_sd * np.random.default_rng(0).standard_normal((400_000, 3))
    Z = np.column_stack([np.ones(60), c.X[:, :2]])
    risk = expit((c.intercept + c.X @ c.coefficients)[:, None] + Z @ draws.T)
    weight = np.where(c.y[seen, None] == 1, risk[seen], 1 - risk[seen]).prod(axis=0)
    expected = risk[~seen] @ weight / weight.sum()
    np.testing.assert_allclose(c.bayes_rule(seen, ~seen), expected, atol=4e-3)


def test_without_differences_the_bayes_rule_is_the_truth() -> None:
    c = make_cohorts(3, intercept_sd=0, slope_sd=0, random_state=6)
    seen = first_rows(c, 10)
    np.testing.assert_allclose(c.bayes_rule(seen, ~seen), c.probability[~seen], atol=1e-12)


@pytest.mark.parametrize(("slope_sd", "gain"), [(0.3, 0.008), (0.5, 0.035), (0.8, 0.10)])
def test_knowing_the_slopes_pays_as_documented(slope_sd: float, gain: float) -> None:
    """Against the best rule for the intercept alone, of the slopes' marginal risk."""
    losses = []
    for seed in range(3):
        c = make_cohorts(slope_sd=slope_sd, random_state=seed)
        seen = first_rows(c, 50)
        shrunk = 1 / np.sqrt(1 + 0.346 * 2 * slope_sd**2)
        flat = Cohorts(
            c.X,
            c.y,
            c.groups,
            c.probability,
            shrunk * c.intercept,
            shrunk * c.coefficients,
            c.effect_sd * [1, 0, 0],
            c.effects,
        )
        losses.append([log_loss(c.y[~seen], rule.bayes_rule(seen, ~seen)) for rule in (flat, c)])
    intercept, full = np.mean(losses, axis=0)
    assert 0.7 * gain < 1 - full / intercept < 1.3 * gain


def test_impossible_requests_say_what_is_wrong() -> None:
    with pytest.raises(DataError, match=r"n_patients must be \(fewest, most\)"):
        make_cohorts(n_patients=(10, 5))
    with pytest.raises(DataError, match="must not be negative"):
        make_cohorts(slope_sd=-1)
    with pytest.raises(DataError, match="one bool per row"):
        make_cohorts(2, random_state=0).bayes_rule([0, 1], [2])


def test_predicting_zero_has_the_published_error() -> None:
    _, y, _ = make_sinusoid(20_000, 5, random_state=0)
    assert abs(np.mean(y**2) - 4.25) < 0.06


def test_every_task_is_one_sine_wave() -> None:
    X, y, groups = make_sinusoid(50, 12, random_state=1)
    for task in range(50):
        rows = groups == task
        waves = np.column_stack([np.sin(X[rows, 0]), np.cos(X[rows, 0])])
        a, b = np.linalg.lstsq(waves, y[rows])[0]
        np.testing.assert_allclose(waves @ [a, b], y[rows], atol=1e-10)
        assert 0.1 <= np.hypot(a, b) <= 5
        assert b <= 1e-12  # the phase lies between 0 and pi
    assert np.abs(X).max() <= 5


def test_noise_is_added_to_the_same_tasks() -> None:
    clean = make_sinusoid(300, 20, random_state=2)
    noisy = make_sinusoid(300, 20, noise=0.5, random_state=2)
    np.testing.assert_array_equal(clean[0], noisy[0])
    assert abs(np.std(noisy[1] - clean[1]) - 0.5) < 0.02
