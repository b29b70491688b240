"""Doses and responses of many patients over time: reading, checking, and adapting to new ones."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names, _check_n_features

from ehrmeta.data import Schema
from ehrmeta.data.clock import check_zones
from ehrmeta.data.columns import collected
from ehrmeta.data.leaks import is_copy, n_gross_errors
from ehrmeta.errors import (
    DataError,
    DataWarning,
    GroupError,
    NotFittedError,
    renamed_argument,
    warn,
)
from ehrmeta.estimators.inputs import Inputs, outcome_name, read_inputs, report_repeats, schema_of
from ehrmeta.treatment.arms import AnyArray, Array, Dose, Index
from ehrmeta.treatment.treated_rows import check_columns, check_training_rows, read_times

Adapted = TypeVar("Adapted")
_TITRATED = 0.001  # p-value below which titration is reported


@dataclass(frozen=True, eq=False)
class DosedRows:
    """Rows sorted by patient, then by time."""

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
    inputs: Inputs, dose: Array, dose_time: Any, schema: Schema | None, logs: tuple[bool, bool]
) -> DosedRows:
    """Check and sort rows; `logs` says whether dose and response are on the log scale.

    Raises
    ------
    DataError
        Time is missing, a dose was given after its response, or a value has no logarithm.
    """
    y, time, tasks = inputs.outcome(), inputs.time, inputs.tasks()
    if time is None:
        raise DataError(
            "time is missing, but doses act over time. Pass time= with the time of every row."
        )
    if len(dose) != inputs.n_rows:
        raise DataError(
            f"dose has {len(dose):,} rows, X has {inputs.n_rows:,}. Pass one value per row of X."
        )
    if dose_time is not None:
        late = np.flatnonzero(read_times(dose_time, "dose_time", schema, inputs) > time)
        if len(late):
            raise DataError(
                f"the dose was given after its response in {len(late):,} of {len(time):,} rows "
                f"(first: row {late[0]}), so the dose cannot have caused the response. Remove "
                "those rows, or check whether the two times are swapped."
            )
    for values, what, is_log in zip((dose, y), ("dose", "response"), logs, strict=True):
        low = np.flatnonzero(values <= 0)
        if is_log and len(low):
            raise DataError(
                f"the {what} is 0 or below in {len(low):,} of {len(values):,} rows (first: row "
                f"{low[0]}), where a logarithm does not exist. Remove those rows, or use the "
                "linear scale."
            )
    order = tasks.order
    return DosedRows(
        {name: values[order] for name, values in inputs.columns.items()},
        (np.log(y) if logs[1] else y)[order],
        dose[order],
        time[order],
        tasks.starts,
        None if inputs.groups is None else tasks.labels,
    )


@dataclass(frozen=True)
class DosedReader:
    """Reads and checks a user's rows."""

    schema: Schema | None
    task: str | None  # column of X that names the patient
    columns: tuple[str, ...] | None = None  # of X at fit, which later rows must have
    zoned: bool | None = None  # whether the times of fit had a time zone

    def read(self, X: Any, y: Any, groups: Any, time: Any) -> Inputs:
        """Read rows, and check that their columns are those passed to fit."""
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
        check_zones(inputs.zoned, self.zoned, "those that the model was fitted on")
        return inputs


