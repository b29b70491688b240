"""The meta-learning classifier, and its correction for supports sampled by outcome."""

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
    """Meta-learning classifier: learns from many tasks to classify a new one from a few rows.

    The outcome has two classes or more, as text or whole numbers; a support may hold any of them.
    Probabilities are averaged over the uncertainty about the task, so that the population model is
    calibrated among new tasks.

    Rare classes, down to half a percent, need no weights: probabilities are calibrated to the
    training rows. If a `population` model has ``class_weight``,
    ``DeepMixedEffects(feature_slopes=True)`` recalibrates it by an intercept and a slope. For
    supports sampled by outcome (case-control) use ``adapt(prevalence=...)``.

    Parameters
    ----------
    algorithm : Algorithm, optional
        The meta-learner; `MetaSGD` by default. For two classes and cohorts without time
        (``task_kind`` of the schema), the default is as in `MetaRegressor`.
    backbone : Backbone, optional
        The network; ``MLP((64, 64))`` by default.
    population : classifier, optional
        Any scikit-learn classifier of two classes, cross-fitted by task; its logit is the offset
        that the algorithm adapts. `LogisticRegression` and `HistGradientBoostingClassifier` can be
        saved.
    schema, task, time, known, shots, max_queries, max_steps, batch_size, learning_rate, \
weight_decay, validation_fraction, patience, score_shots, device, precision, chunk_size, compile, \
callbacks, verbose, random_state
        As in `MetaRegressor`.

    Attributes
    ----------
    classes_ : ndarray, (class,)
        Class labels, sorted: the columns of `predict_proba`.
    history_, n_tasks_, population_
        As in `MetaRegressor`.

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
            For support rows sampled by outcome (all cases and some controls): the share of the
            second class among all patients of these tasks. An offset on the support's log-odds
            then corrects for the sampling, so that predictions hold for unsampled patients.
            Refused by algorithms that compare rows (prototypical, matching and relation networks,
            neural processes), which have no such offset.

        Returns
        -------
        Adapted
            Predictions for these tasks.

        References
        ----------
        King, Zeng (2001), doi:10.1093/oxfordjournals.pan.a004868 (prior correction).
        """
        model = self.fitted_model()
        labels, support = model.read_support(X, y, groups=groups, time=time)
        if prevalence is not None:
            algorithm = self.model_.learner.algorithm
            if not algorithm.uses_support_offset:
                raise DataError(
                    f"{type(algorithm).__name__} does not correct for sampling by outcome. Leave "
                    "prevalence out, or fit with MetaSGD, BayesianHead or DeepMixedEffects."
                )
            support = _case_control_offset(support, prevalence)
        return Adapted(model, labels, support)


def _case_control_offset(support: TaskRows, prevalence: float) -> TaskRows:
    r"""Add the prior correction of case-control sampling to the offset of the support rows.

    .. math:: \mathrm{logit}\, \bar y_i - \mathrm{logit}\, \pi

    with :math:`\bar y_i` the share of events in the support of task i, :math:`\pi` the prevalence.
    """
    if not 0.0 < prevalence < 1.0:
        raise DataError(f"prevalence must lie strictly between 0 and 1, got {prevalence}.")
    if bool((support.y > 1).any()):
        raise DataError("prevalence= needs two classes: leave it out for more.")
    events = torch.bincount(support.codes, support.y.double(), minlength=support.n_tasks)
    share = events / support.sizes.clamp(min=1)
    one_class = (support.sizes > 0) & ((share == 0) | (share == 1))
    if bool(one_class.any()):
        raise DataError(
            f"{int(one_class.sum()):,} of {support.n_tasks:,} supports (first: task "
            f"{int(one_class.nonzero()[0])}) hold one class only, so they were not sampled by "
            "outcome. Leave prevalence out for rows that were not sampled."
        )
    correction = torch.logit(share) - torch.logit(torch.tensor(prevalence, dtype=torch.float64))
    offset = support.offset + correction[support.codes].to(support.offset.dtype)
    return replace(support, offset=offset)
