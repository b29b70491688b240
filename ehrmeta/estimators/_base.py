"""What every estimator over tasks shares: reading, encoding, adapting, scoring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import _check_feature_names, _check_n_features

from ehrmeta.data import OutcomeScale, Schema, first_k, random_k
from ehrmeta.data.columns import take_rows
from ehrmeta.data.schema import Transform
from ehrmeta.errors import DataError, NotFittedError, SchemaError
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.inputs import (
    Inputs,
    check_parameters,
    check_trainable,
    outcome_name,
    read_inputs,
    read_labels,
    read_numbers,
    report_repeats,
    schema_of,
)
from ehrmeta.estimators.predictive import Prediction
from ehrmeta.estimators.table_encoder import Classes, TableEncoder
from ehrmeta.nn.batch import TaskRows

__all__ = [
    "TaskClassifier",
    "TaskEstimator",
    "TaskRegressor",
]

Array = npt.NDArray[np.float64]


class TaskEstimator(BaseEstimator, ABC):
    """An estimator over tasks: fit on many, adapt to one from its few rows.

    Subclasses are handed encoded rows, never tables: they implement `_fit_tasks` and
    `_predict_tasks`, and `_adapt_tasks` where adapting is worth doing ahead of predicting. How an
    outcome is read, encoded and judged is what regressors and classifiers differ in:
    `_read_outcome`, `_fit_outcome` and `_losses`.

    Parameters
    ----------
    schema : Schema, optional
        Column roles, units and plausible ranges; a `Table`'s X brings its own. Without one, every
        column is known ahead of the visit.
    task, time : str, optional
        Columns of X that name the task and the time, taken out of the features; for pipelines and
        cross-validation, which pass X and y only.
    score_shots : tuple of int
        Support sizes that `score` averages over.
    """

    table_: TableEncoder
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True, "time": True}
    __metadata_request__score: ClassVar[dict[str, bool]] = {"groups": True, "time": True}

    def __init__(
        self,
        *,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
    ) -> None:
        self.schema = schema
        self.task = task
        self.time = time
        self.score_shots = score_shots

    def fit(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Self:
        """Learn over the tasks of a table.

        Parameters
        ----------
        X : frame or array, (row, feature)
            pandas, polars or NumPy; missing values are allowed.
        y : array, (row,)
            Outcome.
        groups : array, (row,)
            Task (patient, hospital, drug) of every row. None is one anonymous task, with a
            warning.
        time : array, (row,), optional
            Numbers in the schema's unit, or datetimes. Once fitted with time, `adapt` and
            `predict` need it too.

        Returns
        -------
        self

        Raises
        ------
        DataError
            A column, the outcome, the groups or the time cannot be used; nothing is changed.
        """
        return self._fit(X, y, groups, time, self._fit_tasks)

    def _fit(
        self,
        X: Any,
        y: Any,
        groups: Any,
        time: Any,
        learn: Callable[[TaskRows, TableEncoder], None],
    ) -> Self:
        """Read and encode the table, then `learn`."""
        check_parameters(self)
        schema = schema_of(self.schema, X)
        inputs = self._read(X, y, groups, time, schema)
        check_trainable(inputs, schema)
        table = TableEncoder.fit(inputs, schema, self._fit_outcome(inputs, schema))
        tasks = inputs.tasks()
        learn(table.rows(inputs, tasks.codes, tasks.n_tasks), table)
        self.schema_ = schema
        self.table_ = table
        self.n_tasks_ = tasks.n_tasks
        _check_feature_names(self, X, reset=True)
        _check_n_features(self, X, reset=True)
        return self

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Adapted:
        """Adapt to new tasks from their supports, all in one batch, without refitting.

        Parameters
        ----------
        X, y, groups, time
            The support rows, as in `fit`. Without groups they are one task; no rows at all give
            the population model.

        Returns
        -------
        Adapted
            Predicts for these tasks.
        """
        self._check_is_fitted()
        inputs = self._read_fitted(X, y, groups, time)
        inputs.outcome()
        if inputs.groups is not None and inputs.n_rows == 0:
            raise DataError(
                "adapt got groups but no rows: a task without rows is the population, call predict."
            )
        tasks = inputs.tasks()
        if inputs.time is not None and self.schema_ is not None:
            report_repeats(tasks, inputs.time, self.schema_.task_kind)
        n_tasks = max(tasks.n_tasks, 1)
        labels = None if inputs.groups is None else tasks.labels
        return Adapted(self, labels, self.table_.rows(inputs, tasks.codes, n_tasks))

    def predict(self, X: Any, *, time: Any = None) -> npt.NDArray[Any]:
        """Population prediction: adaptation on an empty support.

        Parameters
        ----------
        X : frame or array, (row, feature)
            Rows to predict for.
        time : array, (row,), optional
            Needed where the model was fitted with time.

        Returns
        -------
        ndarray, (row,)
            Means of a regressor, classes of a classifier.
        """
        return self.unadapted().predict(X, time=time)

    def unadapted(self) -> Adapted:
        """The population model as an `Adapted` task without rows: intervals and quantiles too."""
        self._check_is_fitted()
        return Adapted(self, None, self._no_rows(1))

    def _score(self, X: Any, y: Any, groups: Any, time: Any) -> float:
        """``1 - loss / loss of a constant``, the loss averaged within then over tasks.

        Each task is adapted from k rows (its first with time, random ones without) and judged on
        its later rows, for every k in `score_shots`; the scores are averaged. Without groups the
        population prediction is judged.
        """
        self._check_is_fitted()
        inputs = self._read_fitted(X, y, groups, time)
        y = inputs.outcome()
        if inputs.groups is None:
            losses, constant = self._losses(self.unadapted(), {"X": X, "time": time}, y)
            return _skill(losses.mean(), constant)
        tasks = inputs.tasks()
        scores = []
        for shots in self.score_shots:
            if inputs.time is not None:
                support, query = first_k(tasks, shots, time=inputs.time)
            else:
                support, query = random_k(tasks, shots, random_state=0)
            if not query.any():
                continue
            adapted = self.adapt(y=y[support], **self._rows_at(X, inputs, support))
            losses, constant = self._losses(adapted, self._rows_at(X, inputs, query), y[query])
            codes = tasks.codes[query]
            counts = np.bincount(codes)
            by_task = np.bincount(codes, losses)[counts > 0] / counts[counts > 0]
            scores.append(_skill(by_task.mean(), constant))
        if not scores:
            raise DataError(
                f"no task has more rows than the smallest of score_shots={self.score_shots}: "
                "lower score_shots or score tasks with more rows."
            )
        return float(np.mean(scores))

    @abstractmethod
    def _read_outcome(self, y: Any, name: str) -> npt.NDArray[Any]:
        """The outcome as checked numbers or labels, (row,)."""

    @abstractmethod
    def _fit_outcome(self, inputs: Inputs, schema: Schema | None) -> OutcomeScale | Classes:
        """What puts the outcome on the learner's scale."""

    @abstractmethod
    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: npt.NDArray[Any]
    ) -> tuple[Array, float]:
        """Loss of every query row, (row,), and the mean loss of the best constant."""

    @abstractmethod
    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        """Learn from the encoded rows of all training tasks."""

    def _adapt_tasks(self, support: TaskRows) -> Any:
        """Whatever is worth computing once per adapted task."""
        return None

    @abstractmethod
    def _predict_tasks(self, support: TaskRows, state: Any, query: TaskRows) -> Prediction:
        """Predict the query rows, in their order, each from the support of its task."""

    def _own_weight(self, support: TaskRows, state: Any, query: TaskRows) -> Array:
        """1 - posterior / prior variance per query row; NaN without a posterior."""
        return np.full(query.n_rows, np.nan)

    def _support_weights(
        self, support: TaskRows, state: Any, query: TaskRows
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
        """Query row, support row (-1 for the population) and weight, as triples."""
        raise DataError(
            f"{type(self).__name__} does not predict by weighing the support's rows. Use "
            "MetaRegressor or MetaClassifier with MatchingNet."
        )

    def _effects(self, support: TaskRows, state: Any) -> tuple[Array, float]:
        """Individual effect of every task, (task,), and the prior sd of such effects."""
        return np.full(support.n_tasks, np.nan), np.nan

    def _atypical(self, support: TaskRows) -> Array:
        """Prior-predictive p-value of every support, (task,)."""
        return np.full(support.n_tasks, np.nan)

    def _no_rows(self, n_tasks: int) -> TaskRows:
        """Supports without a row."""
        columns = {name: np.empty(0) for name in self._column_names()}
        time = np.empty(0) if self.table_.timed else None
        nothing = Inputs(columns, np.empty(0), None, time, 0)
        return self.table_.rows(nothing, np.empty(0, np.int64), n_tasks)

    def _query_rows(self, X: Any, groups: Any, time: Any) -> Inputs:
        return self._read_fitted(X, None, groups, time)

    def _read(self, X: Any, y: Any, groups: Any, time: Any, schema: Schema | None) -> Inputs:
        return read_inputs(
            X,
            y,
            groups=groups,
            time=time,
            task_column=self.task,
            time_column=self.time,
            clock=schema.time if schema is not None else None,
            outcome=outcome_name(schema),
            read_outcome=self._read_outcome,
        )

    def _read_fitted(self, X: Any, y: Any, groups: Any, time: Any) -> Inputs:
        """Read a call after fit: the same columns, and time exactly where fit had it."""
        inputs = self._read(X, y, groups, time, self.schema_)
        try:
            _check_feature_names(self, X, reset=False)
            _check_n_features(self, X, reset=False)
        except ValueError as error:
            raise SchemaError(f"{error} Pass the columns of fit, in their order.") from error
        expected, got = self._column_names(), list(inputs.columns)
        missing = [name for name in expected if name not in inputs.columns]
        unknown = [name for name in got if name not in expected]
        if missing or unknown:
            raise SchemaError(
                f"X does not have the columns of fit: missing {missing}, unknown {unknown}."
            )
        if self.table_.timed and inputs.time is None:
            raise DataError(
                "time is missing: the model was fitted with time, so pass time= (one value per "
                "row, same unit and origin as at fit)."
            )
        clock = self.schema_.time if self.schema_ is not None else None
        if inputs.dated and not self.table_.dated and (clock is None or clock.origin is None):
            raise DataError(
                "time holds dates, but the model was fitted with numbers, and no schema says from "
                "which date they count. Count them from the origin of the training times, in their "
                "unit, or fit with Clock(..., origin='YYYY-MM-DD') in the schema."
            )
        if not self.table_.timed and inputs.time is not None:
            raise DataError("time was given but the model was fitted without it: leave it out.")
        return inputs

    def _column_names(self) -> list[str]:
        return [feature.name for feature in self.table_.features]

    def _rows_at(self, X: Any, inputs: Inputs, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """X, groups and time of some rows, as keywords of adapt and predict."""
        return {
            "X": take_rows(X, mask),
            "groups": None if inputs.groups is None else inputs.groups[mask],
            "time": None if inputs.time is None else inputs.time[mask],
        }

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "table_"):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "table_")

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class TaskRegressor(RegressorMixin, TaskEstimator):
    """A task estimator of real-valued outcomes.

    Parameters
    ----------
    outcome_transform : {"log", "sqrt"}, optional
        Learn on the transformed outcome; predictions and intervals come back on its own scale.
    schema, task, time, score_shots
        As in `TaskEstimator`.
    """

    def __init__(
        self,
        *,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        outcome_transform: Transform | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
    ) -> None:
        super().__init__(schema=schema, task=task, time=time, score_shots=score_shots)
        self.outcome_transform = outcome_transform

    def score(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> float:
        """k-shot R²: 1 - (mean squared error, averaged within then over tasks) / variance of y.

        Each task is adapted from k rows (its first with time, random ones without) and judged on
        its later rows, for every k in `score_shots`; the scores are averaged. Without groups it
        is the R² of the population prediction.
        """
        return self._score(X, y, groups, time)

    def _read_outcome(self, y: Any, name: str) -> Array:
        return read_numbers(y, name)

    def _fit_outcome(self, inputs: Inputs, schema: Schema | None) -> OutcomeScale:
        """Mean and sd after the transform, which a schema may bring."""
        y = inputs.outcome()
        if np.ptp(y) == 0:
            raise DataError(
                f"outcome '{outcome_name(schema)}' is constant over all {inputs.n_rows:,} rows. "
                "Check the column."
            )
        transform = self.outcome_transform
        if transform is None and schema is not None and schema.outcome is not None:
            transform = schema.outcome.transform
        return OutcomeScale.fit(y, transform, outcome_name(schema))

    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: npt.NDArray[Any]
    ) -> tuple[Array, float]:
        return np.square(adapted.predict(**query) - y), float(y.var())


