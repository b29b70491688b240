"""Coding of one feature: the scale of a number, or the columns of a category's levels.

Levels of few patients are noisy, so predictions shrink them towards the average level, as a random
effect is shrunk. A level of n patients has weight n / (n + k), and the average level k / (n + k).
Here k is the variance of patients' mean outcomes within levels, divided by that between levels, and
at most 1. Levels of ten patients or more are not shrunk, nor are the rows of the fit. Levels of
fewer than three patients are encoded as the average level, also in the fit, and so are unknown
levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.groups import plain
from ehrmeta.data.schema import Feature
from ehrmeta.errors import DataError

Floats = NDArray[np.float32]
Index = NDArray[np.int64]
CLIP = 8.0  # robust standard deviations
MANY_PATIENTS = 10  # levels with ten or more have a column and are not shrunk
_FEWEST_PATIENTS = 3  # for a column: with fewer, a training fold may have none
_MOST_LEVELS = 20  # of a feature whose smaller levels may have a column
_SMALLEST_PRIOR = 0.001  # k: above 0, so that the weight of a level of few patients is below 1
_SMALLEST_SHARE = 0.01  # of all patients, for a smaller level to have a column
_NAMED_IN_FILES = 11  # a file names levels with eleven patients or more


@dataclass(frozen=True)
class Coding:
    """Fitted encoding of one feature.

    Attributes
    ----------
    center, scale : float
        Of a numeric or binary feature; scale 0 if it was constant in training.
    levels : tuple of str or None
        Levels of a categorical feature with a column of their own; None if a file left out the
        name.
    missing : bool
        Whether it was missing in a training row.
    shares : tuple of float
        Share of the training rows in every level's column and, last, in that of all other levels;
        empty in files of older versions.
    weights : tuple of float
        Of the same columns in predictions; the rest is the average level's.
    rare : tuple of bool
        Whether fewer than eleven patients have the level; empty if none is rare.
    merged : tuple of str
        Levels that share the column of other levels.
    """

    center: float = 0.0
    scale: float = 0.0
    levels: tuple[str | None, ...] = ()
    missing: bool = False
    shares: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    rare: tuple[bool, ...] = ()
    merged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n_columns = len(self.levels) + 1
        sizes = {len(self.shares), len(self.weights), len(self.rare) + 1 if self.rare else 0}
        if not sizes <= {0, n_columns}:
            raise DataError(f"a coding of {n_columns - 1} levels has another number of shares.")

    @property
    def hides_names(self) -> bool:
        """Whether the coding was loaded from a file without the names of rare levels."""
        return None in self.levels or (sum(self.shares[-1:]) > 0 and not self.merged)

    def without_rare_levels(self) -> tuple[Coding, int]:
        """The coding without names of rare levels, and the number of names omitted."""
        rare = self.rare or (False,) * len(self.levels)
        named = zip(self.levels, rare, strict=True)
        levels = tuple(None if is_rare else level for level, is_rare in named)
        n_left_out = sum(rare) + len(self.merged)
        return replace(self, levels=levels, rare=(), merged=()), n_left_out

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe values for `from_dict`, without empty fields of categories."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }
        always = ("center", "scale", "levels", "missing")
        return {name: value for name, value in values.items() if value or name in always}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Coding:
        """The inverse of `to_dict`."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)


def fit_numbers(values: NDArray[np.float64], block: Coding | None = None) -> Coding:
    """Scale of a column: that of its block, if any, else of its values."""
    missing = bool(np.isnan(values).any())
    if block is not None:
        return replace(block, missing=missing)
    present = values[~np.isnan(values)]
    if len(present) == 0 or np.ptp(present) == 0:
        return Coding(float(present[0]) if len(present) else 0.0, 0.0, (), missing)
    low, median, high = (float(q) for q in np.percentile(present, (25, 50, 75)))
    scale = (high - low) / 1.349 or float(np.std(present)) or 1.0
    return Coding(median, scale, (), missing)


def write_numbers(
    values: NDArray[np.float64], feature: Feature, coding: Coding, out: Floats
) -> None:
    """Write scaled values, (row, column)."""
    missing = np.isnan(values)
    if coding.scale > 0:
        with np.errstate(over="ignore"):
            scaled = (values - coding.center) / coding.scale
        out[:, 0] = np.minimum(np.maximum(scaled, -CLIP), CLIP)  # faster than np.clip for few rows
    out[missing, 0] = np.nan if feature.role == "measured" else 0.0
    if feature.role != "measured" and coding.missing:
        out[:, 1] = missing


