"""Simulated drug concentrations of patients with different clearance, volume and absorption."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrmeta.data.columns import check_mask
from ehrmeta.data.simulate._base import Floats, Simulated
from ehrmeta.data.tasks import RandomState
from ehrmeta.errors import DataError

CLEARANCE, VOLUME, ABSORPTION = 4.0, 40.0, 1.0  # L/h, L, 1/h, at 70 kg and 80 mL/min
PATIENT_SD = (0.35, 0.2, 0.3)  # of their logarithms, over patients
WEIGHT, KIDNEY = 70.0, 80.0
RENAL_EXPONENT = 0.6
INTERVAL = 12.0  # h between doses
DOSES_PER_LEVEL = 4
LEVELS = (100.0, 1200.0)  # mg
PROPORTIONAL_SD, ADDITIVE_SD, LIMIT = 0.15, 0.2, 0.1  # 1, mg/L, mg/L
TARGET = (5.0, 10.0)  # mg/L, just before the next dose
N_DRAWS = 4000  # from the prior


@dataclass(frozen=True, eq=False, repr=False)
class DosedPatients(Simulated):
    """Data of `make_pk`: measured concentrations in mg/L (0.1 or above), with patients as groups.

    Attributes
    ----------
    X : ndarray, (row, 4)
        Weight [kg], creatinine clearance [mL/min], last dose [mg], and hours since that dose.
    time : ndarray, (row,)
        Hours since the first dose.
    mean : ndarray, (row,)
        Concentration without measurement error [mg/L].
    clearance, volume, absorption : ndarray, (patient,)
        In L/h, L and 1/h.
    doses : ndarray, (patient, level)
        Doses [mg]; each is given four times, every 12 hours.
    oral : bool
    target : (float, float)
        Target range [mg/L] of the trough concentration at steady state.
    """

    time: Floats
    mean: Floats
    clearance: Floats
    volume: Floats
    absorption: Floats
    doses: Floats
    oral: bool
    target: tuple[float, float] = TARGET

    def concentration(self, dose: ArrayLike, hours: float = INTERVAL) -> Floats:
        """True steady-state concentration of a dose every 12 hours.

        Parameters
        ----------
        dose : float or array-like, (patient,) or (patient, dose)
            In mg.
        hours : float
            Time since the last dose; by default the trough.

        Returns
        -------
        ndarray, of the shape of `dose`; (patient,) if that is a number
        """
        parameters = np.stack([self.clearance, self.volume, self.absorption])
        unit = _steady(parameters, hours, self.oral)
        amount = np.asarray(dose, dtype=np.float64)
        return amount * (unit[:, None] if amount.ndim == 2 else unit)

    def in_target(self, dose: ArrayLike) -> NDArray[np.bool_]:
        """Whether the trough under a dose lies in the target range; shapes of `concentration`."""
        low, high = self.target
        trough = self.concentration(dose)
        return np.asarray((trough >= low) & (trough <= high))

    def chance(
        self, support: ArrayLike, dose: ArrayLike, random_state: RandomState = None
    ) -> Floats:
        """Posterior probability, given support rows, that each dose meets the target range.

        The posterior is that of clearance, volume and absorption under the true population model,
        by importance weights of 4,000 prior draws. The dose with the highest probability is
        optimal.

        Parameters
        ----------
        support : array-like of bool, (row,)
            Rows with known concentrations.
        dose : array-like, (dose,)
            In mg.
        random_state : int, Generator or None

        Returns
        -------
        ndarray, (patient, dose)
        """
        in_support = check_mask(support, len(self.y))
        doses = np.asarray(dose, dtype=np.float64)
        noise = np.random.default_rng(random_state).standard_normal((3, N_DRAWS))
        chance = np.empty((len(self.clearance), len(doses)))
        for patient in range(len(self.clearance)):
            of_patient = self.groups == patient
            weight, kidney = self.X[of_patient][0, :2]
            drawn = _parameters(weight, kidney, noise)  # (parameter, draw)
            rows = of_patient & in_support
            mean = _concentration(self.time[rows], self.doses[patient], drawn, self.oral)
            density = np.exp(_log_likelihood(self.y[rows], mean))
            unit = _steady(drawn, INTERVAL, self.oral)
            trough = doses[:, None] * unit  # (dose, draw)
            met = (trough >= self.target[0]) & (trough <= self.target[1])
            chance[patient] = met @ density / density.sum()
        return chance


def make_pk(
    n_patients: int = 200,
    n_levels: int = 5,
    *,
    route: Literal["oral", "iv"] = "oral",
    random_state: RandomState = None,
) -> DosedPatients:
    """Simulate drug concentrations under changing doses, with a one-compartment model.

    A patient of weight w [kg] and creatinine clearance r [mL/min] has, with e standard normal,

    ``CL = 4 (w / 70)^.75 (r / 80)^.6 exp(.35 e_1)`` L/h, ``V = 40 (w / 70) exp(.2 e_2)`` L and
    ``k_a = exp(.3 e_3)`` 1/h, where w and r are log-normal around 70 and 80 (sd of logarithms .2
    and .35). A dose D gives, t hours later and with k = CL / V,

    ``D k_a / (V (k_a - k)) (exp(-k t) - exp(-k_a t))`` if oral, ``D / V exp(-k t)`` if intravenous,

    and the concentrations of all doses add up. A dose is given every 12 hours. After every four
    doses it changes to a random dose, log-uniform between 100 and 1,200 mg. Each of these doses has
    one measurement, 1 to 12 hours after it was given last: ``y = c (1 + .15 e) + .2 e'``.

    Parameters
    ----------
    n_patients, n_levels : int
        Numbers of patients, and of different doses per patient, which are the rows.
    route : {"oral", "iv"}
    random_state : int, Generator or None

    Examples
    --------
    >>> patients = make_pk(3, random_state=0)
    >>> patients.concentration(500).shape
    (3,)
    >>> first = patients.time < 48
    >>> chance = patients.chance(first, [250, 500, 1000], random_state=0)
    >>> chance.shape
    (3, 3)
    """
    if route not in ("oral", "iv"):
        raise DataError(f"unknown route {route!r}. Use 'oral' or 'iv'.")
    if min(n_patients, n_levels) < 1:
        raise DataError("n_patients and n_levels must be at least 1.")
    random = np.random.default_rng(random_state)
    weight = WEIGHT * np.exp(0.2 * random.standard_normal(n_patients))
    kidney = KIDNEY * np.exp(0.35 * random.standard_normal(n_patients))
    parameters = _parameters(weight, kidney, random.standard_normal((3, n_patients)))
    low, high = np.log(LEVELS)
    doses = np.exp(random.uniform(low, high, (n_patients, n_levels)))
    since_dose = random.uniform(1.0, INTERVAL, (n_patients, n_levels))
    time = INTERVAL * (DOSES_PER_LEVEL * np.arange(1, n_levels + 1) - 1) + since_dose
    oral = route == "oral"
    patients = zip(time, doses, parameters.T, strict=True)
    mean = np.array([_concentration(t, d, p[:, None], oral)[:, 0] for t, d, p in patients])
    error, floor = random.standard_normal((2, *mean.shape))
    y = np.maximum(mean * (1 + PROPORTIONAL_SD * error) + ADDITIVE_SD * floor, LIMIT)
    features = np.broadcast_arrays(weight[:, None], kidney[:, None], doses, since_dose)
    X = np.stack([*features], axis=2).reshape(-1, 4)
    groups = np.repeat(np.arange(n_patients), n_levels)
    clearance, volume, absorption = parameters
    y, time, mean = y.ravel(), time.ravel(), mean.ravel()
    return DosedPatients(X, y, groups, time, mean, clearance, volume, absorption, doses, oral)


def _parameters(weight: ArrayLike, kidney: ArrayLike, noise: Floats) -> Floats:
    """Clearance, volume and absorption, (parameter, patient)."""
    size, renal = np.asarray(weight) / WEIGHT, np.asarray(kidney) / KIDNEY
    typical = [CLEARANCE * size**0.75 * renal**RENAL_EXPONENT, VOLUME * size, ABSORPTION]
    spread = np.exp(np.array(PATIENT_SD)[:, None] * noise)
    return np.stack([value * factor for value, factor in zip(typical, spread, strict=True)])


def _concentration(time: Floats, doses: Floats, parameters: Floats, oral: bool) -> Floats:
    """Concentrations of a dose history for parameter sets, (time, parameter set)."""
    given = np.repeat(doses, DOSES_PER_LEVEL)
    elapsed = time[:, None] - INTERVAL * np.arange(len(given))  # (time, dose)
    amount = np.where(elapsed >= 0, given, 0.0)

    def decay(rate: Floats) -> Floats:
        remaining = amount[..., None] * np.exp(-np.maximum(elapsed, 0)[..., None] * rate)
        return np.asarray(remaining.sum(axis=1))

    return _compartment(decay, parameters, oral)


def _steady(parameters: Floats, hours: float, oral: bool) -> Floats:
    """Steady-state concentration per mg, (parameter set,)."""

    def decay(rate: Floats) -> Floats:
        return np.asarray(np.exp(-rate * hours) / (1 - np.exp(-rate * INTERVAL)))

    return _compartment(decay, parameters, oral)


def _compartment(decay: Callable[[Floats], Floats], parameters: Floats, oral: bool) -> Floats:
    """Concentrations of the one-compartment model; `decay` is the amount remaining at a rate."""
    clearance, volume, absorption = parameters
    rate = clearance / volume
    if not oral:
        return np.asarray(decay(rate) / volume)
    gut = absorption / (volume * (absorption - rate))
    return np.asarray(gut * (decay(rate) - decay(absorption)))


def _log_likelihood(y: Floats, mean: Floats) -> Floats:
    """Log likelihood of the rows up to a constant, (parameter set,); ignores the lower limit."""
    sd = np.hypot(PROPORTIONAL_SD * mean, ADDITIVE_SD)
    log_density = np.sum(-0.5 * ((y[:, None] - mean) / sd) ** 2 - np.log(sd), axis=0)
    return np.asarray(log_density - log_density.max())
