"""Intervals and sets of classes that hold for new patients, by split-conformal calibration."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from torch import Tensor

from ehrmeta.errors import BundleError, DataError, GroupError, NotFittedError, Remedy
from ehrmeta.estimators._base import TaskClassifier, TaskEstimator, TaskRegressor
from ehrmeta.estimators.classifier import MetaClassifier
from ehrmeta.estimators.conformal_adapted import ConformalAdapted, ConformalClassAdapted
from ehrmeta.estimators.conformal_limits import (
    ANY,
    BetaCalibration,
    Calibration,
    Cell,
    Limits,
    by_cell,
    levels_of,
)
from ehrmeta.estimators.files import Json, Saved, State
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits
from ehrmeta.estimators.meta_estimator import MetaEstimator
from ehrmeta.estimators.predictions import ClassPredictive, Prediction, Predictive
from ehrmeta.estimators.regressor import MetaRegressor

Array = npt.NDArray[np.float64]
AllLimits: TypeAlias = dict[Cell, tuple[Limits, ...]]
AllMaps: TypeAlias = dict[Cell, tuple[BetaCalibration, ...]]
Result = TypeVar("Result", bound=ConformalAdapted)
_FEWEST = 20  # patients with rows of a class, and of the others, for a calibration of their own


class ConformalEstimator(Saved, BaseEstimator, ABC, Generic[Result]):
    """A fitted model and what was learned of its errors on patients it has not seen.

    Subclasses say what is kept of every predicted row (`_columns`) and what is learned of all of
    them (`_learn`).
    """

    file_kind: ClassVar[str] = "calibrated"
    calibration_: Calibration
    _adapted: type[Result]
    _saved_model: ClassVar[type[MetaEstimator]]

    def __init__(
        self,
        model: TaskEstimator,
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
            The model is of another kind, a column of `by` cannot be used, or no patient has rows
            after its support.
        """
        self._check_model()
        if not isinstance(self.shots, Sequence | np.ndarray) or not len(self.shots):
            raise DataError(f"shots must list one support size or more, got {self.shots!r}.")
        inputs = self.model.fitted_model().read(X, y, groups=groups, time=time)
        outcome, tasks = inputs.outcome(), inputs.tasks()
        if inputs.groups is None:
            raise GroupError("calibrate needs groups=: the patient of every row.")
        by = self._cuts()
        level, parts = levels_of(inputs.columns, by), []
        for k, support, query in k_shot_splits(inputs, self.shots, outcome_time=outcome_time):
            adapted, rows = adapt_to_rows(self.model, X, inputs, support, query)
            columns = self._columns(adapted.predict_distribution(**rows), outcome[query])
            columns |= {"task": tasks.codes[query], "level": level[query]}
            parts.append(pd.DataFrame(columns).assign(shots=k))
        if not parts:
            raise DataError(
                f"none of {tasks.n_tasks:,} calibration tasks has a row to predict after a support "
                f"of {min(self.shots)}. Lower shots, or pass tasks with more rows."
            )
        limits, maps = self._learn(pd.concat(parts, ignore_index=True))
        self.calibration_ = Calibration(limits, by, maps)
        return self

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Result:
        """Adapt the model to new patients, as ``model.adapt`` does."""
        self._check_is_calibrated()
        model = self.model.fitted_model()
        labels, support = model.read_support(X, y, groups=groups, time=time)
        return self._adapted(model, labels, support, limits=self.calibration_)

    def unadapted(self) -> Result:
        """The population model, for patients without any row."""
        self._check_is_calibrated()
        model = self.model.fitted_model()
        return self._adapted(model, None, model.no_rows(), limits=self.calibration_)

    def predict(self, X: Any, *, time: Any = None) -> npt.NDArray[Any]:
        """Population prediction, that of the model."""
        return self.model.predict(X, time=time)

    def to_state(self) -> State:
        """The model, and the standardised errors of the calibration rows in order of their size.

        No row or id goes with them (of classifiers they are the probabilities given to the true
        class), and those kinds of `by` are named that ten patients or more are of.
        """
        self._check_is_calibrated()
        savable = self.model if isinstance(self.model, MetaEstimator) else self.model.fitted_model()
        tensors, metadata = savable.to_state()
        arrays, calibration = self.calibration_.to_state()
        metadata |= {"kind": self.file_kind, "class": type(self).__name__}
        metadata |= {"shots": [int(k) for k in self.shots]}
        return tensors | arrays, metadata | calibration

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Json, device: str = "auto"
    ) -> Self:
        """The inverse of `to_state`."""
        if metadata["class"] != cls.__name__:
            raise BundleError(
                f"it holds no {cls.__name__}, but another model.",
                Remedy("pass-a-model", f"Open it with {metadata['class']}.load."),
            )
        model = cls._saved_model.from_state(tensors, metadata, device)
        calibration = Calibration.from_state(tensors, metadata)
        conformal = cls(model, shots=tuple(metadata["shots"]), by=calibration.by or None)
        conformal.calibration_ = calibration
        return conformal

    @abstractmethod
    def _check_model(self) -> None:
        """Refuse models of another kind of outcome."""

    @abstractmethod
    def _columns(self, predicted: Prediction, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """What is kept of every predicted row, (row,) each."""

    @abstractmethod
    def _learn(self, rows: pd.DataFrame) -> tuple[AllLimits, AllMaps]:
        """Limits and maps; columns are those kept, and task, level and shots."""

    def _cuts(self) -> dict[str, tuple[float, ...]]:
        """Columns of `by`, and where each is cut."""
        if isinstance(self.by, Mapping):
            return {name: tuple(cuts) for name, cuts in self.by.items()}
        return dict.fromkeys([self.by] if isinstance(self.by, str) else self.by or (), ())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "calibration_")

    def _check_is_calibrated(self) -> None:
        if not hasattr(self, "calibration_"):
            raise NotFittedError(
                f"This {type(self).__name__} is not calibrated yet. Call 'calibrate' with patients "
                "that the model was not fitted on."
            )


