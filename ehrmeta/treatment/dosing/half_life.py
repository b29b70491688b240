"""How long earlier doses act: the half-life of largest likelihood."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar

from ehrmeta.treatment.arrays import Array, Index
from ehrmeta.treatment.dosing.dose_model import DoseModel, dose_model_at, fit_dose_model

Designs = tuple[Array, Array, Array, Array, Index]  # x, z, s, y, starts

_RANGE = (0.1, 10.0)  # searched, in usual gaps between rows
_GAIN = 2.0  # of the log likelihood, that carry-over must bring: the 5 % level of one parameter
_N_ROUNDS = 2  # of half-life and variances in turn


def estimate_half_life(designs: Callable[[float], Designs], gap: float, *, process: bool) -> float:
    """The half-life of earlier doses; 0 unless the likelihood gains by it.

    First without a process, then under the variances of a fit with one: what persists in the
    outcome would else pass for doses that do.

    Parameters
    ----------
    designs : callable
        Designs, time, response and offsets under a half-life, as `fit_dose_model` takes them.
    gap : float
        Usual time between a patient's rows.
    process : bool
        Whether the model may have a process.
    """

    def fitted(half_life: float, process: bool) -> DoseModel:
        return fit_dose_model(*designs(half_life), process=process)

    found = _searched(lambda at: fitted(at, False), gap)
    if fitted(found, False).log_likelihood < fitted(0.0, False).log_likelihood + _GAIN:
        return 0.0
    for _ in range(_N_ROUNDS if process else 0):
        found = _searched(partial(_under, fitted(found, True), designs), gap)
    if fitted(found, process).log_likelihood < fitted(0.0, process).log_likelihood + _GAIN:
        return 0.0
    return found


def _under(model: DoseModel, designs: Callable[[float], Designs], half_life: float) -> DoseModel:
    return dose_model_at(
        *designs(half_life),
        G=model.G,
        process_var=model.process_var,
        tau=model.tau,
        noise_var=model.noise_var,
    )


def _searched(model: Callable[[float], DoseModel], gap: float) -> float:
    """The half-life under which a model is most likely."""
    found = minimize_scalar(
        lambda log_half_life: -model(float(np.exp(log_half_life))).log_likelihood,
        bounds=tuple(np.log(_RANGE) + np.log(gap)),
        method="bounded",
        options={"xatol": 0.02},
    )
    return float(np.exp(found.x))
