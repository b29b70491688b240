"""Adapted patients whose intervals are calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError
from ehrmeta.estimators.adapted import Adapted, NewGroups
from ehrmeta.estimators.adapted_checks import refuse_new
from ehrmeta.estimators.conformal_limits import (
    Cell,
    Limits,
    finest,
    levels_of,
    tasks_needed,
    warn_of_coarse,
)
from ehrmeta.estimators.predictive import Predictive

__all__ = ["ConformalAdapted"]

Array = npt.NDArray[np.float64]


class ConformalAdapted:
    """One or many patients adapted from their supports; made by ``ConformalRegressor.adapt``.

    Attributes
    ----------
    adapted : Adapted
        The same patients without calibration, for all else that it answers.
    """

    def __init__(
        self,
        adapted: Adapted,
        limits: Mapping[Cell, Limits],
        by: Mapping[str, Sequence[float]],
    ) -> None:
        self.adapted = adapted
        self._limits = limits
        self._by = by

    def predict(
        self, X: Any, *, groups: Any = None, time: Any = None, new_groups: NewGroups = "error"
    ) -> npt.NDArray[Any]:
        """Adapted prediction of every row, as `Adapted.predict`."""
        return self.adapted.predict(X, groups=groups, time=time, new_groups=new_groups)

    def predict_interval(
        self, X: Any, *, groups: Any = None, time: Any = None, confidence_level: float = 0.9
    ) -> Array:
        """Calibrated interval for a new observation, (row, 2): lower and upper end.

        A row is given the limits of its patient's support size and of its kind. Where that was not
        calibrated, or on too few patients for the level, it is given those of all rows of that
        size, and then those of all rows; a `DataWarning` says how many.

        Parameters
        ----------
        X, groups, time
            As in `predict`.
        confidence_level : float

        Raises
        ------
        DataError
            All calibration patients together are too few for the level.
        """
        needed = tasks_needed(confidence_level)
        inputs, codes = self.adapted._read(X, groups, time)
        refuse_new(codes)
        predicted = self.adapted._summary(lambda prediction: prediction, inputs, codes)
        if not isinstance(predicted, Predictive):
            raise DataError("classes have no intervals: use predict_proba.")
        shots, levels = self.adapted.n_shots_[codes], levels_of(inputs.columns, self._by)
        error = np.empty((inputs.n_rows, 2))
        coarse: dict[Cell, int] = {}
        for k, level in dict.fromkeys(zip(shots.tolist(), levels.tolist(), strict=True)):
            rows = (shots == k) & (levels == level)
            cell = finest(self._limits, (k, level), needed)
            error[rows] = self._limits[cell].at(confidence_level)
            if cell != (k, level):
                coarse[(k, level)] = int(rows.sum())
        if coarse:
            here = {
                cell: self._limits[cell].n_tasks if cell in self._limits else 0 for cell in coarse
            }
            warn_of_coarse(coarse, here, self._by, confidence_level, needed)
        scale = 1.0 if predicted.scale is None else predicted.scale[:, None]
        return predicted.outcome.inverse(predicted.loc[:, None] + scale * error)

    def update(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> ConformalAdapted:
        """The same patients with more rows in their supports, as `Adapted.update`."""
        updated = self.adapted.update(X, y, groups=groups, time=time)
        return ConformalAdapted(updated, self._limits, self._by)

    def __repr__(self) -> str:
        return f"Conformal{self.adapted!r}"
