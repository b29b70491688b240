"""Exposure: a weighted average of current and earlier doses, and the half-life of carry-over."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar

from ehrmeta.treatment.arms import Array, Index
from ehrmeta.treatment.dosing.dose_model import Designs, DoseModel, dose_model_at, fit_dose_model

_RANGE = (0.1, 10.0)  # of the half-life, in usual gaps between rows
_GAIN = 2.0  # in log-likelihood, for carry-over to be included: the 5 % level of one parameter
_N_ROUNDS = 2  # of alternating between estimates of half-life and variances


def exposure(dose: Array, time: Array, starts: Index, half_life: float, gap: float) -> Array:
    r"""Doses averaged over the past, with weights that halve every `half_life`.

    .. math:: E_j = c_j E_{j-1} + (1 - c_j) D_j, \quad c_j = 2^{-(t_j - t_{j-1}) / T}

    A row's dose is assumed to be given from the previous row to this one, with no dose before the
    first. The exposure under a constant dose converges to the dose.

    Parameters
    ----------
    dose, time, starts : (row,), (row,), (task + 1,)
        Rows sorted by task and time, and offsets of the tasks.
    half_life : float
        T, in the unit of time; 0 for no carry-over.
    gap : float
        Assumed duration of a task's first dose before its first row.

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
    carried = 0.5 ** (since / half_life)
    exposed = np.empty(len(dose))
    sizes = np.diff(starts)
    for place in range(int(sizes.max())):  # the n-th rows of all tasks at once
        rows = starts[:-1][sizes > place] + place
        before = exposed[rows - 1] if place else 0.0
        exposed[rows] = carried[rows] * before + (1.0 - carried[rows]) * dose[rows]
    return exposed


def usual_gap(time: Array, starts: Index) -> float:
    """Median time between a task's rows; 1 if no task has two rows at different times."""
    inner = np.ones(len(time), bool)
    inner[starts[:-1][starts[:-1] < starts[1:]]] = False
    gaps = np.diff(time, prepend=0.0)[inner]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 1.0


def estimate_half_life(designs: Callable[[float], Designs], gap: float, *, process: bool) -> float:
    """Maximum-likelihood half-life of carry-over; 0 unless it improves the likelihood enough.

    The first search is without a process. The next ones use the variances of a fit with a process,
    so that persistence of the outcome is not mistaken for carry-over of doses.

    Parameters
    ----------
    designs : callable
        Maps a half-life to its `Designs`.
    gap : float
        Usual time between a patient's rows.
    process : bool
        Whether the model may include an Ornstein-Uhlenbeck process.
    """

    def fitted(half_life: float, process: bool) -> DoseModel:
        return fit_dose_model(designs(half_life), process=process)

    def is_worth_it(half_life: float, process: bool) -> bool:
        without = fitted(0.0, process).log_likelihood
        return fitted(half_life, process).log_likelihood >= without + _GAIN

    half_life = _most_likely(lambda trial: fitted(trial, False), gap)
    if not is_worth_it(half_life, False):
        return 0.0
    for _ in range(_N_ROUNDS if process else 0):
        model = fitted(half_life, True)
        half_life = _most_likely(partial(_with_variances_of, model, designs), gap)
    return half_life if is_worth_it(half_life, process) else 0.0


def _with_variances_of(
    model: DoseModel, designs: Callable[[float], Designs], half_life: float
) -> DoseModel:
    return dose_model_at(designs(half_life), **model.variances)


def _most_likely(model: Callable[[float], DoseModel], gap: float) -> float:
    """The half-life with the highest likelihood of `model`."""
    optimum = minimize_scalar(
        lambda log_half_life: -model(float(np.exp(log_half_life))).log_likelihood,
        bounds=tuple(np.log(_RANGE) + np.log(gap)),
        method="bounded",
        options={"xatol": 0.02},
    )
    return float(np.exp(optimum.x))
