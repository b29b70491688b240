"""Mixed models of repeated measurements: linear, logistic, and with a process in time."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ehrmeta.estimators._base import TaskClassifier, TaskRegressor
from ehrmeta.estimators.predictions import ClassPredictive, Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows, padded_index
from ehrmeta.nn.generalised_mixed_model import (
    GeneralisedMixedModel,
    fit_generalised_mixed_model,
    posterior_effects,
)
from ehrmeta.nn.likelihoods import Bernoulli
from ehrmeta.nn.mixed_model import MixedModel, fit_mixed_model, not_collinear, posterior, predict
from ehrmeta.nn.mixed_process import fit_mixed_process

Array = NDArray[np.float64]
Posterior = tuple[Array, Array]
_ROWS_AT_ONCE = 4096


@dataclass(eq=False, repr=False, kw_only=True)
class MixedRegressor(TaskRegressor):
    """Base class of models that are linear in features and time, with random effects."""

    random_slope: bool = True

    def _training_designs(
        self, rows: TaskRows, table: TableEncoder
    ) -> tuple[dict[str, Any], Array, Array, NDArray[np.bool_]]:
        """Settings of `designs`, both designs, and which fixed columns are independent."""
        elapsed = self.mean_elapsed_ = float(time_since_first(rows, rows).mean())
        settings = {"mean_elapsed": elapsed, "random_slope": self.random_slope}
        x, z = designs(rows, rows, table, mean_elapsed=elapsed, random_slope=self.random_slope)
        return settings, x, z, not_collinear(x)


@dataclass(frozen=True, kw_only=True, eq=False)
class _LinearMixedModel(TaskModel):
    """Base class of the fitted models, which builds their designs."""

    mean_elapsed: float
    random_slope: bool

    def _designs(self, support: TaskRows, rows: TaskRows) -> tuple[Array, Array]:
        slope, elapsed = self.random_slope, self.mean_elapsed
        return designs(support, rows, self.table, mean_elapsed=elapsed, random_slope=slope)


def designs(
    support: TaskRows,
    rows: TaskRows,
    table: TableEncoder,
    *,
    mean_elapsed: float,
    random_slope: bool,
) -> tuple[Array, Array]:
    """Fixed and random designs, ``[1, features, s]`` and ``[1, s]``."""
    one = np.ones(rows.n_rows)
    x = np.column_stack([one, rows.x.double().numpy()])
    if not table.timed:
        return x, one[:, None]
    if table.clock_is_feature:  # already a column of the features
        s = (rows.time.numpy() - table.time_center) / table.time_scale
    else:  # centred, so that rows without support get the mean of the training rows
        s = np.nan_to_num(time_since_first(support, rows) - mean_elapsed)
        s /= table.time_scale
        x = np.column_stack([x, s])
    return x, np.column_stack([one, s]) if random_slope else one[:, None]


def time_since_first(support: TaskRows, rows: TaskRows) -> Array:
    """Time from the support's first row to each row, (row,); NaN without support."""
    first = np.full(support.n_tasks, np.nan)
    filled = support.sizes.numpy() > 0
    first[filled] = support.time.numpy()[support.starts[:-1].numpy()[filled]]
    elapsed: Array = rows.time.numpy() - first[rows.codes.numpy()]
    return elapsed


