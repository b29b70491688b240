"""Simulated sinusoids, and hospitals with different risk models and Bayes-optimal predictions."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from ehrmeta.data.columns import check_mask
from ehrmeta.data.simulate._base import Floats, Simulated, draw_sites
from ehrmeta.data.tasks import RandomState
from ehrmeta.errors import DataError

INTERCEPT = -1.5
COEFFICIENTS = (1.0, 0.8, 0.8, -0.6, 0.6, -0.5, 0.4, -0.3, 0.2, 0.0)
N_SLOPES = 2  # leading features with random slopes
N_NODES = 9  # of the Gauss-Hermite rule per dimension


@dataclass(frozen=True, eq=False, repr=False)
class Cohorts(Simulated):
    """Data of `make_cohorts`: ten features, a binary outcome, and sites as groups.

    Attributes
    ----------
    X, y, groups
        As in `Simulated`.
    probability : ndarray, (row,)
        True risk, including site effects.
    intercept, coefficients : float, ndarray (10,)
        Intercept and coefficients of the average site.
    effect_sd : ndarray, (3,)
        Standard deviations over sites: intercept, first slope, second slope.
    effects : ndarray, (site, 3)
        Deviations of every site from the intercept and the first two coefficients.
    """

    probability: Floats
    intercept: float
    coefficients: Floats
    effect_sd: Floats
    effects: Floats

    def bayes_rule(self, support: ArrayLike, query: ArrayLike) -> Floats:
        """Bayes-optimal risks given support rows of the same sites.

        These are posterior means of the risk under the true coefficients and standard deviations;
        only the site effects are unknown. No method has a lower expected log loss.

        Parameters
        ----------
        support, query : array-like of bool, (row,)
            Rows with known outcomes, and rows to predict. For a site without support, the prior is
            used.

        Returns
        -------
        ndarray, (query row,)
        """
        in_support, in_query = (check_mask(rows, len(self.y)) for rows in (support, query))
        average = self.intercept + self.X @ self.coefficients  # (row,)
        Z = np.column_stack([np.ones(len(self.X)), self.X[:, :N_SLOPES]])  # (row, effect)
        risk = np.full(len(self.y), np.nan)
        for site in np.unique(self.groups[in_query]):
            s, q = in_support & (self.groups == site), in_query & (self.groups == site)
            effects, weight = _posterior(Z[s], self.y[s], average[s], self.effect_sd)
            risk[q] = expit(average[q, None] + Z[q] @ effects.T) @ weight
        return risk[in_query]


def make_cohorts(
    n_sites: int = 50,
    *,
    n_patients: tuple[int, int] = (40, 800),
    intercept_sd: float = 0.6,
    slope_sd: float = 0.5,
    random_state: RandomState = None,
) -> Cohorts:
    """Simulate hospitals with a binary outcome, random intercepts and two random slopes.

    Patient i of site j has ten standard normal features x and the risk

    ``logit P(y = 1) = -1.5 + b_j0 + sum_m (beta_m + b_jm) x_m``

    with beta = (1, .8, .8, -.6, .6, -.5, .4, -.3, .2, 0). The site effects are normal and
    independent: b_j0 with standard deviation `intercept_sd`, b_j1 and b_j2 with `slope_sd`. All
    other b are 0. About 29 % of the patients have the event. Given 50 rows of every site, the log
    loss of the Bayes rule is 0.8, 3.5 and 10 % below that of the best model that adapts only the
    intercept, for a `slope_sd` of .3, .5 and .8 (mean of 10 seeds).

    Parameters
    ----------
    n_sites : int
    n_patients : (int, int)
        Smallest and largest number of patients at a site; uniform between these.
    intercept_sd, slope_sd : float
        Standard deviations over sites, in logits.
    random_state : int, Generator or None

    Examples
    --------
    >>> cohorts = make_cohorts(3, n_patients=(40, 60), random_state=0)
    >>> cohorts.X.shape[1], sorted(set(cohorts.groups.tolist()))
    (10, [0, 1, 2])
    >>> first = np.arange(len(cohorts.y)) < 20
    >>> cohorts.bayes_rule(support=first, query=~first).shape == ((~first).sum(),)
    True
    """
    if min(intercept_sd, slope_sd) < 0:
        raise DataError("intercept_sd and slope_sd must not be negative.")
    random = np.random.default_rng(random_state)
    groups = draw_sites(n_sites, n_patients, random)
    X = random.standard_normal((len(groups), len(COEFFICIENTS)))
    effect_sd = np.array([intercept_sd] + [slope_sd] * N_SLOPES)
    effects = effect_sd * random.standard_normal((n_sites, len(effect_sd)))
    coefficients = np.array(COEFFICIENTS)
    average = INTERCEPT + X @ coefficients
    site_share = effects[groups, 0] + np.sum(effects[groups, 1:] * X[:, :N_SLOPES], axis=1)
    probability = expit(average + site_share)
    y = (random.random(len(groups)) < probability).astype(np.int64)
    return Cohorts(X, y, groups, probability, INTERCEPT, coefficients, effect_sd, effects)


def _posterior(
    Z: Floats, y: NDArray[np.int64], offset: Floats, sd: Floats
) -> tuple[Floats, Floats]:
    """Gauss-Hermite nodes (node, effect) and weights (node,) of the posterior of a site's effects.

    The nodes are centered at the mode; effects of standard deviation 0 are 0.
    """
    free = sd > 0
    Z, precision = Z[:, free], np.diag(1 / sd[free] ** 2)
    mode = np.zeros(int(free.sum()))
    for _ in range(30):  # Newton; the log posterior is concave
        risk = expit(offset + Z @ mode)
        curvature = (Z * (risk * (1 - risk))[:, None]).T @ Z + precision
        step = np.linalg.solve(curvature, Z.T @ (y - risk) - precision @ mode)
        mode = mode + step / max(1.0, float(np.linalg.norm(step)))
    points, point_weights = hermegauss(N_NODES)
    grid = np.array(list(product(points, repeat=len(mode))))
    log_weights = np.log(list(product(point_weights, repeat=len(mode)))).sum(axis=1)
    root = np.linalg.cholesky(np.linalg.inv(curvature))
    effects = mode + grid @ root.T  # (node, effect)
    logit = offset[:, None] + Z @ effects.T  # (row, node)
    log_density = (y[:, None] * logit - np.logaddexp(0, logit)).sum(axis=0)
    log_density += 0.5 * np.sum(grid**2 - effects @ precision * effects, axis=1) + log_weights
    density = np.exp(log_density - log_density.max())
    nodes = np.zeros((len(grid), len(sd)))
    nodes[:, free] = effects
    return nodes, density / density.sum()


def make_sinusoid(
    n_tasks: int, n_points: int, *, noise: float = 0.0, random_state: RandomState = None
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Simulate sinusoids with a random amplitude and phase per task.

    ``y = A sin(x - phi) + noise * e`` with A in U[0.1, 5], phi in U[0, pi], x in U[-5, 5] and e
    standard normal (Finn et al. 2017, arXiv:1703.03400). Without noise, the mean squared error is
    4.25 if 0 is predicted, and 3.01 for the best model without adaptation.

    Parameters
    ----------
    n_tasks, n_points : int
        Numbers of tasks, and of rows per task.
    noise : float
        Standard deviation of the noise.
    random_state : int, Generator or None

    Returns
    -------
    X : ndarray, (n_tasks * n_points, 1)
    y : ndarray, (n_tasks * n_points,)
    groups : ndarray of int64, (n_tasks * n_points,)

    Examples
    --------
    >>> X, y, groups = make_sinusoid(2, 3, random_state=0)
    >>> X.shape, y.shape, groups.tolist()
    ((6, 1), (6,), [0, 0, 0, 1, 1, 1])
    """
    random = np.random.default_rng(random_state)
    amplitude = random.uniform(0.1, 5.0, (n_tasks, 1))
    phase = random.uniform(0.0, np.pi, (n_tasks, 1))
    x = random.uniform(-5.0, 5.0, (n_tasks, n_points))
    y = amplitude * np.sin(x - phase) + noise * random.standard_normal(x.shape)
    groups = np.repeat(np.arange(n_tasks), n_points)
    return x.reshape(-1, 1), y.ravel(), groups
