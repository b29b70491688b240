"""Meta-learning for classes."""

from dataclasses import replace
from typing import Any, ClassVar

import torch

from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskClassifier
from ehrmeta.estimators.adapted import Adapted
from ehrmeta.estimators.meta_estimator import MetaEstimator
from ehrmeta.estimators.meta_model import ClassificationModel, MetaModel
from ehrmeta.nn.batch import TaskRows


class MetaClassifier(MetaEstimator, TaskClassifier):
    """Learns over many tasks how to classify rows of a new one from a few of its rows.

    Two classes or more, as text or whole numbers; a support may hold any of them, or one only.
    Probabilities are averages over what is not known of a task yet, so that those of the
    population model add up to the events among new tasks.

    Rare classes need no weights: probabilities are those of the rows as they come, from half a
    percent on. A `population` model with ``class_weight`` is taken back to them by
    ``DeepMixedEffects(feature_slopes=True)``, whose intercept and gain are estimated above it.
    Supports that were drawn by their outcome are adapted to with ``adapt(prevalence=...)``.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The meta-learner; `MetaSGD` by default.
    backbone : Backbone, optional
        The network; ``MLP((64, 64))`` by default.
    population : classifier, optional
        Any scikit-learn classifier of two classes, cross-fitted by task: its logit is what the
        algorithm starts from, and learns and adapts what is left. A file holds
        `LogisticRegression` and `HistGradientBoostingClassifier`.
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

    _model_class: ClassVar[type[MetaModel]] = ClassificationModel

    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        time: Any = None,
        prevalence: float | None = None,
    ) -> Adapted:
        """Adapt to new tasks from their supports, all in one batch, without refitting.

        Parameters
        ----------
        X, y, groups, time
            As in ``MetaRegressor.adapt``. A support may hold one class only.
        prevalence : float, optional
            Where support rows were drawn by their outcome (all cases and some controls): the share
            of the second class among all patients of these tasks. The log-odds of the support rows
            are then those of patients as they come, plus what the drawing added, so that
            predictions are for patients as they come.

        Returns
        -------
        Adapted
            Predicts for these tasks.

        References
        ----------
        King, Zeng (2001), doi:10.1093/oxfordjournals.pan.a004868 (prior correction).
        """
        model = self.fitted_model()
        labels, support = model.read_support(X, y, groups=groups, time=time)
        if prevalence is not None:
            support = _drawn_by_outcome(support, prevalence)
        return Adapted(model, labels, support)


def _drawn_by_outcome(support: TaskRows, prevalence: float) -> TaskRows:
    r"""The rows with what drawing cases and controls added to their log-odds as an offset.

    .. math:: \mathrm{logit}\, \bar y_i - \mathrm{logit}\, \pi

    with the share of events in the support of task i, and among its patients.

    Raises
    ------
    DataError
        The prevalence is no share, there are several classes, or a support holds one only.
    """
    if not 0.0 < prevalence < 1.0:
        raise DataError(f"prevalence must lie strictly between 0 and 1, got {prevalence}.")
    if bool((support.y > 1).any()):
        raise DataError("prevalence= is for two classes.")
    events = torch.bincount(support.codes, support.y.double(), minlength=support.n_tasks)
    share = events / support.sizes.clamp(min=1)
    alone = (support.sizes > 0) & ((share == 0) | (share == 1))
    if bool(alone.any()):
        raise DataError(
            f"{int(alone.sum()):,} of {support.n_tasks:,} supports (first: task "
            f"{int(alone.nonzero()[0])}) hold one class only, so they were not drawn by their "
            "outcome. Leave prevalence out for rows as they come."
        )
    added = torch.logit(share) - torch.logit(torch.tensor(prevalence, dtype=torch.float64))
    offset = support.offset + added[support.codes].to(support.offset.dtype)
    return replace(support, offset=offset)
