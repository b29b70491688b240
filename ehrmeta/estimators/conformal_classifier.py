"""Sets of classes that hold for new patients, and probabilities that add up to the events."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskClassifier
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.conformal_base import ConformalEstimator
from ehrmeta.estimators.conformal_class_adapted import ConformalClassAdapted
from ehrmeta.estimators.conformal_limits import ANY, BetaCalibration, Cell, Limits, by_cell
from ehrmeta.estimators.predictive import ClassPredictive, Prediction

__all__ = ["ConformalClassifier"]

_FEWEST = 20  # patients with rows of a class, and of the others, for a calibration of their own


class ConformalClassifier(ConformalEstimator):
    """A fitted classifier whose sets of classes and probabilities are calibrated on new patients.

    The set of classes for a row holds its true class with at least the probability asked for, by
    itself for the rows of every class: events are missed no more often than non-events, however
    rare they are. It does so for a random row of a new patient who has rows of that class, whatever
    the model is worth, as long as calibration patients and new ones are drawn from the same
    population; and for every support size k by itself and, with `by`, every kind of row. Where the
    model cannot tell, the set holds both classes.

    Probabilities are recalibrated at every k by a map of three parameters for each class (beta
    calibration), patients weighing the same; classes that are predicted may change with it.

    Parameters
    ----------
    model : fitted classifier over tasks
        A `MetaClassifier` or a baseline. It is neither changed nor fitted again.
    shots, by
        As in `ConformalRegressor`. Each kind needs enough patients with each class: 9 at 90 %,
        better 100.

    Attributes
    ----------
    limits_ : dict of (shots, level) to tuple of Limits
        Of the probability that rows of every class were given.
    recalibration_ : dict of (shots, level) to tuple of BetaCalibration
        For every class, at each k with enough patients and of all rows; empty where even these
        are too few, and then probabilities stay as they are.

    Examples
    --------
    >>> from ehrmeta import ConformalClassifier, MetaClassifier, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=120, n_points=10, random_state=0)
    >>> train, held_out, new = groups < 50, (groups >= 50) & (groups < 110), groups == 115
    >>> model = MetaClassifier(max_steps=5, random_state=0)
    >>> model = model.fit(X[train], y[train] > 0, groups=groups[train])
    >>> conformal = ConformalClassifier(model, shots=(5,))
    >>> conformal = conformal.calibrate(X[held_out], y[held_out] > 0, groups=groups[held_out])
    >>> patient = conformal.adapt(X[new][:5], y[new][:5] > 0)
    >>> patient.predict_set(X[new][5:], confidence_level=0.9).shape
    (5, 2)
    """

    def adapt(
        self, X: Any, y: Any, *, groups: Any = None, time: Any = None
    ) -> ConformalClassAdapted:
        """Adapt the model to new patients, as `MetaClassifier.adapt` does."""
        self._check_is_calibrated()
        return self._with_limits(self.model.adapt(X, y, groups=groups, time=time))

    def unadapted(self) -> ConformalClassAdapted:
        """The population model, for patients without any row."""
        self._check_is_calibrated()
        return self._with_limits(self.model.unadapted())

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Class labels: the columns of sets and probabilities."""
        labels: npt.NDArray[Any] = self.model.table_.outcome.labels
        return labels

    def _check_model(self) -> None:
        if not isinstance(self.model, TaskClassifier):
            raise DataError(
                f"a {type(self.model).__name__} has no classes to calibrate. Pass a fitted "
                "MetaClassifier, or a baseline that predicts classes."
            )

    def _columns(self, predicted: Prediction, y: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        if not isinstance(predicted, ClassPredictive):
            raise DataError(f"a {type(self.model).__name__} predicts no classes to calibrate.")
        columns = {f"p{c}": p for c, p in enumerate(predicted.probabilities().T)}
        return columns | {"label": self.model.table_.outcome.forward(y).astype(np.int64)}

    def _learn(self, rows: pd.DataFrame) -> None:
        n_classes = len(self.classes_)

        def limits(part: pd.DataFrame) -> tuple[Limits, ...]:
            of_class = (part[part["label"] == c] for c in range(n_classes))
            return tuple(
                Limits.of(own[f"p{c}"].to_numpy(), own["task"].to_numpy())
                for c, own in enumerate(of_class)
            )

        self.limits_ = by_cell(rows, limits)
        self.recalibration_ = _recalibration(rows, n_classes)

    def _restore(
        self,
        limits: dict[Cell, tuple[Limits, ...]],
        maps: dict[Cell, tuple[BetaCalibration, ...]],
    ) -> None:
        self.limits_, self.recalibration_ = limits, maps

    def _with_limits(self, adapted: Adapted) -> ConformalClassAdapted:
        return ConformalClassAdapted(adapted, self.limits_, self.recalibration_, self._by())


def _recalibration(rows: pd.DataFrame, n_classes: int) -> dict[Cell, tuple[BetaCalibration, ...]]:
    """For all rows and for each k, where there are enough patients with every class."""
    parts: dict[Cell, pd.DataFrame] = {ANY: rows}
    parts |= {(int(k), None): part for k, part in rows.groupby("shots")}
    found = {}
    for cell, part in parts.items():
        of_class = [part["label"] == c for c in range(n_classes)]
        fewest = min(part.loc[mask, "task"].nunique() for own in of_class for mask in (own, ~own))
        if fewest < _FEWEST:
            continue
        counts = part.groupby(["shots", "task"])["label"].transform("size")
        weight = (1.0 / counts).to_numpy()
        found[cell] = tuple(
            BetaCalibration.of(part[f"p{c}"].to_numpy(), own.to_numpy(), weight)
            for c, own in enumerate(of_class)
        )
    return found
