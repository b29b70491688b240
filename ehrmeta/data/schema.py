"""Schema of a table: the roles, units and ranges of its columns."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.censored import FLAG, Censored, read_limits, resolve_censored
from ehrmeta.data.clock import SECONDS, to_time
from ehrmeta.data.columns import Columns, read_columns, require_columns
from ehrmeta.data.roles import Measured, find_measured, is_static
from ehrmeta.data.toml_file import read_toml, write_toml
from ehrmeta.errors import DataError, DataWarning, Remedy, SchemaError, did_you_mean, warn

T = TypeVar("T")
TaskKind = Literal["patient", "cohort"]
OnDuplicate = Literal["error", "first", "last", "mean", "allow"]
Kind = Literal["numeric", "categorical", "binary"]
Role = Literal["known", "static", "measured"]
Transform = Literal["log", "sqrt"]


@dataclass(frozen=True)
class Feature:
    """An input column.

    Parameters
    ----------
    name : str
        Column name.
    kind : {"numeric", "categorical", "binary"}
        A binary feature holds 0 and 1.
    role : {"known", "static", "measured"}
        `static`: constant within a task (sex). `known`: known ahead of time (calendar, age at the
        visit, planned dose). `measured`: known only after measurement; a query row uses its last
        value in the support and the age of that value.
    unit : str
        UCUM unit, for example ``"mg/dL"``.
    low, high : float, optional
        Plausible range in `unit`; `Table` masks values outside.
    label : str
        Label for tables and axes.
    block : str
        Numeric features of one block, such as the pixels of an image, are scaled together, by the
        center and spread of the block.

    Examples
    --------
    >>> Feature("albumin", role="measured", unit="g/dL", low=0.5, high=8).unit
    'g/dL'
    >>> image = tuple(Feature(f"x{i}", block="image") for i in range(64))
    """

    name: str
    kind: Kind = "numeric"
    role: Role = "known"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    label: str = ""
    block: str = ""

    def __post_init__(self) -> None:
        which = f"feature '{self.name}'"
        _check_choice(self.kind, Kind, which, "kind")
        _check_choice(self.role, Role, which, "role")
        _check_range(self.low, self.high, self.name)
        if self.kind != "numeric" and self.block:
            raise SchemaError(f"{which} is {self.kind} and cannot be in a block. Drop block.")
        if self.kind == "categorical" and (self.low is not None or self.high is not None):
            raise SchemaError(f"{which} is categorical and cannot have a range. Drop low and high.")


@dataclass(frozen=True)
class Outcome:
    """The column to predict.

    Parameters
    ----------
    name, unit, low, high, label
        As in `Feature`; a `Table` drops rows whose outcome is outside the range, and predictions
        keep to it.
    transform : {"log", "sqrt"}, optional
        Transform for the model; predictions are on the original scale.
    resolution : float, optional
        Recording step of the outcome in `unit` (1 mm[Hg], 0.1 mg/dL).
    """

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    label: str = ""
    transform: Transform | None = None
    resolution: float | None = None

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.name)
        which = f"outcome '{self.name}'"
        if self.transform is not None:
            _check_choice(self.transform, Transform, which, "transform")
        if self.resolution is not None and not self.resolution > 0:
            raise SchemaError(f"{which}: resolution must be positive, got {self.resolution}.")


@dataclass(frozen=True)
class Clock:
    """The time column.

    Parameters
    ----------
    name : str
        Column name.
    unit : {"s", "min", "h", "d", "wk", "mo", "a"}
        UCUM unit; a month is 30.4375 d, a year 365.25 d.
    origin : str, optional
        ISO date for counting dates (default 1970-01-01), or the event from which numbers are
        counted, for example ``"index date"``.
    is_feature : bool
        False if the origin is not known ahead (an index date in the future): then only time
        differences are used.
    zoned : bool, optional
        Whether dates have a time zone, which `Table.from_frame` finds; None if unknown. Tables of
        the other kind are refused.
    """

    name: str
    unit: str = "d"
    origin: str | None = None
    is_feature: bool = True
    zoned: bool | None = None

    def __post_init__(self) -> None:
        _check_choice(self.unit, SECONDS, f"time '{self.name}'", "unit")


def _check_choice(value: str, choices: Any, where: str, what: str) -> None:
    """Raise if a value is not among those of a Literal, or the keys of a mapping."""
    values = get_args(choices) or tuple(choices)
    if value not in values:
        raise SchemaError(f"{where}: unknown {what} {value!r}. Use one of {', '.join(values)}.")


def _check_range(low: float | None, high: float | None, name: str) -> None:
    if not all(math.isfinite(bound) for bound in (low, high) if bound is not None):
        raise SchemaError(f"column '{name}': a bound must be finite. Omit it for no bound.")
    if low is not None and high is not None and low >= high:
        raise SchemaError(
            f"column '{name}': low ({low:g}) must be below high ({high:g}). Swap or correct them."
        )


@dataclass(frozen=True, repr=False)
class Schema:
    """Roles of the columns of a table.

    Parameters
    ----------
    features : tuple of Feature
    outcome : Outcome, optional
    task : str, optional
        Column of the task ids: patients, or cohorts such as hospitals.
    task_kind : {"patient", "cohort"}
    time : Clock, optional
        Required by `measured` features.
    treatment : str, optional
    outcome_time : str, optional
        Column with the time at which the outcome became known, in the unit of `time`.
    on_duplicate : {"error", "first", "last", "mean", "allow"}
        Treatment of repeated (patient, time) rows. In cohorts repeats are kept.
    censored : {"error", "half", "limit", "column"}
        Treatment of numbers recorded as ``<5`` or ``>200``: an error, half the lower limit (values
        above a limit count as the limit), the limit, or the limit and a feature
        ``<column>_censored``, -1 below and 1 above a limit, else 0. All are approximations:
        the limit shifts low values up, and no likelihood accounts for the censoring.

    Examples
    --------
    >>> print(Schema((Feature("age", unit="a"),), Outcome("hdl", unit="mg/dL"), task="patient"))
    task     patient (patient)
    outcome  hdl [mg/dL]
    known    age [a]
    """

    features: tuple[Feature, ...]
    outcome: Outcome | None = None
    task: str | None = None
    task_kind: TaskKind = "patient"
    time: Clock | None = None
    treatment: str | None = None
    outcome_time: str | None = None
    on_duplicate: OnDuplicate = "error"
    censored: Censored = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        _check_choice(self.task_kind, TaskKind, "schema", "task_kind")
        _check_choice(self.on_duplicate, OnDuplicate, "schema", "on_duplicate")
        _check_choice(self.censored, Censored, "schema", "censored")
        columns = self.columns
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise SchemaError(f"column(s) {repeated} have more than one role. Give each one role.")
        if "" in columns:
            raise SchemaError("a column has an empty name. Name every column.")
        if self.time is None and self.measured:
            raise SchemaError(
                f"measured feature(s) {list(self.measured)} need a time column to determine their "
                "last value.",
                Remedy("name-time", "Pass time=..., or give them the role 'known' or 'static'."),
            )
        if self.time is None and self.outcome_time is not None:
            raise SchemaError(
                f"outcome_time '{self.outcome_time}' needs a time column. Pass time=..."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(feature.name for feature in self.features)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the measured features."""
        return tuple(f.name for f in self.features if f.role == "measured")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns with a role."""
        outcome, time = (part.name if part else None for part in (self.outcome, self.time))
        others = (self.task, outcome, time, self.treatment, self.outcome_time)
        return (*(name for name in others if name is not None), *self.names)

    @classmethod
    def infer(
        cls,
        frame: Any,
        *,
        task: str | None = None,
        outcome: str | Outcome | None = None,
        time: str | Clock | None = None,
        treatment: str | None = None,
        outcome_time: str | None = None,
        task_kind: TaskKind = "patient",
        on_duplicate: OnDuplicate = "error",
        censored: Censored = "error",
        features: Sequence[str] = (),
        measured: Sequence[str] = (),
        known: Sequence[str] | None = None,
        units: Mapping[str, str] | None = None,
        ranges: Mapping[str, tuple[float | None, float | None]] | None = None,
    ) -> Schema:
        """Infer a schema from a frame: columns without another role are features.

        Text becomes categorical and 0/1 columns binary. Features that are constant within tasks are
        static. In a table of patients with time, others are measured, unless they are named in
        `known` or are functions of time (age, number of the visit, calendar); without time or in
        cohorts, they are known ahead.

        Parameters
        ----------
        frame : pandas, polars or pyarrow frame, or 2-D array
        features : sequence of str
            By default all columns without another role.
        measured : sequence of str
            Features that are not known ahead.
        known : sequence of str, optional
            Features that are known ahead although they vary within tasks, such as planned doses.
            Without it a `DataWarning` counts those read as measured.
        units : mapping of str to str, optional
            UCUM units of features and outcome by column name.
        ranges : mapping of str to (low, high), optional
            Plausible ranges of features and outcome by column name; None for no bound.
        task, outcome, time, treatment, outcome_time, task_kind, on_duplicate, censored
            As in `Schema`.

        Raises
        ------
        SchemaError
            A named column is missing, or a feature holds dates.

        Examples
        --------
        >>> frame = {"id": [1, 1, 2, 2], "day": [0, 9, 0, 9], "dose": [1, 2, 1, 2], "y": range(4)}
        >>> Schema.infer(pd.DataFrame(frame), task="id", time="day", outcome="y", known=["dose"])
        task     id (patient)
        outcome  y
        time     day [d]
        known    dose
        """
        columns, units, ranges = read_columns(frame), units or {}, ranges or {}
        columns = resolve_censored(columns, censored)
        if isinstance(outcome, str):
            low, high = ranges.get(outcome, (None, None))
            outcome = Outcome(outcome, units.get(outcome, ""), low, high)
        if isinstance(time, str):
            time = Clock(time)
        others = cls(
            (), outcome, task, task_kind, time, treatment, outcome_time, on_duplicate, censored
        )
        if outcome is not None and outcome.name + FLAG in columns:
            if time is None or task_kind == "cohort":
                raise SchemaError(
                    f"censored='column' reveals the outcome '{outcome.name}' in a table "
                    "without visits in time. Choose 'half' or 'limit'."
                )
            measured = (*measured, outcome.name + FLAG)
        require_columns(columns, (*others.columns, *features, *measured, *units, *ranges))
        planned = known or ()
        require_columns(columns, planned)
        both = sorted({*measured} & {*planned})
        if both:
            raise SchemaError(f"column(s) {both} are both measured and known. Choose one.")
        names = [name for name in dict.fromkeys(features or columns) if name not in others.columns]
        undeclared = [name for name in names if name not in {*measured, *planned}]
        varying = others._find_measured(columns, undeclared)
        if known is None:
            varying.warn()
        inferred = []
        for name in names:
            role: Role = "known"
            if name in measured or name in varying.n_varying:
                role = "measured"
            elif task is not None and is_static(columns[name], columns[task]):
                role = "static"
            unit, (low, high) = units.get(name, ""), ranges.get(name, (None, None))
            inferred.append(Feature(name, _kind_of(columns[name], name), role, unit, low, high))
        return dataclasses.replace(others, features=tuple(inferred))

    def _find_measured(self, columns: Columns, names: Sequence[str]) -> Measured:
        """Columns that become known only at a visit, in a table of patients with time."""
        clock = self.time
        if clock is None or self.task is None or self.task_kind == "cohort":
            return Measured({}, (), 0)
        time = None
        with suppress(DataError), warnings.catch_warnings():  # given when the table is checked
            warnings.simplefilter("ignore", DataWarning)
            values = columns[clock.name]
            time = to_time(values, unit=clock.unit, origin=clock.origin, name=clock.name)
        return find_measured(columns, names, columns[self.task], time)

    def to_toml(self, path: str | os.PathLike[str]) -> None:
        """Write the schema to a TOML file, for editing and for keeping with the data."""
        write_toml(self.to_dict(), path)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Schema:
        """Read a TOML file in the format of `to_toml`; raises a `SchemaError` for unknown keys."""
        return cls.from_dict(read_toml(path))

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe values for `from_dict`."""
        values = dataclasses.asdict(self)
        return values | {"features": list(values["features"])}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """Create a schema from `to_dict`, or from a data set's card."""
        features = tuple(_build(Feature, f) for f in values.get("features", ()))
        parts: dict[str, Any] = {}
        for name, part in (("outcome", Outcome), ("time", Clock)):
            given = values.get(name)
            parts[name] = None if given is None else _build(part, given)
        return _build(cls, {**values, "features": features, **parts})

    def __repr__(self) -> str:
        lines = []
        if self.task is not None:
            lines.append(("task", f"{self.task} ({self.task_kind})"))
        if self.outcome is not None:
            scale = f", {self.outcome.transform} scale" if self.outcome.transform else ""
            lines.append(("outcome", _describe(self.outcome) + scale))
        if self.time is not None:
            since = f" since {self.time.origin}" if self.time.origin else ""
            only = "" if self.time.is_feature else ", differences only"
            lines.append(("time", f"{self.time.name} [{self.time.unit}]{since}{only}"))
        if self.treatment is not None:
            lines.append(("treatment", self.treatment))
        if self.outcome_time is not None:
            lines.append(("known at", self.outcome_time))
        lines += [(f.role, _describe(f)) for f in self.features]
        width = max((len(role) for role, _ in lines), default=0)
        return "\n".join(f"{role:<{width}}  {text}" for role, text in lines) or "Schema()"


