"""Design of the dose-response model: covariates of a patient's level and of the dose slope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import SplineTransformer

from ehrmeta.data import Encoder, Feature
from ehrmeta.errors import DataError, SchemaError, did_you_mean
from ehrmeta.treatment.arms import AnyArray, Array

_N_KNOTS = 4  # of a linear spline: at the ends and the terciles of the training rows


@dataclass(frozen=True, eq=False)
class DoseDesign:
    r"""Design of ``level + phi(dose) * slope``, both linear in the coefficients ``(beta, b)``.

    .. math::

        \beta \text{ of } [1, t, x, c, xc, xm, \phi, x\phi], \quad
        b \text{ of } [1, c, t, m, \phi]

    with x the encoded features, c the spline basis of the curves, t the time, phi the scaled dose
    or its logarithm, and m the derivative of phi with respect to the log half-life of carry-over.
    """

    encoder: Encoder  # of all features except the curves
    curves: Mapping[str, SplineTransformer]
    log_dose: bool
    # dose_center, dose_scale: of the dose, or of its logarithm
    dose_center: float
    dose_scale: float
    time_center: float
    time_scale: float
    # trend, random_slope: whether time and dose have random slopes
    trend: bool
    random_slope: bool

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, AnyArray],
        features: tuple[Feature, ...],
        dose: Array,
        time: Array,
        *,
        curves: tuple[str, ...],
        log_dose: bool,
        trend: bool,
        random_slope: bool,
        groups: Any,
    ) -> DoseDesign:
        """Learn scales, category levels and knots from training rows."""
        for name in curves:
            if name not in columns:
                raise SchemaError(f"curve '{name}' is not in X. {did_you_mean(name, columns)}")
        others = tuple(feature for feature in features if feature.name not in curves)
        scaled = np.log(dose) if log_dose else dose
        splines = {
            name: SplineTransformer(
                n_knots=_N_KNOTS,
                degree=1,
                knots="quantile",
                extrapolation="linear",
                include_bias=False,
            ).fit(_complete(columns, name))
            for name in curves
        }
        return cls(
            encoder=Encoder.fit(columns, others, groups=groups),
            curves=splines,
            log_dose=log_dose,
            dose_center=float(scaled.mean()) if log_dose else 0.0,
            dose_scale=float(scaled.std()),
            time_center=float(time.mean()),
            time_scale=float(time.std()) or 1.0,
            trend=trend,
            random_slope=random_slope,
        )

    def scaled(self, dose: Array) -> Array:
        """phi(dose), of any shape."""
        value = np.log(dose) if self.log_dose else dose
        return np.asarray((value - self.dose_center) / self.dose_scale)

    def encoded(self, columns: Mapping[str, AnyArray], *, of_fit: bool = False) -> Array:
        """Encoded features x, (row, feature); levels of few patients are shrunk unless `of_fit`."""
        return self.encoder.transform(columns, shrink=not of_fit)[0].astype(np.float64)

    def parts(
        self, x: Array, columns: Mapping[str, AnyArray], time: Array, memory: Array
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Level and slope, each as (row, fixed effect) and (row, random effect).

        `memory`, (row, 1), is the derivative m; (row, 0) without carry-over.
        """
        one = np.ones((len(time), 1))
        bases = [spline.transform(_complete(columns, name)) for name, spline in self.curves.items()]
        curve = np.column_stack([*bases, np.zeros((len(time), 0))])
        t = ((time - self.time_center) / self.time_scale)[:, None] * self.trend
        interaction = (x[:, :, None] * curve[:, None, :]).reshape(len(time), -1)
        x_memory = x * memory if memory.shape[1] else memory
        level = np.column_stack([one, t, x, curve, interaction, x_memory])
        slope = np.column_stack([one, x])
        random_level = np.column_stack([one, curve, t[:, : int(self.trend)], memory])
        random_slope = one[:, : int(self.random_slope)]
        pairs = (level, slope), (random_level, random_slope)
        of_level, of_random_level = (np.column_stack([a, np.zeros_like(b)]) for a, b in pairs)
        of_slope, of_random_slope = (np.column_stack([np.zeros_like(a), b]) for a, b in pairs)
        return (of_level, of_random_level), (of_slope, of_random_slope)


def _complete(columns: Mapping[str, AnyArray], name: str) -> Array:
    values = columns[name]
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise DataError(
            f"curve '{name}' must have a number in every row: a curve cannot be fitted through "
            "missing values or text. Fill them in, or omit the column from curves=."
        )
    return values.astype(np.float64)[:, None]
