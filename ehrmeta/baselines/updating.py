"""Updating of a pooled model for every new site, as is common for published risk models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.optimize import minimize
from sklearn.base import ClassifierMixin, RegressorMixin, clone
from sklearn.linear_model import LinearRegression, LogisticRegression

from ehrmeta.errors import DataError
from ehrmeta.estimators._base import TaskClassifier, TaskRegressor
from ehrmeta.estimators.population_offset import Population, cross_fit_population, with_offset
from ehrmeta.estimators.predictions import ClassPredictive, Predictive
from ehrmeta.estimators.task_model import RowReader, TaskModel
from ehrmeta.nn.batch import TaskRows
from ehrmeta.nn.generalised_mixed_model import (
    GeneralisedMixedModel,
    fit_generalised_mixed_model,
    posterior_effects,
)
from ehrmeta.nn.mixed_model import MixedModel, fit_mixed_model, posterior, predict

Array = NDArray[np.float64]
Update = Literal["none", "intercept", "recalibration", "revision", "closed_test"]
UPDATES = ("none", "intercept", "recalibration", "revision")  # from least to most extensive
_UNPENALISED_SD = 100.0  # of a weak prior that keeps estimates finite if classes are separated


class Changes(NamedTuple):
    """Updates of every task's logit: effects of the constant, the logit and the features."""

    effects: Array  # (task, effect)
    chosen: NDArray[np.int64]  # (task,) index in `UPDATES`


