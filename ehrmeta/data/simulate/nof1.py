"""Simulated N-of-1 trials, and titration of doses by the outcome."""

from dataclasses import dataclass

import numpy as np

from ehrmeta.data.simulate._base import Floats, Simulated
from ehrmeta.data.tasks import RandomState
from ehrmeta.errors import DataError

BASELINE, EFFECT, TREND = 50.0, -4.0, -0.03  # means; effect per unit of dose, trend per day
PATIENT_SD = (8.0, 2.0, 0.05)  # of baseline, effect and trend
PERSISTENCE, FLUCTUATION_SD, NOISE_SD = 0.7, 3.0, 2.0
MAX_DOSE = 3
TARGET = (38.0, 44.0)  # of titration


@dataclass(frozen=True, eq=False, repr=False)
class NofOnePatients(Simulated):
    """Data of `make_nof1`: daily symptom scores (lower is better), with patients as groups.

    Attributes
    ----------
    X : ndarray, (row, 4)
        Dose, dose in the previous period (0 in the first), and the numbers, from 0, of the day
        within the period and of the period.
    treatment : ndarray, (row,)
        Dose: 0 or 1, or 0 to 3 with titration.
    time : ndarray, (row,)
        Day, from 0.
    exposure : ndarray, (row,)
        Effective dose, including carry-over.
    mean : ndarray, (row,)
        Expected score given the exposure, without fluctuation and noise.
    baseline, effect, trend : ndarray, (patient,)
        a, b and s of `make_nof1`.
    carry_over : float
        c of `make_nof1`.
    """

    treatment: Floats
    time: Floats
    exposure: Floats
    mean: Floats
    baseline: Floats
    effect: Floats
    trend: Floats
    carry_over: float


def make_nof1(
    n_patients: int = 100,
    n_periods: int = 8,
    n_days: int = 7,
    *,
    titration: bool = False,
    carry_over: float = 0.5,
    random_state: RandomState = None,
) -> NofOnePatients:
    """Simulate daily scores of patients whose treatment changes from period to period.

    On day d patient i with dose D has the exposure E and the score y,

    ``E_d = c E_(d-1) + (1 - c) D_d`` and ``y_d = a_i + b_i E_d + s_i d + w_d + 2 e_d``,

    where w is an autocorrelated fluctuation, ``w_d = .7 w_(d-1) + 3 sqrt(1 - .7^2) e'_d``, e and e'
    are standard normal, and a, b, s are normal over patients with means 50, -4, -.03 and standard
    deviations 8, 2, .05. A constant dose eventually changes the score by b per unit of dose.

    Without titration the doses are 0 and 1, in random order within each pair of periods. With
    titration, a patient starts at dose 0. The dose increases by 1 after a period with a mean score
    above 44, decreases by 1 after a period with a mean score below 38, and stays between 0 and 3.
    It then depends on past outcomes, so comparisons of patients or periods by dose are confounded.

    Parameters
    ----------
    n_patients, n_periods, n_days : int
        Numbers of patients, of periods, and of days per period.
    titration : bool
    carry_over : float
        c, at least 0 (none) and below 1: share of the previous day's exposure that remains.
    random_state : int, Generator or None

    Examples
    --------
    >>> patients = make_nof1(3, n_periods=4, random_state=0)
    >>> patients.X.shape, patients.effect.shape
    ((84, 4), (3,))
    """
    if min(n_patients, n_periods, n_days) < 1:
        raise DataError("n_patients, n_periods and n_days must be at least 1.")
    if not 0 <= carry_over < 1:
        raise DataError(f"carry_over must be at least 0 and below 1, got {carry_over}.")
    random = np.random.default_rng(random_state)
    averages, sds = np.array([[BASELINE, EFFECT, TREND], PATIENT_SD])
    a, b, s = (averages + sds * random.standard_normal((n_patients, 3))).T
    days = n_periods * n_days
    step, noise = random.standard_normal((2, days, n_patients))
    fluctuation = _persisting(step)
    dose, exposure, mean, y = np.zeros((4, days, n_patients))
    first = random.integers(0, 2, ((n_periods + 1) // 2, n_patients))  # of each pair of periods
    plan = np.stack([first, 1 - first], axis=1).reshape(-1, n_patients)  # (period, patient)
    level, acting = np.zeros((2, n_patients))
    for period in range(n_periods):
        if not titration:
            level = plan[period]
        rows = slice(period * n_days, (period + 1) * n_days)
        for day in range(rows.start, rows.stop):
            acting = carry_over * acting + (1 - carry_over) * level
            dose[day], exposure[day] = level, acting
            mean[day] = a + b * acting + s * day
        y[rows] = mean[rows] + fluctuation[rows] + NOISE_SD * noise[rows]
        if titration:
            score = y[rows].mean(axis=0)
            level = np.clip(level + (score > TARGET[1]) - (score < TARGET[0]), 0, MAX_DOSE)
    X, time = _features(dose, n_days), np.tile(np.arange(days, dtype=np.float64), n_patients)
    groups = np.repeat(np.arange(n_patients), days)
    y, dose, exposure, mean = (values.T.ravel() for values in (y, dose, exposure, mean))
    return NofOnePatients(X, y, groups, dose, time, exposure, mean, a, b, s, carry_over)


def _persisting(step: Floats) -> Floats:
    """Stationary first-order autoregression driven by normal steps, (day, patient)."""
    states = FLUCTUATION_SD * step
    for day in range(1, len(step)):
        innovation = np.sqrt(1 - PERSISTENCE**2) * states[day]
        states[day] = PERSISTENCE * states[day - 1] + innovation
    return states


def _features(dose: Floats, n_days: int) -> Floats:
    """Columns of X, (row, 4), from doses, (day, patient)."""
    days, n_patients = dose.shape
    before = np.concatenate([np.zeros((n_days, n_patients)), dose[:-n_days]])
    period, day = np.divmod(np.arange(days)[:, None], n_days)
    columns = np.broadcast_arrays(dose, before, day, period)
    return np.stack([column.T.ravel() for column in columns], axis=1).astype(np.float64)
