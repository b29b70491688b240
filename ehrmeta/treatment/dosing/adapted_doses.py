"""Patients that a dose-response model was adapted to: their curves and effects of doses."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ehrmeta.errors import DataError, DataWarning
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.estimators.predictions import check_level
from ehrmeta.treatment.arms import Array, Dose
from ehrmeta.treatment.dosing.dose_design import DoseDesign
from ehrmeta.treatment.dosing.dosed_rows import DosedReader, DosedRows
from ehrmeta.treatment.dosing.response_curves import (
    AdaptedPatients,
    Monotone,
    OriginalScale,
    ResponseCurves,
)
from ehrmeta.treatment.treated_rows import task_numbers


@dataclass(frozen=True, eq=False)
class FittedDoses:
    """The parts of a fitted `DoseResponse` that predict for adapted patients."""

    reader: DosedReader
    design: DoseDesign
    doses: Dose  # range of the training doses
    log_outcome: bool  # whether the response is modelled on the log scale
    has_memory: bool  # whether the half-life of carry-over has a random effect


class AdaptedDoses(AdaptedPatients):
    """Dose-response curves of the patients that a `DoseResponse` was adapted to.

    Returned by ``DoseResponse.adapt``. It is patient data. All predictions are of the response to a
    constant dose at the rows' features and time, without measurement error or transient
    fluctuation.

    Attributes
    ----------
    labels_ : ndarray, (patient,), or None
        Groups of the support, sorted; None if `adapt` was called without groups.
    n_shots_ : ndarray, (patient,)
        Support rows of every patient.
    one_dose_ : ndarray of bool, (patient,)
        Patients with a single dose; their response to other doses is mostly the population's.
    """

    def __init__(
        self, model: FittedDoses, rows: DosedRows, posteriors: Sequence[tuple[Array, Array]]
    ) -> None:
        self.model = model
        self.schema, self.doses = model.reader.schema, model.doses
        self.log_grid = model.design.log_dose
        self.labels_ = rows.labels
        self.n_shots_ = np.diff(rows.starts)
        doses = np.split(rows.dose, rows.starts[1:-1])
        self.one_dose_ = np.array([len(np.unique(of_patient)) == 1 for of_patient in doses])
        self._mean = np.stack([mean for mean, _ in posteriors])
        self._cov = np.stack([cov for _, cov in posteriors])

    def effect(
        self, X: Any, *, T0: float, T1: float, groups: Any = None, time: Any = None
    ) -> Array:
        """Response to dose `T1` minus that to `T0`, (row,); their ratio on the log scale."""
        return self._effect(X, T0, T1, groups, time, 0.5)

    def effect_interval(
        self,
        X: Any,
        *,
        T0: float,
        T1: float,
        groups: Any = None,
        time: Any = None,
        confidence_level: float = 0.95,
    ) -> Array:
        """Interval of `effect`, (row, 2); 95 % by default."""
        tail = 0.5 * (1.0 - check_level(confidence_level))
        ends = [self._effect(X, T0, T1, groups, time, p) for p in (tail, 1.0 - tail)]
        return np.column_stack(ends)

    def warn_of_one_dose(self, stacklevel: int = 3) -> None:
        """Warn of patients with a single dose."""
        if self.one_dose_.any() and self.model.design.random_slope:
            warnings.warn(
                f"{int(self.one_dose_.sum()):,} of {len(self.one_dose_):,} patients (first: "
                f"patient {int(np.flatnonzero(self.one_dose_)[0])}) have rows under one dose only. "
                "These inform the patient's level; the response to other doses is mostly the "
                "population's. See one_dose_.",
                DataWarning,
                stacklevel=stacklevel,
            )

    def _effect(self, X: Any, T0: float, T1: float, groups: Any, time: Any, level: float) -> Array:
        step = np.diff(self.model.design.scaled(np.array([T0, T1], np.float64)))[0]
        mean, cov = self._level_and_slope(X, groups, time)
        spread = np.abs(step) * np.sqrt(np.maximum(cov[:, 1, 1], 0.0))
        effect = step * mean[:, 1] + spread * stats.norm.ppf(level)
        return np.asarray(np.exp(effect) if self.model.log_outcome else effect)

    def _curves(self, X: Any, groups: Any, time: Any, monotone: Monotone) -> OriginalScale:
        curves = ResponseCurves.of(*self._level_and_slope(X, groups, time), monotone)
        return OriginalScale(curves, self.model.design.scaled, self.model.log_outcome)

    def _read(self, X: Any, groups: Any, time: Any) -> Inputs:
        inputs = self.model.reader.read(X, None, groups, time)
        if self.model.design.trend and inputs.time is None:
            raise DataError(
                "time is missing, but the model has a trend. Pass time= with the time of every row."
            )
        return inputs

    def _level_and_slope(self, X: Any, groups: Any, time: Any) -> tuple[Array, Array]:
        """Posterior mean (row, 2) and covariance (row, 2, 2) of each curve's level and slope."""
        design, inputs = self.model.design, self._read(X, groups, time)
        task = task_numbers(inputs, self.labels_)
        at = np.full(inputs.n_rows, design.time_center) if inputs.time is None else inputs.time
        memory = np.zeros((inputs.n_rows, int(self.model.has_memory)))
        parts = design.parts(design.encoded(inputs.columns), inputs.columns, at, memory)
        level, slope = map(np.column_stack, parts)
        both = np.stack([level, slope], axis=1)  # (row, 2, coefficient)
        mean = np.einsum("nkc,nc->nk", both, self._mean[task])
        return mean, both @ self._cov[task] @ both.transpose(0, 2, 1)
