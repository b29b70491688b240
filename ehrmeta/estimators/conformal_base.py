"""What calibrated regressors and classifiers share: held-out patients, shots and kinds of rows."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator

from ehrmeta.data import first_k, random_k
from ehrmeta.errors import AtypicalWarning, DataError, GroupError, NotFittedError
from ehrmeta.estimators._base import TaskEstimator
from ehrmeta.estimators.conformal_limits import BetaCalibration, Cell, Limits, levels_of
from ehrmeta.estimators.file_conformal import load_conformal, save_conformal
from ehrmeta.estimators.predictive import Prediction

__all__ = ["ConformalEstimator"]


class ConformalEstimator(BaseEstimator, ABC):
    """A fitted model and what was learned of its errors on patients it has not seen.

    Subclasses say what is kept of every predicted row (`_columns`) and what is learned of all of
    them (`_learn`); what they adapt to, they wrap.
    """

    limits_: dict[Cell, Any]

    def __init__(
        self,
        model: TaskEstimator,
        *,
        shots: Sequence[int] = tuple(range(11)),
        by: Mapping[str, Sequence[float]] | Sequence[str] | None = None,
    ) -> None:
        self.model = model
        self.shots = shots
        self.by = by

    def calibrate(
        self, X: Any, y: Any, *, groups: Any, time: Any = None, outcome_time: Any = None
    ) -> Self:
        """Learn how far predictions are off, on patients that the model was not fitted on.

        Each is adapted from its first k rows (random ones without time), for every k of `shots`,
        and judged on its later ones.

        Parameters
        ----------
        X, y, groups, time
            The rows of calibration patients, as in ``model.fit``.
        outcome_time : (row,), optional
            When each outcome became known, on the clock of `time`: no query row is earlier.

        Raises
        ------
        DataError
            The model is of another kind, a column of `by` cannot be used, or no patient has rows
            after its support.
        """
        self._learn(self._judged(X, y, groups, time, outcome_time))
        return self

    def _judged(self, X: Any, y: Any, groups: Any, time: Any, outcome_time: Any) -> pd.DataFrame:
        """What is kept of every later row after every k; with its task, kind and k."""
        self._check_model()
        self.model._check_is_fitted()
        inputs = self.model._read_fitted(X, y, groups, time)
        outcome, tasks = inputs.outcome(), inputs.tasks()
        if inputs.groups is None:
            raise GroupError("calibrate needs groups=: the patient of every row.")
        level = levels_of(inputs.columns, self._by())
        if not isinstance(self.shots, Sequence | np.ndarray) or not len(self.shots):
            raise DataError(f"shots must list one support size or more, got {self.shots!r}.")
        found = []
        for k in self.shots:
            if inputs.time is None:
                support, query = random_k(tasks, k, random_state=0)
            else:
                support, query = first_k(tasks, k, time=inputs.time, outcome_time=outcome_time)
            if query.any():
                rows = self.model._rows_at(X, inputs, query)
                shown = self.model._rows_at(X, inputs, support) | {"y": outcome[support]}
                columns = self._columns(self._predicted(shown, rows), outcome[query])
                columns |= {"task": tasks.codes[query], "level": level[query]}
                found.append(pd.DataFrame(columns).assign(shots=k))
        if not found:
            raise DataError(
                f"none of {tasks.n_tasks:,} calibration tasks has a row to predict after a support "
                f"of {min(self.shots, default=0)}. Lower shots, or pass tasks with more rows."
            )
        return pd.concat(found, ignore_index=True)

    def predict(self, X: Any, *, time: Any = None) -> npt.NDArray[Any]:
        """Population prediction, that of the model."""
        return self.model.predict(X, time=time)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model and its calibration to one file, whole or not at all.

        Beside what `MetaRegressor.save` writes, it holds the standardised errors of the calibration
        rows in order of their size, without row or id, and names those kinds of `by` that ten
        patients or more are of.

        Parameters
        ----------
        path : str or path-like
            By convention ``"name.ehrmeta"``.

        Raises
        ------
        BundleError
            The model is one that a file cannot hold, or the file cannot be written.
        """
        save_conformal(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Self:
        """Read what `save` wrote; it predicts bit for bit the same on the same device.

        Parameters
        ----------
        path : str or path-like
        device : str
            Where to compute, wherever the model was trained.

        Raises
        ------
        BundleError
            The file is missing, damaged, or holds something else.
        """
        return load_conformal(path, cls, device=device)

    @abstractmethod
    def _restore(
        self,
        limits: dict[Cell, tuple[Limits, ...]],
        maps: dict[Cell, tuple[BetaCalibration, ...]],
    ) -> None:
        """Set the fitted attributes from a file."""

    @abstractmethod
    def _check_model(self) -> None:
        """Refuse models of another kind of outcome."""

    @abstractmethod
    def _columns(self, predicted: Prediction, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """What is kept of every predicted row, (row,) each."""

    @abstractmethod
    def _learn(self, rows: pd.DataFrame) -> None:
        """Set the fitted attributes; columns are those kept, and task, level and shots."""

    def _by(self) -> dict[str, tuple[float, ...]]:
        if isinstance(self.by, Mapping):
            return {name: tuple(cuts) for name, cuts in self.by.items()}
        return dict.fromkeys([self.by] if isinstance(self.by, str) else self.by or (), ())

    def _predicted(self, support: dict[str, Any], query: dict[str, Any]) -> Prediction:
        with warnings.catch_warnings():  # among many patients some are atypical by chance
            warnings.simplefilter("ignore", AtypicalWarning)
            if len(support["y"]):
                return self.model.adapt(**support).predict_distribution(**query)
            query = {"X": query["X"], "time": query["time"]}
            return self.model.unadapted().predict_distribution(**query)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "limits_")

    def _check_is_calibrated(self) -> None:
        if not hasattr(self, "limits_"):
            raise NotFittedError(
                f"This {type(self).__name__} is not calibrated yet. Call 'calibrate' with patients "
                "that the model was not fitted on."
            )
