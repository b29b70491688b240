"""Adapted patients whose sets of classes and probabilities are calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.adapted_checks import refuse_new
from ehrmeta.estimators.conformal_limits import (
    ANY,
    BetaCalibration,
    Cell,
    Limits,
    finest,
    levels_of,
    tasks_needed,
    warn_of_coarse,
)

__all__ = ["ConformalClassAdapted"]

Array = npt.NDArray[np.float64]


class ConformalClassAdapted:
    """One or many patients adapted from their supports; made by ``ConformalClassifier.adapt``.

    Attributes
    ----------
    adapted : Adapted
        The same patients without calibration, for all else that it answers.
    classes_ : (class,)
        Columns of sets and probabilities.
    """

    def __init__(
        self,
        adapted: Adapted,
        limits: Mapping[Cell, tuple[Limits, ...]],
        recalibration: Mapping[Cell, tuple[BetaCalibration, ...]],
        by: Mapping[str, Sequence[float]],
    ) -> None:
        self.adapted = adapted
        self.classes_: npt.NDArray[Any] = adapted.model.table_.outcome.labels
        self._limits = limits
        self._recalibration = recalibration
        self._by = by

    def predict(self, X: Any, *, groups: Any = None, time: Any = None) -> npt.NDArray[Any]:
        """Likeliest class of every row, by the recalibrated probabilities."""
        p = self.predict_proba(X, groups=groups, time=time)
        likeliest: npt.NDArray[Any] = self.classes_[p.argmax(1)]
        return likeliest

    def predict_proba(self, X: Any, *, groups: Any = None, time: Any = None) -> Array:
        """Recalibrated probability of every class, (row, class); rows add up to 1."""
        p, shots, _ = self._predicted(X, groups, time)
        for k in set(shots.tolist()):
            cell = (k, None) if (k, None) in self._recalibration else ANY
            rows = shots == k
            for c, own in enumerate(self._recalibration.get(cell, ())):
                p[rows, c] = own.at(p[rows, c])
        return np.asarray(p / p.sum(1, keepdims=True))

    def predict_set(
        self, X: Any, *, groups: Any = None, time: Any = None, confidence_level: float = 0.9
    ) -> npt.NDArray[np.bool_]:
        """Which classes a row's set holds, (row, class).

        A set of both classes says that the model cannot tell; an empty one that the row is unlike
        those of either class. Where a patient's support size or kind was not calibrated, or on too
        few patients with a class, the limits are those of more rows; a `DataWarning` says so.

        Parameters
        ----------
        X, groups, time
            As in `Adapted.predict`.
        confidence_level : float
            Of the rows of each class, this share has its class in the set.

        Raises
        ------
        DataError
            All calibration patients with rows of some class are too few for the level.
        """
        needed = tasks_needed(confidence_level, sides=1)
        p, shots, levels = self._predicted(X, groups, time)
        held = np.zeros(p.shape, dtype=bool)
        coarse: dict[Cell, int] = {}
        here: dict[Cell, int] = {}
        for k, level in dict.fromkeys(zip(shots.tolist(), levels.tolist(), strict=True)):
            rows = (shots == k) & (levels == level)
            for c in range(p.shape[1]):
                limits = {cell: found[c] for cell, found in self._limits.items()}
                cell = finest(limits, (k, level), needed)
                held[rows, c] = p[rows, c] >= limits[cell].lower(confidence_level)
                if cell != (k, level):
                    coarse[(k, level)] = int(rows.sum())
                    tasks = limits[(k, level)].n_tasks if (k, level) in limits else 0
                    here[(k, level)] = min(here.get((k, level), tasks), tasks)
        if coarse:
            warn_of_coarse(coarse, here, self._by, confidence_level, needed)
        return held

    def update(
        self, X: Any, y: Any, *, groups: Any = None, time: Any = None
    ) -> ConformalClassAdapted:
        """The same patients with more rows in their supports, as `Adapted.update`."""
        updated = self.adapted.update(X, y, groups=groups, time=time)
        return ConformalClassAdapted(updated, self._limits, self._recalibration, self._by)

    def __repr__(self) -> str:
        return f"Conformal{self.adapted!r}"

    def _predicted(
        self, X: Any, groups: Any, time: Any
    ) -> tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.object_]]:
        """The model's probabilities, support size and kind of every row."""
        inputs, codes = self.adapted._read(X, groups, time)
        refuse_new(codes)
        p = self.adapted._summary(lambda prediction: prediction.probabilities(), inputs, codes)
        return p, self.adapted.n_shots_[codes], levels_of(inputs.columns, self._by)
