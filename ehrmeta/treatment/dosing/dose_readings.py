"""What the curves of adapted patients say of doses: bands, chances, and the dose to give."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ehrmeta.data import Schema, read_column
from ehrmeta.errors import DataError, DataWarning
from ehrmeta.treatment.arms import Array, Dose, Index
from ehrmeta.treatment.dosing.response_curve import Monotone
from ehrmeta.treatment.treated_rows import described

_N_DOSES = 100  # of a grid that is not given


class Curves(Protocol):
    """A posterior of dose-response curves, one a row."""

    def quantile(self, dose: Array, level: float) -> Array:
        """Quantile of the response to every dose, (row, dose)."""

    def chance(self, dose: Array, low: float, high: float) -> Array:
        """Probability that the response to every dose lies in a range, (row, dose)."""


class DoseReadings(ABC):
    """Readings of curves for a user's rows; `schema` has their units."""

    schema: Schema | None
    n_shots_: Index

    def __repr__(self) -> str:
        return f"{type(self).__name__}({described(self.n_shots_, 'patient')})"

    @abstractmethod
    def _curves(self, X: Any, groups: Any, time: Any, monotone: Monotone) -> Curves:
        """The curves at the rows' features."""

    @property
    @abstractmethod
    def _training_doses(self) -> Dose:
        """Their range."""

    @property
    @abstractmethod
    def _log_grid(self) -> bool:
        """Whether doses are spaced by ratios, so that 0 is none."""

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
        tail = 0.5 * (1.0 - checked_level(confidence_level))
        doses = self._grid(grid)
        curves = self._curves(X, groups, time, monotone)
        found = {
            name: curves.quantile(doses, level)
            for name, level in (("response", 0.5), ("low", tail), ("high", 1.0 - tail))
        }
        n_rows = len(found["response"])
        return pd.DataFrame(
            {
                "row": np.repeat(np.arange(n_rows), len(doses)),
                "dose": np.tile(doses, n_rows),
                **{name: values.ravel() for name, values in found.items()},
                "extrapolated": np.tile(self._training_doses.outside(doses), n_rows),
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
                "extrapolated": self._training_doses.outside(doses[best]),
            }
        )

    def _grid(self, grid: Any, max_dose: float | None = None) -> Array:
        """Doses to look at, with a warning where they lie outside the training doses."""
        known, log = self._training_doses, self._log_grid
        spaced = np.geomspace if log else np.linspace
        doses = (
            spaced(known.low, known.high, _N_DOSES)
            if grid is None
            else np.unique(read_column(grid, "grid"))
        )
        if doses.dtype.kind not in "biuf" or not len(doses) or not np.isfinite(doses).all():
            raise DataError("grid must hold doses: finite numbers, at least one.")
        doses = doses.astype(np.float64)
        if log and doses[0] <= 0:
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


def checked_level(confidence_level: float) -> float:
    """The level, refused outside of 0 to 1."""
    if not 0.0 < confidence_level < 1.0:
        raise DataError(
            f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
        )
    return confidence_level
