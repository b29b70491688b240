"""Adapted tasks: individual predictions from a few observations of each task."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from ehrmeta.data.groups import respelled, warn_of_respelled
from ehrmeta.errors import BundleError, DataError
from ehrmeta.estimators import explain, files
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.meta_model import MetaModel
from ehrmeta.estimators.predictions import (
    FrameNames,
    FrameType,
    Prediction,
    check_frame,
    join_rows,
    prediction_frame,
    refuse_overflow,
)
from ehrmeta.estimators.task_model import (
    Labels,
    TaskModel,
    check_new_groups,
    last_times,
    refuse_new,
    task_numbers,
    warn_of_atypical_tasks,
    warn_of_past_rows,
)
from ehrmeta.nn.batch import TaskRows
from ehrmeta.persistence.audit import append_audit_record, read_key
from ehrmeta.ranges import check_level

Array = npt.NDArray[np.float64]
NewGroups = Literal["error", "population", "nan"]
Summary: TypeAlias = Callable[[Prediction], npt.NDArray[Any]]
Summarise: TypeAlias = Callable[[Prediction], dict[str, npt.NDArray[Any]]]


class Adapted(files.Saved):
    """One or many tasks adapted to their supports; returned by ``model.adapt``.

    Immutable: `update` returns a new object. It holds the encoded support, so it is patient data.

    Attributes
    ----------
    model : TaskModel
        The model that was adapted.
    labels_ : ndarray, (task,), or None
        Ids of the adapted tasks, sorted; None for one task without an id.
    n_shots_ : ndarray, (task,)
        Support rows of every task.
    """

    file_kind: ClassVar[str] = "adapted"

    def __init__(
        self,
        model: TaskModel,
        labels: Labels,
        support: TaskRows,
        transform: Callable[[Any], Any] | None = None,
        *,
        state: Any = None,
    ) -> None:
        self.model = model
        self.transform = transform  # a pipeline's steps before the model
        self.labels_ = labels
        self.n_shots_ = support.sizes.numpy()
        self._support = support
        self._state = state
        if state is None:
            self._state = model.adapt(support)
            warn_of_atypical_tasks(self.atypical_)

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Class labels of a classifier: the columns of `predict_proba`."""
        labels: npt.NDArray[Any] = self.model.table.outcome.labels
        return labels

    @property
    def n_tasks(self) -> int:
        """Number of adapted tasks."""
        return self._support.n_tasks

    def predict(
        self, X: Any, *, groups: Any = None, time: Any = None, new_groups: NewGroups = "error"
    ) -> npt.NDArray[Any]:
        """Adapted prediction of every row: its predictive mean, or its likeliest class.

        Parameters
        ----------
        X : frame or array, (row, feature)
            Rows to predict for.
        groups : array, (row,)
            Task of every row; not needed for one task without an id.
        time : array, (row,), optional
            Needed if the model was fitted with time. A `DataWarning` reports rows that are not
            later than the last support row of their task.
        new_groups : {"error", "population", "nan"}
            For rows of tasks that were not adapted: raise, predict by the population model, or
            return NaN.

        Returns
        -------
        ndarray, (row,)
        """
        return self._apply(X, groups, time, new_groups, lambda p: p.point())

    def predict_proba(
        self, X: Any, *, groups: Any = None, time: Any = None, new_groups: NewGroups = "error"
    ) -> Array:
        """Probability of every class, (row, class), in the order of the model's ``classes_``."""
        return self._apply(X, groups, time, new_groups, lambda p: p.probabilities())

    def predict_quantiles(
        self,
        X: Any,
        levels: Sequence[float] = (0.05, 0.5, 0.95),
        *,
        groups: Any = None,
        time: Any = None,
        new_groups: NewGroups = "error",
    ) -> Array:
        """Quantiles of the predictive distribution, (row, level)."""
        levels = np.atleast_1d(levels).tolist()
        if not levels or not all(0.0 < level < 1.0 for level in levels):
            raise DataError(f"levels must lie strictly between 0 and 1, got {levels}.")
        return self._apply(
            X, groups, time, new_groups, lambda p: np.column_stack([*map(p.quantile, levels)])
        )

    def predict_interval(
        self,
        X: Any,
        *,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.9,
        new_groups: NewGroups = "error",
    ) -> Array:
        """Central interval for a new observation, (row, 2); 90 % by default."""
        level = check_level(confidence_level)
        return self._apply(X, groups, time, new_groups, lambda p: p.interval(level))

    def predict_frame(
        self,
        X: Any,
        *,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.9,
        new_groups: NewGroups = "error",
        names: FrameNames = "ehrmeta",
        as_: FrameType = "pandas",
    ) -> Any:
        """Predictions as a data frame, one row per row of X.

        Parameters
        ----------
        X, groups, time, new_groups
            As in `predict`.
        confidence_level : float, default 0.9
            Of the intervals, or of the prediction sets of calibrated classes.
        names : {"ehrmeta", "meds"}
            Of two classes, "meds" gives `subject_id`, `prediction_time` and
            `predicted_boolean_probability`, as evaluators of MEDS labels read them.
        as_ : {"pandas", "polars"}

        Returns
        -------
        DataFrame
            `task` and `time`, where given (dates with a time zone are in UTC); `mean`, `lower` and
            `upper` of numbers, NaN where the model has no interval. Of classes: the likeliest
            `class`, and `risk` (of the second of two classes) or `risk_LABEL` of every class; if
            calibrated, also `in_set_LABEL`.

        Examples
        --------
        >>> from ehrmeta.baselines import MixedEffects
        >>> X, groups = np.zeros((300, 1)), np.repeat(np.arange(50), 6)
        >>> y = np.random.default_rng(0).normal(10, 2, 50)[groups] + 0.1 * np.tile([-1, 1], 150)
        >>> patients = (
        ...     MixedEffects()
        ...     .fit(X, y, groups=groups)
        ...     .adapt(X[:4], [14.0, 14.0, 8.0, 8.0], groups=["a", "a", "b", "b"])
        ... )
        >>> patients.predict_frame(X[:2], groups=["b", "a"]).round(0)
          task  mean  lower  upper
        0    b   8.0    8.0    8.0
        1    a  14.0   14.0   14.0
        """
        level = check_frame(confidence_level, as_, names)
        inputs, columns = self._columns(X, groups, time, new_groups, lambda p: p.columns(level))
        return prediction_frame(X, inputs, columns, as_=as_, names=names)

    def columns_of(
        self, inputs: Inputs, codes: npt.NDArray[np.int64], confidence_level: float
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of `predict_frame` for rows as read; `codes` (row,) are their task numbers."""
        every = np.ones(len(codes), bool)
        return self._summary(lambda p: p.columns(confidence_level), inputs, codes, every)

    def predict_distribution(self, X: Any, *, groups: Any = None, time: Any = None) -> Prediction:
        """Predictive distribution of every row, for scores such as the CRPS.

        A regressor's is normal or Student's t on the learner's scale (`loc`, `scale`, `dof`), with
        the `outcome` scale that maps it back.
        """
        return self._predict(*self._read(X, groups, time))

    def own_weight(self, X: Any, *, groups: Any = None, time: Any = None) -> Array:
        """Weight of the task's own rows in a prediction, (row,).

        ``1 - posterior / prior variance`` of the latent outcome: 0 for the population model, 1 for
        the task's own data. NaN for learners without a posterior.
        """
        query = self._query(X, groups, time)
        weight = self.model.own_weight(self._support, self._state, query)
        return weight[np.argsort(query.origin.numpy())]

    def explain(
        self, X: Any, *, groups: Any = None, time: Any = None, target: Any = None
    ) -> pd.DataFrame:
        """Contribution of every support row to a prediction; contributions add up to it.

        For numbers, a support row contributes its surprise (observed minus population prediction)
        times its weight. The weight is the coefficient of the row's outcome in linear learners; in
        others it is the derivative of the prediction with respect to that outcome, averaged from
        the expected to the observed outcomes. `visits` is the contribution of visit times and
        measured features. For classes and baselines, a row contributes the change of the prediction
        when it is left out; `rest` is the remainder. With an outcome transform, contributions are
        on the transformed scale.

        Parameters
        ----------
        X, groups, time
            As in `predict`.
        target : class label, optional
            Class whose probability is explained; by default the second of two classes.

        Returns
        -------
        DataFrame
            `row` (of X), `part` (population, visits, value or rest), `support_row` (as in
            `support_weights`; -1 for other parts), `before` (time from the support row to the row),
            `surprise`, `weight`, `contribution`, and the row's `own_weight`.
        """
        query = self._query(X, groups, time)
        return explain.explain_rows(self.model, self._support, self._state, query, target)

    def explain_features(
        self,
        X: Any,
        *,
        background: Any,
        groups: Any = None,
        time: Any = None,
        target: Any = None,
        n_samples: int = 50,
        random_state: int = 0,
    ) -> pd.DataFrame:
        """Shapley values of the features of every adapted prediction.

        Features change, in random order, from the values of a background row to those of the row;
        each contributes the mean change that it makes. Static and measured features change in the
        task's support rows as well; its outcomes and times do not. The contribution of a static
        feature therefore shrinks as outcomes of the task arrive.

        For importance over many patients, use scikit-learn's `permutation_importance` with a model
        that has ``task=`` and ``time=``.

        Parameters
        ----------
        X, groups, time
            As in `predict`.
        background : frame or array, (row, feature)
            Rows of other patients to compare with, such as training rows, without time.
        target
            As in `explain`.
        n_samples : int
            Background rows drawn, each with a random order of the features and its reverse.
        random_state : int

        Returns
        -------
        DataFrame
            `row` (of X), `part` ("base", the mean prediction with background features, or
            "feature"), `feature`, its `value` in the row (None for measured features, which come
            from the support), `contribution`, and its sampling standard `error`. Contributions of a
            row have the same sum as those of `explain`.

        Examples
        --------
        >>> from ehrmeta.baselines import MixedEffects
        >>> rng = np.random.default_rng(0)
        >>> X, groups = rng.normal(size=(300, 2)), np.repeat(np.arange(50), 6)
        >>> y = 2 * X[:, 0] + rng.normal(size=50)[groups] + rng.normal(0, 0.1, 300)
        >>> patient = MixedEffects().fit(X, y, groups=groups).adapt([[0, 0]], [1.0])
        >>> parts = patient.explain_features([[1.0, 1.0]], background=X)
        >>> parts["feature"].tolist(), float(parts["contribution"][1].round(1))
        (['', 'x0', 'x1'], 2.0)
        """
        inputs, codes = self._read(X, groups, time)
        drawn = self._transformed(explain.draw_rows(background, n_samples, random_state))
        return explain.explain_features(
            self.model,
            self._support,
            self.model.table.rows(inputs, codes, self.n_tasks),
            explain.encode_background(self.model, drawn),
            target,
            columns=inputs.columns,
            n_samples=n_samples,
            seed=random_state,
        )

    def support_weights(self, X: Any, *, groups: Any = None, time: Any = None) -> pd.DataFrame:
        """Attention weights of the support rows, for learners such as `MatchingNet`.

        Returns
        -------
        DataFrame
            `row` (of X), `support_row` (counted over the rows passed to `adapt` and each `update`;
            -1 for the population) and `weight`, in descending order; weights of a row sum to 1.
        """
        query = self._query(X, groups, time)
        triples = self.model.support_weights(self._support, self._state, query)
        table = pd.DataFrame(dict(zip(("row", "support_row", "weight"), triples, strict=True)))
        ascending = [True, False, True]
        return table.sort_values(
            ["row", "weight", "support_row"], ascending=ascending, ignore_index=True
        )

    def update(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Self:
        """Add rows to the supports and adapt again; new groups become new tasks."""
        rows = self._transformed(X), y
        more = self.model.read_more(self.labels_, self._support, *rows, groups=groups, time=time)
        return self.with_support(*more)

    def unadapted(self) -> Self:
        """The population model: one task with an empty support."""
        return self.with_support(None, self.model.no_rows())

    def to_state(self) -> files.State:
        """Model, encoded support rows and labels.

        The file is patient data and marked so: protect it like the records.
        """
        if self.transform is not None:
            raise BundleError(
                "tasks adapted by a pipeline cannot be saved: a file cannot hold its transformers. "
                "Save the model, transform the rows yourself, and adapt again after loading."
            )
        tensors, metadata = self.model.to_state()
        tensors = tensors | files.support_tensors(self._support)
        if (labels := self.labels_) is not None:
            tensors["labels"] = files.label_bytes(labels)
        return tensors, metadata | {
            "kind": "adapted",
            "contains_patient_data": True,
            "labels": None if labels is None else files.label_type(labels),
        }

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: files.Json, device: str = "auto", **more: Any
    ) -> Self:
        """The inverse of `to_state`; subclasses pass further arguments of the class in `more`."""
        model = MetaModel.from_state(tensors, metadata, device)
        support = files.read_support(tensors, model.no_rows())
        labels = None
        if metadata["labels"] is not None:
            labels = files.read_label_bytes(tensors["labels"], metadata["labels"], support.n_tasks)
        return cls(model, labels, support, **more)

    def add_audit_record(self, path: str | os.PathLike[str], *, key_file: Any = None) -> None:
        """Append the time and the numbers of tasks and rows to a file, as a line of JSON.

        No value or label is written. With a key, from `key_file` or the variable EHRMETA_AUDIT_KEY,
        the line holds HMAC-SHA256 digests of the parameters (`model`), the adapted state (`output`)
        and the line before it. Raises a `DataError` if the file or the key cannot be used.
        """
        digests = dict(zip(("model", "output"), self.model.digests(self._state), strict=True))
        rows = {"n_tasks": self.n_tasks, "n_rows": self._support.n_rows}
        append_audit_record(path, rows, digests, read_key(key_file))

    @cached_property
    def effects_(self) -> tuple[Array, float]:
        """Individual effect of every task, (task,), and its prior sd.

        The effect is the task's mean shift from the population model on the learner's scale; NaN
        for models without such effects.
        """
        return self.model.effects(self._support, self._state)

    @property
    def eta_shrinkage_(self) -> float:
        """Shrinkage ``1 - sd(individual effect) / prior sd`` over tasks; 1 means no adaptation."""
        effects, prior = self.effects_
        return float(1.0 - np.std(effects[self.n_shots_ > 0]) / prior)

    @cached_property
    def atypical_(self) -> Array:
        """Prior-predictive p-value of every support, (task,); small if it is atypical."""
        return self.model.atypical(self._support, self._state)

    def __repr__(self) -> str:
        low, high = self.n_shots_.min(), self.n_shots_.max()
        tasks = "1 task" if self.n_tasks == 1 else f"{self.n_tasks:,} tasks"
        shots = f"{low}-{high}" if low < high else f"{low}"
        return f"{type(self).__name__}({tasks}, {shots} shots each, {self.model.name})"

    def with_support(self, labels: Labels, support: TaskRows) -> Self:
        """Adapt the same model to another support."""
        return type(self)(self.model, labels, support, self.transform)

    def _calibrated(
        self, prediction: Prediction, inputs: Inputs, n_shots: npt.NDArray[np.int64]
    ) -> Prediction:
        """Predictions after calibration, if any; `n_shots` (row,) is each row's support size."""
        return prediction

    def _apply(
        self, X: Any, groups: Any, time: Any, new_groups: NewGroups, summary: Summary
    ) -> npt.NDArray[Any]:
        """Summary of the predictive distributions, as one array."""
        return self._columns(X, groups, time, new_groups, lambda p: {"": summary(p)})[1][""]

    def _columns(
        self, X: Any, groups: Any, time: Any, new_groups: NewGroups, summarise: Summarise
    ) -> tuple[Inputs, dict[str, npt.NDArray[Any]]]:
        """The rows as read, and columns that summarise the predictive distributions.

        Rows of tasks that were not adapted are predicted as `new_groups` says.
        """
        check_new_groups(new_groups)
        inputs, codes = self._read(X, groups, time, allow_new=new_groups != "error")
        known = codes >= 0
        if known.all():
            return inputs, self._summary(summarise, inputs, codes, known)
        adapted = new = None
        if known.any():
            adapted = new = self._summary(summarise, inputs, np.where(known, codes, 0), known)
        if new is None or new_groups == "population":
            new = self.unadapted()._summary(summarise, inputs, np.zeros_like(codes), ~known)
        return inputs, join_rows(known, adapted, new, is_missing=new_groups == "nan")

    def _summary(
        self,
        summarise: Summarise,
        inputs: Inputs,
        codes: npt.NDArray[np.int64],
        rows: npt.NDArray[np.bool_],
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns that summarise the predictions of the masked rows, with tasks `codes` (row,)."""
        prediction = self._calibrated(self._predict(inputs, codes), inputs, self.n_shots_[codes])
        try:
            columns = summarise(prediction.take(np.flatnonzero(rows)))
        except DataError as error:
            raise DataError(f"{self.model.name}:", *error.args) from error
        if isinstance(self.model, MetaModel):
            refuse_overflow(columns)
        return columns

    def _predict(self, inputs: Inputs, codes: npt.NDArray[np.int64]) -> Prediction:
        """Predictive distributions of the model, in the order of the rows."""
        query = self.model.table.rows(inputs, codes, self.n_tasks)
        prediction = self.model.predict(self._support, self._state, query)
        return prediction.take(np.argsort(query.origin.numpy()))

    def _read(
        self, X: Any, groups: Any, time: Any, *, allow_new: bool = False
    ) -> tuple[Inputs, npt.NDArray[np.int64]]:
        """Rows and their task numbers, (row,); -1 for tasks that were not adapted, if allowed."""
        inputs = self.model.read(self._transformed(X), groups=groups, time=time)
        codes = task_numbers(inputs, self.labels_, self._support.n_rows)
        warn_of_past_rows(inputs.time, codes, self._last_time)
        if not allow_new:
            refuse_new(codes, inputs.groups, self.labels_)
        elif inputs.groups is not None and (codes < 0).any():
            warn_of_respelled(respelled(inputs.groups[codes < 0], self.labels_))
        return inputs, codes

    def _query(self, X: Any, groups: Any, time: Any) -> TaskRows:
        return self.model.table.rows(*self._read(X, groups, time), self.n_tasks)

    def _transformed(self, X: Any) -> Any:
        return X if self.transform is None else self.transform(X)

    @cached_property
    def _last_time(self) -> Array:
        return last_times(self._support)
