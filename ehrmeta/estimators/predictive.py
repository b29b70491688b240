"""Predictive distributions on the outcome's own scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ehrmeta.data import OutcomeScale

__all__ = ["Predictive"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Predictive:
    """Independent predictive distributions, one per row.

    Normal, or Student's t where `dof` is given, on the learner's scale; `outcome` maps them back.
    Methods that name no distribution (`scale` None) give point predictions only.
    """

    loc: Array  # (row,)
    outcome: OutcomeScale
    scale: Array | None = None  # (row,)
    dof: Array | None = None  # (row,)

    def mean(self) -> Array:
        """Mean on the outcome's scale, (row,); the median where the mean does not exist.

        Under a log transform the mean is ``exp(m + s^2 / 2)``, under a square root
        ``m^2 + variance``; a log Student's t has no mean.
        """
        transform = self.outcome.transform
        if self.scale is None or transform is None or (transform == "log" and self.dof is not None):
            return self.outcome.inverse(self.loc)
        m = self.outcome.center + self.outcome.scale * self.loc
        s = self.outcome.scale * self.scale
        if transform == "log":
            return np.asarray(np.exp(m + 0.5 * s**2))
        inflation = 1.0 if self.dof is None else self.dof / (self.dof - 2.0)
        return m**2 + s**2 * inflation

    def quantile(self, level: float) -> Array:
        """Quantile at one level, (row,)."""
        return self.outcome.inverse(self._frozen().ppf(level))

    def take(self, index: npt.NDArray[np.int64]) -> Predictive:
        """Some rows, in the order given."""
        scale = None if self.scale is None else self.scale[index]
        dof = None if self.dof is None else self.dof[index]
        return Predictive(self.loc[index], self.outcome, scale, dof)

    def _frozen(self) -> Any:
        if self.dof is None:
            return stats.norm(self.loc, self.scale)
        return stats.t(self.dof, self.loc, self.scale)
