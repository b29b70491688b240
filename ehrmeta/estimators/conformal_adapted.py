"""Adapted tasks with calibrated intervals, prediction sets and probabilities."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ehrmeta.data.columns import level_names
from ehrmeta.estimators.adapted import Adapted, NewGroups
from ehrmeta.estimators.conformal_limits import Calibration, Cell
from ehrmeta.estimators.files import Json, State, check_class
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.predictions import (
    ClassPredictive,
    Prediction,
    Predictive,
    class_columns,
    number_columns,
)
from ehrmeta.estimators.task_model import Labels
from ehrmeta.nn.batch import TaskRows

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Calibrated(Prediction):
    """Predictions of a model, with the calibration cell (shots and subgroup) of each row."""

    model: Any
    limits: Calibration
    cells: list[Cell]  # of every row

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """The rows at an index, in that order."""
        cells = [self.cells[row] for row in index]
        return type(self)(self.model.take(index), self.limits, cells)


class _CalibratedPredictive(_Calibrated):
    """Predictions of numbers with calibrated quantiles and intervals."""

    model: Predictive

    def point(self) -> npt.NDArray[Any]:
        """Mean of the model, without calibration."""
        return self.model.point()

    def quantile(self, level: float) -> Array:
        """Calibrated quantile, (row,): a one-sided conformal limit."""
        confidence_level = max(level, 1.0 - level)
        chosen = self.limits.chosen(self.cells, confidence_level, sides=1)
        error = {
            cell: limits.upper(level) if level > 0.5 else limits.lower(1.0 - level)
            for cell, (limits,) in chosen.items()
        }
        return self._at(np.array([[error[cell]] for cell in self.cells]).reshape(-1, 1))[:, 0]

    def interval(self, confidence_level: float) -> Array:
        """Calibrated central interval, (row, 2): lower and upper limit."""
        chosen = self.limits.chosen(self.cells, confidence_level)
        error = {cell: limits.at(confidence_level) for cell, (limits,) in chosen.items()}
        return self._at(np.array([error[cell] for cell in self.cells]).reshape(-1, 2))

    def columns(self, confidence_level: float) -> dict[str, npt.NDArray[Any]]:
        """Mean of the model, and calibrated interval."""
        return number_columns(self.point(), self.interval(confidence_level))

    def _at(self, error: Array) -> Array:
        """Outcomes at standardised errors, (row, error)."""
        scale = 1.0 if self.model.scale is None else self.model.scale[:, None]
        return self.model.outcome.inverse(self.model.loc[:, None] + scale * error)


class _CalibratedClasses(_Calibrated):
    """Recalibrated class probabilities and calibrated prediction sets."""

    model: ClassPredictive

    def point(self) -> npt.NDArray[Any]:
        """The class of the highest recalibrated probability."""
        likeliest: npt.NDArray[Any] = self.model.labels[self.probabilities().argmax(1)]
        return likeliest

    def probabilities(self) -> Array:
        """Recalibrated probability of every class, (row, class)."""
        return self.limits.recalibrated(self.model.probabilities(), self.cells)

    def columns(self, confidence_level: float) -> dict[str, npt.NDArray[Any]]:
        """Recalibrated classes and risks, and membership of each class in the prediction set."""
        names = level_names(self.model.labels)
        sets = zip(names, self.members(confidence_level).T, strict=True)
        return class_columns(self, self.model.labels) | {f"in_set_{name}": of for name, of in sets}

    def members(self, confidence_level: float) -> npt.NDArray[np.bool_]:
        """Prediction sets as masks, (row, class)."""
        chosen = self.limits.chosen(self.cells, confidence_level, sides=1)
        least = {
            cell: [limits.lower(confidence_level) for limits in each]
            for cell, each in chosen.items()
        }
        p = self.model.probabilities()
        return np.asarray(p >= np.reshape([least[cell] for cell in self.cells], p.shape))


class ConformalAdapted(Adapted):
    """Adapted tasks with calibrated intervals and quantiles, from ``ConformalRegressor.adapt``.

    Has all methods of `Adapted`. Intervals use the limits for the row's support size and subgroup.
    If those are missing or come from too few tasks, the limits for the support size are used, or
    else those for all rows; a `DataWarning` counts such rows. Means, `predict_distribution` and
    explanations are those of the model.

    Parameters
    ----------
    model, labels, support, transform, state
        As in `Adapted`.
    limits : Calibration
        Fitted on calibration tasks.
    """

    file_kind: ClassVar[str] = "calibrated adapted"
    _calibrate: ClassVar[Callable[..., Prediction]] = _CalibratedPredictive

    def __init__(self, *adapted: Any, limits: Calibration, **state: Any) -> None:
        super().__init__(*adapted, **state)
        self.limits = limits

    @property
    def adapted(self) -> Adapted:
        """The same adapted tasks without calibration."""
        return Adapted(self.model, self.labels_, self._support, self.transform, state=self._state)

    def to_state(self) -> State:
        """Model, encoded support, labels and calibration; the file is marked as patient data."""
        tensors, metadata = super().to_state()
        arrays, calibration = self.limits.to_state()
        metadata |= {"kind": self.file_kind, "class": type(self).__name__}
        return tensors | arrays, metadata | calibration

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto", **more: Any
    ) -> Self:
        """The inverse of `to_state`."""
        check_class(metadata["class"], cls)
        limits = Calibration.from_state(tensors, metadata)
        return super().from_state(tensors, metadata, device, limits=limits)

    def with_support(self, labels: Labels, support: TaskRows) -> Self:
        """Adapt the same model to another support, with the same calibration."""
        return type(self)(self.model, labels, support, self.transform, limits=self.limits)

    def _calibrated(
        self, prediction: Prediction, inputs: Inputs, n_shots: npt.NDArray[np.int64]
    ) -> Prediction:
        cells = self.limits.cells(inputs.columns, n_shots)
        return self._calibrate(prediction, self.limits, cells)


class ConformalClassAdapted(ConformalAdapted):
    """Adapted tasks with calibrated classes, from ``ConformalClassifier.adapt``.

    Has all methods of `Adapted`. Classes and probabilities are recalibrated; explanations are for
    the model's own probability.

    Parameters
    ----------
    model, labels, support, transform, state, limits
        As in `ConformalAdapted`.
    """

    _calibrate: ClassVar[Callable[..., Prediction]] = _CalibratedClasses

    def predict_set(
        self,
        X: Any,
        *,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.9,
        new_groups: NewGroups = "error",
    ) -> npt.NDArray[Any]:
        """Prediction sets as masks, (row, class).

        A set with both classes means that the model cannot distinguish them. An empty set means
        that the row is unlike the calibration rows of either class. If there are too few
        calibration tasks, limits are chosen as in `ConformalAdapted`.

        Parameters
        ----------
        X, groups, time, new_groups
            As in `Adapted.predict`.
        confidence_level : float, default 0.9
            Share of the rows of each class whose set contains the class.

        Raises
        ------
        DataError
            Too few calibration tasks have rows of a class for this level.
        """

        def members(prediction: Any) -> npt.NDArray[Any]:
            return np.asarray(prediction.members(confidence_level))

        return self._apply(X, groups, time, new_groups, members)
