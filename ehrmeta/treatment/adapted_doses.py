"""Patients that a dose-response model was adapted to: their curves, and the dose to give."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ehrmeta.errors import DataError, DataWarning, GroupError
from ehrmeta.treatment.dosed_rows import DosedRows, check_columns
from ehrmeta.treatment.response_curve import Monotone, ResponseCurves

if TYPE_CHECKING:
    from ehrmeta.treatment.dose_response import DoseResponse

__all__ = ["AdaptedDoses"]

Array = npt.NDArray[np.float64]

_N_DOSES = 100  # of a grid that is not given


class AdaptedDoses:
    """Made by ``DoseResponse.adapt``, never by hand. It holds doses, so it is patient data.

    Everything is about the response itself to a dose held for long, without measurement error and
    passing fluctuation, at the features and the time of the rows asked about.

    Attributes
    ----------
    labels_ : ndarray, (patient,), or None
        The groups it was adapted to, sorted; None for one patient without a name.
    n_shots_ : ndarray, (patient,)
        Support rows of every patient.
    one_dose_ : ndarray of bool, (patient,)
        Patients seen under one dose only: how they respond to others is the population's.
    """

    def __init__(
        self, model: DoseResponse, rows: DosedRows, posteriors: Sequence[tuple[Array, Array]]
    ) -> None:
        self.model = model
        self.labels_ = rows.labels
        self.n_shots_ = np.diff(rows.starts)
        ends = [np.unique(part) for part in np.split(rows.dose, rows.starts[1:-1])]
        self.one_dose_ = np.array([len(doses) == 1 for doses in ends])
        self._mean = np.stack([mean for mean, _ in posteriors])
        self._cov = np.stack([cov for _, cov in posteriors])

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
        """The response to every dose of a grid, with a band.

        Parameters
        ----------
        X : frame or array, (row, feature)
        grid : array, (dose,), optional
            By default 100 doses over the range of the training rows.
        groups : array, (row,)
            Patient of every row; not needed for one patient without a name.
        time : array, (row,)
            Needed where the model has a trend.
        confidence_level : float
            Of each point of the band.
        monotone : {"increasing", "decreasing"}, optional
            What is known of the response to a higher dose: curves that go the other way are ruled
            out.

        Returns
        -------
        DataFrame
            `row`, `dose`, `response` (median), `low`, `high`, and `extrapolated`: the dose lies
            outside the training doses.
        """
        tail = 0.5 * (1.0 - _checked(confidence_level))
        doses = self._grid(grid)
        curves = self._curves(X, groups, time, monotone)
        phi = self.model.design_.scaled(doses)
        found = {
            name: self._outcome(curves.quantile(phi, level))
            for name, level in (("response", 0.5), ("low", tail), ("high", 1.0 - tail))
        }
        n_rows = len(found["response"])
        return pd.DataFrame(
            {
                "row": np.repeat(np.arange(n_rows), len(doses)),
                "dose": np.tile(doses, n_rows),
                **{name: values.ravel() for name, values in found.items()},
                "extrapolated": np.tile(self.model.dose_.outside(doses), n_rows),
            }
        )

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
        low, high = self._target(target)
        curves = self._curves(X, groups, time, monotone)
        return curves.chance(self.model.design_.scaled(self._grid(grid)), low, high)

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
        """The dose that most probably brings the response into the target range.

        Parameters
        ----------
        target : (float, float)
            Range of the response; an end may be infinite.
        grid : array, (dose,), optional
            Doses to choose from; by default 100 over the range of the training rows.
        max_dose : float, optional
            No larger one is chosen.
        X, groups, time, monotone
            As in `dose_response`.

        Returns
        -------
        DataFrame
            `dose` (of equal ones the smallest), `probability` of reaching the range with it, and
            `extrapolated`.
        """
        doses = self._grid(grid, max_dose)
        chance = self.chance(X, doses, target=target, groups=groups, time=time, monotone=monotone)
        best = chance.argmax(axis=1)
        return pd.DataFrame(
            {
                "dose": doses[best],
                "probability": chance[np.arange(len(chance)), best],
                "extrapolated": self.model.dose_.outside(doses[best]),
            }
        )

    def effect(
        self, X: Any, *, T0: float, T1: float, groups: Any = None, time: Any = None
    ) -> Array:
        """Response to dose `T1` less that to `T0`, (row,); their ratio on the log scale."""
        return self._effect(X, T0, T1, groups, time, 0.5)

    def effect_interval(
        self,
        X: Any,
        *,
        T0: float,
        T1: float,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.95,
    ) -> Array:
        """Interval of `effect`, (row, 2)."""
        tail = 0.5 * (1.0 - _checked(confidence_level))
        ends = [self._effect(X, T0, T1, groups, time, p) for p in (tail, 1.0 - tail)]
        return np.column_stack(ends)

    def warn_of_one_dose(self, stacklevel: int = 3) -> None:
        """Say whose response to other doses is the population's."""
        if self.one_dose_.any() and self.model.random_slope:
            warnings.warn(
                f"{int(self.one_dose_.sum()):,} of {len(self.one_dose_):,} patients (first: "
                f"patient {int(np.flatnonzero(self.one_dose_)[0])}) were seen under one dose only: "
                "it tells their level, and how they respond to other doses is mostly the "
                "population's. See one_dose_.",
                DataWarning,
                stacklevel=stacklevel,
            )

    def __repr__(self) -> str:
        shots = self.n_shots_
        span = f"{shots.min()}-{shots.max()}" if shots.min() < shots.max() else f"{shots.min()}"
        patients = "1 patient" if len(shots) == 1 else f"{len(shots):,} patients"
        return f"AdaptedDoses({patients}, {span} rows each)"

    def _effect(self, X: Any, T0: float, T1: float, groups: Any, time: Any, level: float) -> Array:
        step = np.diff(self.model.design_.scaled(np.array([T0, T1], np.float64)))[0]
        mean, cov = self._level_and_slope(X, groups, time)
        spread = np.abs(step) * np.sqrt(np.maximum(cov[:, 1, 1], 0.0))
        found = step * mean[:, 1] + spread * stats.norm.ppf(level)
        return np.asarray(np.exp(found) if self.model.outcome_transform == "log" else found)

    def _curves(self, X: Any, groups: Any, time: Any, monotone: Monotone) -> ResponseCurves:
        return ResponseCurves.of(*self._level_and_slope(X, groups, time), monotone)

    def _level_and_slope(self, X: Any, groups: Any, time: Any) -> tuple[Array, Array]:
        """Posterior mean (row, 2) and covariance (row, 2, 2) of a curve's level and slope."""
        model = self.model
        inputs = model._inputs(X, None, groups, time, model.schema_)
        check_columns(inputs, model.columns_)
        if model.trend and inputs.time is None:
            raise DataError("time is missing: the model has a trend. Pass time= of every row.")
        if self.labels_ is None:
            task = np.zeros(inputs.n_rows, np.int64)
        elif inputs.groups is None:
            raise GroupError(
                f"groups is missing: the model was adapted to {len(self.labels_):,} named "
                "patients, so pass groups= with the patient of every row."
            )
        else:
            task = pd.Index(self.labels_).get_indexer(inputs.groups).astype(np.int64)
        if (task < 0).any():
            raise GroupError(
                f"{int((task < 0).sum()):,} of {len(task):,} rows (first: row "
                f"{int(np.argmax(task < 0))}) belong to patients that were not adapted. Adapt them "
                "first, or ask unadapted()."
            )
        at = (
            np.full(inputs.n_rows, model.design_.time_center)
            if inputs.time is None
            else inputs.time
        )
        own = int(model.own_carry_over and model.carry_over_ > 0)
        parts = model.design_.parts(inputs.columns, at, np.zeros((inputs.n_rows, own)))
        level, slope = (np.column_stack(part) for part in parts)
        both = np.stack([level, slope], axis=1)  # (row, 2, coefficient)
        mean = np.einsum("nkc,nc->nk", both, self._mean[task])
        return mean, both @ self._cov[task] @ both.transpose(0, 2, 1)

    def _grid(self, grid: Any, max_dose: float | None = None) -> Array:
        """Doses to look at, with a warning where they lie outside the training doses."""
        known = self.model.dose_
        spaced = np.geomspace if self.model.dose_scale == "log" else np.linspace
        doses = (
            spaced(known.low, known.high, _N_DOSES)
            if grid is None
            else np.unique(np.asarray(grid, dtype=np.float64))
        )
        if not len(doses) or not np.isfinite(doses).all():
            raise DataError("grid must hold doses: finite numbers, at least one.")
        if self.model.dose_scale == "log" and doses[0] <= 0:
            raise DataError("grid holds a dose of 0 or below, which has no logarithm.")
        if max_dose is not None:
            if max_dose < known.low:
                raise DataError(
                    f"max_dose={max_dose:g} lies below all training doses ({known.low:g} to "
                    f"{known.high:g}): nothing was learned there. Train on smaller doses, or allow "
                    "larger ones."
                )
            if max_dose < doses[0]:
                raise DataError(
                    f"max_dose={max_dose:g} lies below all doses of the grid (from {doses[0]:g}): "
                    "none is left to choose from."
                )
            doses = doses[doses <= max_dose]
        outside = known.outside(doses)
        if outside.any():
            warnings.warn(
                f"{int(outside.sum()):,} of {len(doses):,} doses lie outside the training doses "
                f"({known.low:g} to {known.high:g}): there the curve is extrapolated. See the "
                "column 'extrapolated'.",
                DataWarning,
                stacklevel=4,
            )
        return doses

    def _target(self, target: tuple[float, float]) -> tuple[float, float]:
        low, high = (float(end) for end in target)
        if not low < high:
            raise DataError(f"target must be a range (low, high) with low < high, got {target}.")
        if self.model.outcome_transform == "log":
            with np.errstate(divide="ignore"):
                low, high = np.log(np.maximum([low, high], 0.0))
        return low, high

    def _outcome(self, values: Array) -> Array:
        return np.asarray(np.exp(values) if self.model.outcome_transform == "log" else values)


def _checked(confidence_level: float) -> float:
    if not 0.0 < confidence_level < 1.0:
        raise DataError(
            f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
        )
    return confidence_level
