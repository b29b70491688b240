"""A pooled regression with a shrunken intercept of every new site's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin, clone
from sklearn.linear_model import LinearRegression

from ehrmeta.data.roles import Transform
from ehrmeta.data.schema import Schema
from ehrmeta.estimators._base import TaskRegressor
from ehrmeta.estimators.population import cross_fit_population, with_offset
from ehrmeta.estimators.predictive import Predictive
from ehrmeta.estimators.table_encoder import TableEncoder
from ehrmeta.nn.mixed_model import fit_mixed_model, posterior, predict
from ehrmeta.nn.task_rows import TaskRows

__all__ = ["UpdatedRegressor"]

Array = NDArray[np.float64]


class UpdatedRegressor(TaskRegressor):
    """A regressor pooled over all training sites, and a site's intercept from its own rows.

    The intercept is the best linear unbiased prediction from the site's residuals, with variances
    by REML over the residuals of training sites that the regressor has not seen.

    Parameters
    ----------
    population : regressor, optional
        Any of scikit-learn; `LinearRegression` by default.
    schema, task, time, outcome_transform, score_shots
        As in `TaskRegressor`.

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

    def __init__(
        self,
        population: RegressorMixin | None = None,
        *,
        schema: Schema | None = None,
        task: str | None = None,
        time: str | None = None,
        outcome_transform: Transform | None = None,
        score_shots: tuple[int, ...] = (1, 3, 5),
    ) -> None:
        super().__init__(
            schema=schema,
            task=task,
            time=time,
            outcome_transform=outcome_transform,
            score_shots=score_shots,
        )
        self.population = population

    def _fit_tasks(self, rows: TaskRows, table: TableEncoder) -> None:
        below = LinearRegression() if self.population is None else self.population
        self.population_, rows = cross_fit_population(clone(below), rows)
        one = np.ones((rows.n_rows, 1))
        self.mixed_model_ = fit_mixed_model(one, one, _residual(rows), rows.starts.numpy())

    def _adapt_tasks(self, support: TaskRows) -> tuple[Array, Array]:
        support = with_offset(self.population_, support)
        one = np.ones((support.n_rows, 1))
        starts = support.starts.numpy()
        return posterior(self.mixed_model_, one, one, _residual(support), starts)

    def _predict_tasks(
        self, support: TaskRows, state: tuple[Array, Array], query: TaskRows
    ) -> Predictive:
        query = with_offset(self.population_, query)
        one = np.ones((query.n_rows, 1))
        mean, variance = predict(self.mixed_model_, one, one, query.codes.numpy(), *state)
        loc = query.offset.double().numpy() + mean
        return Predictive(loc, self.table_.outcome, np.sqrt(variance))


def _residual(rows: TaskRows) -> Array:
    return np.asarray((rows.y - rows.offset).double().numpy())
