"""The linear mixed model: the opponent to beat on repeated measurements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ehrmeta.baselines.mixed_regressor import MixedRegressor
from ehrmeta.data.roles import Transform
from ehrmeta.data.schema import Schema
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.mixed_model import fit_mixed_model, posterior, predict
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["MixedEffects"]

Array = NDArray[np.float64]
Posterior = tuple[Array, Array]


class MixedEffects(MixedRegressor):
    r"""Linear mixed model with a random intercept and slope in time, fitted by REML.

    .. math:: y_{ij} = x_{ij}' \beta + b_{0i} + b_{1i} s_{ij} + e_{ij}, \quad
              b_i \sim N(0, G), \; e_{ij} \sim N(0, \sigma^2)

    Adapting is the best linear unbiased prediction of :math:`b_i` from the support, and the
    prediction interval is that of the joint normal. Time s is the clock itself where its origin is
    known ahead, else the time since the support's first row. Measured features are left out, and so
    is a column that those before it all but tell.

    Parameters
    ----------
    random_slope : bool
        A slope in time of each task's own; without time there is a random intercept only.
    reml : bool
        Restricted likelihood, else maximum likelihood.
    schema, task, time, outcome_transform, score_shots
        As in `TaskRegressor`.

    Attributes
    ----------
    mixed_model_ : MixedModel
        Estimates on the standardised scale of outcome and time.
    mean_elapsed_ : float
        Mean time since the task's first row, over the training rows.

    References
    ----------
    Laird, Ware (1982), doi:10.2307/2529876.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.baselines import MixedEffects
    >>> rng = np.random.default_rng(0)
    >>> patients, days = np.repeat(np.arange(50), 6), np.tile(np.arange(6.0), 50)
    >>> y = rng.normal(10, 2, 50)[patients] + rng.normal(0, 0.1, 300)
    >>> X = np.zeros((300, 1))
    >>> model = MixedEffects().fit(X, y, groups=patients, time=days)
    >>> adapted = model.adapt(X[:2], [14.0, 14.0], time=[0, 1])
    >>> adapted.predict(X[:1], time=[2]).round(0)
    array([14.])
    """

    def __init__(
        self,
        *,
        random_slope: bool = True,
        reml: bool = True,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        outcome_transform: Transform | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
    ) -> None:
        super().__init__(
            random_slope=random_slope,
            schema=schema,
            task=task,
            time=time,
            outcome_transform=outcome_transform,
            score_shots=score_shots,
        )
        self.reml = reml

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        x, z, kept = self._training_designs(rows, table)
        y, starts = rows.y.double().numpy(), rows.starts.numpy()
        found = fit_mixed_model(x[:, kept], z, y, starts, reml=self.reml)
        beta, beta_cov = np.zeros(len(kept)), np.zeros((len(kept), len(kept)))
        beta[kept], beta_cov[np.ix_(kept, kept)] = found.beta, found.beta_cov
        self.mixed_model_ = replace(found, beta=beta, beta_cov=beta_cov)

    def _adapt_tasks(self, support: TaskRows) -> Posterior:
        x, z = self._designs(support, support, self.table_)
        y, starts = support.y.double().numpy(), support.starts.numpy()
        return posterior(self.mixed_model_, x, z, y, starts)

    def _predict_tasks(self, support: TaskRows, state: Posterior, query: TaskRows) -> Predictive:
        x, z = self._designs(support, query, self.table_)
        mean, variance = predict(self.mixed_model_, x, z, query.codes.numpy(), *state)
        return Predictive(mean, self.table_.outcome, np.sqrt(variance))

    def _own_weight(self, support: TaskRows, state: Posterior, query: TaskRows) -> Array:
        _, z = self._designs(support, query, self.table_)
        left = np.einsum("nq,nqr,nr->n", z, state[1][query.codes.numpy()], z)
        prior = np.einsum("nq,qr,nr->n", z, self.mixed_model_.G, z)
        weight: Array = 1.0 - left / np.where(prior > 0, prior, np.nan)
        return weight

    def _effects(self, support: TaskRows, state: Posterior) -> tuple[Array, float]:
        return state[0][:, 0], float(np.sqrt(self.mixed_model_.G[0, 0])) or np.nan

    def _atypical(self, support: TaskRows) -> Array:
        x, z = self._designs(support, support, self.table_)
        codes, n = support.codes.numpy(), support.sizes.numpy()
        residual = support.y.double().numpy() - x @ self.mixed_model_.beta
        effects, _ = self._adapt_tasks(support)
        explained = np.sum(z * effects[codes], axis=1)  # r' V^-1 r = r'(r - Z b) / sigma^2
        distance = np.bincount(codes, residual * (residual - explained), len(n))
        p = stats.chi2.sf(distance / self.mixed_model_.noise_var, np.maximum(n, 1))
        return np.where(n > 0, p, 1.0)
