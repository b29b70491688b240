"""The fitted model under every estimator over tasks: reads rows, adapts to supports, predicts."""

import warnings
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

from ehrmeta.data import Schema, index_tasks
from ehrmeta.errors import (
    AtypicalWarning,
    BundleError,
    DataError,
    DataWarning,
    GroupError,
    Remedy,
    SchemaError,
)
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
_ATYPICAL = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class RowReader:
    """Reads the rows of a call as a model was fitted: the same columns, clock and scales.

    Parameters
    ----------
    name : str
        Class of the estimator, for messages.
    table : TableEncoder
        Feature encoding, outcome scale and time unit.
    schema : Schema, optional
        Column roles, where they were given.
    task, time : str, optional
        Columns of X that name the task and the time.
    n_columns : int
        Columns of X at fit.
    column_names : tuple of str, optional
        Their names, where X had any.
    """

    name: str
    table: TableEncoder
    schema: Schema | None
    task: str | None
    time: str | None
    n_columns: int
    column_names: tuple[str, ...] | None

    def read(self, X: Any, y: Any = None, *, groups: Any = None, time: Any = None) -> Inputs:
        """Read and check the arguments of one call.

        Raises
        ------
        SchemaError
            X does not have the columns of fit.
        DataError
            A value cannot be read, or time is given where fit had none, or the other way round.
        """
        clock = self.schema.time if self.schema is not None else None
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
        )
        self._check_columns(X, inputs)
        if self.table.timed and inputs.time is None:
            raise DataError(
                "time is missing: the model was fitted with time, so pass time= (one value per "
                "row, same unit and origin as at fit)."
            )
        if inputs.dated and not self.table.dated and (clock is None or clock.origin is None):
            raise DataError(
                "time holds dates, but the model was fitted with numbers, and no schema says from "
                "which date they count. Count them from the origin of the training times, in their "
                "unit, or fit with Clock(..., origin='YYYY-MM-DD') in the schema."
            )
        if not self.table.timed and inputs.time is not None:
            raise DataError("time was given but the model was fitted without it: leave it out.")
        return inputs

    def read_support(
        self, X: Any, y: Any, *, groups: Any = None, time: Any = None
    ) -> tuple[Labels, TaskRows]:
        """Read and encode the support rows of new tasks.

        Returns
        -------
        labels : ndarray, (task,), or None
            The groups, sorted; None for one task without a name.
        support : TaskRows
        """
        inputs = self.read(X, y, groups=groups, time=time)
        inputs.outcome()
        if inputs.groups is not None and inputs.n_rows == 0:
            raise DataError(
                "adapt got groups but no rows: a task without rows is the population, call predict."
            )
        tasks = inputs.tasks()
        if inputs.time is not None and self.schema is not None:
            report_repeats(tasks, inputs.time, self.schema.task_kind)
        labels = None if inputs.groups is None else tasks.labels
        return labels, self.table.rows(inputs, tasks.codes, max(tasks.n_tasks, 1))

    def read_more(
        self, labels: Labels, support: TaskRows, X: Any, y: Any, *, groups: Any, time: Any
    ) -> tuple[Labels, TaskRows]:
        """Labels and supports with the rows of a further call; new groups join as new tasks."""
        inputs = self.read(X, y, groups=groups, time=time)
        inputs.outcome()
        if (inputs.groups is None) != (labels is None):
            here, before = ("without", "with") if inputs.groups is None else ("with", "without")
            raise GroupError(f"update was called {here} groups, adapt {before}: use them in both.")
        if inputs.groups is None:
            old, new = np.zeros(1, np.int64), np.zeros(inputs.n_rows, np.int64)
        else:
            index_tasks(inputs.groups)  # refuses missing ids
            _refuse_other_ids(inputs.groups, labels)
            union = pd.Index(labels).union(pd.Index(inputs.groups).unique())
            old, new = union.get_indexer(labels), union.get_indexer(inputs.groups)
            labels = union.to_numpy()
        n_tasks = 1 if labels is None else len(labels)
        added = self.table.rows(inputs, new, n_tasks)
        added = replace(added, origin=added.origin + support.n_rows)
        codes = torch.from_numpy(old)[support.codes]
        support = support.merge(codes, n_tasks, added, added.codes)
        if support.timed and self.schema is not None and self.schema.task_kind == "patient":
            _refuse_repeats(support)
        return labels, support

    def no_rows(self, n_tasks: int = 1) -> TaskRows:
        """Supports without a row: adapting to them gives the population model."""
        columns = {feature.name: np.empty(0) for feature in self.table.features}
        time = np.empty(0) if self.table.timed else None
        nothing = Inputs(columns, np.empty(0), None, time, 0)
        return self.table.rows(nothing, np.empty(0, np.int64), n_tasks)

    def _check_columns(self, X: Any, inputs: Inputs) -> None:
        """Refuse other columns than those of fit, in scikit-learn's words first."""
        attributes: dict[str, Any] = {"n_features_in_": self.n_columns}
        if self.column_names is not None:
            attributes["feature_names_in_"] = np.asarray(self.column_names, dtype=object)
        fitted = type(self.name, (), attributes)()  # all that scikit-learn reads of an estimator
        try:
            _check_feature_names(fitted, X, reset=False)
            _check_n_features(fitted, X, reset=False)
        except ValueError as error:
            raise SchemaError(f"{error} Pass the columns of fit, in their order.") from error
        expected = [feature.name for feature in self.table.features]
        missing = [name for name in expected if name not in inputs.columns]
        unknown = [name for name in inputs.columns if name not in expected]
        if missing or unknown:
            raise SchemaError(
                f"X does not have the columns of fit: missing {missing}, unknown {unknown}."
            )


