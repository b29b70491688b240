"""Sites for the tests: linear outcomes and effects that differ over sites, with the truth."""

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression

from ehrmeta.treatment import TreatmentResponse


class Sites(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    treatment: np.ndarray
    groups: np.ndarray
    effect: np.ndarray

    def take(self, rows):
        return Sites(*(column[rows] for column in self))

    def split(self, n_support):
        """The first rows of every site, and the others."""
        place = np.arange(len(self.y)) % np.bincount(self.groups)[0]
        return self.take(place < n_support), self.take(place >= n_support)


def simulate(n_sites=30, n=60, *, differ=1.0, confounding=1.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_sites, n, 2))
    level = rng.normal(size=n_sites)  # of outcome and of the inclination to treat
    deviation = differ * rng.normal(size=(n_sites, 2)) * [0.7, 0.4]
    logit = confounding * (0.5 * X[..., 0] + 0.4 * level[:, None])
    t = (rng.random((n_sites, n)) < 1 / (1 + np.exp(-logit))).astype(int)
    effect = 1 + deviation[:, :1] + X[..., 1] * (0.5 + deviation[:, 1:])
    y = level[:, None] + X[..., 0] + t * effect + rng.normal(size=(n_sites, n))
    groups = np.repeat(np.arange(n_sites), n)
    return Sites(X.reshape(-1, 2), y.ravel(), t.ravel(), groups, effect.ravel())


def plain(**settings):
    """Plain models: what the tests state holds for any."""
    defaults = {
        "propensity": LogisticRegression(),
        "outcome": LinearRegression(),
        "final": "linear",
        "random_state": 0,
    }
    return TreatmentResponse(**defaults | settings)


def fitted(model, sites):
    return model.fit(sites.X, sites.y, treatment=sites.treatment, groups=sites.groups)


def adapted(model, sites):
    return model.adapt(sites.X, sites.y, treatment=sites.treatment, groups=sites.groups)


def pehe(estimate, sites):
    return float(np.sqrt(np.mean((estimate - sites.effect) ** 2)))
