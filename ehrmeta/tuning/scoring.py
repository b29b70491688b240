"""What a user asks to be judged by, as measures: errors to minimise, scores to maximise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
from sklearn.base import is_classifier

from ehrmeta.errors import DataError, did_you_mean
from ehrmeta.tuning.measures import MEASURES, Measure, Rows

__all__ = ["Scoring", "read_scoring"]

Scorer = Callable[..., float]
Scoring = str | Scorer | Sequence[str | Scorer] | None
Direction = Literal["minimize", "maximize"]


def read_scoring(scoring: Scoring, model: Any) -> tuple[Mapping[str, Measure], list[Direction]]:
    """Measures by name, and the direction of each.

    Parameters
    ----------
    scoring : str, callable, sequence of them, or None
        As in `tune`.
    model : estimator
        Whose default is the log loss where it predicts classes, the error otherwise.

    Raises
    ------
    DataError
        A score is not known, or named twice.
    """
    if scoring is None:
        scoring = "log_loss" if is_classifier(model) else "rmse_macro"
    asked: list[Any] = list(scoring) if isinstance(scoring, list | tuple) else [scoring]
    found: dict[str, Measure] = {}
    directions: list[Direction] = []
    for one in asked:
        if callable(one):
            name = getattr(one, "__name__", type(one).__name__)
            found[name] = _scored_by(one)
            directions.append("maximize")
        elif one in MEASURES:
            found[one] = MEASURES[one]
            directions.append("minimize")
        else:
            raise DataError(f"unknown scoring {one!r}. {did_you_mean(str(one), MEASURES)}")
    if not asked or len(found) < len(asked):
        raise DataError("scoring must name at least one score, and each once.")
    return found, directions


def _scored_by(scorer: Scorer) -> Measure:
    """A scikit-learn scorer, called once a block."""

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