class _LevelCounts(NamedTuple):
    """Levels of a column, and the numbers of patients who have them."""

    names: Sequence[str]  # (level,)
    codes: Index  # (row,), -1 if missing
    patients: Index  # (level,)
    size: Index  # (level,): patients, or rows of patients who have several levels
    is_static: bool  # whether no patient has several levels
    rare: NDArray[np.bool_]  # (level,)
    prior: float  # k: weight of the average level, in patients


def fit_levels(
    columns: Mapping[str, pd.Categorical],
    tasks: Index | None,
    *,
    y: NDArray[np.float64] | None = None,
    sites: Index | None = None,
    many: int = MANY_PATIENTS,
) -> dict[str, Coding]:
    """Choose the levels with a column of their own, and how far each is shrunk.

    A level has its own column if ten patients have it. In a feature of at most 20 levels, smaller
    levels have one too, if at least three patients and 1 % of all patients have them. There may be
    at most half as many smaller levels as patients, over all features; otherwise the smallest are
    merged.

    Parameters
    ----------
    columns : mapping of str to Categorical, (row,)
    tasks : (row,), optional
        Patient of every row; without it every row is a patient.
    y : (row,), optional
        Outcome; without it k is 1.
    sites : (row,), optional
        Cohort of every row. Levels of a single cohort count as rare.
    many : int
        Patients of a level that is never merged or shrunk.
    """
    if not columns:
        return {}
    held = {name: _count_levels(values, tasks, y, sites) for name, values in columns.items()}
    n_rows = len(next(iter(held.values())).codes)
    n_patients = n_rows if tasks is None else len(np.unique(tasks))
    small = {
        name: (len(one.names) <= _MOST_LEVELS) & (one.patients >= _SMALLEST_SHARE * n_patients)
        for name, one in held.items()
    }
    fewest = {}
    for is_static, most in ((True, n_patients / 2), (False, n_rows / 2)):
        sizes = [one.size[small[name]] for name, one in held.items() if one.is_static == is_static]
        thin = np.concatenate([*sizes, np.zeros(0, np.int64)])
        thin = thin[thin < many]
        fewest[is_static] = next(
            n for n in range(_FEWEST_PATIENTS, many + 1) if (thin >= n).sum() <= most
        )
    return {
        name: _coding(
            one, (one.patients >= many) | (small[name] & (one.size >= fewest[one.is_static])), many
        )
        for name, one in held.items()
    }