@dataclass(eq=False, repr=False, kw_only=True)
class UpdatedClassifier(TaskClassifier):
    r"""Classifier pooled over all training sites, updated from a new site's rows.

    .. math:: \mathrm{logit}\, p = o(x) + b_0 + b_1\,(o(x) - \bar o) + x'b

    where o is the logit of the pooled model and :math:`\bar o` its mean. ``"intercept"`` estimates
    :math:`b_0` (recalibration in the large), ``"recalibration"`` estimates :math:`b_0` and
    :math:`b_1`, and ``"revision"`` estimates :math:`b_0` and b. If the pooled model is logistic, a
    revision is a ridge regression towards its coefficients. Normal priors shrink every update
    towards no change. Their variances (one for all of b) maximise the marginal likelihood over the
    training sites. Predictions use the posterior mean.

    ``"closed_test"`` chooses an update for every site. Likelihood-ratio tests compare no update,
    the intercept and recalibration, in this order, with the unpenalised revision. The first that is
    not rejected is used, or the revision if all are rejected.

    Parameters
    ----------
    population : classifier, optional
        A scikit-learn classifier of two classes; `LogisticRegression` by default.
    update : {"none", "intercept", "recalibration", "revision", "closed_test"}
        What to estimate from a new site's rows.
    significance : float
        Significance level of each likelihood-ratio test.
    schema, task, time, known, score_shots
        As in `MetaClassifier`.

    References
    ----------
    Steyerberg et al. (2004), doi:10.1002/sim.1844. Vergouwe et al. (2017), doi:10.1002/sim.7179.

    Examples
    --------
    >>> from ehrmeta import make_cohorts
    >>> from ehrmeta.baselines import UpdatedClassifier
    >>> sites = make_cohorts(10, n_patients=(40, 60), random_state=0)
    >>> model = UpdatedClassifier().fit(sites.X, sites.y, groups=sites.groups)
    >>> rare = model.adapt(sites.X[:20], [0] * 20).predict_proba(sites.X[:1])[0, 1]
    >>> bool(rare < model.predict_proba(sites.X[:1])[0, 1])
    True
    """

    two_classes_only: ClassVar[bool] = True
    population: ClassifierMixin | None = field(default=None, kw_only=False)
    update: Update = "intercept"
    significance: float = 0.05

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        if self.update not in (*UPDATES, "closed_test"):
            choices = (*UPDATES, "closed_test")
            raise DataError(f"update must be one of {choices}, got {self.update!r}.")
        pooled = LogisticRegression() if self.population is None else self.population
        population, rows = cross_fit_population(clone(pooled), rows)
        mean_offset = float(rows.offset.mean())
        models = {}
        for name in UPDATES[1:]:
            if self.update in (name, "closed_test"):
                z = _design(rows, name, mean_offset)
                models[name] = fit_generalised_mixed_model(
                    z[:, :0],
                    z,
                    rows.y.double().numpy(),
                    rows.starts.numpy(),
                    binary=True,
                    offset=rows.offset.double().numpy(),
                    shared=np.minimum(np.arange(z.shape[1]), 1),
                )
        return _ClassifierUpdates(
            **vars(reader),
            population=population,
            mean_offset=mean_offset,
            models=models,
            update=self.update,
            significance=self.significance,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _ClassifierUpdates(TaskModel):
    population: Population
    mean_offset: float
    models: Mapping[str, GeneralisedMixedModel]  # prior of every update's effects
    update: Update
    significance: float

    def adapt(self, support: TaskRows) -> Changes:
        support = with_offset(self.population, support)
        if self.update == "closed_test":
            chosen = _closed_test(*self._log_likelihoods(support), self.significance)
        else:
            chosen = np.full(support.n_tasks, UPDATES.index(self.update))
        effects = np.zeros((support.n_tasks, 2 + support.x.shape[1]))
        y, starts = support.y.double().numpy(), support.starts.numpy()
        for name, model in self.models.items():
            taken = chosen == UPDATES.index(name)
            if taken.any():
                z = _design(support, name, self.mean_offset)
                offset = support.offset.double().numpy()
                means, _ = posterior_effects(model, z[:, :0], z, y, starts, offset)
                effects[np.ix_(taken, _columns(support, name))] = means[taken]
        return Changes(effects, chosen)

    def predict(self, support: TaskRows, state: Changes, query: TaskRows) -> ClassPredictive:
        query = with_offset(self.population, query)
        offset = query.offset.double().numpy()
        changes = state.effects[query.codes.numpy()]
        design = np.column_stack([np.ones(query.n_rows), offset - self.mean_offset, query.x])
        logit = offset + np.sum(design * changes, axis=1)
        return ClassPredictive(np.column_stack([0.0 * logit, logit]), self.table.outcome.labels)

    def _log_likelihoods(self, rows: TaskRows) -> tuple[Array, Array]:
        """Maximal log-likelihood, (update, task), and number of parameters, (update,)."""
        y, offset = rows.y.double().numpy(), rows.offset.double().numpy()
        bounds = list(pairwise(rows.starts.tolist()))
        fits, counts = [], []
        for name in UPDATES:
            z = _design(rows, name, self.mean_offset) if name != "none" else np.empty((len(y), 0))
            fits.append([_max_log_likelihood(z[a:b], y[a:b], offset[a:b]) for a, b in bounds])
            counts.append(z.shape[1])
        return np.array(fits), np.array(counts)


def _columns(rows: TaskRows, name: str) -> list[int]:
    """Indices of an update's effects among constant, logit and features."""
    features = list(range(2, 2 + rows.x.shape[1]))
    return {"intercept": [0], "recalibration": [0, 1], "revision": [0, *features]}[name]


def _design(rows: TaskRows, name: str, mean_offset: float) -> Array:
    """Columns whose coefficients an update changes, among constant, centred logit and features."""
    centered = rows.offset.double().numpy() - mean_offset
    full = np.column_stack([np.ones(rows.n_rows), centered, rows.x.double().numpy()])
    return full[:, _columns(rows, name)]


def _max_log_likelihood(z: Array, y: Array, offset: Array) -> float:
    """Log-likelihood of a logistic regression with offset; 0 without rows."""

    def loss(b: Array) -> tuple[float, Array]:
        logit = offset + z @ b
        value = -special.log_expit(np.where(y == 1, logit, -logit)).sum()
        value += 0.5 * np.sum(b**2) / _UNPENALISED_SD**2
        return float(value), z.T @ (special.expit(logit) - y) + b / _UNPENALISED_SD**2

    start = np.zeros(z.shape[1])
    return -float(minimize(loss, start, jac=True).fun if len(start) and len(y) else loss(start)[0])


def _closed_test(fits: Array, counts: Array, significance: float) -> NDArray[np.int64]:
    """Index of the least extensive update that its test does not reject, (task,)."""
    freedom = (counts[-1] - counts[:-1])[:, None]
    p = stats.chi2.sf(2.0 * (fits[-1] - fits[:-1]), np.maximum(freedom, 1))
    accepted = np.vstack([p > significance, np.ones((1, fits.shape[1]), dtype=bool)])
    return np.asarray(accepted.argmax(0))


@dataclass(eq=False, repr=False, kw_only=True)
class UpdatedRegressor(TaskRegressor):
    """Regressor pooled over all training sites, with an intercept estimated at the new site.

    The intercept is the best linear unbiased prediction from the site's residuals, with variances
    estimated by REML from cross-fitted residuals of the training sites.

    Parameters
    ----------
    population : regressor, optional
        A scikit-learn regressor; `LinearRegression` by default.
    schema, task, time, known, outcome_transform, score_shots
        As in `MetaRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from ehrmeta.baselines import UpdatedRegressor
    >>> rng = np.random.default_rng(0)
    >>> sites, X = np.repeat(np.arange(20), 30), rng.normal(size=(600, 1))
    >>> y = X[:, 0] + rng.normal(size=20)[sites] + 0.1 * rng.normal(size=600)
    >>> model = UpdatedRegressor().fit(X, y, groups=sites)
    >>> model.adapt(X[:20], X[:20, 0] + 1.0).predict([[0.0]]).round(1)
    array([1.])
    """

    population: RegressorMixin | None = field(default=None, kw_only=False)

    def _fit_tasks(self, rows: TaskRows, reader: RowReader) -> TaskModel:
        pooled = LinearRegression() if self.population is None else self.population
        population, rows = cross_fit_population(clone(pooled), rows)
        one = np.ones((rows.n_rows, 1))
        self.mixed_model_ = fit_mixed_model(one, one, _residual(rows), rows.starts.numpy())
        return _SiteIntercepts(**vars(reader), population=population, mixed=self.mixed_model_)


@dataclass(frozen=True, kw_only=True, eq=False)
class _SiteIntercepts(TaskModel):
    population: Population
    mixed: MixedModel

    def adapt(self, support: TaskRows) -> tuple[Array, Array]:
        support = with_offset(self.population, support)
        one = np.ones((support.n_rows, 1))
        return posterior(self.mixed, one, one, _residual(support), support.starts.numpy())

    def predict(self, support: TaskRows, state: tuple[Array, Array], query: TaskRows) -> Predictive:
        query = with_offset(self.population, query)
        one = np.ones((query.n_rows, 1))
        mean, variance = predict(self.mixed, one, one, query.codes.numpy(), *state)
        loc = query.offset.double().numpy() + mean
        return Predictive(loc, self.table.outcome, np.sqrt(variance))


def _residual(rows: TaskRows) -> Array:
    return np.asarray((rows.y - rows.offset).double().numpy())
