"""Intervals that hold for new patients: split-conformal calibration over held-out patients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.conformal_adapted import ConformalAdapted
from ehrmeta.estimators.conformal_base import ConformalEstimator
from ehrmeta.estimators.conformal_limits import BetaCalibration, Cell, Limits, by_cell
from ehrmeta.estimators.predictive import Prediction, Predictive

__all__ = ["ConformalRegressor"]

Array = npt.NDArray[np.float64]


class ConformalRegressor(ConformalEstimator):
    """A fitted regressor with intervals that are calibrated on patients it has not seen.

    A model's own intervals are as good as its assumptions: normal errors, the same spread in women
    and in men. Here the errors made on held-out patients say how wide an interval must be. It then
    holds the outcome of a random later visit of a new patient with at least the probability asked
    for, whatever the distribution, as long as calibration patients and new ones are exchangeable:
    drawn from the same population. This is so for every support size k by itself and, with `by`,
    for every kind of row by itself. It is no promise for a single patient, nor for another
    hospital.

    Errors are standardised by the model's own predictive standard deviation (models without one
    have intervals of one width for each k), and each side is calibrated by itself, so that skewed
    outcomes have skewed intervals.

    Parameters
    ----------
    model : fitted regressor over tasks
        A `MetaRegressor` or a baseline. It is neither changed nor fitted again.
    shots : sequence of int
        Support sizes to calibrate, each by itself. Patients with another number of support rows
        get the limits of all sizes together, with a warning.
    by : mapping of str to sequence of float, or sequence of str, optional
        Columns of X whose kinds of rows are calibrated each by itself, and for numbers where to
        cut: ``{"male": (), "age": (45, 60)}``. A sequence of names makes no cuts. Choose cuts ahead
        of calibration. Every kind needs enough patients: about 20 at 90 %, better 200.

    Attributes
    ----------
    limits_ : dict of (shots, level) to Limits
        Of every kind of row, of all rows at each k, and of all.

    Examples
    --------
    >>> from ehrmeta import ConformalRegressor, MetaRegressor, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=120, n_points=10, random_state=0)
    >>> train, held_out, new = groups < 50, (groups >= 50) & (groups < 110), groups == 115
    >>> model = MetaRegressor(max_steps=5, random_state=0)
    >>> model = model.fit(X[train], y[train], groups=groups[train])
    >>> conformal = ConformalRegressor(model, shots=(5,))
    >>> conformal = conformal.calibrate(X[held_out], y[held_out], groups=groups[held_out])
    >>> patient = conformal.adapt(X[new][:5], y[new][:5])
    >>> patient.predict_interval(X[new][5:], confidence_level=0.9).shape
    (5, 2)
    """

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> ConformalAdapted:
        """Adapt the model to new patients, as `MetaRegressor.adapt` does."""
        self._check_is_calibrated()
        return self._with_limits(self.model.adapt(X, y, groups=groups, time=time))

    def unadapted(self) -> ConformalAdapted:
        """The population model, for patients without any row."""
        self._check_is_calibrated()
        return self._with_limits(self.model.unadapted())

    def _check_model(self) -> None:
        if not isinstance(self.model, TaskRegressor):
            raise DataError(
                f"a {type(self.model).__name__} has no intervals to calibrate. Pass a fitted "
                "MetaRegressor, or a baseline that predicts numbers."
            )

    def _columns(self, predicted: Prediction, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(predicted, Predictive):
            raise DataError(f"a {type(self.model).__name__} predicts no numbers to calibrate.")
        return {"error": _standardised(predicted, y)}

    def _learn(self, rows: pd.DataFrame) -> None:
        def of(part: pd.DataFrame) -> Limits:
            return Limits.of(part["error"].to_numpy(), part["task"].to_numpy())

        self.limits_ = by_cell(rows, of)

    def _restore(
        self,
        limits: dict[Cell, tuple[Limits, ...]],
        maps: dict[Cell, tuple[BetaCalibration, ...]],
    ) -> None:
        self.limits_ = {cell: one for cell, (one,) in limits.items()}

    def _with_limits(self, adapted: Adapted) -> ConformalAdapted:
        return ConformalAdapted(adapted, self.limits_, self._by())


def _standardised(predicted: Predictive, y: Array) -> Array:
    scale = 1.0 if predicted.scale is None else predicted.scale
    return np.asarray((predicted.outcome.forward(y) - predicted.loc) / scale)
