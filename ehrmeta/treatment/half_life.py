"""How long earlier doses act: the half-life of largest likelihood, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from ehrmeta.treatment.dose_model import fit_dose_model

__all__ = ["Designs", "HalfLife", "estimate_half_life"]

Array = npt.NDArray[np.float64]
Designs = tuple[Array, Array, Array, Array, npt.NDArray[np.int64]]  # x, z, s, y, starts

_RANGE = (0.1, 10.0)  # searched, in usual gaps between rows
_GAIN = 2.0  # of the log likelihood, that carry-over must bring: the 5 % level of one parameter
_STEP = 0.25  # of the log half-life, in the search
_LARGEST_SD = 1.0
_NODES = (0.0, np.sqrt(3.0), -np.sqrt(3.0))  # Gauss-Hermite: exact to the fifth moment
_WEIGHTS = (2 / 3, 1 / 6, 1 / 6)


@dataclass(frozen=True)
class HalfLife:
    """An estimate whose logarithm is normal.

    Parameters
    ----------
    value : float
        In the unit of time; 0 where earlier doses do not act.
    log_sd : float
        Standard error of the logarithm; 0 where the value is known.
    """

    value: float
    log_sd: float = 0.0

    def nodes(self) -> list[tuple[float, float]]:
        """Half-lives and weights that stand for the distribution, the estimate first."""
        if self.value == 0 or self.log_sd == 0:
            return [(self.value, 1.0)]
        values = self.value * np.exp(self.log_sd * np.array(_NODES))
        return list(zip(values.tolist(), _WEIGHTS, strict=True))


def estimate_half_life(
    designs: Callable[[float], Designs], gap: float, *, process: bool
) -> HalfLife:
    """The half-life of earlier doses; 0 unless the likelihood gains by it.

    All other parameters are estimated anew under each half-life: what persists in the outcome would
    else pass for doses that do.

    Parameters
    ----------
    designs : callable
        Designs, time, response and offsets under a half-life, as `fit_dose_model` takes them.
    gap : float
        Usual time between a patient's rows.
    process : bool
        Whether the model may have a process.
    """

    @cache
    def gain(log_half_life: float, process: bool) -> float:
        half_life = np.exp(log_half_life)
        return fit_dose_model(*designs(half_life), process=process).log_likelihood - none(process)

    @cache
    def none(process: bool) -> float:
        return fit_dose_model(*designs(0.0), process=process).log_likelihood

    low, high = np.log(_RANGE) + np.log(gap)
    best = float(
        minimize_scalar(
            lambda at: -gain(float(at), False),
            bounds=(low, high),
            method="bounded",
            options={"xatol": _STEP},
        ).x
    )
    if gain(best, False) < _GAIN:  # without a process, where earlier doses are needed most
        return HalfLife(0.0)
    best, fall = _climbed(lambda at: gain(at, process), best, low, high)
    if gain(best, process) < _GAIN:
        return HalfLife(0.0)
    slope = (gain(best + _STEP, process) - gain(best - _STEP, process)) / (2 * _STEP)
    curvature = max(fall / _STEP**2, 1.0 / _LARGEST_SD**2)
    top = best + float(np.clip(slope / curvature, -_STEP, _STEP))
    return HalfLife(float(np.exp(top)), float(1.0 / np.sqrt(curvature)))


def _climbed(
    gain: Callable[[float], float], start: float, low: float, high: float
) -> tuple[float, float]:
    """Where in steps from `start` the gain is largest, and how far it falls on both sides."""
    best = start
    while True:
        around = [best, best - _STEP, best + _STEP]
        to = around[int(np.argmax([gain(at) for at in around]))]
        if to == best or not low <= to <= high:
            return best, 2 * gain(best) - gain(around[1]) - gain(around[2])
        best = to
