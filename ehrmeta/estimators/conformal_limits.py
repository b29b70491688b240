"""How far from a prediction a new patient's outcome may lie, from the errors of other patients."""

from __future__ import annotations

import math
import warnings
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

from ehrmeta.errors import BundleError, DataError, DataWarning, SchemaError, did_you_mean

Array = npt.NDArray[np.float64]
_ROUNDING = 1e-9  # sums of 1 / n are not exact
_CLIP = 1e-6
_INVERSE_PENALTY = 1e3  # keeps separated classes finite
Cell: TypeAlias = tuple[int | None, str | None]  # support size, kind of row; None is all of them
Value = TypeVar("Value")
ANY: Cell = (None, None)
_FEWEST_TASKS = 10  # of a kind that is named
_MOST_VALUES = 20  # of a column that is not cut


@dataclass(frozen=True)
class Limits:
    r"""Errors of the calibration tasks, from which limits for one more task are read.

    The errors of one task are alike, so the task is what is exchangeable: with m tasks, row j of
    the :math:`n_i` of task i weighs :math:`1 / ((m + 1) n_i)`, and the new task's own
    :math:`1 / (m + 1)` lies beyond all of them. An interval of level :math:`1 - a` cuts off
    :math:`a / 2` on each side, by weight, and then holds a random row of a new task with at least
    that probability, whatever the distribution of the errors.

    Attributes
    ----------
    error : (row,)
        Signed and standardised, (outcome - mean) / sd, in ascending order.
    weight : (row,)
        One over the rows of its task.
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
        """Take the errors of some rows, (row,), and the number of each one's task, (row,)."""
        counts = np.bincount(tasks)
        order = np.argsort(error, kind="stable")
        weight = (1.0 / np.maximum(counts, 1))[tasks]
        return cls(error[order], weight[order], int(np.count_nonzero(counts)))

    def at(self, confidence_level: float) -> tuple[float, float]:
        """Lower and upper limit of the standardised error.

        Raises
        ------
        DataError
            There are fewer than `tasks_needed`.
        """
        self.refuse_too_few(tasks_needed(confidence_level), confidence_level)
        tail = 0.5 * (1.0 - confidence_level)
        return _lower(self.error, self.weight, tail, self.n_tasks), self._upper(tail)

    def lower(self, confidence_level: float) -> float:
        """Lower limit alone: at least this share of a new task's rows lies at it or above.

        Raises
        ------
        DataError
            There are fewer than ``tasks_needed(confidence_level, sides=1)``.

        Examples
        --------
        >>> Limits.of(np.arange(20.0), tasks=np.arange(20)).lower(0.9)
        1.0
        """
        self.refuse_too_few(tasks_needed(confidence_level, sides=1), confidence_level)
        return _lower(self.error, self.weight, 1.0 - confidence_level, self.n_tasks)

    def upper(self, confidence_level: float) -> float:
        """Upper limit alone, as `lower`."""
        self.refuse_too_few(tasks_needed(confidence_level, sides=1), confidence_level)
        return self._upper(1.0 - confidence_level)

    def _upper(self, tail: float) -> float:
        return -_lower(-self.error[::-1], self.weight[::-1], tail, self.n_tasks)

    def refuse_too_few(self, needed: int, confidence_level: float) -> None:
        """Raise a `DataError` where there are fewer tasks than a level needs."""
        if self.n_tasks < needed:
            raise DataError(
                f"a level of {100 * confidence_level:g} % needs {needed:,} calibration tasks with "
                f"rows to predict, here are {self.n_tasks:,}. Calibrate on more patients, or lower "
                "confidence_level."
            )


def tasks_needed(confidence_level: float, *, sides: int = 2) -> int:
    """Calibration tasks without which limits of this level are not finite.

    Examples
    --------
    >>> tasks_needed(0.9), tasks_needed(0.95), tasks_needed(0.9, sides=1)
    (19, 39, 9)
    """
    if not 0.0 < confidence_level < 1.0:
        raise DataError(
            f"confidence_level must lie strictly between 0 and 1, got {confidence_level}."
        )
    return math.ceil(sides / (1.0 - confidence_level) - 1.0 - _ROUNDING)


def _lower(error: Array, weight: Array, tail: float, n_tasks: int) -> float:
    """The smallest error that leaves at most a share of the weight below it."""
    beyond = tail * (n_tasks + 1) - 1.0
    return float(error[int(np.searchsorted(np.cumsum(weight), beyond + _ROUNDING, side="right"))])


