"""Task estimators of classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags

from ehrmeta.data import Schema
from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskEstimator
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.classes import Classes
from ehrmeta.estimators.inputs import Inputs, read_labels

__all__ = ["TaskClassifier"]

Array = npt.NDArray[np.float64]


class TaskClassifier(ClassifierMixin, TaskEstimator):
    """A task estimator of classes.

    Parameters
    ----------
    schema, task, time, score_shots
        As in `TaskEstimator`.
    """

    two_classes_only: ClassVar[bool] = False

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Class labels in the order of the columns of `predict_proba`."""
        self._check_is_fitted()
        labels: npt.NDArray[Any] = self.table_.outcome.labels
        return labels

    def predict_proba(self, X: Any, *, time: Any = None) -> Array:
        """Class probabilities of the population model: adaptation on an empty support.

        Parameters
        ----------
        X : frame or array, (row, feature)
            Rows to predict for.
        time : array, (row,), optional
            Needed where the model was fitted with time.

        Returns
        -------
        ndarray, (row, class)
            In the order of `classes_`; rows sum to 1.
        """
        return self.unadapted().predict_proba(X, time=time)

    def score(self, X: Any, y: Any, *, groups: Any = None, time: Any = None) -> float:
        """k-shot D²: 1 - (log loss, averaged within then over tasks) / log loss of the base rates.

        Unlike accuracy it rewards good probabilities, also where one class is rare. Each task is
        adapted from k rows (its first with time, random ones without) and judged on its later
        rows, for every k in `score_shots`; the scores are averaged. Without groups the population
        prediction is judged.
        """
        return self._score(X, y, groups, time)

    def _read_outcome(self, y: Any, name: str) -> npt.NDArray[Any]:
        return read_labels(y, name)

    def _fit_outcome(self, inputs: Inputs, schema: Schema | None) -> Classes:
        classes = Classes.fit(inputs.outcome())
        if self.two_classes_only and len(classes.labels) > 2:
            raise DataError(
                f"Only binary classification is supported by {type(self).__name__}. The type of "
                f"the target is multiclass: {len(classes.labels)} classes."
            )
        return classes

    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: npt.NDArray[Any]
    ) -> tuple[Array, float]:
        """Log loss, and the entropy of the classes in y."""
        codes = self.table_.outcome.forward(y).astype(np.int64)
        p = adapted.predict_proba(**query)[np.arange(len(codes)), codes]
        rates = np.bincount(codes) / len(codes)
        entropy = -np.sum(rates[rates > 0] * np.log(rates[rates > 0]))
        return -np.log(np.maximum(p, np.finfo(np.float64).tiny)), float(entropy)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = not self.two_classes_only
        return tags
