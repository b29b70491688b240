"""Base classes of task estimators: reading, encoding, adapting and scoring."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags
from sklearn.utils.validation import _get_feature_names, _num_features

from ehrmeta.data import Outcome, OutcomeScale, Schema
from ehrmeta.data.columns import collected
from ehrmeta.data.schema import Transform
from ehrmeta.errors import DataError, DataWarning, NotFittedError, Remedy, warn
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.files import data_digest
from ehrmeta.estimators.inputs import (
    Inputs,
    check_outcome,
    check_parameters,
    check_trainable,
    outcome_name,
    read_inputs,
    read_labels,
    read_numbers,
    schema_of,
)
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits
from ehrmeta.estimators.outcome_choice import choose_scale
from ehrmeta.estimators.table_encoder import Classes, TableEncoder
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows
from ehrmeta.nn.device import for_rows

Array = npt.NDArray[np.float64]
Learn: TypeAlias = Callable[[TaskRows, RowReader], TaskModel]


@dataclass(eq=False, repr=False, kw_only=True)
class TaskEstimator(BaseEstimator, ABC):
    """Base estimator: fit on many tasks, then adapt to a new one from a few rows.

    Subclasses implement `_fit_tasks`, which receives encoded rows and returns the `TaskModel` that
    adapts and predicts. `TaskRegressor` and `TaskClassifier` define how the outcome is encoded
    (`_fit_outcome`) and scored (`_losses`).

    Parameters
    ----------
    schema, task, time, known, score_shots
        As in `MetaRegressor`.

    Attributes
    ----------
    model_ : TaskModel
        The fitted model, which adapts and predicts without the estimator.
    """

    schema: Schema | None = None
    task: str | None = None
    time: str | None = None
    known: Sequence[str] | None = None
    score_shots: tuple[int, ...] = (1, 3, 5)

    model_: TaskModel = field(init=False)
    poor_score: ClassVar[bool] = False  # scikit-learn's tag: scores badly without groups
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True, "time": True}
    __metadata_request__score: ClassVar[dict[str, bool]] = {"groups": True, "time": True}

    def fit(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Self:
        """Learn over the tasks of a table.

        Parameters
        ----------
        X, y, groups, time
            The rows of training tasks, as in ``MetaRegressor.fit``.

        Returns
        -------
        self

        Raises
        ------
        DataError
            A column, the outcome, the groups or the time cannot be used; nothing is changed.
        """
        return self._fit(X, y, groups, time, self._fit_tasks)

    def fit_rows(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        """Fit a model to encoded rows, for use inside another model."""
        return self._fit_tasks(rows, reader)

    def _fit(self, X: Any, y: Any, groups: Any, time: Any, learn: Learn) -> Self:
        """Read and encode the table, and store the model that `learn` returns."""
        check_parameters(self.get_params(deep=False), classes=is_classifier(self))
        X = collected(X)
        schema, inputs = schema_of(self.schema, X), self.read_table(X, y, groups=groups, time=time)
        check_trainable(inputs, schema)
        table = TableEncoder.fit(inputs, schema, self._fit_outcome(inputs, schema), self.known)
        names = _get_feature_names(X)
        tasks = inputs.tasks()
        rows = table.rows(inputs, tasks.codes, tasks.n_tasks, of_fit=True)
        reader = RowReader(
            name=type(self).__name__,
            table=table,
            schema=schema,
            task=self.task,
            time=self.time,
            n_columns=_num_features(X),
            column_names=None if names is None else tuple(names),
            data_digest=data_digest(rows),
        )
        self._set_fitted(learn(rows, reader), tasks.n_tasks)
        return self

    def _set_fitted(self, model: TaskModel, n_tasks: int) -> None:
        """Set the attributes of a fitted estimator."""
        self.model_ = model
        self.schema_, self.table_, self.n_tasks_ = model.schema, model.table, n_tasks
        self.n_features_in_ = model.n_columns
        if model.column_names is not None:
            self.feature_names_in_ = np.asarray(model.column_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def adapt(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Adapted:
        """Adapt to new tasks from their supports, all in one batch, without refitting.

        Parameters
        ----------
        X, y, groups, time
            The support rows, as in `fit`. Without groups they are one task; an empty table gives
            the population model.

        Returns
        -------
        Adapted
            Predictions for these tasks.
        """
        model = self.fitted_model()
        return Adapted(model, *model.read_support(X, y, groups=groups, time=time))

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
        """The population model: an `Adapted` task with an empty support."""
        model = self.fitted_model()
        return Adapted(model, None, model.no_rows())

    def fitted_model(self) -> TaskModel:
        """The fitted `model_`; raises a `NotFittedError` before `fit`."""
        if not hasattr(self, "model_"):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )
        return self.model_

    def read_table(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Inputs:
        """Read a training table as `fit` does, before encoding."""
        schema = schema_of(self.schema, X)
        return read_inputs(
            X,
            y,
            groups=groups,
            time=time,
            task_column=self.task,
            time_column=self.time,
            clock=schema.time if schema is not None else None,
            outcome=outcome_name(schema),
            read_outcome=read_labels if is_classifier(self) else read_numbers,
            clock_is_enough=True,
        )

    def _score(self, X: Any, y: Any, groups: Any, time: Any, sample_weight: Any) -> float:
        """``1 - loss / loss of the best constant``, averaged over `score_shots`; see `score`."""
        inputs = self.fitted_model().read(X, y, groups=groups, time=time)
        y, weight = inputs.outcome(), _weights(sample_weight, inputs.n_rows)
        if inputs.groups is None:
            losses, constant = self._losses(self.unadapted(), {"X": X, "time": time}, y, weight)
            return _skill(np.average(losses, weights=weight), constant)
        scores = []
        for _, support, query in k_shot_splits(inputs, self.score_shots):
            adapted, rows = adapt_to_rows(self, X, inputs, support, query)
            losses, constant = self._losses(adapted, rows, y[query], weight[query])
            codes = inputs.tasks().codes[query]
            total = np.bincount(codes, weight[query])
            by_task = np.bincount(codes, weight[query] * losses)[total > 0] / total[total > 0]
            scores.append(_skill(by_task.mean(), constant))
        if not scores:
            raise DataError(
                f"no task has more rows than the smallest of score_shots={self.score_shots}: "
                "lower score_shots or score tasks with more rows."
            )
        return float(np.mean(scores))

    @abstractmethod
    def _fit_outcome(self, inputs: Inputs, schema: Schema | None) -> OutcomeScale | Classes:
        """Fit the map from the outcome to the learner's scale."""

    @abstractmethod
    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: Any, weight: Array
    ) -> tuple[Array, float]:
        """Loss of every query row, (row,), and the weighted mean loss of the best constant."""

    @abstractmethod
    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        """Fit a model to the encoded rows of all training tasks; `reader` reads later tables."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class TaskRegressor(RegressorMixin, TaskEstimator):
    """Base of task estimators for real-valued outcomes.

    Parameters
    ----------
    schema, task, time, known, outcome_transform, score_shots
        As in `MetaRegressor`.
    """

    outcome_transform: Transform | Literal["auto"] | None = None

    def score(
        self, X: Any, y: Any, *, groups: Any = None, time: Any = None, sample_weight: Any = None
    ) -> float:
        """k-shot R²: 1 - (mean squared error, averaged within then over tasks) / variance of y.

        Each task is adapted from k rows (the first k with time, random ones without) and scored on
        its other rows; the result is the mean over k in `score_shots`. Without groups it is the R²
        of the population prediction. `sample_weight` (row,) weights the scored rows of a task.
        """
        return self._score(X, y, groups, time, sample_weight)

    def _fit_outcome(self, inputs: Inputs, schema: Schema | None) -> OutcomeScale:
        """Mean and sd after `outcome_transform`, by default the schema's."""
        y = inputs.outcome()
        is_normal = getattr(self, "likelihood", "normal") == "normal"
        robust = "declare a plausible range, or use likelihood='student_t'" if is_normal else None
        check_outcome(y, outcome_name(schema), robust=robust)
        self._warn_of_odd_outcome(y, outcome_name(schema))
        declared = Outcome("y") if schema is None or schema.outcome is None else schema.outcome
        chosen = None if self.outcome_transform == "auto" else self.outcome_transform
        transform, ends = chosen or declared.transform, {"low": declared.low, "high": declared.high}
        scale = OutcomeScale.fit(y, transform, outcome_name(schema), **ends)
        if self.outcome_transform != "auto" or transform is not None:
            return scale
        choose = partial(choose_scale, scale, inputs, schema, self.known)
        return for_rows(inputs.n_rows, choose)

    def _warn_of_odd_outcome(self, y: Array, name: str) -> None:
        """Warn of a 0/1 outcome."""
        if ((y == 0.0) | (y == 1.0)).all() and 0.0 < y.mean() < 1.0:
            warn(
                DataWarning(
                    f"outcome '{name}' is 0 or 1 in all {len(y):,} rows and modelled as a number.",
                    Remedy("two-classes", "Use MetaClassifier to predict probabilities."),
                )
            )

    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: Any, weight: Array
    ) -> tuple[Array, float]:
        variance = np.average(np.square(y - np.average(y, weights=weight)), weights=weight)
        return np.square(adapted.predict(**query) - y), float(variance)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = self.poor_score
        return tags


