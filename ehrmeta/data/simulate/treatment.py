"""Simulated sites with different propensities and treatment effects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from ehrmeta.data.columns import check_mask
from ehrmeta.data.simulate._base import Floats, Simulated, draw_sites
from ehrmeta.data.tasks import RandomState
from ehrmeta.errors import DataError

N_FEATURES = 5
EFFECT = (1.0, 0.5, -0.5)  # mean effect, and its slopes for the first two features
BASELINE_SD = 1.0  # over sites
EFFECT_SD = (0.7, 0.4, 0.4)  # over sites, at heterogeneity 1
SITE_CORRELATION = 0.7  # of a site's baseline and its inclination to treat
INCLINATION = (0.4, 0.4, 0.5)  # of two features and the site, in logits, at confounding 1
NOISE_SD = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class TreatedSites(Simulated):
    """Data of `make_treatment`: five features, with sites as groups.

    Attributes
    ----------
    X, y, groups
        As in `Simulated`.
    treatment : ndarray of int64, (row,)
        1 if treated, else 0.
    baseline, effect : ndarray, (row,)
        Mean outcome without treatment, and treatment effect, given x and the site.
    propensity : ndarray, (row,)
        Probability of treatment.
    site_inclination, site_baseline : ndarray, (site,)
        z and a of `make_treatment`.
    site_effect : ndarray, (site, 3)
        u of `make_treatment`.
    effect_sd : ndarray, (3,)
        Standard deviations of u over sites.
    """

    treatment: NDArray[np.int64]
    baseline: Floats
    effect: Floats
    propensity: Floats
    site_inclination: Floats
    site_baseline: Floats
    site_effect: Floats
    effect_sd: Floats

    def bayes_effect(self, support: ArrayLike, query: ArrayLike) -> tuple[Floats, Floats]:
        """Posterior mean and sd of the effects given support rows of the same sites.

        The site's baseline and effect are unknown. The shared model, the standard deviations and
        the sites' inclinations to treat are known, with their true values. No method has a smaller
        expected squared error.

        Parameters
        ----------
        support, query : array-like of bool, (row,)
            Rows with known treatment and outcome, and rows to predict. For a site without support,
            the prior is used.

        Returns
        -------
        mean, sd : ndarray, (query row,)
        """
        in_support, in_query = (check_mask(rows, len(self.y)) for rows in (support, query))
        expected = _shared_baseline(self.X) + self.treatment * (_terms(self.X) @ EFFECT)
        expected += BASELINE_SD * SITE_CORRELATION * self.site_inclination[self.groups]
        design = np.column_stack([np.ones(len(self.y)), self.treatment[:, None] * _terms(self.X)])
        baseline_sd = BASELINE_SD * np.sqrt(1 - SITE_CORRELATION**2)
        sd = np.append(baseline_sd, self.effect_sd)  # of the unknowns: baseline, effect
        mean, spread = np.zeros((2, len(self.y)))
        for site in np.unique(self.groups[in_query]):
            s, q = in_support & (self.groups == site), in_query & (self.groups == site)
            scaled = design[s] * sd
            covariance = np.linalg.inv(scaled.T @ scaled / NOISE_SD**2 + np.eye(len(sd)))
            unknowns = covariance @ scaled.T @ (self.y[s] - expected[s]) / NOISE_SD**2
            terms = _terms(self.X[q]) * self.effect_sd
            mean[q] = _terms(self.X[q]) @ EFFECT + terms @ unknowns[1:]
            spread[q] = np.sqrt(np.sum(terms @ covariance[1:, 1:] * terms, axis=1))
        return mean[in_query], spread[in_query]


def make_treatment(
    n_sites: int = 50,
    *,
    n_patients: tuple[int, int] = (60, 400),
    heterogeneity: float = 1.0,
    confounding: float = 1.0,
    random_state: RandomState = None,
) -> TreatedSites:
    """Simulate a binary treatment over sites with different baselines, propensities and effects.

    Patient i of site j has five standard normal features x; e is standard normal noise, and

    ``y = a_j + x_1 + x_2 / 2 + (x_3^2 - 1) / 2 + t tau_j(x) + e``

    ``tau_j(x) = 1 + u_j0 + (1/2 + u_j1) x_1 - (1/2 - u_j2) x_2``

    ``logit P(t = 1) = confounding (.4 x_1 + .4 x_2 + z_j / 2)``

    with z_j and a_j standard normal with correlation .7, so that sites with high outcomes treat
    more patients. With confounding, nuisance models pooled over sites are therefore biased.

    Parameters
    ----------
    n_sites : int
    n_patients : (int, int)
        Smallest and largest number of patients at a site; uniform between these.
    heterogeneity : float
        Multiplies the standard deviations (.7, .4, .4) of u_j. With 0, effects are the same at all
        sites.
    confounding : float
        With 0, treatment is randomised 1:1 at all sites. With 2, 10 % of the propensities are below
        .13 and 10 % above .87.
    random_state : int, Generator or None

    Examples
    --------
    >>> sites = make_treatment(3, confounding=0, random_state=0)
    >>> set(sites.propensity.tolist())
    {0.5}
    >>> first = np.arange(len(sites.y)) < 20
    >>> effect, sd = sites.bayes_effect(support=first, query=~first)
    """
    if min(heterogeneity, confounding) < 0:
        raise DataError("heterogeneity and confounding must not be negative.")
    random = np.random.default_rng(random_state)
    groups = draw_sites(n_sites, n_patients, random)
    z, rest = random.standard_normal((2, n_sites))
    a = BASELINE_SD * (SITE_CORRELATION * z + np.sqrt(1 - SITE_CORRELATION**2) * rest)
    effect_sd = heterogeneity * np.array(EFFECT_SD)
    u = effect_sd * random.standard_normal((n_sites, len(effect_sd)))
    X = random.standard_normal((len(groups), N_FEATURES))
    inclination = np.column_stack([X[:, :2], z[groups]]) @ INCLINATION
    propensity = expit(confounding * inclination)
    treatment = (random.random(len(groups)) < propensity).astype(np.int64)
    baseline = a[groups] + _shared_baseline(X)
    effect = np.sum(_terms(X) * (EFFECT + u[groups]), axis=1)
    y = baseline + treatment * effect + NOISE_SD * random.standard_normal(len(groups))
    return TreatedSites(X, y, groups, treatment, baseline, effect, propensity, z, a, u, effect_sd)


def _shared_baseline(X: Floats) -> Floats:
    """Shared part of the mean outcome without treatment, (row,)."""
    return np.asarray(X[:, 0] + X[:, 1] / 2 + (X[:, 2] ** 2 - 1) / 2)


def _terms(X: Floats) -> Floats:
    """Terms of the linear effect model, (row, 3)."""
    return np.column_stack([np.ones(len(X)), X[:, :2]])