class OutcomeResponse(NamedTuple):
    """Predictions of one task as a differentiable function of its support's outcomes.

    All on the learner's scale, in double precision.
    """

    predict: Callable[[Tensor], Tensor]  # outcomes of the support (point,) -> means (query,)
    y: Tensor  # (point,) outcomes of the support
    expected: Tensor  # (point,) what the population predicts of them
    population: Tensor  # (query,) what the population predicts of the query


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskModel(RowReader, ABC):
    """What is fitted: reads and encodes rows, adapts to supports, predicts queries.

    It holds no row of a training task and never changes. Estimators make one at ``fit`` (their
    attribute `model_`), and `Adapted` predicts by one, but it needs neither: read a support with
    `read_support`, `adapt` to it, and `predict` the rows that `read` and ``table.rows`` encode.

    A subclass is a dataclass of what was learned. It defines `predict`, and `adapt` where something
    is worth computing once per task; the others where the model has more to say.

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
        """State of every task: whatever is worth computing once per task, for all queries."""
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
        """Query row, support row (-1 for the population) and weight, as triples."""
        raise DataError(
            f"{self.name} does not predict by weighing the support's rows. Use MetaRegressor or "
            "MetaClassifier with MatchingNet."
        )

    def effects(self, support: TaskRows, state: Any) -> tuple[Array, float]:
        """Individual effect of every task, (task,), and the prior sd of such effects; NaN: none."""
        return np.full(support.n_tasks, np.nan), np.nan

    def atypical(self, support: TaskRows) -> Array:
        """Prior-predictive p-value of every support, (task,); NaN without a distribution."""
        return np.full(support.n_tasks, np.nan)

    def response(self, support: TaskRows, query: TaskRows) -> OutcomeResponse | None:
        """How the mean predictions of one task follow its outcomes, where that has a derivative."""
        return None

    def digests(self, state: Any) -> tuple[str, str]:
        """SHA-256 of the parameters and of an adapted state, for audit records."""
        raise DataError(
            f"{self.name} keeps no audit records: use a MetaRegressor or a MetaClassifier."
        )

    def to_state(self) -> State:
        """Tensors and JSON-safe metadata from which ``from_state`` makes the same model.

        Raises
        ------
        BundleError
            The model is one that a file cannot hold.
        """
        raise BundleError(
            f"{self.name} cannot be saved: a file holds a MetaRegressor or a MetaClassifier. Keep "
            "the training script and fit it again."
        )


def task_numbers(
    groups: npt.NDArray[Any] | None, labels: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Each row's place among the labels, (row,); -1 where its task was not adapted."""
    if groups is None:
        raise GroupError(
            f"groups is missing: the model was adapted to {len(labels):,} named tasks, so pass "
            "groups= with the task of every row."
        )
    _refuse_other_ids(groups, labels)
    return np.asarray(pd.Index(labels).get_indexer(groups), np.int64)


