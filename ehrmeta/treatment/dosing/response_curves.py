"""Posterior dose-response curves of adapted patients: bands, probabilities and the best dose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from ehrmeta.data import Schema, read_column
from ehrmeta.errors import DataError
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.predictions import FrameType, check_frame, prediction_frame
from ehrmeta.ranges import check_level
from ehrmeta.treatment.arms import Array, Dose, Index
from ehrmeta.treatment.treated_rows import described

Monotone = Literal["increasing", "decreasing"] | None

_N_DOSES = 100  # of the default grid
_N_NODES = 64  # of the slope's distribution if its sign is known
_N_HALVINGS = 50


class Curves(Protocol):
    """A posterior of dose-response curves, one per row."""

    def quantile(self, dose: Array, level: float) -> Array:
        """Quantile of the response to every dose, (row, dose)."""

    def chance(self, dose: Array, low: float, high: float) -> Array:
        """Probability that the response to every dose lies in a range, (row, dose)."""


@dataclass(frozen=True, eq=False)
class ResponseCurves:
    """Curves ``u + v phi`` with (u, v) normal; at each phi, a mixture of normals.

    If the sign of v is known, the distribution of v is truncated at 0 and represented by 64 values
    of equal probability; given v, u is normal.
    """

    # u, v (row, node): mean of u given v, and v
    u: Array
    v: Array
    # u_var, v_var, uv_cov (row,): covariance of (u, v) around the nodes
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
        z = stats.truncnorm.ppf(level, -sign * v / spread, np.inf)  # of sign * v, which is positive
        shift = sign * z * spread
        slope = (cov[:, 0, 1] / spread[:, 0] ** 2)[:, None]
        residual_var = np.maximum(cov[:, 0, 0] - slope[:, 0] * cov[:, 0, 1], 0.0)
        zero = np.zeros(len(u))
        return cls(u + slope * shift, v + shift, residual_var, zero, zero)

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
class OriginalScale:
    """`ResponseCurves` of a scaled dose or a log response, in the original units."""

    curves: ResponseCurves
    scaled: Callable[[Array], Array]  # phi of a dose
    log: bool  # whether the curves are those of the response's logarithm

    def quantile(self, dose: Array, level: float) -> Array:
        """Quantile of the response to every dose, (row, dose)."""
        response = self.curves.quantile(self.scaled(dose), level)
        return np.asarray(np.exp(response) if self.log else response)

    def chance(self, dose: Array, low: float, high: float) -> Array:
        """Probability that the response to every dose lies in a range, (row, dose)."""
        if self.log:
            with np.errstate(divide="ignore"):
                low, high = np.log(np.maximum([low, high], 0.0))
        return self.curves.chance(self.scaled(dose), low, high)


@dataclass(frozen=True, eq=False)
class SampledCurves:
    """Lines through the origin with weighted draws of the slope."""

    slope: Array  # (row, draw): response per unit of dose, in increasing order
    cumulative: Array  # (row, draw + 1): total weight of the smaller slopes

    @classmethod
    def of(cls, slope: Array, weight: Array) -> SampledCurves:
        """Sort draws of the slope, (row, draw), whose weights sum to 1 in each row."""
        order = np.argsort(slope, axis=1)
        total = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
        cumulative = np.column_stack([np.zeros(len(slope)), total])
        return cls(np.take_along_axis(slope, order, axis=1), cumulative)

    def quantile(self, dose: Array, level: float) -> Array:
        """Quantile of the response to every dose, (row, dose)."""
        at = np.minimum((self.cumulative[:, 1:] < level).sum(axis=1), self.slope.shape[1] - 1)
        return np.asarray(np.outer(self.slope[np.arange(len(at)), at], dose))

    def chance(self, dose: Array, low: float, high: float) -> Array:
        """Probability that the response to every dose lies in a range, (row, dose)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = [np.nan_to_num(end / dose, nan=0.0) for end in (low, high)]
        probability = np.empty((len(self.slope), len(dose)))
        for row, (slope, total) in enumerate(zip(self.slope, self.cumulative, strict=True)):
            first, last = (total[np.searchsorted(slope, end)] for end in ends)
            probability[row] = last - first
        return probability


