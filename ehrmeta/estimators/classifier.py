"""Meta-learning for classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin

from ehrmeta.data import Schema
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.classes import Classes
from ehrmeta.estimators.inputs import Inputs, read_labels
from ehrmeta.estimators.meta import MetaEstimator
from ehrmeta.estimators.predictive import ClassPredictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.class_likelihoods import Bernoulli, Categorical, ClassLikelihood
from ehrmeta.nn.likelihoods import Distribution

__all__ = ["MetaClassifier"]

Array = npt.NDArray[np.float64]


class MetaClassifier(ClassifierMixin, MetaEstimator):
    """Learns over many tasks how to classify rows of a new one from a few of its rows.

    Two classes or more, as text or whole numbers; a support may hold any of them, or one only.
    Probabilities are averages over what is not known of a task yet, so that those of the
    population model add up to the events among new tasks.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The meta-learner; `MetaSGD` by default.
    backbone : Backbone, optional
        The network; ``MLP((64, 64))`` by default.
    schema, task, time, shots, max_queries, max_steps, batch_size, learning_rate, weight_decay, \
validation_fraction, patience, score_shots, device, precision, chunk_size, compile, callbacks, \
verbose, random_state
        As in `MetaRegressor`.

    Attributes
    ----------
    classes_ : ndarray, (class,)
        Class labels, sorted: the columns of `predict_proba`.
    history_ : list of dict
        One record per check of the training, as in `MetaRegressor`.
    n_tasks_ : int
        Training tasks seen.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta import MetaClassifier, make_sinusoid
    >>> X, y, groups = make_sinusoid(n_tasks=50, n_points=10, random_state=0)
    >>> label = np.where(y > 0, "above", "below")
    >>> model = MetaClassifier(max_steps=50, random_state=0).fit(X, label, groups=groups)
    >>> model.adapt(X[10:15], label[10:15]).predict_proba(X[15:20]).shape
    (5, 2)
    """

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
        return Classes.fit(inputs.outcome())

    def _losses(
        self, adapted: Adapted, query: dict[str, Any], y: npt.NDArray[Any]
    ) -> tuple[Array, float]:
        """Log loss, and the entropy of the classes in y."""
        codes = self.table_.outcome.forward(y).astype(np.int64)
        p = adapted.predict_proba(**query)[np.arange(len(codes)), codes]
        rates = np.bincount(codes) / len(codes)
        entropy = -np.sum(rates[rates > 0] * np.log(rates[rates > 0]))
        return -np.log(np.maximum(p, np.finfo(np.float64).tiny)), float(entropy)

    def _likelihood(self, table: TableEncoder) -> ClassLikelihood:
        n_classes = len(table.outcome.labels)
        return Bernoulli() if n_classes == 2 else Categorical(n_classes)

    def _prediction(self, distribution: Distribution) -> ClassPredictive:
        labels = self.table_.outcome.labels
        if not distribution:
            return ClassPredictive(np.empty((0, len(labels))), labels)
        return ClassPredictive(distribution["logits"].double().numpy(), labels)