def _refuse_other_ids(groups: npt.NDArray[Any], labels: Labels) -> None:
    """Ids must be numbers where they were numbers, and text where they were text."""
    if labels is not None and (groups.dtype == object) != (labels.dtype == object):
        here, before = ("text", "numbers") if groups.dtype == object else ("numbers", "text")
        raise GroupError(
            f"groups holds {here}, but the model was adapted to ids that are {before}: convert "
            "them to one type."
        )


def refuse_new(codes: npt.NDArray[np.int64]) -> None:
    """Every row must be of an adapted task; `codes` (row,) is negative where it is not."""
    new = codes < 0
    if new.any():
        raise GroupError(
            f"{int(new.sum()):,} of {len(new):,} rows (first: row "
            f"{int(np.flatnonzero(new)[0])}) belong to tasks that were not adapted.",
            Remedy("new-groups", "Adapt them first, or pass new_groups='population' or 'nan'."),
        )


def _refuse_repeats(support: TaskRows) -> None:
    """A patient has one row at a time."""
    same = (support.time.diff() == 0) & (support.codes.diff() == 0)
    if bool(same.any()):
        raise DataError(
            f"{int(same.sum()):,} rows of the update repeat the time of a row that their task "
            f"already has (first in task {int(support.codes[1:][same][0])} of "
            f"{support.n_tasks}). Pass only new visits."
        )


def last_times(support: TaskRows) -> Array:
    """Time of every task's last support row, (task,), and last -inf for tasks not adapted."""
    ends, adapted = support.starts[1:].numpy(), support.sizes.numpy() > 0
    last = np.full(support.n_tasks + 1, -np.inf)
    last[:-1][adapted] = support.time.numpy()[ends[adapted] - 1]
    return last


def warn_of_looking_back(
    time: Array | None, codes: npt.NDArray[np.int64], last_time: Array
) -> None:
    """Warn of rows, (row,), that are not later than the last support row of their task, (task,)."""
    if time is None:
        return
    back = np.flatnonzero(time <= last_time[codes])
    if len(back):
        warnings.warn(
            f"{len(back):,} of {len(time):,} rows (first: row {back[0]}, of task "
            f"{codes[back[0]]} of {len(last_time) - 1:,}) are not later than the last row that "
            "their task was adapted to: they are predicted knowing outcomes of their own time or "
            "later, which no forecast does. Adapt to earlier rows only.",
            DataWarning,
            stacklevel=6,
        )


def warn_of_atypical_tasks(p: Array) -> None:
    """Warn of tasks whose supports have small prior-predictive p-values, (task,)."""
    p = np.nan_to_num(p, nan=1.0)
    odd = np.flatnonzero(p < _ATYPICAL / len(p))  # Bonferroni: many tasks, more chance
    if len(odd):
        warnings.warn(
            f"{len(odd):,} of {len(p):,} adapted tasks (first: task {odd[0]}) have supports "
            f"unlike the training tasks (prior-predictive p < {_ATYPICAL} / number of tasks); see "
            "atypical_. Check units and values before relying on predictions.",
            AtypicalWarning,
            stacklevel=6,
        )
