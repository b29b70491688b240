"""Dose-response of patients who are treated again and again: learned over many, adapted to one."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np

from ehrmeta.data import Schema
from ehrmeta.errors import DataError
from ehrmeta.treatment.arms import Array
from ehrmeta.treatment.dosing.adapted_doses import AdaptedDoses, FittedDoses
from ehrmeta.treatment.dosing.dose_design import DoseDesign
from ehrmeta.treatment.dosing.dose_model import (
    Designs,
    PlausibleModel,
    fit_dose_model,
    mixed,
    plausible_models,
)
from ehrmeta.treatment.dosing.dosed_rows import DosedEstimator, DosedRows, given_dose
from ehrmeta.treatment.dosing.exposure import estimate_half_life, exposure, usual_gap
from ehrmeta.treatment.dosing.titration import titration_p_value, warn_of_titration
from ehrmeta.treatment.treated_rows import known_features

_STEP = 0.1  # of the log half-life, for a derivative


@dataclass(eq=False, repr=False)
class DoseResponse(DosedEstimator[AdaptedDoses]):
    r"""Learns how patients respond to doses over time, and adapts to one more from a few rows.

    A row is a dose and the response to it. Patients have a level, a slope in the dose, a trend in
    time and curves (for instance in the hours since the last dose) of their own:

    .. math:: y = x'\beta + (\beta_d + x'\gamma + b_d)\,\phi(E) + b_0 + b_t t + b_c(c) + u(t) + e

    with E the exposure, in which earlier doses fade with a half-life estimated over patients, b
    normal over patients, u a fluctuation that persists (an Ornstein-Uhlenbeck process) and e noise.
    Fitted by restricted likelihood; a new patient's coefficients have a posterior in closed form.

    Doses that follow earlier outcomes (titration) bias no such model as long as the rows that they
    followed are among those given: pass the whole history, also to `adapt`.

    Parameters
    ----------
    curves : sequence of str
        Columns of X in which every patient has a curve of their own; ``"x0"``, ``"x1"``, ... of an
        array. Encode what else acts by ratios, such as weight, as logarithms.
    dose_scale : {"linear", "log"}
        phi. With the log, and ``outcome_transform="log"``, a slope of 1 is proportionality.
    outcome_transform : {"log"}, optional
        The response is modelled on the log scale, and reported on its own.
    random_slope : bool
        A slope in the dose of the patient's own.
    trend : bool
        A trend in time, and one of the patient's own: period effects. Others are columns of X.
    carry_over : "auto" or float
        Half-life of earlier doses in the unit of time, 0 for none; by default estimated.
    own_carry_over : bool
        A half-life of the patient's own, to first order: where patients clear a drug at rates of
        their own and doses change by large factors.
    ornstein_uhlenbeck : bool
        Whether a fluctuation that persists is tried; it stays if the likelihood gains by it.
    schema : Schema, optional
        Of the columns; a `Table`'s X brings its own.
    task : str, optional
        Column of X that names the patient.

    Attributes
    ----------
    carry_over_ : float
        Half-life of earlier doses; 0 where there is none.
    carry_over_log_sd_ : float
        Standard error of its logarithm; 0 where it is given.
    dose_ : Dose
        Range of the training doses.
    model_ : DoseModel
        Of largest likelihood, under that half-life.
    plausible_ : list of PlausibleModel
        What stands for the uncertainty of variances and half-life in bands and intervals.
    titration_p_value_ : float
        Small where later doses follow earlier outcomes; NaN where that cannot be told.

    References
    ----------
    Laird, Ware (1982), doi:10.2307/2529876. Robins (1986), doi:10.1016/0270-0255(86)90088-6.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.treatment import DoseResponse
    >>> rng = np.random.default_rng(0)
    >>> patient, day = np.repeat(np.arange(60), 8), np.tile(np.arange(8.0), 60)
    >>> dose = rng.integers(1, 5, 480).astype(float)
    >>> y = 10 + rng.normal(2, 0.5, 60)[patient] * dose + rng.normal(0, 0.5, 480)
    >>> X = np.zeros((480, 1))
    >>> model = DoseResponse(trend=False).fit(X, y, treatment=dose, groups=patient, time=day)
    >>> one = model.adapt(X[:2], [13.0, 19.0], treatment=[1.0, 3.0], time=[0, 1])
    >>> best = one.recommend(X[:1], target=(15, 17), grid=[1, 2, 3, 4], monotone="increasing")
    >>> best["dose"].tolist()
    [2.0]
    """

    curves: Sequence[str] = ()
    _: KW_ONLY
    dose_scale: Literal["linear", "log"] = "linear"
    outcome_transform: Literal["log"] | None = None
    random_slope: bool = True
    trend: bool = True
    carry_over: Literal["auto"] | float = "auto"
    own_carry_over: bool = False
    ornstein_uhlenbeck: bool = True
    schema: Schema | None = None
    task: str | None = None

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        treatment: Any = None,
        groups: Any = None,
        time: Any = None,
        dose_time: Any = None,
        dose: Any = None,
    ) -> Self:
        """Learn from the doses and responses of many patients.

        Parameters
        ----------
        X : frame or array, (row, feature)
            Without the dose: what else shifts the response or tilts the slope.
        y : array, (row,)
            Response to the dose.
        treatment : array, (row,)
            Dose given from the patient's row before to this one.
        groups : array, (row,)
            Patient of every row.
        time : array, (row,)
            Of the response.
        dose_time : array, (row,), optional
            When the dose was given: refused where that is after `time`.
        dose : array, (row,), optional
            Old name of `treatment`, which works for one release more.

        Returns
        -------
        self
        """
        self._check()
        rows = self._training_rows(X, y, given_dose(treatment, dose), groups, time, dose_time)
        self.gap_ = usual_gap(rows.time, rows.starts)
        self.design_ = DoseDesign.fit(
            rows.columns,
            known_features(rows.columns, self.reader_.schema),
            rows.dose,
            rows.time,
            curves=tuple(self.curves),
            log_dose=self._log_dose,
            trend=self.trend,
            random_slope=self.random_slope,
            groups=rows.patient,
        )
        designs = partial(self._designs, rows)
        estimated = self.carry_over == "auto"
        self.carry_over_ = (
            estimate_half_life(designs, self.gap_, process=self.ornstein_uhlenbeck)
            if estimated
            else float(self.carry_over)
        )
        self.model_ = fit_dose_model(*designs(self.carry_over_), process=self.ornstein_uhlenbeck)
        self.plausible_, self.carry_over_log_sd_ = plausible_models(
            self.model_, self.carry_over_, designs, estimated=estimated
        )
        self.titration_p_value_ = titration_p_value(rows.dose, rows.y, rows.starts)
        warn_of_titration(self.titration_p_value_)
        return self

    def unadapted(self) -> AdaptedDoses:
        """The population: a new patient without rows."""
        self._check_is_fitted()
        every = self.plausible_
        prior = mixed([(one.model.mean, one.model.prior) for one in every], _weights(every))
        return AdaptedDoses(self._fitted, DosedRows.none(), [prior])

    def _adapted(self, rows: DosedRows) -> AdaptedDoses:
        adapted = AdaptedDoses(self._fitted, rows, self._posteriors(rows))
        adapted.warn_of_one_dose()
        return adapted

    @property
    def _fitted(self) -> FittedDoses:
        """What an adapted patient's curves need of the model."""
        has_memory = self.own_carry_over and self.carry_over_ > 0
        return FittedDoses(self.reader_, self.design_, self.dose_, self._log_outcome, has_memory)

    def _posteriors(self, rows: DosedRows) -> list[tuple[Array, Array]]:
        """Mean and covariance of every patient's coefficients, over all plausible models."""
        by_model = []
        for one in self.plausible_:
            x, z, s, y, starts = self._designs(rows, one.half_life)
            w = np.column_stack([x, z])
            by_model.append(
                [one.model.posterior(w[a:b], s[a:b], y[a:b]) for a, b in pairwise(starts)]
            )
        weights = _weights(self.plausible_)
        return [mixed(found, weights) for found in zip(*by_model, strict=True)]

    def _designs(self, rows: DosedRows, half_life: float) -> Designs:
        """Fixed and random design, time in usual gaps, response, and offsets."""

        def phi(half_life: float) -> Array:
            dose = exposure(rows.dose, rows.time, rows.starts, half_life, self.gap_)
            return self.design_.scaled(dose)

        step = np.exp(_STEP)
        memory = (phi(half_life * step) - phi(half_life / step)) / (2 * _STEP)
        memory = memory[:, None][:, : int(self.own_carry_over and half_life > 0)]
        level, slope = self.design_.parts(rows.columns, rows.time, memory)
        x, z = (a + phi(half_life)[:, None] * b for a, b in zip(level, slope, strict=True))
        return x, z, rows.time / self.gap_, rows.y, rows.starts

    @property
    def _log_dose(self) -> bool:
        return self.dose_scale == "log"

    @property
    def _log_outcome(self) -> bool:
        return self.outcome_transform == "log"

    def _check(self) -> None:
        """Refuse parameters that no fit can use."""
        if self.dose_scale not in ("linear", "log"):
            raise DataError(f"dose_scale must be 'linear' or 'log', got {self.dose_scale!r}.")
        if self.outcome_transform not in (None, "log"):
            given = self.outcome_transform
            raise DataError(f"outcome_transform must be 'log' or None, got {given!r}.")
        if self.carry_over != "auto" and not 0 <= float(self.carry_over) < np.inf:
            raise DataError(
                f"carry_over must be 'auto' or a half-life of 0 or more, got {self.carry_over!r}."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


def _weights(models: Sequence[PlausibleModel]) -> list[float]:
    return [one.weight for one in models]
