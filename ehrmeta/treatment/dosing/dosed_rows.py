"""Doses and responses of many patients over time, checked and in order."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names, _check_n_features

from ehrmeta.data import Schema
from ehrmeta.errors import DataError, GroupError, NotFittedError, RenamedWarning
from ehrmeta.estimators.inputs import Inputs, outcome_name, read_inputs, schema_of
from ehrmeta.treatment.arms import AnyArray, Array, Dose, Index
from ehrmeta.treatment.treated_rows import check_columns, read_times

Adapted = TypeVar("Adapted")


@dataclass(frozen=True, eq=False)
class DosedRows:
    """Rows by patient, then by time."""

    columns: dict[str, AnyArray]  # (row,): features
    y: Array  # (row,): response, or its logarithm
    # dose, time (row,)
    dose: Array
    time: Array
    starts: Index  # (patient + 1,): offsets of the patients
    labels: AnyArray | None  # (patient,)

    @property
    def patient(self) -> Index:
        """Number of the patient of every row, (row,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @classmethod
    def none(cls) -> DosedRows:
        """One patient without rows."""
        empty = np.zeros(0)
        return cls({}, empty, empty, empty, np.zeros(2, np.int64), None)


def read_rows(
    inputs: Inputs,
    dose: Array,
    dose_time: Any,
    schema: Schema | None,
    *,
    log_dose: bool,
    log_outcome: bool,
) -> DosedRows:
    """Check and sort rows.

    Raises
    ------
    DataError
        There is no time, a dose was given after its response, or a logarithm does not exist.
    """
    y, time, tasks = inputs.outcome(), inputs.time, inputs.tasks()
    if time is None:
        raise DataError("time is missing: doses act over time. Pass time= of every row.")
    if len(dose) != inputs.n_rows:
        raise DataError(
            f"dose has {len(dose):,} rows, X has {inputs.n_rows:,}. Pass one value a row of X."
        )
    _check_order(dose_time, time, schema)
    if log_dose:
        _refuse_no_log(dose, "the dose")
    if log_outcome:
        _refuse_no_log(y, "the response")
    order = tasks.order
    return DosedRows(
        {name: values[order] for name, values in inputs.columns.items()},
        (np.log(y) if log_outcome else y)[order],
        dose[order],
        time[order],
        tasks.starts,
        None if inputs.groups is None else tasks.labels,
    )


@dataclass(frozen=True)
class DosedReader:
    """Reads a user's rows of patients."""

    schema: Schema | None
    task: str | None  # column of X that names the patient
    columns: tuple[str, ...] | None = None  # of X at fit, which later rows must have

    def read(self, X: Any, y: Any, groups: Any, time: Any) -> Inputs:
        """Rows with the columns of fit."""
        inputs = read_inputs(
            X,
            y,
            groups=groups,
            time=time,
            task_column=self.task,
            clock=self.schema.time if self.schema is not None else None,
            outcome=outcome_name(self.schema),
        )
        if self.columns is not None:
            check_columns(inputs, self.columns)
        return inputs


def patients_of(inputs: Inputs, labels: AnyArray | None) -> Index:
    """Number of the adapted patient of every row; 0 of one without a name.

    Raises
    ------
    GroupError
        Patients are not named, or were not adapted.
    """
    if labels is None:
        return np.zeros(inputs.n_rows, np.int64)
    if inputs.groups is None:
        raise GroupError(
            f"groups is missing: the model was adapted to {len(labels):,} named "
            "patients, so pass groups= with the patient of every row."
        )
    task: Index = pd.Index(labels).get_indexer(inputs.groups).astype(np.int64)
    if (task < 0).any():
        raise GroupError(
            f"{int((task < 0).sum()):,} of {len(task):,} rows (first: row "
            f"{int(np.argmax(task < 0))}) belong to patients that were not adapted. Adapt them "
            "first, or ask unadapted()."
        )
    return task


def _check_order(dose_time: Any, time: Array, schema: Schema | None) -> None:
    """A dose given after the response is none that it could follow."""
    if dose_time is None:
        return
    late = np.flatnonzero(read_times(dose_time, "dose_time", schema, len(time)) > time)
    if len(late):
        raise DataError(
            f"the dose was given after its response in {len(late):,} of {len(time):,} rows (first: "
            f"row {late[0]}): it cannot be its cause. Leave those rows out, or check which time is "
            "which."
        )


def _refuse_no_log(values: Array, what: str) -> None:
    low = np.flatnonzero(values <= 0)
    if len(low):
        raise DataError(
            f"{what} is 0 or below in {len(low):,} of {len(values):,} rows (first: row {low[0]}), "
            "which has no logarithm. Leave those rows out, or use the linear scale."
        )


class DosedEstimator(BaseEstimator, Generic[Adapted]):
    """Doses and outcomes of patients over time, and adapting to new ones.

    A derived class learns in `fit`, from the rows of `_training_rows`, and says what it adapts to.
    """

    schema: Schema | None
    task: str | None
    dose_: Dose
    reader_: DosedReader
    __metadata_request__fit: ClassVar[dict[str, bool]] = dict.fromkeys(
        ("treatment", "groups", "time", "dose_time", "dose"), True
    )

    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any = None,
        groups: Any = None,
        time: Any = None,
        dose_time: Any = None,
        dose: Any = None,
    ) -> Adapted:
        """Adapt to new patients from their first rows, without refitting.

        Parameters
        ----------
        X, y, treatment, groups, time, dose_time, dose
            The support rows, as in `fit`. Without groups they are one patient.

        Returns
        -------
        AdaptedDoses or AdaptedCompartment
        """
        self._check_is_fitted()
        treatment = given_dose(treatment, dose)
        inputs = self.reader_.read(X, y, groups, time)
        if inputs.n_rows == 0:
            return self.unadapted()
        return self._adapted(self._rows(inputs, treatment, dose_time))

    @abstractmethod
    def unadapted(self) -> Adapted:
        """The population: a new patient without rows."""

    @abstractmethod
    def _adapted(self, rows: DosedRows) -> Adapted: ...

    @property
    def _log_dose(self) -> bool:
        return False

    @property
    def _log_outcome(self) -> bool:
        return False

    def _training_rows(
        self, X: Any, y: Any, dose: Any, groups: Any, time: Any, dose_time: Any
    ) -> DosedRows:
        """Rows of several patients; what later calls are checked by is kept."""
        reader = DosedReader(schema_of(self.schema, X), self.task)
        inputs = reader.read(X, y, groups, time)
        if inputs.groups is None:
            raise GroupError("groups is missing: pass the patient of every row.")
        self.reader_ = replace(reader, columns=tuple(inputs.columns))
        if inputs.n_rows == 0:
            raise DataError("X has no rows: pass the rows of several patients.")
        self.dose_ = Dose.fit(dose, "dose")
        rows = self._rows(inputs, dose, dose_time)
        if len(rows.starts) < 3:
            raise GroupError("groups names one patient for all rows: pass the rows of several.")
        _check_feature_names(self, X, reset=True)
        _check_n_features(self, X, reset=True)
        return rows

    def _rows(self, inputs: Inputs, dose: Any, dose_time: Any) -> DosedRows:
        return read_rows(
            inputs,
            self.dose_.codes(dose, "dose"),
            dose_time,
            self.reader_.schema,
            log_dose=self._log_dose,
            log_outcome=self._log_outcome,
        )

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            name = type(self).__name__
            raise NotFittedError(f"this {name} is not fitted yet. Call fit first.")

    @abstractmethod
    def __sklearn_is_fitted__(self) -> bool: ...


def given_dose(treatment: Any, dose: Any) -> Any:
    """The dose of every row, also under the argument's old name, which is warned of."""
    if dose is not None:
        warnings.warn(
            "dose= has a new name: pass treatment=. The old one works for one release more.",
            RenamedWarning,
            stacklevel=3,
        )
        treatment = dose
    if treatment is None:
        raise DataError("treatment is missing: pass treatment= with the dose of every row.")
    return treatment
