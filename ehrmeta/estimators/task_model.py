"""Fitted models of tasks: the contract under every estimator (read, adapt, predict)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.utils.validation import _check_feature_names, _check_n_features
from torch import Tensor

from ehrmeta import errors
from ehrmeta.data import Schema, index_tasks
from ehrmeta.data.clock import check_zones
from ehrmeta.data.columns import collected
from ehrmeta.data.groups import respelled, spelling_hint, warn_of_respelled
from ehrmeta.estimators.files import State
from ehrmeta.estimators.inputs import (
    Inputs,
    outcome_name,
    read_inputs,
    read_labels,
    read_numbers,
    report_repeats,
)
from ehrmeta.estimators.predictions import Prediction
from ehrmeta.estimators.table_encoder import Classes, TableEncoder
from ehrmeta.nn.batch import TaskRows

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[Any] | None
_ATYPICAL = 0.001  # supports with a smaller p-value are reported


@dataclass(frozen=True, kw_only=True, eq=False)
class RowReader:
    """Reads the rows of a call with the columns, clock and scales of the fitted table.

    Parameters
    ----------
    name : str
        Class of the estimator, for error messages.
    table : TableEncoder
        Feature encoding, outcome scale and time unit.
    schema : Schema, optional
        Column roles, if given.
    task, time : str, optional
        Columns of X with the task and the time.
    n_columns : int
        Number of columns of X at fit.
    column_names : tuple of str, optional
        Their names, if X had any.
    data_digest : str, optional
        SHA-256 of the tasks, times and outcomes of the training rows.
    """

    name: str
    table: TableEncoder
    schema: Schema | None
    task: str | None
    time: str | None
    n_columns: int
    column_names: tuple[str, ...] | None
    data_digest: str | None = None

    def read(self, X: Any, y: Any = None, *, groups: Any = None, time: Any = None) -> Inputs:
        """Read and check the arguments of one call.

        Raises
        ------
        SchemaError
            X does not have the columns of fit.
        DataError
            A value cannot be read, or time is given but was not at fit, or the reverse.
        """
        clock = self.schema.time if self.schema is not None else None
        X = collected(X)
        inputs = read_inputs(
            X,
            y,
            groups=groups,
            time=time,
            task_column=self.task,
            time_column=self.time,
            clock=clock,
            outcome=outcome_name(self.schema),
            read_outcome=read_labels if isinstance(self.table.outcome, Classes) else read_numbers,
            clock_is_enough=True,
        )
        self._check_columns(X, inputs)
        if self.table.timed and inputs.time is None:
            raise errors.DataError(
                "time is missing: the model was fitted with time. Pass time= (one value per row, "
                "in the unit and from the origin of fit)."
            )
        has_origin = clock is not None and clock.origin is not None
        if inputs.dates is not None and not (self.table.dated or has_origin):
            raise errors.DataError(
                "time holds dates, but the model was fitted with numbers, and the schema has no "
                "origin. Convert them to the unit and origin of the training times, or fit with "
                "Clock(..., origin='YYYY-MM-DD') in the schema."
            )
        zoned = self.table.zoned
        if zoned is None and clock is not None:
            zoned = clock.zoned
        check_zones(inputs.zoned, zoned, "those that the model was fitted on")
        if inputs.time is not None and self.table.timed:
            self._warn_of_far_times(inputs.time)
        if not self.table.timed and inputs.time is not None:
            raise errors.DataError(
                "time was given, but the model was fitted without it. Leave it out."
            )
        return inputs

    def read_support(
        self, X: Any, y: Any, *, groups: Any = None, time: Any = None
    ) -> tuple[Labels, TaskRows]:
        """Read and encode the support rows of new tasks.

        Returns
        -------
        labels : ndarray, (task,), or None
            The groups, sorted; None for one task without an id.
        support : TaskRows
        """
        inputs = self.read(X, y, groups=groups, time=time)
        inputs.outcome()
        if inputs.groups is not None and inputs.n_rows == 0:
            raise errors.DataError(
                "adapt got groups but no rows. Use predict for the population model."
            )
        tasks = inputs.tasks()
        if inputs.time is not None:
            kind = None if self.schema is None else self.schema.task_kind
            report_repeats(tasks, inputs.time, kind)
        labels = None if inputs.groups is None else tasks.labels
        if labels is not None:
            warn_of_respelled(respelled(labels))
        return labels, self.table.rows(inputs, tasks.codes, max(tasks.n_tasks, 1))

    def read_more(
        self, labels: Labels, support: TaskRows, X: Any, y: Any, *, groups: Any, time: Any
    ) -> tuple[Labels, TaskRows]:
        """Labels and supports with further rows; new groups become new tasks."""
        inputs = self.read(X, y, groups=groups, time=time)
        inputs.outcome()
        if (inputs.groups is None) != (labels is None):
            here, before = ("without", "with") if inputs.groups is None else ("with", "without")
            raise errors.GroupError(
                f"update was called {here} groups, adapt {before}. Pass groups= to both, or to "
                "neither."
            )
        if inputs.groups is None:
            old, new = np.zeros(1, np.int64), np.zeros(inputs.n_rows, np.int64)
        else:
            index_tasks(inputs.groups)  # refuses missing ids
            _check_id_type(inputs.groups, labels)
            warn_of_respelled(respelled(inputs.groups, labels))
            union = pd.Index(labels).union(pd.Index(inputs.groups).unique())
            old, new = union.get_indexer(labels), union.get_indexer(inputs.groups)
            labels = union.to_numpy()
        n_tasks = 1 if labels is None else len(labels)
        added, n_before = self.table.rows(inputs, new, n_tasks), support.n_rows
        added = replace(added, origin=added.origin + n_before)
        codes = torch.from_numpy(old)[support.codes]
        support = support.merge(codes, n_tasks, added, added.codes)
        if support.timed and (self.schema is None or self.schema.task_kind == "patient"):
            _report_repeats(support, n_before, is_error=self.schema is not None)
        return labels, support

    def no_rows(self, n_tasks: int = 1) -> TaskRows:
        """Empty supports: adapting to them gives the population model."""
        columns = {feature.name: np.empty(0) for feature in self.table.features}
        time = np.empty(0) if self.table.timed else None
        inputs = Inputs(columns, np.empty(0), None, time, 0)
        return self.table.rows(inputs, np.empty(0, np.int64), n_tasks)

    def _warn_of_far_times(self, time: Array) -> None:
        """Warn of rows that lie more than the length of the training period outside it."""
        if self.table.period is None or not self.table.clock_is_feature:
            return
        first, last = self.table.period
        length = max(last - first, self.table.time_scale)
        far = np.flatnonzero((time < first - length) | (time > last + length))
        if len(far):
            errors.warn(
                f"the time of {len(far):,} of {len(time):,} rows (first: row {far[0]}) lies far "
                "outside the training period, by more than its length: predictions there are "
                "extrapolations. Check the unit and the origin of time.",
                errors.DataWarning,
            )

    def _check_columns(self, X: Any, inputs: Inputs) -> None:
        """Raise if the columns are not those of fit, with scikit-learn's messages first."""
        if not (isinstance(X, pd.DataFrame) and tuple(X.columns) == self.column_names):
            self._check_like_sklearn(X)
        expected = [feature.name for feature in self.table.features]
        missing = [name for name in expected if name not in inputs.columns]
        unknown = [name for name in inputs.columns if name not in expected]
        if missing or unknown:
            raise errors.SchemaError(
                f"X does not have the columns of fit: missing {missing}, unknown {unknown}. Add or "
                "drop these columns."
            )

    def _check_like_sklearn(self, X: Any) -> None:
        """Raise scikit-learn's errors for columns that are not those of fit."""
        attributes: dict[str, Any] = {"n_features_in_": self.n_columns}
        if self.column_names is not None:
            attributes["feature_names_in_"] = np.asarray(self.column_names, dtype=object)
        fitted = type(self.name, (), attributes)()  # scikit-learn reads these attributes only
        try:
            _check_feature_names(fitted, X, reset=False)
            _check_n_features(fitted, X, reset=False)
        except ValueError as error:
            raise errors.SchemaError(
                f"{error} Pass the columns of fit in the same order."
            ) from error