@dataclass(eq=False, repr=False, kw_only=True)
class MixedEffects(MixedRegressor):
    r"""Linear mixed model with a random intercept and slope in time, fitted by REML.

    .. math:: y_{ij} = x_{ij}' \beta + b_{0i} + b_{1i} s_{ij} + e_{ij}, \quad
              b_i \sim N(0, G), \; e_{ij} \sim N(0, \sigma^2)

    Adapting computes the best linear unbiased prediction of :math:`b_i` from the support.
    Prediction intervals come from the joint normal distribution. Time s is the time in the table if
    its origin is known in advance, otherwise the time since the support's first row. Measured
    features and collinear columns are dropped.

    Parameters
    ----------
    random_slope : bool
        Whether the slope in time varies over tasks; ignored without time.
    reml : bool
        Whether to use restricted rather than maximum likelihood.
    schema, task, time, known, outcome_transform, score_shots
        As in `MetaRegressor`.

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

    reml: bool = True

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        settings, x, z, independent = self._training_designs(rows, reader.table)
        y, starts = rows.y.double().numpy(), rows.starts.numpy()
        fitted = fit_mixed_model(x[:, independent], z, y, starts, reml=self.reml)
        beta, beta_cov = np.zeros(len(independent)), np.zeros((len(independent), len(independent)))
        beta[independent], beta_cov[np.ix_(independent, independent)] = fitted.beta, fitted.beta_cov
        self.mixed_model_ = replace(fitted, beta=beta, beta_cov=beta_cov)
        return _MixedEffectsModel(**vars(reader), **settings, mixed=self.mixed_model_)


@dataclass(frozen=True, kw_only=True, eq=False)
class _MixedEffectsModel(_LinearMixedModel):
    mixed: MixedModel

    def adapt(self, support: TaskRows) -> Posterior:
        x, z = self._designs(support, support)
        y, starts = support.y.double().numpy(), support.starts.numpy()
        return posterior(self.mixed, x, z, y, starts)

    def predict(self, support: TaskRows, state: Posterior, query: TaskRows) -> Predictive:
        x, z = self._designs(support, query)
        mean, variance = predict(self.mixed, x, z, query.codes.numpy(), *state)
        return Predictive(mean, self.table.outcome, np.sqrt(variance))

    def own_weight(self, support: TaskRows, state: Posterior, query: TaskRows) -> Array:
        _, z = self._designs(support, query)
        variance = np.einsum("nq,nqr,nr->n", z, state[1][query.codes.numpy()], z)
        prior = np.einsum("nq,qr,nr->n", z, self.mixed.G, z)
        weight: Array = 1.0 - variance / np.where(prior > 0, prior, np.nan)
        return weight

    def effects(self, support: TaskRows, state: Posterior) -> tuple[Array, float]:
        return state[0][:, 0], float(np.sqrt(self.mixed.G[0, 0])) or np.nan

    def atypical(self, support: TaskRows, state: Posterior) -> Array:
        x, z = self._designs(support, support)
        codes, n = support.codes.numpy(), support.sizes.numpy()
        residual = support.y.double().numpy() - x @ self.mixed.beta
        explained = np.sum(z * state[0][codes], axis=1)  # r' V^-1 r = r'(r - Z b) / sigma^2
        distance = np.bincount(codes, residual * (residual - explained), len(n))
        p = stats.chi2.sf(distance / self.mixed.noise_var, np.maximum(n, 1))
        return np.where(n > 0, p, 1.0)


class MixedEffectsLogistic(TaskClassifier):
    r"""Logistic regression with a random intercept per site, by expectation propagation.

    .. math:: \mathrm{logit}\, p_{ij} = x_{ij}' \beta + b_i, \qquad b_i \sim N(0, \tau^2)

    Probabilities are averages over the posterior of :math:`b_i`.

    Parameters
    ----------
    schema, task, time, known, score_shots
        As in `MetaClassifier`.

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

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        x, one = _designs(rows)
        y, starts = rows.y.double().numpy(), rows.starts.numpy()
        self.mixed_model_ = fit_generalised_mixed_model(x, one, y, starts, binary=True)
        return _MixedLogisticModel(**vars(reader), mixed=self.mixed_model_)


@dataclass(frozen=True, kw_only=True, eq=False)
class _MixedLogisticModel(TaskModel):
    mixed: GeneralisedMixedModel

    def adapt(self, support: TaskRows) -> Posterior:
        x, one = _designs(support)
        y, starts = support.y.double().numpy(), support.starts.numpy()
        return posterior_effects(self.mixed, x, one, y, starts)

    def predict(self, support: TaskRows, state: Posterior, query: TaskRows) -> ClassPredictive:
        x, _ = _designs(query)
        codes, (effects, covariance) = query.codes.numpy(), state
        mean = torch.from_numpy(x @ self.mixed.beta + effects[codes, 0])
        variance = torch.from_numpy(covariance[codes, 0, 0])
        logits = Bernoulli().logits(mean[:, None], variance[:, None])
        return ClassPredictive(logits.numpy(), self.table.outcome.labels)


def _designs(rows: TaskRows) -> tuple[Array, Array]:
    one = np.ones((rows.n_rows, 1))
    return np.hstack([one, rows.x.double().numpy()]), one


class Support(NamedTuple):
    """Padded supports of all tasks, with the precision of their outcomes."""

    z: Array  # (task, point, effect)
    time: Array  # (task, point)
    mask: NDArray[np.bool_]  # (task, point)
    precision: Array  # (task, point, point) inverse covariance of the outcomes, 0 where padded
    alpha: Array  # (task, point) precision times residual