def _count_levels(
    values: pd.Categorical, tasks: Index | None, y: NDArray[np.float64] | None, sites: Index | None
) -> _LevelCounts:
    names, codes = list(values.categories), np.asarray(values.codes, dtype=np.int64)
    n, present = len(names), codes >= 0
    level = codes[present]
    patient = np.flatnonzero(present) if tasks is None else tasks[present]
    # (pair,): every patient with every level that the patient has
    pair, of_row, n_rows = np.unique(patient * n + level, return_inverse=True, return_counts=True)
    of_patient, of_level = (pair // n, pair % n) if n else (pair, pair)
    alone = np.bincount(of_patient)[of_patient] == 1
    patients = np.bincount(of_level, minlength=n)
    size = np.bincount(of_level, np.where(alone, 1, n_rows), minlength=n).astype(np.int64)
    rare = patients < _NAMED_IN_FILES
    if sites is not None and sites.max() > 0:
        pairs = np.unique(sites[present] * n + level)
        rare |= np.bincount(pairs % n if n else pairs, minlength=n) < 2
    prior = 1.0
    if y is not None and alone.any():
        mean = np.bincount(of_row, y[present]) / n_rows
        prior = _variance_ratio(mean[alone], of_level[alone])
    return _LevelCounts(names, codes, patients, size, bool(alone.all()), rare, prior)


def _variance_ratio(mean: NDArray[np.float64], level: Index) -> float:
    """Variance of patients' means within levels over that between levels, at most 1.

    By the moments of a one-way analysis of variance with random levels.
    """
    n = np.bincount(level)
    n_levels, n_patients = int((n > 0).sum()), len(level)
    if n_levels < 2 or n_patients <= n_levels:
        return 1.0
    of_level = np.bincount(level, mean) / np.maximum(n, 1)
    within = np.sum((mean - of_level[level]) ** 2) / (n_patients - n_levels)
    between = np.sum(n * (of_level - mean.mean()) ** 2) / (n_levels - 1) - within
    between /= (n_patients - np.sum(n**2) / n_patients) / (n_levels - 1)
    return float(np.clip(within / between, _SMALLEST_PRIOR, 1.0)) if between > 0 else 1.0


def _coding(held: _LevelCounts, has_column: NDArray[np.bool_], many: int) -> Coding:
    named, others = (np.flatnonzero(part).tolist() for part in (has_column, ~has_column))
    named.sort(key=lambda level: held.names[level])
    place = np.full(len(held.names), len(named))
    place[named] = np.arange(len(named))
    present = held.codes[held.codes >= 0]
    shares = np.bincount(place[present], minlength=len(named) + 1) / max(len(present), 1)
    size = np.bincount(place, held.size, minlength=len(named) + 1)
    weights = np.where(size >= many, 1.0, size / (size + held.prior))
    weights[size < min(_FEWEST_PATIENTS, many)] = 0.0
    rare = tuple(bool(held.rare[level]) for level in named)
    return Coding(
        levels=tuple(held.names[level] for level in named),
        missing=len(present) < len(held.codes),
        shares=tuple(shares.tolist()),
        weights=tuple(weights.tolist()),
        rare=rare if any(rare) else (),
        merged=tuple(sorted(held.names[level] for level in others)),
    )


class Unknown(NamedTuple):
    """Rows of a column that are encoded as the average level."""

    n_unknown: int  # of a level that the model does not know
    n_respelled: int  # of these, differing from a known level in spelling only
    n_missing: int  # missing, if no training row was
    n_rows: int


def write_levels(
    values: pd.Categorical, feature: Feature, coding: Coding, out: Floats, *, shrink: bool
) -> Unknown:
    """Write the columns of levels, (row, column), and count the rows that have none.

    Raises
    ------
    DataError
        The rows hold several levels, and none that the model knows.
    """
    n = len(coding.levels)
    place = {level: at for at, level in enumerate(coding.levels) if level is not None}
    place |= dict.fromkeys(coding.merged, n)
    of_level = np.array([*(place.get(level, n + 1) for level in values.categories), n + 2])
    column = of_level[values.codes]  # code -1 (missing) reads the last entry
    out[:] = _encoded_levels(feature, coding, shrink)[column]
    if n == 0 or not coding.shares:  # no level has a column, or the file is of an older version
        return Unknown(0, 0, 0, len(column))
    is_fixed = feature.role != "measured"
    n_missing = int((column == n + 2).sum()) if is_fixed and not coding.missing else 0
    n_unknown = int((column == n + 1).sum())
    known = {plain(level) for level in place}
    is_unknown = of_level[:-1] == n + 1
    is_known_folded = np.array([plain(level) in known for level in values.categories], bool)
    n_respelled = int(np.append(is_unknown & is_known_folded, False)[values.codes].sum())
    if len(is_unknown) > 1 and is_unknown.all() and not coding.hides_names:
        raise DataError(
            f"column '{feature.name}' holds {len(is_unknown):,} levels in {n_unknown:,} rows, none "
            f"of which the model was fitted with; {n_respelled:,} rows differ from one of its "
            "levels only in leading zeros, capitals or spaces. Spell the levels as at fit."
        )
    return Unknown(n_unknown, n_respelled, n_missing, len(column))


def _encoded_levels(feature: Feature, coding: Coding, shrink: bool) -> NDArray[np.float64]:
    """Encoded row of every level, of other levels, an unknown and a missing one, (4, column)."""
    n_columns = len(coding.levels) + 1
    rows = np.eye(n_columns)
    average = np.array(coding.shares) if coding.shares else rows[-1]
    if coding.weights:
        weight = np.array(coding.weights)[:, None]
        weight = weight if shrink else np.where(weight > 0.0, 1.0, 0.0)
        rows = weight * rows + (1.0 - weight) * average
    rows = np.vstack([rows, average, average])
    if feature.role == "measured":
        rows = rows[:, :-1]
        rows[-1] = np.nan
    elif coding.missing:
        rows = np.column_stack([rows, np.zeros(len(rows))])
        rows[-1] = 0.0
        rows[-1, -1] = 1.0
    return rows


def column_names(feature: Feature, coding: Coding) -> list[str]:
    """Names of a feature's encoded columns; measured features have no "other" and "missing"."""
    is_category, is_fixed = feature.kind == "categorical", feature.role != "measured"
    names = [feature.name]
    if is_category:
        levels = enumerate(coding.levels)
        names = [
            f"{feature.name}={f'level {i}' if level is None else level}" for i, level in levels
        ]
    names += [f"{feature.name} other"] if is_category and is_fixed else []
    return names + ([f"{feature.name} missing"] if coding.missing and is_fixed else [])
