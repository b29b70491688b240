"""Randomised trials: values of learned policies, and effects on restricted mean survival.

Each method is fitted to four fifths of the patients and recommends an arm to the others. All
policies are scored by the same doubly robust scores, with the trial's probabilities and
cross-fitted outcome models, relative to the arm that is best for all in training.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from benchmarks.suite.arrays import Array, Index, Mask
from benchmarks.suite.record import Record
from benchmarks.treatment.methods import METHODS, OURS, fit_ours
from benchmarks.treatment.trial_data import load_actg175, load_ihdp
from ehrmeta.data import Encoder, Table, load_dataset, load_frame, survival_array
from ehrmeta.errors import DataWarning
from ehrmeta.evaluation.survival import censoring_curve, kaplan_meier, read_event_times
from ehrmeta.treatment.arms import Arms
from ehrmeta.treatment.policy import rate

_REVERSED = 0.3  # share of the patients with a planted reversal
_QUANTILES = 5


@dataclass(frozen=True)
class Trial:
    """A randomised trial.

    Parameters
    ----------
    load : callable
        Returns its table.
    control : label of an arm
    higher_is_better : bool
    probability : float or None
        Of every arm; None if it differs between sites and is estimated.
    package : str
        Optional package that it requires.
    planted : str
        Feature; effects are reversed in its upper 30 %.
    """

    load: Callable[[], Table]
    control: Any
    higher_is_better: bool
    probability: float | None
    package: str = ""
    planted: str = ""


TRIALS: dict[str, Trial] = {
    "rhdnase": Trial(lambda: load_dataset("rhdnase"), 0, False, 0.5),
    "ihdp": Trial(load_ihdp, 0, True, None, "econml"),
    "actg175": Trial(load_actg175, "zidovudine", True, 0.25, "lifelines"),
    "actg175, planted": Trial(load_actg175, "zidovudine", True, 0.25, "lifelines", planted="cd40"),
}


@dataclass(frozen=True, eq=False)
class _Rows:
    """A trial as arrays."""

    X: Array
    y: Array  # larger is better
    arm: Index
    site: Index
    scores: Array  # doubly robust, (row, arm)
    inside: Mask  # of a planted reversal

    @property
    def n_arms(self) -> int:
        return int(self.scores.shape[1])


def measure_trial(name: str, method: str) -> list[Record]:
    """Gain of a method's policy over the best arm for all; ranking and calibration of effects."""
    start = time.perf_counter()
    rows = _rows(name)
    every = np.arange(len(rows.y))
    effects = np.zeros((len(every), rows.n_arms - 1))
    single = np.zeros(len(every), np.int64)
    all_vary = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(every, rows.arm):
        effects[test], varies = _effects(name, method, rows, train, test)
        single[test] = rows.scores[train].mean(0).argmax()
        all_vary.append(varies)
    policy = np.column_stack([np.zeros(len(every)), effects]).argmax(1)
    gain = rows.scores[every, policy] - rows.scores[every, single]
    best = int(np.bincount(single).argmax()) or 1
    contrast = rows.scores[:, best] - rows.scores[:, 0]
    ranking = rate(effects[:, best - 1], contrast)
    sd = float(rows.y.std())
    seconds, n = time.perf_counter() - start, len(every)
    record = partial(Record, "treatment", name, method, n_tasks=n, seconds=seconds)
    half = 1.96 * float(gain.std(ddof=1) / np.sqrt(len(gain)))
    mean = float(gain.mean())
    calibration = _calibration(effects[:, best - 1], contrast)
    records = [
        record("gain_sd", mean / sd, low=(mean - half) / sd, high=(mean + half) / sd),
        record("autoc_sd", ranking.value / sd, low=ranking.low / sd, high=ranking.high / sd),
        record("calibration_sd", calibration / sd),
    ]
    if method == OURS:
        records.append(record("varies", float(np.mean(all_vary))))
    if rows.inside.any():
        ideal = np.where(rows.inside, 0, best)
        most = float((rows.scores[every, ideal] - rows.scores[every, single]).mean())
        records.append(record("recovered", mean / most))
    return records


