"""Adapted tasks: individual predictions from a few observations each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ehrmeta.errors import DataError
from ehrmeta.estimators.adapted_checks import (
    last_times,
    refuse_new,
    warn_of_atypical_tasks,
    warn_of_looking_back,
)
from ehrmeta.estimators.adapted_explained import Explained
from ehrmeta.estimators.adapted_rows import task_numbers, with_more_rows
from ehrmeta.estimators.audit import add_audit_record
from ehrmeta.estimators.files import load_adapted, save_adapted
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.predictive import Prediction
from ehrmeta.nn.batch import TaskRows

if TYPE_CHECKING:
    from ehrmeta.estimators._base import TaskEstimator

__all__ = ["Adapted", "NewGroups"]

Array = npt.NDArray[np.float64]
Summary = TypeVar("Summary")
NewGroups = Literal["error", "population", "nan"]


class Adapted(Explained):
    """One or many tasks adapted from their supports; made by ``model.adapt``.

    It is never changed: `update` returns a new one. It holds the encoded support, so it is patient
    data.

    Attributes
    ----------
    labels_ : ndarray, (task,), or None
        The groups it was adapted to, sorted; None for one task without a name.
    n_shots_ : ndarray, (task,)
        Support rows of every task.
    """

    def __init__(
        self,
        model: TaskEstimator,
        labels: npt.NDArray[Any] | None,
        support: TaskRows,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.model = model
        self.transform = transform  # a pipeline's steps before the model
        self.labels_ = labels
        self.n_shots_ = support.sizes.numpy()
        self._support = support
        self._state = model._adapt_tasks(support)
        warn_of_atypical_tasks(self.atypical_)

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
            Task of every row; not needed for one task without a name.
        time : array, (row,), optional
            Needed where the model was fitted with time. Rows that are not strictly later than the
            last row that their task was adapted to are predicted with a `DataWarning`.
        new_groups : {"error", "population", "nan"}
            What a row of a task that was not adapted gets.

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

        def quantiles(predictive: Prediction) -> Array:
            return np.column_stack([predictive.quantile(level) for level in levels])

        return self._apply(X, groups, time, new_groups, quantiles)

    def predict_interval(
        self,
        X: Any,
        *,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.9,
        new_groups: NewGroups = "error",
    ) -> Array:
        """Central interval for a new observation, (row, 2): lower and upper end."""
        if not 0.0 < confidence_level < 1.0:
            raise DataError(
                f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
            )
        tail = 0.5 * (1.0 - confidence_level)
        return self.predict_quantiles(
            X, (tail, 1.0 - tail), groups=groups, time=time, new_groups=new_groups
        )

    def predict_distribution(self, X: Any, *, groups: Any = None, time: Any = None) -> Prediction:
        """The predictive distributions themselves, one per row: for scores such as the CRPS.

        A regressor's are normal or Student's t on the learner's scale (`loc`, `scale`, `dof`), with
        the `outcome` scale that maps them back.
        """
        inputs, codes = self._read(X, groups, time)
        refuse_new(codes)
        return self._summary(lambda prediction: prediction, inputs, codes)

    def update(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> Adapted:
        """A new `Adapted` with more rows in the supports; new groups join as new tasks."""
        inputs = self.model._read_fitted(self._transformed(X), y, groups, time)
        inputs.outcome()
        labels, support = with_more_rows(self.model, self.labels_, self._support, inputs)
        return Adapted(self.model, labels, support, self.transform)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the adapted tasks to one file: patient data, marked so within the file.

        It holds the model, the encoded support rows and the labels. Keep it where you keep the
        records themselves.

        Parameters
        ----------
        path : str or path-like
            By convention ``"name.ehrmeta"``.

        Raises
        ------
        BundleError
            The model is one that a file cannot hold, or the file cannot be written.
        """
        save_adapted(self, path)

    def add_audit_record(self, path: str | os.PathLike[str]) -> None:
        """Add a line of JSON to a file: that and how a model was adapted, and nothing about whom.

        Time, digest of the model, counts of tasks and rows, digest of the adapted state: no value
        and no label of a patient.

        Raises
        ------
        DataError
            The file cannot be written, or the model is a baseline.
        """
        add_audit_record(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Adapted:
        """Read tasks written by `save`; they predict bit for bit the same on the same device.

        Parameters
        ----------
        path : str or path-like
        device : str
            Where to compute, wherever the model was trained.

        Raises
        ------
        BundleError
            The file is missing, damaged, or holds something else.
        """
        return load_adapted(path, device=device)

    @property
    def eta_shrinkage_(self) -> float:
        """``1 - sd(individual effect) / prior sd`` over the adapted tasks: 1 is the population."""
        effects, prior = self.model._effects(self._support, self._state)
        return float(1.0 - np.std(effects[self.n_shots_ > 0]) / prior)

    @cached_property
    def atypical_(self) -> Array:
        """Prior-predictive p-value of every task's support, (task,): small is unlike training."""
        return self.model._atypical(self._support)

    def __repr__(self) -> str:
        shots = self.n_shots_
        span = f"{shots.min()}-{shots.max()}" if shots.min() < shots.max() else f"{shots.min()}"
        tasks = "1 task" if self.n_tasks == 1 else f"{self.n_tasks:,} tasks"
        return f"Adapted({tasks}, {span} shots each, {type(self.model).__name__})"

    def _apply(
        self,
        X: Any,
        groups: Any,
        time: Any,
        new_groups: NewGroups,
        summary: Callable[[Prediction], npt.NDArray[Any]],
    ) -> npt.NDArray[Any]:
        """A summary of the predictive distributions, with the rows of unknown tasks dealt with."""
        if new_groups not in ("error", "population", "nan"):
            raise DataError(
                f"new_groups must be 'error', 'population' or 'nan', got {new_groups!r}."
            )
        inputs, codes = self._read(X, groups, time)
        known = codes >= 0
        if known.all():
            return self._summary(summary, inputs, codes)
        if new_groups == "error":
            refuse_new(codes)
        prior = self.model.unadapted() if self.labels_ is not None else self
        everyone = prior._summary(summary, inputs, np.zeros_like(codes))
        if new_groups == "nan":
            missing = np.float64 if everyone.dtype.kind in "biuf" else object
            everyone = np.full(everyone.shape, np.nan, missing)
        if known.any():
            own = self._summary(summary, inputs, np.where(known, codes, 0))
            everyone[known] = own[known]
        return everyone

    def _summary(
        self,
        summary: Callable[[Prediction], Summary],
        inputs: Inputs,
        codes: npt.NDArray[np.int64],
    ) -> Summary:
        query = self.model.table_.rows(inputs, codes, self.n_tasks)
        prediction = self.model._predict_tasks(self._support, self._state, query)
        try:
            return summary(prediction.take(np.argsort(query.origin.numpy())))
        except DataError as error:
            raise DataError(f"{type(self.model).__name__}:", *error.args) from error

    def _read(self, X: Any, groups: Any, time: Any) -> tuple[Inputs, npt.NDArray[np.int64]]:
        """The rows and each one's task number; -1 where its task was not adapted."""
        inputs = self.model._read_fitted(self._transformed(X), None, groups, time)
        codes = np.zeros(inputs.n_rows, np.int64)
        if self.labels_ is not None:
            codes = task_numbers(inputs.groups, self.labels_)
        warn_of_looking_back(inputs.time, codes, self._last_time)
        return inputs, codes

    def _transformed(self, X: Any) -> Any:
        return X if self.transform is None else self.transform(X)

    @cached_property
    def _last_time(self) -> Array:
        return last_times(self._support)
