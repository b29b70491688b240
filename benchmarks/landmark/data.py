"""Cohorts of the landmark benchmark: laboratory values before a landmark, events after it.

The landmark is the third visit with the main laboratory value, or the index date (diagnosis,
matching, randomisation) if that is later. Predictions use only data up to the landmark.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.suite.arrays import Index
from ehrmeta.data import (
    Table,
    label_within,
    landmark_times,
    load_dataset,
    load_events,
    load_frame,
    survival_array,
)
from ehrmeta.errors import DataWarning

DAYS = 365.25
HORIZONS = (1, 3, 5)  # years
SHOTS = 3
_NAFLD_EVENTS = {
    "diabetes": "diabetes",
    "heart attack": "myocardial infarction",
    "stroke": "stroke",
    "death": "death",
}


@dataclass(frozen=True, eq=False)
class Cohort:
    """Patients at their landmarks.

    Parameters
    ----------
    times : DataFrame
        ``subject_id, prediction_time``, a row per patient.
    labs : mapping of str to Table
        All values of all patients, also after the landmark and of patients without one.
    static : DataFrame, (patient, feature)
        Numeric features known at the landmark, NaN where missing.
    labels : mapping of str to DataFrame
        By event: `label_within` the longest horizon, indexed by the row numbers of `times`.
    matched_set : ndarray, (patient,)
        Patients of one set stay in one fold.
    """

    times: pd.DataFrame
    labs: Mapping[str, Table]
    static: pd.DataFrame
    labels: Mapping[str, pd.DataFrame]
    matched_set: Index

    def outcome(self, event: str) -> NDArray[np.void]:
        """Event codes and times in years of those at risk, as in `labels`."""
        labels = self.labels[event]
        return survival_array(labels["event"], labels["time"] / DAYS)


@lru_cache(maxsize=2)
def load_cohort(name: str) -> Cohort:
    """Read a cohort, cached per process and without warnings."""
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        return COHORTS[name]()


def fold_of_sets(matched_set: Index, n_folds: int, seed: int) -> Index:
    """Fold of every patient, the same within a matched set, (patient,)."""
    sets, codes = np.unique(matched_set, return_inverse=True)
    folds = np.arange(len(sets)) * n_folds // len(sets)
    drawn: Index = np.random.default_rng(seed).permutation(folds)[codes]
    return drawn


def visits(table: Table, times: pd.DataFrame) -> pd.DataFrame:
    """Number of values up to the landmark (``count``: log1p), and age of the last in years."""
    landmark = times.set_index("subject_id")["prediction_time"]
    at = pd.Series(table.groups).map(landmark).to_numpy()
    known = np.asarray(table.time) <= at
    of = pd.Series(np.asarray(table.time)[known]).groupby(table.groups[known])
    count = times["subject_id"].map(of.size()).fillna(0)
    last = times["subject_id"].map(of.max())
    return pd.DataFrame({"count": np.log1p(count), "age": (times["prediction_time"] - last) / DAYS})


def _nafld() -> Cohort:
    frame = load_frame("nafld")
    bmi = load_dataset("nafld").X["bmi"]  # without impossible values
    people = frame.assign(bmi=bmi).set_index("patient_id")
    events = load_events("nafld")
    labs = {lab: load_dataset(f"nafld-{lab}", min_rows=1) for lab in ("hdl", "sbp")}
    times = landmark_times(labs["hdl"].groups, labs["hdl"].time, SHOTS, index=0.0)
    times = _still_followed(times, people["follow_up"])
    person = people.loc[times["subject_id"]].reset_index(drop=True)
    static = pd.DataFrame(
        {
            "age": person["age"] + times["prediction_time"] / DAYS,
            "male": person["male"],
            "bmi": person["bmi"],
            **{
                f"prior {code}": _by_landmark(rows["subject_id"], rows["time"], times)
                for code, rows in events.groupby("code")
                if code not in ("death", "end of follow-up")
            },
            "sbp measured": _by_landmark(labs["sbp"].groups, labs["sbp"].time, times),
        }
    ).astype(np.float64)
    labels = {
        name: _labels(events, times, code, () if code == "death" else "death")
        for name, code in _NAFLD_EVENTS.items()
    }
    return Cohort(times, labs, static, labels, person["matched_set"].to_numpy(np.int64))


def _pbcseq() -> Cohort:
    frame = load_frame("pbcseq")
    labs = {lab: load_dataset("pbcseq", outcome=lab) for lab in ("bili", "albumin", "protime")}
    last = frame.groupby("patient_id", as_index=False).last()
    code = last["event"].map({0: None, 1: "transplant", 2: "death"})
    events = pd.DataFrame(
        {"subject_id": last["patient_id"], "time": last["follow_up"], "code": code}
    )
    end = events.assign(code="end of follow-up")
    events = pd.concat([events[code.notna()], end], ignore_index=True)
    times = landmark_times(frame["patient_id"], frame["day"], SHOTS, index=0.0)
    times = _still_followed(times, last.set_index("patient_id")["follow_up"])
    signs = ["age", "treatment", "ascites", "hepato", "spiders", "edema", "stage"]
    seen = times.merge(frame, left_on="subject_id", right_on="patient_id")
    seen = seen[seen["day"] <= seen["prediction_time"]].sort_values(["subject_id", "day"])
    known = seen.groupby("subject_id")[[*signs, "sex", "day"]].last().reset_index()
    static = known[signs].assign(male=known["sex"] == "m").astype(np.float64)
    static["age"] += (times["prediction_time"] - known["day"]) / DAYS
    labels = {"death": _labels(events, times, "death", "transplant")}
    return Cohort(times, labs, static, labels, times["subject_id"].to_numpy(np.int64))


COHORTS: dict[str, Callable[[], Cohort]] = {"nafld": _nafld, "pbcseq": _pbcseq}


def _still_followed(times: pd.DataFrame, follow_up: pd.Series) -> pd.DataFrame:
    followed = times["prediction_time"] < times["subject_id"].map(follow_up)
    return times[followed].reset_index(drop=True)


def _labels(
    events: pd.DataFrame, times: pd.DataFrame, event: str, competing: str | tuple[str, ...]
) -> pd.DataFrame:
    return label_within(
        events,
        max(HORIZONS) * DAYS,
        prediction_times=times,
        follow_up=events[events["code"] == "end of follow-up"],
        event=event,
        competing=competing,
    )


def _by_landmark(subjects: Any, time: Any, times: pd.DataFrame) -> pd.Series:
    """Whether a patient has a time up to the landmark, (patient,)."""
    first = pd.Series(np.asarray(time)).groupby(np.asarray(subjects)).min()
    return times["subject_id"].map(first) <= times["prediction_time"]
