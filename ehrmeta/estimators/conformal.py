"""Split-conformal calibration of intervals and prediction sets for new patients."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from torch import Tensor

from ehrmeta.errors import DataError, GroupError, NotFittedError
from ehrmeta.estimators._base import TaskClassifier, TaskEstimator, TaskRegressor
from ehrmeta.estimators.classifier import MetaClassifier
from ehrmeta.estimators.conformal_adapted import ConformalAdapted, ConformalClassAdapted
from ehrmeta.estimators.conformal_limits import (
    BetaCalibration,
    Calibration,
    Cell,
    Limits,
    by_cell,
    levels_of,
)
from ehrmeta.estimators.files import Json, Saved, State, check_class
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits, scoring_checks
from ehrmeta.estimators.meta_estimator import MetaEstimator
from ehrmeta.estimators.regressor import MetaRegressor
from ehrmeta.estimators.task_model import TaskModel

Array = npt.NDArray[np.float64]
AllLimits: TypeAlias = dict[Cell, tuple[Limits, ...]]
AllMaps: TypeAlias = dict[Cell, tuple[BetaCalibration, ...]]
Result = TypeVar("Result", bound=ConformalAdapted)
_FEWEST = 20  # patients needed with a class, and with another class, for a recalibration map


class ConformalEstimator(Saved, BaseEstimator, ABC, Generic[Result]):
    """Base of conformal estimators: a fitted model, calibrated on held-out patients.

    Subclasses define the nonconformity scores of predicted rows (`_columns`) and the calibration
    that is computed from them (`_learn`).
    """

    file_kind: ClassVar[str] = "calibrated"
    calibration_: Calibration
    _adapted: type[Result]
    _saved_model: ClassVar[type[MetaEstimator]]
    _model_type: ClassVar[type[TaskEstimator]]
    _outcomes: ClassVar[str]  # in error messages

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
        self,
        X: Any,
        y: Any,
        *,
        groups: Any,
        time: Any = None,
        outcome_time: Any = None,
        allow_training_table: bool = False,
    ) -> Self:
        """Calibrate on patients not used to fit the model.

        For every k in `shots`, the model is adapted to each patient's first k rows (without time,
        to k random rows) and scored on the patient's other rows.

        Parameters
        ----------
        X, y, groups, time
            The rows of calibration patients, as in ``model.fit``.
        outcome_time : (row,), optional
            Time at which each outcome became known, in the unit of `time`. Query rows are not
            earlier than the outcome times of the support rows.
        allow_training_table : bool
            Whether to calibrate on the table that the model was trained on. Its intervals are
            then too narrow for new patients.

        Raises
        ------
        DataError
            The model has another type of outcome or was trained on this table, a column of `by`
            cannot be used, or no patient has rows after the support.
        """
        if not isinstance(self.model, self._model_type):
            raise DataError(
                f"a {type(self.model).__name__} does not predict {self._outcomes}. Pass a fitted "
                f"{self._saved_model.__name__}, or a baseline that predicts {self._outcomes}."
            )
        if not isinstance(self.shots, Sequence | np.ndarray) or not len(self.shots):
            raise DataError(f"shots must be a sequence of support sizes, got {self.shots!r}.")
        inputs = self.model.fitted_model().read(X, y, groups=groups, time=time)
        outcome, tasks = inputs.outcome(), inputs.tasks()
        if inputs.groups is None:
            raise GroupError("calibrate needs groups=. Pass the patient of every row.")
        if isinstance(self.by, Mapping):
            by = {name: tuple(cuts) for name, cuts in self.by.items()}
        else:
            by = dict.fromkeys([self.by] if isinstance(self.by, str) else self.by or (), ())
        level, parts = levels_of(inputs.columns, by), []
        with scoring_checks([self.model], X, inputs, allow_training_table=allow_training_table):
            for k, support, query in k_shot_splits(inputs, self.shots, outcome_time=outcome_time):
                adapted, rows = adapt_to_rows(self.model, X, inputs, support, query)
                columns = self._columns(adapted.predict_distribution(**rows), outcome[query])
                columns |= {"task": tasks.codes[query], "level": level[query]}
                parts.append(pd.DataFrame(columns).assign(shots=k))
        if not parts:
            raise DataError(
                f"none of the {tasks.n_tasks:,} calibration tasks has a row to predict after a "
                f"support of {min(self.shots)} rows. Lower shots, or pass tasks with more rows."
            )
        limits, maps = self._learn(pd.concat(parts, ignore_index=True))
        self.calibration_ = Calibration(limits, by, maps)
        return self

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Result:
        """Adapt the model to new patients, as ``model.adapt`` does."""
        model = self._calibrated_model()
        labels, support = model.read_support(X, y, groups=groups, time=time)
        return self._adapted(model, labels, support, limits=self.calibration_)

    def unadapted(self) -> Result:
        """The population model, for patients without support rows."""
        model = self._calibrated_model()
        return self._adapted(model, None, model.no_rows(), limits=self.calibration_)

    def predict(self, X: Any, *, time: Any = None) -> npt.NDArray[Any]:
        """Population prediction of the model, without calibration."""
        return self.model.predict(X, time=time)

    def to_state(self) -> State:
        """The model and its limits, rounded outwards, at a few levels; no score of any row.

        Support sizes and subgroups of `by` with fewer than eleven patients have no limits of their
        own. If fewer were calibrated in all, or have a class, the file is marked as patient data.
        """
        fitted = self._calibrated_model()
        savable = self.model if isinstance(self.model, MetaEstimator) else fitted
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
        check_class(metadata["class"], cls)
        model = cls._saved_model.from_state(tensors, metadata, device)
        calibration = Calibration.from_state(tensors, metadata)
        conformal = cls(model, shots=tuple(metadata["shots"]), by=calibration.by or None)
        conformal.calibration_ = calibration
        return conformal

    @abstractmethod
    def _columns(self, predicted: Any, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Columns to store for the predicted rows, (row,) each."""

    @abstractmethod
    def _learn(self, rows: pd.DataFrame) -> tuple[AllLimits, AllMaps]:
        """Limits and recalibration maps, from the stored columns, task, level and shots."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "calibration_")

    def _calibrated_model(self) -> TaskModel:
        """The fitted model; raises `NotFittedError` before `calibrate`."""
        if not hasattr(self, "calibration_"):
            raise NotFittedError(
                f"this {type(self).__name__} is not calibrated yet. Call calibrate with patients "
                "not used to fit the model."
            )
        return self.model.fitted_model()


class ConformalRegressor(ConformalEstimator[ConformalAdapted]):
    """Conformal regressor: intervals of a fitted model, calibrated on held-out patients.

    A model's own intervals depend on its assumptions, such as normal errors with the same spread in
    women and men. Conformal intervals are as wide as the errors on held-out patients require. If
    calibration patients and new patients are exchangeable (drawn from the same population), the
    intervals cover the outcome of a random later visit of a new patient with at least the nominal
    probability, for any distribution. This holds separately for every support size k and, with
    `by`, for every subgroup, but not for a single patient or another hospital.

    Errors are standardised by the predictive standard deviation of the model. If it has none, the
    interval width depends only on k. The two sides are calibrated separately, so that skewed
    outcomes have asymmetric intervals. Limits are kept at about twenty levels from 10 to 99.8 % and
    rounded outwards, so that they tell nothing of a single calibration patient; between these
    levels, an interval is that of the next higher one.

    Parameters
    ----------
    model : fitted regressor over tasks
        A `MetaRegressor` or a baseline. It is not refitted.
    shots : sequence of int
        Support sizes to calibrate separately. Patients with another number of support rows get the
        limits of all sizes together, with a warning.
    by : mapping of str to sequence of float, or sequence of str, optional
        Columns of X that define subgroups to calibrate separately, with cut points for numbers:
        ``{"male": (), "age": (45, 60)}``. A sequence of names means no cut points. Choose the
        subgroups before calibration. At 90 %, every subgroup needs about 20 patients, better 200.

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
    _model_type = TaskRegressor
    _outcomes = "numbers"

    @property
    def limits_(self) -> dict[Cell, Limits]:
        """Limits by (shots, subgroup): of each subgroup at each k, of each k, and of all rows."""
        return {cell: limits for cell, (limits,) in self.calibration_.limits.items()}

    def _columns(self, predicted: Any, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        scale = 1.0 if predicted.scale is None else predicted.scale
        return {"error": (predicted.outcome.forward(y) - predicted.loc) / scale}

    def _learn(self, rows: pd.DataFrame) -> tuple[AllLimits, AllMaps]:
        return by_cell(rows, lambda part: (_limits(part, "error"),)), {}


def _limits(rows: pd.DataFrame, column: str) -> Limits:
    return Limits.of(rows[column].to_numpy(), rows["task"].to_numpy()).coarse()


class ConformalClassifier(ConformalEstimator[ConformalClassAdapted]):
    """Conformal classifier: prediction sets and probabilities, calibrated on held-out patients.

    A prediction set contains the true class with at least the nominal probability. This holds
    separately for the rows of each class (Mondrian calibration), so that the guarantee for a rare
    event is the same as for a non-event. It applies to a random row of a new patient who has rows
    of that class, for any model, if calibration patients and new patients are drawn from the same
    population; and separately for every support size k and, with `by`, every subgroup. If the model
    cannot distinguish the classes, the set contains both.

    Probabilities are recalibrated for every k by beta calibration, with one map per class and equal
    weights of patients. This may change the predicted class.

    Parameters
    ----------
    model : fitted classifier over tasks
        A `MetaClassifier` or a baseline. It is not refitted.
    shots, by
        As in `ConformalRegressor`. At 90 %, every subgroup needs 9 patients with each class, better
        100.

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
    _model_type = TaskClassifier
    _outcomes = "classes"

    @property
    def limits_(self) -> Mapping[Cell, tuple[Limits, ...]]:
        """Limits of the probability of every class, by (shots, subgroup)."""
        return self.calibration_.limits

    @property
    def recalibration_(self) -> Mapping[Cell, tuple[BetaCalibration, ...]]:
        """Recalibration maps of every class, by (shots, None), and of all rows.

        Maps are missing if there were too few patients; probabilities are then not recalibrated.
        """
        return self.calibration_.maps

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Class labels, in the order of the columns of prediction sets and probabilities."""
        labels: npt.NDArray[Any] = self.model.fitted_model().table.outcome.labels
        return labels

    def _columns(self, predicted: Any, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        columns = {f"p{c}": p for c, p in enumerate(predicted.probabilities().T)}
        labels = self.model.fitted_model().table.outcome.forward(y)
        return columns | {"label": labels.astype(np.int64)}

    def _learn(self, rows: pd.DataFrame) -> tuple[AllLimits, AllMaps]:
        n_classes = len(self.classes_)

        def limits(part: pd.DataFrame) -> tuple[Limits, ...]:
            return tuple(_limits(part[part["label"] == c], f"p{c}") for c in range(n_classes))

        return by_cell(rows, limits), _recalibration(rows, n_classes)


def _recalibration(rows: pd.DataFrame, n_classes: int) -> AllMaps:
    """Maps of all rows, and of each k with enough patients in every class."""

    def maps(part: pd.DataFrame) -> tuple[BetaCalibration, ...]:
        of_class = [part["label"] == c for c in range(n_classes)]
        fewest = min(part.loc[mask, "task"].nunique() for c in of_class for mask in (c, ~c))
        if fewest < _FEWEST:
            return ()
        counts = part.groupby(["shots", "task"])["label"].transform("size")
        weight = (1.0 / counts).to_numpy()
        return tuple(
            BetaCalibration.of(part[f"p{c}"].to_numpy(), is_class.to_numpy(), weight)
            for c, is_class in enumerate(of_class)
        )

    by_shots = by_cell(rows.assign(level=np.nan), maps)
    return {cell: fitted for cell, fitted in by_shots.items() if fitted}
