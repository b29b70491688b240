"""What models of patients who are dosed again and again share: reading their rows, adapting."""

import warnings
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_feature_names, _check_n_features

from ehrmeta.data import Schema
from ehrmeta.errors import DataError, GroupError, NotFittedError, RenamedWarning
from ehrmeta.estimators.inputs import Inputs, schema_of
from ehrmeta.treatment.arms import Dose
from ehrmeta.treatment.dosing.dosed_rows import DosedReader, DosedRows, read_rows

Adapted = TypeVar("Adapted")


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