class OutcomeResponse(NamedTuple):
    """Predictions of one task as a differentiable function of its support's outcomes.

    All on the learner's scale, in double precision.
    """

    predict: Callable[[Tensor], Tensor]  # outcomes of the support (point,) -> means (query,)
    y: Tensor  # (point,) outcomes of the support
    expected: Tensor  # (point,) their population predictions
    population: Tensor  # (query,) population predictions of the query


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskModel(RowReader, ABC):
    """Base of fitted models: reads and encodes rows, adapts to supports, predicts queries.

    It holds no training rows and is immutable. Estimators create one at ``fit`` (`model_`) and
    `Adapted` predicts with it. It also works without them: read a support with `read_support`,
    `adapt` to it, and `predict` rows that `read` and ``table.rows`` encode.

    A subclass is a dataclass of the learned values. It must define `predict`, and `adapt` if some
    result can be shared by all queries of a task; the other methods are optional.

    Examples
    --------
    >>> from ehrmeta.baselines import MixedEffects
    >>> rng = np.random.default_rng(0)
    >>> X, groups = np.zeros((300, 1)), np.repeat(np.arange(50), 6)
    >>> y = rng.normal(10, 2, 50)[groups] + rng.normal(0, 0.1, 300)
    >>> model = MixedEffects().fit(X, y, groups=groups).model_
    >>> _, support = model.read_support(X[:2], [14.0, 14.0])
    >>> query = model.table.rows(model.read(X[:1]), np.zeros(1, np.int64), n_tasks=1)
    >>> model.predict(support, model.adapt(support), query).point().round(0)
    array([14.])
    """

    def adapt(self, support: TaskRows) -> Any:
        """Adapted state of every task, shared by all its queries."""
        return None

    @abstractmethod
    def predict(self, support: TaskRows, state: Any, query: TaskRows) -> Prediction:
        """Predict the query rows, in their order, each from the support of its task."""

    def own_weight(self, support: TaskRows, state: Any, query: TaskRows) -> Array:
        """1 - posterior / prior variance per query row, (row,); NaN without a posterior."""
        return np.full(query.n_rows, np.nan)

    def support_weights(
        self, support: TaskRows, state: Any, query: TaskRows
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
        """Query rows, support rows (-1 for the population) and weights, (triple,) each."""
        raise errors.DataError(
            f"{self.name} has no support weights. Use MetaRegressor or MetaClassifier with "
            "MatchingNet."
        )

    def effects(self, support: TaskRows, state: Any) -> tuple[Array, float]:
        """Individual effect of every task, (task,), and its prior sd; NaN if the model has none."""
        return np.full(support.n_tasks, np.nan), np.nan

    def atypical(self, support: TaskRows, state: Any) -> Array:
        """Prior-predictive p-value of every support, (task,); NaN without a distribution."""
        return np.full(support.n_tasks, np.nan)

    def response(self, support: TaskRows, query: TaskRows) -> OutcomeResponse | None:
        """Predictions of one task as a function of its outcomes, if that is differentiable."""
        return None

    def digests(self, state: Any) -> tuple[str, str]:
        """SHA-256 of the parameters and of an adapted state, for audit records."""
        raise errors.DataError(
            f"{self.name} has no audit records. Use a MetaRegressor or a MetaClassifier."
        )

    def to_state(self) -> State:
        """Tensors and JSON-safe metadata that restore the model; a `BundleError` if it has none."""
        raise errors.BundleError(
            f"{self.name} cannot be saved: only a MetaRegressor or a MetaClassifier can. Keep the "
            "training script and fit it again."
        )


def task_numbers(inputs: Inputs, labels: Labels, n_support: int) -> npt.NDArray[np.int64]:
    """Position of every row's task among the labels, (row,); -1 for tasks not adapted.

    Without labels there is `one_task`, with `n_support` rows.
    """
    if labels is None:
        return one_task(inputs, n_support)
    groups = inputs.groups
    if groups is None:
        raise errors.GroupError(
            f"groups is missing: the model was adapted to {len(labels):,} tasks with ids. Pass "
            "groups= with the task of every row."
        )
    _check_id_type(groups, labels)
    return np.asarray(pd.Index(labels).get_indexer(groups), np.int64)


def one_task(inputs: Inputs, n_support: int) -> npt.NDArray[np.int64]:
    """Task number 0 of every row, (row,); raises if they are of several tasks, unlike the support.

    Without support rows, the rows of all tasks get the population's prediction.
    """
    n_groups = 0 if inputs.groups is None or n_support == 0 else len(pd.unique(inputs.groups))
    if n_groups > 1:
        raise errors.GroupError(
            f"the rows are of {n_groups:,} tasks, but the model was adapted to one, without "
            "groups. Pass groups= to adapt too, or only the rows of that task."
        )
    return np.zeros(inputs.n_rows, np.int64)


def _check_id_type(groups: npt.NDArray[Any], labels: Labels) -> None:
    """Raise if task ids are text and were numbers at adaptation, or the reverse."""
    if labels is not None and (groups.dtype == object) != (labels.dtype == object):
        here, before = ("text", "numbers") if groups.dtype == object else ("numbers", "text")
        raise errors.GroupError(
            f"groups holds {here}, but the model was adapted to ids that are {before}. Convert "
            "them to one type."
        )


def check_new_groups(new_groups: str) -> None:
    """Raise a `DataError` if `new_groups` is not one of its three values."""
    if new_groups not in ("error", "population", "nan"):
        raise errors.DataError(
            f"new_groups must be 'error', 'population' or 'nan', got {new_groups!r}."
        )


def refuse_new(codes: npt.NDArray[np.int64], groups: Labels, labels: Labels) -> None:
    """Raise if rows belong to tasks that were not adapted, with negative `codes` (row,)."""
    new = codes < 0
    if new.any():
        alike = 0 if groups is None else respelled(groups[new], labels)
        raise errors.GroupError(
            f"{int(new.sum()):,} of {len(new):,} rows (first: row "
            f"{int(np.flatnonzero(new)[0])}) belong to tasks that were not adapted."
            + spelling_hint(alike),
            errors.Remedy(
                "new-groups", "Adapt them first, or pass new_groups='population' or 'nan'."
            ),
        )


def _report_repeats(support: TaskRows, n_before: int, *, is_error: bool) -> None:
    """Raise, or warn, if a row after the first `n_before` repeats the time of its task."""
    is_new = support.origin >= n_before
    same = (support.time.diff() == 0) & (support.codes.diff() == 0) & (is_new[1:] | is_new[:-1])
    if bool(same.any()):
        message = (
            f"{int(same.sum()):,} rows of the update repeat the time of a row that their task "
            f"already has (first in task {int(support.codes[1:][same][0])} of "
            f"{support.n_tasks}). Pass only new visits."
        )
        if is_error:
            raise errors.DataError(message)
        errors.warn(message, errors.DataWarning)


def last_times(support: TaskRows) -> Array:
    """Time of every task's last support row, (task + 1,); a final -inf for tasks not adapted."""
    ends, adapted = support.starts[1:].numpy(), support.sizes.numpy() > 0
    last = np.full(support.n_tasks + 1, -np.inf)
    last[:-1][adapted] = support.time.numpy()[ends[adapted] - 1]
    return last


def warn_of_past_rows(time: Array | None, codes: npt.NDArray[np.int64], last_time: Array) -> None:
    """Warn of query rows, (row,), that are not later than the last support row of their task."""
    if time is None:
        return
    past = np.flatnonzero(time <= last_time[codes])
    if len(past):
        errors.warn(
            f"{len(past):,} of {len(time):,} rows (first: row {past[0]}, of task "
            f"{codes[past[0]]} of {len(last_time) - 1:,}) are not later than the last row that "
            "their task was adapted to, so these predictions are not forecasts: they use outcomes "
            "of the same time or later. Adapt to earlier rows only.",
            errors.DataWarning,
        )


def warn_of_atypical_tasks(p: Array) -> None:
    """Warn of tasks whose supports have small prior-predictive p-values, (task,)."""
    p = np.nan_to_num(p, nan=1.0)
    atypical = np.flatnonzero(p < _ATYPICAL)
    if len(atypical):
        errors.warn(
            f"{len(atypical):,} of {len(p):,} adapted tasks (first: task {atypical[0]}) have "
            f"supports unlike the training tasks (prior-predictive p < {_ATYPICAL}; "
            f"{_ATYPICAL * len(p):.2g} expected by chance); see atypical_. Check units and values "
            "before relying on predictions.",
            errors.AtypicalWarning,
        )