def _skill(loss: float, constant: float) -> float:
    """``1 - loss / constant``; for an outcome without any spread 1 where it is met, else 0."""
    return 1.0 - float(loss) / constant if constant > 0 else float(loss == 0)


class TaskClassifier(ClassifierMixin, TaskEstimator):
    """A task estimator of classes.

    Parameters
    ----------
    schema, task, time, score_shots
        As in `TaskEstimator`.
    """

    two_classes_only: ClassVar[bool] = False

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Class labels in the order of the columns of `predict_proba`."""
        self._check_is_fitted()
        labels: npt.NDArray[Any] = self.table_.outcome.labels
        return labels

    def predict_proba(self, X: Any, *, time: Any = None) -> Array:
        """Class probabilities of the population model: adaptation on an empty support.

        Parameters
        ----------
        X : frame or array, (row, feature)
            Rows to predict for.
        time : array, (row,), optional
            Needed where the model was fitted with time.

        Returns
        -------
        ndarray, (row, class)
            In the order of `classes_`; rows sum to 1.
        """
        return self.unadapted().predict_proba(X, time=time)

    def score(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> float:
        """k-shot D²: 1 - (log loss, averaged within then over tasks) / log loss of the base rates.

        Unlike accuracy it rewards good probabilities, also where one class is rare. Each task is
        adapted from k rows (its first with time, random ones without) and judged on its later
        rows, for every k in `score_shots`; the scores are averaged. Without groups the population
        prediction is judged.
        """
        return self._score(X, y, groups, time)

    def _read_outcome(self, y: Any, name: str) -> npt.NDArray[Any]:
        return read_labels(y, name)

    def _fit_outcome(self, inputs: Inputs, schema: Schema | None) -> Classes:
        classes = Classes.fit(inputs.outcome())
        if self.two_classes_only and len(classes.labels) > 2:
            raise DataError(
                f"Only binary classification is supported by {type(self).__name__}. The type of "
                f"the target is multiclass: {len(classes.labels)} classes."
            )
        return classes

    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: npt.NDArray[Any]
    ) -> tuple[Array, float]:
        """Log loss, and the entropy of the classes in y."""
        codes = self.table_.outcome.forward(y).astype(np.int64)
        p = adapted.predict_proba(**query)[np.arange(len(codes)), codes]
        rates = np.bincount(codes) / len(codes)
        entropy = -np.sum(rates[rates > 0] * np.log(rates[rates > 0]))
        return -np.log(np.maximum(p, np.finfo(np.float64).tiny)), float(entropy)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = not self.two_classes_only
        return tags
