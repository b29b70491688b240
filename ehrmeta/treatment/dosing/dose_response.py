"""Dose-response model of repeatedly dosed patients: learned from many, adapted to new ones."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy import stats

from ehrmeta.data import Schema
from ehrmeta.errors import DataError, DataWarning, warn
from ehrmeta.estimators.inputs import Inputs
from ehrmeta.ranges import check_level
from ehrmeta.treatment.arms import Array, Dose
from ehrmeta.treatment.dosing.dose_design import DoseDesign
from ehrmeta.treatment.dosing.dose_model import (
    Designs,
    PlausibleModel,
    estimate_half_life,
    exposure,
    fit_dose_model,
    mix_normals,
    plausible_models,
    usual_gap,
)
from ehrmeta.treatment.dosing.dosed_rows import (
    DosedEstimator,
    DosedReader,
    DosedRows,
    titration_p_value,
    warn_of_titration,
)
from ehrmeta.treatment.dosing.response_curves import (
    AdaptedPatients,
    Monotone,
    OriginalScale,
    ResponseCurves,
)
from ehrmeta.treatment.treated_rows import known_features, task_numbers

_STEP = 0.1  # of the log half-life, for a finite difference


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

    def warn_of_one_dose(self) -> None:
        """Warn of patients with a single dose."""
        if self.one_dose_.any() and self.model.design.random_slope:
            warn(
                f"{int(self.one_dose_.sum()):,} of {len(self.one_dose_):,} patients (first: "
                f"patient {int(np.flatnonzero(self.one_dose_)[0])}) have rows under one dose only. "
                "These inform the patient's level; the response to other doses is mostly the "
                "population's. See one_dose_.",
                DataWarning,
            )

    def _effect(self, X: Any, T0: float, T1: float, groups: Any, time: Any, level: float) -> Array:
        self.doses.warn_if_outside(np.array([T0, T1], np.float64))
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
        task = task_numbers(inputs, self.labels_, n_support=self.n_shots_.sum())
        at = np.full(inputs.n_rows, design.time_center) if inputs.time is None else inputs.time
        memory = np.zeros((inputs.n_rows, int(self.model.has_memory)))
        parts = design.parts(design.encoded(inputs.columns), inputs.columns, at, memory)
        level, slope = map(np.column_stack, parts)
        both = np.stack([level, slope], axis=1)  # (row, 2, coefficient)
        mean = np.einsum("nkc,nc->nk", both, self._mean[task])
        return mean, both @ self._cov[task] @ both.transpose(0, 2, 1)


@dataclass(eq=False, repr=False)
class DoseResponse(DosedEstimator[AdaptedDoses]):
    r"""Dose-response model over time, learned from many patients and adapted to new ones.

    Each row has a dose and the response to it. The level, the slope in the dose, the trend in time
    and curves (for instance in the hours since the last dose) vary over patients:

    .. math:: y = x'\beta + (\beta_d + x'\gamma + b_d)\,\phi(E) + b_0 + b_t t + b_c(c) + u(t) + e

    with E the exposure, a weighted average of current and earlier doses whose half-life is
    estimated over patients, b normal random effects, u an Ornstein-Uhlenbeck process and e noise.
    The model is fitted by restricted maximum likelihood. The posterior of a new patient's
    coefficients is available in closed form.

    Doses that depend on earlier outcomes (titration) do not bias the model if it sees those
    outcomes: pass each patient's whole history, to `fit` and to `adapt`.

    Parameters
    ----------
    curves : sequence of str
        Columns of X in which the response follows a linear spline that varies over patients. The
        columns of an array are named ``"x0"``, ``"x1"``, .... Log-transform features whose ratios
        matter, such as weight.
    dose_scale : {"linear", "log"}
        Scale of phi. With "log" and ``outcome_transform="log"``, the response is a power of the
        dose.
    outcome_transform : {"log"}, optional
        Models the response on the log scale. Predictions are in the response's unit.
    random_slope : bool
        Whether the slope in the dose varies over patients.
    trend : bool
        Whether to include a trend in time with a random slope, for period effects.
    carry_over : "auto" or float
        Half-life of carry-over in the unit of time, 0 for none; estimated by default.
    own_carry_over : bool
        Whether the half-life varies over patients (in a first-order approximation). Use it for
        drugs whose clearance varies, if doses change by large factors.
    ornstein_uhlenbeck : bool
        Whether to try the process u; it is included if it improves the likelihood enough.
    schema : Schema, optional
        Column roles and units; by default taken from X if it belongs to a `Table`.
    task : str, optional
        Column of X that names the patient.

    Attributes
    ----------
    carry_over_ : float
        Half-life of carry-over; 0 without any.
    carry_over_log_sd_ : float
        Standard error of the logarithm of `carry_over_`; 0 if that was not estimated.
    dose_ : Dose
        Range of the training doses.
    model_ : DoseModel
        The restricted-maximum-likelihood model at the half-life `carry_over_`.
    plausible_ : list of PlausibleModel
        Models that represent the uncertainty of variances and half-life in bands and intervals.
    titration_p_value_ : float
        Small if later doses depend on earlier outcomes; NaN if that cannot be tested.
    n_tasks_ : int
        Number of training patients.

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

    def _fit_rows(self, rows: DosedRows) -> None:
        self.gap_ = usual_gap(rows.time, rows.starts)
        self.design_ = DoseDesign.fit(
            rows.columns,
            known_features(rows.columns, self.reader_.schema),
            rows.dose,
            rows.time,
            curves=tuple(self.curves),
            log_dose=self._logs[0],
            trend=self.trend,
            random_slope=self.random_slope,
            groups=rows.patient,
        )
        x = self.design_.encoded(rows.columns, of_fit=True)
        designs = partial(self._designs, rows, x)
        estimated = self.carry_over == "auto"
        self.carry_over_ = (
            estimate_half_life(designs, self.gap_, process=self.ornstein_uhlenbeck)
            if estimated
            else float(self.carry_over)
        )
        self.model_ = fit_dose_model(designs(self.carry_over_), process=self.ornstein_uhlenbeck)
        self.plausible_, self.carry_over_log_sd_ = plausible_models(
            self.model_, self.carry_over_, designs, estimated=estimated
        )
        self.titration_p_value_ = titration_p_value(rows.dose, rows.y, rows.starts)
        warn_of_titration(self.titration_p_value_)

    def unadapted(self) -> AdaptedDoses:
        """Population model, as a new patient without rows."""
        self._check_is_fitted()
        models = self.plausible_
        prior = mix_normals([(m.model.mean, m.model.prior) for m in models], _weights(models))
        return AdaptedDoses(self._fitted, DosedRows.none(), [prior])

    def _adapted(self, rows: DosedRows) -> AdaptedDoses:
        adapted = AdaptedDoses(self._fitted, rows, self._posteriors(rows))
        adapted.warn_of_one_dose()
        return adapted

    @property
    def _fitted(self) -> FittedDoses:
        has_memory = self.own_carry_over and self.carry_over_ > 0
        return FittedDoses(self.reader_, self.design_, self.dose_, self._logs[1], has_memory)

    def _posteriors(self, rows: DosedRows) -> list[tuple[Array, Array]]:
        """Mean and covariance of every patient's coefficients, averaged over plausible models."""
        by_model, features = [], self.design_.encoded(rows.columns)
        for plausible in self.plausible_:
            x, z, s, y, starts = self._designs(rows, features, plausible.half_life)
            w = np.column_stack([x, z])
            by_model.append(
                [plausible.model.posterior(w[a:b], s[a:b], y[a:b]) for a, b in pairwise(starts)]
            )
        weights = _weights(self.plausible_)
        return [mix_normals(posteriors, weights) for posteriors in zip(*by_model, strict=True)]

    def _designs(self, rows: DosedRows, features: Array, half_life: float) -> Designs:
        """Fixed and random design, time divided by the usual gap, response, and offsets."""

        def phi(half_life: float) -> Array:
            dose = exposure(rows.dose, rows.time, rows.starts, half_life, self.gap_)
            return self.design_.scaled(dose)

        step = np.exp(_STEP)
        memory = (phi(half_life * step) - phi(half_life / step)) / (2 * _STEP)
        memory = memory[:, None][:, : int(self.own_carry_over and half_life > 0)]
        level, slope = self.design_.parts(features, rows.columns, rows.time, memory)
        x, z = (a + phi(half_life)[:, None] * b for a, b in zip(level, slope, strict=True))
        return x, z, rows.time / self.gap_, rows.y, rows.starts

    @property
    def _logs(self) -> tuple[bool, bool]:
        return self.dose_scale == "log", self.outcome_transform == "log"

    def _check_parameters(self) -> None:
        if self.dose_scale not in ("linear", "log"):
            raise DataError(f"dose_scale must be 'linear' or 'log', got {self.dose_scale!r}.")
        if self.outcome_transform not in (None, "log"):
            transform = self.outcome_transform
            raise DataError(f"outcome_transform must be 'log' or None, got {transform!r}.")
        if self.carry_over != "auto" and not 0 <= float(self.carry_over) < np.inf:
            raise DataError(
                f"carry_over must be 'auto' or a half-life of 0 or more, got {self.carry_over!r}."
            )


def _weights(models: Sequence[PlausibleModel]) -> list[float]:
    return [plausible.weight for plausible in models]