def _effects(name: str, method: str, rows: _Rows, train: Index, test: Index) -> tuple[Array, float]:
    """Effects of all arms over the control at the test rows, and whether ours vary."""
    X, y, arm = rows.X[train], rows.y[train], rows.arm[train]
    make = METHODS[method].make
    if make is not None:
        columns = []
        for a in range(1, rows.n_arms):
            both = (arm == 0) | (arm == a)
            model = make().fit(X[both], y[both], (arm[both] == a).astype(np.int64))
            columns.append(model.effect(rows.X[test]))
        return np.column_stack(columns), float("nan")
    context = {"groups": rows.site[train]} if rows.site.any() else {}
    model = fit_ours(X, y, arm, probability=_probability(name, rows.n_arms), **context)
    varies = float(model.variation_ != "none" or set(model.forms_) != {"constant"})
    if not context:
        return model.arm_effects(rows.X[test]), varies
    effects = model.tasks_.arm_effects(
        rows.X[test], groups=rows.site[test], new_groups="population"
    )
    return effects, varies


def _calibration(effect: Array, scores: Array) -> float:
    """Mean distance of mean effect and mean score over fifths of the rows by effect."""
    fifths = np.array_split(np.argsort(effect, kind="stable"), _QUANTILES)
    return float(np.mean([abs(effect[rows].mean() - scores[rows].mean()) for rows in fifths]))


def _probability(name: str, n_arms: int) -> Any:
    probability = TRIALS[name].probability
    return None if probability is None else dict.fromkeys(range(n_arms), probability)


@lru_cache(maxsize=1)
def _rows(name: str) -> _Rows:
    trial = TRIALS[name]
    with warnings.catch_warnings(action="ignore", category=DataWarning):  # of dropped rows
        table = trial.load()
    columns = {column: table.X[column].to_numpy() for column in table.X.columns}
    features = tuple(replace(feature, role="known") for feature in table.schema.features)
    X = Encoder.fit(columns, features).transform(columns)[0].astype(np.float64)
    arm = Arms.fit(table.treatment, trial.control).codes(table.treatment)
    y = table.y if trial.higher_is_better else -table.y
    site = table.tasks.codes if table.n_tasks > 1 else np.zeros(len(y), np.int64)
    inside = np.zeros(len(y), bool)
    if trial.planted:
        values = columns[trial.planted].astype(np.float64)
        inside = values > np.quantile(values, 1 - _REVERSED)
        average = _scores(name, X, y, arm, site).mean(0)
        y = y - 2 * (average - average[0])[arm] * inside
    return _Rows(X, y, arm, site, _scores(name, X, y, arm, site), inside)


def _scores(name: str, X: Array, y: Array, arm: Index, site: Index) -> Array:
    """Cross-fitted doubly robust scores of the arms, (row, arm)."""
    n_arms = int(arm.max()) + 1
    context = {"groups": site} if site.any() else {}
    model = fit_ours(X, y, arm, probability=_probability(name, n_arms), **context)
    return model.tasks_.arm_scores()


@dataclass(frozen=True)
class SurvivalTrial:
    """A trial with censored survival times: its columns, control arm and horizon."""

    event: str
    time: str
    treatment: str
    control: object
    horizon: float  # days


SURVIVAL_TRIALS = {
    "colon": SurvivalTrial("died", "survival", "arm", "observation", 1826.0),
    "udca": SurvivalTrial("failed", "event_free", "treatment", 0, 1096.0),
}


def measure_survival(name: str) -> list[Record]:
    """Difference in restricted mean survival of each arm: ours beside Kaplan-Meier."""
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


def _weighted_time(event: Index, time: Array, arm: NDArray[np.object_], horizon: float) -> Array:
    """Time up to the horizon, weighted for censoring (IPCW), 0 if censored.

    Its mean in an arm estimates the restricted mean survival time if censoring is random.
    """
    restricted = np.minimum(time, horizon)
    complete = (event > 0) | (time >= horizon)
    weighted = np.zeros(len(time))
    for label in set(arm):
        rows = arm == label
        curve = censoring_curve(read_event_times(survival_array(event[rows], time[rows])))
        weighted[rows] = complete[rows] * restricted[rows] / curve.before(restricted[rows])
    return weighted


def _area(event: Index, time: Array, rows: Mask, horizon: float) -> float:
    """Area under the Kaplan-Meier curve up to the horizon."""
    grid = np.linspace(0.0, horizon, 2001)
    curve = kaplan_meier(survival_array(event[rows], time[rows]), times=grid[1:])
    return float(np.trapezoid(np.concatenate([[1.0], curve]), grid))
