"""Scores of risks by a horizon, in resamples of the patients that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.landmark.run import EventRisks
from ehrmeta.evaluation import Difference, bootstrap_counts, labels_at
from ehrmeta.evaluation.bootstrap import percentile_limits
from ehrmeta.evaluation.discrimination import auroc

__all__ = ["SCORES", "CellScores"]

Array = NDArray[np.float64]

SCORES = ("auroc", "brier", "e_o")
_N_BOOTSTRAP = 500
_AT_ONCE = 50  # resamples: bounds memory


@dataclass(frozen=True, eq=False)
class CellScores:
    """All methods on one event by one horizon.

    AUROC and Brier score are weighted for censoring, with competing events as patients without the
    event; E:O is the mean risk over the (weighted) share of events. AUROC compares patients of one
    fold only: those of two have their risks from two fits.

    Parameters
    ----------
    found : EventRisks
    years : int
    """

    found: EventRisks
    years: int

    @property
    def case(self) -> str:
        """Cohort, event and horizon."""
        return f"{self.found.cohort}: {self.found.event} by {self.years} years"

    @property
    def n_patients(self) -> int:
        """Patients at risk."""
        return len(self.found.outcome)

    @property
    def n_events(self) -> int:
        """Events seen by the horizon."""
        y = self.found.outcome
        return int(np.sum((y["event"] == 1) & (y["time"] <= self.years)))

    @cached_property
    def values(self) -> Mapping[str, dict[str, float]]:
        """``values[method][score]``."""
        everybody = np.ones((1, self.n_patients))
        return {
            method: {name: float(part[0]) for name, part in self._scores(method, everybody).items()}
            for method in self.found.risks
        }

    @cached_property
    def samples(self) -> Mapping[str, dict[str, Array]]:
        """``samples[method][score]``, (sample,): the same resamples for all."""
        counts = bootstrap_counts(self.n_patients, _N_BOOTSTRAP, 0)
        parts = [counts[at : at + _AT_ONCE] for at in range(0, len(counts), _AT_ONCE)]
        samples = {}
        for method in self.found.risks:
            scores = [self._scores(method, part) for part in parts]
            samples[method] = {
                name: np.concatenate([score[name] for score in scores]) for name in SCORES
            }
        return samples

    def limits(self, method: str, score: str) -> tuple[float, float]:
        """95 % interval over patients."""
        return percentile_limits(_defined(self.samples[method][score]), 0.95)

    def difference(self, method: str, other: str, score: str) -> Difference:
        """A score less another method's, with its paired 95 % interval."""
        gap = self.values[method][score] - self.values[other][score]
        samples = self.samples[method][score] - self.samples[other][score]
        return Difference(gap, *percentile_limits(_defined(samples), 0.95))

    @cached_property
    def _labels(self) -> tuple[Array, Array]:
        return labels_at(self.found.outcome, horizon=self.years)

    def _scores(self, method: str, counts: Array) -> dict[str, Array]:
        """Scores in resamples given by counts (sample, patient)."""
        label, weight = self._labels
        risk, known = self.found.risks[method][self.years], weight > 0
        weights = counts[:, known] * weight[known]
        gap = label[known] - risk[known]
        expected, seen = counts @ risk, weights @ label[known]
        nothing = np.full(len(counts), np.nan)
        return {
            "auroc": _auroc_within(self.found.fold[known], label[known], risk[known], weights),
            "brier": weights @ gap**2 / counts.sum(axis=1),
            "e_o": np.divide(expected, seen, out=nothing, where=seen > 0),
        }


def _auroc_within(fold: NDArray[np.int64], label: Array, risk: Array, weights: Array) -> Array:
    """AUROC over the pairs of patients of the same fold, (sample,)."""
    pairs, concordant = np.zeros(len(weights)), np.zeros(len(weights))
    for each in np.unique(fold):
        at = fold == each
        n = (weights[:, at] @ label[at]) * (weights[:, at] @ (1.0 - label[at]))
        area = auroc(label[at], risk[at], weights[:, at])
        pairs += n
        concordant += np.where(n > 0, n * area, 0.0)
    found = np.full(len(weights), np.nan)
    np.divide(concordant, pairs, out=found, where=pairs > 0)
    return found


def _defined(samples: Array) -> Array:
    """Without resamples that hold no event."""
    return samples[np.isfinite(samples)]