class MixedProcessEffects(MixedRegressor):
    r"""Mixed model with random effects and an Ornstein-Uhlenbeck process, fitted by REML.

    .. math:: y_{ij} = x_{ij}' \beta + b_{0i} + b_{1i} s_{ij} + u_i(s_{ij}) + e_{ij}, \quad
              \mathrm{cov}(u_i(s), u_i(s')) = \sigma_u^2 e^{-|s - s'| / \tau}

    Unlike in `MixedEffects`, recent outcomes count more than old ones. Adapting conditions the
    joint normal distribution on the support. Measured features and collinear columns are dropped.
    Without time, there is no process.

    Parameters
    ----------
    random_slope, schema, task, time, known, outcome_transform, score_shots
        As in `MixedEffects`.

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

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        settings, x, z, independent = self._training_designs(rows, reader.table)
        y, starts, unit = rows.y.double().numpy(), rows.starts.numpy(), reader.table.time_unit
        fitted: Any = fit_mixed_model(x[:, independent], z, y, starts)
        self.process_var_, self.tau_ = 0.0, 1.0
        if reader.table.timed:
            s = rows.time.numpy() / unit
            fitted = fit_mixed_process(x[:, independent], z, s, y, starts, fitted)
            self.process_var_, self.tau_ = fitted.process_var, fitted.tau * unit
        self.beta_ = np.zeros(len(independent))
        self.beta_[independent] = fitted.beta
        self.G_, self.noise_var_ = fitted.G, fitted.noise_var
        return _MixedProcessModel(
            **vars(reader),
            **settings,
            beta=self.beta_,
            G=self.G_,
            noise_var=self.noise_var_,
            process_var=self.process_var_,
            tau=self.tau_,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _MixedProcessModel(_LinearMixedModel):
    beta: Array  # (feature,)
    G: Array  # (effect, effect)
    noise_var: float
    process_var: float
    tau: float

    def adapt(self, support: TaskRows) -> Support:
        x, z = self._designs(support, support)
        index, mask = (part.numpy() for part in padded_index(support.starts[:-1], support.sizes))
        z, time = z[index] * mask[..., None], support.time.numpy()[index]
        residual = np.where(mask, (support.y.double().numpy() - x @ self.beta)[index], 0.0)
        covariance = self._covariance(z, z, time, time) * mask[:, :, None] * mask[:, None, :]
        identity = np.eye(mask.shape[1])
        precision = np.linalg.inv(
            covariance + np.where(mask, self._noise, 1.0)[..., None] * identity
        )
        precision *= mask[:, :, None]
        return Support(z, time, mask, precision, np.einsum("tij,tj->ti", precision, residual))

    def predict(self, support: TaskRows, state: Support, query: TaskRows) -> Predictive:
        mean, variance = self._conditional(support, state, query)
        return Predictive(mean, self.table.outcome, np.sqrt(variance + self._noise))

    def own_weight(self, support: TaskRows, state: Support, query: TaskRows) -> Array:
        _, z = self._designs(support, query)
        return 1.0 - self._conditional(support, state, query)[1] / self._prior(z)

    def _conditional(
        self, support: TaskRows, state: Support, query: TaskRows
    ) -> tuple[Array, Array]:
        """Mean and variance of the noise-free outcome given the support, (row,) each."""
        x, z = self._designs(support, query)
        codes = query.codes.numpy()
        mean, variance = x @ self.beta, np.empty(query.n_rows)
        for first in range(0, query.n_rows, _ROWS_AT_ONCE):
            at = np.arange(first, min(first + _ROWS_AT_ONCE, query.n_rows))
            tasks = codes[at]
            time = query.time.numpy()[at, None]
            cross = self._covariance(z[at, None], state.z[tasks], time, state.time[tasks])[:, 0]
            cross = cross * state.mask[tasks]
            mean[at] += np.sum(cross * state.alpha[tasks], axis=1)
            explained = np.einsum("ni,nij,nj->n", cross, state.precision[tasks], cross)
            variance[at] = np.maximum(self._prior(z[at]) - explained, 0.0)
        return mean, variance

    @property
    def _noise(self) -> float:
        """Noise variance with a lower bound, so that covariances can be inverted."""
        return max(self.noise_var, 1e-8 * (self.process_var + float(np.trace(self.G))), 1e-300)

    def _prior(self, z: Array) -> Array:
        prior: Array = np.einsum("nq,qr,nr->n", z, self.G, z) + self.process_var
        return prior

    def _covariance(self, left: Array, right: Array, at: Array, other: Array) -> Array:
        """Prior covariance (task, row, row) of the noise-free outcome at two designs and times."""
        gap = np.abs(at[:, :, None] - other[:, None, :])
        covariance: Array = left @ self.G @ right.swapaxes(1, 2)
        return covariance + self.process_var * np.exp(-gap / self.tau)
