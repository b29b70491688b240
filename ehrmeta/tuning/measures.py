"""Errors of a fitted model on held-out tasks by the k-shot protocol, one number a block of tasks.

Smaller is better for all. Each task is adapted from its first k rows (k random ones without time)
and judged on its later rows, for every k in the model's `score_shots`; the errors are averaged
over k.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ehrmeta.data import first_k, random_k
from ehrmeta.data.rows import take_rows
from ehrmeta.errors import DivergenceError
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.evaluation.metrics import METRICS, task_mean

__all__ = ["MEASURES", "Measure", "Rows"]

Array = npt.NDArray[np.float64]
_LEVELS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Rows:
    """Rows of some tasks, as a user passes them.

    Parameters
    ----------
    X, y, groups, time
        As `fit` takes them.
    tasks : ndarray, (row,)
        Number of the task of every row.
    """

    X: Any
    y: Any
    groups: Any
    time: Any
    tasks: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """The rows of a mask."""
        return Rows(
            take_rows(self.X, rows),
            np.asarray(self.y)[rows],
            None if self.groups is None else np.asarray(self.groups)[rows],
            None if self.time is None else np.asarray(self.time)[rows],
            self.tasks[rows],
        )

    def known(self) -> dict[str, Any]:
        """Groups and time as keywords, where given."""
        given = {"groups": self.groups, "time": self.time}
        return {name: value for name, value in given.items() if value is not None}


Measure = Callable[[Any, Rows, npt.NDArray[np.int64]], Array]
"""``measure(model, rows, blocks)``: model, held-out rows, their block (row,) -> (block,)."""


@dataclass(frozen=True)
class _Round:
    """All tasks adapted from k rows each, and the rows to judge them on."""

    adapted: Adapted
    asked: dict[str, Any]
    y: npt.NDArray[Any]
    tasks: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    seconds: float


def _rounds(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Iterator[_Round]:
    inputs = model._read_fitted(rows.X, rows.y, rows.groups, rows.time)
    tasks, y = inputs.tasks(), inputs.outcome()
    for k in model.score_shots:
        if inputs.time is not None:
            support, query = first_k(tasks, k, time=inputs.time)
        else:
            support, query = random_k(tasks, k, random_state=0)
        if not query.any():
            continue
        started = time.perf_counter()
        adapted = model.adapt(y=y[support], **model._rows_at(rows.X, inputs, support))
        seconds = time.perf_counter() - started
        asked = model._rows_at(rows.X, inputs, query)
        yield _Round(adapted, asked, y[query], tasks.codes[query], blocks[query], seconds)


def _by_block(
    judge: Callable[[_Round], Callable[[npt.NDArray[np.bool_]], float]],
) -> Measure:
    """A measure from a function that judges a round: block's rows (row,) -> error."""

    def measure(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Array:
        n_blocks = int(blocks.max()) + 1
        total, count = np.zeros(n_blocks), np.zeros(n_blocks)
        for found in _rounds(model, rows, blocks):
            error = judge(found)
            for block in np.unique(found.blocks):
                total[block] += error(found.blocks == block)
                count[block] += 1
        with np.errstate(invalid="ignore"):
            return np.divide(total, count)

    return measure


def _error(metric: str) -> Measure:
    def judge(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
        predicted = _finite(found.adapted.predict(**found.asked))
        return lambda at: task_mean(metric, found.y[at], predicted[at], found.tasks[at]).value()

    return _by_block(judge)


def _log_loss(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Mean over tasks of the log loss."""
    p = _finite(found.adapted.predict_proba(**found.asked))
    codes = np.searchsorted(found.adapted.model.classes_, found.y)
    loss = -np.log(np.maximum(p[np.arange(len(codes)), codes], np.finfo(np.float64).tiny))
    return lambda at: _mean_over_tasks(loss[at], found.tasks[at])


def _interval_error(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Distance between confidence level and share of outcomes covered, averaged over levels."""
    intervals = [
        found.adapted.predict_interval(**found.asked, confidence_level=level) for level in _LEVELS
    ]
    inside = [(found.y >= low) & (found.y <= high) for low, high in (i.T for i in intervals)]

    def error(at: npt.NDArray[np.bool_]) -> float:
        shares = [_mean_over_tasks(held[at].astype(float), found.tasks[at]) for held in inside]
        return float(np.mean(np.abs(np.subtract(shares, _LEVELS))))

    return error


def _adapt_ms(found: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Milliseconds to adapt a task, of all tasks adapted in one call."""
    each = 1e3 * found.seconds / len(np.unique(found.tasks))
    return lambda at: each


def _finite(predicted: Array) -> Array:
    bad = int(np.count_nonzero(~np.isfinite(predicted)))
    if bad:
        raise DivergenceError(
            f"{bad} of {predicted.size} predictions for held-out tasks are not finite."
        )
    return predicted


def _mean_over_tasks(values: Array, tasks: npt.NDArray[np.int64]) -> float:
    counts = np.bincount(tasks)
    means = np.bincount(tasks, values)[counts > 0] / counts[counts > 0]
    return float(means.mean())


MEASURES: Mapping[str, Measure] = {
    **{metric: _error(metric) for metric in METRICS},
    "log_loss": _by_block(_log_loss),
    "interval_error": _by_block(_interval_error),
    "adapt_ms": _by_block(_adapt_ms),
}
