"""Designs of the dose-response model: what shifts a patient's level, and what tilts the slope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import SplineTransformer

from ehrmeta.data import Encoder, Feature
from ehrmeta.errors import DataError, SchemaError, did_you_mean
from ehrmeta.treatment.arms import AnyArray, Array

_N_KNOTS = 4  # of a curve of straight pieces: at the ends and the terciles of the training rows


@dataclass(frozen=True, eq=False)
class DoseDesign:
    r"""A row is ``level + phi(dose) * slope``, each over the coefficients ``(beta, b)``.

    .. math::

        \beta \text{ of } [1, t, x, c, xc, xm, \phi, x\phi], \quad
        b \text{ of } [1, c, t, m, \phi]

    with x the encoded features, c the pieces of the curves, t the time, phi the scaled dose or its
    logarithm and m its derivative in the log half-life of earlier doses.
    """

    encoder: Encoder  # of all features but the curves
    curves: Mapping[str, SplineTransformer]
    log_dose: bool
    # dose_center, dose_scale: of the dose, or of its logarithm
    dose_center: float
    dose_scale: float
    time_center: float
    time_scale: float
    # trend, random_slope: whether time and dose have slopes of the patient's own
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
        """Learn scales, levels and knots from training rows."""
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

    def parts(
        self, columns: Mapping[str, AnyArray], time: Array, memory: Array
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Level and slope, each as (row, fixed effect) and (row, random effect).

        `memory`, (row, 1), is what a longer half-life of earlier doses adds to phi; (row, 0)
        where earlier doses do not act.
        """
        x = self.encoder.transform(columns)[0].astype(np.float64)
        one = np.ones((len(time), 1))
        own = [spline.transform(_complete(columns, name)) for name, spline in self.curves.items()]
        curve = np.column_stack([*own, np.zeros((len(time), 0))])
        t = ((time - self.time_center) / self.time_scale)[:, None] * self.trend
        both = (x[:, :, None] * curve[:, None, :]).reshape(len(time), -1)
        faded = x * memory if memory.shape[1] else memory
        level = np.column_stack([one, t, x, curve, both, faded])
        slope = np.column_stack([one, x])
        drawn = np.column_stack([one, curve, t[:, : int(self.trend)], memory])
        tilted = one[:, : int(self.random_slope)]
        return (
            (_then_zeros(level, slope), _then_zeros(drawn, tilted)),
            (_after_zeros(level, slope), _after_zeros(drawn, tilted)),
        )


def _then_zeros(a: Array, b: Array) -> Array:
    return np.column_stack([a, np.zeros_like(b)])


def _after_zeros(a: Array, b: Array) -> Array:
    return np.column_stack([np.zeros_like(a), b])


def _complete(columns: Mapping[str, AnyArray], name: str) -> Array:
    values = columns[name]
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise DataError(
            f"curve '{name}' must hold numbers in all rows: a patient's curve cannot be followed "
            "through missing values or text. Fill them in, or leave it out of curves=."
        )
    return values.astype(np.float64)[:, None]
