"""The linear mixed model whose patients also drift: an Ornstein-Uhlenbeck process in time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrmeta.baselines.mixed_regressor import MixedRegressor
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.batch import padded_index
from ehrmeta.nn.mixed_model import MixedModel, fit_mixed_model
from ehrmeta.nn.mixed_process import fit_mixed_process
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["MixedProcessEffects", "Support"]

Array = NDArray[np.float64]

_ROWS_AT_ONCE = 4096


class Support(NamedTuple):
    """Supports of all tasks, padded."""

    z: Array  # (task, point, effect)
    time: Array  # (task, point)
    mask: NDArray[np.bool_]  # (task, point)
    precision: Array  # (task, point, point) inverse covariance of the outcomes, 0 where padded
    alpha: Array  # (task, point) precision times residual


class MixedProcessEffects(MixedRegressor):
    r"""Mixed model with random intercept and slope and an Ornstein-Uhlenbeck process, by REML.

    .. math:: y_{ij} = x_{ij}' \beta + b_{0i} + b_{1i} s_{ij} + u_i(s_{ij}) + e_{ij}, \quad
              \mathrm{cov}(u_i(s), u_i(s')) = \sigma_u^2 e^{-|s - s'| / \tau}

    `MixedEffects` with a memory: recent outcomes count more than old ones. Adapting is the joint
    normal's conditional given the support. Measured features are left out; without time there is
    no process.

    Parameters
    ----------
    random_slope : bool
        A slope in time of each task's own.
    schema, task, time, outcome_transform, score_shots
        As in `TaskRegressor`.

    Attributes
    ----------
    beta_, G_ : (feature,), (effect, effect)
        Fixed effects and the covariance of the random effects, on the standardised scale.
    process_var_, tau_, noise_var_ : float
        Variance of the process, its time scale in the unit of time, and the noise variance.
    mean_elapsed_ : float
        Mean time since the task's first row, over the training rows.

    References
    ----------
    Diggle (1988), doi:10.2307/2531727.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.baselines import MixedProcessEffects
    >>> rng = np.random.default_rng(0)
    >>> patients, days = np.repeat(np.arange(100), 8), np.tile(np.arange(8.0), 100)
    >>> y = rng.normal(0, 1, (100, 8)).cumsum(1).ravel()  # random walks
    >>> X = np.zeros((800, 1))
    >>> model = MixedProcessEffects().fit(X, y, groups=patients, time=days)
    >>> adapted = model.adapt(X[:3], [0.0, 1.0, 3.0], time=[0, 1, 2])
    >>> bool(adapted.predict(X[:1], time=[3])[0] > 2)  # near the last value
    True
    """

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        x, z, kept = self._training_designs(rows, table)
        y, starts = rows.y.double().numpy(), rows.starts.numpy()
        found = fit_mixed_model(x[:, kept], z, y, starts)
        self.process_var_, self.tau_ = 0.0, 1.0
        self.beta_, self.G_, self.noise_var_ = found.beta, found.G, found.noise_var
        if table.timed:
            self._add_process(x[:, kept], z, rows, found, table.time_unit)
        fitted, self.beta_ = self.beta_, np.zeros(len(kept))
        self.beta_[kept] = fitted

    def _add_process(
        self, x: Array, z: Array, rows: TaskRows, start: MixedModel, unit: float
    ) -> None:
        s, y, starts = rows.time.numpy() / unit, rows.y.double().numpy(), rows.starts.numpy()
        found = fit_mixed_process(x, z, s, y, starts, start)
        self.beta_, self.G_, self.noise_var_ = found.beta, found.G, found.noise_var
        self.process_var_, self.tau_ = found.process_var, found.tau * unit

    def _adapt_tasks(self, support: TaskRows) -> Support:
        x, z = self._designs(support, support, self.table_)
        index, mask = (part.numpy() for part in padded_index(support.starts[:-1], support.sizes))
        z, time = z[index] * mask[..., None], support.time.numpy()[index]
        residual = np.where(mask, (support.y.double().numpy() - x @ self.beta_)[index], 0.0)
        covariance = self._covariance(z, z, time, time) * mask[:, :, None] * mask[:, None, :]
        identity = np.eye(mask.shape[1])
        precision = np.linalg.inv(
            covariance + np.where(mask, self._noise, 1.0)[..., None] * identity
        )
        precision *= mask[:, :, None]
        return Support(z, time, mask, precision, np.einsum("tij,tj->ti", precision, residual))

    def _predict_tasks(self, support: TaskRows, state: Support, query: TaskRows) -> Predictive:
        mean, left = self._conditional(support, state, query)
        return Predictive(mean, self.table_.outcome, np.sqrt(left + self._noise))

    def _own_weight(self, support: TaskRows, state: Support, query: TaskRows) -> Array:
        _, z = self._designs(support, query, self.table_)
        return 1.0 - self._conditional(support, state, query)[1] / self._prior(z)

    def _conditional(
        self, support: TaskRows, state: Support, query: TaskRows
    ) -> tuple[Array, Array]:
        """Mean and variance of the noise-free outcome given the support, (row,) each."""
        x, z = self._designs(support, query, self.table_)
        codes = query.codes.numpy()
        mean, left = x @ self.beta_, np.empty(query.n_rows)
        for first in range(0, query.n_rows, _ROWS_AT_ONCE):
            at = np.arange(first, min(first + _ROWS_AT_ONCE, query.n_rows))
            tasks = codes[at]
            time = query.time.numpy()[at, None]
            cross = self._covariance(z[at, None], state.z[tasks], time, state.time[tasks])[:, 0]
            cross = cross * state.mask[tasks]
            mean[at] += np.sum(cross * state.alpha[tasks], axis=1)
            explained = np.einsum("ni,nij,nj->n", cross, state.precision[tasks], cross)
            left[at] = np.maximum(self._prior(z[at]) - explained, 0.0)
        return mean, left

    @property
    def _noise(self) -> float:
        """Noise variance, floored so that noise-free tasks can be inverted."""
        return max(self.noise_var_, 1e-8 * (self.process_var_ + float(np.trace(self.G_))), 1e-300)

    def _prior(self, z: Array) -> Array:
        prior: Array = np.einsum("nq,qr,nr->n", z, self.G_, z) + self.process_var_
        return prior

    def _covariance(self, left: Array, right: Array, at: Array, other: Array) -> Array:
        """Prior covariance of f, (task, row, row), of rows with designs and times."""
        gap = np.abs(at[:, :, None] - other[:, None, :])
        covariance: Array = left @ self.G_ @ right.swapaxes(1, 2)
        return covariance + self.process_var_ * np.exp(-gap / self.tau_)