@dataclass(frozen=True)
class BetaCalibration:
    r"""A map of probabilities with three parameters.

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
        """Fit to probabilities, what happened, and weights, (row,) each.

        A coefficient that comes out negative is left out, and the other fitted again.
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
        else:  # the probabilities say nothing
            share = np.average(happened, weights=weight)
            return cls(0.0, 0.0, float(special.logit(share)))
        return cls(float(coefficients[0]), float(coefficients[1]), float(model.intercept_[0]))

    def at(self, p: Array) -> Array:
        """Calibrated probabilities, (row,)."""
        return np.asarray(special.expit(_design(p) @ [self.a, self.b] + self.c))


def _design(p: Array) -> Array:
    p = np.clip(p, _CLIP, 1.0 - _CLIP)
    return np.column_stack([np.log(p), -np.log1p(-p)])


def _coarser(cell: Cell) -> tuple[Cell, ...]:
    """The cell itself, then those that hold it, nearest first.

    Examples
    --------
    >>> _coarser((3, "male 1"))
    ((3, 'male 1'), (3, None), (None, None))
    """
    return cell, (cell[0], None), ANY


def finest(limits: Mapping[Cell, Limits], cell: Cell, needed: int) -> Cell:
    """The finest cell that holds this one and has enough tasks, or else all rows."""
    for wider in _coarser(cell):
        if wider in limits and limits[wider].n_tasks >= needed:
            return wider
    return ANY


def by_cell(rows: pd.DataFrame, of: Callable[[pd.DataFrame], Value]) -> dict[Cell, Value]:
    """What `of` gives for all rows, for those of each k, and for every kind of row at each k.

    Kinds of fewer than ten tasks are left out: what is kept of the others names no rare patient.

    Parameters
    ----------
    rows : DataFrame
        Columns shots, level, task and others.
    of : callable
    """
    values = {ANY: of(rows)}
    for k, part in rows.groupby("shots"):
        values[(int(k), None)] = of(part)
    for (k, level), part in rows.groupby(["shots", "level"]):
        if part["task"].nunique() >= _FEWEST_TASKS:
            values[(int(k), str(level))] = of(part)
    return values


