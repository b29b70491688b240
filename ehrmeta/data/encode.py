"""Encoding of features, with scales and levels from training rows only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ehrmeta.data.censored import CHOOSE, read_limits
from ehrmeta.data.coding import (
    MANY_PATIENTS,
    Coding,
    Floats,
    Unknown,
    column_names,
    fit_levels,
    fit_numbers,
    write_levels,
    write_numbers,
)
from ehrmeta.data.columns import level_names, refuse_rows, require_columns
from ehrmeta.data.schema import Feature
from ehrmeta.data.tasks import index_tasks
from ehrmeta.errors import DataWarning, Remedy, SchemaError, warn


@dataclass(frozen=True)
class Encoder:
    """Encodes feature columns as numbers, with scales and levels of the training rows.

    Numeric and binary features are scaled to ``(v - median) / (IQR / 1.349)`` (the standard
    deviation if the IQR is 0), by block for features with a block, and clipped at +-8. A missing
    value becomes 0, with an indicator column if values were missing in training. Measured features
    are a separate array, NaN if missing.

    Categorical features become one column per level, one for all other levels, and one for missing
    if there were any. Levels of fewer than ten patients have no column of their own in a feature of
    more than 20 levels, or if they have fewer than three patients or 1 % of all; `fit` warns of
    those it merges. The others are shrunk towards the average level, as a random effect is. An
    unknown level, and a missing one if none was missing in training, is the average level: each
    column holds its share of the training rows, and `transform` warns of the rows.

    Attributes
    ----------
    features : tuple of Feature
    codings : tuple of Coding
        One per feature.

    Examples
    --------
    >>> columns = {"age": np.array([50.0, 60.0, 70.0])}
    >>> encoder = Encoder.fit(columns, (Feature("age", unit="a"),))
    >>> fixed, measured = encoder.transform(columns)
    >>> fixed, measured.shape
    (array([[-1.349],
           [ 0.   ],
           [ 1.349]], dtype=float32), (3, 0))
    """

    features: tuple[Feature, ...]
    codings: tuple[Coding, ...]

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, NDArray[Any]],
        features: tuple[Feature, ...],
        *,
        groups: Any = None,
        y: NDArray[np.float64] | None = None,
        sites: Any = None,
        min_level_count: int = MANY_PATIENTS,
    ) -> Encoder:
        """Learn scales and levels.

        Parameters
        ----------
        columns : mapping of str to ndarray, (row,)
            As `read_columns` returns them; training rows only.
        features : tuple of Feature
        groups : array-like, (row,), optional
            Patient of every row; without it every row is a patient.
        y : ndarray, (row,), optional
            Outcome on the learner's scale, which decides how far levels of few patients are shrunk.
        sites : array-like, (row,), optional
            Cohort of every row, where rows are patients: a file does not name a level that only
            one cohort has.
        min_level_count : int
            Levels of as many patients are neither merged nor shrunk.

        Raises
        ------
        SchemaError
            A feature is not a column, or is numeric but holds text.

        Warns
        -----
        DataWarning
            Levels were merged, with counts by column.
        """
        of_block = {}
        for block in {f.block for f in features if f.block}:
            values = [_numbers(columns, f) for f in features if f.block == block]
            of_block[block] = fit_numbers(np.concatenate(values))
        levels = fit_levels(
            {f.name: _levels(columns, f) for f in features if f.kind == "categorical"},
            None if groups is None else index_tasks(groups).codes,
            y=y,
            sites=None if sites is None else index_tasks(sites).codes,
            many=min_level_count,
        )
        _warn_of_merged(levels, len(next(iter(columns.values()))) if columns else 0)
        codings = tuple(
            levels[f.name]
            if f.kind == "categorical"
            else fit_numbers(_numbers(columns, f), of_block.get(f.block))
            for f in features
        )
        return cls(tuple(features), codings)

    @cached_property
    def fixed_names(self) -> tuple[str, ...]:
        """Encoded columns of known and static features."""
        return self._names_of(measured=False)

    @cached_property
    def measured_names(self) -> tuple[str, ...]:
        """Encoded columns of measured features."""
        return self._names_of(measured=True)

    def _names_of(self, *, measured: bool) -> tuple[str, ...]:
        pairs = zip(self.features, self.codings, strict=True)
        chosen = (pair for pair in pairs if (pair[0].role == "measured") == measured)
        return tuple(name for feature, coding in chosen for name in column_names(feature, coding))

    @cached_property
    def thin(self) -> NDArray[np.bool_]:
        """Mask of the fixed columns of levels that are shrunk, as few patients have them."""
        thin = np.zeros(len(self.fixed_names), dtype=np.bool_)
        for feature, coding, place in zip(self.features, self.codings, self.places, strict=True):
            if feature.role != "measured":
                shrunk = np.array(coding.weights) < 1.0
                thin[place.start : place.start + len(shrunk)] = shrunk
        return thin

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """Encoded columns of every feature, in the measured or the fixed array."""
        places, at = [], {True: 0, False: 0}
        for feature, coding in zip(self.features, self.codings, strict=True):
            start = at[feature.role == "measured"]
            at[feature.role == "measured"] = stop = start + len(column_names(feature, coding))
            places.append(slice(start, stop))
        return tuple(places)

    def transform(
        self, columns: Mapping[str, NDArray[Any]], *, shrink: bool = True
    ) -> tuple[Floats, Floats]:
        """Encode rows; columns that are not features are ignored.

        Parameters
        ----------
        columns : mapping of str to ndarray, (row,)
        shrink : bool
            Whether levels of few patients are shrunk; False for the rows of the fit, from which
            their effects are learned.

        Returns
        -------
        fixed : ndarray of float32, (row, len(fixed_names))
        measured : ndarray of float32, (row, len(measured_names))
            NaN if missing.

        Raises
        ------
        SchemaError
            As in `fit`.
        DataError
            A column holds several levels, and none that the training rows held.

        Warns
        -----
        DataWarning
            Levels are unknown, or missing for the first time, with counts by column.
        """
        n_rows = len(next(iter(columns.values()))) if columns else 0
        fixed = np.zeros((n_rows, len(self.fixed_names)), dtype=np.float32)
        measured = np.zeros((n_rows, len(self.measured_names)), dtype=np.float32)
        unknown = {}
        for feature, coding, place in zip(self.features, self.codings, self.places, strict=True):
            out = (measured if feature.role == "measured" else fixed)[:, place]
            if feature.kind == "categorical":
                levels = _levels(columns, feature)
                unknown[feature.name] = write_levels(levels, feature, coding, out, shrink=shrink)
            else:
                write_numbers(_numbers(columns, feature), feature, coding, out)
        _warn_of_unknown(unknown)
        return fixed, measured

    def without_rare_levels(self) -> tuple[Encoder, dict[str, int]]:
        """The encoder without names of rare levels, and how many every feature loses.

        Rare levels are those of fewer than eleven patients, and those that were merged. All columns
        stay; a row of a level without a name is encoded as one of an unknown level.
        """
        parts = [coding.without_rare_levels() for coding in self.codings]
        lost = {f.name: n for f, (_, n) in zip(self.features, parts, strict=True) if n}
        return dataclasses.replace(self, codings=tuple(coding for coding, _ in parts)), lost

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe values for `from_dict`."""
        return {
            "features": [dataclasses.asdict(f) for f in self.features],
            "codings": [coding.to_dict() for coding in self.codings],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Encoder:
        """Restore an encoder from `to_dict`."""
        return cls(
            tuple(Feature(**f) for f in values["features"]),
            tuple(map(Coding.from_dict, values["codings"])),
        )


def _warn_of_merged(codings: Mapping[str, Coding], n_rows: int) -> None:
    """Warn of levels that share a column."""
    merged = [
        f"'{name}': {len(coding.merged):,} in {round(coding.shares[-1] * n_rows):,} rows"
        for name, coding in codings.items()
        if len(coding.merged) > 1 or (coding.merged and not coding.weights[-1])
    ]
    _warn(
        merged,
        "levels of too few patients are merged (",
        "). Combine levels by their meaning before the fit, or drop a column of ids or free text.",
    )


def _warn_of_unknown(unknown: Mapping[str, Unknown]) -> None:
    """Warn of rows that are encoded as the average level."""
    columns = []
    for name, rows in unknown.items():
        counts = {
            "with an unknown level": rows.n_unknown,
            "of which differ from a known one in spelling only": rows.n_respelled,
            "with a missing value, as no training row had": rows.n_missing,
        }
        parts = [f"{n:,} {what}" for what, n in counts.items() if n]
        if parts:
            columns.append(f"'{name}': {', '.join(parts)}, of {rows.n_rows:,} rows")
    _warn(
        columns,
        "rows are predicted as the average level (",
        "). Spell levels as at fit, and fill in what is missing.",
    )


def _warn(columns: list[str], before: str, after: str) -> None:
    if columns:
        warn(before + "; ".join(columns) + after, DataWarning)


def _numbers(columns: Mapping[str, NDArray[Any]], feature: Feature) -> NDArray[np.float64]:
    require_columns(columns, (feature.name,))
    values = columns[feature.name]
    if values.dtype.kind not in "biuf":
        held = "dates" if values.dtype.kind in "mM" else "text"
        advice = "Convert it to numbers, or declare it kind='categorical' at fit."
        is_censored = read_limits(values) is not None
        raise SchemaError(
            f"column '{feature.name}' is a {feature.kind} feature, but holds {held}.",
            CHOOSE if is_censored else Remedy("numbers-at-fit", advice),
        )
    numbers = values.astype(np.float64)
    remedy = "Replace it by NaN or by a number."
    refuse_rows(np.isinf(numbers), f"column '{feature.name}' holds infinity", remedy)
    return numbers


def _levels(columns: Mapping[str, NDArray[Any]], feature: Feature) -> pd.Categorical:
    require_columns(columns, (feature.name,))
    values = columns[feature.name]
    if values.dtype.kind in "mM":
        raise SchemaError(
            f"column '{feature.name}' holds dates and cannot be a category. Convert it to a number "
            "such as age, or drop it."
        )
    codes, levels = pd.factorize(values, use_na_sentinel=True)
    names = level_names(np.asarray(levels))
    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))
