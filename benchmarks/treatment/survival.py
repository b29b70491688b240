"""Effects on restricted mean survival time in two trials, with censoring weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.suite.record import Record
from benchmarks.treatment.methods import OURS, fit_ours
from ehrmeta.data import load_dataset
from ehrmeta.data.catalog import load_frame
from ehrmeta.data.labels import survival_array
from ehrmeta.evaluation.survival import censoring_curve, kaplan_meier, read_event_times

__all__ = ["SURVIVAL_TRIALS", "measure_survival"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SurvivalTrial:
    """A trial with censored times.

    Parameters
    ----------
    event, time, treatment : str
        Columns.
    control : label of an arm
    horizon : float
        Days up to which survival counts.
    """

    event: str
    time: str
    treatment: str
    control: object
    horizon: float


SURVIVAL_TRIALS = {
    "colon": SurvivalTrial("died", "survival", "arm", "observation", 1826.0),
    "udca": SurvivalTrial("failed", "event_free", "treatment", 0, 1096.0),
}


def measure_survival(name: str) -> list[Record]:
    """Days of life within the horizon that each arm adds: ours beside Kaplan-Meier."""
    trial = SURVIVAL_TRIALS[name]
    frame, features = load_frame(name), load_dataset(name).X
    frame = frame.loc[features.index]
    arm, time = frame[trial.treatment].to_numpy(), frame[trial.time].to_numpy(np.float64)
    event = frame[trial.event].to_numpy(np.int64)
    weighted = _weighted_time(event, time, arm, trial.horizon)
    others = [label for label in sorted(set(arm)) if label != trial.control]
    probability = dict.fromkeys([trial.control, *others], 1.0 / (1 + len(others)))
    model = fit_ours(features, weighted, arm, probability=probability)
    records = []
    for label in others:
        pooled = model.tasks_.pooled_effect(T0=trial.control, T1=label)
        record = partial(Record, "treatment", f"{name}: {label}", metric="rmst", n_tasks=len(arm))
        low, high = pooled.interval
        records.append(record(method=OURS, value=pooled.effect, low=low, high=high))
        areas = [_area(event, time, arm == one, trial.horizon) for one in (label, trial.control)]
        records.append(record(method="Kaplan-Meier", value=areas[0] - areas[1]))
    return records


def _weighted_time(
    event: NDArray[np.int64], time: Array, arm: NDArray[np.object_], horizon: float
) -> Array:
    """Time up to the horizon over the probability of not being censored before, 0 if censored.

    Its mean in an arm is the restricted mean survival time, whatever was censored at random within
    the arm.
    """
    seen = np.minimum(time, horizon)
    complete = (event > 0) | (time >= horizon)
    weighted = np.zeros(len(time))
    for label in set(arm):
        rows = arm == label
        curve = censoring_curve(read_event_times(survival_array(event[rows], time[rows])))
        weighted[rows] = complete[rows] * seen[rows] / curve.before(seen[rows])
    return weighted


def _area(event: NDArray[np.int64], time: Array, rows: NDArray[np.bool_], horizon: float) -> float:
    """Area under the Kaplan-Meier curve up to the horizon."""
    grid = np.linspace(0.0, horizon, 2001)
    curve = kaplan_meier(survival_array(event[rows], time[rows]), times=grid[1:])
    return float(np.trapezoid(np.concatenate([[1.0], curve]), grid))
