"""What a patient is exposed to: the doses, with what is left of earlier ones."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar

from ehrmeta.treatment.arms import Array, Index
from ehrmeta.treatment.dosing.dose_model import Designs, DoseModel, dose_model_at, fit_dose_model

_RANGE = (0.1, 10.0)  # searched, in usual gaps between rows
_GAIN = 2.0  # of the log likelihood, that carry-over must bring: the 5 % level of one parameter
_N_ROUNDS = 2  # of half-life and variances in turn


def exposure(dose: Array, time: Array, starts: Index, half_life: float, gap: float) -> Array:
    r"""Doses averaged over the past, with weights that halve every `half_life`.

    .. math:: E_j = c_j E_{j-1} + (1 - c_j) D_j, \quad c_j = 2^{-(t_j - t_{j-1}) / T}

    A row's dose is taken to be given since the row before; before the first there was none. A dose
    held for long is its own exposure.

    Parameters
    ----------
    dose, time : (row,)
        Rows in task order and in time.
    starts : (task + 1,)
        Offsets of the tasks.
    half_life : float
        T, in the unit of time; 0 for none.
    gap : float
        How long a task's first dose had been given.

    Examples
    --------
    >>> days, starts = np.arange(1.0, 5.0), np.array([0, 4])
    >>> exposure(np.array([8.0, 8.0, 0.0, 0.0]), days, starts, half_life=1.0, gap=1.0)
    array([4. , 6. , 3. , 1.5])
    """
    if half_life == 0 or len(dose) == 0:
        return dose.astype(np.float64)
    since = np.diff(time, prepend=np.nan)
    filled = starts[:-1] < starts[1:]
    since[starts[:-1][filled]] = gap
    left = 0.5 ** (since / half_life)
    found = np.empty(len(dose))
    sizes = np.diff(starts)
    for place in range(int(sizes.max())):  # the n-th rows of all tasks at once
        rows = starts[:-1][sizes > place] + place
        before = found[rows - 1] if place else 0.0
        found[rows] = left[rows] * before + (1.0 - left[rows]) * dose[rows]
    return found


def usual_gap(time: Array, starts: Index) -> float:
    """Median time between a task's rows; 1 where no task has two."""
    inner = np.ones(len(time), bool)
    inner[starts[:-1][starts[:-1] < starts[1:]]] = False
    gaps = np.diff(time, prepend=0.0)[inner]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 1.0


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
