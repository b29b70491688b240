"""The mixed-effects logistic regression: the opponent to beat on risks of many sites."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ehrmeta.data.schema import Schema
from ehrmeta.estimators.predictive import ClassPredictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.estimators.task_classifier import TaskClassifier
from ehrmeta.nn.class_likelihoods import Bernoulli
from ehrmeta.nn.generalised_mixed_model import fit_generalised_mixed_model, posterior_effects
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["MixedEffectsLogistic"]

Array = NDArray[np.float64]


class MixedEffectsLogistic(TaskClassifier):
    r"""Logistic regression with a random intercept of every site, by expectation propagation.

    .. math:: \mathrm{logit}\, p_{ij} = x_{ij}' \beta + b_i, \qquad b_i \sim N(0, \tau^2)

    Probabilities are averages over the posterior of :math:`b_i`.

    Parameters
    ----------
    schema, task, time, score_shots
        As in `TaskClassifier`.

    Attributes
    ----------
    mixed_model_ : GeneralisedMixedModel
        Estimates on the scale of the standardised features.

    References
    ----------
    Breslow, Clayton (1993), doi:10.1080/01621459.1993.10594284. Minka (2001), arXiv:1301.2294.

    Examples
    --------
    >>> from ehrmeta import make_cohorts
    >>> from ehrmeta.baselines import MixedEffectsLogistic
    >>> sites = make_cohorts(30, slope_sd=0.0, random_state=0)
    >>> model = MixedEffectsLogistic().fit(sites.X, sites.y, groups=sites.groups)
    >>> bool(abs(model.mixed_model_.sd[0] - 0.6) < 0.2)
    True
    """

    two_classes_only: ClassVar[bool] = True

    def __init__(
        self,
        *,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
    ) -> None:
        super().__init__(schema=schema, task=task, time=time, score_shots=score_shots)

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        x, one = _designs(rows)
        y, starts = rows.y.double().numpy(), rows.starts.numpy()
        self.mixed_model_ = fit_generalised_mixed_model(x, one, y, starts, binary=True)

    def _adapt_tasks(self, support: TaskRows) -> tuple[Array, Array]:
        x, one = _designs(support)
        y, starts = support.y.double().numpy(), support.starts.numpy()
        return posterior_effects(self.mixed_model_, x, one, y, starts)

    def _predict_tasks(
        self, support: TaskRows, state: tuple[Array, Array], query: TaskRows
    ) -> ClassPredictive:
        x, _ = _designs(query)
        codes, (effects, covariance) = query.codes.numpy(), state
        mean = torch.from_numpy(x @ self.mixed_model_.beta + effects[codes, 0])
        variance = torch.from_numpy(covariance[codes, 0, 0])
        logits = Bernoulli().logits(mean[:, None], variance[:, None])
        return ClassPredictive(logits.numpy(), self.table_.outcome.labels)


def _designs(rows: TaskRows) -> tuple[Array, Array]:
    one = np.ones((rows.n_rows, 1))
    return np.hstack([one, rows.x.double().numpy()]), one