class ConformalRegressor(ConformalEstimator[ConformalAdapted]):
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

    _adapted = ConformalAdapted
    _saved_model = MetaRegressor

    @property
    def limits_(self) -> dict[Cell, Limits]:
        """By (shots, level): of every kind of row, of all rows at each k, and of all."""
        return {cell: limits for cell, (limits,) in self.calibration_.limits.items()}

    def _check_model(self) -> None:
        if not isinstance(self.model, TaskRegressor):
            raise DataError(
                f"a {type(self.model).__name__} has no intervals to calibrate. Pass a fitted "
                "MetaRegressor, or a baseline that predicts numbers."
            )

    def _columns(self, predicted: Prediction, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(predicted, Predictive):
            raise DataError(f"a {type(self.model).__name__} predicts no numbers to calibrate.")
        scale = 1.0 if predicted.scale is None else predicted.scale
        return {"error": (predicted.outcome.forward(y) - predicted.loc) / scale}

    def _learn(self, rows: pd.DataFrame) -> tuple[AllLimits, AllMaps]:
        return by_cell(rows, lambda part: (_limits(part, "error"),)), {}


def _limits(rows: pd.DataFrame, column: str) -> Limits:
    return Limits.of(rows[column].to_numpy(), rows["task"].to_numpy())


class ConformalClassifier(ConformalEstimator[ConformalClassAdapted]):
    """A fitted classifier whose sets of classes and probabilities are calibrated on new patients.

    The set of classes for a row holds its true class with at least the probability asked for, by
    itself for the rows of every class: events are missed no more often than non-events, however
    rare they are. It does so for a random row of a new patient who has rows of that class, whatever
    the model is worth, as long as calibration patients and new ones are drawn from the same
    population; and for every support size k by itself and, with `by`, every kind of row. Where the
    model cannot tell, the set holds both classes.

    Probabilities are recalibrated at every k by a map of three parameters for each class (beta
    calibration), patients weighing the same; classes that are predicted may change with it.

    Parameters
    ----------
    model : fitted classifier over tasks
        A `MetaClassifier` or a baseline. It is neither changed nor fitted again.
    shots, by
        As in `ConformalRegressor`. Each kind needs enough patients with each class: 9 at 90 %,
        better 100.

    Examples
    --------
    >>> from ehrmeta import ConformalClassifier, MetaClassifier, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=120, n_points=10, random_state=0)
    >>> train, held_out, new = groups < 50, (groups >= 50) & (groups < 110), groups == 115
    >>> model = MetaClassifier(max_steps=5, random_state=0)
    >>> model = model.fit(X[train], y[train] > 0, groups=groups[train])
    >>> conformal = ConformalClassifier(model, shots=(5,))
    >>> conformal = conformal.calibrate(X[held_out], y[held_out] > 0, groups=groups[held_out])
    >>> patient = conformal.adapt(X[new][:5], y[new][:5] > 0)
    >>> patient.predict_set(X[new][5:], confidence_level=0.9).shape
    (5, 2)
    """

    _adapted = ConformalClassAdapted
    _saved_model = MetaClassifier

    @property
    def limits_(self) -> Mapping[Cell, tuple[Limits, ...]]:
        """By (shots, level): of the probability that rows of every class were given."""
        return self.calibration_.limits

    @property
    def recalibration_(self) -> Mapping[Cell, tuple[BetaCalibration, ...]]:
        """By (shots, None): for every class, at each k with enough patients and of all rows.

        Empty where even these are too few; probabilities then stay as they are.
        """
        return self.calibration_.maps

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Class labels: the columns of sets and probabilities."""
        labels: npt.NDArray[Any] = self.model.fitted_model().table.outcome.labels
        return labels

    def _check_model(self) -> None:
        if not isinstance(self.model, TaskClassifier):
            raise DataError(
                f"a {type(self.model).__name__} has no classes to calibrate. Pass a fitted "
                "MetaClassifier, or a baseline that predicts classes."
            )

    def _columns(self, predicted: Prediction, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(predicted, ClassPredictive):
            raise DataError(f"a {type(self.model).__name__} predicts no classes to calibrate.")
        columns = {f"p{c}": p for c, p in enumerate(predicted.probabilities().T)}
        labels = self.model.fitted_model().table.outcome.forward(y)
        return columns | {"label": labels.astype(np.int64)}

    def _learn(self, rows: pd.DataFrame) -> tuple[AllLimits, AllMaps]:
        n_classes = len(self.classes_)

        def limits(part: pd.DataFrame) -> tuple[Limits, ...]:
            return tuple(_limits(part[part["label"] == c], f"p{c}") for c in range(n_classes))

        return by_cell(rows, limits), _recalibration(rows, n_classes)


def _recalibration(rows: pd.DataFrame, n_classes: int) -> AllMaps:
    """For all rows and for each k, where there are enough patients with every class."""
    parts: dict[Cell, pd.DataFrame] = {ANY: rows}
    parts |= {(int(k), None): part for k, part in rows.groupby("shots")}
    maps = {}
    for cell, part in parts.items():
        of_class = [part["label"] == c for c in range(n_classes)]
        fewest = min(part.loc[mask, "task"].nunique() for c in of_class for mask in (c, ~c))
        if fewest < _FEWEST:
            continue
        counts = part.groupby(["shots", "task"])["label"].transform("size")
        weight = (1.0 / counts).to_numpy()
        maps[cell] = tuple(
            BetaCalibration.of(part[f"p{c}"].to_numpy(), is_class.to_numpy(), weight)
            for c, is_class in enumerate(of_class)
        )
    return maps