def _describe(column: Feature | Outcome) -> str:
    text = column.name + (f" [{column.unit}]" if column.unit else "")
    if isinstance(column, Feature) and column.kind != "numeric":
        text += f" {column.kind}"
    if isinstance(column, Feature) and column.block:
        text += f" of {column.block}"
    if column.low is not None or column.high is not None:
        low = "-inf" if column.low is None else f"{column.low:g}"
        high = "inf" if column.high is None else f"{column.high:g}"
        text += f" {low} to {high}"
    return text + (f"  ({column.label})" if column.label else "")


def _build(cls: type[T], values: Mapping[str, Any]) -> T:
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise SchemaError(f"{cls.__name__}: unknown key '{key}'. {did_you_mean(key, known)}")
    try:
        return cls(**values)
    except TypeError as error:
        raise SchemaError(f"{cls.__name__}: {error}. Give every required key.") from error


def _kind_of(values: NDArray[Any], name: str) -> Kind:
    """Kind of a column: text is categorical, 0 and 1 are binary; raises for dates."""
    if read_limits(values) is not None:
        return "numeric"  # the check of the table asks how censored values are meant
    if values.dtype == object:
        text = pd.Series(values).dropna()
        not_number = pd.to_numeric(text, errors="coerce").isna()
        if 0 < not_number.sum() < 0.2 * len(text):  # such as one '<5' in a lab
            warn(
                f"column '{name}' is categorical because {not_number.sum():,} of {len(text):,} "
                f"values are not numeric (first: row {not_number.idxmax()}). Correct them to "
                "use numbers.",
                DataWarning,
            )
        return "categorical"
    if values.dtype.kind in "mM":
        held = "dates" if values.dtype.kind == "M" else "durations"
        raise SchemaError(
            f"column '{name}' holds {held} and cannot be a feature. Use it as the time, convert it "
            "to a number such as age, or drop it."
        )
    present = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    varies = len(present) > 0 and np.ptp(present * 1) > 0
    return "binary" if varies and np.isin(present, (0, 1)).all() else "numeric"
