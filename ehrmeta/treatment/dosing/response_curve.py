"""A posterior of dose-response curves: bands, and the chance of reaching a range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Array

Monotone = Literal["increasing", "decreasing"] | None

_N_NODES = 64  # of the slope, where its sign is known
_N_HALVINGS = 50


@dataclass(frozen=True, eq=False)
class ResponseCurves:
    """Curves ``u + v phi``, (u, v) normal, as a mixture of normals at every phi.

    Where the sign of v is known, its distribution is cut at 0 and stands for itself by 64 values
    of equal probability; given v, u is normal.
    """

    # u, v (row, node): mean of u given v, and v
    u: Array
    v: Array
    # u_var, v_var, uv_cov (row,): what is left around the nodes
    u_var: Array
    v_var: Array
    uv_cov: Array

    @classmethod
    def of(cls, mean: Array, cov: Array, monotone: Monotone) -> ResponseCurves:
        """Curves from the mean (row, 2) and covariance (row, 2, 2) of (u, v)."""
        if monotone not in (None, "increasing", "decreasing"):
            raise DataError(
                f"monotone must be 'increasing', 'decreasing' or None, got {monotone!r}."
            )
        u, v, sd = mean[:, :1], mean[:, 1:], np.sqrt(np.maximum(cov[:, 1, 1], 0.0))[:, None]
        if monotone is None:
            return cls(u, v, cov[:, 0, 0], cov[:, 1, 1], cov[:, 0, 1])
        sign = 1.0 if monotone == "increasing" else -1.0
        level = (np.arange(_N_NODES) + 0.5) / _N_NODES
        spread = np.maximum(sd, 1e-9 * np.maximum(np.abs(v), 1.0))
        z = stats.truncnorm.ppf(level, -sign * v / spread, np.inf)  # of sign * v, from 0 up
        steep = sign * z * spread
        slope = (cov[:, 0, 1] / spread[:, 0] ** 2)[:, None]
        left = np.maximum(cov[:, 0, 0] - slope[:, 0] * cov[:, 0, 1], 0.0)
        none = np.zeros(len(u))
        return cls(u + slope * steep, v + steep, left, none, none)

    def _normals(self, phi: Array) -> tuple[Array, Array]:
        """Location (row, dose, node) and scale (row, dose, 1)."""
        loc = self.u[:, None, :] + phi[None, :, None] * self.v[:, None, :]
        rows = (slice(None), None)
        variance = self.u_var[rows] + 2 * phi * self.uv_cov[rows] + phi**2 * self.v_var[rows]
        return loc, np.sqrt(np.maximum(variance, 1e-18))[..., None]

    def chance(self, phi: Array, low: float, high: float) -> Array:
        """Probability that a curve lies between `low` and `high`, (row, dose)."""
        loc, scale = self._normals(phi)
        inside = stats.norm.cdf((high - loc) / scale) - stats.norm.cdf((low - loc) / scale)
        return np.asarray(inside.mean(axis=2))

    def quantile(self, phi: Array, level: float) -> Array:
        """Quantile of the curve at every dose, (row, dose)."""
        loc, scale = self._normals(phi)
        at = loc + scale * stats.norm.ppf(level)
        low, high = at.min(axis=2), at.max(axis=2)
        for _ in range(_N_HALVINGS if loc.shape[2] > 1 else 0):
            middle = 0.5 * (low + high)
            below = stats.norm.cdf((middle[..., None] - loc) / scale).mean(axis=2) < level
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(0.5 * (low + high))


@dataclass(frozen=True, eq=False)
class OwnScale:
    """Curves of a logarithm or a scaled dose, read in the units of dose and response."""

    curves: ResponseCurves
    scaled: Callable[[Array], Array]  # phi of a dose
    log: bool  # whether the curves are those of the response's logarithm

    def quantile(self, dose: Array, level: float) -> Array:
        """Quantile of the response to every dose, (row, dose)."""
        found = self.curves.quantile(self.scaled(dose), level)
        return np.asarray(np.exp(found) if self.log else found)

    def chance(self, dose: Array, low: float, high: float) -> Array:
        """Probability that the response to every dose lies in a range, (row, dose)."""
        if self.log:
            with np.errstate(divide="ignore"):
                low, high = np.log(np.maximum([low, high], 0.0))
        return self.curves.chance(self.scaled(dose), low, high)


@dataclass(frozen=True, eq=False)
class SampledCurves:
    """Lines through the origin, of which slopes are drawn with weights."""

    slope: Array  # (row, draw): in rising order, of doses above 0
    below: Array  # (row, draw + 1): weight of the slopes before each place

    @classmethod
    def of(cls, slope: Array, weight: Array) -> SampledCurves:
        """Sort draws (row, draw) of weights that sum to 1."""
        order = np.argsort(slope, axis=1)
        total = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
        below = np.column_stack([np.zeros(len(slope)), total])
        return cls(np.take_along_axis(slope, order, axis=1), below)

    def quantile(self, dose: Array, level: float) -> Array:
        """Quantile of the response to every dose, (row, dose)."""
        at = np.minimum((self.below[:, 1:] < level).sum(axis=1), self.slope.shape[1] - 1)
        return np.asarray(np.outer(self.slope[np.arange(len(at)), at], dose))

    def chance(self, dose: Array, low: float, high: float) -> Array:
        """Probability that the response to every dose lies in a range, (row, dose)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = [np.nan_to_num(end / dose, nan=0.0) for end in (low, high)]
        found = np.empty((len(self.slope), len(dose)))
        for row, (slope, below) in enumerate(zip(self.slope, self.below, strict=True)):
            first, last = (below[np.searchsorted(slope, end)] for end in ends)
            found[row] = last - first
        return found