class AdaptedPatients(ABC):
    """Predictions for patients that a dosing model was adapted to."""

    schema: Schema | None
    n_shots_: Index
    doses: Dose  # range of the training doses
    log_grid: bool  # whether the default grid is geometric, which excludes a dose of 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({described(self.n_shots_, 'patient')})"

    @abstractmethod
    def _read(self, X: Any, groups: Any, time: Any) -> Inputs:
        """Read rows, and check that their columns are those passed to fit."""

    @abstractmethod
    def _curves(self, X: Any, groups: Any, time: Any, monotone: Monotone) -> Curves:
        """The curves at the rows' features."""

    def dose_response(
        self,
        X: Any,
        grid: Any = None,
        *,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.9,
        monotone: Monotone = None,
    ) -> pd.DataFrame:
        """Response to every dose of a grid, with a credible band.

        Parameters
        ----------
        X : frame or array, (row, feature)
        grid : array, (dose,), optional
            By default 100 doses over the range of the training rows.
        groups : array, (row,)
            Patient of every row; not needed if `adapt` was called without groups.
        time : array, (row,)
            Time of every row; needed if the model has a trend.
        confidence_level : float, default 0.9
            Pointwise: of the band at each dose, not of the whole curve.
        monotone : {"increasing", "decreasing"}, optional
            Known direction in which the response changes with the dose; curves in the other
            direction are excluded.

        Returns
        -------
        DataFrame
            `row`, `dose`, `response` (median), `low`, `high`, and `extrapolated` (whether the dose
            lies outside the training doses).
        """
        tail = 0.5 * (1.0 - check_level(confidence_level))
        doses = self._grid(grid)
        curves = self._curves(X, groups, time, monotone)
        levels = {"response": 0.5, "low": tail, "high": 1.0 - tail}
        band = {name: curves.quantile(doses, level) for name, level in levels.items()}
        n_rows = len(band["response"])
        return pd.DataFrame(
            {
                "row": np.repeat(np.arange(n_rows), len(doses)),
                "dose": np.tile(doses, n_rows),
                **{name: values.ravel() for name, values in band.items()},
                "extrapolated": np.tile(self.doses.outside(doses), n_rows),
            }
        )

    def predict_frame(
        self,
        X: Any,
        *,
        treatment: Any,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.9,
        monotone: Monotone = None,
        as_: FrameType = "pandas",
    ) -> Any:
        """Response to one dose per row as a data frame, one row per row of X.

        Parameters
        ----------
        treatment : float, or array, (row,)
            Dose of every row.
        as_ : {"pandas", "polars"}
        confidence_level : float, default 0.9
            Of the interval of every response.
        X, groups, time, monotone
            As in `dose_response`.

        Returns
        -------
        DataFrame
            `task` and `time` (if given), `dose`, `response` (median), `lower` and `upper`.
        """
        tail = 0.5 * (1.0 - check_frame(confidence_level, as_))
        inputs = self._read(X, groups, time)
        dose = np.broadcast_to(read_column(np.atleast_1d(treatment), "treatment"), inputs.n_rows)
        doses, curves = self._grid(dose), self._curves(X, groups, time, monotone)
        at = np.arange(inputs.n_rows), np.searchsorted(doses, dose)
        levels = {"response": 0.5, "lower": tail, "upper": 1.0 - tail}
        band = {name: curves.quantile(doses, level)[at] for name, level in levels.items()}
        return prediction_frame(X, inputs, {"dose": dose, **band}, as_=as_)

    def chance(
        self,
        X: Any,
        grid: Any,
        *,
        target: tuple[float, float],
        groups: Any = None,
        time: Any = None,
        monotone: Monotone = None,
    ) -> Array:
        """Probability that the response to every dose lies in the target range, (row, dose)."""
        low, high = (float(end) for end in target)
        if not low < high:
            raise DataError(f"target must be a range (low, high) with low < high, got {target}.")
        return self._curves(X, groups, time, monotone).chance(self._grid(grid), low, high)

    def recommend(
        self,
        X: Any,
        *,
        target: tuple[float, float],
        grid: Any = None,
        max_dose: float | None = None,
        groups: Any = None,
        time: Any = None,
        monotone: Monotone = None,
    ) -> pd.DataFrame:
        """Dose with the highest probability that the response lies in the target range.

        Parameters
        ----------
        target : (float, float)
            Range of the response; an end may be infinite.
        grid : array, (dose,), optional
            Doses to choose from; by default 100 over the range of the training rows.
        max_dose : float, optional
            Largest dose to choose.
        X, groups, time, monotone
            As in `dose_response`.

        Returns
        -------
        DataFrame
            `dose` (of equally good doses the smallest), `probability` of a response in the target
            range, and `extrapolated` (whether the dose lies outside the training doses).
        """
        doses = self._grid(grid, max_dose)
        chance = self.chance(X, doses, target=target, groups=groups, time=time, monotone=monotone)
        best = chance.argmax(axis=1)
        return pd.DataFrame(
            {
                "dose": doses[best],
                "probability": chance[np.arange(len(chance)), best],
                "extrapolated": self.doses.outside(doses[best]),
            }
        )

    def _grid(self, grid: Any, max_dose: float | None = None) -> Array:
        """Doses to predict for, with a warning where they lie outside the training doses."""
        known, log = self.doses, self.log_grid
        spaced = np.geomspace if log else np.linspace
        doses = (
            spaced(known.low, known.high, _N_DOSES)
            if grid is None
            else np.unique(read_column(grid, "grid"))
        )
        if doses.dtype.kind not in "biuf" or not len(doses) or not np.isfinite(doses).all():
            raise DataError("grid must contain at least one dose, and only finite numbers.")
        doses = doses.astype(np.float64)
        if log and doses[0] <= 0:
            raise DataError(
                "grid contains a dose of 0 or below, but the doses are on the log scale. Remove it."
            )
        if max_dose is not None:
            if max_dose < known.low:
                raise DataError(
                    f"max_dose={max_dose:g} lies below all training doses ({known.low:g} to "
                    f"{known.high:g}). Train on smaller doses, or allow larger ones."
                )
            if max_dose < doses[0]:
                raise DataError(
                    f"max_dose={max_dose:g} lies below all doses of the grid (from {doses[0]:g}). "
                    "Add smaller doses to the grid, or allow larger ones."
                )
            doses = doses[doses <= max_dose]
        known.warn_if_outside(doses)
        return doses
