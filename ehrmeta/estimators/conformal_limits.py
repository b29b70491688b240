"""Conformal limits and beta calibration, by support size and subgroup."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import special
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ehrmeta.errors import BundleError, DataError, DataWarning, SchemaError, did_you_mean, warn
from ehrmeta.ranges import check_level

Array = npt.NDArray[np.float64]
_ROUNDING = 1e-9  # tolerance for sums of 1 / n, which are not exact
_CLIP = 1e-6  # of probabilities
_INVERSE_PENALTY = 1e3  # keeps coefficients finite if the classes are separable
Cell: TypeAlias = tuple[int | None, str | None]  # support size, subgroup; None means all
Value = TypeVar("Value")
ANY: Cell = (None, None)
FEWEST_TASKS = 11  # in a cell
_TAILS = (  # levels at which limits are kept: confidence levels are 1 - 2 tail
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.125),
    *(0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
)
_STEPS = 32  # at least, of rounded limits, between the 10 % and the 90 % limit
_MOST_VALUES = 20  # in a column without cut points


@dataclass(frozen=True)
class Limits:
    r"""Errors of the calibration tasks, whose quantiles are conformal limits for a new task.

    Errors within a task are correlated, so the tasks are the exchangeable units: with m tasks, each
    of the :math:`n_i` rows of task i has weight :math:`1 / ((m + 1) n_i)`, and the new task has
    weight :math:`1 / (m + 1)` at infinity. An interval of level :math:`1 - a` has at most the
    weight :math:`a / 2` beyond each limit. It covers a random row of a new task with a probability
    of at least :math:`1 - a`, for any distribution of the errors.

    Attributes
    ----------
    error : (row,)
        Signed standardised errors, (outcome - mean) / sd, in ascending order.
    weight : (row,)
        One over the number of rows of the row's task. The limits of `coarse` have other rows.
    n_tasks : int

    References
    ----------
    Lee, Barber, Willett (2023), arXiv:2306.06342; Dunn, Wasserman, Ramdas (2023),
    doi:10.1080/01621459.2022.2060112.

    Examples
    --------
    >>> limits = Limits.of(np.arange(-9.5, 10.0), tasks=np.arange(20))
    >>> limits.at(0.9)
    (-9.5, 9.5)
    """

    error: Array
    weight: Array
    n_tasks: int

    @classmethod
    def of(cls, error: Array, tasks: npt.NDArray[np.int64]) -> Limits:
        """Exact limits from errors, (row,), and task numbers, (row,)."""
        counts = np.bincount(tasks)
        order = np.argsort(error, kind="stable")
        weight = (1.0 / np.maximum(counts, 1))[tasks]
        return cls(error[order], weight[order], int(np.count_nonzero(counts)))

    def coarse(self) -> Limits:
        """Limits at a few levels, rounded outwards, that hold no error of a calibration row.

        At any other level they are those of the next higher confidence level, so they cover at
        least as much. A step is at most a 32nd of the distance from the 10 % to the 90 % limit.

        Examples
        --------
        >>> exact = Limits.of(np.random.default_rng(0).normal(size=5000), np.arange(5000))
        >>> np.array([exact.at(0.9), exact.coarse().at(0.9)]).round(3)
        array([[-1.626,  1.649],
               [-1.688,  1.688]])
        >>> len(exact.coarse().error)
        48
        """
        n = self.n_tasks + 1
        if n == 1:
            return self
        tails = np.array([1.0 / n, *(tail for tail in _TAILS if tail * n > 1.0 + _ROUNDING)])
        lower, upper = (
            np.array([limit(tail) for tail in tails]) for limit in (self._lower, self._upper)
        )
        decile = int(np.searchsorted(tails, 0.1).clip(max=len(tails) - 1))
        distance = upper[decile] - lower[decile]
        if distance > 0.0:
            step = 2.0 ** np.floor(np.log2(distance / _STEPS))
            lower, upper = step * np.floor(lower / step), step * np.ceil(upper / step)
        # Pseudo-rows with the weights at which `_lower` and `_upper` give these limits.
        weight = np.append(np.diff(tails) * n, 0.5)
        error = np.concatenate([lower, upper[::-1]])
        return Limits(error, np.concatenate([weight, weight[::-1]]), self.n_tasks)

    def at(self, confidence_level: float) -> tuple[float, float]:
        """Two-sided limits of the standardised error."""
        self.check_n_tasks(confidence_level, sides=2)
        tail = 0.5 * (1.0 - confidence_level)
        return self._lower(tail), self._upper(tail)

    def lower(self, confidence_level: float) -> float:
        """One-sided lower limit: a share `confidence_level` of the rows lies on or above it.

        The share is an average over new tasks with equal weights.

        Examples
        --------
        >>> Limits.of(np.arange(20.0), tasks=np.arange(20)).lower(0.9)
        1.0
        """
        self.check_n_tasks(confidence_level, sides=1)
        return self._lower(1.0 - confidence_level)

    def upper(self, confidence_level: float) -> float:
        """One-sided upper limit, the counterpart of `lower`."""
        self.check_n_tasks(confidence_level, sides=1)
        return self._upper(1.0 - confidence_level)

    def check_n_tasks(self, confidence_level: float, *, sides: int) -> None:
        """Raise a `DataError` if there are too few tasks for a level."""
        needed = tasks_needed(confidence_level, sides=sides)
        if self.n_tasks < needed:
            raise DataError(
                f"a level of {100 * confidence_level:g} % needs {needed:,} calibration tasks with "
                f"rows to predict, got {self.n_tasks:,}. Calibrate on more patients, or lower "
                "confidence_level."
            )

    def _upper(self, tail: float) -> float:
        return -Limits(-self.error[::-1], self.weight[::-1], self.n_tasks)._lower(tail)

    def _lower(self, tail: float) -> float:
        """Largest error such that at most a share `tail`, up to 0.5, of the weight lies below."""
        below = np.cumsum(self.weight)
        allowed = min(tail, 0.5) * (self.n_tasks + 1) - 1.0 + _ROUNDING
        return float(self.error[int(np.searchsorted(below, allowed, side="right"))])


def tasks_needed(confidence_level: float, *, sides: int = 2) -> int:
    """Number of calibration tasks needed for finite limits of a level.

    Examples
    --------
    >>> tasks_needed(0.9), tasks_needed(0.95), tasks_needed(0.9, sides=1)
    (19, 39, 9)
    """
    return math.ceil(sides / (1.0 - check_level(confidence_level)) - 1.0 - _ROUNDING)


@dataclass(frozen=True)
class BetaCalibration:
    r"""Beta calibration: a map of probabilities with three parameters.

    .. math:: \mathrm{logit}\, q = a \log p - b \log(1 - p) + c, \qquad a, b \ge 0

    The identity has a = b = 1 and c = 0; a = b is logistic recalibration.

    References
    ----------
    Kull, Silva Filho, Flach (2017), http://proceedings.mlr.press/v54/kull17a.html.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.uniform(size=20_000)
    >>> happened = rng.uniform(size=20_000) < p**2
    >>> recalibration = BetaCalibration.of(p, happened, np.ones(20_000))
    >>> recalibration.at(np.array([0.25, 0.5, 0.75])).round(1)
    array([0.1, 0.2, 0.6])
    """

    a: float
    b: float
    c: float

    @classmethod
    def of(cls, p: Array, happened: npt.NDArray[np.bool_], weight: Array) -> BetaCalibration:
        """Fit to probabilities, events and weights, (row,) each.

        If a coefficient is negative, it is set to 0 and the other one is fitted again.
        """
        design, used = _design(p), [0, 1]
        coefficients = np.zeros(2)
        while used:
            model = LogisticRegression(C=_INVERSE_PENALTY, tol=1e-8, max_iter=1000)
            model.fit(design[:, used], happened, sample_weight=weight)
            coefficients[:], fitted = 0.0, model.coef_[0]
            coefficients[used] = fitted
            if fitted.min() >= 0.0:
                break
            used.remove(used[int(fitted.argmin())])
        else:  # the probabilities are uninformative
            share = np.average(happened, weights=weight)
            return cls(0.0, 0.0, float(special.logit(share)))
        return cls(float(coefficients[0]), float(coefficients[1]), float(model.intercept_[0]))

    def at(self, p: Array) -> Array:
        """Calibrated probabilities, (row,)."""
        return np.asarray(special.expit(_design(p) @ [self.a, self.b] + self.c))


def _design(p: Array) -> Array:
    p = np.clip(p, _CLIP, 1.0 - _CLIP)
    return np.column_stack([np.log(p), -np.log1p(-p)])


def finest(limits: Mapping[Cell, Limits], cell: Cell, needed: int) -> Cell:
    """First group with enough tasks: the cell, all rows of its support size, or all rows."""
    for wider in (cell, (cell[0], None)):
        if wider in limits and limits[wider].n_tasks >= needed:
            return wider
    return ANY


def by_cell(rows: pd.DataFrame, of: Callable[[pd.DataFrame], Value]) -> dict[Cell, Value]:
    """Apply `of` to all rows, to the rows of each k, and to those of each subgroup at each k.

    Cells of fewer than eleven tasks are skipped, so that they do not describe single patients.
    The frame has the columns shots, level (the subgroup) and task.
    """
    values = {ANY: of(rows)}
    for k, part in rows.groupby("shots"):
        if part["task"].nunique() >= FEWEST_TASKS:
            values[(int(k), None)] = of(part)
    for (k, level), part in rows.groupby(["shots", "level"]):
        if part["task"].nunique() >= FEWEST_TASKS:
            values[(int(k), str(level))] = of(part)
    return values


@dataclass(frozen=True)
class Calibration:
    """Fitted calibration of every cell, a combination of support size and subgroup.

    Parameters
    ----------
    limits : mapping of cell to tuple of Limits
        For regressors, one: limits of the standardised error. For classifiers, limits of the
        probability of each class.
    by : mapping of str to tuple of float
        Columns that define subgroups, and their cut points.
    maps : mapping of cell to tuple of BetaCalibration
        For classifiers, recalibration of the probability of each class.
    """

    limits: Mapping[Cell, tuple[Limits, ...]]
    by: Mapping[str, tuple[float, ...]]
    maps: Mapping[Cell, tuple[BetaCalibration, ...]]

    def cells(
        self, columns: Mapping[str, npt.NDArray[Any]], n_shots: npt.NDArray[np.int64]
    ) -> list[Cell]:
        """Cell of every row, from its columns and its task's support size, (row,)."""
        return list(zip(n_shots.tolist(), levels_of(columns, self.by).tolist(), strict=True))

    def chosen(
        self, cells: Sequence[Cell], confidence_level: float, *, sides: int = 2
    ) -> dict[Cell, tuple[Limits, ...]]:
        """Limits for each cell.

        If a cell was not calibrated, or has too few tasks for the level, it gets the limits of all
        rows of its support size, or else of all rows. A `DataWarning` counts such rows.
        """
        needed, chosen, coarse = tasks_needed(confidence_level, sides=sides), {}, {}
        of_class = [
            dict(zip(self.limits, each, strict=True))
            for each in zip(*self.limits.values(), strict=True)
        ]
        for cell, n_rows in Counter(cells).items():
            wider = [finest(limits, cell, needed) for limits in of_class]
            each = tuple(limits[name] for limits, name in zip(of_class, wider, strict=True))
            for limits in each:
                limits.check_n_tasks(confidence_level, sides=sides)
            chosen[cell] = each
            if any(name != cell for name in wider):
                tasks = [limits[cell].n_tasks if cell in limits else 0 for limits in of_class]
                coarse[cell] = n_rows, min(tasks)
        if coarse:
            self._warn_of_coarse(coarse, confidence_level, needed)
        return chosen

    def _warn_of_coarse(
        self, coarse: Mapping[Cell, tuple[int, int]], confidence_level: float, needed: int
    ) -> None:
        """Warn of rows that get the limits of a larger group."""
        (n_shots, _), (_, n_tasks) = next(iter(coarse.items()))
        n_rows = sum(n_rows for n_rows, _ in coarse.values())
        by = f", by {', '.join(self.by)}" if self.by else ""
        warn(
            f"{_counted(n_rows, 'row')} in {_counted(len(coarse), 'subgroup')} (first: after "
            f"{_counted(n_shots or 0, 'shot')}{by}) had too few calibration patients: a level of "
            f"{100 * confidence_level:g} % needs {needed:,}, got {n_tasks:,}. Limits of a larger "
            "group are used instead, which cover only on average over that group. Calibrate these "
            "shots and subgroups on more patients.",
            DataWarning,
        )

    def recalibrated(self, p: Array, cells: Sequence[Cell]) -> Array:
        """Recalibrated probabilities, (row, class); rows sum to 1."""
        p, shots = p.copy(), np.array([k for k, _ in cells], dtype=np.int64)
        for k in set(shots.tolist()):
            cell = (k, None) if (k, None) in self.maps else ANY
            rows = shots == k
            for c, recalibration in enumerate(self.maps.get(cell, ())):
                p[rows, c] = recalibration.at(p[rows, c])
        return np.asarray(p / p.sum(1, keepdims=True))

    def to_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-safe metadata, marked as patient data if limits are of few tasks."""
        tensors, cells = {}, []
        for number, (cell, each) in enumerate(self.limits.items()):
            cells.append({"cell": list(cell), "n_tasks": [limits.n_tasks for limits in each]})
            for place, limits in enumerate(each):
                pair = [torch.from_numpy(part.copy()) for part in (limits.error, limits.weight)]
                tensors[f"limits.{number}.{place}"] = torch.stack(pair)
        few = any(0 < one.n_tasks < FEWEST_TASKS for each in self.limits.values() for one in each)
        mark = {"contains_patient_data": True} if few else {}
        return tensors, mark | {
            "by": [[name, [float(cut) for cut in cuts]] for name, cuts in self.by.items()],
            "cells": cells,
            "recalibration": [
                {"cell": list(cell), "maps": [[one.a, one.b, one.c] for one in each]}
                for cell, each in self.maps.items()
            ],
        }

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_state`; raises a `BundleError` for malformed limits."""
        limits = {
            _read_cell(one["cell"]): tuple(
                _read_limits(tensors, f"limits.{number}.{place}", n_tasks)
                for place, n_tasks in enumerate(one["n_tasks"])
            )
            for number, one in enumerate(metadata["cells"])
        }
        maps = {
            _read_cell(one["cell"]): tuple(BetaCalibration(*map(float, abc)) for abc in one["maps"])
            for one in metadata["recalibration"]
        }
        outcome = metadata["model"]["table"]["outcome"]
        n_limits = len(outcome["labels"]) if "labels" in outcome else 1
        sizes = {*map(len, limits.values()), *map(len, maps.values())}
        if sizes != {n_limits} or ANY not in limits:
            raise BundleError("its calibration does not match its outcome.")
        by = {str(name): tuple(map(float, cuts)) for name, cuts in metadata["by"]}
        return cls(limits, by, maps)