class DosedEstimator(BaseEstimator, Generic[Adapted]):
    """Base of the dosing models: reads rows at `fit` and `adapt`, and checks them."""

    schema: Schema | None
    task: str | None
    dose_: Dose
    reader_: DosedReader
    __metadata_request__fit: ClassVar[dict[str, bool]] = dict.fromkeys(
        ("treatment", "groups", "time", "dose_time"), True
    )

    @renamed_argument("dose", "treatment")
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any = None,
        groups: Any = None,
        time: Any = None,
        dose_time: Any = None,
    ) -> Self:
        """Learn from the doses and responses of many patients.

        Parameters
        ----------
        X : frame or array, (row, feature)
            Features, without the dose.
        y : array, (row,)
            Response to the dose, or concentration.
        treatment : array, (row,)
            Dose given from the patient's previous row to this one.
        groups : array, (row,)
            Patient of every row.
        time : array, (row,)
            Time of the response.
        dose_time : array, (row,), optional
            Time at which the dose was given. It must not be after `time`.

        Returns
        -------
        self
        """
        self._check_parameters()
        X = collected(X)
        reader = DosedReader(schema_of(self.schema, X), self.task)
        inputs = reader.read(X, y, groups, time)
        if inputs.groups is None:
            raise GroupError("groups is missing: pass groups= with the patient of every row.")
        self.reader_ = replace(reader, columns=tuple(inputs.columns), zoned=inputs.zoned)
        if inputs.n_rows == 0:
            raise DataError("X has no rows: pass the rows of several patients.")
        inputs.outcome()
        check_training_rows(inputs, reader.schema)
        self.dose_ = Dose.fit(_given(treatment), "dose")
        rows = self._rows(inputs, treatment, dose_time)
        _refuse_copies(rows)
        if len(rows.starts) < 3:
            raise GroupError(
                "groups names the same patient in all rows. Pass the rows of several patients."
            )
        _check_feature_names(self, X, reset=True)
        _check_n_features(self, X, reset=True)
        self._fit_rows(rows)
        _warn_of_odd_doses(rows.dose)
        self.n_tasks_ = len(rows.starts) - 1
        return self

    @renamed_argument("dose", "treatment")
    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any = None,
        groups: Any = None,
        time: Any = None,
        dose_time: Any = None,
    ) -> Adapted:
        """Adapt to new patients from their first rows, without refitting.

        Parameters
        ----------
        X, y, treatment, groups, time, dose_time
            The support rows, as in `fit`. Without groups they are one patient.

        Returns
        -------
        AdaptedDoses or AdaptedCompartment
        """
        self._check_is_fitted()
        inputs = self.reader_.read(X, y, groups, time)
        if inputs.n_rows == 0:
            return self.unadapted()
        return self._adapted(self._rows(inputs, treatment, dose_time))

    @abstractmethod
    def unadapted(self) -> Adapted:
        """Population model, as a new patient without rows."""

    @abstractmethod
    def _check_parameters(self) -> None:
        """Raise `DataError` for invalid parameters."""

    @abstractmethod
    def _fit_rows(self, rows: DosedRows) -> None:
        """Estimate the model from the rows of two patients or more."""

    @abstractmethod
    def _adapted(self, rows: DosedRows) -> Adapted: ...

    @property
    def _logs(self) -> tuple[bool, bool]:
        """Whether dose and response are on the log scale."""
        return False, False

    def _rows(self, inputs: Inputs, dose: Any, dose_time: Any) -> DosedRows:
        schema, doses = self.reader_.schema, self.dose_.codes(_given(dose), "dose")
        if inputs.time is not None:
            report_repeats(inputs.tasks(), inputs.time, schema.task_kind if schema else None)
        return read_rows(inputs, doses, dose_time, schema, self._logs)

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            name = type(self).__name__
            raise NotFittedError(f"this {name} is not fitted yet. Call fit first.")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_tasks_")


def _refuse_copies(rows: DosedRows) -> None:
    """Raise if a feature is a copy of the dose."""
    copies = [name for name, values in rows.columns.items() if is_copy(values, rows.dose)]
    if copies:
        raise DataError(
            f"feature(s) {copies} are copies of the dose, or linear functions of it, so its effect "
            "cannot be told from theirs. Drop them from the features."
        )


def _warn_of_odd_doses(dose: Array) -> None:
    """Warn of negative doses and of gross errors."""
    negative, gross = int((dose < 0).sum()), n_gross_errors(dose)
    for count, what in ((negative, "below 0"), (gross, "far from all others")):
        if count:
            warn(
                f"{count:,} of {len(dose):,} doses are {what}. Correct or drop these rows if they "
                "are errors.",
                DataWarning,
            )


def _given(dose: Any) -> Any:
    if dose is None:
        raise DataError("treatment is missing: pass treatment= with the dose of every row.")
    return dose


def titration_p_value(dose: Array, y: Array, starts: Index) -> float:
    """P-value of the null hypothesis that dose changes do not depend on earlier outcomes.

    Over the rows at which a patient's dose changes, the new dose is regressed on the previous dose
    and outcome; the outcome's coefficient is tested with a standard error that is robust to
    clustering by patient. NaN if fewer than ten patients have dose changes, or if the previous dose
    determines the new one.

    Parameters
    ----------
    dose, y, starts : (row,), (row,), (task + 1,)
        Rows sorted by task and time, and offsets of the tasks.

    Examples
    --------
    >>> from ehrmeta.data import make_nof1
    >>> starts = np.arange(0, 101 * 56, 56)
    >>> p = make_nof1(titration=True, random_state=0)
    >>> titration_p_value(p.treatment, p.y, starts) < 0.001
    True
    """
    task = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    now = np.flatnonzero((np.diff(task) == 0) & (np.diff(dose) != 0)) + 1
    if len(np.unique(task[now])) < 10:
        return np.nan
    x = np.column_stack([np.ones(len(now)), dose[now - 1]])
    new_dose, outcome = (
        values - x @ np.linalg.lstsq(x, values, rcond=None)[0] for values in (dose[now], y[now - 1])
    )
    if new_dose @ new_dose < 1e-9 * (dose[now] @ dose[now]) or not outcome.any():
        return np.nan
    slope = outcome @ new_dose / (outcome @ outcome)
    score = np.bincount(task[now], outcome * (new_dose - slope * outcome))
    z = slope * (outcome @ outcome) / np.sqrt(score @ score)
    return float(2 * stats.norm.sf(abs(z)))


def warn_of_titration(p_value: float) -> None:
    """Warn if doses depend on earlier outcomes."""
    if p_value < _TITRATED:
        warn(
            f"later doses depend on earlier outcomes (p = {p_value:.1g}), as in titration. To "
            "avoid bias, pass all rows of every patient, from the first dose on, to fit and to "
            "adapt.",
            DataWarning,
        )
