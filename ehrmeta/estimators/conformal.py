"""Intervals that hold for new patients: split-conformal calibration over held-out patients."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator

from ehrmeta.data import first_k, random_k
from ehrmeta.errors import AtypicalWarning, DataError, GroupError, NotFittedError
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.conformal_adapted import ConformalAdapted
from ehrmeta.estimators.conformal_cells import ANY, Cell, levels_of
from ehrmeta.estimators.conformal_limits import Limits
from ehrmeta.estimators.predictive import Predictive

__all__ = ["ConformalRegressor"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class ConformalRegressor(BaseEstimator):
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
    >>> model = MetaRegressor(max_steps=50, random_state=0)
    >>> model = model.fit(X[train], y[train], groups=groups[train])
    >>> conformal = ConformalRegressor(model, shots=(5,))
    >>> conformal = conformal.calibrate(X[held_out], y[held_out], groups=groups[held_out])
    >>> patient = conformal.adapt(X[new][:5], y[new][:5])
    >>> patient.predict_interval(X[new][5:], confidence_level=0.9).shape
    (5, 2)
    """

    def __init__(
        self,
        model: TaskRegressor,
        *,
        shots: Sequence[int] = tuple(range(11)),
        by: Mapping[str, Sequence[float]] | Sequence[str] | None = None,
    ) -> None:
        self.model = model
        self.shots = shots
        self.by = by

    def calibrate(
        self, X: Any, y: Any, *, groups: Any, time: Any = None, outcome_time: Any = None
    ) -> Self:
        """Learn how far predictions are off, on patients that the model was not fitted on.

        Each is adapted from its first k rows (random ones without time), for every k of `shots`,
        and judged on its later ones.

        Parameters
        ----------
        X, y, groups, time
            The rows of calibration patients, as in ``model.fit``.
        outcome_time : (row,), optional
            When each outcome became known, on the clock of `time`: no query row is earlier.

        Raises
        ------
        DataError
            The model is no regressor over tasks, a column of `by` cannot be used, or no patient has
            rows after its support.
        """
        if not isinstance(self.model, TaskRegressor):
            raise DataError(
                f"a {type(self.model).__name__} has no intervals to calibrate. Pass a fitted "
                "MetaRegressor, or a baseline that predicts numbers."
            )
        self.model._check_is_fitted()
        inputs = self.model._read_fitted(X, y, groups, time)
        outcome, tasks = inputs.outcome(), inputs.tasks()
        if inputs.groups is None:
            raise GroupError("calibrate needs groups=: the patient of every row.")
        level = levels_of(inputs.columns, self._by())
        found = []
        for k in self.shots:
            if inputs.time is None:
                support, query = random_k(tasks, k, random_state=0)
            else:
                support, query = first_k(tasks, k, time=inputs.time, outcome_time=outcome_time)
            if query.any():
                rows = self.model._rows_at(X, inputs, query)
                shown = self.model._rows_at(X, inputs, support) | {"y": outcome[support]}
                error = _standardised(self._predicted(shown, rows), outcome[query])
                columns = {"error": error, "task": tasks.codes[query], "level": level[query]}
                found.append(pd.DataFrame(columns).assign(shots=k))
        if not found:
            raise DataError(
                f"none of {tasks.n_tasks:,} calibration tasks has a row to predict after a support "
                f"of {min(self.shots, default=0)}. Lower shots, or pass tasks with more rows."
            )
        self.limits_ = _limits(pd.concat(found, ignore_index=True))
        return self

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> ConformalAdapted:
        """Adapt the model to new patients, as `MetaRegressor.adapt` does."""
        self._check_is_calibrated()
        return self._with_limits(self.model.adapt(X, y, groups=groups, time=time))

    def unadapted(self) -> ConformalAdapted:
        """The population model, for patients without any row."""
        self._check_is_calibrated()
        return self._with_limits(self.model.unadapted())

    def predict(self, X: Any, *, time: Any = None) -> npt.NDArray[Any]:
        """Population prediction, that of the model."""
        return self.model.predict(X, time=time)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "limits_")

    def _with_limits(self, adapted: Adapted) -> ConformalAdapted:
        return ConformalAdapted(adapted, self.limits_, self._by())

    def _by(self) -> dict[str, tuple[float, ...]]:
        if isinstance(self.by, Mapping):
            return {name: tuple(cuts) for name, cuts in self.by.items()}
        return dict.fromkeys(self.by or (), ())

    def _predicted(self, support: dict[str, Any], query: dict[str, Any]) -> Predictive:
        with warnings.catch_warnings():  # among many patients some are atypical by chance
            warnings.simplefilter("ignore", AtypicalWarning)
            if len(support["y"]):
                found = self.model.adapt(**support).predict_distribution(**query)
            else:
                query = {"X": query["X"], "time": query["time"]}
                found = self.model.unadapted().predict_distribution(**query)
        if not isinstance(found, Predictive):
            raise DataError(f"a {type(self.model).__name__} predicts no numbers to calibrate.")
        return found

    def _check_is_calibrated(self) -> None:
        if not hasattr(self, "limits_"):
            raise NotFittedError(
                "This ConformalRegressor is not calibrated yet. Call 'calibrate' with patients "
                "that the model was not fitted on."
            )


def _standardised(predicted: Predictive, y: Array) -> Array:
    scale = 1.0 if predicted.scale is None else predicted.scale
    return np.asarray((predicted.outcome.forward(y) - predicted.loc) / scale)


def _limits(errors: pd.DataFrame) -> dict[Cell, Limits]:
    """Of every kind of row at each k, of all rows at each k, and of all rows."""

    def of(rows: pd.DataFrame) -> Limits:
        return Limits.of(rows["error"].to_numpy(), rows["task"].to_numpy())

    limits = {ANY: of(errors)}
    for k, rows in errors.groupby("shots"):
        limits[(int(k), None)] = of(rows)
    for (k, level), rows in errors.groupby(["shots", "level"]):
        limits[(int(k), str(level))] = of(rows)
    return limits
