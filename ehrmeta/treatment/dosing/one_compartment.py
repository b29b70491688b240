"""One-compartment model of drug concentrations: learned from many patients, adapted to new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np

from ehrmeta.data import Encoder, Schema
from ehrmeta.errors import DataError, SchemaError, did_you_mean
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.treatment.arms import AnyArray, Array
from ehrmeta.treatment.dosing.dosed_rows import DosedEstimator, DosedRows
from ehrmeta.treatment.dosing.kinetics import Course, courses, fit_kinetics, steady
from ehrmeta.treatment.dosing.response_curves import AdaptedPatients, Monotone, SampledCurves
from ehrmeta.treatment.treated_rows import known_features, task_numbers

_N_DRAWS = 2048  # of an adapted patient; a power of 2


@dataclass(eq=False, repr=False)
class OneCompartment(DosedEstimator["AdaptedCompartment"]):
    """One-compartment kinetics of a drug, learned from many patients and adapted to new ones.

    For a drug that is given at a constant interval and follows the one-compartment model
    (`ehrmeta.treatment.dosing.kinetics`). Log clearance and log volume are linear in the features,
    with normal random effects. The features of a patient's first row are used; log-transform body
    sizes, such as weight. `adapt` samples the whole posterior instead of its mode, so that
    probabilities and bands include the uncertainty due to few concentrations. Use `DoseResponse` if
    the kinetics are not known.

    Parameters
    ----------
    since_dose : str
        Column of X with the time since the last dose. The columns of an array are named ``"x0"``,
        ``"x1"``, ....
    interval : float
        Time between doses. In `fit` and `adapt`, `time` counts from a patient's first dose.
    route : {"oral", "iv"}
        First-order absorption, or intravenous.
    schema, task
        As in `DoseResponse`.

    Attributes
    ----------
    kinetics_ : Kinetics
        Population distribution of the parameters.
    dose_, n_tasks_
        As in `DoseResponse`.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta import make_pk
    >>> from ehrmeta.treatment import OneCompartment
    >>> p = make_pk(60, 3, random_state=0)
    >>> X, dose = np.column_stack([np.log(p.X[:, :2]), p.X[:, 3]]), p.X[:, 2]
    >>> model = OneCompartment("x2", interval=12.0)
    >>> model = model.fit(X, p.y, treatment=dose, groups=p.groups, time=p.time)
    >>> one = model.adapt(X[:2], p.y[:2], treatment=dose[:2], time=p.time[:2])
    >>> trough = [[X[0, 0], X[0, 1], 12.0]]
    >>> best = one.recommend(trough, target=(5, 10), max_dose=1200)
    >>> bool(best.probability[0] > 0.5)
    True
    """

    since_dose: str
    _: KW_ONLY
    interval: float
    route: Literal["oral", "iv"] = "oral"
    schema: Schema | None = None
    task: str | None = None

    def _fit_rows(self, rows: DosedRows) -> None:
        if self.since_dose not in rows.columns:
            hint = did_you_mean(self.since_dose, rows.columns)
            raise SchemaError(f"since_dose '{self.since_dose}' is not in X. {hint}")
        known = known_features(rows.columns, self.reader_.schema)
        features = tuple(feature for feature in known if feature.name != self.since_dose)
        self.encoder_ = Encoder.fit(rows.columns, features, groups=rows.patient)
        x = self._encoded(rows.columns, of_fit=True)[rows.starts[:-1]]
        self.kinetics_ = fit_kinetics(self._courses(rows), x, oral=self.route == "oral")

    def _check_parameters(self) -> None:
        if self.route not in ("oral", "iv"):
            raise DataError(f"route must be 'oral' or 'iv', got {self.route!r}.")
        if not (isinstance(self.interval, int | float | np.number) and 0 < self.interval < np.inf):
            raise DataError(
                f"interval must be above 0, in the unit of time, got {self.interval!r}."
            )

    def unadapted(self) -> AdaptedCompartment:
        """Population model, as a new patient without rows."""
        self._check_is_fitted()
        return AdaptedCompartment(self, None, [None])

    def _adapted(self, rows: DosedRows) -> AdaptedCompartment:
        return AdaptedCompartment(self, rows.labels, self._courses(rows))

    def _courses(self, rows: DosedRows) -> list[Course]:
        return courses(rows, self._since(rows.columns), self.interval)

    def _since(self, columns: dict[str, AnyArray]) -> Array:
        """Time since the last dose, (row,)."""
        values = columns[self.since_dose]
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise DataError(
                f"since_dose '{self.since_dose}' must have a number in every row. Remove or "
                "complete the other rows."
            )
        return values.astype(np.float64)

    def _encoded(self, columns: dict[str, AnyArray], *, of_fit: bool = False) -> Array:
        """Encoded features, (row, feature); levels of few patients are shrunk unless `of_fit`."""
        return self.encoder_.transform(columns, shrink=not of_fit)[0].astype(np.float64)


class AdaptedCompartment(AdaptedPatients):
    """Kinetics of the patients that a `OneCompartment` was adapted to.

    Returned by ``OneCompartment.adapt``. It is patient data. All predictions are of the
    steady-state concentration under a dose at the rows' time since the last dose, without
    measurement error.

    Attributes
    ----------
    labels_, n_shots_
        As in `AdaptedDoses`.
    """

    def __init__(
        self, model: OneCompartment, labels: AnyArray | None, courses: Sequence[Course | None]
    ) -> None:
        self.model = model
        self.schema, self.doses = model.reader_.schema, model.dose_
        self.log_grid = model.dose_.low > 0
        self.labels_ = labels
        self.n_shots_ = np.array([0 if course is None else len(course.y) for course in courses])
        self._courses = courses

    def _read(self, X: Any, groups: Any, time: Any) -> Inputs:
        return self.model.reader_.read(X, None, groups, time)

    def _curves(self, X: Any, groups: Any, time: Any, monotone: Monotone) -> SampledCurves:
        model = self.model
        if monotone not in (None, "increasing"):
            raise DataError(
                f"monotone={monotone!r} contradicts the model: concentrations rise with the dose. "
                "Pass 'increasing' or None."
            )
        inputs = self._read(X, groups, time)
        patient = task_numbers(inputs, self.labels_, n_support=self.n_shots_.sum())
        since = model._since(inputs.columns)
        x = model._encoded(inputs.columns)
        unit, weight = np.empty((2, inputs.n_rows, _N_DRAWS))
        for row in range(inputs.n_rows):
            course = self._courses[patient[row]]
            theta, weight[row] = model.kinetics_.draws(x[row], course, _N_DRAWS)
            unit[row] = steady(theta, since[[row]], model.interval)[0]
        return SampledCurves.of(unit, weight)
