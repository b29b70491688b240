"""Scores of the cohorts benchmark, with ratios between methods paired by patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.cohorts.data import load_cohorts
from benchmarks.cohorts.methods import BAYES_RULE, OURS, UPDATES
from benchmarks.cohorts.run import CohortResult
from ehrmeta.evaluation import RISK_METRICS
from ehrmeta.evaluation.bootstrap import percentile_limits

__all__ = ["CohortScores", "Ratio"]

Array = NDArray[np.float64]

_N_BOOTSTRAP = 1000
_FEWEST_SITES, _FEWEST_QUERIES, _FEWEST_EVENTS = 10, 100, 30
_TINY = np.finfo(np.float64).eps
#: of a week's dose: the consortium's low, intermediate and high
DOSE_BANDS: dict[str, Callable[[Array], NDArray[np.bool_]]] = {
    "<= 21 mg": lambda y: y <= 21.0,
    "21-49 mg": lambda y: (y > 21.0) & (y < 49.0),
    ">= 49 mg": lambda y: y >= 49.0,
}


class Ratio(NamedTuple):
    """Loss of one method over another's, with the 95 % interval."""

    value: float
    low: float
    high: float


class CohortScores:
    """Scores of all methods on one data set."""

    def __init__(self, name: str, results: Mapping[str, CohortResult]) -> None:
        self.name = name
        self.results = results
        self.binary = load_cohorts(name).binary
        self.n_sites = int(load_cohorts(name).groups.max()) + 1

    @property
    def methods(self) -> list[str]:
        """In the order of the tables."""
        return list(self.results)

    @property
    def opponents(self) -> list[str]:
        """All that are not ours, the Bayes rule left out."""
        return [m for m in self.methods if not m.startswith(OURS) and m != BAYES_RULE]

    @property
    def updates(self) -> list[str]:
        """Updates of pooled models."""
        return [m for m in self.methods if m in UPDATES]

    @property
    def shots(self) -> list[int]:
        """Support sizes that every method has."""
        return sorted(set.intersection(*(set(r.predictions) for r in self.results.values())))

    def counts(self, k: int) -> bool:
        """Whether the cell has enough training sites, queries and events."""
        rows = self._rows(k)
        events = load_cohorts(self.name).y[rows].sum() if self.binary else np.inf
        enough = self.n_sites * 0.8 >= _FEWEST_SITES and len(rows) >= _FEWEST_QUERIES
        return bool(enough and events >= _FEWEST_EVENTS)

    def value(self, method: str, k: int, metric: str) -> float:
        """A metric over all patients, or for ``"site mae"`` and ``"site auroc"`` over sites."""
        found = self.results[method].predictions[k]
        y, predicted = found["y"], found["predicted"]
        if metric.startswith("site "):
            return self._over_sites(method, k, metric.removeprefix("site "))
        if metric == "loss":
            mean = float(self._patient_loss(method, k).mean())
            return mean if self.binary else float(np.sqrt(mean))
        if metric == "mae":
            return float(np.mean(np.abs(y - predicted)))
        if metric.startswith("within 20 %"):
            band = DOSE_BANDS[metric.removeprefix("within 20 %, ")](y)
            return float(np.mean(np.abs(predicted - y)[band] <= 0.2 * y[band]))
        p = np.clip(predicted, _TINY, 1 - _TINY)
        return float(RISK_METRICS[metric](y, p, np.ones((1, len(y))))[0])

    def ratio(self, method: str, other: str, k: int) -> Ratio:
        """Loss over the other's, by a bootstrap of patients within sites."""
        a, b = self._patient_loss(method, k), self._patient_loss(other, k)
        weights = self._weights[k]
        samples = (weights @ a) / (weights @ b)
        value = a.mean() / b.mean()
        if not self.binary:
            samples, value = np.sqrt(samples), np.sqrt(value)
        return Ratio(float(value), *percentile_limits(samples, 0.95))

    def ratio_over_sites(self, method: str, other: str, k: int) -> Ratio:
        """Loss over the other's on sites drawn at random: t interval of a ratio of site totals.

        One site leaves it without limits.
        """
        a, b = self._patient_loss(method, k), self._patient_loss(other, k)
        sites = np.unique(load_cohorts(self.name).groups[self._rows(k)], return_inverse=True)[1]
        n_sites, value = int(sites.max()) + 1, a.sum() / b.sum()
        if n_sites == 1:
            return Ratio(float(value), -np.inf, np.inf)
        left = np.bincount(sites, a - value * b)  # residual of every site's total
        se = np.sqrt(n_sites / (n_sites - 1) * np.sum(left**2)) / b.sum()
        reach = stats.t.ppf(0.975, n_sites - 1) * se
        return Ratio(float(value), float(value - reach), float(value + reach))

    def gap_closed(self, method: str, k: int) -> float:
        """Share of the way from the best update of a pooled model to the Bayes rule."""
        best = min(self.value(update, k, "loss") for update in self.updates)
        bayes = self.value(BAYES_RULE, k, "loss")
        return (best - self.value(method, k, "loss")) / (best - bayes)

    def _rows(self, k: int) -> NDArray[np.int64]:
        """Row numbers of all query patients, which are the same for every method."""
        first = next(iter(self.results.values())).predictions[k]
        return np.unique(first["row"]).astype(np.int64)

    @cached_property
    def _weights(self) -> dict[int, Array]:
        """How often each patient comes up in each sample, by k, (sample, patient)."""
        return {k: self._resampled(k) for k in self.shots}

    def _resampled(self, k: int) -> Array:
        rows = self._rows(k)
        sites = load_cohorts(self.name).groups[rows]
        rng = np.random.default_rng(0)
        counts = np.empty((_N_BOOTSTRAP, len(rows)))
        for site in np.unique(sites):
            here = np.flatnonzero(sites == site)
            share = np.full(len(here), 1.0 / len(here))
            counts[:, here] = rng.multinomial(len(here), share, size=_N_BOOTSTRAP)
        return counts

    def _patient_loss(self, method: str, k: int) -> Array:
        """Log loss, or squared error of the root of the dose: mean over draws, (patient,)."""
        found = self.results[method].predictions[k]
        y, predicted = found["y"], found["predicted"]
        if self.binary:
            p = np.clip(predicted, _TINY, 1 - _TINY)
            loss = -np.log(np.where(y == 1, p, 1 - p))
        else:
            loss = np.square(np.sqrt(y) - np.sqrt(np.maximum(predicted, 0.0)))
        _, patient = np.unique(found["row"], return_inverse=True)
        return np.bincount(patient, loss) / np.bincount(patient)

    def _over_sites(self, method: str, k: int, metric: str) -> float:
        """Mean over the sites that define the metric."""
        found, values = self.results[method].predictions[k], []
        for site in np.unique(found["site"]):
            here = found["site"] == site
            y, predicted = found["y"][here], found["predicted"][here]
            if metric == "mae":
                values.append(float(np.mean(np.abs(y - predicted))))
            elif len(np.unique(y)) == 2:
                values.append(float(RISK_METRICS[metric](y, predicted, np.ones((1, len(y))))[0]))
        return float(np.nanmean(values)) if values else float("nan")
