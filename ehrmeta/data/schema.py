"""What the columns of a table mean: task, outcome, time and features, each with its role."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ehrmeta.data.columns import read_columns
from ehrmeta.data.infer import is_static, kind_of
from ehrmeta.data.roles import Clock, Feature, Outcome, Role, check_choice
from ehrmeta.data.tasks import index_tasks
from ehrmeta.data.toml_file import read_toml, write_toml
from ehrmeta.errors import DataError, SchemaError, did_you_mean

if TYPE_CHECKING:
    from ehrmeta.data.validation import Findings

__all__ = ["Clock", "Feature", "OnDuplicate", "Outcome", "Schema", "TaskKind"]

T = TypeVar("T")
TaskKind = Literal["patient", "cohort"]
OnDuplicate = Literal["error", "first", "last", "mean", "allow"]


@dataclass(frozen=True, repr=False)
class Schema:
    """The meaning of every column of a table.

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
        Column with the time at which the row's outcome became known, in the unit of `time`.
    on_duplicate : {"error", "first", "last", "mean", "allow"}
        What to do with a repeated (patient, time). In cohorts repeats are normal and kept.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        check_choice(self.task_kind, TaskKind, "schema", "task_kind")
        check_choice(self.on_duplicate, OnDuplicate, "schema", "on_duplicate")
        columns = self.columns
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise SchemaError(f"column(s) {repeated} have more than one role. Give each one role.")
        if "" in columns:
            raise SchemaError("a column has an empty name. Name every column.")
        if self.time is None and self.measured:
            raise SchemaError(
                f"measured feature(s) {list(self.measured)} need a time column, to know which "
                "value is the last one. Pass time=..., or give them the role 'known' or 'static'."
            )
        if self.time is None and self.outcome_time is not None:
            raise SchemaError(f"outcome_time '{self.outcome_time}' needs a time column. Name it.")

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
        """Every column of the table that has a role."""
        others = (
            self.task,
            self.outcome.name if self.outcome else None,
            self.time.name if self.time else None,
            self.treatment,
            self.outcome_time,
        )
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
        measured: Sequence[str] = (),
        units: Mapping[str, str] | None = None,
    ) -> Schema:
        """Guess a schema from a frame: every column that is not named otherwise is a feature.

        Text becomes categorical, 0/1 columns become binary. Features that never change within a
        task are static, those in `measured` are measured, and all others count as known ahead.

        Parameters
        ----------
        frame : pandas, polars or pyarrow frame, or 2-D array
        measured : sequence of str
            Features that are not known ahead of the prediction time.
        units : mapping of str to str, optional
            UCUM units of features and outcome by column name.
        task, outcome, time, treatment, outcome_time, task_kind, on_duplicate
            As in the class.

        Raises
        ------
        SchemaError
            A named column is not in the frame, or a feature holds dates.
        """
        columns = read_columns(frame)
        units = dict(units or {})
        if isinstance(outcome, str):
            outcome = Outcome(outcome, unit=units.pop(outcome, ""))
        if isinstance(time, str):
            time = Clock(time)
        others = cls((), outcome, task, task_kind, time, treatment, outcome_time, on_duplicate)
        for name in (*others.columns, *measured, *units):
            if name not in columns:
                raise SchemaError(f"no column '{name}'. {did_you_mean(name, columns)}")
        codes = index_tasks(columns[task]).codes if task is not None else None
        features = []
        for name, values in columns.items():
            if name in others.columns:
                continue
            role: Role = "measured" if name in measured else "known"
            if role == "known" and codes is not None and is_static(values, codes):
                role = "static"
            features.append(Feature(name, kind_of(values, name), role, units.get(name, "")))
        return dataclasses.replace(others, features=tuple(features))

    def check(self, frame: Any, *, strict: bool = False) -> Findings:
        """Everything that is wrong, or odd, about a table: nothing is changed.

        Types, units and plausible ranges, missing and repeated keys, times that cannot be read or
        are out of order, outcomes known too early, copies of the outcome among the features,
        identifiers among them, constant and mostly missing columns.

        Parameters
        ----------
        frame : pandas, polars or pyarrow frame, or 2-D array
        strict : bool
            Whether any finding raises.

        Returns
        -------
        Findings
            Errors, which keep `Table.from_frame` from using the table, then warnings.

        Raises
        ------
        DataError
            Strict, and something was found; the message lists it.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"id": [1, 1, 2], "day": [0, 0, 1], "age": 40, "hdl": [50, 51, 3]})
        >>> schema = Schema((Feature("age"),), Outcome("hdl"), task="id", time=Clock("day"))
        >>> schema.check(frame)
        error    column 'id': 1 row repeating a (id, day) pair. Drop them, or choose \
on_duplicate='first', 'last', 'mean' or 'allow'.
        warning  column 'age': 1 distinct value in the column: it never varies. It says nothing: \
drop it.
        """
        from ehrmeta.data.validation import check_frame

        findings = check_frame(frame, self)
        if strict and findings:
            raise DataError(f"{len(findings)} findings in the table:\n{findings!r}")
        return findings

    def to_toml(self, path: str | os.PathLike[str]) -> None:
        """Write the schema as a file to read, correct and keep beside the data.

        Raises
        ------
        SchemaError
            The file cannot be written.
        """
        write_toml(self.to_dict(), path)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Schema:
        """Read a schema written by `to_toml`, or by hand.

        Raises
        ------
        SchemaError
            The file cannot be read, or its keys are none of a schema's.
        """
        return cls.from_dict(read_toml(path))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe values; `from_dict` restores the schema."""
        return dataclasses.asdict(self) | {
            "features": [dataclasses.asdict(f) for f in self.features]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """Restore a schema from `to_dict`, or from the tables of a card."""
        values = dict(values)
        outcome, time = values.pop("outcome", None), values.pop("time", None)
        features = tuple(_build(Feature, f) for f in values.pop("features", ()))
        return _build(
            cls,
            values
            | {
                "features": features,
                "outcome": None if outcome is None else _build(Outcome, outcome),
                "time": None if time is None else _build(Clock, time),
            },
        )

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
        width = max((len(word) for word, _ in lines), default=0)
        return "\n".join(f"{word:<{width}}  {text}" for word, text in lines) or "Schema()"


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