def _weights(sample_weight: Any, n_rows: int) -> Array:
    """Weights of rows, (row,), 1 by default; raises if one is negative or not a number."""
    weight = np.ones(n_rows) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if weight.shape != (n_rows,) or not (np.isfinite(weight) & (weight >= 0)).all():
        raise DataError(
            f"sample_weight must be one number per row of X ({n_rows:,}), 0 or more, got shape "
            f"{weight.shape}."
        )
    return weight


def _skill(loss: float, constant: float) -> float:
    """``1 - loss / constant``; for a constant outcome 1 if the loss is 0, else 0."""
    return 1.0 - float(loss) / constant if constant > 0 else float(loss == 0)


class TaskClassifier(ClassifierMixin, TaskEstimator):
    """Base of task estimators for classes.

    Parameters
    ----------
    schema, task, time, known, score_shots
        As in `MetaClassifier`.
    """

    two_classes_only: ClassVar[bool] = False

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Class labels in the order of the columns of `predict_proba`."""
        labels: npt.NDArray[Any] = self.fitted_model().table.outcome.labels
        return labels

    def predict_proba(self, X: Any, *, time: Any = None) -> Array:
        """Class probabilities of the population model: adaptation on an empty support.

        Parameters
        ----------
        X, time
            As in `predict`.

        Returns
        -------
        ndarray, (row, class)
            In the order of `classes_`; rows sum to 1.
        """
        return self.unadapted().predict_proba(X, time=time)

    def score(
        self, X: Any, y: Any, *, groups: Any = None, time: Any = None, sample_weight: Any = None
    ) -> float:
        """k-shot D²: 1 - (log loss, averaged within then over tasks) / log loss of the base rates.

        Unlike accuracy it rewards calibrated probabilities, also where one class is rare. Tasks
        are adapted, weighted and scored as in ``MetaRegressor.score``.
        """
        return self._score(X, y, groups, time, sample_weight)

    def _fit_outcome(self, inputs: Inputs, schema: Schema | None) -> Classes:
        classes = Classes.fit(inputs.outcome())
        if self.two_classes_only and len(classes.labels) > 2:
            raise DataError(
                f"Only binary classification is supported by {type(self).__name__}. The type of "
                f"the target is multiclass: {len(classes.labels)} classes."
            )
        return classes

    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: Any, weight: Array
    ) -> tuple[Array, float]:
        """Log loss of every row, and the entropy of the classes in y."""
        codes = self.table_.outcome.forward(y).astype(np.int64)
        p = adapted.predict_proba(**query)[np.arange(len(codes)), codes]
        rates = np.bincount(codes, weight) / weight.sum()
        entropy = -np.sum(rates[rates > 0] * np.log(rates[rates > 0]))
        return -np.log(np.maximum(p, np.finfo(np.float64).tiny)), float(entropy)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = not self.two_classes_only
        tags.classifier_tags.poor_score = self.poor_score
        return tags


def adapt(pipeline: Pipeline, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Adapted:
    """Adapt the last step of a fitted pipeline.

    Support and query rows pass through the fitted transformers, which are not refitted.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted; the last step is a `MetaRegressor` or another task estimator, or a fitted
        hyper-parameter search over one.
    X, y, groups, time
        As in ``MetaRegressor.adapt``.

    Returns
    -------
    Adapted
        Takes rows before the transformers, and applies them.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from ehrmeta import MAML, MetaRegressor, adapt, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> X = pd.DataFrame({"x": X[:, 0], "patient": groups})
    >>> model = MetaRegressor(MAML(inner_steps=1), task="patient", max_steps=20, random_state=0)
    >>> pipeline = make_pipeline(FunctionTransformer(), model).fit(X, y)
    >>> adapt(pipeline, X[10:15], y[10:15]).predict(X[15:20]).shape
    (5,)
    """
    model = getattr(pipeline[-1], "best_estimator_", pipeline[-1])
    if not isinstance(model, TaskEstimator):
        raise DataError(
            f"the pipeline ends in {type(model).__name__}, which has no adapt(). Make the "
            "last step a MetaRegressor, a MetaClassifier or a baseline of ehrmeta."
        )
    transform = pipeline[:-1].transform if len(pipeline) > 1 else None
    rows = X if transform is None else transform(X)
    adapted = model.adapt(rows, y, groups=groups, time=time)
    adapted.transform = transform
    return adapted
