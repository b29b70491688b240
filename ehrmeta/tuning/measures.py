"""Errors of a fitted model on held-out tasks by the k-shot protocol, one per block of tasks.

Each task is adapted to its first k rows (k random ones without time) and scored on its later
rows, for every k in the model's `score_shots`. Errors are averaged over k; smaller is better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier

from ehrmeta.data.columns import take_rows
from ehrmeta.errors import DataError, DivergenceError, did_you_mean
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.k_shot_protocol import adapt_to_rows, k_shot_splits
from ehrmeta.evaluation.metrics import METRICS, Array, task_mean

_LEVELS = (0.5, 0.8, 0.9, 0.95)
Scorer = Callable[..., float]
Scoring = str | Scorer | Sequence[str | Scorer] | None
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Rows:
    """Rows of some tasks, with the arguments of `fit` as passed by the user."""

    X: Any
    y: Any
    groups: Any
    time: Any
    tasks: npt.NDArray[np.int64]  # number of the task of every row, (row,)

    def take(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """The rows selected by a mask."""
        y, groups, time = (
            None if values is None else np.asarray(values)[rows]
            for values in (self.y, self.groups, self.time)
        )
        return Rows(take_rows(self.X, rows), y, groups, time, self.tasks[rows])

    def known(self) -> dict[str, Any]:
        """Keywords of `fit`: groups and time, if given."""
        given = {"groups": self.groups, "time": self.time}
        return {name: value for name, value in given.items() if value is not None}


# ``measure(model, rows, blocks)``: errors (block,) on held-out rows with block numbers (row,)
Measure = Callable[[Any, Rows, npt.NDArray[np.int64]], Array]


@dataclass(frozen=True)
class _Round:
    """All tasks adapted to k rows each, and their query rows."""

    adapted: Adapted
    query: dict[str, Any]
    y: npt.NDArray[Any]
    tasks: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    seconds: float


def _rounds(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Iterator[_Round]:
    inputs = model.fitted_model().read(rows.X, rows.y, groups=rows.groups, time=rows.time)
    tasks, y = inputs.tasks(), inputs.outcome()
    for _, support, query in k_shot_splits(inputs, model.score_shots):
        started = time.perf_counter()
        adapted, query_rows = adapt_to_rows(model, rows.X, inputs, support, query)
        seconds = time.perf_counter() - started
        yield _Round(adapted, query_rows, y[query], tasks.codes[query], blocks[query], seconds)


def _by_block(score: Callable[[_Round], Callable[[npt.NDArray[np.bool_]], float]]) -> Measure:
    """Measure from ``score(round)``, which returns a function from rows of a block to an error."""

    def measure(model: Any, rows: Rows, blocks: npt.NDArray[np.int64]) -> Array:
        n_blocks = int(blocks.max()) + 1
        total, count = np.zeros(n_blocks), np.zeros(n_blocks)
        for at_k in _rounds(model, rows, blocks):
            error = score(at_k)
            for block in np.unique(at_k.blocks):
                total[block] += error(at_k.blocks == block)
                count[block] += 1
        with np.errstate(invalid="ignore"):
            return np.divide(total, count)

    return measure


def _error(metric: str) -> Measure:
    def score(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
        p = _finite(at_k.adapted.predict(**at_k.query))
        return lambda rows: task_mean(metric, at_k.y[rows], p[rows], at_k.tasks[rows]).value()

    return _by_block(score)


def _log_loss(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Mean over tasks of the log loss."""
    p = _finite(at_k.adapted.predict_proba(**at_k.query))
    codes = np.searchsorted(at_k.adapted.classes_, at_k.y)
    loss = -np.log(np.maximum(p[np.arange(len(codes)), codes], np.finfo(np.float64).tiny))
    return lambda rows: _mean_over_tasks(loss[rows], at_k.tasks[rows])


def _interval_error(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Distance between confidence level and coverage, averaged over levels."""
    intervals = [
        at_k.adapted.predict_interval(**at_k.query, confidence_level=level) for level in _LEVELS
    ]
    inside = [(at_k.y >= low) & (at_k.y <= high) for low, high in (i.T for i in intervals)]

    def error(rows: npt.NDArray[np.bool_]) -> float:
        shares = [_mean_over_tasks(held[rows].astype(float), at_k.tasks[rows]) for held in inside]
        return float(np.mean(np.abs(np.subtract(shares, _LEVELS))))

    return error


def _adapt_ms(at_k: _Round) -> Callable[[npt.NDArray[np.bool_]], float]:
    """Milliseconds per task of adapting all tasks in one call."""
    each = 1e3 * at_k.seconds / len(np.unique(at_k.tasks))
    return lambda rows: each


def _finite(predicted: Array) -> Array:
    bad = int(np.count_nonzero(~np.isfinite(predicted)))
    if bad:
        raise DivergenceError(
            f"{bad} of {predicted.size} predictions for held-out tasks are not finite. Lower the "
            "learning rates."
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


def read_scoring(scoring: Scoring, model: Any) -> tuple[Mapping[str, Measure], list[Direction]]:
    """Measures by name, and the direction of each.

    By default, the log loss for a classifier and ``"rmse_macro"`` for a regressor.

    Raises
    ------
    DataError
        A score is unknown, or named twice.
    """
    if scoring is None:
        scoring = "log_loss" if is_classifier(model) else "rmse_macro"
    scores: list[Any] = list(scoring) if isinstance(scoring, list | tuple) else [scoring]
    measures: dict[str, Measure] = {}
    directions: list[Direction] = []
    for score in scores:
        if callable(score):
            measures[getattr(score, "__name__", type(score).__name__)] = _scored_by(score)
            directions.append("maximize")
        elif score in MEASURES:
            measures[score] = MEASURES[score]
            directions.append("minimize")
        else:
            raise DataError(f"unknown scoring {score!r}. {did_you_mean(str(score), MEASURES)}")
    if not scores or len(measures) < len(scores):
        raise DataError("scoring must name at least one score, and name each once.")
    return measures, directions


def _scored_by(scorer: Scorer) -> Measure:
    """A measure from a scikit-learn scorer, called once per block."""

    def measure(model: Any, rows: Rows, blocks: Any) -> Any:
        parts = (rows.take(blocks == block) for block in range(int(blocks.max()) + 1))
        scores = [scorer(model, part.X, part.y, **part.known()) for part in parts]
        wrong = [score for score in scores if not isinstance(score, Real) or np.isnan(score)]
        if wrong:
            raise DataError(
                f"the scorer returned {wrong[0]!r} for a block of held-out patients: it must "
                "return a number."
            )
        return np.array(scores, float)

    return measure
