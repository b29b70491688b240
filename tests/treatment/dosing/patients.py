"""Patients with individual lines in the dose, and n-of-1 trials, fitted once."""

from functools import cache

import numpy as np

from ehrmeta.data import NofOnePatients
from ehrmeta.treatment import AdaptedDoses, DoseResponse

Array = np.ndarray
PATIENTS, ROWS = 60, 6


@cache
def lines() -> tuple[Array, Array, Array, Array, Array]:
    """Patients with individual lines in the dose, with slopes around 2."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(PATIENTS), ROWS)
    day = np.tile(np.arange(float(ROWS)), PATIENTS)
    dose = rng.integers(1, 5, len(patient)).astype(float)
    slope = rng.normal(2, 0.5, PATIENTS)
    y = rng.normal(10, 3, PATIENTS)[patient] + slope[patient] * dose
    return np.zeros((len(y), 1)), y + rng.normal(0, 0.5, len(y)), dose, patient, day


@cache
def fitted() -> DoseResponse:
    X, y, dose, patient, day = lines()
    return DoseResponse(trend=False).fit(X, y, treatment=dose, groups=patient, time=day)


def adapted() -> AdaptedDoses:
    return fitted().adapt([[0.0]] * 3, [12.0, 16.0, 14.0], treatment=[1, 3, 2], time=[0, 1, 2])


def nof1_fit(p: NofOnePatients, **parameters: object) -> DoseResponse:
    model = DoseResponse(**parameters)
    return model.fit(p.X[:, 3:], p.y, treatment=p.treatment, groups=p.groups, time=p.time)