@dataclass(frozen=True)
class Calibration:
    """What was learned on calibration tasks, for every cell: support size and kind of row.

    Parameters
    ----------
    limits : mapping of cell to tuple of Limits
        Of standardised errors (one), or of the probability of every class.
    by : mapping of str to tuple of float
        Columns whose kinds of rows are calibrated each by itself, and where each is cut.
    maps : mapping of cell to tuple of BetaCalibration
        Of classifiers: recalibration of the probability of every class.
    """

    limits: Mapping[Cell, tuple[Limits, ...]]
    by: Mapping[str, tuple[float, ...]]
    maps: Mapping[Cell, tuple[BetaCalibration, ...]]

    def cells(
        self, columns: Mapping[str, npt.NDArray[Any]], n_shots: npt.NDArray[np.int64]
    ) -> list[Cell]:
        """The cell of every row, from its columns and the support size of its task, (row,)."""
        return list(zip(n_shots.tolist(), levels_of(columns, self.by).tolist(), strict=True))

    def chosen(
        self, cells: Sequence[Cell], confidence_level: float, *, sides: int = 2
    ) -> dict[Cell, tuple[Limits, ...]]:
        """The limits that the rows of each cell are given.

        Those of the cell itself; where it was not calibrated, or on too few tasks for the level,
        those of all rows of its support size, and then those of all rows. A `DataWarning` says how
        many rows these are.
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
                limits.refuse_too_few(needed, confidence_level)
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
        """Say how many rows of which cells have the limits of others too, and why."""
        (n_shots, _), (_, n_tasks) = next(iter(coarse.items()))
        n_rows = sum(n_rows for n_rows, _ in coarse.values())
        kinds = f", by {', '.join(self.by)}" if self.by else ""
        warnings.warn(
            f"{_counted(n_rows, 'row')} of {_counted(len(coarse), 'kind')} (first: after "
            f"{_counted(n_shots or 0, 'shot')}{kinds}) had fewer calibration patients than a level "
            f"of {100 * confidence_level:g} % needs: {needed:,}, here {n_tasks:,}. The limits are "
            "those of rows of more kinds, which hold on average over these only. Calibrate those "
            "shots and kinds on more patients.",
            DataWarning,
            stacklevel=7,
        )

    def recalibrated(self, p: Array, cells: Sequence[Cell]) -> Array:
        """Recalibrated probabilities, (row, class), which add up to 1."""
        p, shots = p.copy(), np.array([k for k, _ in cells], dtype=np.int64)
        for k in set(shots.tolist()):
            cell = (k, None) if (k, None) in self.maps else ANY
            rows = shots == k
            for c, recalibration in enumerate(self.maps.get(cell, ())):
                p[rows, c] = recalibration.at(p[rows, c])
        return np.asarray(p / p.sum(1, keepdims=True))

    def to_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-safe metadata: errors in order of size, without row or id."""
        tensors, cells = {}, []
        for number, (cell, each) in enumerate(self.limits.items()):
            cells.append({"cell": list(cell), "n_tasks": [limits.n_tasks for limits in each]})
            for place, limits in enumerate(each):
                pair = [torch.from_numpy(part.copy()) for part in (limits.error, limits.weight)]
                tensors[f"limits.{number}.{place}"] = torch.stack(pair)
        return tensors, {
            "by": [[name, [float(cut) for cut in cuts]] for name, cuts in self.by.items()],
            "cells": cells,
            "recalibration": [
                {"cell": list(cell), "maps": [[one.a, one.b, one.c] for one in each]}
                for cell, each in self.maps.items()
            ],
        }

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_state`.

        Raises
        ------
        BundleError
            A tensor holds no errors in order with their weights.
        """
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
        by = {str(name): tuple(map(float, cuts)) for name, cuts in metadata["by"]}
        return cls(limits, by, maps)


def _read_cell(cell: list[Any]) -> Cell:
    k, level = cell
    return None if k is None else int(k), None if level is None else str(level)


def _read_limits(tensors: Mapping[str, Tensor], name: str, n_tasks: Any) -> Limits:
    pair = tensors[name]
    if pair.dtype != torch.float64 or pair.ndim != 2 or len(pair) != 2:
        raise BundleError(f"tensor {name!r} holds no errors with their weights.")
    error, weight = pair[0], pair[1]
    if bool((error.diff() < 0).any()) or bool((weight <= 0).any()) or type(n_tasks) is not int:
        raise BundleError(f"tensor {name!r} holds no errors in order with their weights.")
    return Limits(error.numpy(), weight.numpy(), n_tasks)


def levels_of(
    columns: Mapping[str, npt.NDArray[Any]], by: Mapping[str, Sequence[float]]
) -> npt.NDArray[np.object_]:
    """The kind of every row in words, (row,): its values in some columns, numbers cut into classes.

    Parameters
    ----------
    columns : mapping of str to (row,)
    by : mapping of str to sequence of float
        Columns to look at, and where each is cut; nowhere for values that are classes themselves.

    Raises
    ------
    SchemaError
        A column is missing, is cut but holds text, or has too many values to be classes.

    Examples
    --------
    >>> levels_of({"age": np.array([30.0, 60.0, 61.0])}, {"age": (45, 60)})
    array(['age up to 45', 'age 45-60', 'age over 60'], dtype=object)
    """
    n_rows = len(next(iter(columns.values())))
    words: npt.NDArray[np.object_] = np.full(n_rows, "", dtype=object)
    for name, cuts in by.items():
        if name not in columns:
            raise SchemaError(
                f"by names the column '{name}', which X does not have. "
                f"{did_you_mean(name, columns)}"
            )
        level = _cut(columns[name], cuts, name) if len(cuts) else _as_words(columns[name], name)
        words = np.asarray(words + np.where(words == "", "", ", ").astype(object) + level)
    return words


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _as_words(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.object_]:
    codes, distinct = pd.factorize(values)
    if len(distinct) > _MOST_VALUES:
        raise SchemaError(
            f"column '{name}' of by has {len(distinct):,} different values, too many to calibrate "
            f"each by itself. Say where to cut it: by={{'{name}': (low, high)}}."
        )
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in distinct]
    named = np.array([f"{name} {word}" for word in [*words, "missing"]], dtype=object)
    return np.asarray(named[codes])


def _cut(values: npt.NDArray[Any], cuts: Sequence[float], name: str) -> npt.NDArray[np.object_]:
    edges = np.asarray(cuts, dtype=np.float64)
    if values.dtype.kind not in "biuf" or np.any(np.diff(edges) <= 0):
        raise SchemaError(
            f"column '{name}' of by can be cut where it holds numbers, at increasing values; it "
            f"holds {values.dtype}, and the cuts are {tuple(cuts)}."
        )
    between = [f"{low:g}-{high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    words = [f"up to {edges[0]:g}", *between, f"over {edges[-1]:g}", "missing"]
    codes = np.where(np.isnan(values.astype(np.float64)), -1, np.searchsorted(edges, values))
    named: npt.NDArray[np.object_] = np.array([f"{name} {w}" for w in words], dtype=object)[codes]
    return named
