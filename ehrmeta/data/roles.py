"""What one column means: a feature, the outcome, the time. Plain frozen records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ehrmeta.data.clock import SECONDS
from ehrmeta.errors import SchemaError

__all__ = ["Clock", "Feature", "Kind", "Outcome", "Role", "Transform", "check_choice"]

Kind = Literal["numeric", "categorical", "binary"]
Role = Literal["known", "static", "measured"]
Transform = Literal["log", "sqrt"]


@dataclass(frozen=True)
class Feature:
    """One input column.

    Parameters
    ----------
    name : str
        Column name.
    kind : {"numeric", "categorical", "binary"}
        A binary feature holds 0 and 1.
    role : {"known", "static", "measured"}
        `static`: does not change within a task (sex). `known`: known ahead of time (calendar, age
        at the visit, planned dose). `measured`: known only once measured; at a query row only its
        last value in the support is used, with the age of that value.
    unit : str
        UCUM unit, for example ``"mg/dL"``.
    low, high : float, optional
        Plausible range, in `unit`; `Table` masks what lies outside.
    label : str
        Words for tables and axes.
    block : str
        Numeric features of one block are on one scale already, as the pixels of an image or the
        samples of a waveform are, and share one center and one spread. The others are scaled each
        by its own.

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
        check_choice(self.kind, Kind, f"feature '{self.name}'", "kind")
        check_choice(self.role, Role, f"feature '{self.name}'", "role")
        _check_range(self.low, self.high, self.name)
        if self.kind != "numeric" and self.block:
            raise SchemaError(
                f"feature '{self.name}' is {self.kind} and has no scale to share. Drop block."
            )
        if self.kind == "categorical" and (self.low is not None or self.high is not None):
            raise SchemaError(
                f"feature '{self.name}' is categorical and cannot have a range. Drop low and high."
            )


@dataclass(frozen=True)
class Outcome:
    """The column to predict.

    Parameters
    ----------
    name, unit, low, high, label
        As in `Feature`; a row whose outcome is out of range is left out of a `Table`.
    transform : {"log", "sqrt"}, optional
        Scale on which the model works; predictions come back on the original scale.
    resolution : float, optional
        Step in which the outcome is recorded, in `unit` (1 mm[Hg], 0.1 mg/dL).
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
        if self.transform is not None:
            check_choice(self.transform, Transform, f"outcome '{self.name}'", "transform")
        if self.resolution is not None and not self.resolution > 0:
            raise SchemaError(
                f"outcome '{self.name}': resolution must be positive, got {self.resolution}."
            )


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
        ISO date that dates are counted from (default 1970-01-01), or words that name the event
        which numbers are counted from, for example ``"index date"``.
    is_feature : bool
        False when the origin is not known ahead (an index date in the patient's future): then time
        serves only through differences between rows, never as a feature.
    """

    name: str
    unit: str = "d"
    origin: str | None = None
    is_feature: bool = True

    def __post_init__(self) -> None:
        if self.unit not in SECONDS:
            raise SchemaError(
                f"time '{self.name}': unknown unit {self.unit!r}. Use one of {', '.join(SECONDS)}."
            )


def check_choice(value: str, choices: Any, where: str, what: str) -> None:
    """Refuse what is none of a Literal's values."""
    if value not in get_args(choices):
        raise SchemaError(
            f"{where}: unknown {what} {value!r}. Use one of {', '.join(get_args(choices))}."
        )


def _check_range(low: float | None, high: float | None, name: str) -> None:
    for bound in (low, high):
        if bound is not None and not math.isfinite(bound):
            raise SchemaError(
                f"column '{name}': a bound must be finite. Leave it out for no bound."
            )
    if low is not None and high is not None and low >= high:
        raise SchemaError(
            f"column '{name}': low ({low:g}) must be below high ({high:g}). Swap or correct them."
        )