def _read_cell(cell: list[Any]) -> Cell:
    k, level = cell
    return None if k is None else int(k), None if level is None else str(level)


def _read_limits(tensors: Mapping[str, Tensor], name: str, n_tasks: Any) -> Limits:
    pair = tensors[name]
    if pair.dtype != torch.float64 or pair.ndim != 2 or len(pair) != 2:
        raise BundleError(f"tensor {name!r} must be a float64 pair of errors and weights.")
    error, weight = pair[0], pair[1]
    if bool((error.diff() < 0).any()) or bool((weight <= 0).any()) or type(n_tasks) is not int:
        raise BundleError(f"tensor {name!r} must contain sorted errors and positive weights.")
    if abs(float(weight.sum()) - n_tasks) > 1e-6 * max(n_tasks, 1):
        raise BundleError(f"the weights of tensor {name!r} must add up to its number of tasks.")
    return Limits(error.numpy(), weight.numpy(), n_tasks)


def levels_of(
    columns: Mapping[str, npt.NDArray[Any]], by: Mapping[str, Sequence[float]]
) -> npt.NDArray[np.object_]:
    """Name of every row's subgroup, (row,), from the columns of `by` and their cut points.

    Raises a `SchemaError` if a column is missing, contains text but has cut points, or has too many
    distinct values and no cut points.

    Examples
    --------
    >>> levels_of({"age": np.array([30.0, 60.0, 61.0])}, {"age": (45, 60)})
    array(['age up to 45', 'age 45-60', 'age over 60'], dtype=object)
    """
    n_rows = len(next(iter(columns.values())))
    names: npt.NDArray[np.object_] = np.full(n_rows, "", dtype=object)
    for name, cuts in by.items():
        if name not in columns:
            raise SchemaError(
                f"by= names the column '{name}', which is not in X. {did_you_mean(name, columns)}"
            )
        level = _cut(columns[name], cuts, name) if len(cuts) else _values(columns[name], name)
        names = np.asarray(names + np.where(names == "", "", ", ").astype(object) + level)
    return names


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _values(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.object_]:
    codes, distinct = pd.factorize(values)
    if len(distinct) > _MOST_VALUES:
        raise SchemaError(
            f"column '{name}' in by= has {len(distinct):,} distinct values, too many for "
            f"subgroups. Pass cut points: by={{'{name}': (low, high)}}."
        )
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in distinct]
    named = np.array([f"{name} {word}" for word in [*words, "missing"]], dtype=object)
    return np.asarray(named[codes])


def _cut(values: npt.NDArray[Any], cuts: Sequence[float], name: str) -> npt.NDArray[np.object_]:
    edges = np.asarray(cuts, dtype=np.float64)
    if values.dtype.kind not in "biuf" or np.any(np.diff(edges) <= 0):
        raise SchemaError(
            f"column '{name}' in by= needs numbers and increasing cut points, got {values.dtype} "
            f"and cut points {tuple(cuts)}. Omit the cut points for a column of categories."
        )
    between = [f"{low:g}-{high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    words = [f"up to {edges[0]:g}", *between, f"over {edges[-1]:g}", "missing"]
    codes = np.where(np.isnan(values.astype(np.float64)), -1, np.searchsorted(edges, values))
    named: npt.NDArray[np.object_] = np.array([f"{name} {w}" for w in words], dtype=object)[codes]
    return named
