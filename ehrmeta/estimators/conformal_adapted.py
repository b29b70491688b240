"""Adapted patients whose intervals, or sets of classes and probabilities, are calibrated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ehrmeta.errors import BundleError, Remedy
from ehrmeta.estimators.adapted import Adapted, NewGroups
from ehrmeta.estimators.conformal_limits import Calibration, Cell
from ehrmeta.estimators.files import Json, State
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.predictions import ClassPredictive, Prediction, Predictive
from ehrmeta.estimators.task_model import Labels, TaskModel
from ehrmeta.nn.batch import TaskRows

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Calibrated(Prediction):
    """A model's predictions, and the calibration of each one's cell."""

    model: Any
    limits: Calibration
    cells: list[Cell]  # of every row

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """Some rows, in the order given."""
        cells = [self.cells[row] for row in index]
        return type(self)(self.model.take(index), self.limits, cells)


class _CalibratedPredictive(_Calibrated):
    """Predictive distributions of numbers whose quantiles and intervals are calibrated."""

    model: Predictive

    def point(self) -> npt.NDArray[Any]:
        """The model's own mean."""
        return self.model.point()

    def quantile(self, level: float) -> Array:
        """One end of the central interval that cuts off as much on each side, (row,)."""
        confidence_level = max(level, 1.0 - level)
        chosen = self.limits.chosen(self.cells, confidence_level, sides=1)
        error = {
            cell: limits.upper(level) if level > 0.5 else limits.lower(1.0 - level)
            for cell, (limits,) in chosen.items()
        }
        return self._at(np.array([[error[cell]] for cell in self.cells]).reshape(-1, 1))[:, 0]

    def interval(self, confidence_level: float) -> Array:
        """Central interval, (row, 2): lower and upper end."""
        chosen = self.limits.chosen(self.cells, confidence_level)
        error = {cell: limits.at(confidence_level) for cell, (limits,) in chosen.items()}
        return self._at(np.array([error[cell] for cell in self.cells]).reshape(-1, 2))

    def _at(self, error: Array) -> Array:
        """Outcomes at standardised errors, (row, error)."""
        scale = 1.0 if self.model.scale is None else self.model.scale[:, None]
        return self.model.outcome.inverse(self.model.loc[:, None] + scale * error)


class _CalibratedClasses(_Calibrated):
    """Class probabilities that are recalibrated, and calibrated sets of classes."""

    model: ClassPredictive

    def point(self) -> npt.NDArray[Any]:
        """The likeliest class by the recalibrated probabilities."""
        likeliest: npt.NDArray[Any] = self.model.labels[self.probabilities().argmax(1)]
        return likeliest

    def probabilities(self) -> Array:
        """Recalibrated probability of every class, (row, class)."""
        return self.limits.recalibrated(self.model.probabilities(), self.cells)

    def members(self, confidence_level: float) -> npt.NDArray[np.bool_]:
        """Which classes the set of every row holds, (row, class)."""
        chosen = self.limits.chosen(self.cells, confidence_level, sides=1)
        least = {
            cell: [limits.lower(confidence_level) for limits in each]
            for cell, each in chosen.items()
        }
        p = self.model.probabilities()
        members: npt.NDArray[np.bool_] = p >= np.reshape(
            [least[cell] for cell in self.cells], p.shape
        )
        return members


class ConformalAdapted(Adapted):
    """Adapted tasks whose intervals and quantiles are calibrated: ``ConformalRegressor.adapt``.

    It does all that `Adapted` does. The interval of a row has the limits of its task's support size
    and of its kind. Where that was not calibrated, or on too few tasks for the level, it has those
    of all rows of that size, and then those of all rows; a `DataWarning` says how many. Means are
    the model's own, and so are `predict_distribution` and the explanations.

    Parameters
    ----------
    model, labels, support, transform, state
        As in `Adapted`.
    limits : Calibration
        What was learned on calibration tasks.
    """

    file_kind: ClassVar[str] = "calibrated adapted"
    _calibrate: ClassVar[Callable[..., Prediction]] = _CalibratedPredictive

    def __init__(
        self,
        model: TaskModel,
        labels: Labels,
        support: TaskRows,
        transform: Callable[[Any], Any] | None = None,
        *,
        state: Any = None,
        limits: Calibration,
    ) -> None:
        super().__init__(model, labels, support, transform, state=state)
        self.limits = limits

    @property
    def adapted(self) -> Adapted:
        """The same tasks without calibration."""
        return Adapted(self.model, self.labels_, self._support, self.transform, state=self._state)

    def to_state(self) -> State:
        """Model, encoded support rows, labels and calibration: patient data, marked so within."""
        tensors, metadata = super().to_state()
        arrays, calibration = self.limits.to_state()
        metadata |= {"kind": self.file_kind, "class": type(self).__name__}
        return tensors | arrays, metadata | calibration

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto", **more: Any
    ) -> Self:
        """The inverse of `to_state`."""
        if metadata["class"] != cls.__name__:
            name = metadata["class"]
            raise BundleError(
                f"it holds a {name}.", Remedy("pass-a-model", f"Open it with {name}.load.")
            )
        limits = Calibration.from_state(tensors, metadata)
        return super().from_state(tensors, metadata, device, limits=limits)

    def _with_support(self, labels: Labels, support: TaskRows) -> Self:
        return type(self)(self.model, labels, support, self.transform, limits=self.limits)

    def _calibrated(
        self, prediction: Prediction, inputs: Inputs, n_shots: npt.NDArray[np.int64]
    ) -> Prediction:
        cells = self.limits.cells(inputs.columns, n_shots)
        return self._calibrate(prediction, self.limits, cells)


class ConformalClassAdapted(ConformalAdapted):
    """Adapted tasks with calibrated classes: ``ConformalClassifier.adapt``.

    It does all that `Adapted` does. Classes and probabilities are recalibrated; what is explained
    is the model's own probability.

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
        """Which classes a row's set holds, (row, class).

        A set of both classes says that the model cannot tell; an empty one that the row is unlike
        those of either class. Where a task's support size or kind was not calibrated, or on too few
        tasks with a class, the limits are those of more rows; a `DataWarning` says so.

        Parameters
        ----------
        X, groups, time, new_groups
            As in `Adapted.predict`.
        confidence_level : float, default 0.9
            Of the rows of each class, this share has its class in the set.

        Raises
        ------
        DataError
            All calibration tasks with rows of some class are too few for the level.
        """

        def members(prediction: Any) -> npt.NDArray[Any]:
            return np.asarray(prediction.members(confidence_level))

        return self._apply(X, groups, time, new_groups, members)
